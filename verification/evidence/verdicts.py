"""From moments and a target to a verdict.

Exact evidence: the bias is 0 up to rounding, or it is not. Sampling: where its interval lies to the
tolerance. Neither says anything where the target, the rewards or the estimator is identically 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.targets import (
    AnyTarget,
    BootstrappedHorizon,
    FiniteHorizon,
    GivenTarget,
    InfiniteHorizon,
    Target,
)
from gradbias.analytic.returns.evaluation import Evaluation
from gradbias.analytic.returns.target_values import evaluate_target
from gradbias.analytic.utils.validation import BoolArray, FloatArray, real_number
from gradbias.stochastic.estimators.kinds import DrawEstimator
from gradbias.verification.confidence.norm_intervals import (
    ASSUMPTION,
    NormInterval,
    Spread,
    estimate_spread,
)
from gradbias.verification.evidence.accumulated_moments import Moments
from gradbias.verification.evidence.reports import BiasReport, Evidence, Verdict
from gradbias.verification.evidence.request import Request

EXACT_TOLERANCE = 1e-9
"""Relative bias that exact evidence puts down to rounding."""

_SUMMED = 1e-13
_SOLVED = 1e-15
"""Rounding of an enumerated mean, relative to its absolute terms; of an exact derivative, relative
to the values that it is made of."""

_SINGLE = 1e-5
"""Relative biases below this may be single precision's."""

_RESOLVED = 1e-3
"""A target is told from 0 where rounding is at most this share of it."""


@dataclass(frozen=True)
class ErrorRates:
    """The design of a statistical verdict, relative tolerance first."""

    tolerance: float
    false_alarm: float
    missed_bias: float

    def __post_init__(self) -> None:
        real_number("tolerance", self.tolerance, low=1e-300, high=1e300)
        real_number("false_alarm", self.false_alarm, low=1e-300, high=0.5)
        real_number("missed_bias", self.missed_bias, low=1e-300, high=0.5)


_ASSUMPTIONS = {
    Evidence.ENUMERATION: "none: every outcome is enumerated with its probability",
    Evidence.MOMENTS: "none: mean and variance over all trajectories, by recursion over time",
}


SampledVerdict = Callable[[BiasReport, Moments, float, ErrorRates], BiasReport]
"""``(report, moments, distance of mean and target, rates)`` to the report with its verdict."""


@dataclass(frozen=True, eq=False)
class Found:
    """Moments of one estimate from ``batch_size`` trajectories, and how they were come by; a
    ``scope`` or an ``assumption`` of its own, where the evidence has one.
    """

    moments: Moments
    evidence: Evidence
    batch_size: int
    coupled: bool
    notes: tuple[str, ...]
    scope: str | None = None
    assumption: str | None = None


@dataclass(frozen=True)
class Subject:
    """What a report is about: the estimator's ``name``, the ``scope`` of what is said of it, the
    sizes of the values that its target is made of (max|Q| x occupancy, and what rounds), and
    ``unpaid``: why nothing can be tested, where no reward can be reached.
    """

    name: str
    scope: str
    scale: float
    rounding_scale: float
    unpaid: str | None = None
    notes: tuple[str, ...] = ()


def subject_of(
    asked: Request, visited: Evaluation, target: AnyTarget, exact: FloatArray, found: Found
) -> Subject:
    """That of a measurement at one policy, with the policy's values and occupancy."""
    unpaid = None
    if _is_plain_return(target) and not _reward_can_be_reached(asked):
        unpaid = (
            f"every reward within {asked.length} steps of the start is 0; use a longer horizon, "
            "another start, or a problem that pays"
        )
    return Subject(
        asked.estimator.name,
        found.scope or _scope(asked, found),
        visited.scale,
        visited.rounding_scale,
        unpaid,
        _truncation(asked, target, exact),
    )


def judge(
    subject: Subject,
    target: AnyTarget,
    exact: FloatArray,
    found: Found,
    rates: ErrorRates,
    sampled: SampledVerdict | None = None,
) -> BiasReport:
    """The report on ``found`` against the target's value ``exact``; ``sampled`` completes that on
    samples (by default with `verification.confidence.norm_intervals`, for one sample of fixed
    size).
    """
    moments = found.moments
    solved = 0.0 if isinstance(target, GivenTarget) else _SOLVED * subject.rounding_scale
    rounding = max(_SUMMED * moments.absolute, solved)
    target_norm = float(np.linalg.norm(exact))
    is_zero = rounding >= _RESOLVED * target_norm
    normaliser = (subject.scale or moments.absolute) if is_zero else target_norm
    distance = float(np.linalg.norm(moments.mean - exact))
    report = BiasReport(
        estimator=subject.name,
        target=target,
        verdict=Verdict.UNDECIDED,
        reason="",
        mean=moments.mean,
        exact=exact,
        variance=moments.variance,
        normaliser=normaliser,
        interval=None,
        bias_norm=distance,
        evidence=found.evidence,
        assumption=found.assumption or _ASSUMPTIONS.get(found.evidence, ""),
        scope=subject.scope,
        batch_size=found.batch_size,
        coupled=found.coupled,
        samples=moments.outcomes,
        tolerance=rates.tolerance,
        false_alarm=None,
        missed_bias=None,
        smallest_detectable=None,
        samples_to_decide=None,
        seconds=0.0,
        notes=(*subject.notes, *found.notes),
        covariance=moments.covariance,
    )
    if found.evidence is not Evidence.SAMPLING:
        allowed = max(EXACT_TOLERANCE * normaliser, rounding)
        verdict = Verdict.UNBIASED if distance <= allowed else Verdict.BIASED
        tolerance = allowed / normaliser if normaliser > 0 else EXACT_TOLERANCE
        notes = (*report.notes, *_single_precision(verdict, distance, normaliser))
        report = replace(report, verdict=verdict, tolerance=tolerance, notes=notes)
    else:
        report = (sampled or _judge_samples)(report, moments, distance, rates)
    reason = _vacuous(subject, moments, is_zero, report)
    return report if reason is None else replace(report, verdict=Verdict.VACUOUS, reason=reason)


def _single_precision(verdict: Verdict, distance: float, normaliser: float) -> tuple[str, ...]:
    if verdict is Verdict.BIASED and distance < _SINGLE * normaliser:
        return ("so small a bias is what float32 inside the estimator makes; records are float64",)
    return ()


def _judge_samples(
    report: BiasReport, moments: Moments, distance: float, rates: ErrorRates
) -> BiasReport:
    n = moments.outcomes
    # An uncoupled estimator is sampled one trajectory at a time, whatever N the report is for.
    per_estimate = 1 if report.coupled else report.batch_size
    spread = estimate_spread(float(moments.variance.sum()) * per_estimate, moments.kept)
    interval = spread.interval(distance, n, rates.false_alarm)
    report = replace(
        report,
        interval=(interval.low, interval.high),
        bias_norm=interval.point,
        assumption=ASSUMPTION,
        false_alarm=rates.false_alarm,
        missed_bias=rates.missed_bias,
    )
    unit = report.normaliser
    if unit == 0.0:
        return report
    design = (rates.tolerance * unit, rates.false_alarm, rates.missed_bias)
    report = replace(report, smallest_detectable=spread.smallest_detectable(n, *design) / unit)
    if interval.low > design[0]:
        return replace(report, verdict=Verdict.BIASED)
    if interval.high <= design[0]:
        return replace(report, verdict=Verdict.UNBIASED, reason=_significance(interval))
    needed = spread.samples_to_decide(interval.point, *design)
    return replace(
        report, samples_to_decide=needed, reason=_undecided(report, spread, needed, rates)
    )


def _significance(interval: NormInterval) -> str:
    if interval.low > 0:
        return " (a bias is there: it is significantly not 0)"
    return " (not significantly different from 0)"


def _undecided(report: BiasReport, spread: Spread, needed: int | None, rates: ErrorRates) -> str:
    low, high = report.relative_interval
    text = f"the relative bias is in [{low:.3g}, {high:.3g}], the tolerance {rates.tolerance:g}; "
    if needed is None:
        return text + "no number of samples decides: the bias is as good as at the tolerance"
    if spread.trace == 0.0:
        return text + "the estimates do not vary"
    assumed = f"if the bias is {report.relative_bias:.3g} (here {report.samples:,})"
    return text + f"about {float(needed):.2g} estimates would decide {assumed}"


def _vacuous(
    subject: Subject, moments: Moments, target_is_zero: bool, report: BiasReport
) -> str | None:
    """Why nothing was tested, and what to change; None where something was."""
    if subject.unpaid is not None:
        return subject.unpaid
    which = "trajectory" if report.interval is None else "sampled trajectory"
    if moments.largest == 0.0 and moments.outcomes > 0:
        return f"the estimator is 0 on every {which}; look at what it multiplies"
    if target_is_zero and report.verdict is not Verdict.BIASED:
        return (
            "the target is 0 to rounding, and the estimate's mean was not found to differ; use "
            "another policy or problem"
        )
    return None


def _is_plain_return(target: AnyTarget) -> bool:
    """Whether the target is 0 wherever all rewards are."""
    if not isinstance(target, Target):
        return False
    return target.regulariser is None and not isinstance(target.horizon, BootstrappedHorizon)


def _reward_can_be_reached(asked: Request) -> bool:
    """Whether some reward that is not 0 has positive probability under the behaviour policy."""
    mdp = asked.mdp
    joint = softmax(asked.context.policy.logits(asked.behaviour))[:, :, None] * mdp.transition > 0
    pays = (joint & (mdp.next_state_reward != 0.0)).any(axis=(2, 3))
    kernel: BoolArray = np.asarray(joint.any(axis=1))
    reached = mdp.start > 0
    for t in range(asked.length):
        if (reached & pays[min(t, len(pays) - 1)]).any():
            return True
        reached = np.any(kernel[reached], axis=0)
    return False


def _scope(asked: Request, found: Found) -> str:
    on_policy = np.array_equal(asked.behaviour, asked.context.theta)
    where = "at this MDP and policy" if on_policy else "at this MDP, policy and behaviour policy"
    if isinstance(asked.estimator, DrawEstimator):
        return f"with its own draws, {where}"
    return f"N = {found.batch_size}, {where}"


def _truncation(asked: Request, target: AnyTarget, exact: FloatArray) -> tuple[str, ...]:
    """A note on the part of the bias that comes from cutting trajectories short."""
    if asked.mdp.horizon is not None or not isinstance(target, Target):
        return ()
    if not isinstance(target.horizon, InfiniteHorizon):
        return ()
    cut = replace(target, horizon=FiniteHorizon(asked.length))
    value = evaluate_target(cut, asked.mdp, asked.context.theta, policy=asked.context.policy)
    missing = float(np.linalg.norm(value - exact))
    note = (
        f"trajectories are cut at {asked.length} steps, the target is not: {cut} differs from the "
        f"target by {missing:.3g} in norm (truncation bias)"
    )
    return (note,)
