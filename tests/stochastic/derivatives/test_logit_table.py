"""Derivatives in the table of logits equal those that are assembled from visits."""

from dataclasses import replace

import numpy as np
import pytest

from gradbias.stochastic.estimators import kinds
from gradbias.stochastic.estimators.contexts import Context, OtherPlayer
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.rollouts.trajectories import Trajectories, sample
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import ad
from tests.cases.surrogates import entropy_bonus, mixed_leaves
from tests.oracles import brute_force as oracles


def batch_and_context(critic=True):
    """Three batches of 12 trajectories of 3 steps;"""
    rng = np.random.default_rng(0)
    mdp = oracles.random_mdp(3, horizon=3, n_states=3, n_actions=2)
    theta = rng.normal(size=(3, 2))
    batch = sample(mdp, theta, 36, rng=rng).reshape(3, 12)
    values = rng.normal(size=(4, 3)) if critic else None
    return batch, Context(theta, mdp.discount, critic=values)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("surrogate", [ad, dice, entropy_bonus, mixed_leaves])
def test_rows_in_the_table_are_those_by_visit(surrogate, order, monkeypatch):
    batch, context = batch_and_context()
    batch = batch[:, : 2 if order == 3 else 6]
    evaluator = from_surrogate(surrogate, order=order).prepare(batch, context)
    by_visit = evaluator.rows(batch).dense()
    monkeypatch.setattr(kinds, "MAX_BY_VISIT", 0)
    in_table = evaluator.rows(batch).dense()
    assert np.abs(in_table - by_visit).max() < 1e-12 * max(1.0, np.abs(by_visit).max())


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_product_along_directions_is_that_of_the_dense_derivative(order):
    batch, context = batch_and_context()
    batch = batch[:, :2]
    check_product(from_surrogate(mixed_leaves, order=order).prepare(batch, context), batch, 6)


def check_product(evaluator, batch, size):
    """The product along the evaluator's random directions is that of its dense derivatives."""
    order = evaluator.order
    dense = evaluator.rows(batch).dense().reshape(len(batch.actions), *(size,) * order)
    for direction in np.random.default_rng(0).normal(size=(order - 1, size)):
        dense = dense @ direction
    found = evaluator.along_random_directions(batch)
    assert np.abs(found - dense).max() < 1e-12 * np.abs(dense).max()


@pytest.mark.parametrize("order", [1, 2])
def test_two_players_have_both_tables(order):
    batch, context = batch_and_context(critic=False)
    rng = np.random.default_rng(5)
    batch = replace(
        batch,
        other_actions=rng.integers(2, size=batch.actions.shape),
        other_rewards=rng.normal(size=batch.rewards.shape) * batch.alive,
    )
    both = replace(context, other=OtherPlayer(rng.normal(size=(3, 2)), rows=np.array([0, 2, 1])))
    check_product(from_surrogate(both_players, order=order).prepare(batch, both), batch, 12)


def both_players(record):
    """A product of both players' probabilities, weighted by both rewards."""
    together = (record.log_probs + record.other.log_probs).cumsum(-1).exp()
    return ((record.rewards + 2 * record.other.rewards) * together).sum(-1).mean()


def test_many_visits_of_few_states_are_added_up_as_visits_of_many_states_are():
    """Rows of a table that no visit reads change nothing but the way of adding up."""
    batch, context = batch_and_context()
    rows = from_surrogate(dice, order=1).prepare(batch, context).rows(batch)
    assert rows.indices is None
    wide = np.concatenate([context.theta, np.zeros((60, 2))])
    critic = np.concatenate([context.critic, np.zeros((4, 60))], axis=1)
    larger = replace(context, theta=wide, critic=critic)
    sparse = from_surrogate(dice, order=1).prepare(batch, larger).rows(batch)
    assert sparse.indices is not None
    assert isinstance(batch, Trajectories)
    assert np.abs(sparse.dense()[:, :3] - rows.dense()).max() < 1e-14
    assert not sparse.dense()[:, 3:].any()
