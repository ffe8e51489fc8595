"""What an estimator may claim besides, one function a claim."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradbias.verification.conformance.problems import Distribution
from gradbias.verification.conformance.report import (
    TOLERANCE,
    NotApplicable,
    NotSatisfied,
    Remarked,
    check_equal,
)
from gradbias.verification.conformance.trial import Trial

_SCALES = (3.7, -2.3, 1e4, 1e-4)
_SHIFTS = (1.3, -40.0, 5e3)


def reward_scale(trial: Trial) -> int:
    """Rewards and critic times c: the estimate times c."""
    assert trial.setup.critic is not None
    plain, made = trial.estimates(trial.batch), 0
    for scale in _SCALES:
        scaled = replace(trial.setup, critic=scale * trial.setup.critic)
        batch = replace(trial.batch, rewards=scale * trial.batch.rewards)
        found = trial.estimates(batch, scaled)
        made += check_equal(found, scale * plain, f"rewards times {scale:g}")
    return made


def reward_shift(trial: Trial) -> int:
    """All rewards larger by a constant: the same estimate."""
    plain = replace(trial.setup, critic=None)
    wanted, made = trial.estimates(trial.batch, plain), 0
    for shift in _SHIFTS:
        batch = replace(trial.batch, rewards=trial.batch.rewards + shift)
        found = trial.estimates(batch, plain)
        made += check_equal(found, wanted, f"rewards plus {shift:g}", beside=shift * wanted)
    return made


def symmetric(trial: Trial) -> int:
    """Exchanged, the axes of the first and another derivative: the same estimate."""
    order, found = trial.estimator.order, trial.estimates(trial.batch)
    if order == 1:
        raise NotApplicable("an estimate of order 1 has nothing to exchange")
    size = trial.setup.theta.size
    square = found.reshape(-1, *(size,) * order)
    made = 0
    for axis in range(2, order + 1):
        made += check_equal(np.swapaxes(square, 1, axis), square, f"axes 1 and {axis} exchanged")
    return made


def mean_reward_shift(trial: Trial) -> int | Remarked:
    """All rewards larger by a constant: the same mean."""
    setup, made = replace(trial.enumerable, critic=None), 0
    wanted = trial.distribution(setup)
    for shift in _SHIFTS[:2]:
        paid = replace(setup, mdp=replace(setup.mdp, reward=setup.mdp.reward + shift))
        what = f"the mean with rewards plus {shift:g}"
        made += _equal_means(trial.distribution(paid), wanted, what)
    return _over_steps(trial, made)


def critic_ignored(trial: Trial) -> int:
    """Another critic, or none: the same estimate."""
    assert trial.setup.critic is not None
    wanted = trial.estimates(trial.batch)
    made = 0
    for critic in (None, trial.rng(16).normal(size=trial.setup.critic.shape)):
        found = trial.estimates(trial.batch, replace(trial.setup, critic=critic))
        made += check_equal(found, wanted, "with another critic")
    return made


def critic_is_baseline(trial: Trial) -> int | Remarked:
    """Another critic that is 0 at the end, or none: the same mean."""
    assert trial.enumerable.critic is not None
    critic = np.array(trial.enumerable.critic)
    critic[-1] = 0.0
    found = trial.distribution(replace(trial.enumerable, critic=critic))
    wanted = trial.distribution(replace(trial.enumerable, critic=None))
    made = _equal_means(found, wanted, "the mean with a critic that is 0 at the end, and none")
    return _over_steps(trial, made)


def behaviour_ignored(trial: Trial) -> int:
    """Another behaviour's log-probabilities: the same estimate."""
    shift = trial.rng(17).uniform(-1.0, 0.0, size=trial.batch.rewards.shape)
    other = trial.batch.behaviour_log_probs + np.where(trial.batch.alive, shift, 0.0)
    found = trial.estimates(replace(trial.batch, behaviour_log_probs=other))
    return check_equal(found, trial.estimates(trial.batch), "other behaviour_log_probs")


def off_policy(trial: Trial) -> int | Remarked:
    """Drawn by another policy: the same mean, through `behaviour_log_probs` alone."""
    setup = trial.enumerable
    wanted, made = trial.distribution(setup), 0
    for which in (18, 19):
        other = setup.theta + trial.rng(which).normal(size=setup.theta.shape)
        found = trial.distribution(setup, other)
        made += _equal_means(found, wanted, "the mean where another policy draws")
    return _over_steps(trial, made)


def _over_steps(trial: Trial, made: int) -> int | Remarked:
    """Over one step much is true that is not over two."""
    if trial.enumerable.steps > 1:
        return made
    return Remarked(made, f"over one step only: batches of {trial.n} are too many over two")


def _equal_means(found: Distribution, wanted: Distribution, what: str) -> int:
    """`check_equal`, but relative to the estimates, not to a mean that may be 0."""
    size = max(float((np.abs(one.mean) + one.reach).max()) for one in (found, wanted))
    gap = float(np.abs(found.mean - wanted.mean).max())
    if not gap <= TOLERANCE * size:
        raise NotSatisfied(f"{what}: differs by {gap / (size or 1.0):.3g} of the largest estimate")
    return 1
