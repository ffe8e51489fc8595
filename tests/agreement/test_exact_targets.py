"""Estimators held against what the exact side computes beyond gradients and Hessians."""

from dataclasses import replace

import numpy as np
import pytest

from gradbias.analytic.meta.bilevel import Maml
from gradbias.analytic.meta.meta_gradients import meta_gradient
from gradbias.analytic.meta.sampled_objective import sampled_step_objective
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenTarget
from gradbias.analytic.returns.derivatives import gradient, hessian
from gradbias.stochastic.estimators.kinds import from_callable, from_surrogate
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import ad, lvc
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.measurement.measure import measure_bias
from tests.oracles import brute_force as oracles


def timed_mdp():
    plain = oracles.random_mdp(3, horizon=2, n_states=2, n_actions=2)
    reward = np.random.default_rng(0).normal(size=(2, 2, 2, 2))
    return TabularMDP(plain.transition, reward, 0.9, plain.start, 2)


def test_third_derivatives_are_targets():
    mdp = oracles.random_mdp(3, horizon=2, n_states=2, n_actions=2)
    theta = np.random.default_rng(0).normal(size=(2, 2))
    assert measure_bias(from_surrogate(dice, order=3), mdp, theta).verdict is Verdict.UNBIASED
    assert measure_bias(from_surrogate(lvc, order=3), mdp, theta).verdict is Verdict.BIASED


@pytest.mark.parametrize("order", [1, 2])
def test_rewards_over_time_are_seen_by_estimators_and_targets_alike(order):
    mdp, theta = timed_mdp(), np.random.default_rng(0).normal(size=(2, 2))
    assert measure_bias(from_surrogate(dice, order=order), mdp, theta).verdict is Verdict.UNBIASED
    derivative = (gradient, hessian)[order - 1]
    swapped = replace(mdp, reward=mdp.reward[::-1])
    wrong = GivenTarget("of the rewards in another order", derivative(swapped, theta), order)
    report = measure_bias(from_surrogate(dice, order=order), mdp, theta, target=wrong)
    assert report.verdict is Verdict.BIASED


def adapted_gradient(step_size, with_score):
    """E-MAML on a bandit, one trajectory a step: through the step, with or without its score."""
    reward = np.array([1.0, -0.5])

    def estimate(batch, theta):
        found = []
        for action in batch.actions[..., 0].reshape(-1):
            pi = np.exp(theta[0]) / np.exp(theta[0]).sum()
            score = np.eye(2)[action] - pi
            block = np.diag(pi) - np.outer(pi, pi)
            after = theta[0] + step_size * reward[action] * score
            there = np.exp(after) / np.exp(after).sum()
            slope = there * (reward - there @ reward)
            one = slope - step_size * reward[action] * block @ slope
            found.append(one + with_score * (there @ reward) * score)
        return np.mean(found, axis=0)[None]

    return from_callable(estimate, order=1)


def test_the_sampled_step_objective_is_a_target_of_its_own():
    """The estimator with the score term is unbiased for sampled steps, and not for expected ones;
    without it, for neither."""
    bandit = TabularMDP(np.ones((1, 2, 1)), [[1.0, -0.5]], 0.9, [1.0], 1)
    theta, alpha = np.array([[0.3, -0.4]]), 1.5
    sampled = sampled_step_objective(bandit, theta, batch_size=1, steps=1, step_size=alpha)
    expected = meta_gradient(Maml(bandit), theta, steps=1, step_size=alpha)
    targets = {
        "sampled": GivenTarget("the gradient of the sampled-step objective", sampled.gradient),
        "expected": GivenTarget("the gradient of the expected-step objective", expected),
    }
    verdicts = {
        (score, name): measure_bias(
            adapted_gradient(alpha, score), bandit, theta, target=target
        ).verdict
        for score in (0, 1)
        for name, target in targets.items()
    }
    assert verdicts.pop((1, "sampled")) is Verdict.UNBIASED
    assert set(verdicts.values()) == {Verdict.BIASED}
    assert measure_bias(from_surrogate(ad, order=1), bandit, theta).verdict is Verdict.UNBIASED
