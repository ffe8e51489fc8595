"""From moments and a target to a verdict, and to the report that carries it.

With exact evidence the bias is within the tolerance, or it is not. Without a tolerance, it has to
be 0 but for the rounding of the coarsest dtype in the estimator, and for small constants that guard
its divisions. With sampling it depends on which side of the tolerance the interval of the bias norm
lies. Where no reward can be reached, the estimator cannot vary, or the target happens to be 0,
nothing is tested: such a verdict is VACUOUS.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from gradbias.analytic.problems.targets import Target
from gradbias.analytic.utils.validation import real_number
from gradbias.stochastic.estimators.kinds import ROUNDINGS
from gradbias.stochastic.tracing.imprecision import MAX_GUARD
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

SAMPLED_TOLERANCE = 0.01
"""The largest relative bias that sampling calls UNBIASED by default."""

_EXPLAINED = 1e-2
"""The share of a bias that may be left when the guards that explain it are taken away: their effect
is proportional to them only to first order."""

_SUMMED = 1e-13
_SOLVED = 1e-15
"""The rounding of an enumerated mean, relative to its absolute terms; and that of an exact
derivative, relative to the values that it is made of."""

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
    """The largest relative bias that sampling calls UNBIASED, and the rates of type I (false alarm)
    and type II errors (missed bias). ``exact`` is the largest relative bias that exact evidence
    calls UNBIASED; None stands for no more than rounding and guards.
    """

    tolerance: float
    false_alarm: float
    missed_bias: float
    exact: float | None = None

    @classmethod
    def of(cls, tolerance: float | None, false_alarm: float, missed_bias: float) -> ErrorRates:
        """The rates, with one tolerance for all evidence, or (None) the default of each."""
        sampled = SAMPLED_TOLERANCE if tolerance is None else tolerance
        return cls(sampled, false_alarm, missed_bias, tolerance)

    def __post_init__(self) -> None:
        real_number("tolerance", self.tolerance, low=1e-300, high=1e300)
        real_number("false_alarm", self.false_alarm, low=1e-300, high=0.5)
        real_number("missed_bias", self.missed_bias, low=1e-300, high=0.5)
        if self.exact is not None:
            real_number("tolerance", self.exact, low=1e-300, high=1e300)


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
        is_solved = isinstance(subject.target, Target)
        solved = _SOLVED * subject.rounding_scale if is_solved else 0.0
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
    decided, doubt = decide(ends, tolerated), _doubt(measured)
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


def _doubt(measured: MeasuredMoments) -> Doubt | None:
    """Why the sampled mean is not taken for normal, by what is known and by the sample itself."""
    moments = measured.moments
    if moments.largest == 0.0:
        return Reason.ONLY_ZEROS, ""
    if measured.doubt is not None:
        return measured.doubt
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
        judgement = _judge_exact(subject, gap, measured, rates)
    return _with_zeros(subject, measured, judgement)


def small_bias(subject: Subject, moments: Moments) -> bool:
    """Whether a bias is not 0 to rounding in float64, but so small that guards may explain it."""
    gap = Gap.of(subject, moments)
    return max(EXACT_TOLERANCE * gap.unit, gap.rounding) < gap.distance <= MAX_GUARD * gap.unit


def _judge_exact(
    subject: Subject, gap: Gap, measured: MeasuredMoments, rates: ErrorRates
) -> Judgement:
    strict = max(EXACT_TOLERANCE * gap.unit, gap.rounding)
    imprecision, unguarded = measured.imprecision, measured.unguarded
    rounded = max(strict, ROUNDINGS * imprecision.rounding * measured.moments.absolute)
    left = gap.distance
    if unguarded is not None:
        left = float(np.linalg.norm(unguarded - subject.exact))
    guards = ", ".join(imprecision.guards)
    is_guarded = left < gap.distance and left <= max(rounded, _EXPLAINED * gap.distance)
    causes = [(Reason.ROUNDED, imprecision.coarsest, rounded)] if imprecision.coarsest else []
    causes += [(Reason.GUARDED, guards, MAX_GUARD * gap.unit)] if is_guarded else []
    causes = [cause for cause in causes if strict < gap.distance <= cause[2]]

    def judged(
        verdict: Verdict, allowed: float, reason: Reason | None = None, detail: str = ""
    ) -> Judgement:
        tolerance = allowed / gap.unit if gap.unit > 0 else EXACT_TOLERANCE
        return Judgement(verdict, gap, gap.distance, tolerance, reason, detail)

    if gap.distance <= strict:
        return judged(Verdict.UNBIASED, strict)
    if rates.exact is not None:
        allowed = max(rates.exact * gap.unit, gap.rounding)
        if gap.distance <= allowed:
            return judged(Verdict.UNBIASED, allowed, Reason.WITHIN_TOLERANCE)
        notes = tuple(reason.with_detail(detail) for reason, detail, _ in causes)
        return replace(judged(Verdict.BIASED, allowed), notes=notes)
    if causes:
        reason, detail, allowed = causes[0]
        return judged(Verdict.UNBIASED, allowed, reason, detail)
    return judged(Verdict.BIASED, rounded)


def _with_zeros(subject: Subject, measured: MeasuredMoments, judgement: Judgement) -> Judgement:
    """The judgement, changed where rewards, estimates or the target are 0."""
    moments = measured.moments
    vacuous = replace(judgement, verdict=Verdict.VACUOUS)
    if subject.unrewarded is not None:
        return replace(vacuous, reason=Reason.NO_REWARD, detail=subject.unrewarded)
    target_is_zero = judgement.gap.target_is_zero
    if moments.largest == 0.0 and moments.outcomes > 0:
        zeros = replace(vacuous, reason=Reason.ZERO_ESTIMATOR, detail="")
        return zeros if target_is_zero else judgement
    if not target_is_zero or judgement.verdict is Verdict.BIASED:
        return judgement
    if isinstance(subject.target, Target):  # it happens to be 0: a wrong factor would not show
        return replace(vacuous, reason=Reason.ZERO_TARGET, detail="")
    if judgement.verdict is Verdict.UNBIASED and judgement.reason is None:
        return replace(judgement, reason=Reason.NOTHING_ON_AVERAGE)
    return judgement


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
