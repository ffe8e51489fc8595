"""The numbers of an exact interpretation: polynomials that are truncated in infinitesimals.

A number is an integer, a fraction, or a `Polynomial` in the symbols of one trace: the discount,
rewards and critic values, log-probabilities L, their exponentials ``P = exp(L)`` (with powers of
either sign), and one infinitesimal for each entry of a leaf. Terms of more than `ORDER_LIMIT`
infinitesimals never arise; how many are kept is a property of the polynomial.

A monomial is one integer: the exponent of symbol i stands in its bits from 16 i on, as a signed
number, so that monomials are multiplied by adding integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

Number = Any
"""An int, a Fraction or a Polynomial."""

ORDER_LIMIT = 3
MAX_EXPONENT = 2**12
"""The largest exponent, far from where the fields of a monomial would overlap."""

MAX_TERMS = 200_000
"""The most terms of a polynomial."""

_BITS = 16
_HALF = 1 << (_BITS - 1)
_FIELD = (1 << _BITS) - 1


class InexactError(ValueError):
    """An operation that has no exact result of this kind; the message says why."""


class Polynomial:
    """A polynomial; ``parts[k]`` are its terms with k infinitesimals, by monomial, and ``degree``
    is at least the largest exponent.
    """

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("degree", "parts")

    def __init__(self, parts: tuple[dict[int, Any], ...], degree: int) -> None:
        self.parts = parts
        self.degree = degree

    def __add__(self, other: Number) -> Number:
        if isinstance(other, Polynomial):
            parts = tuple(map(_sum, self.parts, other.parts))
            return _normal(parts, max(self.degree, other.degree))
        if not isinstance(other, int | Fraction):
            return NotImplemented
        if not other:
            return self
        return _normal((_sum(self.parts[0], {0: other}), *self.parts[1:]), self.degree)

    __radd__ = __add__

    def __neg__(self) -> Polynomial:
        return Polynomial(
            tuple({m: -c for m, c in part.items()} for part in self.parts), self.degree
        )

    def __sub__(self, other: Number) -> Number:
        return self + -other

    def __rsub__(self, other: Number) -> Number:
        return -self + other

    def __mul__(self, other: Number) -> Number:
        if isinstance(other, Polynomial):
            return _product(self, other)
        if not isinstance(other, int | Fraction):
            return NotImplemented
        if not other:
            return 0
        if other == 1:
            return self
        return Polynomial(
            tuple({m: c * other for m, c in part.items()} for part in self.parts), self.degree
        )

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomial) and self.parts == other.parts

    def __bool__(self) -> bool:
        raise InexactError("a comparison of a symbol")

    @property
    def infinitesimal(self) -> Number:
        """The terms with infinitesimals."""
        return _normal(({}, *self.parts[1:]), self.degree)


def _sum(one: dict[int, Any], other: dict[int, Any]) -> dict[int, Any]:
    if not other:
        return one
    total = dict(one)
    for monomial, coefficient in other.items():
        added = total.get(monomial, 0) + coefficient
        if added:
            total[monomial] = added
        else:
            del total[monomial]
    return total


def _product(one: Polynomial, other: Polynomial) -> Number:
    degree = one.degree + other.degree
    parts: tuple[dict[int, Any], ...] = tuple({} for _ in one.parts)
    for i, first in enumerate(one.parts):
        for j in range(len(parts) - i):
            second, total = other.parts[j], parts[i + j]
            for m, c in first.items():
                for n, d in second.items():
                    total[m + n] = total.get(m + n, 0) + c * d
    if degree > MAX_EXPONENT or sum(map(len, parts)) > MAX_TERMS:
        raise InexactError("a polynomial that is too large")
    return _normal(tuple({m: c for m, c in part.items() if c} for part in parts), degree)


def _normal(parts: tuple[dict[int, Any], ...], degree: int) -> Number:
    """The polynomial, or the plain number that it is."""
    if any(parts[1:]) or any(parts[0]):
        return Polynomial(parts, degree)
    return parts[0].get(0, 0)


def symbol(index: int, order: int, *, infinitesimal: bool = False) -> Polynomial:
    """The symbol of that index, in polynomials that keep ``order`` infinitesimals."""
    parts: list[dict[int, Any]] = [{} for _ in range(order + 1)]
    parts[infinitesimal][1 << (_BITS * index)] = 1
    return Polynomial(tuple(parts), 1)


def exponents(monomial: int) -> Iterator[tuple[int, int]]:
    """The symbols of a monomial and their exponents, which are not 0."""
    index = 0
    while monomial:
        field = monomial & _FIELD
        exponent = field - (_FIELD + 1) if field >= _HALF else field
        if exponent:
            yield index, exponent
        monomial = (monomial - exponent) >> _BITS
        index += 1


def is_plain(number: Number) -> bool:
    """Whether a number has no symbols."""
    return not isinstance(number, Polynomial)


def is_fixed(number: Number) -> bool:
    """Whether a number has no infinitesimals."""
    return is_plain(number) or not any(number.parts[1:])


def fixed(number: Number) -> Number:
    """A number without its infinitesimals: what ``detach`` leaves of it."""
    if is_plain(number):
        return number
    return _normal((number.parts[0], *({} for _ in number.parts[1:])), number.degree)


def value(number: Number) -> Number:
    """The plain number that a number is up to infinitesimals; None if there is none."""
    rest = fixed(number)
    return rest if is_plain(rest) else None


def power(number: Number, exponent: int, invertible: frozenset[int]) -> Number:
    """A number to an integer power."""
    if exponent < 0:
        return power(inverse(number, invertible), -exponent, invertible)
    if exponent > MAX_EXPONENT:
        raise InexactError(f"a power of {exponent}")
    if is_plain(number):
        return Fraction(number) ** exponent if isinstance(number, Fraction) else number**exponent
    result: Number = 1
    while exponent:
        if exponent & 1:
            result = result * number
        exponent >>= 1
        if exponent:
            number = number * number
    return result


def inverse(number: Number, invertible: frozenset[int]) -> Number:
    """1 over a number: one without symbols, or a product of ``invertible`` ones, up to
    infinitesimals.
    """
    if is_plain(number):
        if not number:
            raise InexactError("a division by 0")
        return Fraction(1) / number
    if len(number.parts[0]) != 1:
        raise InexactError("a division by what is no product of probabilities")
    ((monomial, coefficient),) = number.parts[0].items()
    if any(index not in invertible for index, _ in exponents(monomial)):
        raise InexactError("a division by what is no product of probabilities")
    reciprocal = _single(-monomial, Fraction(1) / coefficient, number)
    return _series(number.infinitesimal * reciprocal, [1, -1, 1, -1]) * reciprocal


def _single(monomial: int, coefficient: Any, like: Polynomial) -> Number:
    parts = ({monomial: coefficient}, *({} for _ in like.parts[1:]))
    return _normal(parts, like.degree)


def _series(small: Number, coefficients: list[Any]) -> Number:
    """``sum_k coefficients[k] small^k``; the rest is 0, for an infinitesimal."""
    total: Number = 0
    term: Number = 1
    for coefficient in coefficients:
        total = total + term * coefficient
        term = term * small
    return total


def exponential(number: Number, exponential_of: dict[int, int]) -> Number:
    """The exponential of a sum of log-probabilities and infinitesimals: a product of probabilities;
    ``exponential_of[i]`` is the symbol that stands for exp of symbol i.
    """
    if is_plain(number):
        if number:
            raise InexactError("exp of a number that is not 0")
        return 1
    monomial = 0
    for part, coefficient in number.parts[0].items():
        symbols = list(exponents(part))
        whole = Fraction(coefficient).denominator == 1 and abs(coefficient) < MAX_EXPONENT
        if len(symbols) != 1 or symbols[0][1] != 1 or not whole:
            raise InexactError("exp of what is no sum of log-probabilities")
        if symbols[0][0] not in exponential_of:
            raise InexactError("exp of what is no sum of log-probabilities")
        monomial += int(coefficient) << (_BITS * exponential_of[symbols[0][0]])
    size = sum(abs(int(c)) for c in number.parts[0].values())
    product = Polynomial(({monomial: 1}, *({} for _ in number.parts[1:])), max(size, 1))
    if monomial == 0:
        return _series(number.infinitesimal, _EXPONENTIAL)
    return product * _series(number.infinitesimal, _EXPONENTIAL)


_EXPONENTIAL = [1, 1, Fraction(1, 2), Fraction(1, 6)]
_LOGARITHM = [0, 1, Fraction(-1, 2), Fraction(1, 3)]


def logarithm(number: Number, logarithm_of: dict[int, int]) -> Number:
    """The logarithm of a product of probabilities, up to infinitesimals."""
    if is_plain(number):
        if number != 1:
            raise InexactError("log of a number that is not 1")
        return 0
    terms = list(number.parts[0].items())
    symbols = list(exponents(terms[0][0])) if len(terms) == 1 else []
    if len(terms) != 1 or terms[0][1] != 1 or any(i not in logarithm_of for i, _ in symbols):
        raise InexactError("log of what is no product of probabilities")
    total: Number = 0
    for index, exponent in symbols:
        total = total + symbol(logarithm_of[index], len(number.parts) - 1) * exponent
    reciprocal = _single(-terms[0][0], 1, number)
    return total + _series(number.infinitesimal * reciprocal, _LOGARITHM)
