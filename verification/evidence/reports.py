"""What a measurement found, as data with a sentence: no plots, no files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from gradbias.analytic.problems.targets import AnyTarget
from gradbias.analytic.utils.validation import FloatArray


class Verdict(Enum):
    """The answer. `VACUOUS`: the target, the rewards or the estimator is identically 0, so
    nothing was tested.
    """

    UNBIASED = "UNBIASED"
    BIASED = "BIASED"
    UNDECIDED = "UNDECIDED"
    VACUOUS = "VACUOUS"


class Evidence(Enum):
    """Where the expectation comes from, strongest first."""

    SYMBOLIC = "symbolic"
    ENUMERATION = "enumeration"
    MOMENTS = "moments"
    SAMPLING = "sampling"


@dataclass(frozen=True)
class Direction:
    """How the mean lies to the target: the best scalar multiple of the target, what is left over
    (relative to the target's norm), and their cosine. NaN where target or mean is 0.
    """

    scale: float
    residual: float
    cosine: float

    @classmethod
    def of(cls, mean: FloatArray, target: FloatArray) -> Direction:
        """The split of ``mean`` along ``target``."""
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
        return (
            f"scale {self.scale:.6g} times the target, residual {self.residual:.3g}, "
            f"cosine {self.cosine:.6g}"
        )


def counted(count: int, noun: str) -> str:
    """``1 state``, ``2 states``."""
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

    ``bias``, ``mean``, ``exact`` (the target's value) and ``variance`` (of one estimate from
    ``batch_size`` trajectories) are shaped like the estimate. ``interval`` bounds the bias norm
    (None for exact evidence). ``relative_bias`` is the bias norm over ``normaliser``: the target's
    norm, or the problem's natural scale (max|Q| x total occupancy) where the target is 0.
    """

    estimator: str
    target: AnyTarget
    verdict: Verdict
    reason: str
    mean: FloatArray
    exact: FloatArray
    variance: FloatArray
    normaliser: float
    interval: tuple[float, float] | None
    bias_norm: float
    """Euclidean: of the bias itself, or under sampling with the noise's share taken off."""
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
    """Of one estimate, its axes twice; on request, for gradients."""

    @property
    def bias(self) -> FloatArray:
        """Mean minus target."""
        difference: FloatArray = self.mean - self.exact
        return difference

    @property
    def target_norm(self) -> float:
        """Euclidean norm of the target."""
        return float(np.linalg.norm(self.exact))

    @property
    def relative_bias(self) -> float:
        """The bias norm over the normaliser."""
        return self.bias_norm / self.normaliser if self.normaliser > 0 else 0.0

    @property
    def evidence_text(self) -> str:
        """The evidence, and how much of it."""
        if self.evidence is Evidence.MOMENTS:
            return "moments, by recursion"
        return f"{self.evidence.value}, {counted(self.samples, 'outcome')}"

    @property
    def half_width(self) -> float:
        """Half the interval's length, relative like the bias; 0 for exact evidence."""
        if self.interval is None:
            return 0.0
        low, high = self.relative_interval
        return (high - low) / 2

    @property
    def relative_interval(self) -> tuple[float, float]:
        """The interval over the normaliser."""
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
        """sqrt(N x trace of the covariance): the deviation that one trajectory is worth."""
        return math.sqrt(self.batch_size * float(self.variance.sum()))

    def worst(self, count: int = 5) -> list[tuple[int, ...]]:
        """See `largest_components`, of the bias."""
        return largest_components(self.bias, count)

    def sentence(self) -> str:
        """The verdict, its target and its scope."""
        percent = f"{100 * self.relative_bias:.3g}%"
        what = f"{self.target}, {self.scope}"
        if self.verdict is Verdict.UNBIASED:
            within = "" if self.interval is None else f" to within {100 * self.tolerance:.3g}%"
            return f"UNBIASED{within} for {what}{self.reason}"
        if self.verdict is Verdict.BIASED:
            return f"BIASED for {what}: off by {percent} of {self._yardstick()}"
        if self.verdict is Verdict.UNDECIDED:
            return f"UNDECIDED for {what}: {self.reason}"
        return f"VACUOUS for {what}: {self.reason}"

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
        return (
            "undefined" if self.smallest_detectable is None else f"{self.smallest_detectable:.3g}"
        )

    def _deviation_unit(self) -> str:
        if self.coupled and self.batch_size == 1:
            return "of one estimate"
        if self.coupled:
            return f"of one estimate from N = {self.batch_size}, times sqrt(N)"
        return "per trajectory"

    def _component(self, index: tuple[int, ...]) -> str:
        """One component with what is known of it, named by state and action where it has them."""
        at = ", ".join(str(i) for i in index)
        if len(index) == 2 * self.target.order:
            pairs = zip(index[::2], index[1::2], strict=True)
            at = " x ".join(f"(state {s}, action {a})" for s, a in pairs)
        return f"{at}: expected {self.mean[index]:.6g}, exact {self.exact[index]:.6g}"

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings, for JSON; what is undefined is None."""
        split = self.direction
        found: dict[str, Any] = {
            "verdict": self.verdict.value,
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
        for key, value in found.items():
            if isinstance(value, float) and not math.isfinite(value):
                found[key] = None
        return found | {"bias": self.bias.tolist()}
