"""A function of an expectation, f(E X), estimated with less bias than f of a sample mean has.

For smooth f the bias of ``f(mean of N)`` is a series in 1/N. There are two ways to reduce it, for
any symmetric function f of a batch (an inner step's adapted return, the meta-gradient after it):

- `richardson` combines f at N, N/2, .. samples of one batch so that the first terms cancel;
- `Multilevel` draws a level at random and divides the *difference* that doubling the batch makes by
  the level's probability. In expectation the differences telescope: what remains is the bias of a
  batch of the largest size allowed, at the cost of a small one. The halves of a batch are its own
  smaller batches, so that differences of a smooth f shrink like 1/N (antithetic).

A batch is sliced along its axis of samples: an array, or `Trajectories` (whose axis N is 0, or 1
after an axis of replications).

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

from gradbias.analytic.utils.validation import FloatArray, choice, real_number, whole_number


class Sliceable(Protocol):
    """A batch of samples: anything with a shape and numpy's slices of its leading axes.

    Bias reduction evaluates f on parts of one batch. It takes nothing else from a batch than to cut
    it, so that arrays, `Trajectories` and a container of your own all serve.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of its axes; one of them counts samples."""
        ...

    def __getitem__(self, index: Any, /) -> Self:
        """The part that a tuple of slices selects."""
        ...


Evaluate = Callable[[Any], npt.ArrayLike]


def richardson(
    evaluate: Evaluate, batch: Sliceable, *, order: int = 1, axis: int = 0
) -> FloatArray:
    """The values of f on batches of N, N/2, .. N/2^order samples, extrapolated to infinitely many.

    Order 1 is ``2 f(batch) - [f(first half) + f(second half)] / 2``. Each batch size is averaged
    over all parts of the batch, which takes 2^(order + 1) - 1 evaluations.

    Args:
        evaluate: f, a function of a batch that gives an array.
        batch: N samples.
        order: how many terms of the bias cancel; 0 is f(batch).
        axis: the batch's axis of samples.

    Returns:
        The extrapolated value, shaped like f's. Its bias is of order N^-(order + 1) if f's own is a
        series in 1/N.

    Raises:
        ValueError: an order below 0, or a batch that cannot be halved that often.

    Source: Schucany, Gray and Owen 1971.

    >>> batch = np.array([0.0, 1.0, 1.0, 3.0])
    >>> float(richardson(lambda x: x.mean() ** 2, batch))  # 2 1.25^2 - (0.5^2 + 2^2) / 2
    1.0
    """
    k = whole_number("order", order, at_least=0)
    n = batch.shape[axis]
    if n == 0 or n % 2**k:
        raise ValueError(f"batch: expected a multiple of {2**k} samples for order {k}, got {n}")
    values = [_mean_over_parts(evaluate, batch, 2**i, axis) for i in range(k + 1)]
    for j in range(1, k + 1):
        values = [(2**j * larger - smaller) / (2**j - 1) for larger, smaller in pairwise(values)]
    return values[0]


class Levels(Enum):
    """How the levels' differences make an estimate.

    SINGLE_TERM: the difference at the drawn level, divided by the level's probability. COUPLED_SUM:
    the sum up to the drawn level, each difference divided by the probability of reaching its level.
    """

    SINGLE_TERM = "single_term"
    COUPLED_SUM = "coupled_sum"


@dataclass(frozen=True, eq=False)
class MultilevelEstimate:
    """One estimate: its ``value``, the ``level`` drawn for it, and the number of ``samples``."""

    value: FloatArray
    level: int
    samples: int


@dataclass(frozen=True)
class Multilevel:
    """The randomised multilevel estimator of f(E X).

    Level l draws ``base 2^(l + 1)`` samples. With m_i the mean of f over all parts of ``base 2^i``
    samples, the estimate is ``m_0 + (m_(l+1) - m_l) / P(l)``, or a sum of such terms (`Levels`).
    Its expectation is that of f on ``base 2^(largest_level + 1)`` samples; for smooth f the bias
    that remains halves with every level. Variance and cost stay bounded as levels are added if
    1/4 < rate < 1/2 (differences have second moments of order 4^-l).

    Attributes:
        base: the number of samples in the smallest batch.
        rate: the probability of level l is proportional to ``rate^l``.
        largest_level: the last of the levels 0, 1, ...
        form: how differences make an estimate (a `Levels` or its value).

    Raises:
        ValueError: a base below 1, a rate outside [0.01, 0.99], a largest level outside 0 .. 60, an
            unknown form.

    Source: Blanchet and Glynn 2015; Rhee and Glynn 2015.

    >>> draw = lambda n: np.random.default_rng(0).integers(2, size=n)
    >>> estimate = Multilevel(base=4)(lambda x: x.mean() ** 2, draw, rng=np.random.default_rng(0))
    >>> estimate.level, estimate.samples, estimate.value.shape
    (0, 8, ())
    """

    base: int = 1
    rate: float = 2**-1.5
    largest_level: int = 20
    form: Levels | str = Levels.SINGLE_TERM

    def __post_init__(self) -> None:
        object.__setattr__(self, "form", choice("form", self.form, Levels))
        whole_number("base", self.base, at_least=1)
        real_number("rate", self.rate, low=0.01, high=0.99)
        if whole_number("largest_level", self.largest_level, at_least=0) > 60:
            raise ValueError(f"largest_level: expected at most 60, got {self.largest_level}")

    @property
    def probabilities(self) -> FloatArray:
        """The levels' probabilities, ``[largest_level + 1]``."""
        powers = self.rate ** np.arange(self.largest_level + 1, dtype=np.float64)
        probabilities: FloatArray = powers / powers.sum()
        return probabilities

    @property
    def expected_samples(self) -> float:
        """The mean number of samples of one estimate."""
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
        """One estimate.

        Args:
            evaluate: f, a function of a batch that gives an array.
            draw: ``draw(n)`` gives a fresh batch of n independent samples.
            rng: draws the level.
            axis: the batch's axis of samples.

        Returns:
            The estimate, with its level and number of samples.

        Raises:
            ValueError: a batch of another size than n.
        """
        level = int(rng.choice(self.largest_level + 1, p=self.probabilities))
        batch = draw(self.base * 2 ** (level + 1))
        value = self.at_level(evaluate, batch, level, axis=axis)
        return MultilevelEstimate(value, level, batch.shape[axis])

    def at_level(
        self, evaluate: Evaluate, batch: Sliceable, level: int, *, axis: int = 0
    ) -> FloatArray:
        """The estimate if ``level`` is drawn.

        Args:
            evaluate: f, a function of a batch that gives an array.
            batch: the level's batch of ``base 2^(level + 1)`` samples.
            level: 0 .. largest_level.
            axis: the batch's axis of samples.

        Returns:
            The estimate, shaped like f's value.

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
            probability = probabilities[i] if single else probabilities[i:].sum()
            total, smaller = total + (larger - smaller) / probability, larger
        return total


def _mean_over_parts(evaluate: Evaluate, batch: Sliceable, parts: int, axis: int) -> FloatArray:
    """The mean of f over consecutive parts of a batch."""
    size, leading = batch.shape[axis] // parts, (slice(None),) * axis
    slices = [(*leading, slice(i * size, (i + 1) * size)) for i in range(parts)]
    mean: FloatArray = np.mean(
        [np.asarray(evaluate(batch[part]), dtype=np.float64) for part in slices], axis=0
    )
    return mean
