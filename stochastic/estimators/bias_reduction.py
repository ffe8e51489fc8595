"""A function of an expectation, f(E X), estimated with less bias than f of a sample mean has.

For smooth f the bias of ``f(mean of N)`` is a series in 1/N. Two ways to be rid of it, for any
symmetric function of a batch (an inner step's adapted return, the meta-gradient at its end):

- `richardson` combines f at N, N/2, .. samples of one batch so that the first terms cancel;
- `Multilevel` draws a level at random and weighs the *difference* that doubling the batch makes by
  its level's probability. In expectation the differences telescope, so that what is left is the
  bias of a batch of the largest size allowed, for the cost of a small one. The halves of a batch
  are its own smaller batches, so that differences of a smooth f shrink like 1/N (antithetic).

``evaluate(batch)`` gives an array; a batch is sliced along its axis of samples: an array, or
`Trajectories` (whose axis N is 0, or 1 after an axis of replications).

Source: Schucany, Gray and Owen 1971 (the generalised jackknife); Blanchet and Glynn 2015 (*Unbiased
Monte Carlo for optimization and functions of expectations via multi-level randomization*); Rhee and
Glynn 2015 (*Unbiased estimation with square root convergence for SDE models*).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, real_number, whole_number


class Sliceable(Protocol):
    """A batch: it has a shape, and numpy's slices of its leading axes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its axes; one of them counts samples."""
        ...

    def __getitem__(self, index: Any, /) -> Self:
        """The part that a tuple of slices selects."""
        ...


Evaluate = Callable[[Any], npt.ArrayLike]


def richardson(
    evaluate: Evaluate, batch: Sliceable, *, order: int = 1, axis: int = 0
) -> FloatArray:
    """The values of f on batches of N, N/2, .. N/2^order samples, extrapolated to infinitely many.

    The bias is of order N^-(order + 1) where f's own is a series in 1/N. Shaped like what f gives.

    Order 1 is ``2 f(batch) - [f(first half) + f(second half)] / 2``. Smaller batches are averaged
    over all parts of the batch: 2^(order + 1) - 1 evaluations.

    Raises:
        ValueError: an order below 0, or a batch that cannot be halved that often.

    >>> batch = np.array([0.0, 1.0, 1.0, 3.0])
    >>> float(richardson(lambda x: x.mean() ** 2, batch))  # 2 1.25^2 - (0.5^2 + 2^2) / 2
    1.0
    """
    k = whole_number("order", order, at_least=0)
    n = batch.shape[axis]
    if n == 0 or n % 2**k:
        raise ValueError(f"batch: expected a multiple of {2**k} samples for order {k}, got {n}")
    found = [_mean_over_parts(evaluate, batch, 2**i, axis) for i in range(k + 1)]
    for j in range(1, k + 1):
        found = [(2**j * larger - smaller) / (2**j - 1) for larger, smaller in pairwise(found)]
    return found[0]


class Levels(Enum):
    """How differences of levels make an estimate."""

    SINGLE_TERM = "the difference of the level drawn, over its probability"
    COUPLED_SUM = "those up to the level drawn, over the probability to get that far"


@dataclass(frozen=True, eq=False)
class MultilevelEstimate:
    """The ``value``, the ``level`` that was drawn for it, and how many ``samples`` it took."""

    value: FloatArray
    level: int
    samples: int


@dataclass(frozen=True)
class Multilevel:
    """The randomised multilevel estimator of f(E X), with levels 0 .. ``largest_level``.

    Level l has a probability proportional to ``rate^l`` and draws ``base 2^(l + 1)`` samples. With
    m_i the mean of f over all parts of ``base 2^i`` samples, the estimate is ``m_0 + (m_(l+1) -
    m_l) / P(l)``, or the sum of such terms up to l, each over the probability to get that far. Its
    expectation is that of f on ``base 2^(largest_level + 1)`` samples: for smooth f it is unbiased
    but for a remainder that halves with every level. Variance and cost stay bounded as levels are
    added if 1/4 < rate < 1/2 (differences have second moments of order 4^-l).

    Raises:
        ValueError: a base below 1, a rate outside [0.01, 0.99], a largest level outside 0 .. 60.

    >>> draw = lambda n: np.random.default_rng(0).integers(2, size=n)
    >>> found = Multilevel(base=4)(lambda x: x.mean() ** 2, draw, rng=np.random.default_rng(0))
    >>> found.level, found.samples, found.value.shape
    (0, 8, ())
    """

    base: int = 1
    rate: float = 2**-1.5
    largest_level: int = 20
    form: Levels = Levels.SINGLE_TERM

    def __post_init__(self) -> None:
        whole_number("base", self.base, at_least=1)
        real_number("rate", self.rate, low=0.01, high=0.99)
        if whole_number("largest_level", self.largest_level, at_least=0) > 60:
            raise ValueError(f"largest_level: expected at most 60, got {self.largest_level}")

    @property
    def probabilities(self) -> FloatArray:
        """``[largest_level + 1]``: of each level."""
        powers = self.rate ** np.arange(self.largest_level + 1, dtype=np.float64)
        found: FloatArray = powers / powers.sum()
        return found

    @property
    def expected_samples(self) -> float:
        """What one estimate takes on average."""
        sizes = self.base * 2.0 ** np.arange(1, self.largest_level + 2)
        return float(self.probabilities @ sizes)

    def __call__(
        self,
        evaluate: Evaluate,
        draw: Callable[[int], Sliceable],
        *,
        rng: np.random.Generator,
        axis: int = 0,
    ) -> MultilevelEstimate:
        """One estimate; ``draw(n)`` gives a fresh batch of n independent samples, and ``rng`` the
        level alone.

        Raises:
            ValueError: a batch that is not of the size asked for.
        """
        level = int(rng.choice(self.largest_level + 1, p=self.probabilities))
        batch = draw(self.base * 2 ** (level + 1))
        value = self.at_level(evaluate, batch, level, axis=axis)
        return MultilevelEstimate(value, level, batch.shape[axis])

    def at_level(
        self, evaluate: Evaluate, batch: Sliceable, level: int, *, axis: int = 0
    ) -> FloatArray:
        """The estimate where ``level`` was drawn, from its batch of ``base 2^(level + 1)``.

        Raises:
            ValueError: no such level, or another batch size.
        """
        if whole_number("level", level, at_least=0) > self.largest_level:
            raise ValueError(f"level: expected at most {self.largest_level}, got {level}")
        wanted = self.base * 2 ** (level + 1)
        if batch.shape[axis] != wanted:
            raise ValueError(f"batch: expected {wanted} samples, got {batch.shape[axis]}")
        single = self.form is Levels.SINGLE_TERM
        probabilities = self.probabilities
        total = smaller = _mean_over_parts(evaluate, batch, 2 ** (level + 1), axis)
        for i in [level] if single else range(level + 1):
            if single and level > 0:
                smaller = _mean_over_parts(evaluate, batch, 2, axis)
            larger = _mean_over_parts(evaluate, batch, 2 ** (level - i), axis)
            chance = probabilities[i] if single else probabilities[i:].sum()
            total, smaller = total + (larger - smaller) / chance, larger
        return total


def _mean_over_parts(evaluate: Evaluate, batch: Sliceable, parts: int, axis: int) -> FloatArray:
    size = batch.shape[axis] // parts
    each = [_evaluated(evaluate, _part(batch, i * size, size, axis)) for i in range(parts)]
    mean: FloatArray = np.mean(each, axis=0)
    return mean


def _part(batch: Sliceable, start: int, size: int, axis: int) -> Sliceable:
    return batch[(slice(None),) * axis + (slice(start, start + size),)]


def _evaluated(evaluate: Evaluate, batch: Sliceable) -> FloatArray:
    return np.asarray(evaluate(batch), dtype=np.float64)
