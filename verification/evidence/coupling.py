"""Does an estimator couple the trajectories of a batch, and does their order matter to it?

Where the estimate of a batch is the mean of its trajectories' own estimates, its expectation is
that of a single trajectory's. Where it is not (group baselines, normalised advantages), the
trajectories are coupled, and expectations run over batches. Both questions are tested on
trajectories that differ from each other and have rewards: without reward most estimates are 0.
They are tested on batches of two, and on batches of N where N is given, because an estimator may
change with N (a normalisation that begins at N = 512). Where a batch of N has too many
derivatives, they are compared along random directions instead.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.utils.validation import IntArray
from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.stochastic.estimators.kinds import (
    ROUNDINGS,
    CallableEstimator,
    Evaluator,
    SurrogateEstimator,
    SurrogateEvaluator,
    inexactness,
)
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.stochastic.tracing.imprecision import Imprecision
from gradbias.verification.evidence.request import Request

POOL = 24
"""The number of trajectories that are tested; all of them, where there are no more."""

SAMPLED = 4096
"""The number of trajectories that are sampled to choose from, where not all can be enumerated."""

BATCHES = 64
"""The number of random batches of more than two; fewer, but at least `FEWEST`, if N is large."""

FEWEST = 8
"""The fewest random batches; also the most of each other kind of batch."""

MAX_LOOKED_AT = 2**24
"""The largest number of log-probabilities in a batch that coupling is looked for in."""

ORDERS = 4
"""The number of random orders that each batch is tried in before multisets stand for all orders."""

_AGREED = 1e-9
"""The largest relative difference that is taken for rounding in float64."""


@dataclass(frozen=True, eq=False)
class Coupling:
    """A prepared evaluator, and whether it couples trajectories; ``note`` says how that was seen.

    ``n`` is the number of trajectories in the batches that it has to be evaluated on.
    """

    evaluator: Evaluator
    coupled: bool
    note: str
    n: int = 1


def detect_coupling(request: Request, batch_size: int | None) -> Coupling:
    """Prepares an estimator, and tests whether a batch's estimate is the mean of its
    single-trajectory estimates. One that draws its own batches counts as coupled.

    Raises:
        ValueError: it misbehaves; it is coupled and N is not given; or it draws its own batches,
            and N or a behaviour policy is given.
    """
    estimator = request.estimator
    if estimator.draws_itself:
        return _own_draws(request, batch_size)
    pool, is_all = informative_trajectories(request)
    n = batch_size or 1
    small = request.largest_batch(n)
    pairs = _pairs(len(pool.actions))
    sizes = [f"all {len(pairs)} batches of two" if is_all else f"{len(pairs)} batches of two"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # batches of one make some estimators complain
        evaluator = _first_look(request, estimator, pool, sorted({small, n}), batch_size)
        trial = _Trial(request, evaluator, pool)
        coupled = trial.couples(pairs, given=batch_size is not None)
        if n > 2 and not coupled:
            coupled, looked_at = trial.couples_at(n, small)
            sizes += looked_at
        if coupled and small < n:
            request.block(n)  # refuses what does not fit into memory
            evaluator = estimator.prepare(trial.batches(_random(trial.members, n)), request.context)
    if not pool.rewards.any():
        # Estimates without reward show no coupling, so the verdict is for this N alone.
        note = "no trajectory that was looked at has a reward, so other N may have another bias"
        return Coupling(evaluator, coupled or n > 1, note, n)
    if coupled and batch_size is None:
        raise ValueError(
            f"{estimator.name}: couples the trajectories of a batch (a batch of two's estimate is "
            "not the mean of the two's own; a surrogate that sums over trajectories instead of "
            "averaging does that too), so N is needed: give batch_size, --batch-size N"
        )
    kind = "" if is_all else " of the most informative trajectories"
    note = (
        f"no coupling of trajectories was seen in {' and '.join(sizes)}{kind}; "
        "without any, the mean is the same for every N"
    )
    return Coupling(evaluator, coupled, note, n if coupled else 1)


def _own_draws(request: Request, batch_size: int | None) -> Coupling:
    name = request.estimator.name
    if batch_size is not None:
        raise ValueError(f"batch_size: {name} draws its own batches, got {batch_size}")
    if not request.setting.on_policy:
        raise ValueError(f"behaviour: {name} draws at parameters of its own")
    evaluator = request.estimator.prepare(request.draw(1, 1), request.context)
    return Coupling(evaluator, True, "")


def _first_look(
    request: Request,
    estimator: SurrogateEstimator | CallableEstimator,
    pool: Trajectories,
    sizes: list[int],
    batch_size: int | None,
) -> Evaluator:
    """The estimator, prepared on batches of the first of ``sizes`` that it takes."""
    for n in sizes:
        try:
            return estimator.prepare(_chosen(pool, _random(len(pool.actions), n)), request.context)
        except ValueError as error:
            refused = error
    several = (_chosen(pool, _random(len(pool.actions), n)) for n in (2, 3, 4))
    if batch_size is None and any(_works_on(estimator, batch, request) for batch in several):
        hint = "on a batch of one: if it needs a batch of several, give batch_size, --batch-size N"
        raise type(refused)(f"{refused} ({hint})") from None
    raise refused


def informative_trajectories(request: Request) -> tuple[Trajectories, bool]:
    """Up to `POOL` trajectories that differ, as batches of one ``[P, 1, H]``, those with rewards
    first; and whether these are all that there are.
    """
    if request.enumeration.count() <= request.max_outcomes:
        chosen: list[Trajectories] = []
        total = 0
        for block, _ in request.enumeration.trajectories(1 << 14):
            total += len(block.actions)
            chosen.append(_most_informative(block))
        return _most_informative(Trajectories.concatenated(chosen)), total <= POOL
    return _most_informative(request.seeded(0).draw(SAMPLED, 1)), False


def _most_informative(block: Trajectories) -> Trajectories:
    """The first of each kind of trajectory, where kinds differ in rewards, length and first state;
    those with rewards come first, and of too many some at even distances are taken.
    """
    rewards = block.rewards.reshape(len(block.actions), -1)
    rewards = rewards / (np.abs(rewards).max(initial=0.0) or 1.0)
    # One number for each sequence of rewards: the weights are irrational and distinct, so that the
    # same rewards at other times give another number, but for chance.
    weights = 1.0 + np.sqrt(np.arange(rewards.shape[1]))
    kinds = np.stack(
        [rewards @ weights, block.alive.sum(axis=(1, 2)), block.states[:, 0, 0]], axis=1
    )
    _, first = np.unique(kinds.round(9), axis=0, return_index=True)
    if len(first) < POOL:
        others = np.setdiff1d(np.arange(len(rewards)), first)
        first = np.concatenate([first, others[: POOL - len(first)]])
    is_rewarded = np.any(rewards[first] != 0, axis=1)
    ordered = np.concatenate([first[is_rewarded], first[~is_rewarded]])
    if len(ordered) <= POOL:
        return block[ordered]
    # Three quarters with rewards, as far as there are so many.
    rewarded, others = ordered[: is_rewarded.sum()], ordered[is_rewarded.sum() :]
    room = max(3 * POOL // 4, POOL - len(others))
    taken = _spaced(rewarded, room)
    return block[np.concatenate([taken, _spaced(others, POOL - len(taken))])]


def _spaced(entries: IntArray, count: int) -> IntArray:
    if len(entries) <= count:
        return entries
    spread: IntArray = entries[np.linspace(0, len(entries) - 1, count).round().astype(np.int64)]
    return spread


def _chosen(pool: Trajectories, index: IntArray) -> Trajectories:
    """Batches ``[B, n, H]`` of the pool's members ``index [B, n]``."""
    singles = pool.reshape(len(pool.actions))
    return singles[index]


def _pairs(members: int) -> IntArray:
    """All pairs in both orders: an estimator that couples may look at one of the two only."""
    return np.array(list(itertools.product(range(members), repeat=2)))


def _random(members: int, n: int, count: int = BATCHES) -> IntArray:
    """Random batches of n; all members where n is 1."""
    if n == 1:
        return np.arange(members)[:, None]
    return np.random.default_rng(n).integers(0, members, size=(count, n))


def _telling(members: int, n: int, count: int) -> IntArray:
    """``count`` random batches of n, some of one trajectory repeated (its spread is 0), and the
    same with another trajectory in one place.
    """
    alike = np.repeat(np.arange(min(members, FEWEST))[:, None], n, axis=1)
    odd = alike.copy()
    odd[:, n // 2] = (odd[:, n // 2] + 1) % members
    return np.concatenate([_random(members, n, count), alike, odd])


def _works_on(
    estimator: SurrogateEstimator | CallableEstimator, batch: Trajectories, request: Request
) -> bool:
    try:
        estimator.prepare(batch, request.context)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, eq=False)
class _Trial:
    """An evaluator, tried on batches of the pool's trajectories; a batch is named by its members'
    numbers.
    """

    request: Request
    evaluator: Evaluator
    pool: Trajectories

    @property
    def members(self) -> int:
        """The number of trajectories in the pool."""
        return len(self.pool.actions)

    def batches(self, index: IntArray) -> Trajectories:
        """The batches ``index [B, n]``."""
        return _chosen(self.pool, index)

    def couples_at(self, n: int, small: int) -> tuple[bool, list[str]]:
        """Whether some batch of n, or of ``small`` at most, is no mean of its trajectories; and
        the batches that were looked at, in words.
        """
        first = _telling(self.members, small, self._count(small))
        looked_at = [f"{len(first)} of {small}"]
        if self.couples(first, given=True):
            return True, looked_at
        if small == n:
            return False, looked_at
        size = n * self.request.length * self.request.mdp.n_actions
        if size > MAX_LOOKED_AT or not isinstance(self.evaluator, SurrogateEvaluator):
            return False, [*looked_at, f"none of {n}, which are too large to look at"]
        at_n = _telling(self.members, n, FEWEST)
        return self.couples_along(at_n, self.evaluator), [*looked_at, f"{len(at_n)} of {n}"]

    def _count(self, n: int) -> int:
        """The number of random batches of n that take as long as `BATCHES` small ones."""
        return int(np.clip(2**14 // n, FEWEST, BATCHES))

    def couples(self, index: IntArray, *, given: bool) -> bool:
        """Whether some batch's estimate is not the mean of its trajectories' own estimates. With N
        given, an estimator that fails on batches of another size counts as coupling.
        """
        n = index.shape[1]
        block = self.request.block(n)
        try:
            alone = self.evaluator.rows(self.pool)
            for begin in range(0, len(index), block):
                part = index[begin : begin + block]
                together = self.evaluator.rows(self.batches(part))
                if not _same_means(
                    together, _repeated(alone, part.ravel()), n, _agreed(self.evaluator)
                ):
                    return True
        except ValueError:
            if given:
                return True
            raise
        return False

    def couples_along(self, index: IntArray, evaluator: SurrogateEvaluator) -> bool:
        """Whether some batch of any size is no mean of its trajectories, by derivatives of the
        estimator's order along one random direction for each order but the first.
        """
        try:
            alone = evaluator.along_random_directions(self.pool)
            for batch in index:
                together = evaluator.along_random_directions(self.batches(batch[None]))[0]
                shares = np.bincount(batch, minlength=self.members) / len(batch)
                largest = max(np.abs(together).max(), (shares @ np.abs(alone)).max())
                if np.abs(together - shares @ alone).max() > _agreed(evaluator) * largest:
                    return True
        except ValueError:
            return True
        return False


def _repeated(rows: Rows, index: IntArray) -> Rows:
    """The estimates ``index``, with repetitions."""
    indices = None if rows.indices is None else rows.indices[index]
    return Rows(rows.values[index], indices, rows.shape, rows.largest)


def _agreed(evaluator: Evaluator) -> float:
    """The largest relative difference that is taken for rounding."""
    return max(_AGREED, ROUNDINGS * inexactness(evaluator).rounding)


def _same_means(together: Rows, alone: Rows, n: int, agreed: float) -> bool:
    """Whether each estimate of ``together`` is the mean of the n of ``alone`` that belong to it, up
    to a relative difference ``agreed``.

    Rows may be sparse: each value gets a number for its batch and entry, values of one number are
    added up (``alone`` with a minus sign), and the sums must be 0 but for rounding.
    """
    values = np.concatenate([together.values.ravel(), -alone.values.ravel() / n])
    keys = np.concatenate([_keys(together, 1), _keys(alone, n)])
    unique_keys, entries = np.unique(keys, return_inverse=True)
    gaps = np.abs(np.bincount(entries, values))
    sizes = np.bincount(entries, np.abs(values))
    largest = np.zeros(len(together.values))
    owners = unique_keys // together.size
    np.maximum.at(largest, owners, sizes)
    return bool((gaps <= agreed * largest[owners]).all())


def _keys(rows: Rows, n: int) -> IntArray:
    """A number for each value: its batch of n estimates, and its entry within an estimate."""
    count, width = rows.values.shape
    entries = np.tile(np.arange(width), (count, 1)) if rows.indices is None else rows.indices
    keys: IntArray = (np.arange(count)[:, None] // n * rows.size + entries).ravel()
    return keys


class OrderMattersError(Exception):
    """An estimate changed when the trajectories of its batch changed places."""


@dataclass(frozen=True, eq=False)
class OrderFree:
    """An evaluator that tries each batch in `ORDERS` random orders: only if none of them changes
    the estimate may a multiset of trajectories stand for all its orders.
    """

    inner: Evaluator
    rng: np.random.Generator

    @property
    def notes(self) -> tuple[str, ...]:
        """The inner evaluator's notes."""
        return self.inner.notes

    @property
    def most(self) -> int | None:
        """The inner evaluator's limit."""
        return self.inner.most

    @property
    def imprecision(self) -> Imprecision:
        """The inner evaluator's imprecision."""
        return inexactness(self.inner)

    def rows(self, batch: Trajectories) -> Rows:
        """The estimates. Raises OrderMattersError if they depend on the order."""
        rows = self.inner.rows(batch)
        for shuffled in self._reordered(batch):
            if not _same_means(self.inner.rows(shuffled), rows, 1, _agreed(self.inner)):
                raise OrderMattersError
        return rows

    def _reordered(self, batch: Trajectories) -> Iterator[Trajectories]:
        count, n = batch.shape[:2]
        for _ in range(ORDERS):
            orders = self.rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1)
            yield batch[np.arange(count)[:, None], orders]
