"""False-alarm rates of many claims at once: a budget that is split, and false-discovery control."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from analytic.arrays import BoolArray, FloatArray, frozen_array, real_number, whole_number


@dataclass(frozen=True)
class ErrorBudget:
    """The probability ``total`` that any of a suite's claims is a false alarm.

    By the union bound: whatever the claims have to do with each other, rates that sum to at most
    ``total`` keep it. Ways to spend it: `split` among a known number, `share` among an unknown
    one, `by_weight` among unequal ones.

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
        real_number("total", self.total, low=1e-300, high=0.5)

    def split(self, **counts: int) -> float:
        """The rate of each of ``claims * examples * ...`` claims; names are the caller's own."""
        parts = [whole_number(name, count, at_least=1) for name, count in counts.items()]
        pieces = math.prod(parts)
        rate = self.total / pieces
        # Rounded down, so that the sum is not above the total by rounding either.
        fits = Fraction(rate) * pieces <= Fraction(self.total)
        return rate if fits else math.nextafter(rate, 0.0)

    def share(self, index: int) -> float:
        """The rate of claim number ``index`` = 0, 1, ... of any number: total / ((k + 1) (k + 2)),
        which sums to the total over all of them (alpha-spending).
        """
        k = whole_number("index", index, at_least=0)
        return self.total / ((k + 1) * (k + 2))

    def by_weight(self, weights: npt.ArrayLike) -> FloatArray:
        """Rates in proportion to ``weights [K]``, none negative."""
        array = frozen_array("weights", weights, (None,))
        if not (array >= 0).all() or not array.sum() > 0:
            raise ValueError(f"weights: expected numbers >= 0, not all 0, got {array.tolist()}")
        rates: FloatArray = self.total * (array / array.sum()) * (1.0 - 1e-15 * len(array))
        return rates

    def spend(self, rate: float) -> ErrorBudget:
        """What is left after a claim at ``rate``.

        Raises:
            ValueError: more than there is, or all of it.
        """
        spent = real_number("rate", rate, low=0.0, high=0.5)
        if spent >= self.total:
            raise ValueError(f"rate: expected less than the {self.total:g} left, got {spent:g}")
        return ErrorBudget(self.total - spent)


def benjamini_hochberg(p_values: npt.ArrayLike, rate: float) -> BoolArray:
    """``[K]``: the claims to report, their false discoveries a share of at most ``rate`` of them in
    expectation, if the p-values are independent (or positively dependent).

    Source: Benjamini and Hochberg 1995.

    Raises:
        ValueError: p-values outside [0, 1], or a rate outside (0, 1).
    """
    real_number("rate", rate, low=1e-300, high=1.0)
    p = frozen_array("p_values", p_values, (None,))
    if p.size and not (p.min() >= 0 and p.max() <= 1):
        raise ValueError(f"p_values: expected numbers in [0, 1], got {p.tolist()}")
    order = np.argsort(p, kind="stable")
    ranks = np.arange(1, p.size + 1)
    return _first_of(order, p[order] <= rate * ranks / max(p.size, 1))


def e_benjamini_hochberg(e_values: npt.ArrayLike, rate: float) -> BoolArray:
    """The same from e-values (wealth when sampling stopped), whatever their dependence: the k
    largest are reported where the k-th is at least K / (k rate).

    Source: Wang and Ramdas 2022 (False discovery rate control with e-values).

    Raises:
        ValueError: negative e-values, or a rate outside (0, 1).
    """
    real_number("rate", rate, low=1e-300, high=1.0)
    e = frozen_array("e_values", e_values, (None,))
    if e.size and e.min() < 0:
        raise ValueError(f"e_values: expected numbers >= 0, got {e.tolist()}")
    order = np.argsort(-e, kind="stable")
    ranks = np.arange(1, e.size + 1)
    return _first_of(order, e[order] * ranks * rate >= e.size)


def _first_of(order: npt.NDArray[np.intp], passed: BoolArray) -> BoolArray:
    """The claims up to the last one in ``order`` that passed."""
    reported = np.zeros(len(order), dtype=np.bool_)
    if passed.any():
        reported[order[: int(np.flatnonzero(passed)[-1]) + 1]] = True
    return reported
