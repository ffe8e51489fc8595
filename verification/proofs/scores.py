"""Scores in exact algebra: from derivatives in log-probabilities to those in logits."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Any

from gradbias.verification.proofs.exact_problems import ExactProblem, SymbolicProblem

Array = dict[tuple[int, ...], Any]
"""By flat parameters (state x A + action), one an axis."""


def centred(table: Array, axis: int, problem: ExactProblem) -> Array:
    """``sum_i table_i u_i`` along one axis: each entry less the state's total times pi."""
    sums = totals(table, axis, problem)
    n_actions = problem.shape[1]
    found = {}
    for key, element in table.items():
        s, a = divmod(key[axis], n_actions)
        total = sums[(*key[:axis], s, *key[axis + 1 :])]
        found[key] = element - problem.policy[s][a] * total
    return found


def totals(table: Array, axis: int, problem: ExactProblem) -> Array:
    """Summed over one axis's actions: its entries are states."""
    found: Array = {}
    for key, element in table.items():
        at = (*key[:axis], key[axis] // problem.shape[1], *key[axis + 1 :])
        found[at] = found[at] + element if at in found else element
    return found


def second_bends(tables: list[Array], problem: ExactProblem) -> Iterator[tuple[Any, Any]]:
    """``sum_i b_i grad u_i``: minus the state's total times ``diag(pi) - pi pi^T``."""
    n_states, n_actions, _ = problem.shape
    sums = totals(tables[0], 0, problem)
    for s, a, b in product(range(n_states), range(n_actions), range(n_actions)):
        key = (s * n_actions + a, s * n_actions + b)
        yield key, -sums[(s,)] * _covariance(problem, s, a, b)


def _covariance(problem: ExactProblem, s: int, a: int, b: int) -> Any:
    own = problem.policy[s]
    return own[a] * ((a == b) - own[b])


def third_bends(tables: list[Array], problem: ExactProblem) -> Iterator[tuple[Any, Any]]:
    """``sum_ij b_ij grad u_i u_j`` in its three placements, and ``sum_i b_i grad^2 u_i``."""
    n_states, n_actions, _ = problem.shape
    mixed = centred(totals(tables[1], 0, problem), 1, problem)
    sums = totals(tables[0], 0, problem)
    actions = range(n_actions)
    for s, a, b in product(range(n_states), actions, actions):
        one, two = s * n_actions + a, s * n_actions + b
        bend = _covariance(problem, s, a, b)
        for other in range(n_states * n_actions):
            element = -bend * mixed[s, other]
            yield (one, two, other), element
            yield (one, other, two), element
            yield (other, one, two), element
        for c in actions:
            own = problem.policy[s]
            # d/dtheta_c of pi_a (delta_ab - pi_b)
            moved = own[a] * ((a == c) - own[c]) * ((a == b) - own[b])
            moved = moved - own[a] * own[b] * ((b == c) - own[c])
            yield (one, two, s * n_actions + c), -sums[(s,)] * moved


def return_derivatives(symbolic: SymbolicProblem, order: int) -> Array:
    """The return's derivatives in the logits, by backward recursion and softmax's derivation."""
    problem, ring = symbolic.problem, symbolic.ring
    weighted = (p * v for p, v in zip(problem.start, problem.values[0], strict=True))
    total = sum(weighted, problem.zero)
    cleared, scale = ring.cleared(total)
    level: Array = {(): cleared}
    size = len(symbolic.player.parameters)
    for _ in range(order):
        following: Array = {}
        for key, element in level.items():
            for k in range(key[-1] if key else 0, size):
                following[(*key, k)] = ring.derivative(element, 0, k)
        level = following
    found = {key: divided(element, int(scale), problem) for key, element in level.items()}
    return {key: found[tuple(sorted(key))] for key in product(range(size), repeat=order)}


def divided(element: Any, scale: int, problem: ExactProblem) -> Any:
    """A number, or a polynomial, over a whole number; in the problem's ring if that has it."""
    if isinstance(element, Fraction):
        return element / scale
    ring = problem.zero.ring
    if scale == 1:
        return element.set_ring(ring)
    from sympy import QQ

    return element.set_ring(ring.clone(domain=QQ)) * QQ(1, scale)


def difference(one: Array, other: Array) -> Array:
    """Of arrays of numbers or of polynomials, with whole or with rational coefficients."""
    return {key: _minus(element, other[key]) for key, element in one.items()}


def _minus(one: Any, other: Any) -> Any:
    if isinstance(one, Fraction) or one.ring == other.ring:
        return one - other
    from sympy import QQ

    rational = one.ring.clone(domain=QQ)
    return one.set_ring(rational) - other.set_ring(rational)
