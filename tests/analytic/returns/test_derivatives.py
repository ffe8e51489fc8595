"""Values and derivatives: four derivations agree, at ordinary and at degenerate problems."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradbias.analytic.policies.softmax import TABULAR, softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import (
    BootstrappedHorizon,
    GivenTarget,
    GivenWeights,
    Target,
    bootstrapped_gradient,
    return_derivative,
    update_field,
)
from gradbias.analytic.returns.derivatives import gradient, hessian, hvp
from gradbias.analytic.returns.evaluation import (
    action_values,
    evaluate_parameters,
    expected_return,
    occupancy,
    state_values,
)
from gradbias.analytic.returns.target_values import evaluate_target
from gradbias.stochastic.networks.torch_policy import TorchPolicy
from tests.oracles import brute_force as oracles

EXACT = 1e-10
HORIZONS = (None, 1, 2, 5)


def logits_for(mdp, seed=0, spread=1.0):
    return np.random.default_rng(seed).normal(size=(mdp.n_states, mdp.n_actions)) * spread


def check_against_autograd_and_complex_step(mdp, theta):
    assert abs(expected_return(mdp, theta) - oracles.return_any_dtype(mdp, theta)) <= 1e-12 * max(
        1.0, abs(expected_return(mdp, theta))
    )
    scale = max(evaluate_parameters(mdp, theta, TABULAR).scale, 1e-300)
    first, second = gradient(mdp, theta), hessian(mdp, theta)
    comparisons = [
        (first, oracles.complex_step_gradient(mdp, theta)),
        (first, oracles.autograd_derivative(mdp, theta, 1)),
        (second, oracles.autograd_derivative(mdp, theta, 2)),
    ]
    if mdp.horizon is not None:
        comparisons.append((second, oracles.complex_step_hessian(mdp, theta)))
    for found, wanted in comparisons:
        gap = np.abs(found - wanted).max()
        assert gap <= EXACT * np.linalg.norm(wanted) or gap <= 1e-14 * scale
    v = np.random.default_rng(1).normal(size=theta.shape)
    np.testing.assert_allclose(
        hvp(mdp, theta, v), np.tensordot(second, v, 2), rtol=EXACT, atol=1e-13 * scale
    )


@given(seed=st.integers(0, 10**6), horizon=st.sampled_from(HORIZONS), next_rewards=st.booleans())
def test_derivatives_agree_with_autograd_and_complex_step(seed, horizon, next_rewards):
    mdp = oracles.random_mdp(seed, horizon=horizon, next_rewards=next_rewards)
    check_against_autograd_and_complex_step(mdp, logits_for(mdp, seed))


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("name", sorted(oracles.degenerate_mdps()))
def test_derivatives_of_degenerate_problems(name, horizon):
    mdp = replace(oracles.degenerate_mdps()[name], horizon=horizon)
    check_against_autograd_and_complex_step(mdp, logits_for(mdp))


@pytest.mark.parametrize("name", sorted(oracles.degenerate_mdps()))
def test_values_and_derivatives_of_degenerate_problems_are_sums_over_trajectories(name):
    mdp = replace(oracles.degenerate_mdps()[name], horizon=2)
    theta = logits_for(mdp)
    value, first, second = oracles.likelihood_ratio_derivatives(mdp, theta)
    assert abs(expected_return(mdp, theta) - value) < 1e-13
    assert np.abs(gradient(mdp, theta) - first).max() <= max(EXACT * np.linalg.norm(first), 1e-15)
    assert np.abs(hessian(mdp, theta) - second).max() <= max(EXACT * np.linalg.norm(second), 1e-15)
    for state in range(mdp.n_states):
        from_here = replace(mdp, start=np.eye(mdp.n_states)[state])
        alone = oracles.return_any_dtype(from_here, theta)
        assert abs(state_values(mdp, theta)[0, state] - alone) < 1e-13
        forever = replace(from_here, horizon=None)
        alone = oracles.return_any_dtype(forever, theta)
        assert abs(state_values(forever, theta)[state] - alone) < 1e-11 * max(1.0, abs(alone))


@pytest.mark.parametrize("next_rewards", [False, True])
@pytest.mark.parametrize("horizon", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_derivatives_are_sums_over_all_trajectories(seed, horizon, next_rewards):
    mdp = oracles.random_mdp(
        seed, horizon=horizon, n_states=2, n_actions=2, next_rewards=next_rewards
    )
    theta = logits_for(mdp, seed)
    value, first, second = oracles.likelihood_ratio_derivatives(mdp, theta)
    assert abs(expected_return(mdp, theta) - value) < 1e-13
    assert oracles.relative_gap(gradient(mdp, theta), first) < EXACT
    assert oracles.relative_gap(hessian(mdp, theta), second) < EXACT


def test_a_planted_error_is_seen_by_every_oracle():
    mdp = oracles.random_mdp(3, horizon=3, n_states=2, n_actions=2)
    theta = logits_for(mdp)
    wrong = gradient(replace(mdp, discount=mdp.discount * (1 + 1e-6)), theta)
    for right in (
        oracles.complex_step_gradient(mdp, theta),
        oracles.autograd_derivative(mdp, theta, 1),
        oracles.likelihood_ratio_derivatives(mdp, theta)[1],
    ):
        assert oracles.relative_gap(wrong, right) > 1e3 * EXACT


def long_double_gradient(mdp, theta):
    """The policy gradient in extended precision, advantages as weighted differences."""
    theta = theta.astype(np.longdouble)
    policy = np.exp(theta - theta.max(axis=1, keepdims=True))
    policy /= policy.sum(axis=1, keepdims=True)
    values, occupied = np.zeros(mdp.n_states, np.longdouble), []
    q = []
    for _ in range(mdp.horizon):
        q.insert(0, mdp.expected_reward + mdp.discount * (mdp.transition @ values))
        values = (policy * q[0]).sum(axis=1)
    kernel = np.einsum("sa,sat->st", policy, mdp.transition.astype(np.longdouble))
    law = mdp.start.astype(np.longdouble)
    for _ in range(mdp.horizon):
        occupied.append(law)
        law = mdp.discount * (law @ kernel)
    result = np.zeros_like(policy)
    for m, action_value in zip(occupied, q, strict=True):
        gaps = action_value[:, :, None] - action_value[:, None, :]
        result += m[:, None] * policy * np.einsum("sb,sab->sa", policy, gaps)
    return result


@pytest.mark.parametrize("seed", range(10))
def test_peaked_policies_are_accurate_to_the_natural_scale(seed):
    """At logits +-30 gradients reach 1e-27: compare with 1e-12 x max|Q| x total occupancy."""
    mdp = oracles.random_mdp(seed, horizon=4, n_states=3, n_actions=3)
    theta = np.random.default_rng(seed).choice([-30.0, 30.0], size=(3, 3))
    bound = 1e-12 * evaluate_parameters(mdp, theta, TABULAR).scale
    assert bound > 0
    first, second = gradient(mdp, theta), hessian(mdp, theta)
    assert np.abs(first - oracles.autograd_derivative(mdp, theta, 1)).max() <= bound
    assert np.abs(first - oracles.complex_step_gradient(mdp, theta)).max() <= bound
    assert np.abs(second - oracles.autograd_derivative(mdp, theta, 2)).max() <= bound
    assert np.abs(hvp(mdp, theta, theta) - np.tensordot(second, theta, 2)).max() <= 30 * bound
    assert np.abs(second - oracles.complex_step_hessian(mdp, theta)).max() <= bound
    short = replace(mdp, horizon=1)
    _, summed, summed_twice = oracles.likelihood_ratio_derivatives(short, theta)
    assert np.abs(gradient(short, theta) - summed).max() <= bound
    assert np.abs(hessian(short, theta) - summed_twice).max() <= bound
    exact = long_double_gradient(mdp, theta).astype(float)
    small = np.abs(exact) > 1e-250
    np.testing.assert_allclose(first[small], exact[small], rtol=1e-9)


def test_infinite_horizon_is_the_limit_of_finite_ones():
    mdp = oracles.random_mdp(5, n_states=3, n_actions=2)
    theta = logits_for(mdp)
    long = replace(mdp, discount=0.5, horizon=60)
    forever = replace(mdp, discount=0.5)
    assert oracles.relative_gap(gradient(long, theta), gradient(forever, theta)) < 1e-12
    assert oracles.relative_gap(hessian(long, theta), hessian(forever, theta)) < 1e-12


def test_occupancy_sums_to_one_over_one_minus_gamma_and_prices_rewards():
    mdp = oracles.random_mdp(8, n_states=3, n_actions=2)
    theta = logits_for(mdp)
    d = occupancy(mdp, theta)
    assert abs(d.sum() - 1 / (1 - mdp.discount)) < 1e-12
    priced = (d[:, None] * softmax(theta) * mdp.expected_reward).sum()
    assert abs(priced - expected_return(mdp, theta)) < 1e-12
    assert state_values(mdp, theta).shape == (3,)
    assert action_values(mdp, theta).shape == (3, 2)
    finite = replace(mdp, horizon=4)
    assert state_values(finite, theta).shape == (5, 3)
    assert action_values(finite, theta).shape == (4, 3, 2)
    assert occupancy(finite, theta).shape == (4, 3)
    _, values, q, occupied = oracles.per_step_quantities(finite, theta)
    np.testing.assert_allclose(state_values(finite, theta), values, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(action_values(finite, theta), q, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(occupancy(finite, theta), occupied, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_peaked_policies_over_the_infinite_horizon(seed):
    mdp = oracles.random_mdp(seed, n_states=3, n_actions=3)
    theta = np.random.default_rng(seed).choice([-30.0, 30.0], size=(3, 3))
    scale = evaluate_parameters(mdp, theta, TABULAR).scale
    check = 1e-12 * scale
    assert abs(expected_return(mdp, theta) - oracles.return_any_dtype(mdp, theta)) <= check
    assert np.abs(gradient(mdp, theta) - oracles.complex_step_gradient(mdp, theta)).max() <= check
    assert np.abs(hessian(mdp, theta) - oracles.autograd_derivative(mdp, theta, 2)).max() <= check


def one_hidden_layer(n_states, n_actions, hidden=2):
    """A torch policy with tanh units on one-hot states, and its number of parameters."""
    import torch

    sizes = (n_states * hidden, hidden * n_actions)

    def forward(parameters):
        first = parameters[: sizes[0]].reshape(n_states, hidden)
        second = parameters[sizes[0] :].reshape(hidden, n_actions)
        return torch.tanh(first) @ second

    return TorchPolicy(forward, sum(sizes))


@pytest.mark.parametrize("horizon", [None, 3])
def test_other_policies_follow_by_the_chain_rule(horizon):
    import torch

    mdp = oracles.random_mdp(2, horizon=horizon, n_states=3, n_actions=2)
    policy = one_hidden_layer(3, 2)
    theta = np.random.default_rng(0).normal(size=policy.n_parameters)
    function = lambda t: oracles.torch_return(mdp, policy.forward(t))  # noqa: E731
    first = torch.func.jacrev(function)(torch.tensor(theta)).numpy()
    second = torch.func.hessian(function)(torch.tensor(theta)).numpy()
    v = np.random.default_rng(1).normal(size=theta.shape)
    assert oracles.relative_gap(gradient(mdp, theta, policy=policy), first) < EXACT
    assert oracles.relative_gap(hessian(mdp, theta, policy=policy), second) < EXACT
    assert oracles.relative_gap(hvp(mdp, theta, v, policy=policy), second @ v) < EXACT


def test_targets_use_their_own_horizon_and_say_what_they_are():
    mdp = oracles.random_mdp(4, horizon=2, n_states=3, n_actions=2)
    theta = logits_for(mdp)
    for order, function in ((1, gradient), (2, hessian)):
        for horizon in (3, None):
            found = evaluate_target(return_derivative(order, horizon=horizon), mdp, theta)
            assert np.array_equal(found, function(replace(mdp, horizon=horizon), theta))
    assert str(return_derivative(1, horizon=None)) == (
        "the gradient of the infinite-horizon discounted return, discounted state weighting"
    )
    assert "update field" in str(update_field(horizon=3))
    assert "undiscounted" in str(update_field(horizon=3))


def test_bootstrapped_target_adds_the_final_values():
    mdp = oracles.random_mdp(4, horizon=2, n_states=3, n_actions=2)
    theta = logits_for(mdp)
    values = np.array([1.0, -2.0, 0.5])
    found = evaluate_target(bootstrapped_gradient(2, values), mdp, theta)
    # The same as paying gamma^(H-1) * gamma * v(s') on the last step, with two steps' rewards.
    paid = np.zeros(theta.shape)
    for probability, states, actions, rewards in oracles.all_trajectories(mdp, theta, 2):
        total = sum(mdp.discount**t * r for t, r in enumerate(rewards))
        total += mdp.discount**2 * values[states[-1]]
        for state, action in zip(states, actions, strict=False):
            paid[state] -= probability * total * softmax(theta)[state]
            paid[state, action] += probability * total
    assert oracles.relative_gap(found, paid) < EXACT
    assert isinstance(bootstrapped_gradient(2, values).horizon, BootstrappedHorizon)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 0.5, 0.0)])
def test_update_fields_weigh_steps_as_said(weights):
    mdp = oracles.random_mdp(6, horizon=3, n_states=3, n_actions=2)
    theta = logits_for(mdp)
    policy, values, q, occupied = oracles.per_step_quantities(mdp, theta)
    powers = mdp.discount ** np.arange(3)
    wanted = sum(
        weights[t] * (occupied[t] / powers[t])[:, None] * policy * (q[t] - values[t][:, None])
        for t in range(3)
    )
    target = update_field(horizon=3, weighting=GivenWeights(weights))
    assert oracles.relative_gap(evaluate_target(target, mdp, theta), wanted) < EXACT
    if set(weights) == {1.0}:
        plain = evaluate_target(update_field(horizon=3), mdp, theta)
        assert oracles.relative_gap(plain, wanted) < EXACT


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        (return_derivative(4, horizon=2), "no closed form"),
        (Target(1, return_derivative(1, horizon=2).horizon, regulariser="entropy"), "entropy"),
        (replace(update_field(horizon=2), order=2), "no closed form"),
        (replace(update_field(horizon=2), weighting=GivenWeights((1.0,))), "state weighting"),
    ],
)
def test_targets_without_a_closed_form_are_refused(target, complaint):
    mdp = oracles.random_mdp(4, horizon=2)
    with pytest.raises(ValueError, match=complaint):
        evaluate_target(target, mdp, logits_for(mdp))


def test_given_targets_carry_their_value():
    mdp = oracles.random_mdp(4, horizon=2)
    theta = logits_for(mdp)
    target = GivenTarget("my own", gradient(mdp, theta))
    assert np.array_equal(evaluate_target(target, mdp, theta), gradient(mdp, theta))
    with pytest.raises(ValueError, match="finite"):
        GivenTarget("not a number", np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="order"):
        GivenTarget("of order 0", np.zeros((2, 2)), order=0)


@pytest.mark.parametrize(
    ("theta", "complaint"),
    [
        (np.zeros((2, 2)), r"theta: expected shape \(3, 2\), got \(2, 2\)"),
        (np.full((3, 2), np.inf), "theta: expected finite numbers, got inf at index"),
        (np.full((3, 2), np.nan), "theta: expected finite numbers, got nan"),
        (np.zeros((3, 2), dtype=complex), "real numbers"),
        ([["a", "b"]] * 3, "real numbers"),
    ],
)
def test_parameters_that_do_not_fit_are_named(theta, complaint):
    mdp = TabularMDP.random(3, 2, rng=np.random.default_rng(0), discount=0.9)
    for function in (gradient, hessian, expected_return, state_values, action_values, occupancy):
        with pytest.raises(ValueError, match=complaint):
            function(mdp, theta)
    with pytest.raises(ValueError, match="v: expected shape"):
        hvp(mdp, np.zeros((3, 2)), np.zeros((3, 3)))
