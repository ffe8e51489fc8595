"""Tests of bounded means, with the sample size or the smallest detectable bias that a test has.

The test is `Betting`'s interval. Its power follows from its wealth. For n observations x in [0, 1]
with mean m + b and variance at most v, a stake of c bets the fraction f = c / (1 + c m), between
c / (1 + c) and c. If c is at most 1 (one of J stakes), the log wealth against the wrong mean m is

    log wealth >= f (sum (x - m)) - (1/2 + f/3 + q f^2) f^2 sum (x - m)^2 - log J,

by ``log(1 + z) >= z - z^2/2 + z^3/3 - q z^4`` for z >= -1/2, q = `QUARTIC` (equal at -1/2:
``(log(1 + z) - z + z^2/2 - z^3/3) / z^4 = -int_0^1 u^3 / (1 + u z) du`` increases). The right side
is concave in f, so over all m it is smallest at an end of the range of f.

Bernstein's inequality bounds both sums, each but for half of the missed-bias rate. So the design
holds for every distribution with that range and variance, not only for normal ones.

Source: *TensorFlow Probability*, ``statistical_testing``, for the three methods; Boucheron, Lugosi
and Massart 2013, Cor. 2.11, for Bernstein's inequality.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, frozen_array, real_number, whole_number
from gradbias.verification.confidence.sequences import STAKES, Betting

QUARTIC = 16.0 * (math.log(2.0) - 2.0 / 3.0)
"""The coefficient that makes the polynomial of degree four a lower bound of log(1 + z)."""

MAX_SAMPLES = 10**15
"""The largest sample size that is looked for."""


@dataclass(frozen=True)
class MeanTest:
    """A test of means of observations in a range, of one or of several at once.

    Args:
        low: the smallest possible observation.
        high: the largest possible observation.
        false_alarm: the type I error rate: the probability that any correct mean is refused.
        missed_bias: the type II error rate: the probability that a given wrong mean passes.
        variance: an upper bound of an observation's variance (None: the range's).
        claims: the largest number of means that are tested at once.

    Raises:
        ValueError: an empty range, a rate outside (0, 0.5], or a negative variance.

    >>> test = MeanTest(low=0.0, high=1.0, false_alarm=0.01, missed_bias=0.05)
    >>> n = test.samples_needed(0.1)
    >>> test.smallest_detectable_bias(n) <= 0.1 < test.smallest_detectable_bias(n - 1)
    True
    """

    low: float
    high: float
    false_alarm: float = 1e-3
    missed_bias: float = 1e-2
    variance: float | None = None
    claims: int = 1

    def __post_init__(self) -> None:
        real_number("low", self.low, low=-1e100, high=1e100)
        real_number("high", self.high, low=math.nextafter(self.low, math.inf), high=1e100)
        real_number("false_alarm", self.false_alarm, low=1e-300, high=0.5)
        real_number("missed_bias", self.missed_bias, low=1e-300, high=0.5)
        whole_number("claims", self.claims, at_least=1)
        if self.variance is not None:
            real_number("variance", self.variance, low=0.0, high=1e200)

    def assert_mean(self, samples: npt.ArrayLike, expected: npt.ArrayLike) -> None:
        """Asserts that the samples' means may be the expected ones, all at once.

        Args:
            samples: n observations of each mean, ``[n, ...]``.
            expected: the means, ``[...]``, or one number for all.

        Raises:
            AssertionError: a mean is outside its interval, which the message states.
            ValueError: samples out of range, or more means than ``claims``.
        """
        array = frozen_array("samples", samples)
        _check_samples(array, "(n, ...)", fits=array.ndim >= 1)
        means = frozen_array("expected", expected)
        if means.shape not in ((), array.shape[1:]):
            raise ValueError(f"expected: expected shape {array.shape[1:]}, got {means.shape}")
        means = np.broadcast_to(means, array.shape[1:]).ravel()
        if means.size > self.claims:
            raise ValueError(f"claims: expected at least {means.size}, got {self.claims}")
        low, high = self.interval(array.reshape(len(array), -1))
        wrong = np.flatnonzero((means < low) | (means > high))
        if wrong.size:
            k = wrong[0]
            raise AssertionError(
                f"the mean of component {k} is in [{low[k]:.6g}, {high[k]:.6g}], not "
                f"{means[k]:.6g} ({len(array):,} samples, false alarm {self.false_alarm:g})"
            )

    def interval(self, samples: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Simultaneous intervals ``[D]`` of the means of ``samples [n, D]``."""
        samples = frozen_array("samples", samples)
        _check_samples(samples, "(n, D)", fits=samples.ndim == 2)
        unit = (samples - self.low) / (self.high - self.low)
        if unit.size and not (unit.min() >= -1e-9 and unit.max() <= 1 + 1e-9):
            raise ValueError(f"samples: expected numbers in [{self.low:g}, {self.high:g}]")
        sequence = Betting.empty(samples.shape[1]).updated(np.clip(unit, 0.0, 1.0))
        low, high = sequence.bounds(self.false_alarm / self.claims)
        width = self.high - self.low
        # Rounding must not move the upper end of the range: a mean can be there.
        upper = np.where(high == 1.0, self.high, self.low + width * high)
        return self.low + width * low, upper

    def smallest_detectable_bias(self, n: int) -> float:
        """The smallest bias that n samples find with probability 1 - ``missed_bias`` (or inf)."""
        whole_number("n", n, at_least=1)
        if not self._finds(n, 1.0):
            return math.inf
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self._finds(n, middle) else (middle, high)
        return high * (self.high - self.low)

    def samples_needed(self, bias: float) -> int:
        """The number of samples that find a ``bias`` with probability 1 - ``missed_bias``.

        Raises:
            ValueError: a bias larger than the range, or so small that 1e15 samples do not find it.
        """
        width = self.high - self.low
        unit = abs(real_number("bias", bias, low=-width, high=width)) / width
        real_number("bias", unit, low=1e-300, high=1.0)
        samples = fewest_samples(lambda n: self._finds(n, unit), 1)
        if samples is None:
            raise ValueError(f"bias: {bias:g} takes more than {MAX_SAMPLES:.0e} samples")
        return samples

    def _finds(self, n: int, bias: float) -> bool:
        """Whether n samples in [0, 1] refute a mean that is wrong by ``bias`` (see the module)."""
        variance = 0.25
        if self.variance is not None:
            variance = min(self.variance / (self.high - self.low) ** 2, 0.25)
        exponent = math.log(2.0 / self.missed_bias)
        second_moment = variance + bias**2
        first = n * bias - _bernstein(n * variance, exponent)
        squares = min(n * second_moment + _bernstein(n * second_moment, exponent), float(n))
        most = STAKES[STAKES <= 1.0]
        fractions = np.stack([most / (1.0 + most), most])
        losses = (0.5 + fractions / 3 + QUARTIC * fractions**2) * fractions**2 * squares
        sure = (fractions * first - losses).min(axis=0)
        wealth = sure.max() - math.log(len(STAKES))
        return bool(wealth >= math.log(2.0 * self.claims / self.false_alarm))


def fewest_samples(
    suffices: Callable[[int], bool], start: int, *, accuracy: int = MAX_SAMPLES
) -> int | None:
    """The fewest samples, at least ``start``, that suffice, too many by at most one part in
    ``accuracy``; None if `MAX_SAMPLES` do not suffice. If n suffice, so must all more than n.
    """
    high = start
    while not suffices(high):
        high *= 2
        if high > MAX_SAMPLES:
            return None
    low = high // 2
    while high - low > max(1, low // accuracy):
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def _check_samples(array: FloatArray, shape: str, *, fits: bool) -> None:
    if not fits or len(array) == 0:
        raise ValueError(f"samples: expected shape {shape}, n >= 1, got {array.shape}")


def _bernstein(variance: float, exponent: float) -> float:
    """What a sum of that variance, of numbers at most 1 above their means, exceeds its mean by with
    probability at most ``e^-exponent``.
    """
    return math.sqrt(2.0 * variance * exponent) + exponent / 3.0
