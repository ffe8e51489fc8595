"""Hypothesis strategies for problems, policies and games.

Examples are valid by construction: probabilities are multiples of a power of two, so that rows sum
to one exactly and no example is thrown away. Sizes are drawn first, and the simplest choice of each
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
"""The discounts to draw from, simplest first; those below 1 for an infinite horizon."""


class PolicyKind(Enum):
    """Kinds of softmax policies, simplest first."""

    UNIFORM = "uniform"
    MILD = "logits of about 1"
    PEAKED = "one action in each state has nearly nine tenths"
    NEAR_DETERMINISTIC = "one action in each state but for 1 in 1,000"


_LEADS = {PolicyKind.PEAKED: 2.0, PolicyKind.NEAR_DETERMINISTIC: 7.0}
"""The logit of the likeliest action; the others are 0."""


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
    """A strategy for a `TabularMDP` within these sizes.

    Args:
        draw: given by Hypothesis, not by the caller.
        max_states: the largest number of states.
        max_actions: the largest number of actions.
        max_horizon: the largest number of steps.
        min_states: the fewest states.
        min_actions: the fewest actions. With one, every derivative is 0: 2 leaves those out.
        infinite: whether the horizon may be infinite as well (the discount is below 1 then).
        dynamics: the kinds of transitions to draw from.
        rewards: the kinds of rewards to draw from.
        numbers: draws each reward that is not 0 (default: from `NUMBERS`).
        discounts: the discounts to draw from.

    Returns:
        A Hypothesis strategy.

    Raises:
        ValueError: a size out of range, when an example is drawn.

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
    entry = st.sampled_from(NUMBERS) if numbers is None else numbers
    largest = (max_horizon, max_states, max_actions, max_states)
    reward = draw(drawn_rewards((horizon, n_states, n_actions), largest, tuple(rewards), entry))
    rows = draw(drawn_kernel(kind, (n_states, n_actions), (max_states, max_actions)))
    if kind is Dynamics.ABSORBING and n_states > 1:
        rows[-1] = np.eye(n_states)[-1]
        reward[(slice(None), -1) if reward.ndim == 4 else -1] = 0.0
    return TabularMDP(rows, reward, discount, start, horizon)


def policies_for(
    mdp: TabularMDP, kinds: Sequence[PolicyKind] = tuple(PolicyKind)
) -> st.SearchStrategy[FloatArray]:
    """A strategy for logits ``[S, A]`` of a tabular softmax policy.

    Args:
        mdp: the problem.
        kinds: the kinds of policies to draw from.

    Returns:
        A Hypothesis strategy.

    Raises:
        Nothing: every problem has such policies.

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
    """A strategy for a two-player `StochasticGame` within these sizes.

    Args:
        draw: given by Hypothesis, not by the caller.
        max_states: the largest number of states.
        max_actions: the largest number of actions of a player.
        max_horizon: the largest number of steps.
        min_actions: the fewest actions of each player.
        infinite: whether the horizon may be infinite as well (the discount is below 1 then).
        memory_one: whether it may be a repeated 2x2 matrix game between players that see the last
            round.
        discounts: the discounts to draw from.

    Returns:
        A Hypothesis strategy.

    Raises:
        ValueError: a size out of range, when an example is drawn.
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
    """A strategy for both players' parameters, of the shapes that their policies take.

    Args:
        draw: given by Hypothesis, not by the caller.
        game: the game, whose policies say the shapes.

    Returns:
        A Hypothesis strategy for a pair of arrays.

    Raises:
        ValueError: a policy without parameters, when an example is drawn.
    """
    first, second = (
        draw(parameters_for(policy, game.n_states, n_actions))
        for policy, n_actions in zip(game.policies, game.n_actions, strict=True)
    )
    return first, second


def parameters_for(policy: Policy, n_states: int, n_actions: int) -> st.SearchStrategy[FloatArray]:
    """A strategy for parameters of any policy, of the shape that it takes for these numbers of
    states and actions. Raises ValueError for a policy of other numbers, or without parameters.
    """
    shape = policy.parameter_shape(n_states, n_actions)
    if not shape or math.prod(shape) == 0:
        raise ValueError(f"policy: expected one with parameters, got shape {shape}")
    flat = _logits(shape[0], math.prod(shape[1:]), tuple(PolicyKind))
    return flat.map(lambda theta: frozen_array("theta", theta.reshape(shape)))


@st.composite
def linear_policies(draw: st.DrawFn, mdp: TabularMDP, max_features: int = 2) -> LinearSoftmax:
    """A strategy for a policy with logits linear in features, which differ between actions.

    Args:
        draw: given by Hypothesis, not by the caller.
        mdp: the problem.
        max_features: the largest number of features.

    Returns:
        A Hypothesis strategy for `LinearSoftmax` policies.

    Raises:
        ValueError: fewer than one feature, when an example is drawn.

    >>> from hypothesis import find
    >>> bandit = TabularMDP([[[1.0]] * 2], [[1.0, 0.0]], 1.0, [1.0], 1)
    >>> find(linear_policies(bandit), lambda policy: True).features.tolist()
    [[[1.0], [0.0]]]
    """
    count = draw(st.integers(1, whole_number("max_features", max_features, at_least=1)))
    entry = st.sampled_from((0.0, *NUMBERS))
    shape = (mdp.n_states, mdp.n_actions, count)
    features = draw(drawn_table(shape, (*shape[:2], max_features), entry))
    if (features == features[:, :1]).all():  # no parameter would have an effect
        features[0, 0, 0] += 1.0
    return LinearSoftmax(features)


def _sizes(name: str, low: int, high: int) -> st.SearchStrategy[int]:
    """A strategy for one size. Raises ValueError for bounds that are out of range."""
    whole_number(f"min_{name}", low, at_least=1)
    whole_number(f"max_{name}", high, at_least=low)
    return st.integers(low, high)


@st.composite
def _logits(
    draw: st.DrawFn, n_states: int, n_actions: int, kinds: tuple[PolicyKind, ...]
) -> FloatArray:
    """A strategy for read-only logits ``[S, A]`` of one of these kinds."""
    kind = draw(st.sampled_from(kinds))
    logits = np.zeros((n_states, n_actions))
    if kind is PolicyKind.UNIFORM:
        return frozen_array("theta", logits)
    entry = st.sampled_from((0.0, *NUMBERS))
    drawn = np.array([draw(entry) for _ in range(logits.size)]).reshape(logits.shape)
    if kind is PolicyKind.MILD:
        return frozen_array("theta", drawn)
    # As many choices are drawn as for a simpler kind: Hypothesis takes fewer for simpler still.
    logits[np.arange(n_states), drawn.argmax(axis=1)] = _LEADS[kind]
    return frozen_array("theta", logits)
