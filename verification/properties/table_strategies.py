"""What the strategies' problems are made of: kinds of transitions and rewards, and their tables.

Tables are drawn at the largest size and cut, and every kind reads the same choices, so that a
smaller size, or a plainer kind, can be tried on what a failing example has already chosen.
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
"""What rewards and logits are made of besides 0, plainest first."""

_FINE_PARTS = 1024


class Dynamics(Enum):
    """Kinds of transitions, plainest first."""

    DETERMINISTIC = "deterministic"
    ACTION_INDEPENDENT = "the same under every action"
    ABSORBING = "the last state is terminal"
    PERIODIC = "states of even and odd number in turn"
    SPARSE = "few next states"
    DENSE = "every next state is possible"
    NEAR_DETERMINISTIC = "one next state but for 1 in 1,000"


class Rewards(Enum):
    """Kinds of rewards, plainest first; on `ZERO` nothing can be tested, so that it is last."""

    SPARSE = "one action in one state is paid"
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
    """An array of that shape, cut out of one of the ``largest`` shape: what is drawn for an entry
    stays in its place when sizes shrink.
    """
    drawn = [draw(entries) for _ in range(math.prod(largest))]
    whole = np.array(drawn).reshape(*largest, *np.shape(drawn[0]))
    return np.array(whole[tuple(slice(n) for n in shape)])


@st.composite
def drawn_rewards(
    draw: st.DrawFn,
    size: tuple[int | None, int, int],
    largest: tuple[int, int, int, int],
    kinds: tuple[Rewards, ...],
    numbers: st.SearchStrategy[float],
) -> FloatArray:
    """``[S, A]``, ``[S, A, S]``, ``[H, S, A, 1]`` or ``[H, S, A, S]``, writable, of ``size``
    (H, S, A).
    """
    horizon, n_states, n_actions = size
    timed = (Rewards.OVER_TIME, Rewards.EVERYTHING)
    fitting = [k for k in kinds if k not in timed or horizon is not None]
    # Nothing is learnt from problems without a reward: fewer of them will do.
    kind = draw(st.sampled_from(2 * [k for k in fitting if k is not Rewards.ZERO] + fitting))
    if kind in (Rewards.ZERO, Rewards.SPARSE):
        table = np.zeros((n_states, n_actions))
        # No kind makes fewer choices than the plainest: Hypothesis would take it for plainer still.
        state, action = (draw(st.integers(0, most - 1)) for most in largest[1:3])
        paid = draw(numbers)
        if kind is Rewards.SPARSE:
            table[min(state, n_states - 1), min(action, n_actions - 1)] = paid
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
"""Plainest first: nothing, a half, quarters, eighths."""


@st.composite
def drawn_kernel(
    draw: st.DrawFn, kind: Dynamics, size: tuple[int, ...], largest: tuple[int, ...]
) -> FloatArray:
    """``[S, A, ..., S]``, writable, for ``size`` (S, A, ...)."""
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
    """The first ``count`` actions on that axis; the last does what those beyond it do, if it itself
    does nothing but lead to state 0: then fewer actions can be tried on the same choices.
    """
    by_action = np.moveaxis(choices, axis, 1).copy()
    for row in by_action:
        telling = [one for one in row[count - 1 :] if one.any()]
        row[count - 1] = telling[0] if telling else row[count - 1]
    return np.moveaxis(by_action[:, :count], 1, axis)


@st.composite
def drawn_start(draw: st.DrawFn, n_states: int, max_states: int) -> FloatArray:
    """``[S]``, state 0 among them: which one is called 0 does not matter."""
    kind = draw(st.sampled_from((Dynamics.SPARSE, Dynamics.DENSE)))
    _, second, share = draw(_outcomes(max_states))
    return _row(kind, 0, n_states, (0, second, share))


def _outcomes(max_states: int) -> st.SearchStrategy[tuple[int, int, int]]:
    """A next state, another one, and the eighths of the second, as one number, plainest first."""

    def decoded(code: int) -> tuple[int, int, int]:
        share, rest = divmod(code, max_states**2)
        second, first = divmod(rest, max_states)
        return first, second, _EIGHTHS[share]

    return st.integers(0, len(_EIGHTHS) * max_states**2 - 1).map(decoded)


def _row(kind: Dynamics, state: int, n_states: int, outcomes: Sequence[int]) -> FloatArray:
    """``[S]``: where ``state`` leads to. Every kind makes something of the same outcomes, and the
    last state stands for those that are beyond it, so that plainer kinds and fewer states can be
    tried on the same choices.
    """
    nexts = list(range(n_states))
    if kind is Dynamics.PERIODIC and n_states > 1:
        nexts = [s for s in nexts if (s + state) % 2 == 1]
    first, second = (nexts[min(s, len(nexts) - 1)] for s in outcomes[:2])
    least = 1 if kind is Dynamics.DENSE else 0
    parts = _FINE_PARTS if kind is Dynamics.NEAR_DETERMINISTIC else 8
    while parts < 2 * n_states:
        parts *= 2
    row = np.full(n_states, float(least))
    left = parts - least * n_states
    taken = left * outcomes[2] // 8
    if kind is Dynamics.DETERMINISTIC:
        taken = 0
    if kind is Dynamics.NEAR_DETERMINISTIC:
        taken = min(outcomes[2], 1)
    row[first] += left - taken
    row[second] += taken
    return row / parts
