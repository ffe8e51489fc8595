"""What an estimator may claim besides, one function a claim."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from verification.conformance_cases import Distribution
from verification.conformance_trials import TOLERANCE, NotSatisfied, Trial, check_equal

_SCALE = 3.7
_SHIFT = 1.3


def reward_scale(trial: Trial) -> int:
    """Rewards and critic times c: the estimate times c."""
    assert trial.setup.critic is not None
    scaled = replace(trial.setup, critic=_SCALE * trial.setup.critic)
    batch = replace(trial.batch, rewards=_SCALE * trial.batch.rewards)
    wanted = _SCALE * trial.estimates(trial.batch)
    return check_equal(trial.estimates(batch, scaled), wanted, f"rewards times {_SCALE}")


def reward_shift(trial: Trial) -> int:
    """All rewards larger by a constant: the same estimate."""
    plain = replace(trial.setup, critic=None)
    batch = replace(trial.batch, rewards=trial.batch.rewards + _SHIFT)
    wanted = trial.estimates(trial.batch, plain)
    return check_equal(trial.estimates(batch, plain), wanted, f"rewards plus {_SHIFT}")


def mean_reward_shift(trial: Trial) -> int:
    """All rewards larger by a constant: the same mean."""
    setup = replace(trial.enumerable, critic=None)
    paid = replace(setup, mdp=replace(setup.mdp, reward=setup.mdp.reward + _SHIFT))
    found = trial.distribution(paid)
    return _equal_means(found, trial.distribution(setup), f"the mean with rewards plus {_SHIFT}")


def critic_ignored(trial: Trial) -> int:
    """Another critic, or none: the same estimate."""
    assert trial.setup.critic is not None
    wanted = trial.estimates(trial.batch)
    made = 0
    for critic in (None, trial.rng(16).normal(size=trial.setup.critic.shape)):
        found = trial.estimates(trial.batch, replace(trial.setup, critic=critic))
        made += check_equal(found, wanted, "with another critic")
    return made


def critic_is_baseline(trial: Trial) -> int:
    """Another critic that is 0 at the end, or none: the same mean."""
    assert trial.enumerable.critic is not None
    critic = np.array(trial.enumerable.critic)
    critic[-1] = 0.0
    found = trial.distribution(replace(trial.enumerable, critic=critic))
    wanted = trial.distribution(replace(trial.enumerable, critic=None))
    return _equal_means(found, wanted, "the mean with a critic that is 0 at the end, and none")


def behaviour_ignored(trial: Trial) -> int:
    """Another behaviour's log-probabilities: the same estimate."""
    shift = trial.rng(17).uniform(-1.0, 0.0, size=trial.batch.rewards.shape)
    other = trial.batch.behaviour_log_probs + np.where(trial.batch.alive, shift, 0.0)
    found = trial.estimates(replace(trial.batch, behaviour_log_probs=other))
    return check_equal(found, trial.estimates(trial.batch), "other behaviour_log_probs")


def off_policy(trial: Trial) -> int:
    """Drawn by another policy: the same mean, through `behaviour_log_probs` alone."""
    setup = trial.enumerable
    wanted, made = trial.distribution(setup), 0
    for which in (18, 19):
        other = setup.theta + trial.rng(which).normal(size=setup.theta.shape)
        found = trial.distribution(setup, other)
        made += _equal_means(found, wanted, "the mean where another policy draws")
    return made


def _equal_means(found: Distribution, wanted: Distribution, what: str) -> int:
    """`check_equal`, but relative to the estimates, not to a mean that may be 0."""
    size = max(float((np.abs(one.mean) + one.reach).max()) for one in (found, wanted))
    gap = float(np.abs(found.mean - wanted.mean).max())
    if gap > TOLERANCE * size:
        raise NotSatisfied(f"{what}: differs by {gap / size:.3g} of the largest estimate")
    return 1
