"""Products and powers of numbers >= 0 that never underflow to 0, for bounds.

A result that is too large for floats is infinite: a bound that says nothing, but holds. A product
that is too small for them is the smallest positive float. It is 0 only if a factor is 0, so that a
bound still vanishes with its errors.
"""

from __future__ import annotations

import math

_SMALLEST = math.nextafter(0.0, 1.0)


def saturating_product(*factors: float) -> float:
    """The product of non-negative floats, saturating: 0 only if a factor is 0 (even if another one
    is infinite), ``inf`` on overflow, the smallest positive float instead of 0 on underflow.
    """
    if 0.0 in factors:
        return 0.0
    # Mantissas and powers of two are multiplied separately: no intermediate result over- or
    # underflows, in whatever order the factors come.
    parts = [math.frexp(factor) for factor in factors]
    try:
        product = math.ldexp(math.prod(m for m, _ in parts), sum(e for _, e in parts))
    except OverflowError:
        return math.inf
    return max(product, _SMALLEST)


def power(base: float, n: int) -> float:
    """``base^n`` for base >= 0, infinite on overflow."""
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
    difference, base_power = 0.0, 1.0
    for _ in range(n):
        added = saturating_product(rise, base_power)
        difference = saturating_product(base + rise, difference) + added
        base_power = saturating_product(base_power, base)
    return difference
