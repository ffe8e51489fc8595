"""Estimates that draw their own batches, at parameters they compute as they go.

The enumerated measure answers each draw with every possible batch in turn: a tree of outcomes,
walked depth first by running the estimate again for each leaf.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.softmax import checked_parameters
from gradbias.analytic.utils.validation import FloatArray, whole_number
from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.stochastic.derivatives.coefficients import MAX_LOOPED
from gradbias.stochastic.estimators.kinds import DrawEstimator
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.evidence.accumulated_moments import Moments
from gradbias.verification.evidence.coupling import ORDERS, OrderMattersError
from gradbias.verification.evidence.enumeration import (
    Block,
    Enumeration,
    EnumerationSizeError,
    check_outcomes,
)
from gradbias.verification.evidence.request import Request


def explored_moments(asked: Request, estimator: DrawEstimator, limit: int) -> Moments:
    """Exact moments over the tree of the outcomes of all draws: over ordered tuples where they fit,
    else over multisets, as long as the order of drawn batches is seen to matter at no leaf.

    Raises:
        EnumerationSizeError: more leaves than ``limit``.
        ValueError: the function is not deterministic given its draws.
    """
    try:
        return _explored(asked, estimator, limit, ordered=True)
    except EnumerationSizeError as error:
        try:
            return _explored(asked, estimator, limit, ordered=False)
        except OrderMattersError:
            raise error from None


def _explored(asked: Request, estimator: DrawEstimator, limit: int, *, ordered: bool) -> Moments:
    outcomes = _Outcomes(asked, limit, ordered=ordered)
    shuffles = None if ordered else np.random.default_rng(0)
    sums = asked.accumulator()
    path: list[int] = []
    weight = 0.0
    while True:
        walk = _Walk(path, outcomes)
        result = estimator.run(walk.draw, asked.context)
        leaves = float(np.prod(np.array(walk.widths, dtype=np.float64)))
        check_outcomes(sums.outcomes + 1, limit, TOGETHER)
        for _ in range(1 if ordered else ORDERS):
            _check_run(asked, estimator, _Walk(walk.path, outcomes, shuffles), result)
        sums.add(Rows.of_dense(result[None]), np.array([walk.weight]))
        weight += walk.weight
        if asked.progress is not None:
            asked.progress(sums.outcomes, int(leaves))
        path = _next_path(walk.path, walk.widths)
        if not path:
            break
    if abs(weight - 1.0) > 1e-9:
        raise ValueError(f"{estimator.name}: expected the same draws in every run")
    return sums.moments(unbiased=False)


def _check_run(asked: Request, estimator: DrawEstimator, again: _Walk, result: FloatArray) -> None:
    """Runs a leaf again: with its batches shuffled, if it is a leaf of multisets.

    Raises:
        OrderMattersError: the shuffle changed the estimate.
        ValueError: so did running it again without one.
    """
    repeated = estimator.run(again.draw, asked.context)
    if np.allclose(repeated, result, rtol=1e-9, atol=1e-12 * np.abs(result).max(initial=0.0)):
        return
    plain = estimator.run(_Walk(again.path, again.outcomes).draw, asked.context)
    if not np.array_equal(plain, result):
        raise ValueError(f"{estimator.name}: returned two values for the same draws; expected one")
    raise OrderMattersError


TOGETHER = "outcomes of all draws together"


class _Outcomes:
    """Every batch that a draw can give, with its probability; kept, as draws come back to them."""

    def __init__(self, asked: Request, limit: int, *, ordered: bool) -> None:
        self._asked = asked
        self.limit = limit
        self._ordered = ordered
        self._known: dict[tuple[bytes, int], Block] = {}

    def at(self, theta: npt.ArrayLike, n: int) -> Block:
        asked, policy = self._asked, self._asked.context.policy
        n_states, n_actions = asked.mdp.n_states, asked.mdp.n_actions
        parameters = checked_parameters(policy, theta, n_states, n_actions, "draw: theta")
        key = (parameters.tobytes(), whole_number("draw: n", n, at_least=1))
        if key not in self._known:
            measure = Enumeration.of(asked.mdp, policy, parameters, asked.length)
            count = measure.count_batches(n, ordered=self._ordered)
            check_outcomes(count, self.limit, "outcomes of one draw")
            self._known[key] = measure.all_batches(n, ordered=self._ordered)
        return self._known[key]


class _Walk:
    """One run of the function: its draws follow ``path``, then take first outcomes. With
    ``shuffles`` each drawn batch comes in a random order.
    """

    def __init__(
        self, path: list[int], outcomes: _Outcomes, shuffles: np.random.Generator | None = None
    ) -> None:
        self.path = list(path)
        self.outcomes = outcomes
        self.widths: list[int] = []
        self.weight = 1.0
        self._shuffles = shuffles

    def draw(self, theta: npt.ArrayLike, n: int) -> Trajectories:
        batch, weights = self.outcomes.at(theta, n)
        depth = len(self.widths)
        if depth == len(self.path):
            self.path.append(0)
        choice = self.path[depth]
        self.widths.append(len(weights))
        # Here, not after the run: one that draws until something happens may never end.
        check_outcomes(np.prod(self.widths, dtype=np.float64), self.outcomes.limit, TOGETHER)
        if choice >= len(weights):
            raise ValueError("an estimate that draws: expected the same draws in every run")
        self.weight *= float(weights[choice])
        drawn = batch[choice]
        return drawn if self._shuffles is None else drawn[self._shuffles.permutation(n)]


def _next_path(path: list[int], widths: list[int]) -> list[int]:
    """The next leaf in depth-first order; empty after the last."""
    following = path[: len(widths)]
    while following:
        following[-1] += 1
        if following[-1] < widths[len(following) - 1]:
            return following
        following.pop()
    return []


@dataclass(frozen=True, eq=False)
class RepeatedRuns:
    """An `Evaluator` that runs an estimate once a replication, with sampled draws."""

    asked: Request
    estimator: DrawEstimator
    notes: tuple[str, ...] = ()
    most: int | None = MAX_LOOPED

    def rows(self, batch: Trajectories) -> Rows:
        """As many estimates as ``batch`` has replications; it holds nothing else."""

        def draw(theta: npt.ArrayLike, n: int) -> Trajectories:
            return self.asked.draw_at(theta, n, self.asked.rng)

        results = [self.estimator.run(draw, self.asked.context) for _ in range(len(batch.actions))]
        return Rows.of_dense(np.stack(results))


def placeholders(replications: int) -> Trajectories:
    """As many empty batches: an estimate that draws takes only their number from them."""
    actions = np.zeros((replications, 1, 0), dtype=np.int64)
    states = np.zeros((replications, 1, 1), dtype=np.int64)
    nothing = np.zeros((replications, 1, 0))
    return Trajectories(states, actions, nothing, actions.astype(bool), nothing)
