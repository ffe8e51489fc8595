"""The contracts, each proved by a small running example."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from gradbias.analytic.policies.softmax import TABULAR, softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenTarget
from gradbias.analytic.returns.derivatives import gradient, hessian
from gradbias.analytic.returns.evaluation import state_values
from gradbias.stochastic.estimators.contexts import Context, OtherPlayer
from gradbias.stochastic.estimators.kinds import estimate, from_surrogate
from gradbias.stochastic.rollouts.trajectories import Trajectories, sample
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.returns import discounts
from gradbias.stochastic.surrogates.score_function import ad
from gradbias.verification.evidence.enumeration import Enumeration
from gradbias.verification.evidence.reports import Evidence, Verdict
from gradbias.verification.measurement.measure import measure_bias
from tests.cases.bandits import bandit
from tests.cases.surrogates import (
    CLEAN,
    batch_mean_baseline,
    entropy_bonus,
    leave_one_out,
    ppo_clip,
    tanh_network,
)
from tests.oracles import brute_force as oracles


def small(seed=0, horizon=2):
    mdp = oracles.random_mdp(seed, horizon=horizon, n_states=2, n_actions=2)
    return mdp, np.random.default_rng(seed).normal(size=(2, 2))


# A PPO-clip surrogate with behaviour log-probabilities.


def off_policy_dice(record):
    ratios = torch.exp(torch.cumsum(record.log_probs - record.behaviour_log_probs, dim=-1))
    return (discounts(record) * record.rewards * ratios).sum(-1).mean()


def test_ppo_clip_is_the_policy_gradient_on_policy_alone():
    mdp, theta = small()
    behaviour = theta + np.random.default_rng(5).normal(size=(2, 2))
    estimator = from_surrogate(ppo_clip, order=1)
    assert measure_bias(estimator, mdp, theta).verdict is Verdict.UNBIASED
    off_policy = measure_bias(estimator, mdp, theta, behaviour=behaviour)
    assert off_policy.verdict is Verdict.BIASED
    assert "behaviour policy" in off_policy.scope
    # By hand: the behaviour policy's trajectories, the current policy's ratios.
    wanted = np.zeros((2, 2))
    policy, other = softmax(theta), softmax(behaviour)
    for p, states, actions, rewards in oracles.all_trajectories(mdp, behaviour, 2):
        for t in range(2):
            to_go = sum(mdp.discount ** (k - t) * rewards[k] for k in range(t, 2))
            s, a = states[t], actions[t]
            ratio, weight = policy[s, a] / other[s, a], mdp.discount**t * to_go
            if min(ratio * weight, np.clip(ratio, 0.8, 1.2) * weight) == ratio * weight:
                score = np.eye(2)[a] - policy[s]
                wanted[s] += p * weight * ratio * score
    np.testing.assert_allclose(off_policy.mean, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("order", [1, 2])
def test_trajectory_importance_weights_are_unbiased_off_policy(order):
    mdp, theta = small()
    behaviour = theta + np.random.default_rng(5).normal(size=(2, 2))
    report = measure_bias(
        from_surrogate(off_policy_dice, order=order), mdp, theta, behaviour=behaviour
    )
    assert report.verdict is Verdict.UNBIASED


# A two-player LOLA step.


@dataclass(frozen=True)
class BothPlayers:
    """Two tabular players as one policy over joint actions (a, b): logits add. Player 2 reads its
    own row of each state."""

    rows: tuple[int, ...]
    n_actions: int

    def parameter_shape(self, n_states, n_actions):
        return (2 * n_states * self.n_actions,)

    def _matrix(self):
        n_states, n_actions = len(self.rows), self.n_actions
        matrix = np.zeros((n_states, n_actions, n_actions, 2, n_states, n_actions))
        for s, row in enumerate(self.rows):
            for a in range(n_actions):
                matrix[s, a, :, 0, s, a] = 1.0
                matrix[s, :, a, 1, row, a] = 1.0
        return matrix.reshape(n_states * n_actions**2, -1)

    def logits(self, theta):
        return (self._matrix() @ theta).reshape(len(self.rows), -1)

    def logit_derivatives(self, theta, order):
        p = theta.size
        zeros = [np.zeros((len(self._matrix()), *(p,) * k)) for k in range(2, order + 1)]
        return (self._matrix(), *zeros)


def dice_over_both(record):
    """Player 1's return with both players' scores."""
    both = record.log_probs + record.other.log_probs
    ratios = torch.exp(torch.cumsum(both - both.detach(), dim=-1))
    return (discounts(record) * record.rewards * ratios).sum(-1).mean()


def dice_of_the_other(record):
    """Player 2's return with both players' scores."""
    both = record.log_probs + record.other.log_probs
    ratios = torch.exp(torch.cumsum(both - both.detach(), dim=-1))
    return (discounts(record) * record.other.rewards * ratios).sum(-1).mean()


def test_a_lola_step_needs_both_players_leaves():
    """Exact expectations of first and second derivatives in both players' logits, and the LOLA
    gradient made of them, against the exact ones of the joint problem."""
    rng = np.random.default_rng(4)
    policy = BothPlayers(rows=(1, 0), n_actions=2)
    rows = rng.dirichlet(np.ones(2), size=(2, 4))
    rewards = rng.normal(size=(2, 2, 4))
    games = [TabularMDP(rows, reward, 0.9, [0.7, 0.3], 2) for reward in rewards]
    theta = rng.normal(size=8)
    own, other = theta[:4].reshape(2, 2), theta[4:].reshape(2, 2)

    batch, weights = Enumeration.of(games[0], policy, theta, 2).all_batches(1, ordered=True)
    now, joint = batch.states[..., :-1], batch.actions
    first, second = joint // 2, joint % 2
    split = Trajectories(
        batch.states,
        first,
        rewards[0][now, joint],
        batch.alive,
        np.log(softmax(own))[now, first],
        other_actions=second,
        other_rewards=rewards[1][now, joint],
    )
    context = Context(own, 0.9, other=OtherPlayer(other, np.array([1, 0])))

    def expected(surrogate, order):
        estimates = estimate(from_surrogate(surrogate, order=order), split, context)
        return np.tensordot(weights, estimates, axes=1)

    for surrogate, game in ((dice_over_both, games[0]), (dice_of_the_other, games[1])):
        assert (
            oracles.relative_gap(expected(surrogate, 1), gradient(game, theta, policy=policy))
            < 1e-12
        )
        assert (
            oracles.relative_gap(expected(surrogate, 2), hessian(game, theta, policy=policy))
            < 1e-12
        )

    def lola(gradient_1, hessian_2, step=0.3):
        """Player 1's gradient through one look-ahead step of player 2, to first order in it."""
        return gradient_1[:4] + step * hessian_2[:4, 4:] @ gradient_1[4:]

    found = lola(expected(dice_over_both, 1), expected(dice_of_the_other, 2))
    exact = lola(gradient(games[0], theta, policy=policy), hessian(games[1], theta, policy=policy))
    assert oracles.relative_gap(found, exact) < 1e-12
    # The other player's behaviour is its own policy's, unless the batch says otherwise.
    ratio = from_surrogate(
        lambda r: (r.log_probs * torch.exp(r.other.log_probs - r.other.behaviour_log_probs)).sum(),
        order=1,
    )
    plain = estimate(from_surrogate(lambda r: r.log_probs.sum(), order=1), split, context)
    np.testing.assert_allclose(estimate(ratio, split, context)[:, :4], plain[:, :4], atol=1e-13)
    off_policy = replace(split, other_behaviour_log_probs=np.zeros(first.shape))
    assert np.abs(estimate(ratio, off_policy, context)[:, :4] - plain[:, :4]).max() > 0.1
    # Without the other player's leaves the look-ahead term is lost.
    alone = np.tensordot(weights, estimate(from_surrogate(ad, order=2), split, context), axes=1)
    assert np.abs(alone[:4, 4:]).max() == 0.0
    assert np.abs(expected(dice_of_the_other, 2)[:4, 4:]).max() > 1e-3
    with pytest.raises(ValueError, match="expected other_actions and other_rewards"):
        estimate(
            from_surrogate(dice_over_both, order=1), replace(split, other_actions=None), context
        )
    with pytest.raises(ValueError, match=r"actions: expected numbers from 0 to 1, got [23]"):
        estimate(from_surrogate(ad, order=1), batch, Context(own, 0.9))


# An episode that ends early.


def test_an_episode_that_ends_early_stays_exact():
    rows = np.zeros((3, 2, 3))
    rows[0, 0], rows[0, 1], rows[1, :, 2], rows[2, :, 2] = [0, 1, 0], [0.3, 0, 0.7], 1.0, 1.0
    mdp = TabularMDP(rows, [[1.0, 2.0], [3.0, -1.0], [0.0, 0.0]], 0.9, [1.0, 0.0, 0.0], 4)
    theta = np.random.default_rng(0).normal(size=(3, 2))
    seen = []

    def watching(record):
        seen.append(record.alive)
        dead = ~record.alive
        for field in (record.log_probs, record.rewards, record.behaviour_log_probs):
            assert (field.detach()[dead] == 0).all()
        assert (record.log_policy.detach()[dead] == 0).all()
        return dice(record)

    # Asserting on values makes vmap refuse: the loop sees each record.
    report = measure_bias(from_surrogate(watching, order=2), mdp, theta)
    assert report.verdict is Verdict.UNBIASED
    assert any((~alive).any() for alive in seen if not torch._C._functorch.is_batchedtensor(alive))
    for name in ("ad", "lvc", "dice", "loaded_dice"):
        assert (
            measure_bias(from_surrogate(CLEAN[name], order=1), mdp, theta).verdict
            is Verdict.UNBIASED
        )


# A leave-one-out group baseline: a coupled batch.


@pytest.mark.parametrize("n", [2, 3])
def test_group_baselines_are_measured_over_batches(n):
    mdp, theta = small(horizon=1)
    left_out = measure_bias(from_surrogate(leave_one_out, order=1), mdp, theta, batch_size=n)
    assert left_out.verdict is Verdict.UNBIASED
    assert left_out.coupled
    assert f"N = {n}" in left_out.sentence()
    mean = measure_bias(from_surrogate(batch_mean_baseline, order=1), mdp, theta, batch_size=n)
    assert mean.verdict is Verdict.BIASED
    assert abs(mean.direction.scale - (n - 1) / n) < 1e-12
    assert mean.direction.residual < 1e-12


def test_a_coupled_estimator_needs_n():
    mdp, theta = small(horizon=1)
    with pytest.raises(ValueError, match=r"if it needs a batch of several.*--batch-size N"):
        measure_bias(from_surrogate(leave_one_out, order=1), mdp, theta)


def test_a_batch_mean_couples_too():
    mdp, theta = small(horizon=1)
    with pytest.raises(ValueError, match=r"couples the trajectories of a batch.*--batch-size N"):
        measure_bias(from_surrogate(batch_mean_baseline, order=1), mdp, theta)


def first_minus_last(record):
    """Depends on the order of the batch's trajectories."""
    total = (discounts(record) * record.rewards).sum(-1)
    weights = torch.arange(1.0, len(total) + 1, dtype=torch.float64)
    return (weights * (total - total[-1]) * record.log_probs.sum(-1)).sum()


def neighbours_as_baseline(record):
    """Each return less the mean of its two neighbours' in the batch, on a circle: unbiased, and
    not free of order from four trajectories on, though turning and reversing change nothing."""
    total = (discounts(record) * record.rewards).sum(-1)
    baseline = (torch.roll(total, 1) + torch.roll(total, -1)) / 2
    weights = torch.arange(len(total), dtype=torch.float64).remainder(2) + 0.5
    return ((total - baseline) * record.log_probs.sum(-1) * weights / weights.mean()).mean()


@pytest.mark.parametrize("n", [3, 4, 5])
def test_orders_that_turning_a_batch_does_not_show_are_seen(n):
    mdp, theta = bandit(), np.array([[0.3, -0.2]])

    def circle(record):
        total = record.rewards.sum(-1)
        baseline = (torch.roll(total, 1) + torch.roll(total, -1)) / 2
        return ((total - baseline) * record.log_probs.sum(-1)).mean()

    for surrogate in (circle, neighbours_as_baseline):
        report = measure_bias(from_surrogate(surrogate, order=1), mdp, theta, batch_size=n)
        assert report.verdict is Verdict.UNBIASED
        assert report.samples == 2**n
        # Where tuples do not fit, multisets would do for what is free of order alone.
        limited = {"batch_size": n, "max_outcomes": 2**n - 1, "evidence": "enumeration"}
        if surrogate is circle and n == 3:
            as_multisets = measure_bias(from_surrogate(surrogate, order=1), mdp, theta, **limited)
            assert as_multisets.samples == 4
            assert as_multisets.verdict is Verdict.UNBIASED
            assert any("as multisets" in note for note in as_multisets.notes)
        else:
            with pytest.raises(ValueError, match=f"{2**n} batches of {n}"):
                measure_bias(from_surrogate(surrogate, order=1), mdp, theta, **limited)


def test_auto_samples_where_tuples_do_not_fit():
    mdp, theta = small(horizon=2)
    estimator = from_surrogate(first_minus_last, order=1)
    report = measure_bias(estimator, mdp, theta, batch_size=3, max_outcomes=20_000, budget=900)
    assert report.evidence is Evidence.SAMPLING
    with pytest.raises(ValueError, match="batches of 3, more than the limit"):
        measure_bias(
            estimator,
            mdp,
            theta,
            batch_size=3,
            max_outcomes=20_000,
            evidence="enumeration",
        )


def worse_than_the_one_before(record):
    """Couples only where an earlier trajectory earned more."""
    total = (discounts(record) * record.rewards).sum(-1)
    before = torch.cat([total[:1], total[:-1]])
    return ((total - torch.relu(before - total)) * record.log_probs.sum(-1)).mean()


def test_coupling_that_looks_one_way_is_seen():
    mdp = TabularMDP(np.ones((1, 5, 1)), np.arange(1.0, 6.0)[None], 0.9, [1.0], horizon=1)
    theta = np.random.default_rng(1).normal(size=(1, 5))
    estimator = from_surrogate(worse_than_the_one_before, order=1)
    with pytest.raises(ValueError, match="couples the trajectories"):
        measure_bias(estimator, mdp, theta)
    assert measure_bias(estimator, mdp, theta, batch_size=2).verdict is Verdict.BIASED


def test_batches_whose_order_matters_are_enumerated_as_tuples():
    mdp, theta = small(horizon=1)
    report = measure_bias(from_surrogate(first_minus_last, order=1), mdp, theta, batch_size=2)
    singles = Enumeration.of(mdp, TABULAR, theta, 1).count()
    assert report.samples == singles**2
    limit = int(singles**2 - 1)
    free = measure_bias(
        from_surrogate(leave_one_out, order=1), mdp, theta, batch_size=2, max_outcomes=limit
    )
    assert free.samples == singles * (singles + 1) / 2
    assert free.verdict is Verdict.UNBIASED


# An entropy bonus: needs log_policy.


def test_an_entropy_bonus_is_measured_against_the_regularised_return():
    mdp, theta = small(1, horizon=3)

    def regularised(logits):
        policy = torch.softmax(logits, -1)
        kernel = torch.einsum("sa,sat->st", policy, torch.tensor(np.array(mdp.transition)))
        reward = (policy * torch.tensor(np.array(mdp.reward))).sum(-1)
        reward = reward - 0.5 * (policy * torch.log_softmax(logits, -1)).sum(-1)
        values = torch.zeros(2, dtype=torch.float64)
        for _ in range(3):
            values = reward + mdp.discount * kernel @ values
        return torch.tensor(np.array(mdp.start)) @ values

    truth = torch.func.jacrev(regularised)(torch.tensor(theta)).numpy()
    target = GivenTarget("the gradient of the 3-step return with half its entropies", truth)
    estimator = from_surrogate(entropy_bonus, order=1)
    report = measure_bias(estimator, mdp, theta, target=target)
    assert report.verdict is Verdict.UNBIASED
    assert "half its entropies" in report.sentence()
    # For the plain return the same estimator is biased: a verdict names its target.
    assert measure_bias(estimator, mdp, theta).verdict is Verdict.BIASED


# A one-hidden-layer torch policy in place of the tabular one.


def test_a_network_policy_is_measured_in_its_own_parameters():
    mdp = oracles.random_mdp(3, horizon=2, n_states=3, n_actions=2)
    rng = np.random.default_rng(3)
    policy = tanh_network(torch.tensor(rng.normal(size=(3, 2))))
    theta = rng.normal(size=8)
    for order in (1, 2):
        report = measure_bias(from_surrogate(dice, order=order), mdp, theta, policy=policy)
        assert report.verdict is Verdict.UNBIASED
        assert report.bias.shape == (8,) * order
    tabular = state_values(mdp, policy.logits(theta))
    # The fact that AD's mean Hessian vanishes under exact values is tabular softmax's alone.
    hidden = measure_bias(from_surrogate(ad, order=2), mdp, theta, policy=policy, critic=tabular)
    assert np.linalg.norm(hidden.mean) > 1e-3
    flat = measure_bias(from_surrogate(ad, order=2), mdp, policy.logits(theta), critic=tabular)
    assert np.abs(flat.mean).max() < 1e-14
    # Sampled from the same policy object.
    assert sample(mdp, theta, 3, rng=rng, policy=policy).shape == (3, 2)
    with pytest.raises(ValueError, match=r"policy: expected logits \(2, 2\), got \(3, 2\)"):
        measure_bias(from_surrogate(dice, order=1), small()[0], theta, policy=policy)
