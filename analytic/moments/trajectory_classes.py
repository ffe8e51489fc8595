"""All trajectories of a finite horizon, merged into classes that act alike, and batches of them.

The score-function gradient of a batch depends on a trajectory only by its visits ``n(s, a)`` and by
the sum of the credits of the visits to each (s, a). Trajectories that have the same of both are one
class. Its probability is the environment's share (initial distribution and transitions) times
``prod pi(a|s)^n(s,a)``. Batches are multisets of classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from gradbias.analytic.moments.multisets import log_orders, multisets
from gradbias.analytic.policies.at_parameters import PolicyAt
from gradbias.analytic.policies.jets import required
from gradbias.analytic.policies.softmax import log_softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import BoolArray, FloatArray, IntArray

MAX_COUNT = 1_000_000
"""Trajectories, batches and inner-loop outcomes up to which they are enumerated."""
MAX_TABLE = 50_000_000
"""Numbers in all tables of an enumeration up to which it is carried out."""
BLOCK = 1_000_000
"""Numbers in a block of batches that are handled at once: memory stays small, numpy stays busy."""
MAX_STEPS = 100
"""Inner steps up to which their outcomes are enumerated."""


class Credit(Enum):
    """What multiplies the score of step t in a gradient estimate."""

    TOTAL_RETURN = "the return of the whole trajectory"
    REWARD_TO_GO = "gamma^t times the discounted return from t on"


@dataclass(frozen=True, eq=False)
class TrajectoryClasses:
    """M classes of trajectories."""

    weights: FloatArray  # the environment's share of their probability, [M]
    visits: FloatArray  # [M, S, A]
    credited: FloatArray  # the sum of the credits of the visits, [M, S, A]

    @classmethod
    def of(
        cls, mdp: TabularMDP, *, to_go: bool, baseline: FloatArray | None = None
    ) -> TrajectoryClasses:
        """The classes of a problem with a finite horizon.

        Args:
            mdp: the problem.
            to_go: whether a step's credit is gamma^t times the reward-to-go, or the total return.
            baseline: ``[H, S]``; gamma^t times it is subtracted (None: 0).

        Raises:
            ValueError: an infinite horizon, or too many trajectories.
        """
        if mdp.horizon is None:
            raise ValueError("horizon: expected a finite one to enumerate, got horizon None")
        rows = _Rows.start(mdp, to_go)
        for t in range(mdp.horizon):
            rows = rows.extended(mdp, t, None if baseline is None else baseline[t])
        rows = rows.without_states()
        total = rows.credited if to_go else rows.credited * rows.visits
        size = (-1, mdp.n_states, mdp.n_actions)
        return cls(rows.weights, rows.visits.reshape(size), (total - rows.baselines).reshape(size))

    def counted(self, n: int, steps: int) -> int:
        """The number of ways to draw ``steps`` batches of ``n``. Raises ValueError for too many."""
        batches = math.comb(len(self.weights) + n - 1, n)
        if steps > MAX_STEPS:
            raise ValueError(f"steps: expected at most {MAX_STEPS}, got {steps}")
        logarithm = steps * math.log(batches)
        size = n * batches * self.visits[0].size
        if logarithm > math.log(MAX_COUNT) or size > MAX_TABLE:
            raise ValueError(
                f"batch_size, steps: expected at most {MAX_COUNT:,} outcomes, and "
                f"{MAX_TABLE:,} numbers a step, got about 10^{logarithm / math.log(10):.1f} "
                f"outcomes of batches of {n:,}; use a smaller batch, fewer steps or a lower horizon"
            )
        return int(batches**steps)

    def batches(self, n: int, block: int | None = None) -> list[BatchClasses]:
        """All batches of ``n``, in blocks of up to ``block`` numbers (default: `BLOCK`)."""
        rows = max(1, (block or BLOCK) // (n * self.visits[0].size))
        blocks = []
        for chosen in multisets(len(self.weights), n, rows):
            weights = log_orders(chosen) + np.log(self.weights)[chosen].sum(axis=1)
            visits = self.visits[chosen].sum(axis=1)
            blocks.append(BatchClasses(weights, visits, self.credited[chosen].mean(axis=1)))
        return blocks


@dataclass(frozen=True, eq=False)
class BatchClasses:
    """B batches, not yet at a policy."""

    log_weights: FloatArray  # of the number of orders times the environment's share, [B]
    visits: FloatArray  # the sum over the batch, [B, S, A]
    credited: FloatArray  # the mean over the batch, [B, S, A]

    def drawn_at(self, at: PolicyAt) -> Batches:
        """The batches with their probabilities and estimates at a policy."""
        pi, credit = at.probabilities, self.credited.sum(axis=2)
        likelihood = (self.visits * log_softmax(at.logits)).sum(axis=(1, 2))
        return Batches(
            probability=np.exp(self.log_weights + likelihood),
            score=self.visits - self.visits.sum(axis=2, keepdims=True) * pi,
            estimate=self.credited - credit[..., None] * pi,
            credit=credit,
        )


@dataclass(frozen=True, eq=False)
class Batches:
    """B batches at a policy, in the logits."""

    probability: FloatArray  # [B]
    score: FloatArray  # the gradient of the batch's log-probability, [B, S, A]
    estimate: FloatArray  # the gradient estimate, [B, S, A]
    credit: FloatArray  # the total credit of each state's visits, [B, S]

    def estimate_vjp(self, at: PolicyAt, cotangent: FloatArray) -> FloatArray:
        """``(dg_b/dtheta)^T cotangent`` for a fixed batch, ``[B, *shape]``."""
        tangent = required(at.jet([cotangent])[1])
        return at.vjp_jet([self.estimate, -self.credit[..., None] * tangent], [cotangent])


@dataclass(frozen=True, eq=False)
class _Rows:
    """The beginnings of M trajectories, merged if alike."""

    state: IntArray  # the state that each has reached, [M]
    weights: FloatArray  # the environment's share of its probability, [M]
    visits: FloatArray  # [M, SA]
    credited: FloatArray  # [M, SA]; for total returns the return alone, [M, 1]
    baselines: FloatArray  # what baselines subtract from credited, [M, SA]
    to_go: bool  # whether credits are rewards-to-go

    @classmethod
    def start(cls, mdp: TabularMDP, to_go: bool) -> _Rows:
        state = np.flatnonzero(mdp.start > 0)
        zero = np.zeros((len(state), mdp.n_states * mdp.n_actions))
        return cls(state, mdp.start[state], zero, zero if to_go else zero[:, :1], zero, to_go)

    def extended(self, mdp: TabularMDP, t: int, baseline: FloatArray | None) -> _Rows:
        """The beginnings with step t, whose credits a baseline ``[S]`` lowers."""
        rewards = mdp.next_state_reward
        reward = np.broadcast_to(rewards[t if len(rewards) > 1 else 0], mdp.transition.shape)
        parents, actions, after = _branches(mdp, self.state)
        here = self.state[parents]
        weights = self.weights[parents] * mdp.transition[here, actions, after]
        visits, credited, baselines = (
            table[parents] for table in (self.visits, self.credited, self.baselines)
        )
        alive = ~mdp.terminal[here]
        where = (alive, (here * mdp.n_actions + actions)[alive])
        visits[where] += 1.0
        if baseline is not None:
            baselines[where] += mdp.discount**t * baseline[here[alive]]
        # A reward-to-go's reward at t is credited to every visit so far.
        discounted = mdp.discount**t * reward[here, actions, after][:, None]
        credited += discounted * (visits if self.to_go else 1.0)
        return _Rows(after, weights, visits, credited, baselines, self.to_go)._merged()

    def without_states(self) -> _Rows:
        """The trajectories merged across final states; those of underflowed weight are dropped."""
        likely = self.weights > 0.0
        return replace(self, state=self.state * 0)._of(likely, self.weights[likely])._merged()

    def _merged(self) -> _Rows:
        """Equal rows as one, with the sum of their weights."""
        keys = np.column_stack([self.state, self.visits, self.credited, self.baselines])
        _, first, place = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        return self._of(first, np.bincount(place.ravel(), self.weights).astype(np.float64))

    def _of(self, rows: IntArray | BoolArray, weights: FloatArray) -> _Rows:
        visits, credited, baselines = (
            table[rows] for table in (self.visits, self.credited, self.baselines)
        )
        return _Rows(self.state[rows], weights, visits, credited, baselines, self.to_go)


def _branches(mdp: TabularMDP, state: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Every possible (action, next state) of each row: indices of row, action and next state."""
    possible = mdp.transition > 0
    # At a terminal state actions make no difference: the first stands for all.
    possible[mdp.terminal, 1:] = False
    count = int(possible.sum(axis=(1, 2))[state].sum())
    largest = min(MAX_COUNT, MAX_TABLE // (4 * mdp.n_states * mdp.n_actions))
    if count > largest:
        raise ValueError(
            f"horizon: expected at most {largest:,} trajectories, got {count:,} or more"
        )
    parents, actions, after = np.nonzero(possible[state])
    return parents, actions, after
