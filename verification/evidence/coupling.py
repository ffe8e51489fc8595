"""Does an estimator couple the trajectories of a batch, and does their order matter to it?

Where a batch's estimate is the mean of its trajectories' own, single trajectories say it all;
where it is not (group baselines, normalised advantages), expectations are over batches. Both
questions are put to trajectories that are unlike each other and that earn something: estimates of
trajectories without reward are mostly 0, and would answer nothing.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.utils.validation import IntArray
from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.stochastic.estimators.kinds import CallableEstimator, Evaluator, SurrogateEstimator
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.evidence.request import Request

POOL = 24
"""Trajectories that the questions are put to; of so few, or fewer, all are taken."""

SAMPLED = 4096
"""Trajectories that the pool is chosen from where there are too many to look at them all."""

BATCHES = 64
"""Random batches of more than two."""

ORDERS = 4
"""Random orders that each batch is tried in, where multisets are to stand for all orders."""


@dataclass(frozen=True, eq=False)
class Coupling:
    """An evaluator with what was found: ``note`` says on how many batches."""

    evaluator: Evaluator
    coupled: bool
    note: str


def prepared(
    asked: Request, estimator: SurrogateEstimator | CallableEstimator, batch_size: int | None
) -> Coupling:
    """The estimator, looked at on batches of N (of one, if N is not given), and whether it couples
    the trajectories of a batch.

    Raises:
        ValueError: it misbehaves, or it is coupled and N is not given.
    """
    pool, is_all = telling_trajectories(asked)
    n = batch_size or 1
    small = asked.largest_batch(n)
    pairs = _pairs(pool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # batches of one make some estimators complain
        evaluator = _first_look(asked, estimator, pool, sorted({small, n}), batch_size)
        coupled = _couples(asked, evaluator, pairs, given=batch_size is not None)
        if not coupled and n > 2:
            coupled = _couples(asked, evaluator, _random_batches(pool, small), given=True)
    if not pool.rewards.any():
        # Nothing was earned, so nothing was answered: take N at its word.
        note = "no trajectory that was looked at earns anything: no word on other N"
        return Coupling(evaluator, coupled or n > 1, note)
    if coupled and batch_size is None:
        raise ValueError(
            f"{estimator.name}: couples the trajectories of a batch (a batch of two's estimate is "
            "not the mean of the two's own; a surrogate that sums over trajectories instead of "
            "averaging does that too), so N is needed: give batch_size, --batch-size N"
        )
    which = "all" if is_all else "the most telling"
    note = (
        f"no coupling of trajectories was seen in {which} {len(pairs.actions)} batches of two; "
        "without any, the mean is the same for every N"
    )
    return Coupling(evaluator, coupled, note)


def _first_look(
    asked: Request,
    estimator: SurrogateEstimator | CallableEstimator,
    pool: Trajectories,
    sizes: list[int],
    batch_size: int | None,
) -> Evaluator:
    """The estimator, prepared on batches of the first of ``sizes`` that it takes."""
    for n in sizes:
        try:
            return estimator.prepare(_random_batches(pool, n), asked.context)
        except ValueError as error:
            refused = error
    several = (_random_batches(pool, n) for n in (2, 3, 4))
    if batch_size is None and any(_works_on(estimator, batch, asked) for batch in several):
        hint = "on a batch of one: if it needs a batch of several, give batch_size, --batch-size N"
        raise type(refused)(f"{refused} ({hint})") from None
    raise refused


def telling_trajectories(asked: Request) -> tuple[Trajectories, bool]:
    """Up to `POOL` unlike trajectories, as batches of one ``[P, 1, H]``, those with rewards first,
    and whether they are all that there are.
    """
    if asked.enumeration.count() <= asked.max_outcomes:
        found: list[Trajectories] = []
        total = 0
        for block, _ in asked.enumeration.trajectories(1 << 14):
            total += len(block.actions)
            found.append(_most_telling(block))
        return _most_telling(Trajectories.concatenated(found)), total <= POOL
    return _most_telling(asked.seeded(0).draw(SAMPLED, 1)), False


def _most_telling(block: Trajectories) -> Trajectories:
    """The first of each kind, where kinds differ in what is earned, how long it lives, and where
    it starts; with rewards before without, then at even distances if there are too many.
    """
    earned = block.rewards.reshape(len(block.actions), -1)
    earned = earned / (np.abs(earned).max(initial=0.0) or 1.0)
    weights = 1.0 + np.sqrt(np.arange(earned.shape[1]))  # tells apart when rewards came
    kinds = np.stack(
        [earned @ weights, block.alive.sum(axis=(1, 2)), block.states[:, 0, 0]], axis=1
    )
    _, first = np.unique(kinds.round(9), axis=0, return_index=True)
    if len(first) < POOL:
        others = np.setdiff1d(np.arange(len(earned)), first)
        first = np.concatenate([first, others[: POOL - len(first)]])
    pays = np.any(earned[first] != 0, axis=1)
    ordered = np.concatenate([first[pays], first[~pays]])
    if len(ordered) <= POOL:
        return block[ordered]
    # Three quarters with rewards, as far as there are so many.
    paying, rest = ordered[: pays.sum()], ordered[pays.sum() :]
    room = max(3 * POOL // 4, POOL - len(rest))
    chosen = _spaced(paying, room)
    return block[np.concatenate([chosen, _spaced(rest, POOL - len(chosen))])]


def _spaced(entries: IntArray, count: int) -> IntArray:
    if len(entries) <= count:
        return entries
    spread: IntArray = entries[np.linspace(0, len(entries) - 1, count).round().astype(np.int64)]
    return spread


def _chosen(pool: Trajectories, index: IntArray) -> Trajectories:
    """Batches ``[B, n, H]`` of the pool's members ``index [B, n]``."""
    singles = pool.reshape(len(pool.actions))
    return singles[index]


def _pairs(pool: Trajectories) -> Trajectories:
    """Both orders of each two: what couples may look at one of them only."""
    members = range(len(pool.actions))
    return _chosen(pool, np.array(list(itertools.product(members, repeat=2))))


def _random_batches(pool: Trajectories, n: int) -> Trajectories:
    if n == 1:
        return pool
    size = len(pool.actions)
    return _chosen(pool, np.random.default_rng(n).integers(0, size, size=(BATCHES, n)))


def _works_on(
    estimator: SurrogateEstimator | CallableEstimator, batch: Trajectories, asked: Request
) -> bool:
    try:
        estimator.prepare(batch, asked.context)
    except ValueError:
        return False
    return True


def _couples(asked: Request, evaluator: Evaluator, batches: Trajectories, *, given: bool) -> bool:
    """Whether the estimate of some batch is not the mean of its trajectories' own. With N given, an
    estimator that fails on batches of another size is one that couples.
    """
    n = batches.shape[1]
    block = asked.block(n)
    for begin in range(0, len(batches.actions), block):
        part = batches[begin : begin + block]
        try:
            together = evaluator.rows(part)
            alone = evaluator.rows(part.reshape(-1, 1))
        except ValueError:
            if given:
                return True
            raise
        if not _same_means(together, alone, n):
            return True
    return False


def _same_means(together: Rows, alone: Rows, n: int) -> bool:
    """Whether each estimate of ``together`` is the mean of the n of ``alone`` that belong to it."""
    values = np.concatenate([together.values.ravel(), -alone.values.ravel() / n])
    keys = np.concatenate([_keys(together, 1), _keys(alone, n)])
    found, entries = np.unique(keys, return_inverse=True)
    gaps = np.abs(np.bincount(entries, values))
    sizes = np.bincount(entries, np.abs(values))
    largest = np.zeros(len(together.values))
    owners = found // together.size
    np.maximum.at(largest, owners, sizes)
    return bool((gaps <= 1e-9 * largest[owners]).all())


def _keys(rows: Rows, n: int) -> IntArray:
    """A number for each value: which batch of n estimates it belongs to, and which entry it is."""
    count, width = rows.values.shape
    entries = np.tile(np.arange(width), (count, 1)) if rows.indices is None else rows.indices
    keys: IntArray = (np.arange(count)[:, None] // n * rows.size + entries).ravel()
    return keys


class OrderMattersError(Exception):
    """An estimate that changes when its batch's trajectories change places."""


@dataclass(frozen=True, eq=False)
class OrderFree:
    """An evaluator that looks, for each batch, whether its order matters: multisets of trajectories
    may stand for all their orders only if it does not.

    Each batch is tried in `ORDERS` random orders of its own.
    """

    inner: Evaluator
    rng: np.random.Generator

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Evaluator`."""
        return self.inner.notes

    @property
    def most(self) -> int | None:
        """See `Evaluator`."""
        return self.inner.most

    def rows(self, batch: Trajectories) -> Rows:
        """The estimates. Raises OrderMattersError if they depend on the order."""
        rows = self.inner.rows(batch)
        for turned in self._reordered(batch):
            if not _same_means(self.inner.rows(turned), rows, 1):
                raise OrderMattersError
        return rows

    def _reordered(self, batch: Trajectories) -> Iterator[Trajectories]:
        count, n = batch.shape[:2]
        for _ in range(ORDERS):
            orders = self.rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1)
            yield batch[np.arange(count)[:, None], orders]
