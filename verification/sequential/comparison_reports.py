"""What a comparison of two sampled estimators found, as data with a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.evidence.reports import Evidence


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
