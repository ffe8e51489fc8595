"""What becomes of conformance checks, and the report of them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from gradbias.stochastic.derivatives.coefficients import located

TOLERANCE = 1e-8
"""Relative to the largest entry of what is compared."""


class NotSatisfied(Exception):  # noqa: N818
    """The estimator fails a check; says how."""


class NotApplicable(Exception):  # noqa: N818
    """A check that has nothing to say here; says why."""


@dataclass(frozen=True)
class Remarked:
    """How many comparisons a check made, and what there is to say though it passed."""

    comparisons: int
    remark: str


Ask = Callable[[], int | Remarked]
"""A check of one estimator: how many comparisons it made. Raises NotSatisfied or, where it does not
apply, NotApplicable."""


class Mode(Enum):
    """Whether anything is sampled at random."""

    EXACT = "exact"
    SAMPLING = "sampling"


def checked_mode(mode: str | Mode) -> Mode:
    """A mode, or what one is called. Raises ValueError for another word."""
    try:
        return Mode(mode)
    except ValueError:
        raise ValueError(f"mode: expected exact or sampling, got {mode!r}") from None


class Outcome(Enum):
    """Of one check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class CheckResult:
    """One check: what came of it, why, and how many comparisons it made."""

    name: str
    outcome: Outcome
    detail: str
    comparisons: int

    def __str__(self) -> str:
        many = f" ({self.comparisons} comparisons)" if self.comparisons else ""
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.outcome.value:<8}{self.name}{many}{detail}"


@dataclass(frozen=True)
class ConformanceReport:
    """All checks of one estimator; ``false_alarm`` bounds the probability that one that conforms
    fails (0 where nothing was sampled). ``enumerated`` is the problem on which means were taken
    over all batches ("" where none were).
    """

    estimator: str
    checks: tuple[CheckResult, ...]
    false_alarm: float
    enumerated: str

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return tuple(c.name for c in self.checks if c.outcome is Outcome.FAILED)

    @property
    def ran(self) -> int:
        """How many checks ran."""
        return sum(c.outcome is not Outcome.SKIPPED for c in self.checks)

    @property
    def comparisons(self) -> int:
        """How many comparisons the checks that passed made."""
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


def results_of(
    checks: Mapping[str, Ask], gates: set[str], excused: Mapping[str, str]
) -> tuple[CheckResult, ...]:
    """Of all checks, in order; once one of ``gates`` fails, the others would say nothing."""
    results: list[CheckResult] = []
    barred = ""
    for name, check in checks.items():
        reason = barred or excused.get(name, "")
        if reason:
            results.append(CheckResult(name, Outcome.SKIPPED, reason, 0))
            continue
        results.append(_result(name, check))
        if name in gates and results[-1].outcome is Outcome.FAILED:
            barred = f"says nothing, as {name} failed"
    return tuple(results)


def _result(name: str, check: Ask) -> CheckResult:
    try:
        found = check()
    except NotApplicable as why:
        return CheckResult(name, Outcome.SKIPPED, str(why), 0)
    except (NotSatisfied, ValueError) as error:
        return CheckResult(name, Outcome.FAILED, str(error), 0)
    except Exception as error:  # an evaluator of the user's own may raise anything
        return CheckResult(name, Outcome.FAILED, located(error), 0)
    if isinstance(found, Remarked):
        return CheckResult(name, Outcome.PASSED, found.remark, found.comparisons)
    return CheckResult(name, Outcome.PASSED, "", found)


def exemptions(exempt: object, known: Mapping[str, object], gates: set[str]) -> dict[str, str]:
    """Why checks are skipped that the caller exempts. Raises ValueError for unknown names, gates,
    and what is no reason.
    """
    if exempt is None:
        return {}
    if not isinstance(exempt, Mapping):
        raise ValueError(f"exempt: expected reasons by name of the check, got {exempt!r}")
    for name, why in exempt.items():
        if name not in known or name in gates:
            names = ", ".join(other for other in known if other not in gates)
            raise ValueError(f"exempt: expected names among {names}; got {name!r}")
        if not isinstance(why, str) or not why.strip():
            raise ValueError(f"exempt: expected the reason for {name!r} in words, got {why!r}")
    return {name: f"exempt: {why}" for name, why in exempt.items()}


def check_equal(
    found: npt.ArrayLike, wanted: npt.ArrayLike, what: str, *, beside: npt.ArrayLike = 0.0
) -> int:
    """1. Raises NotSatisfied where they differ by more than rounding: of their own largest entry or
    of that of ``beside``, of whose size the numbers were that they came from.
    """
    one, other = np.asarray(found), np.asarray(wanted)
    if one.shape != other.shape:
        raise NotSatisfied(f"{what}: expected shape {other.shape}, got {one.shape}")
    size = max(float(np.abs(part).max(initial=0.0)) for part in (one, other, np.asarray(beside)))
    gap = float(np.abs(one - other).max(initial=0.0))
    if not gap <= TOLERANCE * size:  # NaN is not
        raise NotSatisfied(f"{what}: differs by {gap / (size or 1.0):.3g} of the largest entry")
    return 1
