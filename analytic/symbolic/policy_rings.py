"""Exact algebra of policies: polynomials in action probabilities, with softmax's derivation.

Values are rational functions of the probabilities, and so are all their derivatives in the logits,
because ``d pi_b / d theta_a = pi_b (delta_ab - pi_a)`` is again a polynomial. So exponentials never
appear. The last action's probability is eliminated (``1 -`` the others), which makes equal
functions equal polynomials: an identity holds if and only if the difference is the zero polynomial.

Coefficients are integers; the denominators of rational entries are cleared row by row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from gradbias.analytic.policies.softmax import LinearSoftmax, Policy, TabularSoftmax
from gradbias.analytic.utils.validation import FloatArray

_SIMPLEST = 1_000_000
"""Denominators up to which a float is taken for the simplest fraction that rounds to it."""


def exact(entry: object) -> Any:
    """``entry`` as a sympy expression, floats as rationals: the simplest fraction that rounds to
    it, if that has a denominator up to a million, else its exact value. Every name in a string is
    a symbol.

    Raises:
        ValueError: not a finite number, a sympy expression, or a string of one.

    >>> exact(0.1), exact(1 / 3), exact("1 - gamma")
    (1/10, 1/3, 1 - gamma)
    """
    import sympy

    if isinstance(entry, float | np.floating):
        return _fraction(float(entry))
    if isinstance(entry, int | np.integer | Fraction) and not isinstance(entry, bool):
        number = entry if isinstance(entry, Fraction) else Fraction(int(entry))
        return sympy.Rational(number.numerator, number.denominator)
    value = _parsed(entry) if isinstance(entry, str) else entry
    if not isinstance(value, sympy.Expr):
        raise ValueError(f"entry: expected a number or an expression, got {entry!r}")
    return value.xreplace({number: _fraction(float(number)) for number in value.atoms(sympy.Float)})


def _fraction(number: float) -> Any:
    import sympy

    if not math.isfinite(number):
        raise ValueError(f"entry: expected a finite number, got {number}")
    simple = Fraction(number).limit_denominator(_SIMPLEST)
    fraction = simple if float(simple) == number else Fraction(number)
    return sympy.Rational(fraction.numerator, fraction.denominator)


def _parsed(text: str) -> Any:
    """An arithmetic expression in which every name is a symbol."""
    import sympy

    if not re.fullmatch(r"[\w\s+\-*/().]+", text):
        raise ValueError(f"entry: expected a number or an expression, got {text!r}")
    names = {name: sympy.Symbol(name) for name in re.findall(r"\b[^\W\d]\w*", text)}
    try:
        return sympy.sympify(text, locals=names, rational=True)
    except (sympy.SympifyError, TypeError, SyntaxError, AttributeError):
        raise ValueError(f"entry: expected a number or an expression, got {text!r}") from None


def each(function: Callable[[Any], Any], array: Any) -> Any:
    """An object array of the function's values at the entries of an array."""
    values = np.empty(np.shape(array), dtype=object)
    for index in np.ndindex(*np.shape(array)):
        values[index] = function(array[index])
    return values


def _small_integers(features: FloatArray) -> bool:
    return bool(((features % 1 == 0) & (np.abs(features) <= 1e6)).all())


@dataclass(frozen=True, eq=False)
class PolicySymbols:
    """One player's policy in symbols: ``probabilities [S][A - 1]`` (the last one is eliminated) and
    ``parameters``; the logits are integer combinations of these, with ``weights [S, A, p]``.
    """

    probabilities: tuple[tuple[Any, ...], ...]
    parameters: tuple[Any, ...]
    shape: tuple[int, ...]
    weights: np.ndarray[Any, np.dtype[np.int64]]
    mark: str = ""

    @classmethod
    def of(cls, policy: Policy, n_states: int, n_actions: int, mark: str = "") -> PolicySymbols:
        """Symbols ``pi_s_a`` and ``theta_...`` of a tabular or linear policy, with the superscript
        ``mark``.

        Raises:
            ValueError: another policy, or features that are not integers.
        """
        shape = policy.parameter_shape(n_states, n_actions)
        size = math.prod(shape)
        if isinstance(policy, TabularSoftmax):
            weights = np.eye(size, dtype=np.int64)
        elif isinstance(policy, LinearSoftmax) and _small_integers(policy.features):
            weights = policy.features.astype(np.int64)
        else:
            raise ValueError(
                "policy: expected a tabular softmax, or linear logits with features that are "
                "integers up to a million"
            )
        return cls._named(shape, weights.reshape(n_states, n_actions, size), mark)

    @classmethod
    def _named(
        cls, shape: tuple[int, ...], weights: np.ndarray[Any, np.dtype[np.int64]], mark: str
    ) -> PolicySymbols:
        import sympy

        n_states, n_actions, _ = weights.shape
        above = f"__{mark}" if mark else ""
        probabilities = tuple(
            tuple(sympy.Symbol(f"pi{above}_{s}_{a}", positive=True) for a in range(n_actions - 1))
            for s in range(n_states)
        )
        names = ["_".join(map(str, index)) for index in np.ndindex(*shape)]
        parameters = tuple(sympy.Symbol(f"theta{above}_{name}", real=True) for name in names)
        return cls(probabilities, parameters, shape, weights, mark)

    def marked(self, more: str) -> PolicySymbols:
        """The same policy in other symbols, with ``more`` in their superscript."""
        return self._named(self.shape, self.weights, self.mark + more)

    @property
    def flat(self) -> list[Any]:
        """The symbols of all independent probabilities."""
        return [symbol for row in self.probabilities for symbol in row]

    def in_parameters(self, parameters: Sequence[Any] | None = None) -> dict[Any, Any]:
        """Each independent probability as a softmax of ``parameters`` (default: the symbols)."""
        import sympy

        theta = self.parameters if parameters is None else parameters
        softmaxes = {}
        for s, row in enumerate(self.probabilities):
            logits = [
                sum(int(w) * t for w, t in zip(ws, theta, strict=True) if w)
                for ws in self.weights[s]
            ]
            total = sum(sympy.exp(z) for z in logits)
            softmaxes.update({symbol: sympy.exp(logits[a]) / total for a, symbol in enumerate(row)})
        return softmaxes


@dataclass(frozen=True, eq=False)
class PolicyRing:
    """Integer polynomials in the probabilities of ``players`` and in further ``symbols``."""

    players: tuple[PolicySymbols, ...]
    symbols: tuple[Any, ...] = ()

    @cached_property
    def rational(self) -> Any:
        """The ring with rational coefficients."""
        from sympy import QQ
        from sympy.polys.rings import PolyRing

        names = [symbol for player in self.players for symbol in player.flat]
        return PolyRing([*names, *self.symbols] or ["one"], QQ)

    @cached_property
    def whole(self) -> Any:
        """The ring with integer coefficients."""
        from sympy import ZZ

        return self.rational.clone(domain=ZZ)

    def element(self, entry: object) -> Any:
        """``entry`` in the rational ring. Raises ValueError unless it is a polynomial in it."""
        from sympy.polys.polyerrors import PolynomialError

        expression = exact(entry)
        try:
            return self.rational.from_expr(expression)
        except (ValueError, PolynomialError):
            raise ValueError(
                f"entry: expected a polynomial in {list(self.symbols)} with rational "
                f"coefficients, got {expression}"
            ) from None

    @cached_property
    def policies(self) -> list[list[list[Any]]]:
        """``[player][S][A]``: every probability in the rational ring, the last one included."""
        policies = []
        for player in self.players:
            rows = [[self.rational.from_expr(p) for p in row] for row in player.probabilities]
            policies.append([[*row, self.rational.one - self.total(row)] for row in rows])
        return policies

    def total(self, terms: Sequence[Any]) -> Any:
        """The sum of ring elements."""
        return sum(terms, self.rational.zero)

    def cleared(self, element: Any) -> tuple[Any, Any]:
        """The integer polynomial and the integer that it is to be divided by."""
        scale, cleared = element.clear_denoms()
        return cleared.set_ring(self.whole), scale

    @cached_property
    def _drifts(self) -> list[list[list[tuple[Any, Any]]]]:
        """``[player][parameter]``: the generators that depend on it, each with its derivative."""
        by_player = []
        for player, policy in zip(self.players, self.policies, strict=True):
            drifts = []
            for weights in np.moveaxis(player.weights, -1, 0):
                pairs = []
                for s in np.flatnonzero(weights.any(axis=1)):
                    mean = self.total(
                        [int(w) * p for w, p in zip(weights[s], policy[s], strict=True)]
                    )
                    for p, w in zip(policy[s][:-1], weights[s], strict=False):
                        slope = (p * (int(w) - mean)).set_ring(self.whole)
                        if slope:
                            pairs.append((p.set_ring(self.whole), slope))
                drifts.append(pairs)
            by_player.append(drifts)
        return by_player

    def derivative(self, element: Any, player: int, parameter: int) -> Any:
        """The derivative of an integer polynomial in one parameter of a player."""
        derivative = self.whole.zero
        for generator, drift in self._drifts[player][parameter]:
            slope = element.diff(generator)
            if slope:
                derivative = derivative + slope * drift
        return derivative


@dataclass(frozen=True, eq=False)
class Quotient:
    """The number ``factor * numerator / denominator^power``; the numerator is an integer polynomial
    and the denominator that of the `QuotientField`.
    """

    numerator: Any
    power: int
    factor: Any


@dataclass(frozen=True, eq=False)
class QuotientField:
    """Quotients over powers of one ``denominator``, an integer polynomial (1 for finite horizons).

    Expressions divide it by the number ``unit``, so that its coefficients are moderate: those of
    ``det(I - gamma P_pi)`` if nothing cancels.
    """

    ring: PolicyRing
    denominator: Any
    unit: Any

    def reduced(self, quotients: list[Quotient]) -> tuple[QuotientField, list[Quotient]]:
        """The field and the quotients after cancelling a common factor of the denominator and all
        numerators, such as ``1 - gamma`` of an absorbing state.
        """
        import sympy

        common = self.denominator
        for quotient in quotients:
            if common.is_ground:
                break
            common = common.gcd(quotient.numerator)
        if common.is_ground:
            return self, quotients
        unit = self.unit / sympy.Integer(int(common.max_norm()))
        field = QuotientField(self.ring, self.denominator.exquo(common), unit)
        return field, [Quotient(q.numerator.exquo(common), q.power, q.factor) for q in quotients]

    @cached_property
    def _denominator_slopes(self) -> dict[tuple[int, int], Any]:
        return {
            (i, k): self.ring.derivative(self.denominator, i, k)
            for i, player in enumerate(self.ring.players)
            for k in range(len(player.parameters))
        }

    def derivative(self, quotient: Quotient, player: int, parameter: int) -> Quotient:
        """The derivative in one parameter of a player, by the quotient rule."""
        slope = self.ring.derivative(quotient.numerator, player, parameter)
        if quotient.power == 0:
            return Quotient(slope, 0, quotient.factor)
        falling = self._denominator_slopes[player, parameter]
        numerator = slope * self.denominator - quotient.power * quotient.numerator * falling
        return Quotient(numerator, quotient.power + 1, quotient.factor)

    def gradient(self, quotient: Quotient, player: int) -> list[Quotient]:
        """Derivatives in all parameters of a player."""
        count = len(self.ring.players[player].parameters)
        return [self.derivative(quotient, player, k) for k in range(count)]

    def expression(self, quotient: Quotient) -> Any:
        """The quotient as a sympy expression, with powers of ``det(I - gamma P_pi)`` below."""
        import sympy

        if not quotient.numerator:
            return sympy.Integer(0)
        scale = quotient.factor / sympy.Rational(self.unit) ** quotient.power
        coefficient = self.ring.rational.domain.from_sympy(scale)
        numerator = (quotient.numerator.set_ring(self.ring.rational) * coefficient).as_expr()
        if quotient.power == 0:
            return numerator
        return numerator / self._denominator_expression**quotient.power

    @cached_property
    def _denominator_expression(self) -> Any:
        import sympy

        scale = self.ring.rational.domain.from_sympy(1 / sympy.Rational(self.unit))
        return (self.denominator.set_ring(self.ring.rational) * scale).as_expr()
