"""Linear functionals of an estimate: its components or random projections of them, and one
direction in which a pilot run saw the bias. A control variate is subtracted first.

A control variate is another estimate from the same trajectories whose exact mean is known. Its
coefficients come from a pilot run that is not used again, so that given them the mean is unchanged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, frozen_array
from gradbias.stochastic.estimators.kinds import Estimator
from gradbias.verification.sequential.stream import Stream


@dataclass(frozen=True, eq=False)
class ControlVariate:
    """Another estimator on the same trajectories whose mean is known.

    Attributes:
        estimator: its estimates have the shape of the measured ones.
        mean: its exact mean: 0 for a score, a derivative of the return for an unbiased estimator.
            It is not checked; a wrong mean shows as bias.
    """

    estimator: Estimator
    mean: FloatArray | float = 0.0

    def checked(self, shape: tuple[int, ...]) -> ControlVariate:
        """A copy whose mean has that ``shape``. Raises ValueError where it cannot have it."""
        return ControlVariate(self.estimator, shaped("control mean", self.mean, shape))


def shaped(name: str, value: npt.ArrayLike | None, shape: tuple[int, ...]) -> FloatArray:
    """An array of that ``shape``, from such an array or a number.

    Raises:
        ValueError: neither, or not finite.
    """
    array = frozen_array(name, value)  # type: ignore[arg-type]
    if array.shape not in ((), shape):
        raise ValueError(f"{name}: expected shape {shape} or a number, got {array.shape}")
    return np.broadcast_to(array, shape)


@dataclass(frozen=True, eq=False)
class Functionals:
    """Linear functionals of an estimate ``[D]``: its components (if ``projections`` is None) or its
    products with ``projections [P, D]``, and then that with the unit vector ``direction [D]``, if
    there is one.
    """

    projections: FloatArray | None
    direction: FloatArray | None

    def of(self, values: FloatArray) -> FloatArray:
        """The functionals ``[B, F]`` of estimates ``[B, D]``."""
        parts = [values if self.projections is None else values @ self.projections.T]
        if self.direction is not None:
            parts.append((values @ self.direction)[:, None])
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def range_of(self, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The functionals' ranges, given the components'."""
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
        """An interval of the norm of a vector b whose functionals lie in ``[low, high]``.

        With random projections it may fail with probability ``rate``, besides: the sum of their
        squares is ``|b|^2`` times a chi-squared variable.
        """
        count = len(low) - (self.direction is not None)
        nearest = np.maximum(np.maximum(low, -high), 0.0)
        farthest = np.maximum(np.abs(low), np.abs(high))
        smallest = float(np.linalg.norm(nearest[:count]))
        largest = float(np.linalg.norm(farthest[:count]))
        if self.projections is not None:
            smallest, largest = _unprojected(smallest, largest, count, rate)
        if self.direction is not None:
            smallest = max(smallest, float(low[-1]))
        return smallest, largest


def _unprojected(low: float, high: float, count: int, rate: float) -> tuple[float, float]:
    shortest, longest = stretches(count, rate)
    return low / longest, high / shortest


def stretches(count: int, rate: float) -> tuple[float, float]:
    """The interval that holds, but for probability ``rate``, the factor by which ``count`` random
    projections stretch a vector's length.
    """
    from scipy.stats import chi2

    return math.sqrt(chi2.ppf(rate / 2, count)), math.sqrt(chi2.isf(rate / 2, count))


def pilot_direction(gap: FloatArray) -> FloatArray | None:
    """The unit vector along a pilot's ``gap [D]``; None for a gap of 0, or a single component."""
    size = float(np.linalg.norm(gap))
    return None if len(gap) < 2 or not size > 0 else gap / size


@dataclass(frozen=True, eq=False)
class Box:
    """Simultaneous intervals ``low, high [F]`` of functionals, and that of the bias ``norm``."""

    low: FloatArray
    high: FloatArray
    norm: tuple[float, float]


def split_rates(stream: Stream, functionals: Functionals, rate: float) -> tuple[FloatArray, float]:
    """The error rate of each functional ``[F]``, and that of the projections' own randomness.

    Half of ``rate`` is for the direction, if there is one. The rest is shared evenly among the
    other functionals that claim anything; with projections half of it is for their randomness.
    """
    directed = functionals.direction is not None
    rest = rate / 2 if directed else rate
    spread = rest / 2 if functionals.projections is not None else 0.0
    claims = stream.intervals.claims
    others = int(claims.sum()) - int(directed and bool(claims[-1]))
    rates = np.full(len(claims), (rest - spread) / max(others, 1))
    if directed:
        rates[-1] = rate / 2
    return rates, spread


def box_of(stream: Stream, functionals: Functionals, exact: FloatArray, rate: float) -> Box:
    """The intervals of the functionals' means and of the bias norm, all at once at ``rate``."""
    rates, spread = split_rates(stream, functionals, rate)
    low, high = stream.intervals.bounds(rates)
    target = functionals.of(exact.reshape(1, -1))[0]
    return Box(low, high, functionals.norm_interval(low - target, high - target, spread))
