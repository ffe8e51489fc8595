"""Hypothesis strategies for problems and parameters, degenerate ones included."""

import numpy as np
from hypothesis import strategies as st

from gradbias.analytic.problems.games import StochasticGame, memory_one_game
from gradbias.analytic.problems.mdp import TabularMDP

DISCOUNTS = (0.0, 0.3, 0.9, 0.99)


def _rows(rng, shape, concentration):
    """Distributions over the last axis: spread out, or (concentration 0) on one entry."""
    if concentration > 0:
        return rng.dirichlet(np.full(shape[-1], concentration), size=shape[:-1])
    rows = np.zeros(shape)
    np.put_along_axis(rows, rng.integers(shape[-1], size=(*shape[:-1], 1)), 1.0, axis=-1)
    return rows


@st.composite
def mdps(draw, horizons=(None, 1, 2, 4), sizes=(4, 3), discounts=DISCOUNTS, telling=False):
    """MDPs of up to 4 states and 3 actions, deterministic or spread out, with or without a terminal
    state; rewards are 0, sparse, or depend on the next state or on time. ``telling`` MDPs have two
    actions or more and rewards everywhere."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_states = draw(st.integers(1, sizes[0]))
    n_actions = draw(st.integers(2 if telling else 1, sizes[1]))
    horizon = draw(st.sampled_from(horizons))
    rows = _rows(rng, (n_states, n_actions, n_states), draw(st.sampled_from([0.0, 0.3, 1.0])))
    kinds = ["plain", "next state"] + ([] if telling else ["zero", "one state"])
    if horizon is not None:
        kinds += ["timed", "timed, next state"]
    kind = draw(st.sampled_from(kinds))
    shape = (n_states, n_actions) + ((n_states,) if "next" in kind else ())
    if "timed" in kind:
        shape = (horizon, *shape, *(() if "next" in kind else (1,)))
    reward = np.zeros(shape) if kind == "zero" else rng.normal(size=shape)
    if kind == "one state":
        reward[1:] = 0.0
    if n_states > 1 and draw(st.booleans()):
        rows[-1] = np.eye(n_states)[-1]
        reward[(slice(None), -1) if "timed" in kind else -1] = 0.0
    discount = draw(st.sampled_from([*discounts, 1.0] if horizon else discounts))
    start = _rows(rng, (n_states,), draw(st.sampled_from([0.0, 1.0])))
    return TabularMDP(rows, reward, discount, start, horizon)


@st.composite
def parameters(draw, shape, spreads=(0.0, 1.0, 3.0)):
    """Arrays of that shape, zero or normal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.normal(size=shape) * draw(st.sampled_from(spreads))


@st.composite
def games(draw, horizons=(None, 1, 3), telling=False):
    """Stochastic and memory-one matrix games; in ``telling`` ones both players have a choice."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    horizon = draw(st.sampled_from(horizons))
    discount = draw(st.sampled_from(DISCOUNTS))
    if draw(st.booleans()):
        return memory_one_game(rng.normal(size=(2, 2, 2)), discount, horizon)
    n_states = draw(st.integers(1, 3))
    first, second = (draw(st.integers(2 if telling else 1, 3)) for _ in range(2))
    rows = _rows(rng, (n_states, first, second, n_states), draw(st.sampled_from([0.0, 1.0])))
    over_time = horizon is not None and draw(st.booleans())
    shape = (2, *((horizon,) if over_time else ()), n_states, first, second)
    start = _rows(rng, (n_states,), 1.0)
    return StochasticGame(rows, rng.normal(size=shape), discount, start, horizon)


def shapes_of(game):
    """The shapes of both players' parameters."""
    return [
        policy.parameter_shape(game.n_states, n)
        for policy, n in zip(game.policies, game.n_actions, strict=True)
    ]
