"""Every trajectory of a finite horizon, merged where they act alike, and batches of them.

The score-function gradient of a batch depends on a trajectory through its visits and what is
credited to them alone. So trajectories with the same visits and credit are one class, whose
probability is the environment's share times ``prod pi(a|s)^visits``; batches are multisets of
classes.
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
    """What weighs the score of step t in the inner estimate."""

    TOTAL_RETURN = "the return of the whole trajectory"
    REWARD_TO_GO = "gamma^t times the discounted return from t on"


@dataclass(frozen=True, eq=False)
class TrajectoryClasses:
    """Trajectories that act alike, M of them: ``weights [M]`` (the environment's share of their
    probability), ``visits [M, S, A]``, and ``credited [M, S, A]``, the sum over visits of what
    weighs their scores.
    """

    weights: FloatArray
    visits: FloatArray
    credited: FloatArray

    @classmethod
    def of(
        cls, mdp: TabularMDP, *, to_go: bool, baseline: FloatArray | None = None
    ) -> TrajectoryClasses:
        """Those of ``mdp``, whose horizon is finite; credited with rewards-to-go (else the whole
        return) less ``gamma^t baseline [H, S]``.

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
        return cls(rows.weights, rows.visits.reshape(size), (total - rows.taken).reshape(size))

    def counted(self, n: int, steps: int) -> int:
        """How many ways there are to draw ``steps`` batches of ``n``.

        Raises:
            ValueError: too many, or tables that are too large.
        """
        batches = math.comb(len(self.weights) + n - 1, n)
        if steps > MAX_STEPS:
            raise ValueError(f"steps: expected at most {MAX_STEPS}, got {steps}")
        logarithm = steps * math.log(batches)
        size = n * batches * self.visits[0].size
        if logarithm > math.log(MAX_COUNT) or size > MAX_TABLE:
            raise ValueError(
                f"samples, steps: expected at most {MAX_COUNT:,} outcomes, and "
                f"{MAX_TABLE:,} numbers a step, got about 10^{logarithm / math.log(10):.1f} "
                f"outcomes of batches of {n:,}; use fewer samples, steps or a shorter horizon"
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
    """B batches, wherever they are drawn: ``log_weights [B]`` (of their orders, and of the
    environment's share of their probability), the sum of ``visits [B, S, A]``, and the mean of
    ``credited [B, S, A]``.
    """

    log_weights: FloatArray
    visits: FloatArray
    credited: FloatArray

    def drawn_at(self, at: PolicyAt) -> Batches:
        """With their probabilities and estimates there."""
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
    """B batches: ``probability [B]``, and in the logits ``score [B, S, A]`` of the whole batch and
    ``estimate [B, S, A]``, with the total ``credit [B, S]`` of each state's visits.
    """

    probability: FloatArray
    score: FloatArray
    estimate: FloatArray
    credit: FloatArray

    def estimate_vjp(self, at: PolicyAt, cotangent: FloatArray) -> FloatArray:
        """``(dg_b/dtheta)^T cotangent`` for a fixed batch, ``[B, *shape]``."""
        turned = required(at.jet([cotangent])[1])
        return at.vjp_jet([self.estimate, -self.credit[..., None] * turned], [cotangent])


@dataclass(frozen=True, eq=False)
class _Rows:
    """Trajectories so far, merged where alike: where each is, its ``weights``, ``visits [M, SA]``,
    ``credited [M, SA]`` (or the return alone, ``[M, 1]``) and what baselines take off it.
    """

    state: IntArray
    weights: FloatArray
    visits: FloatArray
    credited: FloatArray
    taken: FloatArray
    to_go: bool

    @classmethod
    def start(cls, mdp: TabularMDP, to_go: bool) -> _Rows:
        state = np.flatnonzero(mdp.start > 0)
        none = np.zeros((len(state), mdp.n_states * mdp.n_actions))
        return cls(state, mdp.start[state], none, none if to_go else none[:, :1], none, to_go)

    def extended(self, mdp: TabularMDP, t: int, baseline: FloatArray | None) -> _Rows:
        """By step t, whose scores' weights a baseline ``[S]`` lowers."""
        rewards = mdp.next_state_reward
        paid = np.broadcast_to(rewards[t if len(rewards) > 1 else 0], mdp.transition.shape)
        parents, actions, following = _branches(mdp, self.state)
        here = self.state[parents]
        weights = self.weights[parents] * mdp.transition[here, actions, following]
        visits, credited, taken = (
            table[parents] for table in (self.visits, self.credited, self.taken)
        )
        alive = ~mdp.terminal[here]
        where = (alive, (here * mdp.n_actions + actions)[alive])
        visits[where] += 1.0
        if baseline is not None:
            taken[where] += mdp.discount**t * baseline[here[alive]]
        earned = mdp.discount**t * paid[here, actions, following][:, None]
        credited += earned * (visits if self.to_go else 1.0)
        return _Rows(following, weights, visits, credited, taken, self.to_go)._merged()

    def without_states(self) -> _Rows:
        """Merged whatever state they end in; without products too small for a float."""
        likely = self.weights > 0.0
        return replace(self, state=self.state * 0)._of(likely, self.weights[likely])._merged()

    def _merged(self) -> _Rows:
        """Rows that are alike as one, with the sum of their weights."""
        keys = np.column_stack([self.state, self.visits, self.credited, self.taken])
        _, first, place = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        return self._of(first, np.bincount(place.ravel(), self.weights).astype(np.float64))

    def _of(self, rows: IntArray | BoolArray, weights: FloatArray) -> _Rows:
        visits, credited, taken = self.visits[rows], self.credited[rows], self.taken[rows]
        return _Rows(self.state[rows], weights, visits, credited, taken, self.to_go)


def _branches(mdp: TabularMDP, state: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Every possible (action, next state) of each row: its row, the action, the next state."""
    possible = mdp.transition > 0
    possible[mdp.terminal, 1:] = False
    counts = possible.sum(axis=(1, 2))
    found = int(counts[state].sum())
    largest = min(MAX_COUNT, MAX_TABLE // (4 * mdp.n_states * mdp.n_actions))
    if found > largest:
        raise ValueError(
            f"horizon: expected at most {largest:,} trajectories, got {found:,} or more"
        )
    parents, actions, following = np.nonzero(possible[state])
    return parents, actions, following
