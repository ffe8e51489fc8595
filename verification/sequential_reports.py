"""From a stream's intervals to a verdict, and the report that carries them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from analytic.arrays import FloatArray
from verification.moments import Moments
from verification.normal_means import sampled_doubt
from verification.readings import Reading
from verification.reports import BiasReport, Verdict
from verification.scaled_sequences import Method
from verification.streams import Stream
from verification.verdicts import ErrorRates


@dataclass(frozen=True, eq=False)
class SequentialReport(BiasReport):
    """A `BiasReport` whose interval holds at all times at once.

    ``component_low`` and ``component_high`` are simultaneous intervals of the expectation, shaped
    like the estimate (None with projections). ``e_value``: its expectation is at most 1 if the bias
    is within the tolerance, whenever sampling stops (see `e_benjamini_hochberg`); None where none
    is known. ``stopped``: "decided", "budget" or "interrupted".
    """

    component_low: FloatArray | None = None
    component_high: FloatArray | None = None
    e_value: float | None = None
    stopped: str = ""
    method: Method = Method.ASYMPTOTIC

    def as_dict(self) -> dict[str, Any]:
        """See `BiasReport`; with the component intervals."""
        both = (self.component_low, self.component_high)
        ends = [None if end is None else end.tolist() for end in both]
        own = {"component_low": ends[0], "component_high": ends[1], "stopped": self.stopped}
        return super().as_dict() | own | {"e_value": self.e_value, "method": self.method.value}


@dataclass(frozen=True, eq=False)
class Box:
    """Simultaneous intervals of functionals, and the norm that they leave."""

    low: FloatArray
    high: FloatArray
    norm: tuple[float, float]


def box_of(stream: Stream, reading: Reading, exact: FloatArray, rate: float) -> Box:
    """Intervals of the functionals' means, and of the bias norm, all of it at ``rate``: half for
    the direction, if there is one, the rest evenly for the other functionals (with projections,
    half of it for their own randomness).
    """
    directed = reading.direction is not None
    rest = rate / 2 if directed else rate
    spread = rest / 2 if reading.projections is not None else 0.0
    claims = stream.intervals.claims
    others = int(claims.sum()) - int(directed and bool(claims[-1]))
    rates = np.full(len(claims), (rest - spread) / max(others, 1))
    if directed:
        rates[-1] = rate / 2
    low, high = stream.intervals.bounds(rates)
    target = reading.of(exact.reshape(1, -1))[0]
    # Infinities (no interval yet) stay what they are.
    return Box(low, high, reading.norm_interval(low - target, high - target, spread))


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
        detectable = tolerated + self._resolution(box, trace, rates.missed_bias)
        report = replace(report, smallest_detectable=detectable / unit)
        doubt = self._doubt()
        if doubt is not None:
            return replace(report, reason=doubt)
        if low > tolerated:
            return replace(report, verdict=Verdict.BIASED)
        if high <= tolerated:
            found = "a bias is there: it is significantly" if low > 0 else "not significantly"
            rest = "not 0" if low > 0 else "different from 0"
            return replace(report, verdict=Verdict.UNBIASED, reason=f" ({found} {rest})")
        needed = _samples_to_decide(self.stream.count, box, report.bias_norm, tolerated)
        return replace(report, samples_to_decide=needed, reason=_undecided(report, needed))

    def _doubt(self) -> str | None:
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


def _samples_to_decide(n: int, box: Box, point: float, tolerated: float) -> int | None:
    """About, as half-widths shrink with 1 / sqrt(n); None where the bias is at the tolerance."""
    low, high = box.norm
    gap = point - tolerated
    reach = point - low if gap > 0 else high - point
    if not math.isfinite(reach) or abs(gap) <= 1e-6 * tolerated:
        return None
    return int(min(n * max((reach / abs(gap)) ** 2, 1.0), 1e15)) + 1


def _undecided(report: BiasReport, needed: int | None) -> str:
    low, high = report.relative_interval
    text = f"the relative bias is in [{low:.3g}, {high:.3g}], the tolerance {report.tolerance:g}; "
    if needed is None:
        return text + "no number of samples can be named that decides"
    return text + f"about {float(needed):.2g} estimates would decide (here {report.samples:,})"


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
    return SequentialReport(
        **shared,
        component_low=ends[0],
        component_high=ends[1],
        e_value=tolerance_e_value(verdict.stream, verdict.reading, report.exact, tolerated),
        stopped=stopped,
        method=verdict.method,
    )
