"""What is read off estimates: components, with a control variate taken off, or projections of them,
and the direction in which a pilot saw the bias.

A control variate is another estimate from the same trajectories whose exact mean is known. The
coefficients come from a pilot that is not used again, so that given them the mean is unchanged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, frozen_array
from gradbias.stochastic.estimators.kinds import Estimator

_ROUNDING = 1e-10


@dataclass(frozen=True, eq=False)
class ControlVariate:
    """An estimator of the same shape from the same trajectories, and its exact ``mean`` (0 for a
    score; a derivative of the return for an unbiased estimator). Nothing here checks the mean: a
    wrong one is found as bias.
    """

    estimator: Estimator
    mean: FloatArray | float = 0.0

    def checked(self, shape: tuple[int, ...]) -> ControlVariate:
        """With the mean as an array of that ``shape``. Raises ValueError for what is none."""
        return ControlVariate(self.estimator, shaped("control mean", self.mean, shape))


def control_coefficients(values: FloatArray, controls: FloatArray) -> FloatArray:
    """``[D]``: the regression of ``values [B, D]`` on ``controls [B, D]``, each on its own."""
    gaps = controls - controls.mean(axis=0)
    spread = (gaps**2).sum(axis=0)
    crossed = (gaps * (values - values.mean(axis=0))).sum(axis=0)
    # What varies by rounding alone takes nothing off: the quotient would be one of roundings.
    varies = spread > _ROUNDING**2 * (controls**2).sum(axis=0)
    return np.where(varies, crossed / np.where(varies, spread, 1.0), 0.0)


def shaped(name: str, value: npt.ArrayLike | None, shape: tuple[int, ...]) -> FloatArray:
    """A number, or an array of that ``shape``, as such an array.

    Raises:
        ValueError: neither, or not finite.
    """
    array = frozen_array(name, value)  # type: ignore[arg-type]
    if array.shape not in ((), shape):
        raise ValueError(f"{name}: expected shape {shape} or a number, got {array.shape}")
    return np.broadcast_to(array, shape)


@dataclass(frozen=True, eq=False)
class Reading:
    """Linear functionals of an estimate ``[D]``: its components, or ``projections [P, D]`` of it,
    then ``direction [D]`` (a unit vector), if there is one.
    """

    projections: FloatArray | None
    direction: FloatArray | None

    def of(self, values: FloatArray) -> FloatArray:
        """``[B, F]`` of estimates ``[B, D]``."""
        parts = [values if self.projections is None else values @ self.projections.T]
        if self.direction is not None:
            parts.append((values @ self.direction)[:, None])
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def range_of(self, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The functionals' ranges from the components'."""
        ends = [(low, high)] if self.projections is None else []
        for row in self._rows():
            smallest = np.minimum(row * low, row * high).sum(axis=-1)
            ends.append((np.atleast_1d(smallest), np.atleast_1d(-self._flipped(row, low, high))))
        lows, highs = zip(*ends, strict=True)
        return np.concatenate(lows), np.concatenate(highs)

    @staticmethod
    def _flipped(row: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        smallest: FloatArray = np.minimum(-row * low, -row * high).sum(axis=-1)
        return smallest

    def _rows(self) -> list[FloatArray]:
        rows = [] if self.projections is None else [self.projections]
        return rows + ([] if self.direction is None else [self.direction[None]])

    def norm_interval(self, low: FloatArray, high: FloatArray, rate: float) -> tuple[float, float]:
        """For the norm of a vector whose functionals lie in ``[low, high]``. With projections it is
        right but for probability ``rate`` more: the sum of their squares is ``|b|^2`` times a
        chi-squared variable.
        """
        count = len(low) - (self.direction is not None)
        least = np.maximum(np.maximum(low, -high), 0.0)
        most = np.maximum(np.abs(low), np.abs(high))
        smallest = float(np.linalg.norm(least[:count]))
        largest = float(np.linalg.norm(most[:count]))
        if self.projections is not None:
            smallest, largest = _unprojected(smallest, largest, count, rate)
        if self.direction is not None:
            smallest = max(smallest, float(low[-1]))
        return smallest, largest


def _unprojected(low: float, high: float, count: int, rate: float) -> tuple[float, float]:
    few, many = stretches(count, rate)
    return low / many, high / few


def stretches(count: int, rate: float) -> tuple[float, float]:
    """The factors between which ``count`` projections stretch a vector's length, but for the
    probability ``rate``.
    """
    from scipy.stats import chi2

    return math.sqrt(chi2.ppf(rate / 2, count)), math.sqrt(chi2.isf(rate / 2, count))


def pilot_direction(gap: FloatArray) -> FloatArray | None:
    """The unit vector along a pilot's ``gap [D]``; None where there is none, or one component."""
    size = float(np.linalg.norm(gap))
    return None if len(gap) < 2 or not size > 0 else gap / size
