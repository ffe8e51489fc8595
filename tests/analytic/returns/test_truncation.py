"""What T-step samples miss: differences of exact derivatives, and what each estimator makes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import gradbias.analytic.returns.truncation as truncation
from gradbias.analytic.moments.estimators import Curvature, gradient_moments
from gradbias.analytic.moments.hessian_means import hessian_estimate_mean
from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import BootstrappedHorizon, Target, return_derivative
from gradbias.analytic.returns.derivatives import gradient, hessian
from gradbias.analytic.returns.evaluation import action_values, state_values
from gradbias.analytic.returns.target_values import evaluate_target
from gradbias.analytic.returns.truncation import truncation_bias
from tests.oracles import brute_force as oracles
from tests.oracles.tolerances import close

SEEDS = range(12)
BOOTSTRAPPED = {"gae_lambda": 1.0}


def problem(seed):
    """With exact values V and what is wrong with a critic's, e."""
    mdp = oracles.random_mdp(seed, n_actions=2, next_rewards=seed % 2 == 0)
    rows, reward = np.array(mdp.transition), np.array(mdp.reward)
    if seed % 3 == 0 and mdp.n_states > 1:
        rows[-1] = np.eye(mdp.n_states)[-1]
        reward[-1] = 0.0
    mdp = replace(mdp, transition=rows, reward=reward)
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(mdp.n_states, 2))
    error = np.where(mdp.terminal, 0.0, rng.normal(size=mdp.n_states))
    return mdp, theta, state_values(mdp, theta), error


def scale_of(mdp):
    return 1.0 / (1.0 - mdp.discount) ** 3


def difference(mdp, theta, steps, order, values, **options):
    """Of the two exact derivatives."""
    cut = Target(order, BootstrappedHorizon(steps, tuple(values.tolist())))
    whole = return_derivative(order, horizon=None)
    first, second = (evaluate_target(one, mdp, theta, **options) for one in (cut, whole))
    return first - second


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_the_difference_of_both_derivatives(seed, order):
    mdp, theta, exact, error = problem(seed)
    for steps in (1, 2, 6):
        for values in (None, exact, exact + error):
            given = np.zeros(mdp.n_states) if values is None else values
            wanted = difference(mdp, theta, steps, order, given)
            found = truncation_bias(mdp, theta, steps, order=order, critic=values)
            assert close(found, wanted, scale_of(mdp))


def test_other_policies_follow_by_the_chain_rule():
    mdp, _, _, error = problem(4)
    rng = np.random.default_rng(0)
    policy = LinearSoftmax(rng.normal(size=(mdp.n_states, 2, 3)))
    theta = rng.normal(size=3)
    for order in (1, 2):
        options = {"critic": error, "policy": policy}
        found = truncation_bias(mdp, theta, 3, order=order, **options)
        wanted = difference(mdp, theta, 3, order, error, policy=policy)
        assert close(found, wanted, scale_of(mdp))


def test_it_keeps_its_digits_where_the_difference_has_none():
    """One state: after T steps there is gamma^T times the derivative left."""
    mdp = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.5, [1.0])
    theta = np.array([[0.3, -0.2]])
    for order, exact in ((1, gradient), (2, hessian)):
        found = truncation_bias(mdp, theta, 200, order=order)
        np.testing.assert_allclose(found, -(0.5**200) * exact(mdp, theta), rtol=1e-13)
        assert not difference(mdp, theta, 200, order, np.zeros(1)).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_estimators_of_t_steps_miss_just_that(seed):
    """AD, LVC and Loaded-DiCE have one gradient, bootstrapped; DiCE's is not."""
    mdp, theta, exact, error = problem(seed)
    cut, truth, curve = replace(mdp, horizon=4), gradient(mdp, theta), hessian(mdp, theta)
    for values in (exact, exact + error):
        first = gradient_moments(cut, theta, critic=values, **BOOTSTRAPPED).mean
        assert close(first - truth, truncation_bias(mdp, theta, 4, critic=values), scale_of(mdp))
        options = {"critic": values, **BOOTSTRAPPED}
        second = hessian_estimate_mean(cut, theta, Curvature.DICE, **options)
        missing = truncation_bias(mdp, theta, 4, order=2, critic=values)
        assert close(second - curve, missing, scale_of(mdp))
    plain = hessian_estimate_mean(cut, theta, Curvature.DICE)
    assert close(plain - curve, truncation_bias(mdp, theta, 4, order=2), scale_of(mdp))
    assert close(gradient_moments(cut, theta).mean - truth, truncation_bias(mdp, theta, 4), 1e3)


@pytest.mark.parametrize("seed", SEEDS)
def test_exact_values_leave_the_visits_after_step_t_out(seed):
    """Then E[g] = d_T pi A with the infinite problem's advantages, LVC's Hessian has its blocks
    under d_T, and AD's is 0; a critic's error e moves them by what is written here."""
    mdp, theta, exact, error = problem(seed)
    steps = 4
    policy = oracles.softmax_rows(theta)
    kernel = np.einsum("sa,sat->st", policy, mdp.transition)
    law, visits, ahead, offset = np.array(mdp.start), 0.0, [error], 0.0
    for _ in range(steps):
        ahead.insert(0, mdp.discount * kernel @ ahead[0])
    for t in range(steps):
        visits = visits + law
        offset = offset + law * (ahead[t] - error)
        law = mdp.discount * law @ kernel
    weighted = visits[:, None] * policy * (action_values(mdp, theta) - exact[:, None])
    cut = replace(mdp, horizon=steps)
    options = {"critic": exact, **BOOTSTRAPPED}
    found = gradient_moments(cut, theta, **options).mean
    assert close(found, weighted, scale_of(mdp))
    lvc = [
        np.diag(w) - np.outer(w, p) - np.outer(p, w) for w, p in zip(weighted, policy, strict=True)
    ]
    blocks = oracles.block_diagonal(np.array(lvc))
    assert close(hessian_estimate_mean(cut, theta, Curvature.LVC, **options), blocks, scale_of(mdp))
    silent = hessian_estimate_mean(cut, theta, Curvature.AD, **options)
    assert np.abs(silent).max() < 1e-13 * scale_of(mdp)
    noisy = {"critic": exact + error, **BOOTSTRAPPED}
    wanted = -oracles.block_diagonal(offset[:, None, None] * oracles.softmax_blocks(policy))
    found = hessian_estimate_mean(cut, theta, Curvature.AD, **noisy)
    assert close(found, wanted, scale_of(mdp))


def test_noise_in_the_values_adds_variance_and_no_bias():
    """Over independent signs of the error: means stay, and the covariance grows."""
    mdp, theta, exact, error = problem(1)
    cut = replace(mdp, horizon=4)
    signs = list(itertools.product([-1.0, 1.0], repeat=mdp.n_states))
    drawn = [
        gradient_moments(cut, theta, critic=exact + np.array(s) * error, **BOOTSTRAPPED)
        for s in signs
    ]
    still = gradient_moments(cut, theta, critic=exact, **BOOTSTRAPPED)
    means = np.array([one.mean.ravel() for one in drawn])
    assert close(means.mean(axis=0), still.mean.ravel(), 1.0)
    total = np.mean([one.covariance for one in drawn], axis=0) + np.cov(means.T, bias=True)
    added = np.linalg.eigvalsh(total - still.covariance)
    assert added.min() > -1e-12
    assert added.max() > 1e-3
    for curvature in Curvature:
        second = [
            hessian_estimate_mean(cut, theta, curvature, critic=exact + f * error, **BOOTSTRAPPED)
            for f in (-1.0, 0.0, 1.0)
        ]
        assert close((second[0] + second[2]) / 2, second[1], 10.0)


def test_an_error_is_seen(monkeypatch):
    """The law of s_T taken not to move with the parameters: right for exact values, to order 1."""
    mdp, theta, exact, error = problem(1)
    right = truncation._final_visits
    monkeypatch.setattr(
        truncation, "_final_visits", lambda *args: (right(*args)[0], 0 * right(*args)[1])
    )
    for order, values, agrees in ((1, exact, True), (1, exact + error, False), (2, exact, False)):
        found = truncation_bias(mdp, theta, 3, order=order, critic=values)
        assert close(found, difference(mdp, theta, 3, order, values), 1.0) is agrees


def test_bad_input_is_named():
    mdp, theta, *_ = problem(3)
    assert mdp.terminal.any()
    for asked, steps, options, complaint in [
        (replace(mdp, horizon=3), 3, {}, "horizon: expected None"),
        (mdp, 0, {}, "steps: expected an integer"),
        (mdp, 3, {"order": 3}, "order: expected 1 or 2"),
        (mdp, 3, {"critic": np.zeros(9)}, "critic: expected shape"),
        (mdp, 3, {"critic": np.ones(mdp.n_states)}, "critic: expected 0 at terminal states"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            truncation_bias(asked, theta, steps, **options)
