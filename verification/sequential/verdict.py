"""From a stream's intervals to a verdict, and the report that carries them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.confidence.scaled_sequences import Method
from gradbias.verification.evidence.accumulated_moments import Moments
from gradbias.verification.evidence.reports import BiasReport, Verdict
from gradbias.verification.evidence.verdicts import ErrorRates
from gradbias.verification.sequential.functionals import Reading
from gradbias.verification.sequential.normality import sampled_doubt
from gradbias.verification.sequential.power import SequentialDesign, detectable_norm
from gradbias.verification.sequential.simultaneous import Box, box_of
from gradbias.verification.sequential.stream import Stream

_DOUBTED = "the interval rests on a normal mean, which is doubted here: the bias may lie outside it"


@dataclass(frozen=True, eq=False)
class SequentialReport(BiasReport):
    """A `BiasReport` whose interval holds at all times at once.

    ``component_low`` and ``component_high`` are simultaneous intervals of the expectation, shaped
    like the estimate (None with projections). ``e_value``: its expectation is at most 1 if the bias
    is within the tolerance, whenever sampling stops (see `survey`); None where none
    is known. ``stopped``: "decided", "budget" or "interrupted". ``smallest_detectable``: a relative
    bias above it would have been found by where sampling stopped, but for the probability
    ``missed_bias``; None where the verdict is withheld. ``designed``: the one that was sure to be
    found within the budget, known before the first estimate (None where no range is used).
    """

    component_low: FloatArray | None = None
    component_high: FloatArray | None = None
    e_value: float | None = None
    stopped: str = ""
    method: Method = Method.ASYMPTOTIC
    designed: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """See `BiasReport`; with the component intervals."""
        both = (self.component_low, self.component_high)
        ends = [None if end is None else end.tolist() for end in both]
        own = {"component_low": ends[0], "component_high": ends[1], "stopped": self.stopped}
        own |= {"e_value": self.e_value, "method": self.method.value, "designed": self.designed}
        return super().as_dict() | own


@dataclass(frozen=True, eq=False)
class SequentialVerdict:
    """What `judge` asks where the evidence is a stream."""

    stream: Stream
    reading: Reading
    method: Method
    assumption: str
    limit: int
    unreliable: str | None = None
    """Why a normal mean is not to be believed, known beforehand."""

    def __call__(
        self, report: BiasReport, moments: Moments, distance: float, rates: ErrorRates
    ) -> BiasReport:
        """The report with interval, design and verdict."""
        box = box_of(self.stream, self.reading, report.exact, rates.false_alarm)
        low, high = box.norm
        trace = float(self.stream.moments(report.exact.shape).variance.sum())
        excess = distance**2 - trace / max(self.stream.count, 1)
        report = replace(
            report,
            interval=(low, high),
            bias_norm=min(max(math.sqrt(max(excess, 0.0)), low), high),
            assumption=self.assumption,
            false_alarm=rates.false_alarm,
            missed_bias=rates.missed_bias,
        )
        unit = report.normaliser
        if unit == 0.0:
            return report
        tolerated = rates.tolerance * unit
        doubt = self.doubt()
        if doubt is not None:
            notes = (*report.notes, *((_DOUBTED,) if self.stream.count else ()))
            return replace(report, reason=doubt, notes=notes)
        if low > tolerated:
            return replace(report, verdict=Verdict.BIASED)
        if high <= tolerated:
            found = "a bias is there: it is significantly" if low > 0 else "not significantly"
            rest = "not 0" if low > 0 else "different from 0"
            return replace(report, verdict=Verdict.UNBIASED, reason=f" ({found} {rest})")
        reach = high - report.bias_norm
        if report.bias_norm > tolerated:
            reach = self._resolution(box, trace, rates.missed_bias)
        needed = _samples_to_decide(self.stream.count, reach, report.bias_norm, tolerated)
        return replace(report, samples_to_decide=needed, reason=_undecided(report, needed))

    def doubt(self) -> str | None:
        """Why the interval decides nothing; None if it may."""
        if self.stream.count == 0:
            return "no estimate was drawn"
        if self.method is not Method.ASYMPTOTIC:
            return None
        if self.unreliable is not None:
            return self.unreliable
        return sampled_doubt(self.stream, self.limit)

    def _resolution(self, box: Box, trace: float, missed_bias: float) -> float:
        """About: the interval's half-width, and the mean's own deviation."""
        if self.reading.direction is not None:
            radius = float(box.high[-1] - box.low[-1]) / 2
        else:
            radius = float(np.linalg.norm(box.high - box.low)) / 2
        return radius + math.sqrt(-2 * math.log(missed_bias) * trace / max(self.stream.count, 1))


def _samples_to_decide(n: int, reach: float, point: float, tolerated: float) -> int | None:
    """About, as an interval's ``reach`` from the point shrinks with 1 / sqrt(n); None where the
    bias is at the tolerance.
    """
    gap = point - tolerated
    if not math.isfinite(reach) or abs(gap) <= 1e-6 * tolerated:
        return None
    return int(min(n * max((reach / abs(gap)) ** 2, 1.0), 1e15)) + 1


def _undecided(report: BiasReport, needed: int | None) -> str:
    low, high = report.relative_interval
    text = f"the relative bias is in [{low:.3g}, {high:.3g}], the tolerance {report.tolerance:g}; "
    if needed is None:
        return text + "no number of samples can be named that decides"
    assumed = f"if the bias is {report.relative_bias:.3g} (here {report.samples:,})"
    return text + f"about {float(needed):.2g} estimates would decide {assumed}"


def tolerance_e_value(
    stream: Stream, reading: Reading, exact: FloatArray, tolerated: float
) -> float | None:
    """Wealth from betting that the bias norm is above ``tolerated``: half on the direction, half
    spread over all other functionals and both signs; None where no wealth is kept.
    """
    if reading.projections is not None:
        return None
    target = reading.of(exact.reshape(1, -1))[0]
    above = stream.intervals.log_wealth(target + tolerated, 1.0)
    below = stream.intervals.log_wealth(target - tolerated, -1.0)
    if above is None or below is None:
        return None
    count = len(target) - (reading.direction is not None)
    ends = np.exp(np.minimum(np.stack([above, below]), 700.0))
    spread = float(ends[:, :count].mean())
    if reading.direction is None:
        return spread
    return spread / 2 + float(ends[0, -1]) / 2


def sequential_report(
    report: BiasReport, verdict: SequentialVerdict, stopped: str, rates: ErrorRates
) -> SequentialReport:
    """The report with what is known of components, and why sampling stopped."""
    box = box_of(verdict.stream, verdict.reading, report.exact, rates.false_alarm)
    ends: list[FloatArray | None] = [None, None]
    if verdict.reading.projections is None:
        size = report.exact.size
        ends = [e[:size].reshape(report.exact.shape) for e in (box.low, box.high)]
    tolerated = rates.tolerance * report.normaliser
    note = f"sampled in blocks: stopped after {report.samples:,} estimates ({stopped})"
    shared: dict[str, Any] = {f.name: getattr(report, f.name) for f in fields(BiasReport)}
    shared["notes"] = (*report.notes, note)
    if report.normaliser > 0.0 and verdict.doubt() is None:
        norm = detectable_norm(verdict.stream, verdict.reading, tolerated, rates)
        shared["smallest_detectable"] = norm / report.normaliser
    designed = _designed(report, verdict, rates)
    if designed is not None:
        promise = (
            f"designed: a relative bias of {designed:.3g} or more is found within "
            f"{verdict.limit:,} estimates but for the probability {rates.missed_bias:g}"
        )
        shared["notes"] = (*shared["notes"], promise)
    return SequentialReport(
        **shared,
        component_low=ends[0],
        component_high=ends[1],
        e_value=tolerance_e_value(verdict.stream, verdict.reading, report.exact, tolerated),
        stopped=stopped,
        method=verdict.method,
        designed=designed,
    )


def _designed(report: BiasReport, verdict: SequentialVerdict, rates: ErrorRates) -> float | None:
    """See `SequentialReport`."""
    intervals, reading = verdict.stream.intervals, verdict.reading
    low, high = intervals.low, intervals.high
    plain = verdict.method is Method.BETTING and reading.projections is None
    if not plain or low is None or high is None or report.normaliser == 0.0:
        return None
    widths = (high - low)[: report.exact.size]
    tolerated = rates.tolerance * report.normaliser
    design = SequentialDesign(widths, tolerated, rates.false_alarm, rates.missed_bias)
    found = design.smallest_detectable_bias(verdict.limit)
    return found / report.normaliser if math.isfinite(found) else None
