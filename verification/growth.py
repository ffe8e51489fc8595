"""Products and powers that bounds are made of, for numbers >= 0.

What floats do not reach is infinite: a bound that says nothing, and holds. Where a factor is 0 the
product is, so that a bound still vanishes with its errors.
"""

from __future__ import annotations

import math


def product(*factors: float) -> float:
    """Of numbers >= 0; 0 where one of them is, even beside an infinite one."""
    if 0.0 in factors:
        return 0.0
    found = math.prod(factors)
    return math.inf if math.isnan(found) else found  # too small times too large


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
        total = 1.0 + product(base, total)
    return total


def power_difference(base: float, rise: float, n: int) -> float:
    """``(base + rise)^n - base^n``, without the cancellation."""
    found, own = 0.0, 1.0
    for _ in range(n):
        found = product(base + rise, found) + product(rise, own)
        own = product(own, base)
    return found
