"""Polynomials with rational coefficients from values in floating point at powers of two.

There a monomial's values differ by powers of two alone, so that interpolation in fractions gives
back its coefficient as the float that it is, and whole numbers as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

_DENOMINATORS = 4_000_000
"""Fractions of smaller denominators lie further apart than what floats are rounded by."""

_RATIOS = 1_000
_ROUNDING = 1e-14
_WHOLE = 2**20
"""Dyadic fractions down to one over this are what floats hold exactly, not rounded numbers."""

Polynomial = tuple[Fraction, ...]
"""Coefficients, lowest power first, without leading zeros."""


def interpolated(values: Sequence[float], nodes: Sequence[Fraction]) -> Polynomial:
    """The polynomial through the values at the nodes, lowest power first."""
    found = [Fraction(0)] * len(nodes)
    basis = [Fraction(1)]
    slopes = [Fraction(value) for value in values]
    for d in range(len(nodes)):  # Newton's divided differences
        for power, factor in enumerate(basis):
            found[power] += slopes[0] * factor
        basis = _times_root(basis, nodes[d])
        slopes = [
            (b - a) / (nodes[i + d + 1] - nodes[i]) for i, (a, b) in enumerate(pairwise(slopes))
        ]
    return tuple(found)


def _times_root(polynomial: list[Fraction], root: Fraction) -> list[Fraction]:
    """Times ``(x - root)``."""
    shifted = [Fraction(0), *polynomial]
    return [a - root * b for a, b in zip(shifted, [*polynomial, Fraction(0)], strict=True)]


def simplified(polynomials: Sequence[Polynomial]) -> tuple[list[Polynomial], bool]:
    """The polynomials with simple coefficients in place of what floats made of them, and whether
    anything was rounded.

    A coefficient is taken for the fraction of a moderate denominator that it is to rounding, or for
    one that was found before (of a larger number) times a simple ratio, as powers of 0.95 are; else
    for the float itself.
    """
    noise = [max((abs(c) for c in p), default=Fraction(0)) for p in polynomials]
    raw = {(c, size) for p, size in zip(polynomials, noise, strict=True) for c in p}
    rounded = any(c.denominator > _WHOLE or c.denominator & (c.denominator - 1) for c, _ in raw)
    known: list[Fraction] = []
    simple = {}
    for c, size in sorted(raw, key=lambda pair: -abs(pair[0])):
        simple[c, size] = _simple(c, _ROUNDING * float(max(size, abs(c))), known)
    found = [
        _trimmed([simple[c, size] for c in p]) for p, size in zip(polynomials, noise, strict=True)
    ]
    return found, rounded


def _simple(number: Fraction, noise: float, known: list[Fraction]) -> Fraction:
    """See `simplified`; adds to ``known`` what is no whole number."""
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
    while coefficients and coefficients[-1] == 0:
        coefficients.pop()
    return tuple(coefficients)
