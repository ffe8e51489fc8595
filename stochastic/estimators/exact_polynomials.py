"""Polynomials with rational coefficients, from floating-point values at powers of two.

At powers of two a monomial's values differ by powers of two, so that interpolation in fractions
returns each coefficient as the float that it is, and integers exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

_DENOMINATORS = 4_000_000
"""Fractions with denominators up to this one differ by more than a float's rounding error."""

_RATIOS = 1_000
_ROUNDING = 1e-14
_DYADIC = 2**20
"""Dyadic fractions with denominators up to this one are exact floats, not rounded numbers."""

Polynomial = tuple[Fraction, ...]
"""Coefficients, lowest power first, without leading zeros."""


def interpolated(values: Sequence[float], nodes: Sequence[Fraction]) -> Polynomial:
    """The polynomial through the values at the nodes, lowest power first."""
    coefficients = [Fraction(0)] * len(nodes)
    basis = [Fraction(1)]
    slopes = [Fraction(value) for value in values]
    for d in range(len(nodes)):  # Newton's divided differences
        for power, factor in enumerate(basis):
            coefficients[power] += slopes[0] * factor
        basis = _times_root(basis, nodes[d])
        slopes = [
            (b - a) / (nodes[i + d + 1] - nodes[i]) for i, (a, b) in enumerate(pairwise(slopes))
        ]
    return tuple(coefficients)


def _times_root(polynomial: list[Fraction], root: Fraction) -> list[Fraction]:
    """The polynomial times ``(x - root)``."""
    shifted = [Fraction(0), *polynomial]
    return [a - root * b for a, b in zip(shifted, [*polynomial, Fraction(0)], strict=True)]


def simplified(polynomials: Sequence[Polynomial]) -> tuple[list[Polynomial], bool]:
    """The polynomials with simple fractions as coefficients, and whether any value was rounded.

    A coefficient becomes the fraction with a moderate denominator that equals it up to rounding; or
    else a simple ratio times an earlier, larger coefficient, as with powers of 0.95; or else it
    stays the float that it is.
    """
    noise = [max((abs(c) for c in p), default=Fraction(0)) for p in polynomials]
    raw = {(c, size) for p, size in zip(polynomials, noise, strict=True) for c in p}
    rounded = any(c.denominator > _DYADIC or c.denominator & (c.denominator - 1) for c, _ in raw)
    known: list[Fraction] = []
    simple = {}
    for c, size in sorted(raw, key=lambda pair: -abs(pair[0])):
        simple[c, size] = _simple(c, _ROUNDING * float(max(size, abs(c))), known)
    results = [
        _trimmed([simple[c, size] for c in p]) for p, size in zip(polynomials, noise, strict=True)
    ]
    return results, rounded


def _simple(number: Fraction, noise: float, known: list[Fraction]) -> Fraction:
    """One coefficient of `simplified`; it is added to ``known`` unless it is an integer."""
    near = number.limit_denominator(_DENOMINATORS)
    if abs(number - near) <= noise:
        if near.denominator > 1 and near not in known:
            known.append(near)
        return near
    for base in known:
        near = base * (number / base).limit_denominator(_RATIOS)
        if near and abs(number - near) <= noise:
            known.append(near)
            return near
    return number


def _trimmed(coefficients: list[Fraction]) -> Polynomial:
    """The coefficients without leading zeros, which stand at the end."""
    while coefficients and coefficients[-1] == 0:
        coefficients.pop()
    return tuple(coefficients)
