"""Anytime-valid intervals for means of bounded observations: they hold at all times at once, so
that sampling may stop as soon as an interval is informative enough.

Here observations lie in [0, 1] (but for `Asymptotic`), one column for each of D means. Each
sequence keeps a fixed number of sums:

- `Betting`: wealth that grows where a candidate m is wrong. Betting the fraction b on "the mean is
  above m", wealth is ``prod (1 + b (x - m))``, a martingale at the true mean; by Ville's inequality
  it reaches 1 / rate with probability at most ``rate``. Wealth is spread evenly over `BETS`. With
  b <= 1/2 its logarithm is bounded from below by four power sums of x, which are all that is kept:
  ``log(1 + z) >= z - z^2/2 + z^3/3 - 16 (log 2 - 2/3) z^4`` for z in [-1/2, 1/2] (equal at -1/2;
  ``(log(1 + z) - z + z^2/2 - z^3/3) / z^4 = -int_0^1 u^3 / (1 + u z) du`` increases). The bound
  decreases in m, so the candidates that are not refuted form an interval, and the order of the
  observations does not matter.
- `EmpiricalBernstein`: an interval in closed form around a weighted mean.
- `Asymptotic`: an approximate interval, for means that are nearly normal.

Source: Waudby-Smith and Ramdas 2024 (Estimating means of bounded random variables by betting),
Theorem 2 (empirical Bernstein) and Sec. 4 (betting); power sums in place of the history: Ryu and
Bhatt 2024 (On confidence sequences for bounded random processes via universal gambling).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray

BETS = 0.5 ** np.arange(1, 17)
"""The fractions of wealth that are bet; small ones win most when observations are many."""

QUARTIC = 16.0 * (math.log(2.0) - 2.0 / 3.0)
"""The coefficient that makes the polynomial of degree four a lower bound of log(1 + z)."""

_HALVINGS = 42
"""Steps of the bisection for an interval's end: 2^-42 is below any width that matters."""

Rates = float | FloatArray
"""The error rate of every mean, or one for each, ``[D]``."""

State = Mapping[str, npt.NDArray[Any]]
"""What a sequence has seen, as arrays by name, for checkpoints."""


@dataclass(frozen=True, eq=False)
class Sequence(ABC):
    """A confidence sequence for D means. It is frozen: `updated` returns the next one.

    A run saves `arrays` in its checkpoint and goes on from `restored`. The attributes named by
    ``state`` are what is saved; all others are settings.
    """

    state: ClassVar[tuple[str, ...]] = ("sums", "count")

    @abstractmethod
    def updated(self, observed: FloatArray) -> Sequence:
        """The sequence after the observations ``[B, D]`` too."""

    @abstractmethod
    def bounds(self, rate: Rates) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends ``[D]``; the probability that a mean is ever outside its own is at
        most its ``rate``.
        """

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The observations seen, as `restored` takes them."""
        return {name: np.asarray(getattr(self, name)) for name in self.state}

    def restored(self, arrays: State) -> Self:
        """A sequence with the same settings that has seen the saved observations."""
        saved: dict[str, Any] = {name: arrays[name] for name in self.state}
        return replace(self, **saved | {"count": int(arrays["count"])})


@dataclass(frozen=True, eq=False)
class Betting(Sequence):
    """Betting, with ``sums [4, D]`` of the powers 1 to 4 of ``count`` observations in [0, 1]."""

    sums: FloatArray
    count: int = 0

    @classmethod
    def empty(cls, size: int) -> Betting:
        """The sequence of ``size`` means before any observation."""
        return cls(np.zeros((4, size)))

    def updated(self, observed: FloatArray) -> Betting:
        """The sequence after the observations ``[B, D]`` too."""
        powers = np.empty_like(self.sums)
        power = observed
        for k in range(4):
            powers[k] = power.sum(axis=0)
            power = power * observed
        return Betting(self.sums + powers, self.count + len(observed))

    def log_wealth(self, candidates: FloatArray, sign: float) -> FloatArray:
        """A lower bound ``[D]`` of the log wealth against ``candidates [D]``, after bets that the
        mean is above (``sign`` 1) or below (-1) them.
        """
        moments = self._moments_about(candidates)
        bets = sign * BETS[:, None]
        logs = bets * moments[0] - bets**2 / 2 * moments[1]
        logs += bets**3 / 3 * moments[2] - QUARTIC * bets**4 * moments[3]
        highest = logs.max(axis=0)  # taken out of the exponentials, so that none overflows
        wealth: FloatArray = highest + np.log(np.exp(logs - highest).mean(axis=0))
        return wealth

    def bounds(self, rate: Rates) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends ``[D]``, each at half of ``rate``; the whole range at first."""
        size = self.sums.shape[1]
        if self.count == 0:
            return np.zeros(size), np.ones(size)
        needed = np.log(2.0 / np.asarray(rate))
        mean = np.clip(self.sums[0] / self.count, 0.0, 1.0)
        return self._end(mean, 0.0, 1.0, needed), self._end(mean, 1.0, -1.0, needed)

    def _end(self, mean: FloatArray, limit: float, sign: float, needed: FloatArray) -> FloatArray:
        """The refuted candidate next to the mean, by bisection, or the range's end ``limit``."""
        refuted, possible = np.full_like(mean, limit), mean
        for _ in range(_HALVINGS):
            middle = (refuted + possible) / 2
            against = self.log_wealth(middle, sign) >= needed
            refuted = np.where(against, middle, refuted)
            possible = np.where(against, possible, middle)
        return refuted

    def _moments_about(self, m: FloatArray) -> tuple[FloatArray, ...]:
        """The sums of (x - m)^k, k = 1 to 4, ``[D]`` each."""
        n = self.count
        s1, s2, s3, s4 = self.sums
        return (
            s1 - n * m,
            s2 - 2 * m * s1 + n * m**2,
            s3 - 3 * m * s2 + 3 * m**2 * s1 - n * m**3,
            s4 - 4 * m * s3 + 6 * m**2 * s2 - 4 * m**3 * s1 + n * m**4,
        )


@dataclass(frozen=True, eq=False)
class EmpiricalBernstein(Sequence):
    """Empirical Bernstein intervals, tuned for ``rate``.

    The rows of ``sums [5, D]``: weights, weighted observations, penalties, observations and their
    squares, over ``count`` observations. The weight of a block depends on the blocks before it.
    """

    sums: FloatArray
    rate: float
    count: int = 0

    @classmethod
    def empty(cls, size: int, rate: float) -> EmpiricalBernstein:
        """The sequence of ``size`` means before any observation, tuned for ``rate``."""
        return cls(np.zeros((5, size)), rate)

    def updated(self, observed: FloatArray) -> EmpiricalBernstein:
        """The sequence after one more block of observations, ``[B, D]``."""
        n, later = self.count, self.count + len(observed)
        # Mean and variance start as if one observation of 1/2 with variance 1/4 had been seen, so
        # that the first weights are finite and moderate.
        mean = (0.5 + self.sums[3]) / (n + 1)
        variance = np.maximum((0.5 + self.sums[4]) / (n + 1) - mean**2, 0.25 / (n + 1))
        spread = variance * later * math.log(1 + later)
        weight = np.minimum(0.5, np.sqrt(2 * math.log(2 / self.rate) / spread))
        penalty = -np.log1p(-weight) - weight
        first, second = observed.sum(axis=0), (observed**2).sum(axis=0)
        squares = ((observed - mean) ** 2).sum(axis=0)
        added = [weight * len(observed), weight * first, penalty * squares, first, second]
        return EmpiricalBernstein(self.sums + np.stack(added), self.rate, later)

    def bounds(self, rate: Rates) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends ``[D]``; the whole range at first."""
        size = self.sums.shape[1]
        if self.count == 0:
            return np.zeros(size), np.ones(size)
        centre = self.sums[1] / self.sums[0]
        radius = (np.log(2 / np.asarray(rate)) + self.sums[2]) / self.sums[0]
        return np.maximum(centre - radius, 0.0), np.minimum(centre + radius, 1.0)


@dataclass(frozen=True, eq=False)
class Asymptotic(Sequence):
    """Approximate intervals for observations of any size: a Gaussian mixture's boundary with the
    sampled variance in place of the true one. They hold in the limit of many observations, and are
    tightest near ``intended`` of them. ``sums [2, D]`` are those of the observations' differences
    to ``centre [D]``, the first block's mean (which avoids cancellation), and of their squares.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024 (Time-uniform central limit theory
    and asymptotic confidence sequences), Theorem 2.2 and eq. 10.
    """

    sums: FloatArray
    centre: FloatArray
    intended: int
    count: int = 0
    state = ("sums", "centre", "count")

    @classmethod
    def empty(cls, size: int, intended: int) -> Asymptotic:
        """The sequence of ``size`` means before any observation."""
        return cls(np.zeros((2, size)), np.zeros(size), intended)

    def updated(self, observed: FloatArray) -> Asymptotic:
        """The sequence after the observations ``[B, D]`` too."""
        centre = observed.mean(axis=0) if self.count == 0 else self.centre
        centred = observed - centre
        added = np.stack([centred.sum(axis=0), (centred**2).sum(axis=0)])
        return Asymptotic(self.sums + added, centre, self.intended, self.count + len(observed))

    def bounds(self, rate: Rates) -> tuple[FloatArray, FloatArray]:
        """Approximate lower and upper ends ``[D]``; infinite before two observations."""
        n = self.count
        if n < 2:
            infinite = np.full_like(self.centre, np.inf)
            return -infinite, infinite
        shift = self.sums[0] / n
        variance = np.maximum(self.sums[1] / n - shift**2, 0.0) * n / (n - 1)
        radius = np.sqrt(variance) * mixture_radius(n, self.intended, rate)
        return self.centre + shift - radius, self.centre + shift + radius


def mixture_radius(n: int, intended: int, rate: Rates) -> FloatArray:
    """The normal mixture's boundary for the mean of n observations, in standard deviations of one.

    Source: Waudby-Smith et al. 2024 (see `Asymptotic`), eq. 10; ``rho_squared`` is the variance of
    the mixture that makes the boundary tightest near ``intended`` observations.
    """
    size = -2 * np.log(np.asarray(rate))
    rho_squared = (size + np.log(size + 1)) / intended
    scale = n * rho_squared + 1
    radius: FloatArray = np.sqrt(2 * scale / (n**2 * rho_squared) * np.log(np.sqrt(scale) / rate))
    return radius
