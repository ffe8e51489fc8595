"""Coefficient assembly against autograd through the parameters, for every kind of surrogate."""

import numpy as np
import pytest
import torch

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenWeights
from gradbias.stochastic.estimators.contexts import Context
from gradbias.stochastic.estimators.kinds import estimate, from_callable, from_draws, from_surrogate
from gradbias.stochastic.rollouts.trajectories import sample
from gradbias.stochastic.surrogates.dice import LoadedDice, dice
from gradbias.stochastic.surrogates.group_relative import Baseline, GroupRelative
from gradbias.stochastic.surrogates.meta_losses import IntrinsicReward
from gradbias.stochastic.surrogates.score_function import AD, ad, lvc
from tests.cases.surrogates import (
    CLEAN,
    branching,
    lvc_under_no_grad,
    lvc_with_detach,
    numpy_inside,
    tanh_network,
)
from tests.oracles import brute_force as oracles

CLOSE = 1e-12


def ending_problem(seed=0):
    """Three states, the last one terminal, so that batches hold dead steps; horizon 3."""
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(3), size=(3, 2))
    rows[2] = [0.0, 0.0, 1.0]
    reward = rng.normal(size=(3, 2))
    reward[2] = 0.0
    return TabularMDP(rows, reward, 0.9, [0.6, 0.4, 0.0], 3)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(CLEAN))
def test_assembly_equals_autograd_through_theta(name, order):
    mdp = ending_problem()
    rng = np.random.default_rng(1)
    theta, reference = rng.normal(size=(2, 3, 2))
    critic = np.array([0.3, -0.7, 0.0])
    # Drawn off policy: what uses behaviour log-probabilities (PPO's clip) shows it.
    drawn_at = theta + 0.5 * rng.normal(size=theta.shape)
    batch = sample(mdp, drawn_at, 3, rng=rng, replications=4)
    assert (~batch.alive).any()
    context = Context(theta, mdp.discount, critic=critic, reference=reference)
    found = estimate(from_surrogate(CLEAN[name], order=order), batch, context)
    assert found.shape == (4, *theta.shape * order)
    for b in range(4):
        wanted = oracles.through_theta(
            CLEAN[name], batch[b], theta, order, 0.9, critic=critic, reference=reference
        )
        scale = max(np.abs(wanted).max(), 1.0)
        assert np.abs(found[b] - wanted).max() <= CLOSE * scale


def test_lvc_under_no_grad_stays_lvc():
    """Forward mode ignores no_grad: torch.func.hessian turns LVC into AD, and this must not."""
    mdp = ending_problem()
    theta = np.random.default_rng(1).normal(size=(3, 2))
    batch = sample(mdp, theta, 1, rng=np.random.default_rng(2), replications=3)
    context = Context(theta, mdp.discount)
    hessians = {
        function: estimate(from_surrogate(function, order=2), batch, context)
        for function in (lvc, lvc_under_no_grad, lvc_with_detach, ad)
    }
    assert np.abs(hessians[lvc] - hessians[lvc_under_no_grad]).max() < CLOSE
    assert np.abs(hessians[lvc] - hessians[lvc_with_detach]).max() < CLOSE
    assert np.abs(hessians[lvc] - hessians[ad]).max() > 1e-2

    fell_in = torch.func.hessian(lambda x: _lvc_of_leaf(x, batch[0]))(torch.zeros(1, 3))
    assert fell_in.abs().max() == 0, "the trap is gone from torch: say so in the docs"


def _lvc_of_leaf(log_probs, batch):
    with torch.no_grad():
        fixed = log_probs * 1.0
    return (torch.exp(log_probs - fixed) * torch.tensor(np.array(batch.rewards))).sum()


@pytest.mark.parametrize("function", [branching, numpy_inside])
def test_what_vmap_rejects_is_looped_over_and_says_so(function):
    mdp = ending_problem()
    theta = np.zeros((3, 2))
    batch = sample(mdp, theta, 1, rng=np.random.default_rng(2), replications=5)
    evaluator = from_surrogate(function, order=1).prepare(batch, Context(theta, 0.9))
    assert evaluator.most is not None
    assert any("looped over trajectories: vmap says" in note for note in evaluator.notes)
    assert from_surrogate(ad, order=1).prepare(batch, Context(theta, 0.9)).notes == ()


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", ["ad", "dice", "entropy_bonus", "cubic"])
def test_a_network_takes_the_tabular_policy_s_place(name, order):
    mdp = ending_problem()
    rng = np.random.default_rng(3)
    policy = tanh_network(torch.tensor(rng.normal(size=(3, 2))))
    theta = rng.normal(size=8)
    logits = policy.logits(theta)
    batch = sample(mdp, theta, 2, rng=rng, replications=2, policy=policy)
    found = estimate(
        from_surrogate(CLEAN[name], order=order), batch, Context(theta, 0.9, policy=policy)
    )
    assert found.shape == (2, *(8,) * order)

    def surrogate_of(parameters, one):
        return _surrogate_at(CLEAN[name], policy.forward(parameters), one)

    for b in range(2):
        leaf = torch.tensor(theta, requires_grad=True)
        value = surrogate_of(leaf, batch[b])
        wanted = oracles._nested_reverse(value, leaf, order).detach().numpy()
        assert np.abs(found[b] - wanted).max() <= CLOSE * max(1.0, np.abs(wanted).max())
    assert logits.shape == (3, 2)


def _surrogate_at(surrogate, logits, batch):
    """The surrogate as a function of logits, for one replication."""
    captured = {}

    def keep(record):
        captured["value"] = surrogate(record)
        return captured["value"]

    from gradbias.stochastic.rollouts.records import Record

    states = torch.tensor(np.array(batch.states))
    actions = torch.tensor(np.array(batch.actions))
    alive = torch.tensor(np.array(batch.alive))
    rows = torch.where(alive[..., None], torch.log_softmax(logits, -1)[states[:, :-1]], 0.0)
    return keep(
        Record(
            rows.gather(-1, actions[..., None])[..., 0],
            rows,
            torch.tensor(np.array(batch.behaviour_log_probs)),
            torch.tensor(np.array(batch.rewards)),
            states,
            actions,
            alive,
            torch.zeros(states.shape, dtype=torch.float64),
            0.9,
        )
    )


def test_callables_in_numpy_and_torch_are_estimators():
    mdp = ending_problem()
    theta = np.random.default_rng(1).normal(size=(3, 2))
    batch = sample(mdp, theta, 4, rng=np.random.default_rng(2), replications=3)
    context = Context(theta, 0.9)

    def in_numpy(one, theta):
        return estimate(from_surrogate(ad, order=1), one, context)

    def in_torch(one, theta):
        return torch.tensor(in_numpy(one, theta), requires_grad=True)

    wanted = estimate(from_surrogate(ad, order=1), batch, context)
    for function in (in_numpy, in_torch):
        found = estimate(from_callable(function, order=1), batch, context)
        np.testing.assert_allclose(found, wanted, rtol=1e-13)


def test_a_direct_estimate_must_be_an_array_of_the_right_shape():
    mdp = ending_problem()
    theta = np.zeros((3, 2))
    batch = sample(mdp, theta, 1, rng=np.random.default_rng(2), replications=3)
    context = Context(theta, 0.9)
    rng = np.random.default_rng(0)
    for function, complaint in (
        (lambda b, t: np.zeros(5), r"expected shape \(3, 2\), got \(5,\)"),
        (lambda b, t: np.full((3, 2), np.nan), "expected finite numbers"),
        (lambda b, t: "no", "real numbers"),
        (lambda b, t: rng.normal(size=(3, 2)), "two values for one batch"),
    ):
        with pytest.raises(ValueError, match=complaint):
            estimate(from_callable(function, order=1), batch, context)


def test_orders_and_contexts_are_checked():
    for order in (0, 4, -1, 1.5, True):
        with pytest.raises(ValueError, match="order"):
            from_surrogate(ad, order=order)
    theta = np.zeros((3, 2))
    batch = sample(ending_problem(), theta, 1, rng=np.random.default_rng(0), replications=1)
    with pytest.raises(ValueError, match="discount"):
        Context(theta, 1.5)
    with pytest.raises(ValueError, match="critic: expected shape"):
        estimate(from_surrogate(ad, order=1), batch, Context(theta, 0.9, critic=np.zeros(4)))
    with pytest.raises(ValueError, match="draws its own batches"):
        estimate(from_draws(lambda d, t: t, order=1), batch, Context(theta, 0.9))
    with pytest.raises(ValueError, match="gae_lambda: expected a number"):
        LoadedDice(1.5)
    short = from_surrogate(AD(weighting=GivenWeights((1.0, 1.0))), order=1)
    with pytest.raises(ValueError, match="weighting: expected 3 weights, got 2"):
        estimate(short, batch, Context(theta, 0.9))


def test_names_say_what_differs_from_the_defaults():
    assert from_surrogate(dice, order=1).name == "Dice()"
    assert from_surrogate(LoadedDice(0.5), order=1).name == "LoadedDice(gae_lambda=0.5)"
    assert from_surrogate(IntrinsicReward(ad), order=1).name == "IntrinsicReward(surrogate=AD())"
    averaged = GroupRelative(baseline=Baseline.GROUP_MEAN)
    assert from_surrogate(averaged, order=1).name == "GroupRelative(baseline=Baseline.GROUP_MEAN)"
    of_mine = from_surrogate(IntrinsicReward(branching), order=1).name  # no address, which changes
    assert of_mine == "IntrinsicReward(surrogate=branching)"
    assert from_surrogate(branching, order=1).name == "branching"
    assert from_surrogate(branching, order=1, name="mine").name == "mine"
