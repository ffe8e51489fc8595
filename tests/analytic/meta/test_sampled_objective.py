"""The objective of sampled inner steps: enumerated by hand, in torch, and by batches as tuples."""

import itertools

import numpy as np
import pytest
import torch

from gradbias.analytic.meta.bilevel import Maml
from gradbias.analytic.meta.meta_gradients import meta_gradient, meta_objective
from gradbias.analytic.meta.sampled_objective import sampled_step_objective
from gradbias.analytic.moments import trajectory_classes
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from tests.oracles import brute_force as oracles
from tests.oracles import torch_functions as by_torch
from tests.oracles.tolerances import close


def in_torch(mdp, theta, samples, steps, step_size, credit, logits=lambda p: p):
    """J_N^K as a torch function: all *ordered* batches of all trajectories, nothing merged."""
    if steps == 0:
        return by_torch.return_of(mdp, logits(theta))
    uniform = np.zeros((mdp.n_states, mdp.n_actions))
    plain = TabularMDP(mdp.transition, uniform, mdp.discount, mdp.start, mdp.horizon)
    every = list(oracles.all_trajectories(plain, uniform, mdp.horizon))
    log_policy = torch.log_softmax(logits(theta), -1)
    singles = []
    for probability, states, actions, _ in every:
        rewards = mdp.step_reward(
            np.array(states[:-1]), np.array(actions), np.array(states[1:])
        ).tolist()
        alive = [t for t in range(mdp.horizon) if not mdp.terminal[states[t]]]
        if any(actions[t] != 0 for t in range(mdp.horizon) if t not in alive):
            continue  # actions after the end are no choice
        environment = probability * mdp.n_actions**mdp.horizon
        log_probs = [log_policy[states[t], actions[t]] for t in alive]
        likelihood = environment * torch.exp(
            sum(log_probs, start=torch.zeros((), dtype=by_torch.F64))
        )
        paid = [mdp.discount**t * r for t, r in enumerate(rewards)]
        from_t = [sum(paid) if credit is Credit.TOTAL_RETURN else sum(paid[t:]) for t in alive]
        surrogate = sum(
            (g * lp for g, lp in zip(from_t, log_probs, strict=True)),
            start=0.0 * theta.sum(),
        )
        singles.append((likelihood, torch.autograd.grad(surrogate, theta, create_graph=True)[0]))
    total = torch.zeros((), dtype=by_torch.F64)
    for batch in itertools.product(singles, repeat=samples):
        estimate = sum(g for _, g in batch) / samples
        weight = torch.stack([p for p, _ in batch]).prod()
        after = in_torch(
            mdp, theta + step_size * estimate, samples, steps - 1, step_size, credit, logits
        )
        total = total + weight * after
    return total


def check_against_autograd(
    mdp, theta, samples, steps, step_size, credit, policy=None, logits=lambda p: p
):
    leaf = by_torch.tensor(theta).requires_grad_(True)
    value = in_torch(mdp, leaf, samples, steps, step_size, credit, logits)
    wanted = torch.autograd.grad(value, leaf)[0].numpy()
    extra = {} if policy is None else {"policy": policy}
    found = sampled_step_objective(
        mdp, theta, batch_size=samples, steps=steps, step_size=step_size, credit=credit, **extra
    )
    assert close(found.value, float(value.detach()), 1e-2)
    assert close(found.gradient, wanted, 1e-2)


@pytest.mark.parametrize("credit", list(Credit))
@pytest.mark.parametrize(
    ("horizon", "samples", "steps"), [(1, 1, 1), (1, 3, 2), (2, 2, 1), (1, 2, 3)]
)
def test_value_and_gradient_agree_with_autograd_over_all_batches(horizon, samples, steps, credit):
    mdp = oracles.random_mdp(4, horizon=horizon, n_states=2, n_actions=2)
    theta = np.random.default_rng(0).normal(size=(2, 2))
    if steps > 1:
        mdp = TabularMDP(np.ones((1, 2, 1)), [[1.0, -0.5]], 0.9, [1.0], horizon)
        theta = theta[:1]
    check_against_autograd(mdp, theta, samples, steps, 0.7, credit)


def test_trajectories_that_end_are_not_extended():
    rows = np.zeros((2, 2, 2))
    rows[0] = [[0.3, 0.7], [0.6, 0.4]]
    rows[1, :, 1] = 1.0
    reward = np.array([[[1.0, -2.0], [0.5, 3.0]], [[0.0, 0.0], [0.0, 0.0]]])
    mdp = TabularMDP(rows, reward, 0.8, [0.7, 0.3], 2)
    for credit in Credit:
        check_against_autograd(mdp, np.array([[0.4, -0.1], [2.0, 1.0]]), 2, 1, 0.9, credit)


def test_other_policies_follow_by_the_chain_rule():
    mdp = oracles.random_mdp(4, horizon=2, n_states=2, n_actions=2)
    features = np.random.default_rng(0).normal(size=(2, 2, 3))
    policy = LinearSoftmax(features)
    theta = np.array([0.3, -0.2, 0.5])
    check_against_autograd(
        mdp, theta, 1, 1, 0.7, Credit.REWARD_TO_GO, policy, lambda p: by_torch.tensor(features) @ p
    )

    from gradbias.stochastic.networks.torch_policy import TorchPolicy

    def quadratic(p):
        return (by_torch.tensor(features) @ p) ** 2

    check_against_autograd(
        mdp, theta, 1, 1, 0.7, Credit.REWARD_TO_GO, TorchPolicy(quadratic, 3), quadratic
    )


@pytest.mark.parametrize("credit", list(Credit))
@pytest.mark.parametrize("shape", [(2, 2, 2, 1), (2, 2, 2, 2)])
def test_rewards_over_time_are_credited_when_they_come(shape, credit):
    plain = oracles.random_mdp(4, horizon=2, n_states=2, n_actions=2)
    reward = np.random.default_rng(3).normal(size=shape)
    mdp = TabularMDP(plain.transition, reward, 0.8, plain.start, 2)
    check_against_autograd(mdp, np.array([[0.4, -0.1], [0.3, 0.2]]), 2, 1, 0.9, credit)


def test_batches_are_added_up_over_blocks(monkeypatch):
    mdp = oracles.random_mdp(4, horizon=1, n_states=2, n_actions=2)
    loop = {"batch_size": 3, "steps": 2, "step_size": 0.5}
    theta = np.random.default_rng(0).normal(size=(2, 2))
    whole = sampled_step_objective(mdp, theta, **loop)
    monkeypatch.setattr(trajectory_classes, "BLOCK", 36)  # three batches at a time
    parts = sampled_step_objective(mdp, theta, **loop)
    assert abs(parts.value - whole.value) < 1e-14
    np.testing.assert_allclose(parts.gradient, whole.gradient, atol=1e-14)


def test_more_samples_approach_the_objective_of_expected_steps():
    """J_N - J_inf falls like 1 / N, and so do their gradients (theory: not like N^-1/2)."""
    bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    theta, loop = np.array([[-0.5, 0.2]]), {"steps": 1, "step_size": 2.0}
    value, gradient = (f(Maml(bandit), theta, **loop) for f in (meta_objective, meta_gradient))
    gaps, slopes = [], []
    for n in (50, 100, 200, 400):
        found = sampled_step_objective(bandit, theta, batch_size=n, **loop)
        gaps.append(abs(found.value - value))
        slopes.append(np.linalg.norm(found.gradient - gradient))
    for errors in (gaps, slopes):
        rates = np.log2(np.array(errors[:-1]) / errors[1:])
        assert (np.abs(rates - 1.0) < 0.05).all(), rates


def test_what_is_too_large_is_said_before_trying():
    mdp = oracles.random_mdp(4, horizon=3, n_states=3, n_actions=3)
    zero = np.zeros((3, 3))
    with pytest.raises(
        ValueError, match=r"expected at most 1,000,000 outcomes, .* got about 10\^\d"
    ):
        sampled_step_objective(mdp, zero, batch_size=5, steps=2, step_size=0.1)
    long = oracles.random_mdp(4, horizon=40, n_states=3, n_actions=3)
    with pytest.raises(ValueError, match=r"horizon: expected at most [\d,]+ trajectories, got"):
        sampled_step_objective(long, zero, batch_size=1, steps=1, step_size=0.1)
    bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    with pytest.raises(ValueError, match=r"got about 10\^\d\d\d\.\d outcomes"):
        sampled_step_objective(mdp, zero, batch_size=500, steps=2, step_size=0.1)
    for many in ({"batch_size": 10**7, "steps": 1}, {"batch_size": 3, "steps": 99}):
        with pytest.raises(ValueError, match="numbers a step, got about"):
            sampled_step_objective(bandit, [[0.0, 0.0]], step_size=0.1, **many)
    with pytest.raises(ValueError, match="steps: expected at most 100, got 1000000000"):
        sampled_step_objective(bandit, [[0.0, 0.0]], batch_size=3, steps=10**9, step_size=0.1)
    wide = TabularMDP.random(100, 10, rng=np.random.default_rng(0), discount=0.9, horizon=2)
    with pytest.raises(ValueError, match=r"horizon: expected at most 12,500 trajectories, got"):
        sampled_step_objective(wide, np.zeros((100, 10)), batch_size=1, steps=1, step_size=0.1)
    forever = oracles.random_mdp(4, n_states=3, n_actions=3)
    with pytest.raises(ValueError, match="horizon: expected a finite one"):
        sampled_step_objective(forever, zero, batch_size=1, steps=1, step_size=0.1)
    with pytest.raises(ValueError, match="one policy"):
        sampled_step_objective(mdp, np.zeros((2, 3, 3)), batch_size=1, steps=1, step_size=0.1)
