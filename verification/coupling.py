"""Does an estimator couple the trajectories of a batch, and does their order matter to it?

Where a batch's estimate is the mean of its trajectories' own, single trajectories say it all;
where it is not (group baselines, normalised advantages), expectations are over batches.
"""

from __future__ import annotations

import numpy as np

from analytic.arrays import IntArray
from stochastic.assembly import Rows
from stochastic.estimators import CallableEstimator, Evaluator, SurrogateEstimator
from verification.requests import Request

COMPARED = 24
"""Sampled batches on which this is decided."""


def prepared(
    asked: Request, estimator: SurrogateEstimator | CallableEstimator, trajectories: int | None
) -> tuple[Evaluator, bool]:
    """The estimator, looked at on sampled batches of N (one, if N is not given), and whether it
    couples the trajectories of a batch.

    Raises:
        ValueError: it misbehaves, or it is coupled and N is not given.
    """
    n = trajectories or 1
    try:
        evaluator = estimator.prepare(asked.seeded(0).draw(COMPARED, n), asked.context)
    except ValueError as error:
        if trajectories is None and _works_on_pairs(asked, estimator):
            raise ValueError(
                f"{error} (on a batch of one; it needs a batch of several trajectories: give "
                "trajectories, --trajectories N)"
            ) from None
        raise
    if not any(_couples(asked, evaluator, size) for size in {2, max(n, 2)}):
        return evaluator, False
    if trajectories is None:
        raise ValueError(
            f"{estimator.name}: couples the trajectories of a batch (a batch of two's estimate is "
            "not the mean of the two's own; a surrogate that sums over trajectories instead of "
            "averaging does that too), so N is needed: give trajectories, --trajectories N"
        )
    return evaluator, True


def _works_on_pairs(asked: Request, estimator: SurrogateEstimator | CallableEstimator) -> bool:
    try:
        estimator.prepare(asked.seeded(0).draw(COMPARED, 2), asked.context)
    except ValueError:
        return False
    return True


def _couples(asked: Request, evaluator: Evaluator, n: int) -> bool:
    """Whether the estimate of a batch of n is not the mean of its trajectories' own. One that
    fails on single trajectories is no such mean.
    """
    batch = asked.seeded(1).draw(COMPARED, n)
    try:
        return not _same_means(evaluator.rows(batch), evaluator.rows(batch.reshape(-1, 1)), n)
    except ValueError:
        return True


def _same_means(together: Rows, alone: Rows, n: int) -> bool:
    """Whether each estimate of ``together`` is the mean of the n of ``alone`` that belong to it."""
    for b in range(len(together.values)):
        whole, parts = slice(b, b + 1), slice(b * n, (b + 1) * n)
        values = np.concatenate([together.values[whole].ravel(), -alone.values[parts].ravel() / n])
        indices = np.concatenate([_indices(together, whole), _indices(alone, parts)])
        _, entries = np.unique(indices, return_inverse=True)
        gaps = np.abs(np.bincount(entries, values))
        if gaps.max() > 1e-9 * np.bincount(entries, np.abs(values)).max():
            return False
    return True


def _indices(rows: Rows, which: slice) -> IntArray:
    if rows.indices is not None:
        return rows.indices[which].ravel()
    count, width = rows.values[which].shape
    return np.tile(np.arange(width), count)


def depends_on_order(asked: Request, evaluator: Evaluator, n: int) -> bool:
    """Whether the estimate of a batch changes when its trajectories change places."""
    batch = asked.seeded(2).draw(COMPARED, n)
    orders = (slice(None, None, -1), np.r_[1:n, 0])
    return any(
        not _same_means(evaluator.rows(batch), evaluator.rows(batch[:, order]), 1)
        for order in orders
    )
