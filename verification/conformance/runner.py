"""What a conformance check is, what it runs on, and how a list of checks becomes a report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, choice, real_number, whole_number
from gradbias.stochastic.derivatives.coefficients import located
from gradbias.stochastic.derivatives.process_state import put_back
from gradbias.stochastic.estimators.kinds import Estimator
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.verification.conformance.report import CheckResult, ConformanceReport, Outcome

TOLERANCE = 1e-8
"""The largest difference that is taken for rounding, relative to the largest entry compared."""


class Mode(Enum):
    """Whether estimates are also sampled at random, and compared with all outcomes."""

    EXACT = "exact"
    SAMPLING = "sampling"


class NotSatisfied(Exception):  # noqa: N818
    """The estimator fails a check; the message says how."""


class NotApplicable(Exception):  # noqa: N818
    """A check has nothing to say about this estimator; the message says why."""


@dataclass(eq=False, kw_only=True)
class Trial:
    """An estimator on trial, with the problems, batches and random numbers that its checks share.

    The runner knows nothing else of an estimator. There are two kinds: `EstimatorTrial`, on small
    random problems, and `MetaTrial`, on the problem that a meta-gradient brings along.
    ``replications`` estimates are drawn in mode "sampling", and a conforming estimator then fails
    with probability ``false_alarm`` at most.
    """

    estimator: Estimator | MetaGradient
    seed: int
    replications: int
    false_alarm: float
    comparisons: int = 0

    def __post_init__(self) -> None:
        whole_number("replications", self.replications, at_least=1)
        real_number("false_alarm", self.false_alarm, low=1e-300, high=0.5)

    def rng(self, use: int) -> np.random.Generator:
        """The generator for one use of random numbers."""
        return np.random.default_rng([self.seed, use])

    def same(
        self, values: npt.ArrayLike, wanted: npt.ArrayLike, what: str, beside: npt.ArrayLike = 0.0
    ) -> None:
        """Counts one comparison. Raises NotSatisfied as `check_equal` does."""
        self.comparisons += 1
        check_equal(values, wanted, what, beside)

    def finite(self, estimates: FloatArray, shape: tuple[int, ...], where: str = "") -> None:
        """Counts one comparison. Raises NotSatisfied unless estimates are finite, of that shape."""
        self.comparisons += 1
        if estimates.shape != shape or estimates.dtype != np.float64:
            kind = f"{estimates.dtype} of shape {estimates.shape}"
            raise NotSatisfied(f"{where}expected float64 of shape {shape}, got {kind}")
        if not np.isfinite(estimates).all():
            raise NotSatisfied(f"{where}expected finite numbers, got NaN or infinity")

    @property
    def enumerated(self) -> str:
        """The problem on which means were taken over all batches, in words ("" if none was)."""
        raise NotImplementedError


T = TypeVar("T", bound=Trial)


@dataclass(frozen=True)
class Check(Generic[T]):
    """One thing that estimators must satisfy.

    ``run`` raises NotSatisfied or, where it does not apply, NotApplicable; it may return a remark
    on what a pass does not cover. Checks after a ``gate`` that failed are skipped: the estimator is
    no function of its batch, so that they would say nothing. A check with a ``claim`` runs only if
    that claim is made, and one that ``samples`` only in mode "sampling".
    """

    name: str
    run: Callable[[T], str | None]
    gate: bool = False
    claim: Enum | None = None
    samples: bool = False

    def result(self, trial: T) -> CheckResult:
        """The outcome; an exception of any other kind is a failure too."""
        before = trial.comparisons
        try:
            remark = self.run(trial)
        except NotApplicable as why:
            return CheckResult(self.name, Outcome.SKIPPED, str(why), 0)
        except (NotSatisfied, ValueError) as error:
            return CheckResult(self.name, Outcome.FAILED, str(error), 0)
        except Exception as error:  # a user's evaluator may raise anything
            return CheckResult(self.name, Outcome.FAILED, located(error), 0)
        return CheckResult(self.name, Outcome.PASSED, remark or "", trial.comparisons - before)


def skipped_checks(
    checks: Sequence[Check[T]], mode: str | Mode, claims: Collection[Enum], exempt: object
) -> dict[str, str]:
    """The reason for each check that is skipped, by its name: its claim is not made, it samples and
    the mode is "exact", or the caller exempts it.

    Raises:
        ValueError: an unknown mode; exemptions that are no mapping, that name an unknown check or a
            gate, or that have no reason.
    """
    exact = choice("mode", mode, Mode) is Mode.EXACT
    reasons = {c.name: "not claimed" for c in checks if c.claim and c.claim not in claims}
    if exact:
        reasons |= {c.name: "nothing is sampled in mode exact" for c in checks if c.samples}
    if not isinstance(exempt, Mapping | None):
        raise ValueError(f"exempt: expected reasons by name of the check, got {exempt!r}")
    known = [check.name for check in checks if not check.gate]
    for name, why in (exempt or {}).items():
        if name not in known:
            raise ValueError(f"exempt: expected names among {', '.join(known)}; got {name!r}")
        if not isinstance(why, str) or not why.strip():
            raise ValueError(f"exempt: expected the reason for {name!r} in words, got {why!r}")
        reasons[name] = f"exempt: {why}"
    return reasons


def run_checks(
    trial: T, checks: Sequence[Check[T]], skipped: Mapping[str, str]
) -> ConformanceReport:
    """The report of all checks in order; ``skipped`` has the reasons of those that do not run."""
    results: list[CheckResult] = []
    barred, sampled = "", False
    with put_back():
        for check in checks:
            if reason := barred or skipped.get(check.name, ""):
                results.append(CheckResult(check.name, Outcome.SKIPPED, reason, 0))
                continue
            results.append(check.result(trial))
            sampled |= check.samples and results[-1].outcome is not Outcome.SKIPPED
            if check.gate and results[-1].outcome is Outcome.FAILED:
                barred = f"says nothing, as {check.name} failed"
    rate = trial.false_alarm if sampled else 0.0
    return ConformanceReport(trial.estimator.name, tuple(results), rate, trial.enumerated)


def seed_from(rng: object) -> int:
    """A seed drawn from ``rng`` (None: a generator seeded 0). Raises ValueError for other kinds."""
    chosen = np.random.default_rng(0) if rng is None else rng
    if not isinstance(chosen, np.random.Generator):
        raise ValueError(f"rng: expected a numpy Generator, got {rng!r}")
    return int(chosen.integers(2**63))


def check_equal(
    values: npt.ArrayLike, wanted: npt.ArrayLike, what: str, beside: npt.ArrayLike = 0.0
) -> None:
    """Compares two arrays that were computed in two ways.

    Raises:
        NotSatisfied: they differ by more than rounding, relative to the largest entry of either or
            of ``beside``, numbers from which they were computed.
    """
    got, expected = np.asarray(values), np.asarray(wanted)
    if got.shape != expected.shape:
        raise NotSatisfied(f"{what}: expected shape {expected.shape}, got {got.shape}")
    compared = (got, expected, np.asarray(beside))
    size = max(float(np.abs(array).max(initial=0.0)) for array in compared)
    gap = float(np.abs(got - expected).max(initial=0.0))
    if not gap <= TOLERANCE * size:  # true also if the gap is NaN
        raise NotSatisfied(f"{what}: differs by {gap / (size or 1.0):.3g} of the largest entry")
