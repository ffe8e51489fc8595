"""From moments and a target to a verdict, and to the report that carries it.

With exact evidence the bias is 0 up to rounding, or it is not. With sampling it depends on which
side of the tolerance the interval of the bias norm lies. Nothing is tested where the target, the
rewards or the estimator is identically 0: such a verdict is VACUOUS.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from gradbias.analytic.problems.targets import GivenTarget
from gradbias.analytic.utils.validation import real_number
from gradbias.verification.confidence.norm_intervals import (
    ASSUMPTION,
    estimate_spread,
    max_share,
)
from gradbias.verification.evidence.accumulated_moments import Moments
from gradbias.verification.evidence.reasons import Doubt, Reason
from gradbias.verification.evidence.reports import BiasReport, Evidence, Verdict
from gradbias.verification.evidence.subjects import MeasuredMoments, Subject

EXACT_TOLERANCE = 1e-9
"""The largest relative bias that exact evidence takes for rounding."""

_SUMMED = 1e-13
_SOLVED = 1e-15
"""The rounding of an enumerated mean, relative to its absolute terms; and that of an exact
derivative, relative to the values that it is made of."""

_SINGLE = 1e-5
"""A relative bias below this may be single precision's."""

_MAX_SHARE = 0.04
"""The largest share of one estimate in the sum of squares, in a sample of fixed size."""

DOUBTED = "the interval takes the mean for normal, which is doubted: the bias may lie outside it"
"""The note on an interval that decides nothing."""

_RESOLVED = 1e-3
"""A target is taken for 0 where rounding is more than this share of it."""


_ASSUMPTIONS = {
    Evidence.ENUMERATION: "none: every outcome is enumerated with its probability",
    Evidence.MOMENTS: "none: mean and variance over all trajectories, by recursion over time",
}


@dataclass(frozen=True)
class ErrorRates:
    """The largest relative bias that is called UNBIASED, and the rates of type I (false alarm) and
    type II errors (missed bias).
    """

    tolerance: float
    false_alarm: float
    missed_bias: float

    def __post_init__(self) -> None:
        real_number("tolerance", self.tolerance, low=1e-300, high=1e300)
        real_number("false_alarm", self.false_alarm, low=1e-300, high=0.5)
        real_number("missed_bias", self.missed_bias, low=1e-300, high=0.5)


@dataclass(frozen=True)
class Gap:
    """How far a mean is from the target: the norm of their difference ``distance``, its
    ``rounding``, the ``unit`` of relative numbers, and whether the target is 0 to rounding.
    """

    distance: float
    rounding: float
    unit: float
    target_is_zero: bool

    @classmethod
    def of(cls, subject: Subject, moments: Moments) -> Gap:
        """The gap between the moments' mean and the subject's target."""
        is_given = isinstance(subject.target, GivenTarget)
        solved = 0.0 if is_given else _SOLVED * subject.rounding_scale
        rounding = max(_SUMMED * moments.absolute, solved)
        target_norm = float(np.linalg.norm(subject.exact))
        is_zero = rounding >= _RESOLVED * target_norm
        unit = (subject.scale or moments.absolute) if is_zero else target_norm
        distance = float(np.linalg.norm(moments.mean - subject.exact))
        return cls(distance, rounding, unit, is_zero)

    def widened(self, low: float, high: float) -> tuple[float, float]:
        """An interval of the bias norm that allows for rounding."""
        return max(low - self.rounding, 0.0), high + self.rounding


@dataclass(frozen=True)
class Judgement:
    """A verdict with what it rests on; the fields are those of `BiasReport`."""

    verdict: Verdict
    gap: Gap
    bias_norm: float
    tolerance: float
    reason: Reason | None = None
    detail: str = ""
    interval: tuple[float, float] | None = None
    assumption: str | None = None
    rates: ErrorRates | None = None
    smallest_detectable: float | None = None
    samples_to_decide: int | None = None
    notes: tuple[str, ...] = ()


SampledJudge = Callable[[Subject, Gap, MeasuredMoments, ErrorRates], Judgement]
"""The judgement of sampled moments."""


def judge_fixed_sample(
    subject: Subject, gap: Gap, measured: MeasuredMoments, rates: ErrorRates
) -> Judgement:
    """The judgement on one sample of fixed size (see `verification.confidence.norm_intervals`)."""
    moments, unit = measured.moments, gap.unit
    n, tolerated = moments.outcomes, rates.tolerance * unit
    # An uncoupled estimator is sampled one trajectory at a time, whatever N the report is for.
    per_estimate = 1 if measured.coupled else measured.batch_size
    trace = float(moments.variance.sum()) * per_estimate if moments.left is None else moments.left
    spread = estimate_spread(trace, moments.kept)
    interval = spread.interval(gap.distance, n, rates.false_alarm)
    ends = gap.widened(interval.low, interval.high)
    open_verdict = Judgement(
        Verdict.UNDECIDED,
        gap,
        interval.point,
        rates.tolerance,
        interval=ends,
        assumption=ASSUMPTION,
        rates=rates,
    )
    if unit == 0.0:
        return open_verdict
    design = (tolerated, rates.false_alarm, rates.missed_bias)
    smallest = spread.smallest_detectable(n, *design) / unit
    decided, doubt = decide(ends, tolerated), measured.doubt or _heavy_tails(moments)
    needed = spread.samples_to_decide(interval.point, *design) if decided is None else None
    if doubt is not None:
        told: dict[str, Any] = {"reason": doubt[0], "detail": doubt[1], "notes": (DOUBTED,)}
        return replace(open_verdict, samples_to_decide=needed, **told)
    if decided is not None:
        verdict, reason = decided
        return replace(open_verdict, verdict=verdict, reason=reason, smallest_detectable=smallest)
    reason = Reason.NO_VARIATION if spread.trace == 0.0 else Reason.MORE_SAMPLES
    return replace(
        open_verdict,
        reason=Reason.AT_TOLERANCE if needed is None else reason,
        detail=undecided_detail(open_verdict, n, needed if spread.trace else None),
        smallest_detectable=smallest,
        samples_to_decide=needed,
    )


def _heavy_tails(moments: Moments) -> Doubt | None:
    """Why the sampled mean is not taken for normal, by the sample itself."""
    n, share = moments.outcomes, moments.largest_share
    if share <= max(_MAX_SHARE, max_share(n)):
        return None
    return Reason.HEAVY_TAILS, f"{100 * share:.3g}% in one of {n:,}"


def decide(interval: tuple[float, float], tolerated: float) -> tuple[Verdict, Reason | None] | None:
    """The verdict on a bias norm in ``interval``; None where that contains ``tolerated``."""
    low, high = interval
    if low > tolerated:
        return Verdict.BIASED, None
    if high <= tolerated:
        return Verdict.UNBIASED, Reason.SIGNIFICANT if low > 0 else Reason.NOT_SIGNIFICANT
    return None


def undecided_detail(judgement: Judgement, samples: int, needed: int | None) -> str:
    """The numbers of an UNDECIDED verdict from ``samples`` estimates, of which about ``needed``
    would have decided (None: not known).
    """
    unit = judgement.gap.unit
    low, high = (end / unit for end in judgement.interval or (0.0, 0.0))
    text = f"relative bias in [{low:.3g}, {high:.3g}], tolerance {judgement.tolerance:g}"
    if needed is None:
        return text
    assumed = f"if the bias is {judgement.bias_norm / unit:.3g} (here {samples:,})"
    return f"{text}; about {float(needed):.2g} estimates would decide {assumed}"


def judge(
    subject: Subject,
    measured: MeasuredMoments,
    rates: ErrorRates,
    sampled: SampledJudge = judge_fixed_sample,
) -> Judgement:
    """The verdict on the measured moments; ``sampled`` gives that on sampled ones."""
    gap = Gap.of(subject, measured.moments)
    if measured.evidence is Evidence.SAMPLING:
        judgement = sampled(subject, gap, measured, rates)
    else:
        judgement = _judge_exact(gap)
    vacuous = _vacuous(subject, measured.moments, judgement)
    if vacuous is None:
        return judgement
    detail = (subject.unrewarded or "") if vacuous is Reason.NO_REWARD else ""
    return replace(judgement, verdict=Verdict.VACUOUS, reason=vacuous, detail=detail)


def _judge_exact(gap: Gap) -> Judgement:
    allowed = max(EXACT_TOLERANCE * gap.unit, gap.rounding)
    tolerance = allowed / gap.unit if gap.unit > 0 else EXACT_TOLERANCE
    if gap.distance <= allowed:
        return Judgement(Verdict.UNBIASED, gap, gap.distance, tolerance)
    notes: tuple[str, ...] = ()
    if gap.distance < _SINGLE * gap.unit:
        notes = ("float32 inside the estimator makes biases as small as this; records are float64",)
    return Judgement(Verdict.BIASED, gap, gap.distance, tolerance, notes=notes)


def _vacuous(subject: Subject, moments: Moments, judgement: Judgement) -> Reason | None:
    """Why nothing was tested; None where something was."""
    if subject.unrewarded is not None:
        return Reason.NO_REWARD
    if moments.largest == 0.0 and moments.outcomes > 0:
        return Reason.ZERO_ESTIMATOR
    if judgement.gap.target_is_zero and judgement.verdict is not Verdict.BIASED:
        return Reason.ZERO_TARGET
    return None


R = TypeVar("R", bound=BiasReport)


def report_of(
    kind: type[R],
    subject: Subject,
    measured: MeasuredMoments,
    judgement: Judgement,
    began: float,
    **more: Any,
) -> R:
    """The report of ``kind``, from a finished judgement of a measurement that began at that time
    (by `time.perf_counter`); ``more`` are the fields that this kind adds.
    """
    moments, rates = measured.moments, judgement.rates
    return kind(
        estimator=subject.estimator,
        target=subject.target,
        verdict=judgement.verdict,
        reason=judgement.reason,
        detail=judgement.detail,
        mean=moments.mean,
        exact=subject.exact,
        variance=moments.variance,
        normaliser=judgement.gap.unit,
        interval=judgement.interval,
        bias_norm=judgement.bias_norm,
        evidence=measured.evidence,
        assumption=judgement.assumption
        or measured.assumption
        or _ASSUMPTIONS.get(measured.evidence, ""),
        scope=subject.scope,
        batch_size=measured.batch_size,
        coupled=measured.coupled,
        samples=moments.outcomes,
        tolerance=judgement.tolerance,
        false_alarm=None if rates is None else rates.false_alarm,
        missed_bias=None if rates is None else rates.missed_bias,
        smallest_detectable=judgement.smallest_detectable,
        samples_to_decide=judgement.samples_to_decide,
        seconds=time.perf_counter() - began,
        notes=(*subject.notes, *measured.notes, *judgement.notes),
        covariance=moments.covariance,
        setting=subject.setting,
        **more,
    )
