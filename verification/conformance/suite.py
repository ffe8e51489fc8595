"""The conformance suite: all that every estimator must satisfy, and the claims of a given one.

Bias is no part of it: an estimator may be biased and conform. A report says how many checks ran,
and why the others did not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import whole_number
from gradbias.stochastic.estimators.kinds import Estimator
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.verification.conformance import checks, claims, meta_checks, precision, sampling
from gradbias.verification.conformance.meta_checks import MetaTrial
from gradbias.verification.conformance.report import (
    ConformanceReport,
    ConformanceVerdict,
    Outcome,
)
from gradbias.verification.conformance.runner import (
    Check,
    Mode,
    run_checks,
    seed_from,
    skipped_checks,
)
from gradbias.verification.conformance.trial import EstimatorTrial


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


_SAMPLING = "sampling agrees with enumeration"

CHECKS: tuple[Check[EstimatorTrial], ...] = (
    Check("runs and shapes", checks.runs, gate=True),
    Check("purity", checks.purity, gate=True),
    Check("replications independent", checks.independence),
    Check("double precision", precision.precision),
    Check("float32 record", precision.single_precision),
    Check("another device", precision.another_device),
    Check("coupling declared", checks.coupling),
    Check("identical trajectories", checks.identical),
    Check("relabelling", checks.relabelling),
    Check("horizon 1 is a bandit", checks.bandits),
    Check("dead steps carry nothing", checks.endings),
    Check("claim REWARD_SCALE", claims.reward_scale, claim=Claim.REWARD_SCALE),
    Check("claim SYMMETRIC", claims.symmetric, claim=Claim.SYMMETRIC),
    Check("claim REWARD_SHIFT", claims.reward_shift, claim=Claim.REWARD_SHIFT),
    Check("claim MEAN_REWARD_SHIFT", claims.mean_reward_shift, claim=Claim.MEAN_REWARD_SHIFT),
    Check("claim CRITIC_IGNORED", claims.critic_ignored, claim=Claim.CRITIC_IGNORED),
    Check("claim CRITIC_IS_BASELINE", claims.critic_is_baseline, claim=Claim.CRITIC_IS_BASELINE),
    Check("claim BEHAVIOUR_IGNORED", claims.behaviour_ignored, claim=Claim.BEHAVIOUR_IGNORED),
    Check("claim OFF_POLICY", claims.off_policy, claim=Claim.OFF_POLICY),
    Check(_SAMPLING, sampling.sampling, samples=True),
)
META_CHECKS: tuple[Check[MetaTrial], ...] = (
    Check("runs and shapes", meta_checks.runs, gate=True),
    Check("purity", meta_checks.purity, gate=True),
    Check("replications independent", meta_checks.independence),
    Check("steps of size 0", meta_checks.steps),
    Check("relabelling", meta_checks.relabelling),
    Check(_SAMPLING, meta_checks.sampling, samples=True),
)


def check_estimator(
    estimator: Estimator,
    *,
    claims: Iterable[Claim] = (),
    batch_size: int | None = None,
    mode: str | Mode = Mode.EXACT,
    rng: np.random.Generator | None = None,
    exempt: Mapping[str, str] | None = None,
    replications: int = 2_000,
    false_alarm: float = 1e-4,
) -> ConformanceReport:
    """The report on whether an estimator satisfies what every estimator must, on small random
    problems.

    Not checked: bias, policies other than the tabular softmax, two-player games, other devices for
    an estimator that is no surrogate, dependence on the clock.

    Args:
        estimator: from `from_surrogate`, `from_callable` or `from_draws`, or any object with an
            ``order``, a ``name`` and ``prepare(batch, context)`` (see
            `stochastic.estimators.kinds.Evaluator`; `measure_bias` needs ``draws_itself``, too).
            A surrogate must follow its record's dtype and
            device: it is also given a float32 record, and one on the machine's accelerator or,
            where there is none, on torch's meta device (which has shapes alone).
        claims: what this estimator satisfies besides, each with a check.
        batch_size: N, which declares that the estimator couples the N trajectories of a batch.
        mode: "exact", or "sampling", which also compares sampled estimates with all outcomes.
        rng: chooses the problems (default: seeded 0). In mode "exact" nothing else is random.
        exempt: by name of the check, the reason why it does not apply to this estimator.
        replications: the number of sampled estimates.
        false_alarm: the type I error rate: in mode "sampling" a conforming estimator fails with
            this probability at most.

    Returns:
        A `ConformanceReport`: verdict, the names of the checks that failed, one line a check.

    Raises:
        ValueError: no estimator, an unknown claim, mode or check, an exemption without a reason, a
            number out of range.

    >>> from gradbias.stochastic import ad, from_surrogate
    >>> report = check_estimator(from_surrogate(ad, order=1), claims=[Claim.REWARD_SCALE])
    >>> report.verdict.name, report.failed, report.ran
    ('CONFORMS', (), 12)
    """
    _check_kind(estimator)
    made = _checked_claims(claims)
    trial = EstimatorTrial(
        estimator=estimator,
        n=1 if batch_size is None else whole_number("batch_size", batch_size, at_least=1),
        coupled=batch_size is not None,
        seed=seed_from(rng),
        replications=replications,
        false_alarm=false_alarm,
    )
    return run_checks(trial, CHECKS, skipped_checks(CHECKS, mode, made, exempt))


def check_meta_gradient(
    estimator: MetaGradient,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None = None,
    *,
    mode: str | Mode = Mode.EXACT,
    rng: np.random.Generator | None = None,
    exempt: Mapping[str, str] | None = None,
    replications: int = 10_000,
    false_alarm: float = 1e-4,
) -> ConformanceReport:
    """The report on whether a sampled K-step meta-gradient satisfies what every one must.

    The checks run on the meta-gradient's problem. Not checked: bias, dtypes,
    devices. Its surrogates can be put to `check_estimator`.

    Args:
        estimator: the meta-gradient.
        meta_parameters: phi, as in `MetaGradient.estimates`.
        theta: the policy's parameters before the first inner step, likewise (None: it starts at
            phi).
        mode: "exact", or "sampling", which also compares means where all draws can be enumerated.
        rng: chooses the draws, which the checks compare with themselves (default: seeded 0).
        exempt: as for `check_estimator`.
        replications: the number of sampled estimates.
        false_alarm: as for `check_estimator`, whatever the replications.

    Returns:
        A `ConformanceReport`, as `check_estimator` does.

    Raises:
        ValueError: another object than a MetaGradient, parameters that do not fit, an unknown mode
            or check, a number out of range.

    >>> from gradbias.analytic import TabularMDP
    >>> from gradbias.stochastic import MetaGradient, Sampled, SampledLoop, ad, dice
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> loop = SampledLoop(bandit, starts_at_meta=True)
    >>> sampled = MetaGradient(loop, 1, 1.0, Sampled(ad, 4), Sampled(dice, 4), Sampled(ad, 4))
    >>> report = check_meta_gradient(sampled, [[0.5, 0.0]], mode="sampling")
    >>> report.failed, report.ran
    ((), 6)
    """
    subject: object = estimator
    if not isinstance(subject, MetaGradient):
        kind = type(estimator).__name__
        raise ValueError(f"estimator: expected a MetaGradient, got a {kind} (see check_estimator)")
    phi, start = estimator.loop.start(meta_parameters, theta)
    trial = MetaTrial(
        estimator=estimator,
        phi=phi,
        theta=None if estimator.loop.starts_at_meta else start,
        seed=seed_from(rng),
        replications=replications,
        false_alarm=false_alarm,
    )
    return run_checks(trial, META_CHECKS, skipped_checks(META_CHECKS, mode, (), exempt))


def assert_conforms(estimator: Estimator | MetaGradient, **options: Any) -> ConformanceReport:
    """The report of `check_estimator` (of a `MetaGradient`: `check_meta_gradient`), if none failed.

    Args:
        estimator: the estimator, or meta-gradient.
        options: the arguments of that function.

    Returns:
        The report, whose verdict is CONFORMS.

    Raises:
        AssertionError: a check failed; the message is the report's text.
        ValueError: as that function.

    >>> from gradbias.stochastic import dice, from_surrogate
    >>> assert_conforms(from_surrogate(dice, order=2)).ran
    11
    """
    report = _report(estimator, options)
    if report.verdict is ConformanceVerdict.FAILS:
        raise AssertionError(str(report))
    return report


def conformance_tests(estimator: Estimator | MetaGradient, **options: Any) -> Callable[[str], None]:
    """A pytest function with one test item for each check of `assert_conforms`, named by the check.

    The checks run once, with the first item. A check that does not apply is a skipped test with its
    reason. Claims that are not made, and checks that are exempt, have no item.

    Args:
        estimator: the estimator, or meta-gradient.
        options: the arguments of `check_estimator`, or `check_meta_gradient`.

    Returns:
        The function, to be assigned to a name that begins with ``test_`` in a test module.

    Raises:
        ValueError: a wrong claim, mode or exemption; other wrong options fail each item.

    >>> from gradbias.stochastic import ad, from_surrogate
    >>> test_ad = conformance_tests(from_surrogate(ad, order=1), claims=[Claim.REWARD_SCALE])
    """
    import pytest

    of_kind: Sequence[Check[Any]] = META_CHECKS if isinstance(estimator, MetaGradient) else CHECKS
    mode, exempt = options.get("mode", Mode.EXACT), options.get("exempt")
    skipped = skipped_checks(of_kind, mode, _checked_claims(options.get("claims", ())), exempt)
    report = cache(partial(_report, estimator, options))

    @pytest.mark.parametrize("check", [c.name for c in of_kind if c.name not in skipped])
    def test_conformance(check: str) -> None:
        (result,) = (result for result in report().checks if result.name == check)
        if result.outcome is Outcome.SKIPPED:
            pytest.skip(result.detail)
        if result.outcome is Outcome.FAILED:
            raise AssertionError(f"{estimator.name}: {result}")

    return test_conformance


def _report(estimator: Estimator | MetaGradient, options: Mapping[str, Any]) -> ConformanceReport:
    if isinstance(estimator, MetaGradient):
        return check_meta_gradient(estimator, **options)
    return check_estimator(estimator, **options)


def _checked_claims(claims: object) -> set[Claim]:
    """The claims. Raises ValueError unless each is a member of `Claim`."""
    if isinstance(claims, str) or not isinstance(claims, Iterable):
        raise ValueError(f"claims: expected several members of Claim, got {claims!r}")
    checked = set()
    for claim in claims:
        if not isinstance(claim, Claim):
            raise ValueError(f"claims: expected members of Claim, got {claim!r}")
        checked.add(claim)
    return checked


def _check_kind(estimator: object) -> None:
    """Raises ValueError for a meta-gradient, or unless there are prepare, an order and a name."""
    if isinstance(estimator, MetaGradient):
        raise ValueError("estimator: give a meta-gradient to check_meta_gradient, got one")
    if not all(hasattr(estimator, name) for name in ("prepare", "order", "name")):
        raise ValueError(
            "estimator: expected what from_surrogate, from_callable or from_draws make, or an "
            f"object with order, name and prepare, got a {type(estimator).__name__}"
        )
