"""Two estimators against each other, both sampled: for problems without an exact answer.

Both are evaluated on the same trajectories (common random numbers), so that what they share drops
out of the difference. The reference is sampled too: no such report is exact.

What a comparison of two sampled estimators found, as data with a sentence.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray, whole_number
from gradbias.stochastic.estimators.kinds import (
    CallableEstimator,
    DrawEstimator,
    Estimator,
    SurrogateEstimator,
)
from gradbias.verification.confidence.scaled_sequences import Method, ScaledSequence
from gradbias.verification.evidence.accumulated_moments import Progress
from gradbias.verification.evidence.ranges import component_range
from gradbias.verification.evidence.reports import Evidence
from gradbias.verification.evidence.request import request_of
from gradbias.verification.evidence.verdicts import ErrorRates
from gradbias.verification.sequential.draws import Draws
from gradbias.verification.sequential.functionals import ControlVariate, Reading, pilot_direction
from gradbias.verification.sequential.normality import off_policy_doubt, sampled_doubt
from gradbias.verification.sequential.stream import Run, SampledBlock, Stream, with_generator


class Agreement(Enum):
    """Whether two estimators have one expectation, to within the tolerance."""

    AGREE = "AGREE"
    DIFFER = "DIFFER"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True, eq=False)
class ComparisonReport:
    """Expectations of ``first`` and ``second``, both sampled on the same trajectories.

    ``difference`` is the sampled mean of first minus second, ``interval`` its norm's and
    ``reference_interval`` that of the second's norm, both at all times at once at the rate
    ``false_alarm`` together. ``relative_interval`` follows from the two.
    """

    first: str
    second: str
    verdict: Agreement
    difference: FloatArray
    reference: FloatArray
    interval: tuple[float, float]
    reference_interval: tuple[float, float]
    tolerance: float
    false_alarm: float
    assumption: str
    samples: int
    stopped: str
    seconds: float
    reason: str = ""
    evidence: Evidence = field(default=Evidence.SAMPLING, init=False)

    @property
    def relative_interval(self) -> tuple[float, float]:
        """Of the difference's norm over the second's."""
        low, high = self.interval
        least, most = self.reference_interval
        return (low / most if most > 0 else 0.0, high / least if least > 0 else math.inf)

    def __str__(self) -> str:
        low, high = self.relative_interval
        design = f"tolerance {self.tolerance:g}, false alarm {self.false_alarm:g}"
        lines = [
            f"{self.first} and {self.second}: {self.verdict.value}{self.reason}",
            f"  difference  relative in [{low:.3g}, {high:.3g}], {design}",
            f"  evidence    sampling on both sides, {self.samples:,} estimates ({self.stopped})",
            f"  assumption  {self.assumption}",
        ]
        return "\n".join(lines)


_FEWEST = 400
_PILOT = 1000

_CONSTANT = 1e-6
"""Deviations of the difference that are a smaller share of its mean are rounding."""

_UNSEEN = "what would change its mean may be rare, and is not seen"


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
    **options: Any,
) -> ComparisonReport:
    """Have two estimators the same expectation, relative to the second's? Sampled on the same
    trajectories until that is decided, or ``budget`` trajectories are drawn.

    Intervals are non-asymptotic where both have a known range (`component_range`), else
    approximate, and then UNDECIDED early, and where the sample or importance weights show heavy
    tails. ``options`` are those of `measure_bias`: critic, policy, behaviour, reference, meta and
    length.

    Raises:
        ValueError: as `measure_bias_sequentially`.
    """
    began = time.perf_counter()
    rates = ErrorRates(tolerance, false_alarm, 1e-2)
    _check_both(first, second)
    asked = request_of(first, mdp, theta, budget=budget, rng=rng, **options)
    draws = Draws.of(asked, ControlVariate(second), batch_size)
    limit = whole_number("budget", budget, at_least=_FEWEST * draws.n) // draws.n
    pair = _Pair.fresh(draws, limit, rates)
    run = Run(pair.block, asked.rng, limit, draws.block, pair.is_decided, None, progress)
    stream, stopped = run.advanced(pair.stream)
    return replace(pair.report(stream, stopped), seconds=time.perf_counter() - began)


def _check_both(first: Estimator, second: Estimator) -> None:
    for name, estimator in (("first", first), ("second", second)):
        if isinstance(estimator, DrawEstimator):
            raise ValueError(
                f"{name}: expected an estimate from given batches, got {estimator.name}"
            )
        if not isinstance(estimator, SurrogateEstimator | CallableEstimator):
            raise ValueError(f"{name}: expected an estimator, got {estimator!r}")
    if second.order != first.order:
        raise ValueError(f"second: expected order {first.order}, got {second.order}")


@dataclass(frozen=True, eq=False)
class _Pair:
    """What is sampled: the difference's components, then the second estimator's, and the direction
    in which a pilot saw the difference.
    """

    draws: Draws
    limit: int
    rates: ErrorRates
    reading: Reading
    assumption: str
    stream: Stream

    @classmethod
    def fresh(cls, draws: Draws, limit: int, rates: ErrorRates) -> _Pair:
        """From a pilot, whose estimates are not used again."""
        values, others = draws.take_all(min(_PILOT, limit // 4))
        both = _beside(values, others)
        size = values.shape[1]
        direction = pilot_direction(both[:, :size].mean(axis=0))
        if direction is not None:
            direction = np.concatenate([direction, np.zeros(size)])
        reading = Reading(None, direction)
        intervals, assumption = _intervals(draws, reading, 2 * size, limit)
        stream = Stream.empty(intervals, both.mean(axis=0), parts=2)
        stream = with_generator(stream, draws.asked.rng)
        return cls(draws, limit, rates, reading, assumption, stream)

    def block(self, count: int) -> SampledBlock:
        """A block of differences and seconds, with what is read off them."""
        values, others, largest = self.draws.take(count)
        both = _beside(values, others)
        return SampledBlock(both, self.reading.of(both), largest)

    def is_decided(self, stream: Stream) -> bool:
        """Whether more samples would not change the verdict."""
        return self.report(stream, "").verdict is not Agreement.UNDECIDED

    def report(self, stream: Stream, stopped: str) -> ComparisonReport:
        """The report on the stream as it is."""
        asked, control = self.draws.asked, self.draws.control
        mean = stream.moments((2, *asked.shape)).mean
        interval, reference = _norms(stream, mean[0].size, self.rates.false_alarm)
        found = ComparisonReport(
            first=asked.estimator.name,
            second="" if control is None else control.estimator.name,
            verdict=Agreement.UNDECIDED,
            difference=mean[0],
            reference=mean[1],
            interval=interval,
            reference_interval=reference,
            tolerance=self.rates.tolerance,
            false_alarm=self.rates.false_alarm,
            assumption=self.assumption,
            samples=stream.count,
            stopped=stopped,
            seconds=0.0,
        )
        judged = _judged(found)
        doubt = self._doubt(stream, judged)
        return judged if doubt is None else replace(found, reason=f": {doubt}")

    def _doubt(self, stream: Stream, judged: ComparisonReport) -> str | None:
        """Why means are not taken for normal; None where they need not be."""
        if stream.intervals.low is not None:
            return None
        doubt = off_policy_doubt(self.draws.asked, self.limit) or sampled_doubt(stream, self.limit)
        spread = stream.moments((2, judged.difference.size)).variance[0].sum()
        constant = spread <= _CONSTANT**2 * (judged.difference**2).sum()
        if doubt is None and constant and judged.verdict is Agreement.DIFFER:
            return f"the difference is the same in all {stream.count:,} estimates: {_UNSEEN}"
        return doubt


def _beside(values: FloatArray, others: FloatArray | None) -> FloatArray:
    """``[B, 2 D]``: what the first estimates have more than the second, and these."""
    assert others is not None
    return np.concatenate([values - others, others], axis=1)


def _intervals(draws: Draws, reading: Reading, size: int, limit: int) -> tuple[ScaledSequence, str]:
    """For the difference's components, the reference's, and the direction."""
    own = component_range(draws.asked)  # a mean over N trajectories is in the range of one
    control = draws.control
    other = None
    if own is not None and control is not None:
        other = component_range(replace(draws.asked, estimator=control.estimator))
    if own is None or other is None:
        count = size + (reading.direction is not None)
        text = (
            "approximate: means are taken for normal (asymptotic confidence sequence); heavy tails "
            "that no sample shows exceed the stated rate"
        )
        return ScaledSequence.asymptotic(count, max(limit // 4, 1)), text
    low = np.concatenate([(own.low - other.high).ravel(), other.low.ravel()])
    high = np.concatenate([(own.high - other.low).ravel(), other.high.ravel()])
    ends = reading.range_of(low, high)
    sizes = np.full(low.shape, own.rounding + other.rounding)
    rounded = reading.range_of(-sizes, sizes)[1]
    text = (
        "none but each component's range, of the worst trajectory; betting, valid at any stopping "
        "time"
    )
    return ScaledSequence.bounded(*ends, Method.BETTING, 0.5, rounded), text


def _norms(
    stream: Stream, size: int, rate: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Intervals of the difference's norm and of the reference's: a quarter of the rate for the
    direction, three for the components.
    """
    claims = stream.intervals.claims
    rates = np.full(len(claims), 0.75 * rate / max(int(claims[: 2 * size].sum()), 1))
    rates[2 * size :] = rate / 4
    low, high = stream.intervals.bounds(rates)
    found = Reading(None, None)
    difference = found.norm_interval(low[:size], high[:size], 0.0)
    reference = found.norm_interval(low[size : 2 * size], high[size : 2 * size], 0.0)
    along = float(low[2 * size :].max(initial=0.0))
    return (max(difference[0], along), difference[1]), reference


def _judged(report: ComparisonReport) -> ComparisonReport:
    low, high = report.relative_interval
    if low > report.tolerance:
        return replace(report, verdict=Agreement.DIFFER)
    if high <= report.tolerance:
        within = f" to within {100 * report.tolerance:.3g}%"
        return replace(report, verdict=Agreement.AGREE, reason=within)
    return report
