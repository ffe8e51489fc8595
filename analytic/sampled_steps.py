"""The objective of *sampled* inner steps, exactly: E-MAML's, by enumerating batches.

An inner step taken from N sampled trajectories is random, and how likely each outcome is depends on
the parameters. The objective is the expectation over all of them,

    J_N^k(theta) = sum over batches b of p_theta(b) J_N^{k-1}(theta + alpha g_b(theta)),  J_N^0 = J,

and its gradient has a term for each place where theta enters: through the step, and through the
probability of the batch, which an objective of expected steps does not have. The inner estimate g_b
is the mean over the batch of ``sum_t G_t grad log pi(a_t|s_t)``, with G_t the whole return
(REINFORCE) or what follows discounted (the policy gradient theorem).

Trajectories with the same visits and the same weights act alike, so they are merged first; batches
are multisets of the classes that are left.

Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (7), at K steps; the sampled
objective is E-MAML's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import combinations_with_replacement, islice

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray, IntArray, real_number, whole_number
from analytic.derivatives import logit_gradient
from analytic.jets import required
from analytic.logits import PolicyAt
from analytic.policies import TABULAR, Policy, log_softmax
from analytic.problems import TabularMDP
from analytic.tables import Tables
from analytic.values import Evaluation, policy_of

LARGEST_COUNT = 1_000_000
"""Trajectories, and inner-loop outcomes, up to which the objective is enumerated."""
LARGEST_TABLE = 50_000_000
"""Numbers (of one step's batches, trajectories, states and actions) up to which it is."""
LONGEST_LOOP = 100
_BLOCK = 1_000_000


class Credit(Enum):
    """What weighs the score of step t in the inner estimate."""

    TOTAL_RETURN = "the return of the whole trajectory"
    REWARD_TO_GO = "gamma^t times the discounted return from t on"


@dataclass(frozen=True, eq=False)
class SampledStepObjective:
    """``value`` J_N^K(theta), its ``gradient`` shaped like theta, and how many ``outcomes`` of the
    inner loop they are sums over.
    """

    value: float
    gradient: FloatArray
    outcomes: int


def sampled_step_objective(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    samples: int,
    steps: int,
    step_size: float,
    credit: Credit = Credit.REWARD_TO_GO,
    policy: Policy = TABULAR,
) -> SampledStepObjective:
    """The expected return after ``steps`` inner steps from ``samples`` trajectories each, and its
    gradient, by enumerating every batch. Not `meta_gradient`, whose inner steps are expected.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (7), at K steps.

    Raises:
        ValueError: theta does not fit, an infinite horizon, more than 100 steps, or more than a
            million trajectories or outcomes, or tables that are too large (the message says so).

    >>> from analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> found = sampled_step_objective(bandit, [[0.0, 0.0]], samples=1, steps=1, step_size=1.0)
    >>> round(found.value, 4), found.gradient.round(4).tolist(), found.outcomes
    (0.6155, [[0.2319, -0.2319]], 2)
    """
    if mdp.horizon is None:
        raise ValueError("horizon: expected a finite one to enumerate, got horizon None")
    n = whole_number("samples", samples, at_least=1)
    k = whole_number("steps", steps, at_least=0)
    size = real_number("step_size", step_size, low=-1e12, high=1e12)
    at = policy_of(mdp, theta, policy)
    if at.leading:
        raise ValueError(f"theta: expected one policy, got leading axes {at.leading}")
    classes = _trajectory_classes(mdp, mdp.horizon, credit)
    batches = math.comb(len(classes.weights) + n - 1, n)
    if k > LONGEST_LOOP:
        raise ValueError(f"steps: expected at most {LONGEST_LOOP}, got {k}")
    logarithm = k * math.log(batches)
    if logarithm > math.log(LARGEST_COUNT) or n * batches * classes.visits[0].size > LARGEST_TABLE:
        raise ValueError(
            f"samples, steps: expected at most {LARGEST_COUNT:,} outcomes, and {LARGEST_TABLE:,} "
            f"numbers a step, got about 10^{logarithm / math.log(10):.1f} outcomes of batches of "
            f"{n:,}; use fewer samples, steps or a shorter horizon"
        )
    value, gradient = _objective(mdp.tables, classes, at, n, k, size)
    return SampledStepObjective(float(value), gradient, batches**k)


@dataclass(frozen=True, eq=False)
class _Classes:
    """Trajectories that act alike, M of them: ``weights [M]`` (the environment's share of their
    probability), ``visits [M, S, A]``, and ``credited [M, S, A]``, the sum of G_t over visits.
    """

    weights: FloatArray
    visits: FloatArray
    credited: FloatArray


def _trajectory_classes(mdp: TabularMDP, steps: int, credit: Credit) -> _Classes:
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
    return _Classes(weights, visits.reshape(-1, *size), total.reshape(-1, *size))


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


def _objective(
    tables: Tables, classes: _Classes, at: PolicyAt, n: int, steps: int, step_size: float
) -> tuple[FloatArray, FloatArray]:
    """Value ``[...]`` and gradient ``[..., *shape]`` after ``steps`` more steps from ``at``."""
    if steps == 0:
        exact = Evaluation(tables, at.probabilities)
        return exact.expected_return, at.pulled(logit_gradient(exact))
    log_policy = log_softmax(at.logits)
    log_likelihood = np.log(classes.weights) + (classes.visits * log_policy).sum(axis=(1, 2))
    value, gradient = np.zeros(()), np.zeros(at.theta.shape)
    block = max(1, _BLOCK // (n * classes.visits[0].size))
    for chosen in _multisets(len(classes.weights), n, block):
        batch = _Batch.of(classes, log_likelihood, at, chosen)
        moved = replace(at, theta=at.theta + step_size * at.pulled(batch.estimate))
        after = [replace(moved, theta=theta) for theta in moved.theta] if steps > 1 else [moved]
        found = [_objective(tables, classes, one, n, steps - 1, step_size) for one in after]
        values = np.concatenate([np.atleast_1d(each[0]) for each in found])
        slopes = np.concatenate([each[1].reshape(-1, *at.shape) for each in found])
        through = slopes + step_size * batch.estimate_vjp(at, slopes)
        scored = at.pulled(values[:, None, None] * batch.score)
        value = value + batch.probability @ values
        gradient = gradient + np.tensordot(batch.probability, through + scored, axes=1)
    return value, gradient


@dataclass(frozen=True, eq=False)
class _Batch:
    """B batches: ``probability [B]``, and in the logits ``score [B, S, A]`` of the whole batch and
    ``estimate [B, S, A]``, with the total ``credit [B, S]`` of each state's visits.
    """

    probability: FloatArray
    score: FloatArray
    estimate: FloatArray
    credit: FloatArray

    @classmethod
    def of(
        cls, classes: _Classes, log_likelihood: FloatArray, at: PolicyAt, chosen: IntArray
    ) -> _Batch:
        """Those of the multisets ``chosen [B, N]`` of classes (each row sorted)."""
        run = np.ones(chosen.shape)
        for i in range(1, chosen.shape[1]):
            run[:, i] += np.where(chosen[:, i] == chosen[:, i - 1], run[:, i - 1], 0.0)
        # The number of orders, n! / (product of the factorials of repetitions), factor by factor.
        log_orders = np.log(np.arange(1, chosen.shape[1] + 1) / run)
        pi = at.probabilities
        visits = classes.visits[chosen].sum(axis=1)
        credited = classes.credited[chosen].mean(axis=1)
        credit = credited.sum(axis=2)
        return cls(
            probability=np.exp((log_orders + log_likelihood[chosen]).sum(axis=1)),
            score=visits - visits.sum(axis=2, keepdims=True) * pi,
            estimate=credited - credit[..., None] * pi,
            credit=credit,
        )

    def estimate_vjp(self, at: PolicyAt, cotangent: FloatArray) -> FloatArray:
        """``(dg_b/dtheta)^T cotangent`` for a fixed batch, ``[B, *shape]``."""
        turned = required(at.jet([cotangent])[1])
        return at.pulled_jet([self.estimate, -self.credit[..., None] * turned], [cotangent])


def _multisets(n_classes: int, n: int, block: int) -> Iterator[IntArray]:
    """All multisets of n classes, ``[block, n]`` at a time."""
    every = combinations_with_replacement(range(n_classes), n)
    while some := list(islice(every, block)):
        yield np.array(some, dtype=np.int64)
