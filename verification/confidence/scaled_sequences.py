"""Confidence sequences in the estimates' own units.

Betting and empirical Bernstein need a range ``[low, high]`` of each component. Estimates that have
none, but a second moment of at most v, are truncated at +-T. That changes the mean by at most
``E (|x| - T)^+ <= v / (4 T)``, as (u - T)^+ <= u^2 / (4 T); intervals are widened by this slack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.confidence.sequences import (
    Asymptotic,
    Betting,
    EmpiricalBernstein,
    Rates,
    Sequence,
    State,
)

_BEYOND = 1e-9
_ROUNDED = 1e-12
"""Shares of a range's width, and of its ends' size: an estimate outside by less is rounding."""


class Method(Enum):
    """How an interval for a mean is made; all but `ASYMPTOTIC` hold for every number of samples."""

    BETTING = "betting"
    EMPIRICAL_BERNSTEIN = "empirical Bernstein"
    TRUNCATED = "truncated"
    ASYMPTOTIC = "asymptotic"


@dataclass(frozen=True, eq=False)
class ScaledSequence:
    """A confidence sequence for D components of an estimate x, in the estimate's own units.

    Attributes:
        sequence: the sequence of ``(x - low) / (high - low)``, or of x itself if ``low`` is None.
        low, high: the components' ranges, ``[D]``. A range without width gives the mean.
        slack: widens intervals on both sides, ``[D]``.
        rounding: an observation outside of its range by this much or less is moved to the end.
    """

    sequence: Sequence
    low: FloatArray | None = None
    high: FloatArray | None = None
    slack: FloatArray | float = 0.0
    rounding: FloatArray | float = 0.0

    @classmethod
    def bounded(
        cls,
        low: FloatArray,
        high: FloatArray,
        method: Method,
        rate: float,
        rounding: FloatArray | float = 0.0,
    ) -> ScaledSequence:
        """Betting, or empirical Bernstein intervals tuned for ``rate``, in the given ranges."""
        size = len(low)
        empty: Sequence = Betting.empty(size)
        if method is Method.EMPIRICAL_BERNSTEIN:
            empty = EmpiricalBernstein.empty(size, rate)
        return cls(empty, low, high, rounding=rounding)

    @classmethod
    def truncated(cls, level: FloatArray, slack: FloatArray) -> ScaledSequence:
        """Betting on observations that are already truncated at +-``level [D]``."""
        return cls(Betting.empty(len(level)), -level, level, slack)

    @classmethod
    def asymptotic(cls, size: int, intended: int) -> ScaledSequence:
        """Approximate intervals for ``size`` components without a range (see `Asymptotic`)."""
        return cls(Asymptotic.empty(size, intended))

    def updated(self, observed: FloatArray) -> ScaledSequence:
        """The sequence after the observations ``[B, D]`` too; ValueError if one is out of range."""
        if self.low is None or self.high is None:
            return replace(self, sequence=self.sequence.updated(observed))
        size = np.maximum(np.abs(self.low), np.abs(self.high))
        allowed = _BEYOND * (self.high - self.low) + _ROUNDED * size + self.rounding
        outside = (observed < self.low - allowed) | (observed > self.high + allowed)
        if outside.any():
            b, d = np.argwhere(outside)[0]
            raise ValueError(
                f"bounds: expected estimates of component {d} in [{self.low[d]:g}, "
                f"{self.high[d]:g}], got {observed[b, d]:g}"
            )
        unit = (np.clip(observed, self.low, self.high) - self.low) / self._width
        return replace(self, sequence=self.sequence.updated(np.clip(unit, 0.0, 1.0)))

    def bounds(self, rates: Rates) -> tuple[FloatArray, FloatArray]:
        """The lower and upper ends ``[D]`` of `Sequence.bounds`, in the estimates' units."""
        low, high = self.sequence.bounds(rates)
        if self.low is not None and self.high is not None:
            low = np.minimum(self.low + self._width * low, self.high)
            # Rounding must not move the upper end of the range: a mean can be there.
            within = np.minimum(self.low + self._width * high, self.high)
            high = np.where(high == 1.0, self.high, within)
        return low - self.slack, high + self.slack

    def log_wealth(self, values: FloatArray, sign: float) -> FloatArray | None:
        """The log wealth ``[D]`` of betting (else None) against means at most (``sign`` 1) or at
        least (-1) ``values``.
        """
        if self.low is None or not isinstance(self.sequence, Betting):
            return None
        shifted = values + sign * self.slack
        unit = np.clip((shifted - self.low) / self._width, 0.0, 1.0)
        return self.sequence.log_wealth(unit, sign)

    @property
    def claims(self) -> npt.NDArray[np.bool_]:
        """Whether each component's mean is unknown, ``[D]``: its range has a width."""
        if self.low is None or self.high is None:
            size = len(self.sequence.bounds(0.5)[0])
            return np.ones(size, dtype=np.bool_)
        return self.high > self.low

    @property
    def _width(self) -> FloatArray:
        gap = np.subtract(self.high, self.low)  # type: ignore[arg-type]
        return np.where(gap > 0, gap, 1.0)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The observations seen, as `restored` takes them."""
        return self.sequence.arrays()

    def restored(self, arrays: State) -> ScaledSequence:
        """A sequence with the same settings that has seen the saved observations."""
        return replace(self, sequence=self.sequence.restored(arrays))


def truncation_level(second_moment: FloatArray, samples: int, rate: float) -> FloatArray:
    """The level T ``[D]`` to truncate at, nearly the best one for an interval at ``rate`` after
    ``samples`` observations: noise and slack are then of the same order.
    """
    return np.sqrt(second_moment * samples / (2.0 * math.log(2.0 / rate)))


def truncation_slack(second_moment: FloatArray, level: FloatArray) -> FloatArray:
    """The largest change of a mean by truncation at +-T: ``v / (4 T)``."""
    return second_moment / (4.0 * np.where(level > 0, level, 1.0))
