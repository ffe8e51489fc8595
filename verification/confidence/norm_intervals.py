"""Intervals for the norm of a bias from sampled estimates, and their design.

Let x be the mean of n estimates of covariance S, and z = x - E x, taken for normal. Two statements
are made, each at half the false-alarm rate, and the interval is where both hold:

- *triangle*: ``| |x - t| - |b| | <= |z|``, and ``|z| <= sqrt(tr S / n) + sqrt(2 f L / n)`` but for
  probability exp(-L) (Gaussian concentration);
- *debiased*: ``D = |x - t|^2 - tr S / n`` is unbiased for ``|b|^2``, and in
  ``D - |b|^2 = 2 <b, z> + (|z|^2 - tr S / n)`` the two terms stay below ``2 |b| sqrt(2 f L / n)``
  and ``2 f (sqrt(L) + L) / n`` (Laurent and Massart 2000, Lemma 1).

t is the target, b the bias, f bounds the largest eigenvalue and the Frobenius norm of S. The first
is sharper in few dimensions, the second in many, where ``|x - t|`` alone would call noise bias.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.derivatives.assembly import Rows

ASSUMPTION = (
    "the mean of the estimates is taken for normal (central limit theorem): an approximation, not "
    "a bound; heavy-tailed estimates exceed the stated false-alarm rate"
)
_SIDES = 4
"""One-sided events in the debiased statement; the triangle's is one."""


@dataclass(frozen=True)
class NormInterval:
    """An interval ``[low, high]`` for a bias norm, around the ``point`` estimate."""

    low: float
    high: float
    point: float


@dataclass(frozen=True)
class Spread:
    """How estimates scatter: ``trace`` and ``frobenius`` norm of one estimate's covariance."""

    trace: float
    frobenius: float

    def interval(self, distance: float, n: int, false_alarm: float) -> NormInterval:
        """For the bias norm, given the distance of the mean of n estimates from the target."""
        excess = distance**2 - self.trace / n
        radius = self._radius(n, false_alarm / 2)
        linear, offset = self._margins(n, false_alarm / 2)
        high = linear + math.sqrt(max(linear**2 + excess + offset, 0.0))
        low = 0.0
        if excess > offset:
            low = math.sqrt(linear**2 + excess - offset) - linear
        low, high = max(low, distance - radius, 0.0), min(high, distance + radius)
        point = min(max(math.sqrt(max(excess, 0.0)), low), high)
        return NormInterval(low, high, point)

    def smallest_detectable(
        self, n: int, tolerance: float, false_alarm: float, missed_bias: float
    ) -> float:
        """The smallest bias norm found to be above ``tolerance`` (a norm) by n estimates, but for
        the probability ``missed_bias``.
        """
        by_triangle = tolerance + self._radius(n, false_alarm / 2) + self._radius(n, missed_bias)
        linear, offset = self._margins(n, false_alarm / 2)
        missed, slack = self._margins(n, missed_bias)
        needed = tolerance**2 + 2 * tolerance * linear + offset
        return min(by_triangle, missed + math.sqrt(missed**2 + slack + needed))

    def samples_to_decide(
        self, bias: float, tolerance: float, false_alarm: float, missed_bias: float
    ) -> int | None:
        """Estimates that decide whether a bias norm is above the tolerance, but for the probability
        ``missed_bias``; None: no number up to 1e15 does (the bias is as good as at it).
        """

        def decides(n: int) -> bool:
            if bias > tolerance:
                return self.smallest_detectable(n, tolerance, false_alarm, missed_bias) <= bias
            return self._largest_upper_end(n, bias, false_alarm, missed_bias) <= tolerance

        high = 2
        while not decides(high):
            high *= 2
            if high > 10**15:
                return None
        low = high // 2
        while high - low > max(1, low // 100):
            middle = (low + high) // 2
            low, high = (low, middle) if decides(middle) else (middle, high)
        return high

    def _largest_upper_end(
        self, n: int, bias: float, false_alarm: float, missed_bias: float
    ) -> float:
        by_triangle = bias + self._radius(n, missed_bias) + self._radius(n, false_alarm / 2)
        missed, slack = self._margins(n, missed_bias)
        worst = bias**2 + 2 * bias * missed + slack
        linear, offset = self._margins(n, false_alarm / 2)
        return min(by_triangle, linear + math.sqrt(linear**2 + worst + offset))

    def _radius(self, n: int, rate: float) -> float:
        return math.sqrt(self.trace / n) + math.sqrt(2 * self.frobenius * math.log(1 / rate) / n)

    def _margins(self, n: int, rate: float) -> tuple[float, float]:
        size = math.log(_SIDES / rate)
        linear = math.sqrt(2 * self.frobenius * size / n)
        return linear, 2 * self.frobenius * (math.sqrt(size) + size) / n


def estimate_spread(trace: float, kept: list[Rows]) -> Spread:
    """The spread, its Frobenius norm from differences y of m independent pairs of kept estimates.

    That of their own second moment, ``sqrt(sum_ij <y_i, y_j>^2) / m``: too large by up to tr S /
    sqrt(m) in many dimensions, but not small where a single outcome carries the variance (as an
    unbiased estimate, without i = j, would be). What the kept ones do not show of the trace (of all
    estimates), a rare outcome's share, is taken to lie in one direction, where it counts most.
    """
    matrix = _stacked(kept)
    pairs = matrix.shape[0] // 2
    differences = (matrix[: 2 * pairs : 2] - matrix[1 : 2 * pairs : 2]) / math.sqrt(2)
    products: FloatArray = np.asarray((differences @ differences.T).todense())
    shown = float(np.trace(products)) / pairs
    frobenius = float(np.linalg.norm(products)) / pairs
    return Spread(trace, min(frobenius + max(trace - shown, 0.0), trace))


def _stacked(kept: list[Rows]) -> Any:
    """The kept estimates as one sparse matrix, a row each."""
    from scipy.sparse import csr_array, vstack

    matrices = []
    for rows in kept:
        count, width = rows.values.shape
        if rows.indices is None:
            matrices.append(csr_array(rows.values))
            continue
        pointers = np.arange(count + 1) * width
        parts = (rows.values.ravel(), rows.indices.ravel(), pointers)
        matrices.append(csr_array(parts, shape=(count, rows.size)))
    return vstack(matrices).tocsr()
