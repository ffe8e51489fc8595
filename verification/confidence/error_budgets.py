"""The false-alarm rate of a suite of claims, shared out among them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class ErrorBudget:
    """The probability ``total`` that any of a suite's claims is a false alarm.

    By the union bound: whatever the claims have to do with each other, rates that sum to at most
    ``total`` keep it. `split` shares it among a known number, `share` among an unknown one.

    Raises:
        ValueError: a total outside (0, 0.5].

    >>> budget = ErrorBudget(0.01)
    >>> round(budget.split(claims=4, examples=25), 12)
    0.0001
    >>> sum(budget.share(k) for k in range(100_000)) < 0.01
    True
    """

    total: float

    def __post_init__(self) -> None:
        check_rate("total", self.total)

    def split(self, **counts: int) -> float:
        """The rate of each of ``claims * examples * ...`` claims; names are the caller's own."""
        pieces = math.prod(_whole(name, count, 1) for name, count in counts.items())
        return self._part(Fraction(1, pieces))

    def share(self, index: int) -> float:
        """The rate of claim number ``index`` = 0, 1, ... of any number: total / ((k + 1) (k + 2)),
        which sums to the total over all of them.
        """
        k = _whole("index", index, 0)
        return self._part(Fraction(1, (k + 1) * (k + 2)))

    def _part(self, part: Fraction) -> float:
        """Rounded down, so that no sum is above the total by rounding."""
        exact = Fraction(self.total) * part
        rate = float(exact)
        return rate if Fraction(rate) <= exact else math.nextafter(rate, 0.0)


def check_rate(name: str, rate: object) -> float:
    """``rate``. Raises ValueError unless it is a number above 0 and at most 0.5."""
    if not (isinstance(rate, int | float) and 0.0 < rate <= 0.5):
        raise ValueError(f"{name}: expected a rate above 0 and at most 0.5, got {rate!r}")
    return float(rate)


def _whole(name: str, count: int, at_least: int) -> int:
    from gradbias.analytic.utils.validation import (
        whole_number,  # here: a pytest plugin starts without numpy
    )

    return whole_number(name, count, at_least=at_least)
