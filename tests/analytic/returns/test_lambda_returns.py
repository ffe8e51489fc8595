"""Lambda-return updates: n-step mixtures, autograd, and Jacobians that are not symmetric."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.batches import MDPBatch
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenWeights, Undiscounted, update_field
from gradbias.analytic.returns.derivatives import gradient
from gradbias.analytic.returns.lambda_returns import LambdaReturns
from gradbias.analytic.returns.target_values import evaluate_target
from tests.cases.strategies import mdps, parameters
from tests.oracles import brute_force as oracles
from tests.oracles import torch_functions as by_torch
from tests.oracles.tolerances import close

WEIGHTINGS = {
    "discounted": lambda steps: (None, None, None),
    "undiscounted": lambda steps: (Undiscounted(), [1.0] * steps, 1.0),
    "given": lambda steps: (
        GivenWeights(tuple(0.5 + 0.3 * t for t in range(steps))),
        [0.5 + 0.3 * t for t in range(steps)],
        1.0,
    ),
}


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_update_and_all_its_derivatives_agree_with_autograd(data):
    mdp = data.draw(mdps())
    size = (mdp.n_states, mdp.n_actions)
    theta, v = (data.draw(parameters(size)) for _ in range(2))
    timed = mdp.horizon is not None and data.draw(st.booleans())
    shape = (mdp.horizon + 1, mdp.n_states) if timed else (mdp.n_states,)
    critic = np.where(mdp.terminal, 0.0, data.draw(parameters(shape)))
    gamma, decay = (data.draw(st.sampled_from([0.0, 0.5, 0.9])) for _ in range(2))
    kind = data.draw(st.sampled_from(sorted(WEIGHTINGS) if mdp.horizon else ["discounted"]))
    weighting, weights, state_discount = WEIGHTINGS[kind](mdp.horizon or 1)
    returns = LambdaReturns(mdp, critic, *([weighting] if weighting else []))
    found = returns.at(theta, discount=gamma, gae_lambda=decay)

    def update(logits, discount, gae_lambda):
        return by_torch.lambda_update(
            mdp, logits, critic, discount, gae_lambda, weights, state_discount
        )

    at = (by_torch.tensor(theta), by_torch.tensor(gamma), by_torch.tensor(decay))
    time = mdp.horizon or 1.0 / (1.0 - mdp.discount)
    scale = 10.0 * (np.abs(mdp.reward).max() + np.abs(critic).max()) * time
    assert close(found.update, update(*at).numpy(), scale)
    jacobian = torch.func.jacrev(update, 0)(*at).numpy()
    assert close(found.jvp(v), np.tensordot(jacobian, v, 2), scale)
    assert close(found.vjp(v), np.tensordot(v, jacobian, 2), scale)
    assert close(found.discount_derivative, torch.func.jacrev(update, 1)(*at).numpy(), scale)
    assert close(found.lambda_derivative, torch.func.jacrev(update, 2)(*at).numpy(), scale)


def n_step_mixture(mdp, theta, critic, discount, decay, left):
    """Q with ``left`` steps to go, from its definition: the weighted mean of n-step returns."""
    policy = oracles.softmax_rows(theta)
    kernel = np.einsum("sa,sat->st", policy, mdp.transition)
    own = (policy * mdp.reward).sum(axis=1)
    weights = [(1 - decay) * decay ** (n - 1) for n in range(1, left)] + [decay ** (left - 1)]
    ahead, total = critic, 0.0
    for weight in weights:
        total = total + weight * (mdp.reward + discount * mdp.transition @ ahead)
        ahead = own + discount * kernel @ ahead
    return total


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_action_values_are_mixtures_of_n_step_returns(decay):
    mdp = oracles.random_mdp(4, horizon=5, n_states=3, n_actions=2)
    rng = np.random.default_rng(0)
    theta, critic = rng.normal(size=(3, 2)), rng.normal(size=3)
    q = [n_step_mixture(mdp, theta, critic, 0.8, decay, 5 - t) for t in range(5)]
    found = LambdaReturns(mdp, critic).at(theta, discount=0.8, gae_lambda=decay)
    np.testing.assert_allclose(found.values.action_values, q, rtol=1e-13, atol=1e-14)
    forever = TabularMDP(mdp.transition, mdp.reward, 0.8, mdp.start)
    q = n_step_mixture(mdp, theta, critic, 0.8, decay, 400)
    found = LambdaReturns(forever, critic).at(theta, discount=0.8, gae_lambda=decay)
    np.testing.assert_allclose(found.values.action_values[0], q, rtol=1e-12, atol=1e-13)


def test_the_update_is_not_a_gradient():
    mdp = oracles.random_mdp(4, n_states=3, n_actions=2)
    rng = np.random.default_rng(0)
    theta, critic = rng.normal(size=(3, 2)), rng.normal(size=3)
    found = LambdaReturns(mdp, critic).at(theta, discount=0.9, gae_lambda=0.8)
    basis = np.eye(6).reshape(6, 3, 2)
    jacobian = found.jvp(basis).reshape(6, 6)
    np.testing.assert_allclose(found.vjp(basis).reshape(6, 6).T, jacobian, atol=1e-13)
    asymmetry = np.linalg.norm(jacobian - jacobian.T) / np.linalg.norm(jacobian)
    assert asymmetry > 0.02
    # With lambda = 1 and the problem's own discount it is the policy gradient, whatever the critic.
    plain = LambdaReturns(mdp, critic).at(theta, discount=mdp.discount, gae_lambda=1.0)
    assert close(plain.update, gradient(mdp, theta), 0.0)
    assert close(plain.jvp(basis), plain.vjp(basis), 1.0)


def test_undiscounted_weights_make_the_named_update_field():
    mdp = oracles.random_mdp(4, horizon=4, n_states=3, n_actions=2)
    theta = np.random.default_rng(0).normal(size=(3, 2))
    for weighting in (Undiscounted(), GivenWeights((1.0, 0.2, 0.0, 3.0))):
        field = LambdaReturns(mdp, np.zeros(3), weighting)
        found = field.at(theta, discount=mdp.discount, gae_lambda=1.0).update
        target = update_field(horizon=4, weighting=weighting)
        assert close(found, evaluate_target(target, mdp, theta), 0.0)


def test_a_critic_over_time_bootstraps_each_step():
    mdp = oracles.random_mdp(4, horizon=3, n_states=3, n_actions=2)
    rng = np.random.default_rng(0)
    theta, critic = rng.normal(size=(3, 2)), rng.normal(size=(4, 3))
    found = LambdaReturns(mdp, critic).at(theta, discount=0.8, gae_lambda=0.0)
    wanted = mdp.reward + 0.8 * np.einsum("sax,tx->tsa", mdp.transition, critic[1:])
    np.testing.assert_allclose(found.values.action_values, wanted, rtol=1e-14)
    still = LambdaReturns(mdp, np.stack([critic[0]] * 4)).at(theta, discount=0.8, gae_lambda=0.5)
    same = LambdaReturns(mdp, critic[0]).at(theta, discount=0.8, gae_lambda=0.5)
    assert np.array_equal(still.update, same.update)


def test_batches_and_other_policies():
    mdps = [oracles.random_mdp(i, horizon=3, n_states=3, n_actions=2) for i in range(4)]
    rng = np.random.default_rng(0)
    theta, v = rng.normal(size=(2, 4, 3, 2))
    critic = rng.normal(size=3)
    point = {"discount": 0.8, "gae_lambda": 0.6}
    every = LambdaReturns(MDPBatch(mdps), critic).at(theta, **point)
    for i, mdp in enumerate(mdps):
        one = LambdaReturns(mdp, critic).at(theta[i], **point)
        assert close(every.update[i], one.update, 1.0)
        assert close(every.jvp(v)[i], one.jvp(v[i]), 1.0)
        assert close(every.vjp(v)[i], one.vjp(v[i]), 1.0)
        assert close(every.discount_derivative[i], one.discount_derivative, 1.0)
    features = rng.normal(size=(3, 2, 4))
    parameters, direction = rng.normal(size=(2, 4))
    linear = LambdaReturns(mdps[0], critic, policy=LinearSoftmax(features)).at(parameters, **point)

    def update(p):
        z = by_torch.tensor(features) @ p
        field = by_torch.lambda_update(mdps[0], z, critic, 0.8, 0.6)
        return torch.einsum("sap,sa->p", by_torch.tensor(features), field)

    leaf = by_torch.tensor(parameters)
    jacobian = torch.func.jacrev(update)(leaf).numpy()
    assert close(linear.update, update(leaf).numpy(), 0.0)
    assert close(linear.jvp(direction), jacobian @ direction, 0.0)
    assert close(linear.vjp(direction), jacobian.T @ direction, 0.0)


def test_bad_input_is_named():
    mdp = oracles.random_mdp(4, n_states=3, n_actions=2)
    finite = oracles.random_mdp(4, horizon=2, n_states=3, n_actions=2)
    with pytest.raises(ValueError, match=r"critic: expected shape \(3,\), got \(2,\)"):
        LambdaReturns(mdp, np.zeros(2))
    with pytest.raises(ValueError, match=r"critic: expected shape \(3,\) or \(3, 3\)"):
        LambdaReturns(finite, np.zeros(2))
    with pytest.raises(ValueError, match="needs a finite horizon"):
        LambdaReturns(mdp, np.zeros(3), Undiscounted())
    with pytest.raises(ValueError, match=r"state weighting: expected . weights"):
        LambdaReturns(finite, np.zeros(3), GivenWeights((1.0,)))
    with pytest.raises(ValueError, match="gae_lambda: expected a number in"):
        LambdaReturns(mdp, np.zeros(3)).at(np.zeros((3, 2)), discount=0.9, gae_lambda=1.1)
    with pytest.raises(ValueError, match="discount x gae_lambda"):
        LambdaReturns(mdp, np.zeros(3)).at(np.zeros((3, 2)), discount=1.0, gae_lambda=1.0)
    rows = np.array(mdp.transition)
    rows[2] = [0.0, 0.0, 1.0]
    reward = np.array(mdp.reward)
    reward[2] = 0.0
    ending = TabularMDP(rows, reward, 0.9, mdp.start)
    with pytest.raises(ValueError, match="critic: expected 0 at terminal states"):
        LambdaReturns(ending, np.ones(3))


def test_a_batch_takes_critics_over_time_and_looks_at_every_problem_s_terminal_states():
    """With as many problems as rows of the critic, so that axes could be mixed up."""
    rng = np.random.default_rng(0)
    going = oracles.random_mdp(4, horizon=2, n_states=3, n_actions=2)
    rows, reward = np.array(going.transition), np.array(going.reward)
    rows[2], reward[2] = [0.0, 0.0, 1.0], 0.0
    ending = TabularMDP(rows, reward, going.discount, going.start, 2)
    critic = rng.normal(size=(3, 3))
    mdps = [going, oracles.random_mdp(5, horizon=2, n_states=3, n_actions=2), ending]
    late = np.where([[False] * 3, [False, False, True], [False] * 3], critic, 0.0)
    for bad in (critic, late):
        with pytest.raises(ValueError, match="critic: expected 0 at terminal states"):
            LambdaReturns(MDPBatch(mdps), bad)
    critic[:, 2] = 0.0
    theta, point = rng.normal(size=(3, 2)), {"discount": 0.8, "gae_lambda": 0.6}
    every = LambdaReturns(MDPBatch(mdps), critic).at(theta, **point).update
    for i, mdp in enumerate(mdps):
        assert close(every[i], LambdaReturns(mdp, critic).at(theta, **point).update, 1.0)
