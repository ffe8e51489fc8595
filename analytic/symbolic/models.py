"""A problem or a game in exact algebra: polynomial entries; values and visits as quotients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gradbias.analytic.problems.mdp import checked_discount
from gradbias.analytic.symbolic.policy_rings import (
    PolicyRing,
    PolicySymbols,
    Quotient,
    QuotientField,
    each,
    exact,
)
from gradbias.analytic.utils.validation import FloatArray

_RESERVED = ("pi_", "theta_")
OPERATIONS_A_TERM = 5
"""The number of operations that are allowed for the values, for each term of the largest size."""
MAX_HORIZON = 100
"""Steps of a finite horizon up to which there are expressions."""


@dataclass(frozen=True, eq=False)
class SymbolicModel:
    """A problem's or a game's entries as elements of the rational ring: ``transition[s][joint
    action][s']``, ``rewards[i][t][s][joint action]`` and ``policy[s][joint action]``.
    """

    ring: PolicyRing
    transition: list[list[list[Any]]]
    rewards: list[list[list[list[Any]]]]
    discount: Any
    start: list[Any]
    horizon: int | None
    policy: list[list[Any]]

    @property
    def _n_states(self) -> int:
        return len(self.transition)

    def _mean(self, s: int, values: Sequence[Any]) -> Any:
        """``sum_a pi(a|s) values[a]``."""
        return self.ring.total([p * x for p, x in zip(self.policy[s], values, strict=True)])

    @cached_property
    def _kernel(self) -> list[list[Any]]:
        """``P_pi``."""
        states = range(self._n_states)
        return [
            [self._mean(s, [row[t] for row in self.transition[s]]) for t in states] for s in states
        ]

    @cached_property
    def _system(self) -> tuple[QuotientField, Any, list[Any]]:
        """The field, ``adj(diag(scales) (I - gamma P_pi))`` and the scales that clear its rows."""
        from sympy.polys.matrices import DomainMatrix

        ring, n = self.ring, self._n_states
        rows, scales = [], []
        for s in range(n):
            row = [(s == t) - self.discount * self._kernel[s][t] for t in range(n)]
            scale = math.lcm(*(int(ring.cleared(entry)[1]) for entry in row))
            rows.append([(entry * scale).set_ring(ring.whole) for entry in row])
            scales.append(scale)
        matrix = DomainMatrix(rows, (n, n), ring.whole.to_domain())
        adjugate, determinant = matrix.adj_det()
        quotients = QuotientField(ring, determinant, math.prod(scales))
        return quotients, adjugate.to_list(), scales

    @cached_property
    def _field(self) -> QuotientField:
        """The quotients that values live in."""
        if self.horizon is not None:
            return QuotientField(self.ring, self.ring.whole.one, 1)
        return self._system[0]

    def _quotient(self, element: Any, power: int) -> Quotient:
        import sympy

        numerator, scale = self.ring.cleared(element)
        return Quotient(numerator, power, sympy.Rational(1, int(scale)))

    def values(self, player: int) -> tuple[QuotientField, list[Quotient]]:
        """V_0(s) of each state, with their field of quotients."""
        return self._field.reduced(self._values(player))

    def _values(self, player: int) -> list[Quotient]:
        ring, n, rewards = self.ring, self._n_states, self.rewards[player]
        if self.horizon is None:
            _, adjugate, scales = self._system
            means = [self._mean(s, rewards[0][s]) * scales[s] for s in range(n)]
            rational = [[entry.set_ring(ring.rational) for entry in row] for row in adjugate]
            sums = [
                ring.total([a * b for a, b in zip(row, means, strict=True)]) for row in rational
            ]
            return [self._quotient(element, 1) for element in sums]
        values = [ring.rational.zero] * n
        for t in reversed(range(self.horizon)):
            reward = rewards[t if len(rewards) > 1 else 0]
            ahead = [
                ring.total([self._kernel[s][u] * values[u] for u in range(n)]) for s in range(n)
            ]
            values = [self._mean(s, reward[s]) + self.discount * ahead[s] for s in range(n)]
        return [self._quotient(element, 0) for element in values]

    def expected_return(self, player: int) -> tuple[QuotientField, Quotient]:
        """J, from the initial distribution, with its field of quotients."""
        values, start = self._values(player), self.start
        rational = self.ring.rational
        total = self.ring.total(
            [
                weight
                * value.numerator.set_ring(rational)
                * rational.domain.from_sympy(value.factor)
                for weight, value in zip(start, values, strict=True)
            ]
        )
        field, (value,) = self._field.reduced([self._quotient(total, values[0].power)])
        return field, value

    def visits(self) -> tuple[QuotientField, list[Quotient]]:
        """Discounted visits to each state and joint action, over all time, with their field."""
        ring, n = self.ring, self._n_states
        if self.horizon is None:
            _, adjugate, scales = self._system
            states = [
                ring.total(
                    [
                        w * row[s].set_ring(ring.rational)
                        for w, row in zip(self.start, adjugate, strict=True)
                    ]
                )
                * scales[s]
                for s in range(n)
            ]
            power = 1
        else:
            states, power, step = [ring.rational.zero] * n, 0, list(self.start)
            for _ in range(self.horizon):
                states = [total + now for total, now in zip(states, step, strict=True)]
                step = [
                    self.discount * ring.total([step[u] * self._kernel[u][s] for u in range(n)])
                    for s in range(n)
                ]
        visits = [self._quotient(states[s] * p, power) for s in range(n) for p in self.policy[s]]
        return self._field.reduced(visits)


def check_expression_size(
    entries: dict[str, Any],
    players: Sequence[PolicySymbols],
    horizon: int | None,
    *,
    order: int,
    count: int,
    max_size: int,
) -> None:
    """Raises ValueError, with the estimate, if ``count`` derivatives of that order would have too
    many terms, or the values from which they are derived would take too long.

    The estimates are upper bounds. After k derivatives a numerator has degree at most k + 1 in each
    state's probabilities, one more for each derivative taken there; over H steps, H + k in all; and
    the degrees of the entries in their symbols. Operations are those of a determinant of
    polynomials, or of H backward steps.
    """
    n_states = len(entries["transition"])
    independent = [len(player.probabilities[0]) for player in players]
    degrees = {name: _degree(entries[name]) for name in ("transition", "discount", "rewards")}
    a_step = degrees["transition"] + degrees["discount"]
    if horizon is None:
        each_state = math.prod(math.comb(n + order + 1, order + 1) for n in independent)
        acted = math.prod(math.comb(n + order + 2, order + 2) for n in independent)
        terms = each_state ** max(n_states - order, 0) * acted ** min(order, n_states)
        operations = n_states**4 * math.prod(n + 1 for n in independent) ** n_states
        degree = n_states * (order + 1) * a_step + degrees["rewards"]
    else:
        variables, total = n_states * sum(independent), len(independent) * horizon
        terms = math.comb(variables + total + order, total + order)
        # The horizon is squared because the coefficients get longer with every step as well.
        operations = horizon**2 * n_states**2 * math.comb(variables + total, total)
        degree = horizon * a_step + degrees["rewards"]
    symbols = math.comb(len(free_symbols(entries)) + degree, degree)
    terms, operations = terms * symbols * count, operations * symbols
    if terms > max_size or operations > OPERATIONS_A_TERM * max_size:
        raise ValueError(
            f"expected an expression of at most {max_size:,} terms, got up to {terms:,} for order "
            f"{order} with {n_states} states, and {operations:,} operations to begin with; raise "
            "`max_size`, or use the numerical side"
        )


def _degree(entries: Any) -> int:
    """The largest total degree of the entries in their symbols."""
    import sympy

    degree = 0
    for entry in np.ravel(np.array(entries, dtype=object)):
        if entry.free_symbols and entry.is_polynomial():
            degree = max(degree, sympy.Poly(entry, *entry.free_symbols).total_degree())
    return degree


def exact_entries(
    transition: Any, rewards: Any, discount: Any, start: Any, *, players: int, horizon: int | None
) -> dict[str, Any]:
    """All entries as sympy expressions: ``transition [S, actions of each player, S]``, ``rewards
    [players, T, S, actions]``, start ``[S]``.

    Raises:
        ValueError: shapes that do not belong together, rows that do not sum to one identically, a
            discount and a horizon that do not go together, symbols whose names are taken.
    """
    factor = exact(discount)
    checked_discount(float(factor) if factor.is_number else 0.0, horizon)
    if horizon is not None and horizon > MAX_HORIZON:
        raise ValueError(f"horizon: expected at most {MAX_HORIZON} for expressions, got {horizon}")
    kernel = _object_array("transition", transition, players + 2)
    n_states = len(kernel)
    if kernel.shape[-1] != n_states:
        raise ValueError(f"transition: expected as many next states as states, got {kernel.shape}")
    _check_rows("transition", kernel)
    initial = _object_array("start", start, 1)
    if initial.shape != (n_states,):
        raise ValueError(f"start: expected shape ({n_states},), got {initial.shape}")
    _check_rows("start", initial)
    table = _object_array("rewards", rewards, players + 3)
    if table.shape[0] != players or table.shape[2:] != kernel.shape[:-1]:
        raise ValueError(
            f"rewards: expected shape {kernel.shape[:-1]} to match transition, got "
            f"{table.shape[2:]}"
        )
    entries = {"transition": kernel, "rewards": table, "discount": factor, "start": initial}
    names = [str(symbol) for symbol in free_symbols(entries)]
    if len(set(names)) < len(names):
        raise ValueError(f"entries: expected one symbol of a name, got {names}")
    taken = [s for s in free_symbols(entries) if str(s).startswith(_RESERVED) or str(s) == "alpha"]
    if taken:
        raise ValueError(
            f"entries: expected symbols other than pi_..., theta_... and alpha, got {taken[0]}"
        )
    return entries


def _object_array(name: str, value: Any, dimension: int) -> Any:
    array = np.array(value, dtype=object)
    if array.ndim != dimension or array.size == 0:
        raise ValueError(f"{name}: expected {dimension} axes, got shape {array.shape}")
    return each(exact, array)


def exact_rows(rows: FloatArray) -> Any:
    """Rationals, each row divided by its exact sum."""
    rationals = each(exact, rows)
    return rationals / rationals.sum(axis=-1, keepdims=True)


def _check_rows(name: str, rows: Any) -> None:
    import sympy

    for index in np.ndindex(*rows.shape[:-1]):
        negative = [entry for entry in rows[index] if entry.is_number and entry < 0]
        if negative:
            raise ValueError(f"{name}: expected probabilities, got {negative[0]}")
        total = sympy.expand(sum(rows[index]))
        if total != 1:
            at = f" in row {index}" if index else ""
            raise ValueError(
                f"{name}: expected probabilities that sum to 1 exactly, got {total}{at} (`of` "
                "takes problems in floating point)"
            )


def free_symbols(entries: dict[str, Any]) -> tuple[Any, ...]:
    """All symbols of a problem's entries, by name."""
    symbols = set()
    for value in entries.values():
        for entry in np.ravel(np.array(value, dtype=object)):
            symbols |= entry.free_symbols
    return tuple(sorted(symbols, key=str))


def nested(ring: PolicyRing, array: Any) -> Any:
    """An array of entries as nested lists of ring elements."""
    if array.ndim == 1:
        return [ring.element(entry) for entry in array]
    return [nested(ring, part) for part in array]
