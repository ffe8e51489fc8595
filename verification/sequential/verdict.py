"""From a stream's intervals to a verdict, and the report that carries them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.confidence.scaled_sequences import Method
from gradbias.verification.evidence.reasons import Doubt, Reason
from gradbias.verification.evidence.reports import BiasReport, Verdict
from gradbias.verification.evidence.subjects import MeasuredMoments, Subject
from gradbias.verification.evidence.verdicts import (
    DOUBTED,
    ErrorRates,
    Gap,
    Judgement,
    decide,
    report_of,
    undecided_detail,
)
from gradbias.verification.sequential.functionals import Box, Functionals, box_of
from gradbias.verification.sequential.normality import sampled_doubt
from gradbias.verification.sequential.power import SequentialDesign, detectable_norm
from gradbias.verification.sequential.stream import Stopped, Stream


@dataclass(frozen=True, eq=False)
class SequentialReport(BiasReport):
    """A `BiasReport` whose interval holds at all times at once.

    Attributes:
        component_low, component_high: simultaneous intervals of the expectation, shaped like the
            estimate; None with projections.
        e_value: a number whose expectation is at most 1 if the bias is within the tolerance,
            whenever sampling stops (see `survey`); None where none is known.
        stopped: why sampling stopped.
        method: how the intervals were made.
        smallest_detectable: a relative bias above this would have been found before sampling
            stopped, but for the probability ``missed_bias``; None where a verdict is withheld.
        designed: the relative bias that was sure, before the first estimate, to be found within
            the budget; None where no range is used.
    """

    component_low: FloatArray | None = None
    component_high: FloatArray | None = None
    e_value: float | None = None
    stopped: Stopped = Stopped.BUDGET
    method: Method = Method.ASYMPTOTIC
    designed: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The entries of `BiasReport.as_dict`, with those that this report adds."""
        low, high = (
            None if end is None else end.tolist()
            for end in (self.component_low, self.component_high)
        )
        return super().as_dict() | {
            "component_low": low,
            "component_high": high,
            "stopped": self.stopped.value,
            "e_value": self.e_value,
            "method": self.method.value,
            "designed": self.designed,
        }


@dataclass(frozen=True, eq=False)
class StreamJudge:
    """A `SampledJudge` of a stream of at most ``limit`` estimates; ``beforehand`` is why their
    mean is not taken for normal, where that is known from the start, and ``rare`` says why that of
    so many is not.
    """

    stream: Stream
    functionals: Functionals
    method: Method
    assumption: str
    limit: int
    rare: Callable[[int], Doubt | None]
    beforehand: Doubt | None = None

    def __call__(
        self, subject: Subject, gap: Gap, measured: MeasuredMoments, rates: ErrorRates
    ) -> Judgement:
        """The verdict, with its interval and about how many estimates would decide."""
        box = box_of(self.stream, self.functionals, subject.exact, rates.false_alarm)
        low, high = ends = gap.widened(*box.norm)
        trace = float(self.stream.moments(subject.exact.shape).variance.sum())
        excess = gap.distance**2 - trace / max(self.stream.count, 1)
        norm = min(max(math.sqrt(max(excess, 0.0)), low), high)
        open_verdict = Judgement(
            Verdict.UNDECIDED,
            gap,
            norm,
            rates.tolerance,
            interval=ends,
            assumption=self.assumption,
            rates=rates,
        )
        if gap.unit == 0.0:
            return open_verdict
        if (doubt := self.doubt()) is not None:
            notes = (DOUBTED,) if self.stream.count else ()
            return replace(open_verdict, reason=doubt[0], detail=doubt[1], notes=notes)
        tolerated = rates.tolerance * gap.unit
        if (decided := decide(ends, tolerated)) is not None:
            return replace(open_verdict, verdict=decided[0], reason=decided[1])
        reach = high - norm
        if norm > tolerated:
            reach = self._resolution(box, trace, rates.missed_bias)
        needed = _samples_to_decide(self.stream.count, reach, norm, tolerated)
        at_tolerance = needed is None and math.isfinite(reach)
        return replace(
            open_verdict,
            reason=Reason.AT_TOLERANCE if at_tolerance else Reason.MORE_SAMPLES,
            detail=undecided_detail(open_verdict, self.stream.count, needed),
            samples_to_decide=needed,
        )

    def doubt(self) -> Doubt | None:
        """Why the interval decides nothing; None if it may."""
        if self.stream.count == 0:
            return Reason.NO_ESTIMATE, ""
        if self.method is not Method.ASYMPTOTIC:
            return None
        if self.stream.largest == 0.0:
            return Reason.ONLY_ZEROS, ""
        sampled = sampled_doubt(self.stream, self.limit)
        return self.beforehand or sampled or self.rare(self.stream.count)

    def _resolution(self, box: Box, trace: float, missed_bias: float) -> float:
        """About how far the interval reaches: its half-width and the mean's standard deviation."""
        if self.functionals.direction is not None:
            radius = float(box.high[-1] - box.low[-1]) / 2
        else:
            radius = float(np.linalg.norm(box.high - box.low)) / 2
        return radius + math.sqrt(-2 * math.log(missed_bias) * trace / max(self.stream.count, 1))


def _samples_to_decide(n: int, reach: float, point: float, tolerated: float) -> int | None:
    """About how many estimates decide, as an interval's ``reach`` from the point shrinks with
    1 / sqrt(n); None where the bias is at the tolerance, or there is no interval yet.
    """
    gap = point - tolerated
    if not math.isfinite(reach) or abs(gap) <= 1e-6 * tolerated:
        return None
    return int(min(n * max((reach / abs(gap)) ** 2, 1.0), 1e15)) + 1


def tolerance_e_value(
    stream: Stream, functionals: Functionals, exact: FloatArray, tolerated: float
) -> float | None:
    """The wealth from betting that the bias norm is above ``tolerated``: half of it is bet on the
    direction, half on all other functionals and both signs. None where the method keeps no wealth.
    """
    if functionals.projections is not None:
        return None
    target = functionals.of(exact.reshape(1, -1))[0]
    above = stream.intervals.log_wealth(target + tolerated, 1.0)
    below = stream.intervals.log_wealth(target - tolerated, -1.0)
    if above is None or below is None:
        return None
    count = len(target) - (functionals.direction is not None)
    ends = np.exp(np.minimum(np.stack([above, below]), 700.0))
    spread = float(ends[:, :count].mean())
    if functionals.direction is None:
        return spread
    return spread / 2 + float(ends[0, -1]) / 2


def sequential_report(
    subject: Subject,
    measured: MeasuredMoments,
    judgement: Judgement,
    judge: StreamJudge,
    stopped: Stopped,
    began: float,
) -> SequentialReport:
    """The report on a finished stream: with intervals of components, and why sampling stopped."""
    rates, unit = judgement.rates, judgement.gap.unit
    assert rates is not None
    stream, functionals, exact = judge.stream, judge.functionals, subject.exact
    box = box_of(stream, functionals, exact, rates.false_alarm)
    ends: list[FloatArray | None] = [None, None]
    if functionals.projections is None:
        ends = [e[: exact.size].reshape(exact.shape) for e in (box.low, box.high)]
    tolerated = rates.tolerance * unit
    notes = [f"sampled in blocks: stopped after {stream.count:,} estimates ({stopped.value})"]
    smallest = None
    if unit > 0.0 and judge.doubt() is None:
        smallest = detectable_norm(stream, functionals, tolerated, rates) / unit
    designed = _designed(judge, exact.size, unit, rates)
    if designed is not None:
        notes.append(
            f"designed: a relative bias of {designed:.3g} or more is found within "
            f"{judge.limit:,} estimates but for the probability {rates.missed_bias:g}"
        )
    judgement = replace(judgement, smallest_detectable=smallest, notes=(*judgement.notes, *notes))
    return report_of(
        SequentialReport,
        subject,
        measured,
        judgement,
        began,
        component_low=ends[0],
        component_high=ends[1],
        e_value=tolerance_e_value(stream, functionals, exact, tolerated),
        stopped=stopped,
        method=judge.method,
        designed=designed,
    )


def _designed(judge: StreamJudge, size: int, unit: float, rates: ErrorRates) -> float | None:
    """The relative bias that is sure to be found within the budget; see `SequentialReport`."""
    intervals = judge.stream.intervals
    low, high = intervals.low, intervals.high
    plain = judge.method is Method.BETTING and judge.functionals.projections is None
    if not plain or low is None or high is None or unit == 0.0:
        return None
    widths = (high - low)[:size]
    design = SequentialDesign(widths, rates.tolerance * unit, rates.false_alarm, rates.missed_bias)
    smallest = design.smallest_detectable_bias(judge.limit)
    return smallest / unit if math.isfinite(smallest) else None
