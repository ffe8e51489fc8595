"""Polynomials with rational coefficients from values in floating point at whole numbers."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from analytic.arrays import FloatArray

_DENOMINATORS = 1_000_000
_WHOLE = 1e-9

Polynomial = tuple[Fraction, ...]
"""Coefficients, lowest power first, without leading zeros."""


def interpolated(column: FloatArray) -> Polynomial:
    """The polynomial through values at 2, 3, ..., lowest power first, without leading zeros."""
    found: list[Fraction] = [Fraction(0)] * len(column)
    basis = [Fraction(1)]
    slopes = [_simple(value) for value in column.tolist()]
    for d in range(len(column)):  # Newton's divided differences
        for power, factor in enumerate(basis):
            found[power] += slopes[0] * factor
        basis = _times_root(basis, 2 + d)
        slopes = [(b - a) / (d + 1) for a, b in pairwise(slopes)]
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)


def _times_root(polynomial: list[Fraction], root: int) -> list[Fraction]:
    """Times ``(x - root)``."""
    shifted = [Fraction(0), *polynomial]
    return [a - root * b for a, b in zip(shifted, [*polynomial, Fraction(0)], strict=True)]


def _simple(value: float) -> Fraction:
    """The whole number nearby, or else the fraction of a moderate denominator."""
    whole = round(value)
    if abs(value - whole) <= _WHOLE:
        return Fraction(whole)
    return Fraction(value).limit_denominator(_DENOMINATORS)
