"""Two estimators compared with each other, both sampled: for problems without an exact answer.

Both are evaluated on the same trajectories (common random numbers), so that what they share drops
out of the difference. The reference is sampled too, so no such report is exact.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np
import numpy.typing as npt

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray, whole_number
from gradbias.stochastic.estimators.kinds import Estimator
from gradbias.verification.confidence.scaled_sequences import Method, ScaledSequence
from gradbias.verification.evidence.accumulated_moments import Progress
from gradbias.verification.evidence.ranges import component_range
from gradbias.verification.evidence.reasons import Doubt, Reason
from gradbias.verification.evidence.request import Request, generator_or_default
from gradbias.verification.evidence.setting import Setting, SettingOptions
from gradbias.verification.evidence.verdicts import ErrorRates
from gradbias.verification.sequential.comparison_report import (
    Agreement,
    ComparisonReport,
    relative,
)
from gradbias.verification.sequential.draws import Draws
from gradbias.verification.sequential.functionals import (
    ControlVariate,
    Functionals,
    pilot_direction,
)
from gradbias.verification.sequential.normality import off_policy_doubt, sampled_doubt
from gradbias.verification.sequential.stream import (
    Run,
    SampledBlock,
    Stopped,
    Stream,
    with_generator,
)

_MIN_ESTIMATES = 400
_PILOT = 1000

_CONSTANT = 1e-6
"""A standard deviation of the difference that is a smaller share of its mean is rounding."""


def compare_estimators(
    first: Estimator,
    second: Estimator,
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    tolerance: float = 0.01,
    false_alarm: float = 1e-3,
    batch_size: int | None = None,
    budget: int = 1_000_000,
    rng: np.random.Generator | None = None,
    progress: Progress | None = None,
    **setting: Unpack[SettingOptions],
) -> ComparisonReport:
    """A report: do two estimators have the same expectation, relative to the second's?

    Both are sampled on the same trajectories until that is decided. Intervals are non-asymptotic
    where both estimators have a known range (`component_range`). Else they are approximate, and the
    verdict is UNDECIDED early, and where the sample or importance weights show heavy tails.

    Args:
        first: an estimator; not one from `from_draws`.
        second: another, of the same order, whose expectation is the reference.
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        tolerance: the largest relative difference that still counts as agreement.
        false_alarm: the rate at which intervals miss, whenever sampling stops.
        batch_size: N, the number of trajectories in a batch; needed if one of both couples them.
        budget: the largest number of trajectories.
        rng: the generator (default: one seeded 0).
        progress: called as ``progress(done, limit)``.
        **setting: policy, critic, behaviour, reference, meta and length, as for `measure_bias`.

    Returns:
        A `ComparisonReport`, whose verdict is an `Agreement`.

    Raises:
        ValueError: as `measure_bias_sequentially`.

    >>> from gradbias.stochastic import from_surrogate, lvc, dice
    >>> mdp = TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.9, horizon=2)
    >>> pair = [from_surrogate(each, order=2) for each in (lvc, dice)]
    >>> compare_estimators(*pair, mdp, np.zeros((2, 2)), tolerance=0.1).verdict.value
    'DIFFER'
    """
    began = time.perf_counter()
    rates = ErrorRates(tolerance, false_alarm, 1e-2)
    _check_both(first, second)
    where = Setting.of(mdp, theta, **setting)
    request = Request(first, where, budget=budget, rng=generator_or_default(rng))
    draws = Draws.of(request, ControlVariate(second), batch_size)
    limit = whole_number("budget", budget, at_least=_MIN_ESTIMATES * draws.n) // draws.n
    pair = _Pair.fresh(draws, limit, rates)
    run = Run(pair.block, request.rng, limit, draws.block, pair.is_decided, None, progress)
    stream, stopped = run.advanced(pair.stream)
    return pair.report(stream, stopped, second.name, began)


def _check_both(first: Estimator, second: Estimator) -> None:
    for name, estimator in (("first", first), ("second", second)):
        if not isinstance(estimator, Estimator):
            raise ValueError(f"{name}: expected an estimator, got {estimator!r}")
        if estimator.draws_itself:
            raise ValueError(
                f"{name}: expected an estimate from given batches, got {estimator.name}"
            )
    if second.order != first.order:
        raise ValueError(f"second: expected order {first.order}, got {second.order}")


@dataclass(frozen=True, eq=False)
class _Pair:
    """What is sampled: the difference's components, then the second estimator's, and the direction
    in which a pilot run saw the difference.
    """

    draws: Draws
    limit: int
    rates: ErrorRates
    functionals: Functionals
    assumption: str
    stream: Stream

    @classmethod
    def fresh(cls, draws: Draws, limit: int, rates: ErrorRates) -> _Pair:
        """A pair whose direction a pilot run chose; its estimates are not used again."""
        values, others = draws.take_all(min(_PILOT, limit // 4))
        both = _beside(values, others)
        size = values.shape[1]
        direction = pilot_direction(both[:, :size].mean(axis=0))
        if direction is not None:
            direction = np.concatenate([direction, np.zeros(size)])
        functionals = Functionals(None, direction)
        intervals, assumption = _intervals(draws, functionals, 2 * size, limit)
        stream = Stream.empty(intervals, both.mean(axis=0), parts=2)
        stream = with_generator(stream, draws.request.rng)
        return cls(draws, limit, rates, functionals, assumption, stream)

    def block(self, count: int) -> SampledBlock:
        """A block of differences and of the second's estimates, with their functionals."""
        values, others, largest = self.draws.take(count)
        both = _beside(values, others)
        return SampledBlock(both, self.functionals.of(both), largest)

    def is_decided(self, stream: Stream) -> bool:
        """Whether more samples would not change the verdict."""
        return self._judged(stream)[0] is not Agreement.UNDECIDED

    def report(
        self, stream: Stream, stopped: Stopped, second: str, began: float
    ) -> ComparisonReport:
        """The report on the stream as it is."""
        mean = stream.moments((2, *self.draws.request.shape)).mean
        interval, reference = _norms(stream, mean[0].size, self.rates.false_alarm)
        verdict, (reason, detail) = self._judged(stream)
        return ComparisonReport(
            first=self.draws.request.estimator.name,
            second=second,
            verdict=verdict,
            reason=reason,
            detail=detail,
            difference=mean[0],
            reference=mean[1],
            interval=interval,
            reference_interval=reference,
            tolerance=self.rates.tolerance,
            false_alarm=self.rates.false_alarm,
            assumption=self.assumption,
            samples=stream.count,
            stopped=stopped,
            seconds=time.perf_counter() - began,
        )

    def _judged(self, stream: Stream) -> tuple[Agreement, tuple[Reason | None, str]]:
        """The verdict, with its reason and the numbers that belong to it."""
        size = int(np.prod(self.draws.request.shape))
        low, high = relative(*_norms(stream, size, self.rates.false_alarm))
        tolerance, verdict = self.rates.tolerance, Agreement.UNDECIDED
        if low > tolerance:
            verdict = Agreement.DIFFER
        elif high <= tolerance:
            verdict = Agreement.AGREE
        doubt = self._doubt(stream, verdict)
        if doubt is not None:
            return Agreement.UNDECIDED, doubt
        if verdict is Agreement.UNDECIDED:
            return verdict, (Reason.MORE_SAMPLES, "")
        return verdict, (None, "")

    def _doubt(self, stream: Stream, verdict: Agreement) -> Doubt | None:
        """Why means are not taken for normal; None where they need not be."""
        if stream.intervals.low is not None:
            return None
        beforehand = off_policy_doubt(self.draws.request.setting, self.limit)
        sampled = sampled_doubt(stream, self.limit)
        doubt = beforehand or sampled or self.draws.rare_doubt(stream.count)
        if doubt is not None or verdict is not Agreement.DIFFER:
            return doubt
        moments = stream.moments((2, *self.draws.request.shape))
        if moments.variance[0].sum() <= _CONSTANT**2 * (moments.mean[0] ** 2).sum():
            return Reason.CONSTANT_DIFFERENCE, f"{stream.count:,}"
        return None


def _beside(values: FloatArray, others: FloatArray | None) -> FloatArray:
    """The differences of first and second estimates, and the second, ``[B, 2 D]``."""
    assert others is not None
    return np.concatenate([values - others, others], axis=1)


def _intervals(
    draws: Draws, functionals: Functionals, size: int, limit: int
) -> tuple[ScaledSequence, str]:
    """The confidence sequence of all functionals, and its assumption."""
    request, control = draws.request, draws.control
    first = component_range(request)  # a mean over N trajectories is in the range of one
    second = None
    if first is not None and control is not None:
        second = component_range(replace(request, estimator=control.estimator))
    if first is None or second is None:
        count = size + (functionals.direction is not None)
        text = (
            "approximate: means are taken for normal (asymptotic confidence sequence); heavy tails "
            "that no sample shows exceed the stated rate"
        )
        return ScaledSequence.asymptotic(count, max(limit // 4, 1)), text
    low = np.concatenate([(first.low - second.high).ravel(), second.low.ravel()])
    high = np.concatenate([(first.high - second.low).ravel(), second.high.ravel()])
    ends = functionals.range_of(low, high)
    sizes = np.full(low.shape, first.rounding + second.rounding)
    rounded = functionals.range_of(-sizes, sizes)[1]
    text = (
        "none but each component's range, of the worst trajectory; betting, valid at any stopping "
        "time"
    )
    return ScaledSequence.bounded(*ends, Method.BETTING, 0.5, rounded), text


def _norms(
    stream: Stream, size: int, rate: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Intervals of the norms of the difference and of the reference, of ``size`` components each: a
    quarter of the rate is for the direction, three quarters for the components.
    """
    claims = stream.intervals.claims
    rates = np.full(len(claims), 0.75 * rate / max(int(claims[: 2 * size].sum()), 1))
    rates[2 * size :] = rate / 4
    low, high = stream.intervals.bounds(rates)
    plain = Functionals(None, None)
    difference = plain.norm_interval(low[:size], high[:size], 0.0)
    reference = plain.norm_interval(low[size : 2 * size], high[size : 2 * size], 0.0)
    along = float(low[2 * size :].max(initial=0.0))
    return (max(difference[0], along), difference[1]), reference
