"""Tests of a bounded mean with both error rates designed: assert, smallest detectable, samples.

The test is `Betting`'s interval. Its power follows from its wealth: after n observations of mean
m + b and variance at most v in [0, 1], for each fraction f (`BETS`, J of them),

    log wealth >= f (sum (x - m)) - (1/2 + f/3 + c f^2) f^2 sum (x - m)^2 - log J,

and both sums are bounded by Bernstein's inequality, each but for half of the missed-bias rate. So
the design holds for every distribution with that range and variance, not for normal ones alone.

Source: for the grammar of the three, *TensorFlow Probability*, ``statistical_testing``; Bernstein's
inequality: Boucheron, Lugosi and Massart 2013, Cor. 2.11.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, frozen_array, real_number, whole_number
from gradbias.verification.confidence.sequences import BETS, QUARTIC, Betting

_MOST = 10**15


@dataclass(frozen=True)
class MeanTest:
    """The design of a test of means in [low, high] with ``variance`` at most (None: the largest
    that the range allows), ``claims`` of them at once.

    ``false_alarm`` is the probability that any of the claims fails wrongly, ``missed_bias`` that a
    given wrong one passes.

    Raises:
        ValueError: numbers that do not fit.

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
        """That the means of ``samples [n, ...]`` may be ``expected [...]``, all ``claims`` at once.

        Raises:
            AssertionError: one is not, with its interval.
            ValueError: samples out of range, or more means than ``claims``.
        """
        array = frozen_array("samples", samples)
        _check_samples(array, "(n, ...)", fits=array.ndim >= 1)
        wanted = frozen_array("expected", expected)
        if wanted.shape not in ((), array.shape[1:]):
            raise ValueError(f"expected: expected shape {array.shape[1:]}, got {wanted.shape}")
        wanted = np.broadcast_to(wanted, array.shape[1:]).ravel()
        if wanted.size > self.claims:
            raise ValueError(f"claims: expected at least {wanted.size}, got {self.claims}")
        low, high = self.interval(array.reshape(len(array), -1))
        wrong = np.flatnonzero((wanted < low) | (wanted > high))
        if wrong.size:
            k = wrong[0]
            raise AssertionError(
                f"the mean of component {k} is in [{low[k]:.6g}, {high[k]:.6g}], not "
                f"{wanted[k]:.6g} ({len(array):,} samples, false alarm {self.false_alarm:g})"
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
        # An end of the range is itself, not what rounding makes of it.
        upper = np.where(high == 1.0, self.high, self.low + width * high)
        return self.low + width * low, upper

    def smallest_detectable_bias(self, n: int) -> float:
        """The smallest bias that n samples find but for the probability ``missed_bias``; infinite
        where not even the whole range is.
        """
        whole_number("n", n, at_least=1)
        if not self._finds(n, 1.0):
            return math.inf
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self._finds(n, middle) else (middle, high)
        return high * (self.high - self.low)

    def samples_needed(self, bias: float) -> int:
        """The samples that find a ``bias`` but for the probability ``missed_bias``.

        Raises:
            ValueError: a bias that no mean in the range can have, or that 1e15 do not find.
        """
        width = self.high - self.low
        unit = abs(real_number("bias", bias, low=-width, high=width)) / width
        real_number("bias", unit, low=1e-300, high=1.0)
        high = 1
        while not self._finds(high, unit):
            high *= 2
            if high > _MOST:
                raise ValueError(f"bias: {bias:g} takes more than {_MOST:.0e} samples")
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._finds(middle, unit) else (middle, high)
        # Rounding of `smallest_detectable_bias` is not to make it smaller than the bias again.
        return high

    def _finds(self, n: int, bias: float) -> bool:
        """Whether n samples in [0, 1] refute a mean that is wrong by ``bias``."""
        variance = 0.25
        if self.variance is not None:
            variance = min(self.variance / (self.high - self.low) ** 2, 0.25)
        size = math.log(2.0 / self.missed_bias)
        second = variance + bias**2
        first = n * bias - _bernstein(n * variance, size)
        squares = min(n * second + _bernstein(n * second, size), float(n))
        losses = (0.5 + BETS / 3 + QUARTIC * BETS**2) * BETS**2 * squares
        wealth = (BETS * first - losses).max() - math.log(len(BETS))
        return bool(wealth >= math.log(2.0 * self.claims / self.false_alarm))


def _check_samples(array: FloatArray, wanted: str, *, fits: bool) -> None:
    if not fits or len(array) == 0:
        raise ValueError(f"samples: expected shape {wanted}, n >= 1, got {array.shape}")


def _bernstein(variance: float, size: float) -> float:
    """Beyond which a sum of numbers, each at most 1 above its mean, is with probability e^-size."""
    return math.sqrt(2.0 * variance * size) + size / 3.0
