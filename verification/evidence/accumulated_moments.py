"""Mean and variance of an estimator, accumulated over weighted batches: enumerated or sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.stochastic.estimators.kinds import ROUNDINGS, Evaluator, inexactness
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.evidence.enumeration import Block, check_outcomes

REPEATED = 256
"""The number of outcomes that are evaluated again at the end, to see that nothing is random."""

MAX_ESTIMATE = 1e140
"""The largest number in an estimate: its square is still a float."""

KEPT = 512
"""The number of sampled estimates that are kept, to estimate the spectrum of their covariance."""

Progress = Callable[[int, int], None]
"""A function that is called as ``progress(done, total)``."""


_ROUNDING = 1e-10
"""What a control variate leaves is rounding if its root mean square is a smaller share of that of
the estimates."""


@dataclass(frozen=True, eq=False)
class Control:
    """A control variate: ``rest(batch, rows)`` is what it leaves of a batch's estimates, less
    ``shift``, which is near the mean of that, so that sums of it lose no digits.
    """

    rest: Callable[[Trajectories, Rows], Rows]
    shift: FloatArray


@dataclass(frozen=True, eq=False)
class Moments:
    """The moments of one estimate.

    Attributes:
        mean, variance: its mean and componentwise variance, shaped like it.
        absolute: the Euclidean norm of E|estimate|, componentwise; rounding errors of the mean are
            proportional to it.
        outcomes: the number of outcomes that were enumerated or drawn.
        largest: the largest number in any estimate.
        covariance: its covariance, its axes twice, or None.
        kept: the first `KEPT` sampled estimates (none under enumeration).
        largest_share: the largest share of one sampled estimate in the sum of their squares.
        left: the trace of the covariance of what a control variate leaves of sampled estimates;
            then ``mean``, ``kept`` and ``largest_share`` are of that too. None without one.
    """

    mean: FloatArray
    variance: FloatArray
    absolute: float
    outcomes: int
    largest: float
    covariance: FloatArray | None
    kept: list[Rows] = field(default_factory=list)
    largest_share: float = 0.0
    left: float | None = None


class Accumulator:
    """Weighted sums of estimates and their squares; rows may be sparse, the sums are dense."""

    def __init__(self, shape: tuple[int, ...], *, covariance: bool = False) -> None:
        self._shape = shape
        size = int(np.prod(shape))
        self._products = np.zeros((size, size)) if covariance else None
        self._first = np.zeros(int(np.prod(shape)))
        self._second = np.zeros_like(self._first)
        self._absolute = np.zeros_like(self._first)
        self._weight = 0.0
        self._longest = 0.0
        self.outcomes = 0
        self.largest = 0.0

    def add(self, rows: Rows, weights: FloatArray) -> None:
        """Adds the B estimates of ``rows`` with ``weights [B]``."""
        if rows.largest > MAX_ESTIMATE:
            raise ValueError(
                f"estimates: expected numbers up to {MAX_ESTIMATE:g}, got {rows.largest:.3g}"
            )
        weighted = weights[:, None] * rows.values
        squared = weighted * rows.values
        if rows.indices is None:
            self._first += weighted.sum(axis=0)
            self._second += squared.sum(axis=0)
            self._absolute += np.abs(weighted).sum(axis=0)
        else:
            np.add.at(self._first, rows.indices.ravel(), weighted.ravel())
            np.add.at(self._second, rows.indices.ravel(), squared.ravel())
            np.add.at(self._absolute, rows.indices.ravel(), np.abs(weighted).ravel())
        if self._products is not None:
            dense = rows.dense().reshape(len(weights), -1)
            self._products += (weights[:, None] * dense).T @ dense
        self._longest = max(self._longest, float(squared.sum(axis=1).max(initial=0.0)))
        self._weight += float(weights.sum())
        self.outcomes += len(weights)
        self.largest = max(self.largest, rows.largest)

    def moments(self, *, unbiased: bool) -> Moments:
        """The moments so far; with ``unbiased`` the variance has the factor n / (n - 1)."""
        mean = self._first / self._weight
        second = self._second / self._weight
        variance = second - mean**2
        # A difference of squares; below its rounding error it is 0, and never negative.
        variance[variance < 1e-13 * second] = 0.0
        freedom = self.outcomes / max(self.outcomes - 1, 1) if unbiased else 1.0
        covariance = None
        if self._products is not None:
            centred = self._products / self._weight - np.outer(mean, mean)
            covariance = (freedom * centred).reshape(self._shape * 2)
        return Moments(
            mean.reshape(self._shape),
            freedom * variance.reshape(self._shape),
            float(np.linalg.norm(self._absolute)) / self._weight,
            self.outcomes,
            self.largest,
            covariance,
            largest_share=self._longest / (float(self._second.sum()) or 1.0),
        )


def enumerated_moments(
    evaluator: Evaluator,
    blocks: Iterator[Block],
    sums: Accumulator,
    total: float,
    progress: Progress | None,
) -> Moments:
    """Exact moments over all outcomes. Raises EnumerationSizeError for a loop over too many."""
    if evaluator.most is not None:
        check_outcomes(
            total, evaluator.most, f"outcomes to loop over ({'; '.join(evaluator.notes)})"
        )
    weight = 0.0
    first: tuple[Trajectories, Rows] | None = None
    for batch, weights in blocks:
        rows = evaluator.rows(batch)
        first = first or (batch, rows)
        sums.add(rows, weights)
        weight += float(weights.sum())
        if progress is not None:
            progress(sums.outcomes, int(total))
    if abs(weight - 1.0) > 1e-9:
        raise RuntimeError(f"enumeration: the probabilities sum to {weight!r}, expected 1")
    if first is not None and not _repeats(evaluator, *first):
        raise ValueError(
            "the estimator gives two values for one batch; it must not draw random numbers"
        )
    return sums.moments(unbiased=False)


def _repeats(evaluator: Evaluator, batch: Trajectories, rows: Rows) -> bool:
    """Whether the first outcomes have the same estimates at the end, but for rounding, which may
    depend on how many are evaluated at a time.
    """
    again, before = evaluator.rows(batch[:REPEATED]).values, rows.first(REPEATED).values
    rounding = ROUNDINGS * inexactness(evaluator).rounding
    largest = np.abs(before).max(initial=0.0)
    return np.allclose(again, before, rtol=max(1e-9, rounding), atol=max(1e-12, rounding) * largest)


def sampled_moments(
    evaluator: Evaluator,
    draw: Callable[[int], Trajectories],
    sums: Accumulator,
    replications: int,
    block: int,
    progress: Progress | None,
    control: Control | None = None,
) -> Moments:
    """Moments of ``replications`` estimates; ``draw(R)`` gives R batches ``[R, N, H]``, and
    ``control`` what a control variate leaves of their estimates, which has the same mean.
    """
    kept: list[Rows] = []
    rest = None
    while sums.outcomes < replications:
        count = min(block, replications - sums.outcomes)
        batch = draw(count)
        rows = evaluator.rows(batch)
        sums.add(rows, np.ones(count))
        if control is not None:
            rows = control.rest(batch, rows)
            rest = rest or Accumulator(rows.shape)
            rest.add(rows, np.ones(count))
        room = KEPT - sum(len(r.values) for r in kept)
        if room > 0:
            kept.append(rows.first(room))
        if progress is not None:
            progress(sums.outcomes, replications)
    moments = replace(sums.moments(unbiased=True), kept=kept)
    if rest is None or control is None:
        return moments
    less = rest.moments(unbiased=True)
    left, size = float(less.variance.sum()), float((moments.variance + moments.mean**2).sum())
    share = less.largest_share if left > _ROUNDING**2 * size else 0.0
    return replace(moments, mean=control.shift + less.mean, largest_share=share, left=left)
