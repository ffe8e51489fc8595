"""All trajectories of a finite-horizon problem, and the inner estimates from batches of them.

Trajectories with the same visits and the same credited returns act alike, so they are one class;
batches are multisets of classes. The inner estimate g is the mean over the batch of
``sum_t G_t grad log pi(a_t|s_t)``, with G_t the whole return (REINFORCE) or what follows discounted
(the policy gradient theorem).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from analytic.arrays import FloatArray, IntArray
from analytic.jets import required
from analytic.logits import PolicyAt
from analytic.multisets import multiset_probabilities
from analytic.policies import log_softmax
from analytic.problems import TabularMDP

LARGEST_COUNT = 1_000_000
"""Trajectories, and inner-loop outcomes, up to which the objective is enumerated."""
LARGEST_TABLE = 50_000_000
"""Numbers (of one step's batches, trajectories, states and actions) up to which it is."""


class Credit(Enum):
    """What weighs the score of step t in the inner estimate."""

    TOTAL_RETURN = "the return of the whole trajectory"
    REWARD_TO_GO = "gamma^t times the discounted return from t on"


@dataclass(frozen=True, eq=False)
class TrajectoryClasses:
    """Trajectories that act alike, M of them: ``weights [M]`` (the environment's share of their
    probability), ``visits [M, S, A]``, and ``credited [M, S, A]``, the sum of G_t over visits.
    """

    weights: FloatArray
    visits: FloatArray
    credited: FloatArray

    def log_likelihood(self, at: PolicyAt) -> FloatArray:
        """``[M]``, under the policy."""
        found: FloatArray = (self.visits * log_softmax(at.logits)).sum(axis=(1, 2))
        return np.log(self.weights) + found


def trajectory_classes(mdp: TabularMDP, steps: int, credit: Credit) -> TrajectoryClasses:
    """All trajectories, extended step by step and merged where they are alike."""
    size = (mdp.n_states, mdp.n_actions)
    to_go = credit is Credit.REWARD_TO_GO
    state = np.flatnonzero(mdp.start > 0)
    weights = mdp.start[state]
    visits = np.zeros((len(state), mdp.n_states * mdp.n_actions))
    credited = np.zeros((len(state), visits.shape[1] if to_go else 1))
    rewards = np.broadcast_to(mdp.next_state_reward, (len(mdp.next_state_reward), *size, size[0]))
    for t in range(steps):
        paid = mdp.discount**t * rewards[t if len(rewards) > 1 else 0]
        parents, actions, following = _branches(mdp, state)
        here = state[parents]
        weights = weights[parents] * mdp.transition[here, actions, following]
        visits, credited = visits[parents], credited[parents]
        alive = ~mdp.terminal[here]
        visits[alive, (here * mdp.n_actions + actions)[alive]] += 1.0
        credited += paid[here, actions, following][:, None] * (visits if to_go else 1.0)
        state, weights, visits, credited = _merged(following, weights, visits, credited)
    likely = weights > 0.0  # but for products that are too small for a float
    rows = (state[likely] * 0, weights[likely], visits[likely], credited[likely])
    _, weights, visits, credited = _merged(*rows)
    total = credited if to_go else credited * visits
    return TrajectoryClasses(weights, visits.reshape(-1, *size), total.reshape(-1, *size))


def _branches(mdp: TabularMDP, state: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Every possible (action, next state) of each row: its row, the action, the next state."""
    possible = mdp.transition > 0
    possible[mdp.terminal, 1:] = False
    counts = possible.sum(axis=(1, 2))
    found = int(counts[state].sum())
    largest = min(LARGEST_COUNT, LARGEST_TABLE // (4 * mdp.n_states * mdp.n_actions))
    if found > largest:
        raise ValueError(
            f"horizon: expected at most {largest:,} trajectories, got {found:,} or more"
        )
    parents, actions, following = np.nonzero(possible[state])
    return parents, actions, following


def _merged(
    state: IntArray, weights: FloatArray, visits: FloatArray, credited: FloatArray
) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Rows that are alike as one, with the sum of their weights."""
    keys = np.column_stack([state, visits, credited])
    _, first, place = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    summed = np.bincount(place.ravel(), weights).astype(np.float64)
    return state[first], summed, visits[first], credited[first]


@dataclass(frozen=True, eq=False)
class Batch:
    """B batches: ``probability [B]``, and in the logits ``score [B, S, A]`` of the whole batch and
    ``estimate [B, S, A]``, with the total ``credit [B, S]`` of each state's visits.
    """

    probability: FloatArray
    score: FloatArray
    estimate: FloatArray
    credit: FloatArray

    @classmethod
    def of(
        cls, classes: TrajectoryClasses, log_likelihood: FloatArray, at: PolicyAt, chosen: IntArray
    ) -> Batch:
        """Those of the multisets ``chosen [B, N]`` of classes (each row sorted)."""
        pi = at.probabilities
        visits = classes.visits[chosen].sum(axis=1)
        credited = classes.credited[chosen].mean(axis=1)
        credit = credited.sum(axis=2)
        return cls(
            probability=multiset_probabilities(chosen, log_likelihood),
            score=visits - visits.sum(axis=2, keepdims=True) * pi,
            estimate=credited - credit[..., None] * pi,
            credit=credit,
        )

    def estimate_vjp(self, at: PolicyAt, cotangent: FloatArray) -> FloatArray:
        """``(dg_b/dtheta)^T cotangent`` for a fixed batch, ``[B, *shape]``."""
        turned = required(at.jet([cotangent])[1])
        return at.pulled_jet([self.estimate, -self.credit[..., None] * turned], [cotangent])
