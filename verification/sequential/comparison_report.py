"""The report of a comparison of two sampled estimators: plain data that prints as sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.evidence.reasons import Reason
from gradbias.verification.evidence.reports import Evidence
from gradbias.verification.sequential.stream import Stopped


class Agreement(Enum):
    """Whether two estimators have one expectation, to within the tolerance."""

    AGREE = "AGREE"
    DIFFER = "DIFFER"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True, eq=False)
class ComparisonReport:
    """The expectations of two estimators, both sampled on the same trajectories.

    Attributes:
        first, second: the estimators' names.
        verdict: whether their expectations agree, relative to the second's norm.
        reason, detail: why it is undecided, and the numbers that belong to it.
        difference: the sampled mean of first minus second.
        reference: the sampled mean of the second.
        interval, reference_interval: intervals of the norms of both, at all times at once, at the
            rate ``false_alarm`` together.
        tolerance, false_alarm: the design, as for `measure_bias`.
        assumption: what the intervals take for granted.
        samples, stopped, seconds: how many estimates were drawn, why no more, and how long it took.
    """

    first: str
    second: str
    verdict: Agreement
    reason: Reason | None
    detail: str
    difference: FloatArray
    reference: FloatArray
    interval: tuple[float, float]
    reference_interval: tuple[float, float]
    tolerance: float
    false_alarm: float
    assumption: str
    samples: int
    stopped: Stopped
    seconds: float
    evidence: Evidence = field(default=Evidence.SAMPLING, init=False)

    @property
    def relative_interval(self) -> tuple[float, float]:
        """The interval of the difference's norm over the second's norm."""
        return relative(self.interval, self.reference_interval)

    def __str__(self) -> str:
        low, high = self.relative_interval
        design = f"tolerance {self.tolerance:g}, false alarm {self.false_alarm:g}"
        why = "" if self.reason is None else f": {self.reason.with_detail(self.detail)}"
        if self.verdict is Agreement.AGREE:
            why = f" to within {100 * self.tolerance:.3g}%"
        samples = f"{self.samples:,} estimates ({self.stopped.value})"
        lines = [
            f"{self.first} and {self.second}: {self.verdict.value}{why}",
            f"  difference  relative in [{low:.3g}, {high:.3g}], {design}",
            f"  evidence    sampling on both sides, {samples}",
            f"  assumption  {self.assumption}",
        ]
        return "\n".join(lines)


def relative(interval: tuple[float, float], reference: tuple[float, float]) -> tuple[float, float]:
    """The interval of a ratio of two numbers >= 0, given an interval of each."""
    low, high = interval
    smallest, largest = reference
    return low / largest if largest > 0 else 0.0, high / smallest if smallest > 0 else math.inf
