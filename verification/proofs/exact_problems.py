"""A problem, a policy and a critic in exact algebra, for sums over all trajectories.

S, A and H are the numbers of states, actions and steps. Elements are fractions, or polynomials of
one sympy ring: the same code works with both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from operator import add
from typing import Any

import numpy as np

from gradbias.analytic.symbolic.policy_rings import PolicyRing, PolicySymbols
from gradbias.analytic.utils.validation import whole_number
from gradbias.stochastic.tracing.interpretation import Paths

MAX_PATHS = 200_000
"""The largest number of trajectories that are summed over."""


class CriticKind(Enum):
    """The critic ``v_t(s)`` that a surrogate reads as ``record.values``: 0 everywhere, the policy's
    own values, arbitrary values, or arbitrary values that are 0 at the horizon.
    """

    ZERO = "zero"
    EXACT = "exact"
    ANY = "any"
    ANY_THEN_ZERO = "any, then 0"

    @property
    def is_arbitrary(self) -> bool:
        """Whether the critic's values are free."""
        return self in (CriticKind.ANY, CriticKind.ANY_THEN_ZERO)

    def __str__(self) -> str:
        if self is CriticKind.ANY_THEN_ZERO:
            return "any critic that is 0 at the horizon"
        return f"{self.value} critic"


@dataclass(frozen=True, eq=False)
class ExactProblem:
    """A problem, a policy and a critic, whose numbers are elements of one algebra.

    ``policy [S][A]``, ``transition [S][A][S]``, ``start [S]`` (the initial distribution), ``rewards
    [H][S][A][S]``, ``critic [H + 1][S]`` and ``discount`` hold elements; ``ended [S]`` says which
    states are terminal; ``zero`` and ``one`` are the algebra's.
    """

    policy: Any
    transition: Any
    start: Any
    rewards: Any
    discount: Any
    critic: Any
    ended: tuple[bool, ...]
    zero: Any
    one: Any

    @property
    def shape(self) -> tuple[int, int, int]:
        """The numbers of states, actions and steps, (S, A, H)."""
        return len(self.policy), len(self.policy[0]), len(self.rewards)

    @cached_property
    def values(self) -> list[list[Any]]:
        """The policy's values ``V_t(s) [H + 1][S]``, by backward recursion."""
        n_states, n_actions, steps = self.shape
        values = [[self.zero] * n_states]
        for t in reversed(range(steps)):
            later = [self.discount * value for value in values[0]]
            row = []
            for s in range(n_states):
                total = self.zero
                for a in range(n_actions):
                    returns = map(add, self.rewards[t][s][a], later)
                    total = total + self.policy[s][a] * self._next_state_mean(s, a, returns)
                row.append(self.zero if self.ended[s] else total)
            values.insert(0, row)
        return values

    @cached_property
    def mean_rewards(self) -> list[list[list[Any]]]:
        """The rewards' means over the next state, ``[H][S][A]``."""
        n_states, n_actions, _ = self.shape
        return [
            [
                [self._next_state_mean(s, a, rewards[s][a]) for a in range(n_actions)]
                for s in range(n_states)
            ]
            for rewards in self.rewards
        ]

    @cached_property
    def mean_last_values(self) -> list[list[Any]]:
        """The mean of the critic at time H, over the state that the last step leads to:
        ``[S][A]``.
        """
        n_states, n_actions, _ = self.shape
        return [
            [self._next_state_mean(s, a, self.critic[-1]) for a in range(n_actions)]
            for s in range(n_states)
        ]

    def _next_state_mean(self, s: int, a: int, elements: Iterable[Any]) -> Any:
        pairs = zip(self.transition[s][a], elements, strict=True)
        return sum((p * x for p, x in pairs if p), self.zero)

    def with_critic(self, kind: CriticKind, arbitrary: Any) -> ExactProblem:
        """The same problem with a critic of that kind, 0 in terminal states; ``arbitrary [H + 1]
        [S]`` are the values of an arbitrary one.
        """
        n_states, _, steps = self.shape
        if kind is CriticKind.EXACT:
            return replace(self, critic=self.values)
        nothing = [self.zero] * n_states
        if kind is CriticKind.ZERO:
            return replace(self, critic=[nothing] * (steps + 1))
        rows = [
            [self.zero if self.ended[s] else arbitrary[t][s] for s in range(n_states)]
            for t in range(steps + 1)
        ]
        return replace(self, critic=rows if kind is CriticKind.ANY else [*rows[:-1], nothing])

    @cached_property
    def paths(self) -> Paths:
        """All trajectories. Raises ValueError if there are more than `MAX_PATHS`."""
        n_states, n_actions, steps = self.shape
        paths: list[tuple[tuple[int, ...], tuple[int, ...]]]
        paths = [((s,), ()) for s in range(n_states) if self.start[s]]
        for _ in range(steps):
            paths = [
                ((*states, u), (*actions, a))
                for states, actions in paths
                for a, u in self._moves(states[-1])
            ]
            if len(paths) > MAX_PATHS:
                raise ValueError(
                    f"shape: expected at most {MAX_PATHS:,} trajectories, got more with "
                    f"{n_states} states, {n_actions} actions and {steps} steps; use fewer steps"
                )
        states = np.array([path[0] for path in paths])
        actions = np.array([path[1] for path in paths])
        return Paths(states, actions, np.array(self.ended)[states])

    def _moves(self, s: int) -> list[tuple[int, int]]:
        """The possible (action, next state); a terminal state follows itself, by action 0."""
        if self.ended[s]:
            return [(0, s)]
        return [(a, u) for a, row in enumerate(self.transition[s]) for u, p in enumerate(row) if p]


@dataclass(frozen=True, eq=False)
class SymbolicProblem:
    """A ``problem`` whose elements are polynomials over ``ring``, in the policy's probabilities and
    other symbols; ``holds_for`` says in words for what a statement about it holds.
    """

    ring: PolicyRing
    problem: ExactProblem
    holds_for: str

    @property
    def player(self) -> PolicySymbols:
        """The policy's symbols."""
        return self.ring.players[0]


def checked_shape(shape: Any) -> tuple[int, int, int]:
    """The shape as (S, A, H). Raises ValueError unless it is three positive integers, with at least
    two actions and at most `MAX_PATHS` trajectories.
    """
    if not isinstance(shape, tuple | list) or len(shape) != 3:
        raise ValueError(f"shape: expected (states, actions, steps), got {shape!r}")
    names = ("states", "actions", "steps")
    n_states, n_actions, steps = (
        whole_number(f"shape: {name}", size, at_least=1)
        for name, size in zip(names, shape, strict=True)
    )
    if n_actions == 1:
        raise ValueError(
            "shape: nothing to prove, expected two actions or more: with one there is no derivative"
        )
    decades = math.log10(n_states) + steps * math.log10(n_states * n_actions)
    if decades > math.log10(MAX_PATHS):
        raise ValueError(
            f"shape: expected at most {MAX_PATHS:,} trajectories, got about 10^{decades:.1f} with "
            f"{n_states} states, {n_actions} actions and {steps} steps; use fewer steps, or "
            "`measure_bias` with evidence moments or sampling"
        )
    return n_states, n_actions, steps
