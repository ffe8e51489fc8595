"""Anytime-valid intervals for means of bounded observations: they hold at all times at once, so
that sampling may stop as soon as an interval is informative enough.

Here observations lie in [0, 1] (but for `Asymptotic`), one column for each of D means. Each
sequence keeps a fixed number of sums:

- `Betting`: wealth that grows where a candidate m is wrong. With a stake of c on "the mean is above
  m", wealth is ``prod (1 + c x) / (1 + c m)``, a martingale at the true mean; by Ville's inequality
  it reaches 1 / rate with probability at most ``rate``. That is the fraction b = c / (1 + c m) of
  the wealth on each observation, as in ``prod (1 + b (x - m))``: below 1 / m for every stake, so
  that no fraction has to be capped, and large ones win where the mean is near an end of the range.
  Wealth is spread evenly over `STAKES`. For each of them ``sum log(1 + c x)`` is all that is kept.
  Wealth decreases in m, so the candidates that are not refuted form an interval, and the order of
  the observations does not matter.
- `EmpiricalBernstein`: an interval in closed form around a weighted mean.
- `Asymptotic`: an approximate interval, for means that are nearly normal.

Source: Waudby-Smith and Ramdas 2024 (Estimating means of bounded random variables by betting),
Theorem 2 (empirical Bernstein) and Sec. 4 (betting); stakes as in the universal portfolios of
Orabona and Jun 2024 (Tight concentrations and confidence sequences from the regret of universal
portfolio).
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

STAKES = 2.0 ** np.arange(-12, 8)
"""The stakes; small ones win most when observations are many, large ones when the mean is small."""

_MULTIPLIED = 32
"""The number of factors that are multiplied before a logarithm is taken: ``129^32`` is a float."""

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
    """Betting on ``count`` observations x in [0, 1]: ``sums [2, K, D]`` are those of
    ``log(1 + c x)`` and of ``log(1 + c (1 - x))`` for each of the K `STAKES`, ``total [D]`` that of
    x itself.
    """

    sums: FloatArray
    total: FloatArray
    count: int = 0
    state = ("sums", "total", "count")

    @classmethod
    def empty(cls, size: int) -> Betting:
        """The sequence of ``size`` means before any observation."""
        return cls(np.zeros((2, len(STAKES), size)), np.zeros(size))

    def updated(self, observed: FloatArray) -> Betting:
        """The sequence after the observations ``[B, D]`` too."""
        added = np.stack([_log_sums(observed), _log_sums(1.0 - observed)])
        total = self.total + observed.sum(axis=0)
        return Betting(self.sums + added, total, self.count + len(observed))

    def log_wealth(self, candidates: FloatArray, sign: float) -> FloatArray:
        """The log wealth ``[D]`` against ``candidates [D]``, after bets that the mean is above
        (``sign`` 1) or below (-1) them.
        """
        won, paid = (self.sums[0], candidates) if sign > 0 else (self.sums[1], 1.0 - candidates)
        logs = won - self.count * np.log1p(STAKES[:, None] * paid)
        highest = logs.max(axis=0)  # taken out of the exponentials, so that none overflows
        wealth: FloatArray = highest + np.log(np.exp(logs - highest).mean(axis=0))
        return wealth

    def bounds(self, rate: Rates) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends ``[D]``, each at half of ``rate``; the whole range at first."""
        size = len(self.total)
        if self.count == 0:
            return np.zeros(size), np.ones(size)
        needed = np.log(2.0 / np.asarray(rate))
        mean = np.clip(self.total / self.count, 0.0, 1.0)
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


def _log_sums(observed: FloatArray) -> FloatArray:
    """``sum log(1 + c x)`` over observations ``[B, D]``, for each stake c, ``[K, D]``."""
    count, size = observed.shape
    groups = -(-count // _MULTIPLIED)
    padded = np.zeros((groups * _MULTIPLIED, size))  # zeros add nothing
    padded[:count] = observed
    grouped = padded.reshape(groups, _MULTIPLIED, size)
    sums = np.empty((len(STAKES), size))
    for k, stake in enumerate(STAKES):
        sums[k] = np.log((1.0 + stake * grouped).prod(axis=1)).sum(axis=0)
    return sums


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
