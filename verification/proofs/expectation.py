"""An estimator's expectation in exact algebra: a sum over all trajectories.

Let i and j be pairs (state, action), u_i the score of i (the gradient of ``log pi_i`` in the
logits), and b_i and b_ij the expected derivatives of the surrogate in the log-probabilities of i,
and of i and j. By the chain rule, its mean derivatives in the logits are

    sum_i b_i u_i,     sum_ij b_ij u_i u_j^T + sum_i b_i grad u_i,

so that only the tables b are sums over trajectories, and scores enter once, at the end. A
coefficient that is the same on every trajectory is summed over prefixes: the steps of a trajectory
up to the last one that a term depends on. The probabilities of all continuations sum to one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, product, repeat
from operator import mul
from typing import Any

from gradbias.stochastic.estimators.exact_coefficients import (
    ExactCoefficients,
    Polynomial,
    Term,
)
from gradbias.verification.proofs.exact_problems import ExactProblem
from gradbias.verification.proofs.scores import (
    Array,
    divided,
    second_order_terms,
    third_order_terms,
    times_scores,
)

Prefix = tuple[tuple[int, ...], tuple[int, ...], Any]
"""The states and actions of (the first steps of) a trajectory, and their probability."""


@dataclass(frozen=True)
class _Group:
    """Terms (see `exact_coefficients.Term`) that share the input ``x`` and the ``polynomial``, an
    index, since fractions are slow to hash; ``visits`` has one entry a term.
    """

    polynomial: int
    x: int
    visits: tuple[tuple[tuple[int, int], ...], ...]


class _Sums:
    """Sums of many elements by key."""

    def __init__(self, zero: Any) -> None:
        self._zero = zero
        self._sums: dict[Any, Any] = {}

    def add(self, key: Any, element: Any) -> None:
        """Adds an element to the sum of ``key``."""
        if not isinstance(element, dict):
            self._sums[key] = self._sums.get(key, 0) + element
            return
        # In place, term by term: sympy's addition copies the whole sum each time.
        total = self._sums.setdefault(key, defaultdict(int))
        for monomial, coefficient in element.items():
            total[monomial] += coefficient

    def items(self) -> Iterator[tuple[Any, Any]]:
        """The keys and their sums."""
        for key, total in self._sums.items():
            if isinstance(total, dict):
                nonzero = {m: c for m, c in total.items() if c}
                yield key, self._zero.ring.from_dict(nonzero)
            else:
                yield key, total


def mean_derivative(problem: ExactProblem, coefficients: ExactCoefficients) -> Array:
    """E[estimate], every entry by its flat parameters."""
    tables, scale = _visit_tables(problem, coefficients)
    result = tables[coefficients.order - 1]
    for axis in range(coefficients.order):
        result = times_scores(result, axis, problem)
    if coefficients.order > 1:
        terms = second_order_terms if coefficients.order == 2 else third_order_terms
        for key, element in terms(tables, problem):
            result[key] = result[key] + element
    return {key: divided(element, scale, problem) for key, element in result.items()}


def additions(problem: ExactProblem, coefficients: ExactCoefficients) -> int:
    """The largest number of additions that `mean_derivative` can make."""
    n_states, n_actions, steps = problem.shape
    if coefficients.shared is None:
        return sum(len(terms) for terms in coefficients.of_path.values())
    return sum(
        (n_states * n_actions) ** (last + 1) * len(part.visits)
        for group in _grouped(coefficients.shared, {})
        for last, part in _by_last_step(group, steps)
    )


def _visit_tables(
    problem: ExactProblem, coefficients: ExactCoefficients
) -> tuple[list[Array], int]:
    """The tables b of every order, 0 where nothing was added, times an integer; and that integer,
    the least common denominator of the coefficients.
    """
    n_states, n_actions, steps = problem.shape
    sums = _Sums(problem.zero)
    indices: dict[Polynomial, int] = {}
    if coefficients.shared is not None:
        by_last_step: dict[int, list[_Group]] = defaultdict(list)
        for group in _grouped(coefficients.shared, indices):
            for last, part in _by_last_step(group, steps):
                by_last_step[last].append(part)
        for prefix in _live_prefixes(problem):
            for group in by_last_step.get(len(prefix[1]) - 1, ()):
                _add(sums, group, problem, prefix)
    else:
        for path in _paths(problem):
            for group in _grouped(coefficients.of_path[path[:2]], indices):
                _add(sums, group, problem, path)
    polynomials = list(indices)
    scale = math.lcm(*(c.denominator for polynomial in polynomials for c in polynomial))
    powers = list(
        accumulate(repeat(problem.discount, coefficients.degree), mul, initial=problem.one)
    )
    tables: list[Array] = [
        dict.fromkeys(product(range(n_states * n_actions), repeat=k), problem.zero)
        for k in range(1, coefficients.order + 1)
    ]
    for (index, key), total in sums.items():
        factor = problem.zero
        for power, coefficient in zip(powers, polynomials[index], strict=False):
            if coefficient:
                factor = factor + power * _integer(problem, coefficient * scale)
        table = tables[len(key) - 1]
        table[key] = table[key] + factor * total
    return tables, scale


def _integer(problem: ExactProblem, integer: Any) -> Any:
    """An integer that is given as a fraction, in the problem's algebra."""
    ring = getattr(problem.zero, "ring", None)
    return integer if ring is None else ring.domain(integer.numerator)


def _grouped(terms: tuple[Term, ...], indices: dict[Polynomial, int]) -> list[_Group]:
    """The terms in groups; polynomials that are new get the next of ``indices``."""
    visits: dict[Any, list[Any]] = defaultdict(list)
    for at, x, polynomial in terms:
        visits[indices.setdefault(polynomial, len(indices)), x].append(at)
    return [_Group(index, x, tuple(at)) for (index, x), at in visits.items()]


def _by_last_step(group: _Group, steps: int) -> Iterator[tuple[int, _Group]]:
    """The parts of a group by the last step that a term's visits and input depend on."""
    time = group.x - steps - 1 if group.x > steps else group.x - 1
    input_step = min(max(time, 0), steps - 1)
    parts: dict[int, list[Any]] = defaultdict(list)
    for at in group.visits:
        parts[max(input_step, *(t for t, _ in at))].append(at)
    for last, visits in parts.items():
        yield last, _Group(group.polynomial, group.x, tuple(visits))


def _add(sums: _Sums, group: _Group, problem: ExactProblem, prefix: Prefix) -> None:
    """Adds probability times input to the sum of each of a group's terms."""
    states, actions, probability = prefix
    value = _input(problem, group.x, states, actions)
    if not value:
        return
    weighted = probability * value
    n_actions, steps = problem.shape[1], len(actions)
    for at in group.visits:
        if all(t < steps and not problem.ended[states[t]] for t, _ in at):
            key = tuple(states[t] * n_actions + (actions[t] if a < 0 else a) for t, a in at)
            sums.add((group.polynomial, key), weighted)


def _input(problem: ExactProblem, x: int, states: tuple[int, ...], actions: tuple[int, ...]) -> Any:
    """The input x of a term: 1, a reward or a critic's value (see `exact_coefficients.Term`). One
    that depends on the state after a prefix is replaced by its mean over that state.
    """
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


def _live_prefixes(problem: ExactProblem) -> Iterator[Prefix]:
    """All states ``s_0..s_t``, none of them terminal, and actions ``a_0..a_t``, for every t."""
    _, n_actions, steps = problem.shape
    pending: list[Prefix] = [
        ((s,), (), p) for s, p in enumerate(problem.start) if p and not problem.ended[s]
    ]
    while pending:
        states, actions, probability = pending.pop()
        for a in range(n_actions):
            with_action = probability * problem.policy[states[-1]][a]
            yield states, (*actions, a), with_action
            if len(actions) + 1 < steps:
                for u, p in enumerate(problem.transition[states[-1]][a]):
                    if p and not problem.ended[u]:
                        pending.append(((*states, u), (*actions, a), with_action * p))


def _paths(problem: ExactProblem) -> Iterator[Prefix]:
    """All states ``s_0..s_H`` and actions; those of `ExactProblem.paths`."""
    _, n_actions, steps = problem.shape
    pending: list[Prefix] = [((s,), (), p) for s, p in enumerate(problem.start) if p]
    while pending:
        states, actions, probability = pending.pop()
        if len(actions) == steps:
            yield states, actions, probability
        elif problem.ended[states[-1]]:
            pending.append(((*states, states[-1]), (*actions, 0), probability))
        else:
            for a in range(n_actions):
                with_action = probability * problem.policy[states[-1]][a]
                for u, p in enumerate(problem.transition[states[-1]][a]):
                    if p:
                        pending.append(((*states, u), (*actions, a), with_action * p))
