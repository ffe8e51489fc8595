"""The objective of *sampled* inner steps, exactly: E-MAML's, by enumerating batches.

An inner step taken from N sampled trajectories is random, and how likely each outcome is depends on
the parameters. The objective is the expectation over all of them,

    J_N^k(theta) = sum over batches b of p_theta(b) J_N^{k-1}(theta + alpha g_b(theta)),  J_N^0 = J,

and its gradient has a term for each place where theta enters: through the step, and through the
probability of the batch, which an objective of expected steps does not have. The inner estimate g_b
is the mean over the batch of ``sum_t G_t grad log pi(a_t|s_t)``, with G_t the whole return
(REINFORCE) or what follows discounted (the policy gradient theorem).

Batches are multisets of classes of trajectories (`analytic.trajectory_classes`).

Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (7), at K steps; the sampled
objective is E-MAML's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray, real_number, whole_number
from analytic.derivatives import logit_gradient
from analytic.logits import PolicyAt
from analytic.multisets import multisets
from analytic.policies import TABULAR, Policy
from analytic.problems import TabularMDP
from analytic.tables import Tables
from analytic.trajectory_classes import (
    LARGEST_COUNT,
    LARGEST_TABLE,
    Batch,
    Credit,
    TrajectoryClasses,
    trajectory_classes,
)
from analytic.values import Evaluation, policy_of

LONGEST_LOOP = 100
_BLOCK = 1_000_000


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
    classes = trajectory_classes(mdp, mdp.horizon, credit)
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


def _objective(
    tables: Tables, classes: TrajectoryClasses, at: PolicyAt, n: int, steps: int, step_size: float
) -> tuple[FloatArray, FloatArray]:
    """Value ``[...]`` and gradient ``[..., *shape]`` after ``steps`` more steps from ``at``."""
    if steps == 0:
        exact = Evaluation(tables, at.probabilities)
        return exact.expected_return, at.pulled(logit_gradient(exact))
    log_likelihood = classes.log_likelihood(at)
    value, gradient = np.zeros(()), np.zeros(at.theta.shape)
    block = max(1, _BLOCK // (n * classes.visits[0].size))
    for chosen in multisets(len(classes.weights), n, block):
        batch = Batch.of(classes, log_likelihood, at, chosen)
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
