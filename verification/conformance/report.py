"""The report of a conformance suite: the result of each check, and the verdict over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """The outcome of one check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class ConformanceVerdict(Enum):
    """Whether the estimator satisfies all checks that ran."""

    CONFORMS = "no check that ran failed"
    FAILS = "at least one check failed"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    ``detail`` says why it failed or was skipped, or what its passing does not cover ("" if there is
    nothing to say). ``comparisons`` counts the comparisons of a check that passed.
    """

    name: str
    outcome: Outcome
    detail: str
    comparisons: int

    def __str__(self) -> str:
        count = f" ({self.comparisons} comparisons)" if self.comparisons else ""
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.outcome.value:<8}{self.name}{count}{detail}"


@dataclass(frozen=True)
class ConformanceReport:
    """The results of all checks of one estimator, which print as one line each.

    ``estimator`` is its name, ``checks`` the results in order. ``false_alarm`` bounds the
    probability that an estimator that conforms fails (0 where nothing was sampled). ``enumerated``
    is the problem on which means were taken over all batches ("" where none were).
    """

    estimator: str
    checks: tuple[CheckResult, ...]
    false_alarm: float
    enumerated: str

    @property
    def verdict(self) -> ConformanceVerdict:
        """FAILS if a check failed, otherwise CONFORMS."""
        return ConformanceVerdict.FAILS if self.failed else ConformanceVerdict.CONFORMS

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return tuple(c.name for c in self.checks if c.outcome is Outcome.FAILED)

    @property
    def ran(self) -> int:
        """The number of checks that ran."""
        return sum(c.outcome is not Outcome.SKIPPED for c in self.checks)

    @property
    def comparisons(self) -> int:
        """The number of comparisons that the passed checks made."""
        return sum(c.comparisons for c in self.checks)

    def __str__(self) -> str:
        skipped = len(self.checks) - self.ran
        verdict = f"{len(self.failed)} failed" if self.failed else "none failed"
        lines = [f"{self.estimator}: {self.ran} checks ran, {verdict}, {skipped} skipped"]
        lines += [f"  {check}" for check in self.checks]
        if self.enumerated:
            lines.append(f"  means over all batches, on {self.enumerated}")
        lines.append(
            f"  {self.comparisons} comparisons; false alarms: {self.false_alarm:g} at most"
        )
        return "\n".join(lines)
