"""Derivatives of sampled updates in what does not move the trajectories' law are unbiased.

Rewards that the agent adds itself, the discount and lambda enter an update through its weights on
scores alone, so that the mean of the derivative is the derivative of the mean. Each trajectory's
update is differentiated by autograd, and averaged over all trajectories.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gradbias.analytic.moments.estimators import gradient_moments
from gradbias.analytic.policies.softmax import TABULAR, softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import DISCOUNTED, Undiscounted
from gradbias.analytic.returns.derivatives import discount_derivative, reward_jvp, reward_vjp
from gradbias.analytic.returns.lambda_returns import LambdaReturns
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.surrogates.returns import discounts, generalised_advantages, rewards_to_go
from gradbias.verification.evidence.enumeration import Enumeration
from tests.oracles import brute_force as oracles

AGREEMENT = 1e-10
SEEDS = range(12)


class AllTrajectories:
    """Every trajectory's record, scores ``[N, H, S, A]`` and probability ``[N]``."""

    def __init__(self, mdp, theta, critic):
        measure = Enumeration.of(mdp, TABULAR, theta, mdp.horizon)
        blocks = list(measure.trajectories(1 << 16))
        states, actions, alive, rewards = (
            torch.tensor(np.concatenate([getattr(batch, name)[:, 0] for batch, _ in blocks]))
            for name in ("states", "actions", "alive", "rewards")
        )
        values = torch.tensor(critic)[torch.arange(mdp.horizon + 1), states]
        zero = torch.zeros(rewards.shape, dtype=torch.float64)
        rows = zero[..., None].expand(*zero.shape, mdp.n_actions)
        self.record = Record(zero, rows, zero, rewards, states, actions, alive, values, 0.0)
        self.visited = np.zeros((*rewards.shape, *theta.shape))
        n, h = np.indices(rewards.shape)
        here = states[:, :-1].numpy()
        self.visited[n, h, here, actions.numpy()] = alive.numpy()
        self.scores = self.visited.copy()
        self.scores[n, h, here] -= alive.numpy()[..., None] * softmax(theta)[here]
        self.probability = np.concatenate([weights for _, weights in blocks])

    def mean_jacobian(self, weights, *at):
        """Of the updates ``sum_t weights_t * score_t``, ``[S, A, ...]`` in each argument."""
        points = tuple(torch.tensor(np.array(x), dtype=torch.float64) for x in at)
        found = torch.func.jacrev(weights, argnums=tuple(range(len(at))))(*points)
        return [
            np.einsum("n,nhsa,nh...->sa...", self.probability, self.scores, one.numpy())
            for one in found
        ]


def problem(seed, horizon=3):
    mdp = oracles.random_mdp(
        seed, horizon=horizon, n_states=2, n_actions=2, next_rewards=seed % 2 == 0
    )
    rows, reward = np.array(mdp.transition), np.array(mdp.reward)
    if seed % 3 == 0:
        rows[-1], reward[-1] = np.eye(2)[-1], 0.0
    mdp = TabularMDP(rows, reward, mdp.discount, [0.7, 0.3], mdp.horizon)
    rng = np.random.default_rng(seed)
    critic = np.where(mdp.terminal, 0.0, rng.normal(size=(horizon + 1, 2)))
    return mdp, rng.normal(size=(2, 2)), critic


def agrees(found, wanted):
    return np.abs(found - wanted).max() <= AGREEMENT * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("seed", SEEDS)
def test_in_the_agent_s_own_reward(seed):
    mdp, theta, critic = problem(seed)
    every = AllTrajectories(mdp, theta, critic)
    visited = torch.tensor(every.visited)

    def weights(own):
        paid = every.record.rewards + torch.einsum("nhsa,sa->nh", visited, own)
        record = replace(every.record, rewards=paid, discount=mdp.discount)
        return discounts(record) * (rewards_to_go(record) - record.values[..., :-1])

    rng = np.random.default_rng(seed)
    [mixed] = every.mean_jacobian(weights, rng.normal(size=theta.shape))
    along, v = rng.normal(size=(2, *theta.shape))
    along[mdp.terminal] = 0.0
    assert agrees(np.tensordot(mixed, along, 2), reward_jvp(mdp, theta, along))
    wanted = np.where(mdp.terminal[:, None], 0.0, reward_vjp(mdp, theta, v))
    assert agrees(np.tensordot(v, mixed, 2), wanted)
    assert not agrees(np.tensordot(mixed, v, 2), wanted)


@pytest.mark.parametrize("seed", SEEDS)
def test_in_the_discount(seed):
    mdp, theta, critic = problem(seed)
    every = AllTrajectories(mdp, theta, critic)

    def weights(discount, still):
        record = replace(every.record, discount=discount)
        fixed = replace(record, discount=still)
        return discounts(fixed) * (rewards_to_go(record) - record.values[..., :-1])

    in_returns, in_weights = every.mean_jacobian(weights, mdp.discount, mdp.discount)
    wanted = discount_derivative(mdp, theta)
    assert agrees(in_returns + in_weights, wanted)
    assert not agrees(in_returns, wanted)


@pytest.mark.parametrize("weighting", [DISCOUNTED, Undiscounted()])
@pytest.mark.parametrize("seed", SEEDS)
def test_in_the_discount_and_lambda_of_an_update(seed, weighting):
    """MGRL's: the discount of the state weights is the problem's, and stays."""
    mdp, theta, critic = problem(seed)
    every = AllTrajectories(mdp, theta, critic)
    base = mdp.discount if weighting is DISCOUNTED else 1.0

    def weights(discount, gae_lambda):
        record = replace(every.record, discount=discount)
        return discounts(replace(record, discount=base)) * generalised_advantages(
            record, gae_lambda
        )

    in_discount, in_lambda = every.mean_jacobian(weights, 0.8, 0.6)
    update = LambdaReturns(mdp, critic, weighting).at(theta, discount=0.8, gae_lambda=0.6)
    assert agrees(in_discount, update.discount_derivative)
    assert agrees(in_lambda, update.lambda_derivative)
    other = LambdaReturns(mdp, critic, weighting).at(theta, discount=0.8, gae_lambda=0.7)
    assert not agrees(in_discount, other.discount_derivative)


@pytest.mark.parametrize("horizon", [None, 30])
def test_in_the_agent_s_own_reward_beyond_enumeration(horizon):
    """The update is linear in the reward: its derivative is the update where that alone is paid."""
    mdp = oracles.random_mdp(7, horizon=horizon, n_states=3, n_actions=3)
    theta, along = np.random.default_rng(0).normal(size=(2, 3, 3))
    critic = np.zeros(3)
    found = gradient_moments(replace(mdp, reward=along), theta, critic=critic).mean
    assert agrees(found, reward_jvp(mdp, theta, along))
