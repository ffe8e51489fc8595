"""Two estimators against each other, both sampled: for problems without an exact answer.

Both are evaluated on the same trajectories (common random numbers), so that what they share drops
out of the difference. The reference is sampled too: no such report is exact.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray, whole_number
from analytic.problems import TabularMDP
from stochastic.estimators import Estimator
from verification.moments import Progress
from verification.preparation import request_of
from verification.ranges import component_range
from verification.readings import ControlVariate, Reading, pilot_direction
from verification.reports import Evidence
from verification.scaled_sequences import Method, ScaledSequence
from verification.sequential_draws import Draws
from verification.sequential_reports import believed_share
from verification.streams import Run, SampledBlock, Stream, with_generator
from verification.verdicts import ErrorRates

_FEWEST = 400
_PILOT = 1000


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
    evidence: Evidence = Evidence.SAMPLING

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


def compare_estimators(
    first: Estimator,
    second: Estimator,
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    tolerance: float = 0.01,
    false_alarm: float = 1e-3,
    trajectories: int | None = None,
    samples: int = 1_000_000,
    rng: np.random.Generator | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ComparisonReport:
    """Have two estimators the same expectation, relative to the second's? Sampled on the same
    trajectories until that is decided, or ``samples`` trajectories are drawn.

    Intervals are non-asymptotic where both have a known range (`component_range`), else
    approximate. ``options`` are those of `measure_bias_sequentially`.

    Raises:
        ValueError: as `measure_bias_sequentially`.
    """
    began = time.perf_counter()
    rates = ErrorRates(tolerance, false_alarm, 1e-2)
    asked = request_of(first, mdp, theta, samples=samples, rng=rng, **options)
    draws = Draws.of(asked, ControlVariate(second), trajectories)
    limit = whole_number("samples", samples, at_least=_FEWEST * draws.n) // draws.n
    values, others = _pair(draws, min(_PILOT, limit // 4))
    size = values.shape[1]
    direction = pilot_direction((values - others).mean(axis=0))
    if direction is not None:
        direction = np.concatenate([direction, np.zeros(size)])
    reading = Reading(None, direction)
    intervals, assumption = _intervals(draws, reading, 2 * size, limit)
    centre = np.concatenate([(values - others).mean(axis=0), others.mean(axis=0)])
    stream = with_generator(Stream.empty(intervals, centre), asked.rng)

    def take(count: int) -> SampledBlock:
        own, beside, largest = draws.take(count)
        both = np.concatenate([own - _given(beside), _given(beside)], axis=1)
        return SampledBlock(both, reading.of(both), largest)

    def report(stream: Stream, stopped: str) -> ComparisonReport:
        mean = stream.moments((2, *asked.shape)).mean
        norms = _norms(stream, size, rates.false_alarm)
        return _judged(
            ComparisonReport(
                first.name,
                second.name,
                Agreement.UNDECIDED,
                mean[0],
                mean[1],
                *norms,
                tolerance,
                false_alarm,
                assumption,
                stream.count,
                stopped,
                0.0,
            ),
            stream,
        )

    def decided(stream: Stream) -> bool:
        return report(stream, "").verdict is not Agreement.UNDECIDED

    run = Run(take, asked.rng, limit, draws.block, decided, None, progress)
    stream, stopped = run.advanced(stream)
    return replace(report(stream, stopped), seconds=time.perf_counter() - began)


def _given(beside: FloatArray | None) -> FloatArray:
    if beside is None:
        raise ValueError("second: expected an estimate from given batches")
    return beside


def _pair(draws: Draws, count: int) -> tuple[FloatArray, FloatArray]:
    values, others = draws.take_all(count)
    return values, _given(others)


def _intervals(draws: Draws, reading: Reading, size: int, limit: int) -> tuple[ScaledSequence, str]:
    """For the difference's components, the reference's, and the direction."""
    own = None if draws.n > 1 else component_range(draws.asked)
    control = draws.control
    other = None
    if own is not None and control is not None:
        other = component_range(replace(draws.asked, estimator=control.estimator))
    if own is None or other is None:
        count = size + (reading.direction is not None)
        text = "approximate: means are taken for normal (asymptotic confidence sequence)"
        return ScaledSequence.asymptotic(count, max(limit // 4, 1)), text
    low = np.concatenate([(own.low - other.high).ravel(), other.low.ravel()])
    high = np.concatenate([(own.high - other.low).ravel(), other.high.ravel()])
    ends = reading.range_of(low, high)
    text = (
        "none but each component's range, of the worst trajectory; betting, valid at any stopping "
        "time"
    )
    return ScaledSequence.bounded(*ends, Method.BETTING, 0.5), text


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


def _judged(report: ComparisonReport, stream: Stream) -> ComparisonReport:
    low, high = report.relative_interval
    if stream.intervals.low is None and stream.largest_share > believed_share(stream.count):
        share = 100 * stream.largest_share
        return replace(report, reason=f": one estimate makes {share:.3g}% of the sum of squares")
    if low > report.tolerance:
        return replace(report, verdict=Agreement.DIFFER)
    if high <= report.tolerance:
        within = f" to within {100 * report.tolerance:.3g}%"
        return replace(report, verdict=Agreement.AGREE, reason=within)
    return report
