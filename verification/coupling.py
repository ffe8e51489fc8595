"""Does an estimator couple the trajectories of a batch, and does their order matter to it?

Where a batch's estimate is the mean of its trajectories' own, single trajectories say it all;
where it is not (group baselines, normalised advantages), expectations are over batches.
"""

from __future__ import annotations

import numpy as np

from analytic.arrays import IntArray
from stochastic.assembly import Rows
from stochastic.estimators import Evaluator
from verification.requests import Request

COMPARED = 24
"""Sampled batches on which this is decided."""


def is_coupled(asked: Request, evaluator: Evaluator, trajectories: int | None) -> bool:
    """Whether a batch's estimate is not the mean of its trajectories' own.

    Compared for batches of two, and of N where that is given. Raises ValueError for a coupled
    estimator without N.
    """
    seeded = asked.seeded(1)
    for n in {2, trajectories or 2} - {1}:
        batch = seeded.draw(COMPARED, n)
        together = evaluator.rows(batch)
        alone = evaluator.rows(batch.reshape(-1, 1))
        if _same_means(together, alone, n):
            continue
        if trajectories is None:
            raise ValueError(
                f"{asked.estimator.name}: couples the trajectories of a batch (a batch of two's "
                "estimate is not the mean of the two's own; a surrogate that sums over "
                "trajectories instead of averaging does that too), so N is needed: give "
                "trajectories (--trajectories N)"
            )
        return True
    return False


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
