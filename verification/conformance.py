"""Everything that any estimator must satisfy, and what this one claims besides, checked in one go.

Bias is not a matter of it: an estimator may be biased and conform. A report says how many checks
ran, and why the others did not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from analytic.arrays import real_number, whole_number
from stochastic.estimators import Estimator
from verification import conformance_checks as checks
from verification import conformance_claims as claimed_checks
from verification.conformance_sampling import sampling
from verification.conformance_trials import Check, NotApplicable, NotSatisfied, Trial


class Claim(Enum):
    """What some estimators satisfy and others need not."""

    REWARD_SCALE = "rewards and critic times c: the estimate times c"
    REWARD_SHIFT = "a constant more in all rewards: the same estimate"
    MEAN_REWARD_SHIFT = "a constant more in all rewards: the same mean"
    CRITIC_IGNORED = "another critic: the same estimate"
    CRITIC_IS_BASELINE = "another critic that is 0 at the end: the same mean"
    BEHAVIOUR_IGNORED = "other behaviour_log_probs: the same estimate"
    OFF_POLICY = "drawn by another policy: the same mean"


class Mode(Enum):
    """Whether anything is sampled at random."""

    EXACT = "exact"
    SAMPLING = "sampling"


class Outcome(Enum):
    """Of one check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


_GATES: Mapping[str, Check] = {"runs and shapes": checks.runs, "purity": checks.purity}
_UNIVERSAL: Mapping[str, Check] = {
    "replications independent": checks.independence,
    "double precision": checks.precision,
    "coupling declared": checks.coupling,
    "identical trajectories": checks.identical,
    "relabelling": checks.relabelling,
    "horizon 1 is a bandit": checks.bandits,
    "dead steps carry nothing": checks.endings,
}
_CLAIMED: Mapping[Claim, Check] = {
    Claim.REWARD_SCALE: claimed_checks.reward_scale,
    Claim.REWARD_SHIFT: claimed_checks.reward_shift,
    Claim.MEAN_REWARD_SHIFT: claimed_checks.mean_reward_shift,
    Claim.CRITIC_IGNORED: claimed_checks.critic_ignored,
    Claim.CRITIC_IS_BASELINE: claimed_checks.critic_is_baseline,
    Claim.BEHAVIOUR_IGNORED: claimed_checks.behaviour_ignored,
    Claim.OFF_POLICY: claimed_checks.off_policy,
}
_SAMPLING = "sampling agrees with enumeration"


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
        """How many comparisons they made."""
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


def check_estimator(
    estimator: Estimator,
    *,
    claims: Iterable[Claim] = (),
    trajectories: int | None = None,
    mode: str | Mode = Mode.EXACT,
    seed: int = 0,
    exempt: Mapping[str, str] | None = None,
    samples: int = 2_000,
    false_alarm: float = 1e-4,
) -> ConformanceReport:
    """Whether an estimator satisfies what any must, and what it claims, on small random problems.

    ``trajectories`` declares that it couples the N trajectories of a batch. ``seed`` chooses the
    problems. In mode "exact" nothing else is random; "sampling" also compares ``samples`` sampled
    estimates with all outcomes, by a bound that fails a conforming estimator with probability
    ``false_alarm`` at most. ``exempt`` maps the names of checks to the reason why they do not
    apply. Anything with an ``order``, a ``name`` and ``prepare(batch, context)`` (see
    `stochastic.estimators.Evaluator`) will do, as well as what draws its own batches.

    Not checked: bias, other policies than the tabular softmax, two-player games, devices (all is
    computed on the CPU).

    Raises:
        ValueError: an unknown claim, mode or check; a number out of range.

    >>> from stochastic.estimators import from_surrogate
    >>> from stochastic.surrogates.score_function import ad
    >>> report = check_estimator(from_surrogate(ad, 1), claims=[Claim.REWARD_SCALE])
    >>> report.failed, report.ran
    ((), 10)
    """
    claimed, wanted = {_claim(claim) for claim in claims}, _mode(mode)
    trial = Trial(
        estimator,
        n=1 if trajectories is None else whole_number("trajectories", trajectories, at_least=1),
        coupled=trajectories is not None,
        seed=whole_number("seed", seed, at_least=0),
        samples=whole_number("samples", samples, at_least=1),
        false_alarm=real_number("false_alarm", false_alarm, low=1e-300, high=0.5),
    )
    excused = _excused({} if exempt is None else exempt)
    for claim in set(Claim) - claimed:
        excused.setdefault(_name(claim), "not claimed")
    if wanted is Mode.EXACT:
        excused.setdefault(_SAMPLING, "nothing is sampled in mode exact")
    results = _results(trial, excused)
    sampled = any(c.name == _SAMPLING and c.outcome is not Outcome.SKIPPED for c in results)
    rate = trial.false_alarm if sampled else 0.0
    used = vars(trial).get("enumerable")
    return ConformanceReport(estimator.name, results, rate, used.size if used else "")


def assert_conforms(estimator: Estimator, **options: Any) -> ConformanceReport:
    """`check_estimator`, insisting: its report if no check failed.

    Raises:
        AssertionError: with the report's text.
        ValueError: as `check_estimator`.
    """
    report = check_estimator(estimator, **options)
    if report.failed:
        raise AssertionError(str(report))
    return report


def _every_check() -> dict[str, Check]:
    claimed = {_name(claim): check for claim, check in _CLAIMED.items()}
    return {**_GATES, **_UNIVERSAL, **claimed, _SAMPLING: sampling}


def _results(trial: Trial, excused: Mapping[str, str]) -> tuple[CheckResult, ...]:
    """Of all checks, in order; once one of the first fails, the others would say nothing."""
    results: list[CheckResult] = []
    barred = ""
    for name, check in _every_check().items():
        reason = barred or excused.get(name, "")
        if reason:
            results.append(CheckResult(name, Outcome.SKIPPED, reason, 0))
            continue
        results.append(_result(name, check, trial))
        if name in _GATES and results[-1].outcome is Outcome.FAILED:
            barred = f"says nothing, as {name} failed"
    return tuple(results)


def _result(name: str, check: Check, trial: Trial) -> CheckResult:
    try:
        return CheckResult(name, Outcome.PASSED, "", check(trial))
    except NotApplicable as why:
        return CheckResult(name, Outcome.SKIPPED, str(why), 0)
    except (NotSatisfied, ValueError) as error:
        return CheckResult(name, Outcome.FAILED, str(error), 0)


def _name(claim: Claim) -> str:
    return f"claim {claim.name}"


def _claim(claim: object) -> Claim:
    if not isinstance(claim, Claim):
        raise ValueError(f"claims: expected members of Claim, got {claim!r}")
    return claim


def _mode(mode: str | Mode) -> Mode:
    try:
        return Mode(mode)
    except ValueError:
        raise ValueError(f"mode: expected exact or sampling, got {mode!r}") from None


def _excused(exempt: Mapping[str, str]) -> dict[str, str]:
    known = _every_check()
    for name in exempt:
        if name not in known or name in _GATES:
            names = ", ".join(other for other in known if other not in _GATES)
            raise ValueError(f"exempt: expected names among {names}; got {name!r}")
    return {name: f"exempt: {why}" for name, why in exempt.items()}
