"""Exact moments of estimates that draw their own batches, at parameters that they compute.

Each draw is answered with every possible batch in turn. That makes a tree of outcomes, which is
walked depth first by running the estimate again for each leaf.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.softmax import checked_parameters
from gradbias.analytic.utils.validation import FloatArray, whole_number
from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.stochastic.estimators.kinds import DrawEstimator
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.evidence.accumulated_moments import Moments
from gradbias.verification.evidence.coupling import ORDERS, OrderMattersError
from gradbias.verification.evidence.enumeration import (
    Block,
    EnumerationSizeError,
    check_outcomes,
)
from gradbias.verification.evidence.request import Request


def explored_moments(request: Request, estimator: DrawEstimator, limit: int) -> Moments:
    """Exact moments over the tree of the outcomes of all draws: over ordered tuples where these
    fit, else over multisets, if the order of drawn batches is seen to matter at no leaf.

    Raises:
        EnumerationSizeError: more leaves than ``limit``.
        ValueError: the function is not deterministic given its draws.
    """
    try:
        return _explored(request, estimator, limit, ordered=True)
    except EnumerationSizeError as error:
        try:
            return _explored(request, estimator, limit, ordered=False)
        except OrderMattersError:
            raise error from None


def _explored(request: Request, estimator: DrawEstimator, limit: int, *, ordered: bool) -> Moments:
    outcomes = _Outcomes(request, limit, ordered=ordered)
    shuffles = None if ordered else np.random.default_rng(0)
    sums = request.accumulator()
    path: list[int] = []
    weight = 0.0
    while True:
        walk = _Walk(path, outcomes)
        result = estimator.run(walk.draw, request.context)
        leaves = float(np.prod(np.array(walk.widths, dtype=np.float64)))
        check_outcomes(sums.outcomes + 1, limit, TOGETHER)
        for _ in range(1 if ordered else ORDERS):
            _check_run(request, estimator, _Walk(walk.path, outcomes, shuffles), result)
        sums.add(Rows.of_dense(result[None]), np.array([walk.weight]))
        weight += walk.weight
        if request.progress is not None:
            request.progress(sums.outcomes, int(leaves))
        path = _next_path(walk.path, walk.widths)
        if not path:
            break
    if abs(weight - 1.0) > 1e-9:
        raise ValueError(f"{estimator.name}: expected the same draws in every run")
    return sums.moments(unbiased=False)


def _check_run(
    request: Request, estimator: DrawEstimator, again: _Walk, result: FloatArray
) -> None:
    """Runs a leaf again, with its batches shuffled if it is a leaf of multisets.

    Raises:
        OrderMattersError: the shuffle changed the estimate.
        ValueError: so did running it again without one.
    """
    repeated = estimator.run(again.draw, request.context)
    if np.allclose(repeated, result, rtol=1e-9, atol=1e-12 * np.abs(result).max(initial=0.0)):
        return
    plain = estimator.run(_Walk(again.path, again.outcomes).draw, request.context)
    if not np.array_equal(plain, result):
        raise ValueError(f"{estimator.name}: returned two values for the same draws; expected one")
    raise OrderMattersError


TOGETHER = "outcomes of all draws together"


class _Outcomes:
    """Every batch that a draw can give, with its probability.

    They are kept by the draw's parameters and size: most leaves of the tree share their draws.
    """

    def __init__(self, request: Request, limit: int, *, ordered: bool) -> None:
        self._request = request
        self.limit = limit
        self._ordered = ordered
        self._known: dict[tuple[bytes, int], Block] = {}

    def at(self, theta: npt.ArrayLike, n: int) -> Block:
        setting = self._request.setting
        size = setting.mdp.n_states, setting.mdp.n_actions
        parameters = checked_parameters(setting.policy, theta, *size, "draw: theta")
        key = (parameters.tobytes(), whole_number("draw: n", n, at_least=1))
        if key not in self._known:
            every = setting.enumeration_at(parameters)
            count = every.count_batches(n, ordered=self._ordered)
            check_outcomes(count, self.limit, "outcomes of one draw")
            self._known[key] = every.all_batches(n, ordered=self._ordered)
        return self._known[key]


class _Walk:
    """The draws of one run: they follow ``path``, which says which outcome each draw has, and take
    the first outcome from its end on. With ``shuffles`` each batch comes in a random order.
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
    successor = path[: len(widths)]
    while successor:
        successor[-1] += 1
        if successor[-1] < widths[len(successor) - 1]:
            return successor
        successor.pop()
    return []
