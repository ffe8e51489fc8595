"""The objective of *sampled* inner steps (E-MAML's), exactly, by enumerating batches.

An inner step from N sampled trajectories is random, and the probabilities of its outcomes depend on
the parameters. The objective J_N^k with k such steps is the expectation over all batches b,

    J_N^k(theta) = sum over b of p_theta(b) J_N^{k-1}(theta + alpha g_b(theta)),  J_N^0 = J.

Its gradient has a term for each place where theta enters: the step, and the batch's probability; an
objective of expected steps has no second term. The inner estimate g_b is the mean over the batch of
``sum_t G_t grad log pi(a_t|s_t)``, with G_t the total return (REINFORCE) or the discounted
reward-to-go (the policy gradient theorem).

Trajectories with the same visits and the same weights act alike, so they are merged into classes
first; batches are multisets of classes.

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
from gradbias.analytic.returns.evaluation import Evaluation, single_policy
from gradbias.analytic.utils.validation import FloatArray, real_number, whole_number


@dataclass(frozen=True, eq=False)
class SampledStepObjective:
    """The objective of sampled inner steps at theta.

    Attributes:
        value: J_N^K(theta).
        gradient: its gradient, shaped like theta.
        outcomes: how many outcomes of the inner loop they are sums over.
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
    """The expected return after *sampled* inner steps, and its gradient, by enumerating every
    batch.

    It is another objective than that of `meta_gradient`, whose inner steps are expected.

    Args:
        mdp: the problem, with a finite horizon.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        batch_size: N, the number of trajectories in a batch.
        steps: K, the number of inner steps.
        step_size: alpha.
        credit: what multiplies the score of each step.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        The value, the gradient (shaped like theta), and the number of outcomes.

    Raises:
        ValueError: theta does not fit, an infinite horizon, more than 100 steps, or more than a
            million trajectories or outcomes, or tables that are too large (the message says so).

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (7), at K steps.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> exact = sampled_step_objective(bandit, [[0.0, 0.0]], batch_size=1, steps=1, step_size=1.0)
    >>> round(exact.value, 4), exact.gradient.round(4).tolist(), exact.outcomes
    (0.6155, [[0.2319, -0.2319]], 2)
    """
    if mdp.horizon is None:
        raise ValueError("horizon: expected a finite one to enumerate, got horizon None")
    n = whole_number("batch_size", batch_size, at_least=1)
    k = whole_number("steps", steps, at_least=0)
    size = real_number("step_size", step_size, low=-1e12, high=1e12)
    at = single_policy(mdp, theta, policy)
    classes = TrajectoryClasses.of(mdp, to_go=credit is Credit.REWARD_TO_GO)
    outcomes = classes.counted(n, k)
    value, gradient = _objective(mdp.tables, classes.batches(n), at, k, size)
    return SampledStepObjective(float(value), gradient, outcomes)


def _objective(
    tables: Tables, batches: list[BatchClasses], at: PolicyAt, steps: int, step_size: float
) -> tuple[FloatArray, FloatArray]:
    """The value ``[...]`` and gradient ``[..., *shape]`` after ``steps`` more steps from ``at``."""
    if steps == 0:
        exact = Evaluation(tables, at.probabilities)
        return exact.expected_return, at.vjp(logit_gradient(exact))
    value, gradient = np.zeros(()), np.zeros(at.theta.shape)
    for batch in (block.drawn_at(at) for block in batches):
        adapted = replace(at, theta=at.theta + step_size * at.vjp(batch.estimate))
        # The last step's outcomes are evaluated at once; earlier ones branch into further batches.
        after = [replace(adapted, theta=t) for t in adapted.theta] if steps > 1 else [adapted]
        results = [_objective(tables, batches, point, steps - 1, step_size) for point in after]
        values = np.concatenate([np.atleast_1d(result[0]) for result in results])
        slopes = np.concatenate([result[1].reshape(-1, *at.shape) for result in results])
        through_step = slopes + step_size * batch.estimate_vjp(at, slopes)
        through_probability = at.vjp(values[:, None, None] * batch.score)
        value = value + batch.probability @ values
        terms = through_step + through_probability
        gradient = gradient + np.tensordot(batch.probability, terms, axes=1)
    return value, gradient
