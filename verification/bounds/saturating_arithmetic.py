"""Products and powers that bounds are made of, for numbers >= 0.

What is too large for floats is infinite: a bound that says nothing, and holds. A product that is
too small for them is the smallest of them; 0 it is where a factor is, so that a bound still
vanishes with its errors.
"""

from __future__ import annotations

import math

_SMALLEST = math.nextafter(0.0, 1.0)


def saturating_product(*factors: float) -> float:
    """Of numbers >= 0; 0 where one of them is, even beside an infinite one, and only there."""
    if 0.0 in factors:
        return 0.0
    # Powers of two apart, so that neither part of a product is too small or too large before all.
    parts = [math.frexp(factor) for factor in factors]
    try:
        found = math.ldexp(math.prod(m for m, _ in parts), sum(e for _, e in parts))
    except OverflowError:
        return math.inf
    return max(found, _SMALLEST)


def power(base: float, n: int) -> float:
    """``base^n``, for base >= 0."""
    try:
        return base**n
    except OverflowError:
        return math.inf


def powers(base: float, n: int) -> float:
    """``1 + base + .. + base^{n-1}``."""
    total = 0.0
    for _ in range(n):
        total = 1.0 + saturating_product(base, total)
    return total


def power_difference(base: float, rise: float, n: int) -> float:
    """``(base + rise)^n - base^n``, without the cancellation."""
    found, own = 0.0, 1.0
    for _ in range(n):
        found = saturating_product(base + rise, found) + saturating_product(rise, own)
        own = saturating_product(own, base)
    return found
