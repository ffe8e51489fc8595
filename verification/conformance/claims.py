"""What an estimator may claim beyond the checks for all, one function for each claim."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradbias.verification.conformance.problems import Distribution
from gradbias.verification.conformance.runner import NotApplicable
from gradbias.verification.conformance.trial import EstimatorTrial

_SCALES = (3.7, -2.3, 1e4, 1e-4)
_SHIFTS = (1.3, -40.0, 5e3)


def reward_scale(trial: EstimatorTrial) -> None:
    """Rewards and critic times c: the estimate times c."""
    assert trial.setup.critic is not None
    unscaled = trial.estimates(trial.batch)
    for scale in _SCALES:
        setup = replace(trial.setup, critic=scale * trial.setup.critic)
        batch = replace(trial.batch, rewards=scale * trial.batch.rewards)
        trial.same(trial.estimates(batch, setup), scale * unscaled, f"rewards times {scale:g}")


def reward_shift(trial: EstimatorTrial) -> None:
    """All rewards larger by a constant: the same estimate."""
    setup = replace(trial.setup, critic=None)
    wanted = trial.estimates(trial.batch, setup)
    for shift in _SHIFTS:
        batch = replace(trial.batch, rewards=trial.batch.rewards + shift)
        estimates = trial.estimates(batch, setup)
        trial.same(estimates, wanted, f"rewards plus {shift:g}", beside=shift * wanted)


def symmetric(trial: EstimatorTrial) -> None:
    """The axes of the first and another derivative exchanged: the same estimate."""
    order, estimates = trial.estimator.order, trial.estimates(trial.batch)
    if order == 1:
        raise NotApplicable("an estimate of order 1 has nothing to exchange")
    square = estimates.reshape(-1, *(trial.setup.theta.size,) * order)
    for axis in range(2, order + 1):
        trial.same(np.swapaxes(square, 1, axis), square, f"axes 1 and {axis} exchanged")


def mean_reward_shift(trial: EstimatorTrial) -> str | None:
    """All rewards larger by a constant: the same mean."""
    setup = replace(trial.enumerable, critic=None)
    wanted = trial.distribution(setup)
    for shift in _SHIFTS[:2]:
        shifted = replace(setup, mdp=replace(setup.mdp, reward=setup.mdp.reward + shift))
        what = f"the mean with rewards plus {shift:g}"
        _same_mean(trial, trial.distribution(shifted), wanted, what)
    return _remark(trial)


def critic_ignored(trial: EstimatorTrial) -> None:
    """Another critic, or none: the same estimate."""
    assert trial.setup.critic is not None
    wanted = trial.estimates(trial.batch)
    for critic in (None, trial.rng(16).normal(size=trial.setup.critic.shape)):
        estimates = trial.estimates(trial.batch, replace(trial.setup, critic=critic))
        trial.same(estimates, wanted, "with another critic")


def critic_is_baseline(trial: EstimatorTrial) -> str | None:
    """Another critic that is 0 at the end, or none: the same mean."""
    assert trial.enumerable.critic is not None
    critic = np.array(trial.enumerable.critic)
    critic[-1] = 0.0
    with_critic = trial.distribution(replace(trial.enumerable, critic=critic))
    without = trial.distribution(replace(trial.enumerable, critic=None))
    what = "the mean with a critic that is 0 at the end, and none"
    _same_mean(trial, with_critic, without, what)
    return _remark(trial)


def behaviour_ignored(trial: EstimatorTrial) -> None:
    """Another behaviour's log-probabilities: the same estimate."""
    shift = trial.rng(17).uniform(-1.0, 0.0, size=trial.batch.rewards.shape)
    other = trial.batch.behaviour_log_probs + np.where(trial.batch.alive, shift, 0.0)
    estimates = trial.estimates(replace(trial.batch, behaviour_log_probs=other))
    trial.same(estimates, trial.estimates(trial.batch), "other behaviour_log_probs")


def off_policy(trial: EstimatorTrial) -> str | None:
    """Drawn by another policy: the same mean, through `behaviour_log_probs` alone."""
    setup = trial.enumerable
    wanted = trial.distribution(setup)
    for use in (18, 19):
        behaviour = setup.theta + trial.rng(use).normal(size=setup.theta.shape)
        off = trial.distribution(setup, behaviour)
        _same_mean(trial, off, wanted, "the mean where another policy draws")
    return _remark(trial)


def _remark(trial: EstimatorTrial) -> str | None:
    """A remark if means were compared over one step alone: much is true there that fails over two
    steps.
    """
    if trial.enumerable.steps > 1:
        return None
    return f"over one step only: batches of {trial.n} are too many over two"


def _same_mean(
    trial: EstimatorTrial, computed: Distribution, wanted: Distribution, what: str
) -> None:
    """Compares two means, relative to the estimates and not to a mean that may be 0."""
    largest = [np.abs(each.mean) + each.reach for each in (computed, wanted)]
    trial.same(computed.mean, wanted.mean, what, beside=largest)
