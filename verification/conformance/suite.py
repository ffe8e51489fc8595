"""Everything that any estimator must satisfy, and what this one claims besides, checked in one go.

Bias is not a matter of it: an estimator may be biased and conform. A report says how many checks
ran, and why the others did not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from functools import partial
from typing import Any

from gradbias.analytic.utils.validation import real_number, whole_number
from gradbias.stochastic.derivatives.process_state import put_back
from gradbias.stochastic.estimators.kinds import Estimator
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.verification.conformance import checks, precision
from gradbias.verification.conformance import claims as claimed_checks
from gradbias.verification.conformance.meta_suite import check_meta_gradient
from gradbias.verification.conformance.report import (
    ConformanceReport,
    Mode,
    Outcome,
    checked_mode,
    exemptions,
    results_of,
)
from gradbias.verification.conformance.sampling import sampling
from gradbias.verification.conformance.trial import Check, Trial


class Claim(Enum):
    """What some estimators satisfy and others need not."""

    REWARD_SCALE = "rewards and critic times c, of either sign: the estimate times c"
    SYMMETRIC = "derivatives exchanged: the same estimate"
    REWARD_SHIFT = "no critic, no early end, a constant more in all rewards: the same estimate"
    MEAN_REWARD_SHIFT = "no critic, no early end, a constant more in all rewards: the same mean"
    CRITIC_IGNORED = "another critic: the same estimate"
    CRITIC_IS_BASELINE = "another critic that is 0 at the end: the same mean"
    BEHAVIOUR_IGNORED = "other behaviour_log_probs: the same estimate"
    OFF_POLICY = "drawn by another policy: the same mean"


_GATES: Mapping[str, Check] = {"runs and shapes": checks.runs, "purity": checks.purity}
_UNIVERSAL: Mapping[str, Check] = {
    "replications independent": checks.independence,
    "double precision": precision.precision,
    "float32 record": precision.single_precision,
    "another device": precision.another_device,
    "coupling declared": checks.coupling,
    "identical trajectories": checks.identical,
    "relabelling": checks.relabelling,
    "horizon 1 is a bandit": checks.bandits,
    "dead steps carry nothing": checks.endings,
}
_CLAIMED: Mapping[Claim, Check] = {
    Claim.REWARD_SCALE: claimed_checks.reward_scale,
    Claim.SYMMETRIC: claimed_checks.symmetric,
    Claim.REWARD_SHIFT: claimed_checks.reward_shift,
    Claim.MEAN_REWARD_SHIFT: claimed_checks.mean_reward_shift,
    Claim.CRITIC_IGNORED: claimed_checks.critic_ignored,
    Claim.CRITIC_IS_BASELINE: claimed_checks.critic_is_baseline,
    Claim.BEHAVIOUR_IGNORED: claimed_checks.behaviour_ignored,
    Claim.OFF_POLICY: claimed_checks.off_policy,
}
_SAMPLING = "sampling agrees with enumeration"


def check_estimator(
    estimator: Estimator,
    *,
    claims: Iterable[Claim] = (),
    batch_size: int | None = None,
    mode: str | Mode = Mode.EXACT,
    seed: int = 0,
    exempt: Mapping[str, str] | None = None,
    replications: int = 2_000,
    false_alarm: float = 1e-4,
) -> ConformanceReport:
    """Whether an estimator satisfies what any must, and what it claims, on small random problems.

    ``batch_size`` declares that it couples the N trajectories of a batch. ``seed`` chooses the
    problems. In mode "exact" nothing else is random; "sampling" also compares ``replications``
    sampled estimates with all outcomes, by a bound that fails a conforming estimator with
    probability ``false_alarm`` at most. ``exempt`` maps the names of checks to the reason why they
    do not apply. Anything with an ``order``, a ``name`` and ``prepare(batch, context)`` (see
    `stochastic.estimators.kinds.Evaluator`) will do, as well as what draws its own batches.

    A surrogate must follow its record's dtype and device: it is also given a float32 record, and
    one on the machine's accelerator or, where there is none, on torch's meta device (which has
    shapes alone). Not checked: bias, other policies than the tabular softmax, two-player games,
    other devices for what is no surrogate, what depends on the clock.

    Raises:
        ValueError: no estimator, an unknown claim, mode or check, an exemption without a reason, a
            number out of range.

    >>> from gradbias.stochastic import ad, from_surrogate
    >>> report = check_estimator(from_surrogate(ad, order=1), claims=[Claim.REWARD_SCALE])
    >>> report.failed, report.ran
    ((), 12)
    """
    _check_kind(estimator)
    claimed, wanted = _claims(claims), checked_mode(mode)
    trial = Trial(
        estimator,
        n=1 if batch_size is None else whole_number("batch_size", batch_size, at_least=1),
        coupled=batch_size is not None,
        seed=whole_number("seed", seed, at_least=0),
        replications=whole_number("replications", replications, at_least=1),
        false_alarm=real_number("false_alarm", false_alarm, low=1e-300, high=0.5),
    )
    known = {name: partial(check, trial) for name, check in _every_check().items()}
    excused = exemptions(exempt, known, set(_GATES))
    for claim in set(Claim) - claimed:
        excused.setdefault(_name(claim), "not claimed")
    if wanted is Mode.EXACT:
        excused.setdefault(_SAMPLING, "nothing is sampled in mode exact")
    with put_back():
        results = results_of(known, set(_GATES), excused)
    sampled = any(c.name == _SAMPLING and c.outcome is not Outcome.SKIPPED for c in results)
    rate = trial.false_alarm if sampled else 0.0
    used = vars(trial).get("enumerable")
    return ConformanceReport(estimator.name, results, rate, used.size if used else "")


def assert_conforms(estimator: Estimator | MetaGradient, **options: Any) -> ConformanceReport:
    """`check_estimator` (of a `MetaGradient`: `check_meta_gradient`), insisting: its report if no
    check failed.

    Raises:
        AssertionError: with the report's text.
        ValueError: as those.
    """
    if isinstance(estimator, MetaGradient):
        report = check_meta_gradient(estimator, **options)
    else:
        report = check_estimator(estimator, **options)
    if report.failed:
        raise AssertionError(str(report))
    return report


def _every_check() -> dict[str, Check]:
    claimed = {_name(claim): check for claim, check in _CLAIMED.items()}
    return {**_GATES, **_UNIVERSAL, **claimed, _SAMPLING: sampling}


def _name(claim: Claim) -> str:
    return f"claim {claim.name}"


def _claims(claims: object) -> set[Claim]:
    if isinstance(claims, str) or not isinstance(claims, Iterable):
        raise ValueError(f"claims: expected several members of Claim, got {claims!r}")
    found = set()
    for claim in claims:
        if not isinstance(claim, Claim):
            raise ValueError(f"claims: expected members of Claim, got {claim!r}")
        found.add(claim)
    return found


def _check_kind(estimator: object) -> None:
    if isinstance(estimator, MetaGradient):
        raise ValueError("estimator: give a meta-gradient to check_meta_gradient, got one")
    wanted = ("prepare", "order", "name", "draws_itself")
    if not all(hasattr(estimator, name) for name in wanted):
        raise ValueError(
            "estimator: expected what from_surrogate, from_callable or from_draws make, got a "
            f"{type(estimator).__name__}"
        )
