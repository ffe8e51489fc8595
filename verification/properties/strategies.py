"""Hypothesis strategies for problems, policies and games.

Valid by construction: probabilities are whole numbers of parts of a power of two, so that rows sum
to one exactly and no example is thrown away. Sizes are drawn first, and the plainest choice of each
kind stands first, so that what fails shrinks to the fewest states, actions and steps, then to
deterministic transitions, one reward of 1, a uniform policy, and round numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

import numpy as np
from hypothesis import strategies as st

from gradbias.analytic.policies.softmax import LinearSoftmax, Policy
from gradbias.analytic.problems.games import StochasticGame, memory_one_game
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray, frozen_array, whole_number
from gradbias.verification.properties.table_strategies import NUMBERS as NUMBERS
from gradbias.verification.properties.table_strategies import Dynamics as Dynamics
from gradbias.verification.properties.table_strategies import Rewards as Rewards
from gradbias.verification.properties.table_strategies import (
    drawn_kernel,
    drawn_rewards,
    drawn_start,
    drawn_table,
)

DISCOUNTS = (1.0, 0.5, 0.9, 0.0)
"""Of finite horizons, plainest first; the infinite one takes those below 1."""


class Choosing(Enum):
    """Kinds of softmax policies, plainest first."""

    UNIFORM = "uniform"
    MILD = "logits of about 1"
    PEAKED = "one action in each state has nearly nine tenths"
    NEAR_DETERMINISTIC = "one action in each state but for 1 in 1,000"


_ABOVE = {Choosing.PEAKED: 2.0, Choosing.NEAR_DETERMINISTIC: 7.0}


@st.composite
def tabular_mdps(
    draw: st.DrawFn,
    max_states: int = 3,
    max_actions: int = 3,
    max_horizon: int = 3,
    *,
    min_states: int = 1,
    min_actions: int = 1,
    infinite: bool = False,
    dynamics: Sequence[Dynamics] = tuple(Dynamics),
    rewards: Sequence[Rewards] = tuple(Rewards),
    numbers: st.SearchStrategy[float] | None = None,
    discounts: Sequence[float] = DISCOUNTS,
) -> TabularMDP:
    """A `TabularMDP` of at most these sizes and one of these kinds.

    With ``infinite`` the horizon may be infinite as well (and the discount is below 1 then).
    ``numbers`` draws each reward that is paid. With one action every derivative is 0:
    ``min_actions=2`` leaves those problems out.

    >>> from hypothesis import find
    >>> find(tabular_mdps(), lambda mdp: mdp.n_actions > 1).transition.shape
    (1, 2, 1)
    """
    n_states = draw(_sizes("states", min_states, max_states))
    n_actions = draw(_sizes("actions", min_actions, max_actions))
    horizon: int | None = draw(_sizes("horizon", 1, max_horizon))
    if infinite and draw(st.booleans()):
        horizon = None
    factors = [factor for factor in discounts if horizon is not None or factor < 1.0]
    discount = draw(st.sampled_from(factors))
    kind = draw(st.sampled_from(dynamics))
    start = draw(drawn_start(n_states, max_states))
    paid = st.sampled_from(NUMBERS) if numbers is None else numbers
    largest = (max_horizon, max_states, max_actions, max_states)
    reward = draw(drawn_rewards((horizon, n_states, n_actions), largest, tuple(rewards), paid))
    rows = draw(drawn_kernel(kind, (n_states, n_actions), (max_states, max_actions)))
    if kind is Dynamics.ABSORBING and n_states > 1:
        rows[-1] = np.eye(n_states)[-1]
        reward[(slice(None), -1) if reward.ndim == 4 else -1] = 0.0
    return TabularMDP(rows, reward, discount, start, horizon)


def policies_for(
    mdp: TabularMDP, kinds: Sequence[Choosing] = tuple(Choosing)
) -> st.SearchStrategy[FloatArray]:
    """Logits ``[S, A]`` of a tabular softmax policy for that problem.

    >>> from hypothesis import find
    >>> bandit = TabularMDP([[[1.0]] * 2], [[1.0, 0.0]], 1.0, [1.0], 1)
    >>> float(find(policies_for(bandit), np.any).sum())
    1.0
    """
    return _logits(mdp.n_states, mdp.n_actions, tuple(kinds))


@st.composite
def games(
    draw: st.DrawFn,
    max_states: int = 2,
    max_actions: int = 2,
    max_horizon: int = 3,
    *,
    min_actions: int = 1,
    infinite: bool = True,
    memory_one: bool = True,
    discounts: Sequence[float] = DISCOUNTS,
) -> StochasticGame:
    """A two-player `StochasticGame` of at most these sizes, or (``memory_one``) a repeated 2x2
    matrix game between players that see the last round.
    """
    n_states = draw(_sizes("states", 1, max_states))
    first, second = (draw(_sizes("actions", min_actions, max_actions)) for _ in range(2))
    horizon: int | None = draw(_sizes("horizon", 1, max_horizon))
    if infinite and draw(st.booleans()):
        horizon = None
    factors = [factor for factor in discounts if horizon is not None or factor < 1.0]
    discount = draw(st.sampled_from(factors))
    entry = st.sampled_from((0.0, *NUMBERS))
    if memory_one and draw(st.booleans()):
        return memory_one_game(draw(drawn_table((2, 2, 2), (2, 2, 2), entry)), discount, horizon)
    start = draw(drawn_start(n_states, max_states))
    kind = draw(st.sampled_from(tuple(Dynamics)))
    size, largest = (n_states, first, second), (max_states, max_actions, max_actions)
    payoffs = draw(drawn_table((2, *size), (2, *largest), entry))
    rows = draw(drawn_kernel(kind, size, largest))
    if kind is Dynamics.ABSORBING and n_states > 1:
        rows[-1] = np.eye(n_states)[-1]
        payoffs[:, -1] = 0.0
    return StochasticGame(rows, payoffs, discount, start, horizon)


@st.composite
def joint_policies_for(draw: st.DrawFn, game: StochasticGame) -> tuple[FloatArray, FloatArray]:
    """Both players' parameters, each of the shape that the player's policy takes."""
    first, second = (
        draw(parameters_for(policy, game.n_states, n_actions))
        for policy, n_actions in zip(game.policies, game.n_actions, strict=True)
    )
    return first, second


def parameters_for(policy: Policy, n_states: int, n_actions: int) -> st.SearchStrategy[FloatArray]:
    """Parameters of any policy, of the shape that it takes.

    Raises:
        ValueError: a policy of another number of states or actions.
    """
    shape = policy.parameter_shape(n_states, n_actions)
    if not shape or math.prod(shape) == 0:
        raise ValueError(f"policy: expected one with parameters, got shape {shape}")
    flat = _logits(shape[0], math.prod(shape[1:]), tuple(Choosing))
    return flat.map(lambda theta: frozen_array("theta", theta.reshape(shape)))


@st.composite
def linear_policies(draw: st.DrawFn, mdp: TabularMDP, max_features: int = 2) -> LinearSoftmax:
    """A policy with logits linear in at most so many features, no two actions alike in every state.

    >>> from hypothesis import find
    >>> bandit = TabularMDP([[[1.0]] * 2], [[1.0, 0.0]], 1.0, [1.0], 1)
    >>> find(linear_policies(bandit), lambda policy: True).features.tolist()
    [[[1.0], [0.0]]]
    """
    most = whole_number("max_features", max_features, at_least=1)
    count = draw(st.integers(1, most))
    entry = st.sampled_from((0.0, *NUMBERS))
    shape = (mdp.n_states, mdp.n_actions, count)
    features = draw(drawn_table(shape, (*shape[:2], most), entry))
    if (features == features[:, :1]).all():  # as a policy without parameters
        features[0, 0, 0] += 1.0
    return LinearSoftmax(features)


def _sizes(name: str, least: int, most: int) -> st.SearchStrategy[int]:
    whole_number(f"min_{name}", least, at_least=1)
    whole_number(f"max_{name}", most, at_least=least)
    return st.integers(least, most)


@st.composite
def _logits(
    draw: st.DrawFn, n_states: int, n_actions: int, kinds: tuple[Choosing, ...]
) -> FloatArray:
    """``[S, A]``, read-only."""
    kind = draw(st.sampled_from(kinds))
    logits = np.zeros((n_states, n_actions))
    if kind is Choosing.UNIFORM:
        return frozen_array("theta", logits)
    entry = st.sampled_from((0.0, *NUMBERS))
    drawn = np.array([draw(entry) for _ in range(logits.size)]).reshape(logits.shape)
    if kind is Choosing.MILD:
        return frozen_array("theta", drawn)
    # As many choices as for the plainer kind, which shrinking is to prefer.
    logits[np.arange(n_states), drawn.argmax(axis=1)] = _ABOVE[kind]
    return frozen_array("theta", logits)
