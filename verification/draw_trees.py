"""Estimates that draw their own batches, at parameters they compute as they go.

The enumerated measure answers each draw with every possible batch in turn: a tree of outcomes,
walked depth first by running the estimate again for each leaf.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analytic.arrays import whole_number
from analytic.policies import checked_parameters
from stochastic.assembly import Rows
from stochastic.estimators import DrawEstimator
from stochastic.trajectories import Trajectories
from verification.enumeration import Block, Enumeration, check_size
from verification.moments import Moments
from verification.requests import Request


def explored_moments(asked: Request, estimator: DrawEstimator, limit: int) -> Moments:
    """Exact moments over the tree of the outcomes of all draws.

    Raises:
        EnumerationSizeError: more leaves than ``limit``.
        ValueError: the function is not deterministic given its draws.
    """
    outcomes = _Outcomes(asked, ordered=not _ignores_order(estimator, asked))
    sums = asked.accumulator()
    path: list[int] = []
    weight = 0.0
    while True:
        walk = _Walk(path, outcomes)
        result = estimator.run(walk.draw, asked.context)
        leaves = float(np.prod(np.array(walk.widths, dtype=np.float64)))
        check_size(max(sums.outcomes + 1, leaves if sums.outcomes == 0 else 0), limit, TOGETHER)
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


RUNS_COMPARED = 8
TOGETHER = "outcomes of all draws together"


class _Outcomes:
    """Every batch that a draw can give, with its probability; kept, as draws come back to them."""

    def __init__(self, asked: Request, *, ordered: bool) -> None:
        self._asked = asked
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
            check_size(count, asked.limit, "outcomes of one draw")
            self._known[key] = measure.all_batches(n, ordered=self._ordered)
        return self._known[key]


class _Walk:
    """One run of the function: its draws follow ``path``, then take first outcomes."""

    def __init__(self, path: list[int], outcomes: _Outcomes) -> None:
        self.path = list(path)
        self.widths: list[int] = []
        self.weight = 1.0
        self._outcomes = outcomes

    def draw(self, theta: npt.ArrayLike, n: int) -> Trajectories:
        batch, weights = self._outcomes.at(theta, n)
        depth = len(self.widths)
        if depth == len(self.path):
            self.path.append(0)
        choice = self.path[depth]
        self.widths.append(len(weights))
        if choice >= len(weights):
            raise ValueError("an estimate that draws: expected the same draws in every run")
        self.weight *= float(weights[choice])
        return batch[choice]


def _next_path(path: list[int], widths: list[int]) -> list[int]:
    """The next leaf in depth-first order; empty after the last."""
    following = path[: len(widths)]
    while following:
        following[-1] += 1
        if following[-1] < widths[len(following) - 1]:
            return following
        following.pop()
    return []


def _ignores_order(estimator: DrawEstimator, asked: Request) -> bool:
    """Whether the estimate stays when each drawn batch is turned around, on random runs."""
    for seed in range(RUNS_COMPARED):
        results = []
        for step in (1, -1, 1):
            rng = np.random.default_rng(seed)

            def draw(
                theta: npt.ArrayLike,
                n: int,
                rng: np.random.Generator = rng,
                step: int = step,
            ) -> Trajectories:
                return asked.draw_at(theta, n, rng)[::step]

            results.append(estimator.run(draw, asked.context))
        if not np.array_equal(results[0], results[2]):
            raise ValueError(
                f"{estimator.name}: returned two values for the same draws; expected one"
            )
        if not np.allclose(results[0], results[1], rtol=1e-9, atol=1e-12):
            return False
    return True


@dataclass(frozen=True, eq=False)
class RepeatedRuns:
    """An `Evaluator` that runs an estimate once a replication, with sampled draws."""

    asked: Request
    estimator: DrawEstimator
    notes: tuple[str, ...] = ()
    most: int | None = None

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
