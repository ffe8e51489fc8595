"""Intervals for the norm of a bias from sampled estimates, and the sample sizes that they take.

Let x be the mean of n estimates of covariance S, t the target, b = E x - t the bias, and z = x - E
x, assumed to be normal; f bounds the largest eigenvalue and the Frobenius norm of S. The interval
is where two statements hold, each of them with half of the false-alarm rate:

- *triangle*: ``| |x - t| - |b| | <= |z|``, and ``|z| <= sqrt(tr S / n) + sqrt(2 f L / n)`` but for
  probability exp(-L) (Gaussian concentration);
- *debiased*: ``D = |x - t|^2 - tr S / n`` is unbiased for ``|b|^2``, and in
  ``D - |b|^2 = 2 <b, z> + (|z|^2 - tr S / n)`` the two terms stay below ``2 |b| sqrt(2 f L / n)``
  and ``2 f (sqrt(L) + L) / n`` (Laurent and Massart 2000, Lemma 1).

The first is sharper in few dimensions, the second in many, where noise makes ``|x - t|`` large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.verification.confidence.mean_tests import fewest_samples

ASSUMPTION = (
    "the mean of the estimates is taken for normal (central limit theorem): an approximation, not "
    "a bound; heavy-tailed estimates exceed the stated false-alarm rate"
)
MAX_SHARE = 0.01
"""The largest share of one estimate in the sum of squares that is taken for a normal mean's. In
small samples more is allowed: the share of an estimate that is five standard deviations off."""

_SIDES = 4
"""The number of one-sided events in the debiased statement; the triangle's is one."""


@dataclass(frozen=True)
class NormInterval:
    """An interval ``[low, high]`` for a bias norm, around the ``point`` estimate."""

    low: float
    high: float
    point: float


@dataclass(frozen=True)
class Spread:
    """The size of the noise: ``trace`` and ``frobenius`` norm of one estimate's covariance."""

    trace: float
    frobenius: float

    def interval(self, distance: float, n: int, false_alarm: float) -> NormInterval:
        """The interval for the bias norm, from the distance of n estimates' mean to the target."""
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
        """The smallest bias norm that n estimates find to be above ``tolerance`` (a norm), with
        probability 1 - ``missed_bias``.
        """
        by_triangle = tolerance + self._radius(n, false_alarm / 2) + self._radius(n, missed_bias)
        linear, offset = self._margins(n, false_alarm / 2)
        missed, slack = self._margins(n, missed_bias)
        needed = tolerance**2 + 2 * tolerance * linear + offset
        return min(by_triangle, missed + math.sqrt(missed**2 + slack + needed))

    def samples_to_decide(
        self, bias: float, tolerance: float, false_alarm: float, missed_bias: float
    ) -> int | None:
        """The number of estimates, to 1%, that decide whether a bias norm is above the tolerance,
        with probability 1 - ``missed_bias``; None if 1e15 do not (the bias is almost equal to it).
        """

        def decides(n: int) -> bool:
            if bias > tolerance:
                return self.smallest_detectable(n, tolerance, false_alarm, missed_bias) <= bias
            return self._largest_upper_end(n, bias, false_alarm, missed_bias) <= tolerance

        return fewest_samples(decides, 2, accuracy=100)

    def _largest_upper_end(
        self, n: int, bias: float, false_alarm: float, missed_bias: float
    ) -> float:
        """The upper end of the interval, but for the probability ``missed_bias``."""
        by_triangle = bias + self._radius(n, missed_bias) + self._radius(n, false_alarm / 2)
        missed, slack = self._margins(n, missed_bias)
        worst = bias**2 + 2 * bias * missed + slack
        linear, offset = self._margins(n, false_alarm / 2)
        return min(by_triangle, linear + math.sqrt(linear**2 + worst + offset))

    def _radius(self, n: int, rate: float) -> float:
        """The bound of ``|z|`` in the triangle statement."""
        return math.sqrt(self.trace / n) + math.sqrt(2 * self.frobenius * math.log(1 / rate) / n)

    def _margins(self, n: int, rate: float) -> tuple[float, float]:
        """The bounds in the debiased statement: the factor of ``2 |b|``, and the other term."""
        exponent = math.log(_SIDES / rate)
        linear = math.sqrt(2 * self.frobenius * exponent / n)
        return linear, 2 * self.frobenius * (math.sqrt(exponent) + exponent) / n


def max_share(n: int) -> float:
    """The largest share of one of n estimates in the sum of squares that is allowed."""
    return max(MAX_SHARE, 25.0 / max(n, 1))


def estimate_spread(trace: float, kept: list[Rows]) -> Spread:
    """The spread, with a Frobenius norm from the differences y of m pairs of kept estimates.

    ``trace`` is that of all estimates. The norm is that of the differences' second moment,
    ``sqrt(sum_ij <y_i, y_j>^2) / m``. In many dimensions it is too large, by up to tr S / sqrt(m);
    but it is not too small where a single outcome carries the variance, as an unbiased estimate
    (without i = j) would be. The part of the trace that the kept estimates do not show, such as a
    rare outcome's, is assumed to lie in one direction, where it counts most.
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
