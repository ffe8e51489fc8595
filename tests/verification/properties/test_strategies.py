"""Drawn problems are valid, of the kind that was asked for, and shrink to the plainest."""

import random

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.verification.properties.strategies import (
    Choosing,
    games,
    joint_policies_for,
    policies_for,
    tabular_mdps,
)
from gradbias.verification.properties.table_strategies import Dynamics, Rewards
from tests.cases.strategies import shapes_of

SEEDS = range(2)
QUICK = settings(max_examples=300, database=None, deadline=None)


def smallest(strategy, condition, seed):
    return find(strategy, condition, random=random.Random(seed), settings=QUICK)


@given(tabular_mdps(4, 3, 5, infinite=True))
def test_rows_sum_to_one_exactly_in_eighths_or_finer(mdp):
    for rows in (mdp.transition, mdp.start):
        assert (rows.sum(axis=-1) == 1.0).all()
        assert (rows * 1024 == np.round(rows * 1024)).all()
    assert mdp.start[0] > 0


@given(tabular_mdps(2, 2, 2, min_states=2, min_actions=2))
def test_sizes_stay_in_their_bounds(mdp):
    assert (mdp.n_states, mdp.n_actions) == (2, 2)
    assert 1 <= mdp.horizon <= 2


CLAIMS = {
    Dynamics.DETERMINISTIC: lambda p: set(p.ravel()) <= {0.0, 1.0},
    Dynamics.ACTION_INDEPENDENT: lambda p: (p == p[:, :1]).all(),
    Dynamics.ABSORBING: lambda p: (p[-1, :, -1] == 1.0).all(),
    Dynamics.PERIODIC: lambda p: len(p) == 1 or not p[::2, :, ::2].any() | p[1::2, :, 1::2].any(),
    Dynamics.SPARSE: lambda p: ((p > 0).sum(axis=-1) <= 2).all(),
    Dynamics.DENSE: lambda p: (p > 0).all(),
    Dynamics.NEAR_DETERMINISTIC: lambda p: (p.max(axis=-1) >= 1 - 1e-2).all(),
}


@pytest.mark.parametrize("kind", Dynamics, ids=lambda kind: kind.name.lower())
def test_transitions_are_of_the_kind_that_was_asked_for(kind):
    """And its broken twins: each of the other kinds is found not to be that, but where it must."""

    @given(tabular_mdps(4, 3, dynamics=[kind]))
    @settings(max_examples=12)
    def check_kind(mdp):
        assert CLAIMS[kind](mdp.transition)

    check_kind()
    contained = {
        Dynamics.SPARSE: {Dynamics.DETERMINISTIC, Dynamics.NEAR_DETERMINISTIC},
        Dynamics.NEAR_DETERMINISTIC: {Dynamics.DETERMINISTIC},
    }
    others = [k for k in Dynamics if k is not kind and k not in contained.get(kind, ())]
    assert smallest(tabular_mdps(dynamics=others), lambda mdp: not CLAIMS[kind](mdp.transition), 0)


@pytest.mark.parametrize("kind", Rewards, ids=lambda kind: kind.name.lower())
def test_rewards_are_of_the_kind_that_was_asked_for(kind):
    sized = {"max_states": 2, "max_actions": 2, "min_states": 2, "min_actions": 2}

    @given(tabular_mdps(**sized, max_horizon=3, rewards=[kind], dynamics=[Dynamics.DENSE]))
    @settings(max_examples=12)
    def check_kind(mdp):
        by_kind = {
            Rewards.BY_NEXT_STATE: (2, 2, 2),
            Rewards.OVER_TIME: (mdp.horizon, 2, 2, 1),
            Rewards.EVERYTHING: (mdp.horizon, 2, 2, 2),
        }
        assert mdp.reward.shape == by_kind.get(kind, (2, 2))
        paid = np.count_nonzero(mdp.reward)
        assert kind is not Rewards.ZERO or paid == 0
        assert kind is not Rewards.SPARSE or paid == 1

    check_kind()
    if kind is not Rewards.ZERO:
        for sign in (-1, 1):
            strategy = tabular_mdps(**sized, rewards=[kind])
            assert smallest(strategy, lambda mdp, sign=sign: (sign * mdp.reward > 0).any(), 0)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        (Choosing.UNIFORM, 0.5, 0.5),
        (Choosing.MILD, 0.5, 0.998),
        (Choosing.PEAKED, 0.85, 0.9),
        (Choosing.NEAR_DETERMINISTIC, 0.999, 0.9999),
    ],
)
def test_policies_are_of_the_kind_that_was_asked_for(kind, low, high):
    mdp = TabularMDP(np.full((2, 2, 2), 0.5), np.ones((2, 2)), 0.5, [1.0, 0.0])

    @given(policies_for(mdp, [kind]))
    @settings(max_examples=12)
    def check_kind(theta):
        assert theta.shape == (2, 2)
        most = softmax(theta).max(axis=1)
        assert ((most >= low) & (most <= high)).all()

    check_kind()


@given(st.data())
def test_games_and_their_policies_fit_together(data):
    game = data.draw(games(max_states=3, max_actions=3))
    assert (game.transition.sum(axis=-1) == 1.0).all()
    drawn = data.draw(joint_policies_for(game))
    assert [theta.shape for theta in drawn] == [tuple(shape) for shape in shapes_of(game)]


@pytest.mark.slow
def test_the_plainest_of_all_problems():
    """One state, one action, one step, one reward of 1: whatever the seed."""
    for seed in SEEDS:
        mdp = smallest(tabular_mdps(), lambda mdp: True, seed)
        assert mdp.transition.tolist() == [[[1.0]]]
        assert (mdp.reward.tolist(), mdp.discount, mdp.horizon) == ([[1.0]], 1.0, 1)


@pytest.mark.slow
def test_what_needs_a_size_shrinks_to_it_and_to_no_more():
    needs = {
        (2, 1, 1): lambda mdp: mdp.n_states > 1,
        (1, 2, 1): lambda mdp: mdp.n_actions > 1,
        (1, 1, 3): lambda mdp: mdp.horizon > 2,
        (2, 1, 2): lambda mdp: mdp.n_states + mdp.horizon > 3 and mdp.n_states > 1,
    }
    for size, need in needs.items():
        for seed in SEEDS:
            mdp = smallest(tabular_mdps(), need, seed)
            assert (mdp.n_states, mdp.n_actions, mdp.horizon) == size
            assert np.count_nonzero(mdp.reward) == 1
            assert set(mdp.transition.ravel()) <= {0.0, 1.0}


@pytest.mark.slow
def test_numbers_shrink_to_round_ones():
    """Integers before fractions, halves before eighths, deterministic where that will do."""
    small = tabular_mdps(2, 2, 2)
    for seed in SEEDS:
        assert smallest(small, lambda mdp: mdp.reward.max() > 1.2, seed).reward.max() == 2
        spread = smallest(small, lambda mdp: (mdp.transition.max(-1) < 1).any(), seed)
        assert set(spread.transition.ravel()) <= {0.0, 0.5, 1.0}


def test_sizes_that_are_none_are_refused():
    for sizes in ({"max_states": 0}, {"min_actions": 4}, {"max_horizon": 1.5}):
        with pytest.raises(ValueError, match="expected an integer"):
            find(tabular_mdps(**sizes), lambda mdp: True)
