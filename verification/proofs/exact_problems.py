"""A finite problem in exact numbers or in symbols, as enumeration in the algebra needs it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gradbias.analytic.symbolic.policy_rings import PolicyRing, PolicySymbols
from gradbias.analytic.utils.validation import whole_number
from gradbias.stochastic.estimators.exact_evaluations import Paths

CRITICS = ("zero", "exact", "any", "any, then 0")
"""Zeros; the policy's own values; any values; any values that are 0 at the horizon."""

MAX_PATHS = 200_000


@dataclass(frozen=True, eq=False)
class ExactProblem:
    """``policy [S][A]``, ``transition [S][A][S]``, ``start [S]``, ``rewards [H][S][A][S]``,
    ``critic [H + 1][S]`` and ``discount``: fractions, or elements of one ring. ``ended [S]`` says
    which states are terminal; ``zero`` and ``one`` are the algebra's.
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
        """(S, A, H)."""
        return len(self.policy), len(self.policy[0]), len(self.rewards)

    @cached_property
    def values(self) -> list[list[Any]]:
        """``V_t(s) [H + 1][S]``, by backward recursion."""
        n_states, n_actions, steps = self.shape
        found = [[self.zero] * n_states]
        for t in reversed(range(steps)):
            row = []
            for s in range(n_states):
                total = self.zero
                for a in range(n_actions):
                    total = total + self.policy[s][a] * self.mean_ahead(t, s, a, found[0])
                row.append(self.zero if self.ended[s] else total)
            found.insert(0, row)
        return found

    def mean_ahead(self, t: int, s: int, a: int, following: list[Any]) -> Any:
        """``sum_s' P (r_t + gamma V(s'))``."""
        total = self.zero
        for u, p in enumerate(self.transition[s][a]):
            if p:
                total = total + p * (self.rewards[t][s][a][u] + self.discount * following[u])
        return total

    @cached_property
    def mean_rewards(self) -> list[list[list[Any]]]:
        """``[H][S][A]``, over the next state."""
        n_states, n_actions, steps = self.shape
        found = []
        for t in range(steps):
            rows = [
                [self._averaged(s, a, self.rewards[t][s][a]) for a in range(n_actions)]
                for s in range(n_states)
            ]
            found.append(rows)
        return found

    @cached_property
    def mean_last_values(self) -> list[list[Any]]:
        """``[S][A]``: of the critic at time H, over the state that the last step leads to."""
        n_states, n_actions, _ = self.shape
        return [
            [self._averaged(s, a, self.critic[-1]) for a in range(n_actions)]
            for s in range(n_states)
        ]

    def _averaged(self, s: int, a: int, numbers: Any) -> Any:
        pairs = zip(self.transition[s][a], numbers, strict=True)
        return sum((p * x for p, x in pairs if p), self.zero)

    def with_critic(self, critic: str, anything: Any) -> ExactProblem:
        """With one of `CRITICS`; ``anything [H + 1][S]`` are the arbitrary values."""
        n_states, _, steps = self.shape
        rows = [[self.zero] * n_states for _ in range(steps + 1)]
        if critic == "exact":
            rows = self.values
        elif critic != "zero":
            rows = [
                [self.zero if self.ended[s] else anything[t][s] for s in range(n_states)]
                for t in range(steps + 1)
            ]
            if critic == "any, then 0":
                rows[-1] = [self.zero] * n_states
        return replace(self, critic=rows)

    @cached_property
    def paths(self) -> Paths:
        """All trajectories. Raises ValueError where there are more than `MAX_PATHS`."""
        n_states, n_actions, steps = self.shape
        found: list[tuple[tuple[int, ...], tuple[int, ...]]]
        found = [((s,), ()) for s in range(n_states) if self.start[s]]
        for _ in range(steps):
            found = [
                ((*states, u), (*actions, a))
                for states, actions in found
                for a in range(1 if self.ended[states[-1]] else n_actions)
                for u in range(n_states)
                if (
                    self.transition[states[-1]][a][u]
                    if not self.ended[states[-1]]
                    else u == states[-1]
                )
            ]
            if len(found) > MAX_PATHS:
                raise ValueError(
                    f"shape: expected at most {MAX_PATHS:,} trajectories, got more of "
                    f"{n_states} states, {n_actions} actions and {steps} steps; use fewer steps"
                )
        states = np.array([path[0] for path in found])
        actions = np.array([path[1] for path in found])
        return Paths(states, actions, np.array(self.ended)[states])


@dataclass(frozen=True, eq=False)
class SymbolicProblem:
    """A problem whose elements are polynomials over ``ring``, in the policy and other symbols."""

    ring: PolicyRing
    problem: ExactProblem
    entries: str
    """What is held fixed, in words."""

    @property
    def player(self) -> PolicySymbols:
        """The policy's symbols."""
        return self.ring.players[0]


def checked_shape(shape: Any) -> tuple[int, int, int]:
    """(S, A, H). Raises ValueError unless it is three whole numbers, at least 1 (two actions), of
    which there are no more than `MAX_PATHS` trajectories.
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
            f"shape: expected at most {MAX_PATHS:,} trajectories, got about 10^{decades:.1f} of "
            f"{n_states} states, {n_actions} actions and {steps} steps; use fewer steps, or "
            "`measure_bias` with evidence moments or sampling"
        )
    return n_states, n_actions, steps


def check_critic(critic: object) -> None:
    """Raises ValueError unless it is one of `CRITICS`."""
    if not isinstance(critic, str) or critic not in CRITICS:
        raise ValueError(f"critic: expected one of {', '.join(CRITICS)}, got {critic!r}")
