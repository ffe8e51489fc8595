"""Estimators that pass every check of the conformance suite, with all the claims they satisfy."""

import numpy as np

from gradbias.stochastic.estimators.kinds import from_callable, from_draws, from_surrogate
from gradbias.stochastic.surrogates.dice import Dice, LoadedDice, tmaml
from gradbias.stochastic.surrogates.group_relative import dr_grpo, grpo, rloo
from gradbias.stochastic.surrogates.off_policy import OffPolicyDice
from gradbias.stochastic.surrogates.score_function import AD, LVC, actor_critic
from gradbias.stochastic.surrogates.taylor import v_trace
from gradbias.verification.conformance.suite import Claim

SYMMETRIC = Claim.SYMMETRIC
SCALE, SHIFT, MEAN_SHIFT = Claim.REWARD_SCALE, Claim.REWARD_SHIFT, Claim.MEAN_REWARD_SHIFT
NO_CRITIC, BASELINE = Claim.CRITIC_IGNORED, Claim.CRITIC_IS_BASELINE
ON, OFF = Claim.BEHAVIOUR_IGNORED, Claim.OFF_POLICY


def probabilities(theta):
    weights = np.exp(theta - theta.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def reinforce_each(batch, theta, discount=0.8):
    """REINFORCE in numpy, one gradient for each trajectory, ``[N, S, A]``."""
    policy = probabilities(theta)
    powers = discount ** np.arange(batch.rewards.shape[-1])
    found = np.zeros((len(batch.actions), *theta.shape))
    for i, (states, actions) in enumerate(zip(batch.states, batch.actions, strict=True)):
        for state, action, alive in zip(states[:-1], actions, batch.alive[i], strict=True):
            if alive:
                found[i, state] -= policy[state]
                found[i, state, action] += 1.0
        found[i] *= powers @ batch.rewards[i]
    return found


def by_hand(batch, theta):
    return reinforce_each(batch, theta).mean(axis=0)


def one_step_ahead(draw, theta):
    """The gradient after one sampled step: a first-order meta-gradient."""
    after = theta + 0.5 * by_hand(draw(theta, 1), theta)
    return by_hand(draw(after, 1), after)


def ranks(record):
    """The number of trajectories with a smaller return: a step function of the rewards."""
    returns = record.rewards.sum(-1)
    better = (returns[:, None] > returns[None, :]).to(record.rewards.dtype).sum(-1)
    return (better * record.log_probs.sum(-1)).mean()


CONFORMING = {
    "ad": (from_surrogate(AD(), order=1), None, {SCALE, MEAN_SHIFT, BASELINE, ON}),
    "ad, Hessian": (from_surrogate(AD(), order=2), None, {SCALE, SYMMETRIC, ON}),
    "reinforce": (from_surrogate(AD(reward_to_go=False), order=1), None, {SCALE, MEAN_SHIFT, ON}),
    "actor_critic": (from_surrogate(actor_critic, order=1), None, {SCALE, MEAN_SHIFT, ON}),
    "lvc": (from_surrogate(LVC(), order=1), None, {SCALE, MEAN_SHIFT, BASELINE, ON}),
    "lvc, Hessian": (
        from_surrogate(LVC(), order=2),
        None,
        {SCALE, SYMMETRIC, MEAN_SHIFT, BASELINE, ON},
    ),
    "dice": (from_surrogate(Dice(), order=1), None, {SCALE, MEAN_SHIFT, BASELINE, ON}),
    "loaded_dice, Hessian": (
        from_surrogate(LoadedDice(), order=2),
        None,
        {SCALE, SYMMETRIC, MEAN_SHIFT, ON},
    ),
    "tmaml": (from_surrogate(tmaml, order=1), None, {SCALE, MEAN_SHIFT, BASELINE, ON}),
    "v_trace": (from_surrogate(v_trace, order=1), None, {SCALE, MEAN_SHIFT, BASELINE, OFF}),
    "off_policy_dice": (
        from_surrogate(OffPolicyDice(), order=1),
        None,
        {SCALE, MEAN_SHIFT, NO_CRITIC, BASELINE, OFF},
    ),
    "ranks of a pair": (from_surrogate(ranks, order=1), 2, {SHIFT, NO_CRITIC, BASELINE, ON}),
    "ranks": (from_surrogate(ranks, order=1), 16, {SHIFT, NO_CRITIC, BASELINE, ON}),
    "rloo": (from_surrogate(rloo, order=1), 3, {SCALE, SHIFT, MEAN_SHIFT, NO_CRITIC, BASELINE}),
    "grpo": (from_surrogate(grpo, order=1), 3, {SHIFT, MEAN_SHIFT, NO_CRITIC, BASELINE}),
    "grpo of a pair": (from_surrogate(grpo, order=1), 2, {SHIFT, MEAN_SHIFT, NO_CRITIC, BASELINE}),
    "dr_grpo": (
        from_surrogate(dr_grpo, order=1),
        2,
        {SCALE, SHIFT, MEAN_SHIFT, NO_CRITIC, BASELINE},
    ),
    "by hand": (
        from_callable(by_hand, order=1),
        None,
        {SCALE, MEAN_SHIFT, NO_CRITIC, BASELINE, ON},
    ),
    "one step ahead": (from_draws(one_step_ahead, order=1), None, set()),
}
"""By name: the estimator, the batch size N if it couples trajectories, and its claims."""
