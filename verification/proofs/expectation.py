"""An estimator's expectation in exact algebra: a sum over all trajectories.

With b_i and b_ij the expected derivatives of the surrogate in the log-probabilities of (state,
action) i, and of i and j, the chain rule gives its mean derivatives in the logits,

    sum_i b_i u_i,     sum_ij b_ij u_i u_j^T + sum_i b_i grad u_i,

so trajectories only add up to the tables b, and scores come in once, at the end. A coefficient that
is the same on every trajectory is added up over the beginnings of trajectories that it sees: the
rest has probability one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from gradbias.stochastic.estimators.exact_coefficients import ExactCoefficients, Term
from gradbias.stochastic.estimators.exact_polynomials import Polynomial
from gradbias.verification.proofs.exact_problems import ExactProblem
from gradbias.verification.proofs.scores import Array, centred, divided, second_bends, third_bends

Beginning = tuple[tuple[int, ...], tuple[int, ...], Any]
"""States, actions and their probability."""


@dataclass(frozen=True)
class _Group:
    """Terms with one polynomial (its number: fractions are slow to hash) and one x: the ``visits``
    that they belong to.
    """

    polynomial: int
    x: int
    visits: tuple[tuple[tuple[int, int], ...], ...]


class _Sums:
    """Sums of many elements by key: polynomials are added in place, their terms one by one."""

    def __init__(self, zero: Any) -> None:
        self._zero = zero
        self._sums: dict[Any, Any] = {}

    def add(self, key: Any, element: Any) -> None:
        """Adds one."""
        if not isinstance(element, dict):
            self._sums[key] = self._sums.get(key, 0) + element
            return
        own = self._sums.setdefault(key, defaultdict(int))
        for monomial, coefficient in element.items():
            own[monomial] += coefficient

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Keys and sums."""
        for key, found in self._sums.items():
            if isinstance(found, dict):
                kept = {m: c for m, c in found.items() if c}
                yield key, self._zero.ring.from_dict(kept)
            else:
                yield key, found


def mean_derivative(problem: ExactProblem, found: ExactCoefficients) -> Array:
    """E[estimate], every entry by its flat parameters."""
    tables, scale = _visit_tables(problem, found)
    result = tables[found.order - 1]
    for axis in range(found.order):
        result = centred(result, axis, problem)
    if found.order > 1:
        bends = second_bends if found.order == 2 else third_bends
        for key, element in bends(tables, problem):
            result[key] = result[key] + element
    return {key: divided(element, scale, problem) for key, element in result.items()}


def additions(problem: ExactProblem, found: ExactCoefficients) -> int:
    """How many `mean_derivative` makes at most."""
    n_states, n_actions, steps = problem.shape
    if found.shared is None:
        return sum(len(terms) for terms in found.of_path.values())
    beginnings = [n_states * n_actions * (n_states * n_actions) ** t for t in range(steps)]
    return sum(
        beginnings[level] * len(part.visits)
        for group in _grouped(found.shared, {})
        for level, part in _levels(group, steps)
    )


def _visit_tables(problem: ExactProblem, found: ExactCoefficients) -> tuple[list[Array], int]:
    """``b`` of every order, 0 where nothing was added, times the whole number beside them, with
    which no coefficient has a denominator.
    """
    n_states, n_actions, steps = problem.shape
    sums = _Sums(problem.zero)
    numbers: dict[Polynomial, int] = {}
    if found.shared is not None:
        groups = _grouped(found.shared, numbers)
        by_level: dict[int, list[_Group]] = defaultdict(list)
        for group in groups:
            for level, part in _levels(group, steps):
                by_level[level].append(part)
        for states, actions, probability in _beginnings(problem):
            for group in by_level.get(len(actions) - 1, ()):
                _add(sums, group, problem, states, actions, probability)
    else:
        for states, actions, probability in _whole_paths(problem):
            for group in _grouped(found.of_path[states, actions], numbers):
                _add(sums, group, problem, states, actions, probability)
    polynomials = list(numbers)
    scale = math.lcm(*(c.denominator for polynomial in polynomials for c in polynomial))
    powers = _powers(problem, found.degree)
    tables: list[Array] = [
        dict.fromkeys(product(range(n_states * n_actions), repeat=k), problem.zero)
        for k in range(1, found.order + 1)
    ]
    for (number, key), total in sums.items():
        factor = problem.zero
        for power, coefficient in zip(powers, polynomials[number], strict=False):
            if coefficient:
                factor = factor + power * _number(problem, coefficient * scale)
        table = tables[len(key) - 1]
        table[key] = table[key] + factor * total
    return tables, scale


def _number(problem: ExactProblem, whole: Any) -> Any:
    ring = getattr(problem.zero, "ring", None)
    return whole if ring is None else ring.domain(whole.numerator)


def _powers(problem: ExactProblem, degree: int) -> list[Any]:
    found = [problem.one]
    for _ in range(degree):
        found.append(found[-1] * problem.discount)
    return found


def _grouped(terms: tuple[Term, ...], numbers: dict[Polynomial, int]) -> list[_Group]:
    visits: dict[Any, list[Any]] = defaultdict(list)
    for at, x, polynomial in terms:
        visits[numbers.setdefault(polynomial, len(numbers)), x].append(at)
    return [_Group(polynomial, x, tuple(at)) for (polynomial, x), at in visits.items()]


def _levels(group: _Group, steps: int) -> Iterator[tuple[int, _Group]]:
    """The parts of a group by the last step that they see."""
    time = group.x - steps - 1 if group.x > steps else group.x - 1
    own = min(max(time, 0), steps - 1)
    parts: dict[int, list[Any]] = defaultdict(list)
    for at in group.visits:
        parts[max(own, *(t for t, _ in at))].append(at)
    for level, visits in parts.items():
        yield level, _Group(group.polynomial, group.x, tuple(visits))


def _add(
    sums: _Sums,
    group: _Group,
    problem: ExactProblem,
    states: tuple[int, ...],
    actions: tuple[int, ...],
    probability: Any,
) -> None:
    value = _input(problem, group.x, states, actions)
    if not value:
        return
    weighted = probability * value
    n_actions, lived = problem.shape[1], len(actions)
    for at in group.visits:
        if all(t < lived and not problem.ended[states[t]] for t, _ in at):
            key = tuple(states[t] * n_actions + (actions[t] if a < 0 else a) for t, a in at)
            sums.add((group.polynomial, key), weighted)


def _input(problem: ExactProblem, x: int, states: tuple[int, ...], actions: tuple[int, ...]) -> Any:
    """X (see `Term`) on a trajectory, or on a beginning: its mean over the state that follows."""
    steps = problem.shape[2]
    if x == 0:
        return problem.one
    if x > steps:
        t = x - steps - 1
        if t < len(states):
            return problem.critic[t][states[t]]
        return problem.mean_last_values[states[-1]][actions[-1]]
    t = x - 1
    if problem.ended[states[t]]:
        return problem.zero
    if t + 1 < len(states):
        return problem.rewards[t][states[t]][actions[t]][states[t + 1]]
    return problem.mean_rewards[t][states[t]][actions[t]]


def _beginnings(
    problem: ExactProblem,
) -> Iterator[Beginning]:
    """States ``s_0..s_t``, actions ``a_0..a_t`` and their probability, for every t; only those
    without an end.
    """
    _, n_actions, steps = problem.shape
    pending: list[Beginning] = [
        ((s,), (), p) for s, p in enumerate(problem.start) if p and not problem.ended[s]
    ]
    while pending:
        states, actions, probability = pending.pop()
        now = states[-1]
        for a in range(n_actions):
            acted = probability * problem.policy[now][a]
            yield states, (*actions, a), acted
            if len(actions) + 1 < steps:
                for u, p in enumerate(problem.transition[now][a]):
                    if p and not problem.ended[u]:
                        pending.append(((*states, u), (*actions, a), acted * p))


def _whole_paths(
    problem: ExactProblem,
) -> Iterator[Beginning]:
    """All states ``s_0..s_H``, actions and probabilities."""
    _, n_actions, steps = problem.shape
    pending: list[Beginning] = [((s,), (), p) for s, p in enumerate(problem.start) if p]
    while pending:
        states, actions, probability = pending.pop()
        now = states[-1]
        if len(actions) == steps:
            yield states, actions, probability
        elif problem.ended[now]:
            pending.append(((*states, now), (*actions, 0), probability))
        else:
            for a in range(n_actions):
                acted = probability * problem.policy[now][a]
                for u, p in enumerate(problem.transition[now][a]):
                    if p:
                        pending.append(((*states, u), (*actions, a), acted * p))
