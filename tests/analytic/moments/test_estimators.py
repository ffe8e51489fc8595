"""Moments of infinitely long trajectories: long finite ones, and one linear system for them all."""

import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from gradbias.analytic.moments import independent_steps as credited_sums
from gradbias.analytic.moments import paired_steps as paired_sums
from gradbias.analytic.moments import suffix_sums as moment_recursions
from gradbias.analytic.moments.estimators import Curvature, gradient_moments, hvp_moments
from gradbias.analytic.moments.hessian_means import hessian_estimate_mean
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenWeights, Undiscounted
from gradbias.analytic.returns.bellman import IllConditionedWarning, bellman_system
from gradbias.analytic.returns.derivatives import gradient, hvp
from gradbias.analytic.returns.evaluation import state_values
from tests.oracles import brute_force as oracles

LAMBDAS = (None, 0.0, 0.6, 1.0)
CURVATURES = list(Curvature)
STEPS = 160
"""0.8^160 is 3e-16."""


def problem(seed):
    """At most 3 states and 3 actions, discount up to 0.8, a terminal state now and then."""
    mdp = oracles.random_mdp(seed, next_rewards=seed % 2 == 0)
    rows, reward = np.array(mdp.transition), np.array(mdp.reward)
    if seed % 4 == 0 and mdp.n_states > 1:
        rows[-1] = np.eye(mdp.n_states)[-1]
        reward[-1] = 0.0
    discount = 0.0 if seed == 7 else min(mdp.discount, 0.8)
    mdp = TabularMDP(rows, reward, discount, mdp.start)
    rng = np.random.default_rng(seed)
    critic = np.where(mdp.terminal, 0.0, rng.normal(size=mdp.n_states))
    return mdp, *rng.normal(size=(2, mdp.n_states, mdp.n_actions)), critic


def check_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        one, other = np.ravel(one), np.ravel(other)
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= 1e-12 * max(1.0, np.abs(other).max())


def both(found):
    return found.mean, found.covariance


def every_estimator(mdp, theta, v, critic, gae_lambda):
    """Mean and covariance of each gradient and Hessian product."""
    options = {"critic": critic, "gae_lambda": gae_lambda}
    yield both(gradient_moments(mdp, theta, **options))
    for curvature in CURVATURES:
        yield both(hvp_moments(mdp, theta, v, curvature, **options))


@pytest.mark.parametrize("seed", range(50))
def test_they_are_those_of_very_long_trajectories(seed):
    mdp, theta, v, critic = problem(seed)
    gae_lambda = LAMBDAS[seed // 4 % 4]
    cut, rows = replace(mdp, horizon=STEPS), np.repeat(critic[None], STEPS + 1, axis=0)
    wanted = every_estimator(cut, theta, v, rows, gae_lambda)
    for one, other in zip(every_estimator(mdp, theta, v, critic, gae_lambda), wanted, strict=True):
        check_same(one, other)


def one_system(mdp, theta, v, curvature, critic, gae_lambda):
    """Mean and covariance of one estimate from all of ``E[Z Z^T | s]`` at once, 1 held at 1, with Z
    = (1, G, X, h) of the plain definitions: whole states, no order of parts. ``curvature`` None is
    the gradient."""
    n_states, n_actions = theta.shape
    n, gamma, policy = theta.size, mdp.discount, oracles.softmax_rows(theta)
    decay = gamma * (1.0 if gae_lambda is None else gae_lambda)
    k = 2 + 2 * n
    first, second = slice(2, 2 + n), slice(2 + n, k)
    system, square = np.eye(n_states * k * k), k * k
    for s, a, t in np.ndindex(n_states, n_actions, n_states):
        reward = mdp.reward[s, a] if mdp.reward.ndim == 2 else mdp.reward[s, a, t]
        baseline, paid = critic[s], reward
        if gae_lambda is not None:
            baseline, paid = 0.0, reward + gamma * critic[t] - critic[s]
        score, fisher = np.zeros(theta.shape), np.zeros((*theta.shape, *theta.shape))
        if not mdp.terminal[s]:
            score[s] = np.eye(n_actions)[a] - policy[s]
            fisher[s, :, s, :] = np.diag(policy[s]) - np.outer(policy[s], policy[s])
        u, direction = score.ravel(), v.ravel()
        local = -fisher.reshape(n, n) @ direction
        if curvature is not Curvature.AD:
            local = local + u * (u @ direction)
        z = np.zeros((k, k))
        z[0, 0] = 1.0
        z[1, :2] = paid, decay
        taken_off = 0.0 if curvature is Curvature.DICE else baseline
        z[first, 0], z[first, 1] = (paid - taken_off) * u, decay * u
        z[second, 0], z[second, 1] = (paid - baseline) * local, decay * local
        z[first, first] = z[second, second] = gamma * np.eye(n)
        if curvature is Curvature.DICE:
            z[second, first] = gamma * ((u @ direction) * np.eye(n) + np.outer(u, direction))
        rows, columns = (slice(i * square, (i + 1) * square) for i in (s, t))
        system[rows, columns] -= policy[s, a] * mdp.transition[s, a, t] * np.kron(z, z)
    right = np.zeros(n_states * square)
    for s in range(n_states):
        system[s * square] = 0.0
        system[s * square, s * square] = right[s * square] = 1.0
    found = np.linalg.solve(system, right).reshape(n_states, k, k)
    total = np.tensordot(mdp.start, found, axes=1)
    own = first if curvature is None else second
    mean = total[own, 0]
    return mean, total[own, own] - np.outer(mean, mean)


@pytest.mark.parametrize("gae_lambda", LAMBDAS)
@pytest.mark.parametrize("seed", [0, 1, 7, 13])
def test_they_solve_one_linear_system(seed, gae_lambda):
    mdp, theta, v, critic = problem(seed)
    found = every_estimator(mdp, theta, v, critic, gae_lambda)
    for curvature, one in zip([None, *CURVATURES], found, strict=True):
        check_same(one, one_system(mdp, theta, v, curvature, critic, gae_lambda))


def test_a_solution_with_an_error_is_seen(monkeypatch):
    """Second moments solved with gamma where it is gamma^2."""
    mdp, theta, v, critic = problem(1)
    wanted = [one_system(mdp, theta, v, c, critic, None) for c in (None, *CURVATURES)]

    def with_gamma(tables, policy, factor):
        return bellman_system(tables, policy, np.sign(factor) * mdp.discount)

    for module in (credited_sums, moment_recursions, paired_sums):
        monkeypatch.setattr(module, "bellman_system", with_gamma)
    found = every_estimator(mdp, theta, v, critic, None)
    for one, other in zip(found, wanted, strict=True):
        check_same(one[:1], other[:1])
        with pytest.raises(AssertionError):
            check_same(one[1:], other[1:])


def test_known_facts_hold_at_sizes_of_use():
    """100 states, 4 actions: what is unbiased has the exact mean, exact values lower variance."""
    mdp = TabularMDP.random(100, 4, rng=np.random.default_rng(0), discount=0.95)
    theta, v = np.random.default_rng(1).normal(size=(2, 100, 4))
    values, truth = state_values(mdp, theta), hvp(mdp, theta, v)
    plain, based = (gradient_moments(mdp, theta, critic=c) for c in (None, values))
    for found in (plain, based):
        np.testing.assert_allclose(found.mean, gradient(mdp, theta), rtol=1e-9, atol=1e-11)
    assert 0.0 < based.variance.sum() < plain.variance.sum()
    assert np.linalg.eigvalsh(based.covariance).min() > -1e-12
    for options in ({}, {"critic": values, "gae_lambda": 0.5}):
        found = hvp_moments(mdp, theta, v, Curvature.DICE, **options)
        np.testing.assert_allclose(found.mean, truth, rtol=1e-9, atol=1e-11)
    silent = hvp_moments(mdp, theta, v, Curvature.AD, critic=values)
    assert np.abs(silent.mean).max() < 1e-12 < silent.variance.sum()
    lvc = hessian_estimate_mean(mdp, theta, Curvature.LVC)
    found = hvp_moments(mdp, theta, v, Curvature.LVC).mean
    np.testing.assert_allclose(found, np.tensordot(lvc, v, 2), rtol=1e-9, atol=1e-12)
    assert np.linalg.norm(found - truth) > 0.01 * np.linalg.norm(truth)


def test_other_policies_have_them_too():
    mdp, _, _, critic = problem(13)
    rng = np.random.default_rng(0)
    policy = LinearSoftmax(rng.normal(size=(mdp.n_states, mdp.n_actions, 2)))
    theta, v = rng.normal(size=(2, 2))
    cut, rows = replace(mdp, horizon=STEPS), np.repeat(critic[None], STEPS + 1, axis=0)
    for curvature in CURVATURES:
        found = hvp_moments(mdp, theta, v, curvature, critic=critic, policy=policy)
        long = hvp_moments(cut, theta, v, curvature, critic=rows, policy=policy)
        check_same(both(found), both(long))


def test_a_large_offset_that_the_critic_takes_off_does_not_round():
    mdp, theta, _, critic = problem(13)
    shifted = replace(mdp, reward=mdp.reward + 1e6)
    high = gradient_moments(shifted, theta, critic=critic + 1e6 / (1.0 - mdp.discount))
    low = gradient_moments(mdp, theta, critic=critic)
    np.testing.assert_allclose(high.mean, low.mean, atol=1e-8)
    np.testing.assert_allclose(high.covariance, low.covariance, atol=1e-8)


def test_bad_input_is_named():
    mdp, theta, v, _ = problem(13)
    ad = Curvature.AD
    bad = [
        (lambda: gradient_moments(mdp, theta, credit=Credit.TOTAL_RETURN), "credit: expected rew"),
        (lambda: hvp_moments(mdp, theta, v, ad, credit=Credit.TOTAL_RETURN), "credit: expected"),
        (lambda: gradient_moments(mdp, theta, weighting=Undiscounted()), "weighting: expected dis"),
        (lambda: gradient_moments(mdp, theta, weighting=GivenWeights((1.0,))), "weighting: expec"),
        (lambda: gradient_moments(mdp, theta, critic=np.zeros((2, 3))), "critic: expected shape"),
        (
            lambda: gradient_moments(
                TabularMDP.random(120, 120, rng=np.random.default_rng(0), discount=0.9),
                np.zeros((120, 120)),
            ),
            "mdp: expected a recursion of at most",
        ),
    ]
    for call, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            call()
    ending, theta, *_ = problem(8)
    assert ending.terminal.any()
    for function in (gradient_moments, partial(hessian_estimate_mean, curvature=ad)):
        with pytest.raises(ValueError, match="critic: expected 0 at terminal states"):
            function(ending, theta, critic=np.ones(ending.n_states))
    mdp, theta, *_ = problem(13)
    nearly = replace(mdp, discount=1.0 - 1e-12)
    with pytest.warns(IllConditionedWarning, match="condition number"):
        gradient_moments(nearly, theta)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradient_moments(replace(mdp, discount=0.999), theta)
