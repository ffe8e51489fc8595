"""Sampling: the law of trajectories, ends of episodes, and the batch record."""

import numpy as np
import pytest
from scipy.stats import chi2

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.rollouts.trajectories import Trajectories, _Distributions, sample
from tests.oracles import brute_force as oracles

FALSE_ALARM = 1e-6


def chi_square_statistic(mdp, theta, drawn_from, n, seed):
    """(statistic, degrees of freedom) of sampled trajectories against their exact law."""
    batch = sample(drawn_from, theta, n, rng=np.random.default_rng(seed))
    expected = {}
    for probability, states, actions, rewards in oracles.all_trajectories(mdp, theta, mdp.horizon):
        expected[tuple(states), tuple(actions), tuple(np.round(rewards, 12))] = probability * n
    counts = dict.fromkeys(expected, 0)
    for states, actions, rewards in zip(batch.states, batch.actions, batch.rewards, strict=True):
        key = tuple(states.tolist()), tuple(actions.tolist()), tuple(np.round(rewards, 12).tolist())
        counts[key] += 1
    kept = {key: value for key, value in expected.items() if value >= 5}
    rest = n - sum(kept.values())
    statistic = sum((counts[key] - kept[key]) ** 2 / kept[key] for key in kept)
    if rest >= 5:
        statistic += (n - sum(counts[key] for key in kept) - rest) ** 2 / rest
        return statistic, len(kept)
    return statistic, len(kept) - 1


@pytest.mark.parametrize("next_rewards", [False, True])
def test_sampled_trajectories_have_their_exact_law(next_rewards):
    """Chi-square at a false-alarm rate of 1e-6; 40,000 trajectories of 128 kinds see a shift of
    any probability by about a quarter of itself (the next test plants one)."""
    mdp = oracles.random_mdp(1, horizon=2, n_states=2, n_actions=2, next_rewards=next_rewards)
    theta = np.random.default_rng(2).normal(size=(2, 2))
    statistic, freedom = chi_square_statistic(mdp, theta, mdp, 40_000, seed=3)
    assert freedom > 10
    assert statistic < chi2.ppf(1 - FALSE_ALARM, freedom)


def test_a_wrong_law_is_seen():
    mdp = oracles.random_mdp(1, horizon=2, n_states=2, n_actions=2)
    theta = np.random.default_rng(2).normal(size=(2, 2))
    rows = np.array(mdp.transition)
    rows[0, 0] = 0.8 * rows[0, 0] + 0.1
    wrong = TabularMDP(rows, mdp.reward, mdp.discount, mdp.start, mdp.horizon)
    statistic, freedom = chi_square_statistic(mdp, theta, wrong, 40_000, seed=3)
    assert statistic > chi2.ppf(1 - FALSE_ALARM, freedom)


def test_no_draw_falls_off_a_row_or_takes_what_cannot_happen():
    class Edges:
        """A generator that returns the largest float below one, or zero."""

        def __init__(self, value):
            self.value = value

        def random(self, shape):
            return np.full(shape, self.value)

    rows = np.array([[0.0, 0.1, 0.2, 0.7, 0.0], [0.1] * 3 + [0.0, 0.7], [0.0, 0.0, 1.0, 0.0, 0.0]])
    table = _Distributions.of(rows)
    highest = table.draw(np.arange(3), Edges(np.nextafter(1.0, 0.0)))
    lowest = table.draw(np.arange(3), Edges(0.0))
    assert highest.tolist() == [3, 4, 2]
    assert lowest.tolist() == [1, 0, 2]


def ending_mdp():
    """State 0 pays 1 and moves to state 1 or to the end, state 2."""
    rows = np.zeros((3, 2, 3))
    rows[0, 0, 1] = rows[0, 1, 2] = rows[1, :, 2] = rows[2, :, 2] = 1.0
    return TabularMDP(rows, [[1.0, 2.0], [3.0, 3.0], [0.0, 0.0]], 0.9, [1.0, 0.0, 0.0], 4)


def test_dead_steps_carry_no_information():
    batch = sample(ending_mdp(), np.zeros((3, 2)), 200, rng=np.random.default_rng(0))
    dead = ~batch.alive
    assert dead.any()
    assert (batch.alive.sum(axis=1) >= 1).all()
    assert (batch.states[:, :-1][dead] == 2).all()
    for array in (batch.actions, batch.rewards, batch.behaviour_log_probs):
        assert (array[dead] == 0).all()
    np.testing.assert_allclose(batch.behaviour_log_probs[batch.alive], np.log(0.5))


def test_replications_are_leading_axes_and_seeds_repeat():
    mdp = oracles.random_mdp(0, horizon=3)
    theta = np.zeros((mdp.n_states, mdp.n_actions))
    one = sample(mdp, theta, 5, rng=np.random.default_rng(1), replications=4)
    two = sample(mdp, theta, 5, rng=np.random.default_rng(1), replications=4)
    assert one.shape == (4, 5, 3)
    assert one.states.shape == (4, 5, 4)
    assert np.array_equal(one.states, two.states)
    assert one.reshape(20).shape == (20, 3)
    assert np.array_equal(one.reshape(20)[7:8].actions[0], one.actions[1, 2])


@pytest.mark.parametrize(
    ("mdp_horizon", "arguments", "complaint"),
    [
        (None, {}, "the horizon is infinite"),
        (None, {"length": 0}, "length: expected an integer >= 1"),
        (3, {"length": 2}, "length: only for an infinite horizon"),
        (3, {"batch_size": 0}, "batch_size: expected an integer >= 1, got 0"),
        (3, {"replications": 0}, "replications"),
        (3, {"theta": np.zeros((7, 7))}, "theta: expected shape"),
    ],
)
def test_bad_requests_are_refused(mdp_horizon, arguments, complaint):
    mdp = oracles.random_mdp(0, horizon=mdp_horizon, n_states=2, n_actions=2)
    arguments = {"theta": np.zeros((2, 2)), "batch_size": 3} | arguments
    with pytest.raises(ValueError, match=complaint):
        sample(mdp, **arguments, rng=np.random.default_rng(0))


def test_records_whose_shapes_do_not_belong_together_are_refused():
    zeros = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"states: expected shape \(2, 4\), got \(2, 3\)"):
        Trajectories(zeros, zeros, zeros, zeros, zeros)
    with pytest.raises(ValueError, match=r"rewards: expected shape \(2, 3\)"):
        Trajectories(np.zeros((2, 4)), zeros, np.zeros((2, 2)), zeros, zeros)
    with pytest.raises(ValueError, match=r"actions: expected shape \[..., N, H\]"):
        Trajectories(np.zeros(4), np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3))
    batch = Trajectories(np.zeros((2, 4)), zeros, zeros, zeros, zeros)
    with pytest.raises(ValueError, match="read-only"):
        batch.rewards[0, 0] = 1.0
