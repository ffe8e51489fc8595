"""The false-alarm rate of a suite of claims, divided among them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class ErrorBudget:
    """An upper bound of the probability that any of a suite's claims is a false alarm.

    By the union bound, claims whose rates sum to at most ``total`` keep it, however they depend on
    each other. `split` divides it among a known number of claims, `share` among an unknown one.

    Args:
        total: that bound, in (0, 0.5].

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
        """The rate of each of ``claims * examples * ...`` claims; the names are free."""
        pieces = math.prod(_whole(name, count, 1) for name, count in counts.items())
        return self._part(Fraction(1, pieces))

    def share(self, index: int) -> float:
        """The rate of claim k = ``index``, from 0 on: ``total / ((k + 1) (k + 2))``; their sum over
        all k is the total.
        """
        k = _whole("index", index, 0)
        return self._part(Fraction(1, (k + 1) * (k + 2)))

    def _part(self, part: Fraction) -> float:
        """That part of the total, rounded down, so that no sum exceeds the total by rounding."""
        exact = Fraction(self.total) * part
        rate = float(exact)
        return rate if Fraction(rate) <= exact else math.nextafter(rate, 0.0)


def check_rate(name: str, rate: object) -> float:
    """The rate as a float. Raises ValueError unless it is a number above 0 and at most 0.5."""
    if not (isinstance(rate, int | float) and 0.0 < rate <= 0.5):
        raise ValueError(f"{name}: expected a rate above 0 and at most 0.5, got {rate!r}")
    return float(rate)


def _whole(name: str, count: int, at_least: int) -> int:
    # Imported here, so that the pytest plugin starts without numpy.
    from gradbias.analytic.utils.validation import whole_number

    return whole_number(name, count, at_least=at_least)
