"""Products of any order, mixed products and other policies: autograd, complex step, differences."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import BootstrappedHorizon, Target, return_derivative
from gradbias.analytic.returns.derivatives import (
    discount_derivative,
    gradient,
    hessian,
    hvp,
    reward_jvp,
    reward_vjp,
    state_action_occupancy,
    third_derivative,
)
from gradbias.analytic.returns.evaluation import expected_return, state_values
from gradbias.analytic.returns.target_values import evaluate_target
from gradbias.analytic.symbolic.problems import SymbolicMDP
from gradbias.stochastic.networks.torch_policy import TorchPolicy
from tests.cases.strategies import mdps, parameters
from tests.oracles import brute_force as oracles
from tests.oracles import torch_functions as by_torch
from tests.oracles.tolerances import close


def size_of(mdp):
    return (mdp.n_states, mdp.n_actions)


def natural_scale(mdp, order):
    """(largest reward) x (total discounted time)^(order + 1), up to a factor."""
    time = mdp.horizon if mdp.horizon else 1.0 / (1.0 - mdp.discount)
    return max(float(np.abs(mdp.reward).max()), 1.0) * time ** (order + 1)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_every_derivative_agrees_with_autograd(data):
    mdp = data.draw(mdps())
    theta, v, w = (data.draw(parameters(size_of(mdp))) for _ in range(3))
    function = lambda logits: by_torch.return_of(mdp, logits)  # noqa: E731
    leaf = by_torch.tensor(theta)
    assert close(expected_return(mdp, theta), float(function(leaf)), natural_scale(mdp, 0))
    first = torch.func.jacrev(function)
    assert close(gradient(mdp, theta), first(leaf).numpy(), natural_scale(mdp, 1))
    second = torch.func.jacrev(first)
    full = second(leaf).numpy()
    assert close(hessian(mdp, theta), full, natural_scale(mdp, 2))
    assert close(hvp(mdp, theta, v), np.tensordot(full, v, 2), natural_scale(mdp, 2))
    third = torch.func.jacrev(second)(leaf).numpy()
    wanted = np.tensordot(np.tensordot(third, v, 2), w, 2)
    assert close(third_derivative(mdp, theta, v, w), wanted, natural_scale(mdp, 3))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mixed_products_in_reward_and_discount_agree_with_autograd(data):
    mdp = data.draw(mdps())
    theta, v, w = (data.draw(parameters(size_of(mdp))) for _ in range(3))
    leaf, still = by_torch.tensor(theta), by_torch.tensor(np.zeros(size_of(mdp)))
    gamma = by_torch.tensor(mdp.discount)

    def function(logits, extra, discount):
        return by_torch.return_of(mdp, logits, extra_reward=extra, discount=discount)

    in_logits = torch.func.jacrev(function, argnums=0)
    visits = torch.func.jacrev(function, argnums=1)(leaf, still, gamma).numpy()
    assert close(state_action_occupancy(mdp, theta), visits, natural_scale(mdp, 1))
    mixed = torch.func.jacrev(in_logits, argnums=1)(leaf, still, gamma).numpy()
    assert close(reward_jvp(mdp, theta, w), np.tensordot(mixed, w, 2), natural_scale(mdp, 2))
    transposed = np.tensordot(v, mixed, 2)
    assert close(reward_vjp(mdp, theta, v), transposed, natural_scale(mdp, 2))
    by_discount = torch.func.jacrev(in_logits, argnums=2)(leaf, still, gamma).numpy()
    assert close(discount_derivative(mdp, theta), by_discount, natural_scale(mdp, 2))


def test_values_with_rewards_over_time_are_sums_over_trajectories():
    rng = np.random.default_rng(3)
    plain = oracles.random_mdp(3, horizon=3, n_states=2, n_actions=2)
    reward = rng.normal(size=(3, 2, 2, 2))
    mdp = TabularMDP(plain.transition, reward, 0.8, plain.start, 3)
    theta = rng.normal(size=(2, 2))
    total = 0.0
    for probability, states, actions, _ in oracles.all_trajectories(plain, theta, 3):
        paid = [reward[t, states[t], actions[t], states[t + 1]] * 0.8**t for t in range(3)]
        total += probability * sum(paid)
    assert abs(expected_return(mdp, theta) - total) < 1e-14
    assert state_values(mdp, theta).shape == (4, 2)
    stationary = TabularMDP(plain.transition, np.stack([reward[0]] * 3), 0.8, plain.start, 3)
    same = TabularMDP(plain.transition, reward[0], 0.8, plain.start, 3)
    assert np.array_equal(gradient(stationary, theta), gradient(same, theta))
    assert not np.allclose(gradient(mdp, theta), gradient(same, theta))


def complex_policy_gradient(mdp, theta):
    """The infinite-horizon policy gradient theorem in complex arithmetic."""
    policy = oracles.softmax_rows(theta)
    kernel = np.einsum("sa,sat->st", policy, mdp.transition)
    system = np.eye(mdp.n_states) - mdp.discount * kernel
    values = np.linalg.solve(system, (policy * mdp.reward).sum(1))
    q = mdp.reward + mdp.discount * mdp.transition @ values
    d = np.linalg.solve(system.T, mdp.start)
    return d[:, None] * policy * (q - values[:, None])


@pytest.mark.parametrize("seed", range(5))
def test_infinite_horizon_products_agree_with_the_complex_step(seed):
    """A derivation without autograd: the complex step on the policy gradient theorem."""
    mdp = oracles.random_mdp(seed, n_states=3, n_actions=2)
    rng = np.random.default_rng(seed)
    theta, v = rng.normal(size=(2, 3, 2))
    moved = complex_policy_gradient(mdp, theta + 1e-30j * v).imag / 1e-30
    assert close(hvp(mdp, theta, v), moved, 1.0)
    faster = replace(mdp, discount=mdp.discount)
    object.__setattr__(faster, "discount", mdp.discount + 1e-30j)
    by_discount = complex_policy_gradient(faster, theta.astype(complex)).imag / 1e-30
    assert close(discount_derivative(mdp, theta), by_discount, 1.0)


@pytest.mark.parametrize("horizon", [None, 4])
def test_third_derivatives_are_limits_of_differences_at_the_expected_rate(horizon):
    """Central differences of the Hessian-vector product: the error falls with the step squared."""
    mdp = oracles.random_mdp(1, horizon=horizon, n_states=3, n_actions=3)
    rng = np.random.default_rng(1)
    theta, v, w = rng.normal(size=(3, 3, 3))
    exact = third_derivative(mdp, theta, v, w)

    def error(step):
        ahead, behind = (hvp(mdp, theta + sign * step * w, v) for sign in (1, -1))
        return np.linalg.norm((ahead - behind) / (2 * step) - exact)

    errors = [error(step) for step in (0.08, 0.04, 0.02, 0.01)]
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (np.abs(rates - 2.0) < 0.1).all(), rates
    # A wrong one has an error that does not fall.
    exact = 1.01 * exact
    wrong = [error(step) for step in (0.02, 0.01)]
    assert abs(np.log2(wrong[0] / wrong[1])) < 0.5


def test_third_derivative_is_symmetric_and_the_target_holds_all_of_it():
    mdp = oracles.random_mdp(2, horizon=3, n_states=3, n_actions=2)
    rng = np.random.default_rng(0)
    theta, v, w, x = rng.normal(size=(4, 3, 2))
    product = (third_derivative(mdp, theta, v, w) * x).sum()
    for a, b, c in ((w, x, v), (x, v, w), (v, x, w)):
        assert abs((third_derivative(mdp, theta, a, b) * c).sum() - product) < 1e-13
    full = evaluate_target(return_derivative(3, horizon=3), mdp, theta)
    assert full.shape == (3, 2) * 3
    contracted = np.einsum("abcdef,ab,cd,ef->", full, v, w, x)
    assert abs(contracted - product) < 1e-12
    wanted = oracles.autograd_derivative(mdp, theta, 3)
    assert close(full, wanted, 1.0)
    big = TabularMDP.random(40, 8, rng=rng, discount=0.9)
    with pytest.raises(ValueError, match="third derivative"):
        evaluate_target(return_derivative(3, horizon=None), big, np.zeros((40, 8)))


@pytest.mark.parametrize("horizon", [None, 3])
def test_many_directions_are_one_call(horizon):
    mdp = oracles.random_mdp(5, horizon=horizon, n_states=3, n_actions=2)
    rng = np.random.default_rng(0)
    theta, directions = rng.normal(size=(3, 2)), rng.normal(size=(4, 3, 2))
    found = hvp(mdp, theta, directions)
    each = np.stack([hvp(mdp, theta, v) for v in directions])
    np.testing.assert_allclose(found, each, rtol=1e-12, atol=1e-15)
    contracted = third_derivative(mdp, theta, directions, directions).sum(axis=0)
    summed = sum(third_derivative(mdp, theta, q, q) for q in directions)
    np.testing.assert_allclose(contracted, summed, rtol=1e-11, atol=1e-14)


@dataclass(frozen=True)
class QuadraticLogits:
    """A policy by its formula and derivatives, z = B theta + (C theta)^2 entrywise."""

    linear: np.ndarray
    squared: np.ndarray
    size: tuple[int, int]

    def parameter_shape(self, n_states, n_actions):
        assert self.size == (n_states, n_actions)
        return (self.linear.shape[1],)

    def logits(self, theta):
        return (self.linear @ theta + (self.squared @ theta) ** 2).reshape(self.size)

    def logit_derivatives(self, theta, order):
        c = self.squared
        first = self.linear + 2 * (c @ theta)[:, None] * c
        second = 2 * c[:, :, None] * c[:, None, :]
        p = c.shape[1]
        return (first, second, np.zeros((len(c), p, p, p)))[:order]


def policies_with_torch_logits():
    """(policy, its logits in torch, number of parameters), for 3 states and 2 actions."""
    rng = np.random.default_rng(4)
    features = rng.normal(size=(3, 2, 4))
    linear, squared = rng.normal(size=(2, 6, 4)) * 0.5
    hidden = rng.normal(size=(3, 2))

    def network(p):
        return torch.tanh(by_torch.tensor(hidden) @ p[:4].reshape(2, 2)) @ p[4:].reshape(2, 2)

    def quadratic(p):
        z = by_torch.tensor(linear) @ p + (by_torch.tensor(squared) @ p) ** 2
        return z.reshape(3, 2)

    return {
        "linear": (LinearSoftmax(features), lambda p: by_torch.tensor(features) @ p, 4),
        "a formula": (QuadraticLogits(linear, squared, (3, 2)), quadratic, 4),
        "a network": (TorchPolicy(network, 8), network, 8),
    }


@pytest.mark.parametrize("name", sorted(policies_with_torch_logits()))
@pytest.mark.parametrize("horizon", [None, 3])
def test_any_policy_follows_by_the_chain_rule(name, horizon):
    policy, logits, n = policies_with_torch_logits()[name]
    mdp = oracles.random_mdp(2, horizon=horizon, n_states=3, n_actions=2)
    rng = np.random.default_rng(1)
    theta, v, w = rng.normal(size=(3, n))
    reward_change = rng.normal(size=(3, 2))
    leaf = by_torch.tensor(theta)
    derivatives = [lambda p: by_torch.return_of(mdp, logits(p))]
    for _ in range(3):
        derivatives.append(torch.func.jacrev(derivatives[-1]))
    first, second, third = (d(leaf).numpy() for d in derivatives[1:])
    assert close(gradient(mdp, theta, policy=policy), first, 0.0)
    assert close(hessian(mdp, theta, policy=policy), second, 0.0)
    assert close(hvp(mdp, theta, v, policy=policy), second @ v, 0.0)
    assert close(third_derivative(mdp, theta, v, w, policy=policy), third @ v @ w, 0.0)

    def mixed(p, extra):
        return by_torch.return_of(mdp, logits(p), extra_reward=extra)

    both = torch.func.jacrev(torch.func.jacrev(mixed, 0), 1)
    cross = both(leaf, by_torch.tensor(np.zeros((3, 2)))).numpy()
    found = reward_jvp(mdp, theta, reward_change, policy=policy)
    assert close(found, np.tensordot(cross, reward_change, 2), 0.0)
    assert close(reward_vjp(mdp, theta, v, policy=policy), np.tensordot(v, cross, 1), 0.0)
    batch = rng.normal(size=(3, n))
    each = np.stack([hvp(mdp, one, v, policy=policy) for one in batch])
    np.testing.assert_allclose(hvp(mdp, batch, v, policy=policy), each, rtol=1e-12, atol=1e-14)
    each = np.stack([hessian(mdp, one, policy=policy) for one in batch])
    np.testing.assert_allclose(hessian(mdp, batch, policy=policy), each, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("horizon", [None, 3])
@pytest.mark.parametrize("size", [10.0, 30.0])
def test_products_are_accurate_where_the_policy_is_peaked(size, horizon):
    """Entries of 1e-27 keep their digits: against the closed form (in which a v that is 0 for the
    likeliest actions cancels nothing)."""
    mdp = oracles.random_mdp(1, horizon=horizon, n_states=3, n_actions=3)
    rng = np.random.default_rng(1)
    theta, v = rng.choice([-size, size], size=(3, 3)), rng.normal(size=(3, 3))
    v[theta == theta.max(axis=1, keepdims=True)] = 0.0
    wanted = np.tensordot(hessian(mdp, theta), v, 2)
    np.testing.assert_allclose(hvp(mdp, theta, v), wanted, rtol=1e-9, atol=0.0)
    bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    at, along = np.array([[size, 0.0]]), np.array([[1.0, 0.0]])
    p, q = 1.0 / (1.0 + np.exp(-size)), np.exp(-size) / (1.0 + np.exp(-size))
    second, third = p * q * (q - p), p * q * (1.0 - 6.0 * p * q)
    assert abs(reward_vjp(bandit, at, along)[0, 0] / (p * q) - 1.0) < 1e-12
    assert abs(hvp(bandit, at, along)[0, 0] / second - 1.0) < 1e-12
    assert abs(third_derivative(bandit, at, along, along)[0, 0] / third - 1.0) < 1e-12


def test_one_peaked_state_among_others_keeps_its_digits():
    """Against the expression, which is evaluated with 100 digits: entry by entry."""
    mdp = oracles.random_mdp(1, n_states=3, n_actions=2)
    rng = np.random.default_rng(1)
    theta, v = rng.normal(size=(2, 3, 2))
    theta[1] = [25.0, -5.0]
    v[1] = [0.0, 1.0]
    exact = SymbolicMDP.of(mdp).hessian().function()(theta)
    np.testing.assert_allclose(hessian(mdp, theta), exact, rtol=1e-8, atol=1e-25)
    wanted = np.tensordot(exact, v, 2)
    np.testing.assert_allclose(hvp(mdp, theta, v), wanted, rtol=1e-8, atol=0.0)


def test_nothing_follows_a_terminal_state():
    for name, mdp in oracles.degenerate_mdps().items():
        values = state_values(mdp, np.ones((mdp.n_states, mdp.n_actions)))
        assert (values[mdp.terminal] == 0.0).all(), name
    rows = np.zeros((2, 1, 2))
    rows[0, 0], rows[1, 0] = [0.0, 1.0], [0.0, 0.7 + 0.2 + 0.1]  # 1 but for rounding
    assert TabularMDP(rows, [[1.0], [0.0]], 0.9, [1.0, 0.0]).terminal.tolist() == [False, True]
    paid_later = np.zeros((2, 2, 1, 1))
    paid_later[1, 1] = 1.0
    mdp = TabularMDP(rows, paid_later, 0.9, [1.0, 0.0], 2)
    assert not mdp.terminal.any()
    assert abs(expected_return(mdp, np.zeros((2, 1))) - 0.9) < 1e-15


@pytest.mark.parametrize("order", [1, 2, 3])
def test_bootstrap_values_of_terminal_states_are_collected_whenever_they_are_reached(order):
    """v is what the horizon ends in, wherever the state was entered."""
    rows = np.zeros((2, 2, 2))
    rows[0] = [[0.6, 0.4], [0.1, 0.9]]
    rows[1, :, 1] = 1.0
    mdp = TabularMDP(rows, [[1.0, 0.0], [0.0, 0.0]], 0.9, [1.0, 0.0], 3)
    values, theta = np.array([0.5, 5.0]), np.array([[0.3, -0.4], [0.2, 0.1]])
    target = Target(order, BootstrappedHorizon(3, tuple(values)))

    def function(logits):
        policy = torch.softmax(logits, -1)
        kernel = torch.einsum("sa,sat->st", policy, by_torch.tensor(rows))
        found = by_torch.tensor(values)
        for _ in range(3):
            found = (policy * by_torch.tensor(mdp.reward)).sum(-1) + 0.9 * kernel @ found
        return found[0]

    for _ in range(order):
        function = torch.func.jacrev(function)
    wanted = function(by_torch.tensor(theta)).numpy()
    assert close(evaluate_target(target, mdp, theta), wanted, 0.0)


def test_targets_that_do_not_fit_the_problem_are_named():
    mdp = oracles.random_mdp(2, horizon=2, n_states=3, n_actions=2)
    zero = np.zeros((3, 2))
    undiscounted = replace(mdp, discount=1.0)
    with pytest.raises(ValueError, match="discount: 1 needs a finite horizon"):
        evaluate_target(return_derivative(1, horizon=None), undiscounted, zero)
    for steps in (1, 2):  # a single step's rewards are rewards over time, too
        timed = TabularMDP(
            mdp.transition, np.zeros((steps, 3, 2, 1)), 0.9, mdp.start, horizon=steps
        )
        for other in (5, None):
            with pytest.raises(ValueError, match=f"the {steps} steps that rewards are given for"):
                evaluate_target(return_derivative(1, horizon=other), timed, zero)
    with pytest.raises(ValueError, match="one policy and one problem"):
        evaluate_target(return_derivative(3, horizon=2), mdp, np.zeros((4, 3, 2)))


@dataclass(frozen=True)
class Scalar:
    """A policy with one parameter, without an axis."""

    transposed: bool = False

    def parameter_shape(self, n_states, n_actions):
        return ()

    def logits(self, theta):
        found = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, -1.0]]) * theta
        return found.T if self.transposed else found

    def logit_derivatives(self, theta, order):
        slope = np.array([1.0, 0.0, 2.0, 0.0, 0.0, -1.0])[:, None]
        return (slope, np.zeros((6, 1, 1)), np.zeros((6, 1, 1, 1)))[:order]


def test_a_policy_may_have_a_single_number_and_must_have_logits_that_fit():
    mdp = oracles.random_mdp(2, n_states=3, n_actions=2)

    def value(theta):
        return oracles.return_any_dtype(mdp, Scalar().logits(np.asarray(theta)))

    slope = gradient(mdp, 0.3, policy=Scalar())
    assert slope.shape == ()
    assert abs(slope - value(0.3 + 1e-30j).imag / 1e-30) < 1e-14
    assert hvp(mdp, 0.3, 1.0, policy=Scalar()).shape == hessian(mdp, 0.3, policy=Scalar()).shape
    with pytest.raises(ValueError, match=r"policy: its logits: expected shape \(3, 2\), got"):
        gradient(mdp, 0.3, policy=Scalar(transposed=True))


def test_directions_and_rewards_that_do_not_fit_are_named():
    mdp = oracles.random_mdp(2, n_states=3, n_actions=2)
    zero = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"w: expected shape \(3, 2\), got \(2,\)"):
        third_derivative(mdp, zero, zero, np.zeros(2))
    with pytest.raises(ValueError, match="w: expected finite"):
        reward_jvp(mdp, zero, np.full((3, 2), np.nan))
    with pytest.raises(
        ValueError, match=r"v: expected leading axes \(4,\) \(or none\), got \(5,\)"
    ):
        hvp(mdp, np.zeros((4, 3, 2)), np.zeros((5, 3, 2)))
    with pytest.raises(ValueError, match=r"features: expected shape \(3, 2, p\), got \(2, 2, 1\)"):
        gradient(mdp, np.zeros(1), policy=LinearSoftmax(np.zeros((2, 2, 1))))
