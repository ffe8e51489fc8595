"""From derivatives in log-probabilities to derivatives in logits, in exact algebra.

The parameters are the logits theta of a tabular softmax, flat: i = state x A + action. The score
u_i is the gradient of ``log pi_i`` in theta; b_i and b_ij are the tables of `expectation`. All
scores of a state have the same derivative, minus the covariance ``diag(pi) - pi pi^T``.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Any

from gradbias.verification.proofs.exact_problems import ExactProblem, SymbolicProblem

Array = dict[tuple[int, ...], Any]
"""Elements by flat parameters, one an axis."""


def times_scores(table: Array, axis: int, problem: ExactProblem) -> Array:
    """``sum_i table_i u_i`` along one axis: each entry minus pi times its state's total."""
    sums = _state_totals(table, axis, problem)
    n_actions = problem.shape[1]
    result = {}
    for key, element in table.items():
        s, a = divmod(key[axis], n_actions)
        total = sums[(*key[:axis], s, *key[axis + 1 :])]
        result[key] = element - problem.policy[s][a] * total
    return result


def _state_totals(table: Array, axis: int, problem: ExactProblem) -> Array:
    """The sums over actions along one axis, whose indices become states."""
    totals: Array = {}
    for key, element in table.items():
        at = (*key[:axis], key[axis] // problem.shape[1], *key[axis + 1 :])
        totals[at] = totals[at] + element if at in totals else element
    return totals


def second_order_terms(tables: list[Array], problem: ExactProblem) -> Iterator[tuple[Any, Any]]:
    """The entries of ``sum_i b_i grad u_i``: minus each state's total times its covariance."""
    n_states, n_actions, _ = problem.shape
    sums = _state_totals(tables[0], 0, problem)
    for s, a, b in product(range(n_states), range(n_actions), range(n_actions)):
        key = (s * n_actions + a, s * n_actions + b)
        yield key, -sums[(s,)] * _covariance(problem, s, a, b)


def _covariance(problem: ExactProblem, s: int, a: int, b: int) -> Any:
    """Entry (a, b) of ``diag(pi) - pi pi^T`` in state s."""
    pi = problem.policy[s]
    return pi[a] * ((a == b) - pi[b])


def third_order_terms(tables: list[Array], problem: ExactProblem) -> Iterator[tuple[Any, Any]]:
    """The entries of ``sum_ij b_ij grad u_i u_j``, in its three placements, and of
    ``sum_i b_i grad^2 u_i``.
    """
    n_states, n_actions, _ = problem.shape
    mixed = times_scores(_state_totals(tables[1], 0, problem), 1, problem)
    sums = _state_totals(tables[0], 0, problem)
    actions = range(n_actions)
    for s, a, b in product(range(n_states), actions, actions):
        i, j = s * n_actions + a, s * n_actions + b
        covariance = _covariance(problem, s, a, b)
        for k in range(n_states * n_actions):
            element = -covariance * mixed[s, k]
            yield (i, j, k), element
            yield (i, k, j), element
            yield (k, i, j), element
        pi = problem.policy[s]
        for c in actions:
            # The derivative of the covariance pi_a (delta_ab - pi_b) in theta_c.
            slope = pi[a] * ((a == c) - pi[c]) * ((a == b) - pi[b])
            slope = slope - pi[a] * pi[b] * ((b == c) - pi[c])
            yield (i, j, s * n_actions + c), -sums[(s,)] * slope


def return_derivatives(symbolic: SymbolicProblem, order: int) -> Array:
    """The return's derivatives in the logits, by backward recursion and softmax's derivative."""
    problem, ring = symbolic.problem, symbolic.ring
    weighted = (p * v for p, v in zip(problem.start, problem.values[0], strict=True))
    integral, scale = ring.cleared(sum(weighted, problem.zero))
    derivatives: Array = {(): integral}
    size = len(symbolic.player.parameters)
    for _ in range(order):  # derivatives commute: only those with ascending parameters are taken
        derivatives = {
            (*key, k): ring.derivative(element, 0, k)
            for key, element in derivatives.items()
            for k in range(key[-1] if key else 0, size)
        }
    scaled = {key: divided(element, int(scale), problem) for key, element in derivatives.items()}
    return {key: scaled[tuple(sorted(key))] for key in product(range(size), repeat=order)}


def divided(element: Any, scale: int, problem: ExactProblem) -> Any:
    """A fraction or polynomial over an integer; in the problem's ring if the quotient is in it."""
    if isinstance(element, Fraction):
        return element / scale
    ring = problem.zero.ring
    if scale == 1:
        return element.set_ring(ring)
    from sympy import QQ

    return element.set_ring(ring.clone(domain=QQ)) * QQ(1, scale)


def difference(minuend: Array, subtrahend: Array) -> Array:
    """The entries' differences; integer and rational polynomials may be mixed."""
    return {key: _minus(element, subtrahend[key]) for key, element in minuend.items()}


def _minus(element: Any, other: Any) -> Any:
    if isinstance(element, Fraction) or element.ring == other.ring:
        return element - other
    from sympy import QQ

    rational = element.ring.clone(domain=QQ)
    return element.set_ring(rational) - other.set_ring(rational)
