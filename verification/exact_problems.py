"""A finite problem in exact numbers or in symbols, as enumeration in the algebra needs it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from analytic.arrays import whole_number
from analytic.policies import TABULAR
from analytic.problems import TabularMDP
from analytic.rings import PolicyRing, PolicySymbols, each, exact
from analytic.symbolic import SymbolicMDP
from analytic.symbolic_models import exact_rows, free_symbols
from stochastic.exact_coefficients import Paths

CRITICS = ("zero", "exact", "any", "any, then 0")
"""Zeros; the policy's own values; any values; any values that are 0 at the horizon."""

MOST_PATHS = 200_000


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
        """All trajectories. Raises ValueError where there are more than `MOST_PATHS`."""
        n_states, n_actions, steps = self.shape
        found = [((s,), ()) for s in range(n_states) if self.start[s]]
        for _ in range(steps):
            found = [
                ((*states, u), (*actions, a))
                for states, actions in found
                for a in range(1 if self.ended[states[-1]] else n_actions)
                for u in range(n_states)
                if (self.transition[states[-1]][a][u] if not self.ended[states[-1]] else u == states[-1])
            ]
            if len(found) > MOST_PATHS:
                raise ValueError(
                    f"shape: expected at most {MOST_PATHS:,} trajectories, got more of "
                    f"{n_states} states, {n_actions} actions and {steps} steps"
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
    """(S, A, H). Raises ValueError unless it is three whole numbers, at least 1."""
    if not isinstance(shape, tuple | list) or len(shape) != 3:
        raise ValueError(f"shape: expected (states, actions, steps), got {shape!r}")
    names = ("states", "actions", "steps")
    n_states, n_actions, steps = (
        whole_number(f"shape: {name}", size, at_least=1)
        for name, size in zip(names, shape, strict=True)
    )
    return n_states, n_actions, steps


def check_critic(critic: str) -> None:
    """Raises ValueError unless it is one of `CRITICS`."""
    if critic not in CRITICS:
        raise ValueError(f"critic: expected one of {', '.join(CRITICS)}, got {critic!r}")


def of_shape(shape: tuple[int, int, int], critic: str) -> SymbolicProblem:
    """All of that shape: symbols ``rho_s``, ``P_s_a_u``, ``r_s_a``, ``gamma`` and ``v_t_s``; the
    last probability of each row is 1 minus the others.
    """
    n_states, n_actions, _ = shape
    kernel = np.empty((n_states, n_actions, n_states), dtype=object)
    reward = np.empty((n_states, n_actions), dtype=object)
    for s, a in product(range(n_states), range(n_actions)):
        reward[s, a] = f"r_{s}_{a}"
        kernel[s, a] = _row(f"P_{s}_{a}", n_states)
    mdp = {"transition": kernel, "rewards": reward, "discount": "gamma"}
    mdp["start"] = np.array(_row("rho", n_states), dtype=object)
    found = {name: each(exact, np.array(value, dtype=object)) for name, value in mdp.items()}
    found["discount"] = found["discount"].item()
    names = "every policy, transition law, reward r(s, a), discount and start"
    return _assembled(found, shape, critic, names, (False,) * n_states)


def _row(name: str, size: int) -> list[str]:
    names = [f"{name}_{u}" for u in range(size - 1)]
    return [*names, " - ".join(["1", *names])]


def of_symbolic_mdp(mdp: SymbolicMDP, critic: str) -> SymbolicProblem:
    """A problem with entries of the caller's. Raises ValueError for an infinite horizon, or another
    policy than a tabular softmax.
    """
    if mdp.horizon is None or mdp.policy is not TABULAR:
        raise ValueError("shape: expected a problem of finite horizon with a tabular policy")
    entries = dict(mdp._entries)
    entries["rewards"] = entries["rewards"][0]
    others = ", ".join(map(str, free_symbols(entries)))
    names = "every policy" + (f" and {others}" if others else "") + ", of the given problem"
    shape = (*mdp.shape, mdp.horizon)
    return _assembled(entries, shape, critic, names, (False,) * shape[0])


def of_mdp(mdp: TabularMDP, critic: Any) -> SymbolicProblem:
    """A problem in floating point, with its numbers as rationals; the critic may be an array
    ``[H + 1, S]``.
    """
    if mdp.horizon is None:
        raise ValueError("evidence: symbolic is for finite horizons")
    table = np.broadcast_to(
        mdp.next_state_reward, (mdp.horizon, *mdp.transition.shape)
    )
    entries = {
        "transition": exact_rows(mdp.transition),
        "rewards": each(exact, table),
        "discount": exact(mdp.discount),
        "start": exact_rows(mdp.start),
    }
    shape = (mdp.n_states, mdp.n_actions, mdp.horizon)
    ended = tuple(bool(x) for x in mdp.terminal)
    return _assembled(entries, shape, critic, "every policy, at this problem", ended)


def _assembled(
    entries: dict[str, Any],
    shape: tuple[int, int, int],
    critic: Any,
    names: str,
    ended: tuple[bool, ...],
) -> SymbolicProblem:
    import sympy

    n_states, n_actions, steps = shape
    anything = np.array(
        [[sympy.Symbol(f"v_{t}_{s}") for s in range(n_states)] for t in range(steps + 1)]
    )
    symbols = list(free_symbols(entries))
    if isinstance(critic, str):
        if critic.startswith("any"):
            symbols += list(anything.ravel())
            names += ", any critic" + (" that is 0 at the horizon" if "0" in critic else "")
        else:
            names += f", {critic} critic"
    else:
        anything = each(exact, critic)
    player = PolicySymbols.of(TABULAR, n_states, n_actions)
    ring = PolicyRing((player,), tuple(symbols))
    rewards = np.asarray(entries["rewards"], dtype=object)
    if rewards.ndim < 4:
        rewards = np.broadcast_to(rewards[..., None], (steps, *shape[:2], n_states))
    lift = {name: each(ring.element, entries[name]) for name in ("transition", "start")}
    problem = ExactProblem(
        policy=ring.policies[0],
        transition=lift["transition"].tolist(),
        start=lift["start"].tolist(),
        rewards=_lifted(ring, rewards),
        discount=ring.element(entries["discount"]),
        critic=None,
        ended=ended,
        zero=ring.rational.zero,
        one=ring.rational.one,
    )
    kind = critic if isinstance(critic, str) else "any"
    values = _lifted(ring, anything) if kind.startswith("any") else None
    problem = problem.with_critic(kind, values)
    return SymbolicProblem(ring, problem, names)


def _lifted(ring: PolicyRing, array: Any) -> Any:
    if np.ndim(array) == 0:
        return ring.element(array)
    return [_lifted(ring, part) for part in array]


def random_problem(
    shape: tuple[int, int, int], critic: str, size: int, rng: np.random.Generator
) -> ExactProblem:
    """One of that shape, in fractions: every free coordinate is drawn uniformly from ``size``
    numbers. Probabilities are positive, rewards are ``r_t(s, a, s')``.
    """
    n_states, n_actions, steps = shape

    def row(count: int) -> list[Fraction]:
        free = [Fraction(int(rng.integers(1, size + 1)), (size + 1) * count) for _ in range(count - 1)]
        return [*free, 1 - sum(free, Fraction(0))]

    def numbers(*counts: int) -> Any:
        if not counts:
            return Fraction(int(rng.integers(1, size + 1)) - size // 2)
        return [numbers(*counts[1:]) for _ in range(counts[0])]

    problem = ExactProblem(
        policy=[row(n_actions) for _ in range(n_states)],
        transition=[[row(n_states) for _ in range(n_actions)] for _ in range(n_states)],
        start=row(n_states),
        rewards=numbers(steps, n_states, n_actions, n_states),
        discount=Fraction(int(rng.integers(1, size + 1)), size),
        critic=None,
        ended=(False,) * n_states,
        zero=Fraction(0),
        one=Fraction(1),
    )
    return problem.with_critic(critic, numbers(steps + 1, n_states))


def with_symbolic_policy(problem: ExactProblem) -> SymbolicProblem:
    """A problem in fractions with its policy in symbols."""
    n_states, n_actions, _ = problem.shape
    ring = PolicyRing((PolicySymbols.of(TABULAR, n_states, n_actions),))

    def lifted(value: Any) -> Any:
        if isinstance(value, Fraction):
            number = ring.rational.domain(value.numerator, value.denominator)
            return ring.rational.ground_new(number)
        return [lifted(part) for part in value]

    found = replace(
        problem,
        policy=ring.policies[0],
        transition=lifted(problem.transition),
        start=lifted(problem.start),
        rewards=lifted(problem.rewards),
        discount=lifted(problem.discount),
        critic=lifted(problem.critic),
        zero=ring.rational.zero,
        one=ring.rational.one,
    )
    return SymbolicProblem(ring, found, "every policy, at one problem")
