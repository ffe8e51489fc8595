"""The report of one measurement: plain data that prints as sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from gradbias.analytic.problems.targets import AnyTarget
from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.evidence.reasons import Reason
from gradbias.verification.evidence.setting import Setting


class Verdict(Enum):
    """The answer of a report. `VACUOUS` says that nothing was tested: no reward can be reached,
    estimator and target are 0, or the return's derivative happens to be 0 here.
    """

    UNBIASED = "UNBIASED"
    BIASED = "BIASED"
    UNDECIDED = "UNDECIDED"
    VACUOUS = "VACUOUS"


class Evidence(Enum):
    """Where an estimator's expectation comes from; the strongest evidence is the first."""

    SYMBOLIC = "symbolic"
    ENUMERATION = "enumeration"
    MOMENTS = "moments"
    SAMPLING = "sampling"


@dataclass(frozen=True)
class Direction:
    """A mean, split into a multiple of the target and a rest.

    Attributes:
        scale: the factor of the target that is nearest to the mean; NaN where the target is 0.
        residual: the norm of what is left, over the target's norm; NaN where either is 0.
        cosine: the cosine of the angle between mean and target; NaN likewise.
    """

    scale: float
    residual: float
    cosine: float

    @classmethod
    def of(cls, mean: FloatArray, target: FloatArray) -> Direction:
        """The split of ``mean`` along ``target``, two arrays of one shape."""
        inner = float(np.vdot(mean, target))
        size, length = float(np.linalg.norm(target)), float(np.linalg.norm(mean))
        if size == 0.0 or length == 0.0:
            return cls(math.nan if size == 0.0 else 0.0, math.nan, math.nan)
        scale = inner / size**2
        residual = float(np.linalg.norm(mean - scale * target)) / size
        return cls(scale, residual, inner / (size * length))

    def __str__(self) -> str:
        if math.isnan(self.scale):
            return "undefined: the target is 0"
        if math.isnan(self.cosine):
            return "the mean is 0"
        parts = f"residual {self.residual:.3g}, cosine {self.cosine:.6g}"
        return f"scale {self.scale:.6g} times the target, {parts}"


def counted(count: int, noun: str) -> str:
    """A count with its noun: ``1 state``, ``2 states``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def largest_components(array: FloatArray, count: int) -> list[tuple[int, ...]]:
    """Indices of the ``count`` largest absolute components that are not 0, largest first."""
    size = np.abs(array).ravel()
    count = min(count, size.size)
    largest = np.argpartition(-size, count - 1)[:count]
    ordered = largest[np.argsort(-size[largest], kind="stable")]
    where = [np.unravel_index(k, array.shape) for k in ordered if size[k] > 0]
    return [tuple(int(i) for i in index) for index in where]


@dataclass(frozen=True, eq=False)
class BiasReport:
    """One measurement: is the estimator's expectation the target?

    Attributes:
        estimator, target: what was measured, and the target that it was compared with.
        verdict, reason, detail: the answer, why, and the numbers that belong to the reason.
        mean, exact: the estimator's expectation and the target's value, shaped like an estimate.
        variance: the componentwise variance of one estimate from ``batch_size`` trajectories.
        normaliser: what relative numbers are relative to: the target's norm, or the problem's
            natural scale (max|Q| x total occupancy) where the target is 0.
        interval: an interval of the bias norm; None for exact evidence.
        bias_norm: the Euclidean norm of the bias; under sampling without the noise's share.
        evidence, assumption, scope: what the verdict rests on, takes for granted and holds for.
        batch_size: N, the number of trajectories in a batch.
        coupled: whether an estimate is more than the mean of its trajectories' own estimates.
        samples: the number of outcomes that were enumerated or sampled.
        tolerance: the largest relative bias that is still called UNBIASED.
        false_alarm, missed_bias: the rates of type I and type II errors; None for exact evidence.
        smallest_detectable: a relative bias that this many samples would have shown.
        samples_to_decide: about how many samples would decide; None where that is not known.
        seconds, notes: how long the measurement took, and what else a reader should know.
        covariance: one estimate's covariance, its axes twice, where it was asked for.
        setting: where the estimator was measured; None for meta-gradients.
    """

    estimator: str
    target: AnyTarget
    verdict: Verdict
    reason: Reason | None
    detail: str
    mean: FloatArray
    exact: FloatArray
    variance: FloatArray
    normaliser: float
    interval: tuple[float, float] | None
    bias_norm: float
    evidence: Evidence
    assumption: str
    scope: str
    batch_size: int
    coupled: bool
    samples: int
    tolerance: float
    false_alarm: float | None
    missed_bias: float | None
    smallest_detectable: float | None
    samples_to_decide: int | None
    seconds: float
    notes: tuple[str, ...] = ()
    covariance: FloatArray | None = None
    setting: Setting | None = None

    def raise_if_biased(self) -> None:
        """Raises AssertionError, with the report's text, if the verdict is BIASED."""
        if self.verdict is Verdict.BIASED:
            raise AssertionError(str(self))

    def raise_unless_unbiased(self) -> None:
        """Raises AssertionError, with the report's text, for any verdict but UNBIASED."""
        if self.verdict is not Verdict.UNBIASED:
            raise AssertionError(str(self))

    @property
    def bias(self) -> FloatArray:
        """The mean minus the target."""
        difference: FloatArray = self.mean - self.exact
        return difference

    @property
    def target_norm(self) -> float:
        """The Euclidean norm of the target."""
        return float(np.linalg.norm(self.exact))

    @property
    def relative_bias(self) -> float:
        """The bias norm over the normaliser."""
        return self.bias_norm / self.normaliser if self.normaliser > 0 else 0.0

    @property
    def evidence_text(self) -> str:
        """The evidence with the number of outcomes that it rests on."""
        if self.evidence is Evidence.MOMENTS:
            return "moments, by recursion"
        return f"{self.evidence.value}, {counted(self.samples, 'outcome')}"

    @property
    def half_width(self) -> float:
        """Half of the relative interval's length; 0 for exact evidence."""
        return (self.relative_interval[1] - self.relative_interval[0]) / 2

    @property
    def relative_interval(self) -> tuple[float, float]:
        """The interval of the bias norm over the normaliser."""
        if self.interval is None or self.normaliser == 0.0:
            return (0.0, 0.0)
        low, high = self.interval
        return low / self.normaliser, high / self.normaliser

    @property
    def direction(self) -> Direction:
        """The bias as a change of scale and of direction."""
        return Direction.of(self.mean, self.exact)

    @property
    def deviation_per_trajectory(self) -> float:
        """sqrt(N x trace of the covariance): the standard deviation per trajectory."""
        return math.sqrt(self.batch_size * float(self.variance.sum()))

    def worst(self, count: int = 5) -> list[tuple[int, ...]]:
        """The indices of the ``count`` largest components of the bias, largest first."""
        return largest_components(self.bias, count)

    def sentence(self) -> str:
        """The verdict with its target, its scope and its reason."""
        percent = f"{100 * self.relative_bias:.3g}%"
        what = f"{self.target}, {self.scope}"
        why = "" if self.reason is None else f": {self.reason.with_detail(self.detail)}"
        if self.verdict is Verdict.UNBIASED:
            is_zero = self.interval is None and self.reason in (None, Reason.NOTHING_ON_AVERAGE)
            figure = self.tolerance if self.interval is not None else self.relative_bias
            within = "" if is_zero else f" to within {100 * figure:.3g}%"
            return f"UNBIASED{within} for {what}{why}"
        if self.verdict is Verdict.BIASED:
            return f"BIASED for {what}: off by {percent} of {self._yardstick()}"
        return f"{self.verdict.value} for {what}{why}"

    def _yardstick(self) -> str:
        if self.normaliser == self.target_norm:
            return "the target's norm"
        return "max|Q| x occupancy (the target itself is 0)"

    def __str__(self) -> str:
        split = self.direction
        lines = [
            f"{self.estimator}: {self.sentence()}",
            f"  bias        {self._size()}",
            f"  split       {'' if self.interval is None else 'of the sampled mean: '}{split}",
            f"  evidence    {self.evidence_text}",
            f"  assumption  {self.assumption}",
            f"  scope       {self.scope}",
            f"  deviation   {self.deviation_per_trajectory:.6g} {self._deviation_unit()}",
        ]
        if self.interval is not None:
            low, high = self.relative_interval
            lines.append(
                f"  interval    relative bias in [{low:.3g}, {high:.3g}], false alarm "
                f"{self.false_alarm:g}; smallest detectable {self._detectable()} "
                f"(missed {self.missed_bias:g})"
            )
        lines += [f"  worst       {self._component(index)}" for index in self.worst(3)]
        lines += [f"  note        {note}" for note in self.notes]
        return "\n".join(lines)

    def _size(self) -> str:
        absolute = f"absolute {self.bias_norm:.6g} (target {self.target_norm:.6g})"
        return f"{absolute}, relative {self.relative_bias:.3g}"

    def _detectable(self) -> str:
        smallest = self.smallest_detectable
        return "undefined" if smallest is None else f"{smallest:.3g}"

    def _deviation_unit(self) -> str:
        if self.coupled and self.batch_size == 1:
            return "of one estimate"
        if self.coupled:
            return f"of one estimate from N = {self.batch_size}, times sqrt(N)"
        return "per trajectory"

    def _component(self, index: tuple[int, ...]) -> str:
        """One component: its states and actions, its mean and its exact value."""
        at = ", ".join(str(i) for i in index)
        if len(index) == 2 * self.target.order:
            pairs = zip(index[::2], index[1::2], strict=True)
            at = " x ".join(f"(state {s}, action {a})" for s, a in pairs)
        return f"{at}: expected {self.mean[index]:.6g}, exact {self.exact[index]:.6g}"

    def as_dict(self) -> dict[str, Any]:
        """The report in plain numbers, lists and strings, for JSON; None where undefined."""
        split = self.direction
        entries: dict[str, Any] = {
            "verdict": self.verdict.value,
            "reason": None if self.reason is None else self.reason.name,
            "sentence": self.sentence(),
            "estimator": self.estimator,
            "target": str(self.target),
            "order": self.target.order,
            "evidence": self.evidence.value,
            "assumption": self.assumption,
            "scope": self.scope,
            "bias_norm": self.bias_norm,
            "target_norm": self.target_norm,
            "relative_bias": self.relative_bias,
            "half_width": self.half_width,
            "interval": self.interval,
            "relative_interval": None if self.interval is None else self.relative_interval,
            "smallest_detectable": self.smallest_detectable,
            "scale": split.scale,
            "residual": split.residual,
            "cosine": split.cosine,
            "deviation_per_trajectory": self.deviation_per_trajectory,
            "deviation_unit": self._deviation_unit(),
            "batch_size": self.batch_size,
            "coupled": self.coupled,
            "samples": self.samples,
            "samples_to_decide": self.samples_to_decide,
            "tolerance": self.tolerance,
            "false_alarm": self.false_alarm,
            "missed_bias": self.missed_bias,
            "notes": list(self.notes),
            "seconds": self.seconds,
        }
        for key, value in entries.items():
            if isinstance(value, float) and not math.isfinite(value):
                entries[key] = None
        return entries | {"bias": self.bias.tolist()}
