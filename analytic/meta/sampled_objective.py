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

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gradbias.analytic.moments.trajectory_classes import BatchClasses, Credit, TrajectoryClasses
from gradbias.analytic.policies.at_parameters import PolicyAt
from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.tables import Tables
from gradbias.analytic.returns.derivatives import logit_gradient
from gradbias.analytic.returns.evaluation import Evaluation, policy_of
from gradbias.analytic.utils.validation import FloatArray, real_number, whole_number

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
    batch_size: int,
    steps: int,
    step_size: float,
    credit: Credit = Credit.REWARD_TO_GO,
    policy: Policy = TABULAR,
) -> SampledStepObjective:
    """The expected return after ``steps`` inner steps from ``batch_size`` trajectories each, and
    its gradient, by enumerating every batch. Not `meta_gradient`, whose inner steps are expected.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (7), at K steps.

    Raises:
        ValueError: theta does not fit, an infinite horizon, more than 100 steps, or more than a
            million trajectories or outcomes, or tables that are too large (the message says so).

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> found = sampled_step_objective(bandit, [[0.0, 0.0]], batch_size=1, steps=1, step_size=1.0)
    >>> round(found.value, 4), found.gradient.round(4).tolist(), found.outcomes
    (0.6155, [[0.2319, -0.2319]], 2)
    """
    if mdp.horizon is None:
        raise ValueError("horizon: expected a finite one to enumerate, got horizon None")
    n = whole_number("batch_size", batch_size, at_least=1)
    k = whole_number("steps", steps, at_least=0)
    size = real_number("step_size", step_size, low=-1e12, high=1e12)
    at = policy_of(mdp, theta, policy)
    if at.leading:
        raise ValueError(f"theta: expected one policy, got leading axes {at.leading}")
    classes = TrajectoryClasses.of(mdp, to_go=credit is Credit.REWARD_TO_GO)
    outcomes = classes.counted(n, k)
    value, gradient = _objective(mdp.tables, classes.batches(n, _BLOCK), at, k, size)
    return SampledStepObjective(float(value), gradient, outcomes)


def _objective(
    tables: Tables, batches: list[BatchClasses], at: PolicyAt, steps: int, step_size: float
) -> tuple[FloatArray, FloatArray]:
    """Value ``[...]`` and gradient ``[..., *shape]`` after ``steps`` more steps from ``at``."""
    if steps == 0:
        exact = Evaluation(tables, at.probabilities)
        return exact.expected_return, at.vjp(logit_gradient(exact))
    value, gradient = np.zeros(()), np.zeros(at.theta.shape)
    for batch in (block.drawn_at(at) for block in batches):
        moved = replace(at, theta=at.theta + step_size * at.vjp(batch.estimate))
        after = [replace(moved, theta=theta) for theta in moved.theta] if steps > 1 else [moved]
        found = [_objective(tables, batches, one, steps - 1, step_size) for one in after]
        values = np.concatenate([np.atleast_1d(each[0]) for each in found])
        slopes = np.concatenate([each[1].reshape(-1, *at.shape) for each in found])
        through = slopes + step_size * batch.estimate_vjp(at, slopes)
        scored = at.vjp(values[:, None, None] * batch.score)
        value = value + batch.probability @ values
        gradient = gradient + np.tensordot(batch.probability, through + scored, axes=1)
    return value, gradient
