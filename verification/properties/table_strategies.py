"""Strategies for the tables of a problem: kinds of transitions and rewards.

Tables are drawn at the largest size and cut, and every kind reads the same choices, so that
shrinking can try a smaller size, or a simpler kind, on the choices of a failing example.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gradbias.analytic.utils.validation import FloatArray

NUMBERS = (1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 1.5, -0.25)
"""Rewards and logits besides 0, simplest first."""

_FINE_PARTS = 1024
"""The denominator of probabilities of near-deterministic transitions."""


class Dynamics(Enum):
    """Kinds of transitions, simplest first."""

    DETERMINISTIC = "deterministic"
    ACTION_INDEPENDENT = "the same under every action"
    ABSORBING = "the last state is terminal"
    PERIODIC = "states of even and odd number in turn"
    SPARSE = "few next states"
    DENSE = "every next state is possible"
    NEAR_DETERMINISTIC = "one next state but for 1 in 1,000"


class Rewards(Enum):
    """Kinds of rewards, simplest first; `ZERO` is last, as nothing can be tested with it."""

    SPARSE = "one action in one state is rewarded"
    BY_ACTION = "by state and action, of both signs"
    BY_NEXT_STATE = "by state, action and next state"
    OVER_TIME = "by time, state and action"
    EVERYTHING = "by time, state, action and next state"
    ZERO = "none"


@st.composite
def drawn_table(
    draw: st.DrawFn,
    shape: tuple[int, ...],
    largest: tuple[int, ...],
    entries: st.SearchStrategy[Any],
) -> FloatArray:
    """An array of that shape, cut out of one of the ``largest`` shape, so that what was drawn for
    an entry stays in its place when sizes shrink.
    """
    drawn = [draw(entries) for _ in range(math.prod(largest))]
    table = np.array(drawn).reshape(*largest, *np.shape(drawn[0]))
    return np.array(table[tuple(slice(n) for n in shape)])


@st.composite
def drawn_rewards(
    draw: st.DrawFn,
    size: tuple[int | None, int, int],
    largest: tuple[int, int, int, int],
    kinds: tuple[Rewards, ...],
    numbers: st.SearchStrategy[float],
) -> FloatArray:
    """Rewards ``[S, A]``, ``[S, A, S]``, ``[H, S, A, 1]`` or ``[H, S, A, S]``, writable, for
    ``size`` (H, S, A), cut out of tables of the ``largest`` size (H, S, A, S).
    """
    horizon, n_states, n_actions = size
    timed = (Rewards.OVER_TIME, Rewards.EVERYTHING)
    fitting = [k for k in kinds if k not in timed or horizon is not None]
    # Problems without a reward test nothing: half as many are drawn as of another kind.
    kind = draw(st.sampled_from(2 * [k for k in fitting if k is not Rewards.ZERO] + fitting))
    if kind in (Rewards.ZERO, Rewards.SPARSE):
        table = np.zeros((n_states, n_actions))
        # ZERO draws what SPARSE does: Hypothesis would take a kind with fewer choices for simpler.
        state, action = (draw(st.integers(0, count - 1)) for count in largest[1:3])
        reward = draw(numbers)
        if kind is Rewards.SPARSE:
            table[min(state, n_states - 1), min(action, n_actions - 1)] = reward
        return table
    entries = st.one_of(st.just(0.0), numbers)
    if kind is Rewards.BY_ACTION:
        return draw(drawn_table((n_states, n_actions), largest[1:3], entries))
    if kind is Rewards.BY_NEXT_STATE:
        return draw(drawn_table((n_states, n_actions, n_states), largest[1:], entries))
    shape = (horizon or 1, n_states, n_actions)
    if kind is Rewards.OVER_TIME:
        return draw(drawn_table(shape, largest[:3], entries))[..., None]
    return draw(drawn_table((*shape, n_states), largest, entries))


_EIGHTHS = (0, 4, 2, 6, 1, 3, 5, 7)
"""Simplest first: 0, a half, quarters, eighths."""


@st.composite
def drawn_kernel(
    draw: st.DrawFn, kind: Dynamics, size: tuple[int, ...], largest: tuple[int, ...]
) -> FloatArray:
    """Transitions ``[S, A, ..., S]``, writable, of that kind and ``size`` (S, A, ...)."""
    n_states = size[0]
    choices = draw(drawn_table((n_states, *largest[1:]), largest, _outcomes(largest[0])))
    for axis, count in enumerate(size[1:], start=1):
        choices = _merged(choices, axis, count)
    if kind is Dynamics.ACTION_INDEPENDENT:
        first = (slice(None), *(slice(1) for _ in size[1:]))
        choices = np.broadcast_to(choices[first], choices.shape)
    rows = [_row(kind, at[0], n_states, choices[at].tolist()) for at in np.ndindex(*size)]
    return np.array(rows).reshape(*size, n_states)


def _merged(choices: FloatArray, axis: int, count: int) -> FloatArray:
    """The choices of the first ``count`` actions on that axis. The last of these takes the choice
    of an action beyond it if its own is the simplest, to lead to state 0: a failure that needs that
    choice then remains one with fewer actions.
    """
    by_action = np.moveaxis(choices, axis, 1).copy()
    for row in by_action:
        others = [choice for choice in row[count - 1 :] if choice.any()]
        row[count - 1] = others[0] if others else row[count - 1]
    return np.moveaxis(by_action[:, :count], 1, axis)


@st.composite
def drawn_start(draw: st.DrawFn, n_states: int, max_states: int) -> FloatArray:
    """The initial distribution ``[S]``, in which state 0 is possible: labels do not matter."""
    kind = draw(st.sampled_from((Dynamics.SPARSE, Dynamics.DENSE)))
    _, second, share = draw(_outcomes(max_states))
    return _row(kind, 0, n_states, (0, second, share))


def _outcomes(max_states: int) -> st.SearchStrategy[tuple[int, int, int]]:
    """Next states: a first one, a second one, and how many eighths the second has. All three are
    drawn as one integer, simplest first.
    """

    def decoded(code: int) -> tuple[int, int, int]:
        share, rest = divmod(code, max_states**2)
        second, first = divmod(rest, max_states)
        return first, second, _EIGHTHS[share]

    return st.integers(0, len(_EIGHTHS) * max_states**2 - 1).map(decoded)


def _row(kind: Dynamics, state: int, n_states: int, outcomes: Sequence[int]) -> FloatArray:
    """The distribution ``[S]`` of the state after ``state``. Every kind reads the same outcomes,
    and the last state stands for those beyond it, so that shrinking can try simpler kinds and fewer
    states on the same choices.
    """
    nexts = list(range(n_states))
    if kind is Dynamics.PERIODIC and n_states > 1:
        nexts = [s for s in nexts if (s + state) % 2 == 1]
    first, second = (nexts[min(s, len(nexts) - 1)] for s in outcomes[:2])
    floor = 1 if kind is Dynamics.DENSE else 0
    parts = _FINE_PARTS if kind is Dynamics.NEAR_DETERMINISTIC else 8
    while parts < 2 * n_states:
        parts *= 2
    row = np.full(n_states, float(floor))
    left = parts - floor * n_states
    of_second = left * outcomes[2] // 8
    if kind is Dynamics.DETERMINISTIC:
        of_second = 0
    if kind is Dynamics.NEAR_DETERMINISTIC:
        of_second = min(outcomes[2], 1)
    row[first] += left - of_second
    row[second] += of_second
    return row / parts
