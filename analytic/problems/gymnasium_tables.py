"""Transition and reward tables of gymnasium's toy-text environments.

Gymnasium marks the *transition* that ends an episode (``done``); an MDP has terminal *states*. So
every state that is entered with ``done`` becomes terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradbias.analytic.utils.validation import BoolArray, FloatArray


def gymnasium_table(env: Any) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Transition and reward ``[S, A, S]`` and initial distribution ``[S]`` of an environment, from
    ``env.unwrapped.P`` and ``env.unwrapped.initial_state_distrib``.

    Raises:
        ValueError: no table, two rewards for one transition, or a state that is entered both ending
            and not ending the episode.
    """
    table: Mapping[int, Mapping[int, list[tuple[float, int, float, bool]]]] | None = getattr(
        env.unwrapped, "P", None
    )
    start = getattr(env.unwrapped, "initial_state_distrib", None)
    name = getattr(getattr(env, "spec", None), "id", None) or env
    if table is None or start is None:
        raise ValueError(f"{name}: expected an environment with a table (P), got one without")
    n_states, n_actions = len(table), len(table[0])
    transition = np.zeros((n_states, n_actions, n_states))
    reward = np.zeros((n_states, n_actions, n_states))
    rewarded = np.zeros((n_states, n_actions, n_states), dtype=bool)
    ending = np.zeros((n_states, n_actions, n_states), dtype=bool)
    going_on = np.zeros((n_states, n_actions, n_states), dtype=bool)
    for s, rows in table.items():
        for a, outcomes in rows.items():
            for probability, s_next, step_reward, done in outcomes:
                if probability == 0.0:
                    continue
                at = (s, a, s_next)
                if rewarded[at] and reward[at] != step_reward:
                    raise ValueError(
                        f"{name}: expected one reward for each transition, got {reward[at]} and "
                        f"{step_reward} for (state, action, next state) = {at}"
                    )
                transition[at] += probability
                reward[at] = step_reward
                rewarded[at] = True
                (ending if done else going_on)[at] = True
    ends = _reachable_ends(np.asarray(start) > 0, ending, going_on, name)
    transition[ends] = 0.0
    reward[ends] = 0.0
    transition[ends, :, ends] = 1.0
    return transition, reward, np.asarray(start, dtype=np.float64)


def _reachable_ends(
    start: BoolArray, ending: BoolArray, going_on: BoolArray, name: object
) -> BoolArray:
    """``[S]``: True where episodes end. Only reachable states are checked, because Taxi's table has
    rows for states that no episode visits, and they contradict where its episodes end.
    """
    steps: BoolArray = np.asarray(going_on.any(axis=1))
    ends: BoolArray = np.asarray(ending.any(axis=1))
    reached = start.copy()
    while True:
        grown = reached | np.any(steps[reached], axis=0)
        if (grown == reached).all():
            break
        reached = grown
    entered_ending: BoolArray = np.any(ends[reached], axis=0)
    both = np.flatnonzero(entered_ending & reached)
    if both.size:
        raise ValueError(
            f"{name}: expected each state to end the episode always or never, got state "
            f"{int(both[0])}, which is entered both ways"
        )
    unvisited: BoolArray = np.any(ends, axis=0) & ~reached
    return entered_ending | unvisited
