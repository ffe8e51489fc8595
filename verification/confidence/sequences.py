"""Anytime-valid intervals for the mean of what is bounded: they hold at all times at once, so that
sampling may stop whenever the interval says enough.

Observations lie in [0, 1] here, one column a mean. Two sequences, of fixed size:

- `Betting`: wealth that grows where a candidate m is wrong. Betting the fraction b on "the mean is
  above m", wealth is ``prod (1 + b (x - m))``, a martingale at the true mean; by Ville's inequality
  it reaches 1 / rate with probability ``rate`` at most. Wealth is spread evenly over `BETS`. With
  b <= 1/2 its logarithm is bounded from below by four power sums of x, which are all that is kept:
  ``log(1 + z) >= z - z^2/2 + z^3/3 - 16 (log 2 - 2/3) z^4`` for z in [-1/2, 1/2] (equal at -1/2;
  ``(log(1 + z) - z + z^2/2 - z^3/3) / z^4 = -int_0^1 u^3 / (1 + u z) du`` increases). The bound
  decreases in m, so what is not refuted is an interval, whatever the order of the observations.
- `EmpiricalBernstein`: in closed form, around a weighted mean.

Source: Waudby-Smith and Ramdas 2024 (Estimating means of bounded random variables by betting),
Theorem 2 (empirical Bernstein) and Sec. 4 (betting); power sums in place of the history: Ryu and
Bhatt 2024 (On confidence sequences for bounded random processes via universal gambling).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray

BETS = 0.5 ** np.arange(1, 17)
"""The fractions of wealth that are bet; the small ones tell for many observations."""

QUARTIC = 16.0 * (math.log(2.0) - 2.0 / 3.0)
"""What makes the polynomial of degree four a lower bound of log(1 + z) on [-1/2, 1/2]."""

_HALVINGS = 42

Rates = float | FloatArray
"""One for all means, or ``[D]``."""


State = Mapping[str, npt.NDArray[Any]]


class Sequence(Protocol):
    """A confidence sequence: frozen; `updated` gives the next one."""

    def updated(self, observed: FloatArray) -> Sequence:
        """With observations ``[B, D]`` more."""
        ...

    def bounds(self, rate: Rates) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends ``[D]``; each mean is outside its own, at any time, with probability
        its ``rate`` at most.
        """
        ...

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What `restored` takes."""
        ...

    def restored(self, arrays: State) -> Sequence:
        """The sequence that had these arrays."""
        ...


@dataclass(frozen=True, eq=False)
class Betting:
    """``sums [4, D]`` of the powers 1..4 of ``count`` observations in [0, 1]."""

    sums: FloatArray
    count: int = 0
    name: ClassVar[str] = "betting"

    @classmethod
    def empty(cls, size: int) -> Betting:
        """Of ``size`` means."""
        return cls(np.zeros((4, size)))

    def updated(self, observed: FloatArray) -> Betting:
        """See `Sequence`."""
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
        highest = logs.max(axis=0)
        wealth: FloatArray = highest + np.log(np.exp(logs - highest).mean(axis=0))
        return wealth

    def bounds(self, rate: Rates) -> tuple[FloatArray, FloatArray]:
        """See `Sequence`: half of ``rate`` on each side."""
        size = self.sums.shape[1]
        if self.count == 0:
            return np.zeros(size), np.ones(size)
        needed = np.log(2.0 / np.asarray(rate))
        mean = np.clip(self.sums[0] / self.count, 0.0, 1.0)
        return self._end(mean, 0.0, 1.0, needed), self._end(mean, 1.0, -1.0, needed)

    def _end(self, mean: FloatArray, limit: float, sign: float, needed: FloatArray) -> FloatArray:
        """The refuted candidate next to the mean, by bisection, or the range's ``limit``."""
        refuted, possible = np.full_like(mean, limit), mean
        for _ in range(_HALVINGS):
            middle = (refuted + possible) / 2
            against = self.log_wealth(middle, sign) >= needed
            refuted = np.where(against, middle, refuted)
            possible = np.where(against, possible, middle)
        return refuted

    def _moments_about(self, m: FloatArray) -> tuple[FloatArray, ...]:
        n = self.count
        s1, s2, s3, s4 = self.sums
        return (
            s1 - n * m,
            s2 - 2 * m * s1 + n * m**2,
            s3 - 3 * m * s2 + 3 * m**2 * s1 - n * m**3,
            s4 - 4 * m * s3 + 6 * m**2 * s2 - 4 * m**3 * s1 + n * m**4,
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See `Sequence`."""
        return {"sums": self.sums, "count": np.array(self.count)}

    def restored(self, arrays: State) -> Betting:
        """See `Sequence`."""
        return Betting(arrays["sums"], int(arrays["count"]))


@dataclass(frozen=True, eq=False)
class EmpiricalBernstein:
    """Rows of ``sums [5, D]``: weights, weighted observations, penalties, observations, squares.

    The weight of a block is set by the blocks before it and tuned for ``rate``.
    """

    sums: FloatArray
    rate: float
    count: int = 0
    name: ClassVar[str] = "empirical Bernstein"

    @classmethod
    def empty(cls, size: int, rate: float) -> EmpiricalBernstein:
        """Of ``size`` means, tuned for intervals at ``rate``."""
        return cls(np.zeros((5, size)), rate)

    def updated(self, observed: FloatArray) -> EmpiricalBernstein:
        """See `Sequence`."""
        n, later = self.count, self.count + len(observed)
        # As after one observation of 1/2 with variance 1/4, which keeps the first ones sane.
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
        """See `Sequence`."""
        size = self.sums.shape[1]
        if self.count == 0:
            return np.zeros(size), np.ones(size)
        centre = self.sums[1] / self.sums[0]
        radius = (np.log(2 / np.asarray(rate)) + self.sums[2]) / self.sums[0]
        return np.maximum(centre - radius, 0.0), np.minimum(centre + radius, 1.0)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See `Sequence`."""
        return {"sums": self.sums, "count": np.array(self.count)}

    def restored(self, arrays: State) -> EmpiricalBernstein:
        """See `Sequence`."""
        return EmpiricalBernstein(arrays["sums"], self.rate, int(arrays["count"]))


@dataclass(frozen=True, eq=False)
class Asymptotic:
    """Observations of any size; ``sums [2, D]`` of differences to ``centre [D]`` and their squares.

    A Gaussian mixture's boundary with the sampled variance in place of the true one: right in the
    limit of many observations only, and tightest near ``intended`` of them. Source: Waudby-Smith,
    Arbour, Sinha, Kennedy and Ramdas 2024 (Time-uniform central limit theory and asymptotic
    confidence sequences), Theorem 2.2 and eq. 10.
    """

    sums: FloatArray
    centre: FloatArray
    intended: int
    count: int = 0
    name: ClassVar[str] = "asymptotic"

    @classmethod
    def empty(cls, size: int, intended: int) -> Asymptotic:
        """Of ``size`` means."""
        return cls(np.zeros((2, size)), np.zeros(size), intended)

    def updated(self, observed: FloatArray) -> Asymptotic:
        """See `Sequence`."""
        centre = observed.mean(axis=0) if self.count == 0 else self.centre
        gaps = observed - centre
        added = np.stack([gaps.sum(axis=0), (gaps**2).sum(axis=0)])
        return Asymptotic(self.sums + added, centre, self.intended, self.count + len(observed))

    def bounds(self, rate: Rates) -> tuple[FloatArray, FloatArray]:
        """See `Sequence`; approximate."""
        n = self.count
        if n < 2:
            infinite = np.full_like(self.centre, np.inf)
            return -infinite, infinite
        shift = self.sums[0] / n
        variance = np.maximum(self.sums[1] / n - shift**2, 0.0) * n / (n - 1)
        radius = np.sqrt(variance) * mixture_radius(n, self.intended, rate)
        return self.centre + shift - radius, self.centre + shift + radius

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See `Sequence`."""
        return {"sums": self.sums, "centre": self.centre, "count": np.array(self.count)}

    def restored(self, arrays: State) -> Asymptotic:
        """See `Sequence`."""
        return Asymptotic(arrays["sums"], arrays["centre"], self.intended, int(arrays["count"]))


def mixture_radius(n: int, intended: int, rate: Rates) -> FloatArray:
    """In standard deviations of one observation: the normal mixture's boundary after n."""
    size = -2 * np.log(np.asarray(rate))
    squared = (size + np.log(size + 1)) / intended
    grown = n * squared + 1
    radius: FloatArray = np.sqrt(2 * grown / (n**2 * squared) * np.log(np.sqrt(grown) / rate))
    return radius
