"""Confidence sequences in the estimates' own units, and what each of them rests on.

Betting and empirical Bernstein want a range ``[low, high]`` of each component. Estimates without
one, but with a second moment of at most v, are cut off at +-T: the mean moves by at most
``E (|x| - T)^+ <= v / (4 T)`` (as (u - T)^+ <= u^2 / (4 T)), by which intervals are widened.
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
"""Of a range's width, and of its ends' size: what is outside by less is rounding."""


class Method(Enum):
    """How means are bounded; all but `ASYMPTOTIC` hold for every number of samples."""

    BETTING = "betting"
    EMPIRICAL_BERNSTEIN = "empirical Bernstein"
    TRUNCATED = "truncated"
    ASYMPTOTIC = "asymptotic"


@dataclass(frozen=True, eq=False)
class ScaledSequence:
    """A sequence on ``(x - low) / width``, or on x itself where ``low`` is None; ``slack [D]`` is
    added on both sides. Components without width are known, and are no claims. What is outside by
    ``rounding [D]`` is taken for the end.
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
        """By betting, or by empirical Bernstein intervals tuned for ``rate``."""
        size = len(low)
        empty: Sequence = Betting.empty(size)
        if method is Method.EMPIRICAL_BERNSTEIN:
            empty = EmpiricalBernstein.empty(size, rate)
        return cls(empty, low, high, rounding=rounding)

    @classmethod
    def truncated(cls, level: FloatArray, slack: FloatArray) -> ScaledSequence:
        """By betting on numbers that are cut off at +-``level [D]`` already."""
        return cls(Betting.empty(len(level)), -level, level, slack)

    @classmethod
    def asymptotic(cls, size: int, intended: int) -> ScaledSequence:
        """By a boundary for normal means."""
        return cls(Asymptotic.empty(size, intended))

    def updated(self, observed: FloatArray) -> ScaledSequence:
        """With ``[B, D]`` more. Raises ValueError for what is out of range."""
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
        """``[D]`` each: a mean is outside its own, at any time, with its rate at most."""
        low, high = self.sequence.bounds(rates)
        if self.low is not None and self.high is not None:
            low = np.minimum(self.low + self._width * low, self.high)
            # An end of the range is itself, not what rounding makes of it.
            within = np.minimum(self.low + self._width * high, self.high)
            high = np.where(high == 1.0, self.high, within)
        return low - self.slack, high + self.slack

    def log_wealth(self, values: FloatArray, sign: float) -> FloatArray | None:
        """Against means at most (``sign`` 1) or at least (-1) ``values``; None if none is kept."""
        if self.low is None or not isinstance(self.sequence, Betting):
            return None
        shifted = values + sign * self.slack
        unit = np.clip((shifted - self.low) / self._width, 0.0, 1.0)
        return self.sequence.log_wealth(unit, sign)

    @property
    def claims(self) -> npt.NDArray[np.bool_]:
        """``[D]``: the components whose mean is not known from their range."""
        if self.low is None or self.high is None:
            size = len(self.sequence.bounds(0.5)[0])
            return np.ones(size, dtype=np.bool_)
        return self.high > self.low

    @property
    def _width(self) -> FloatArray:
        gap = np.subtract(self.high, self.low)  # type: ignore[arg-type]
        return np.where(gap > 0, gap, 1.0)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What `restored` takes."""
        return self.sequence.arrays()

    def restored(self, arrays: State) -> ScaledSequence:
        """This one as it was when it had ``arrays``."""
        return replace(self, sequence=self.sequence.restored(arrays))


def truncation_level(second_moment: FloatArray, samples: int, rate: float) -> FloatArray:
    """T ``[D]``, near the best for an interval at ``rate`` after ``samples`` observations."""
    return np.sqrt(second_moment * samples / (2.0 * math.log(2.0 / rate)))


def truncation_slack(second_moment: FloatArray, level: FloatArray) -> FloatArray:
    """``v / (4 T)``: how far cutting off at +-T moves a mean at most."""
    return second_moment / (4.0 * np.where(level > 0, level, 1.0))
