"""Bounds that hold for every tabular softmax policy of a problem, from its tables alone.

`analytic.constants.softmax` bounds the derivatives of state values. This module bounds those of
returns, the errors of the means of Hessian estimates, and the standard deviations of estimates. The
scores u are martingale differences with ``E|u|^2 <= 1 - 1/A`` for A actions, so Minkowski's
inequality over the rewards bounds the noise of each estimate.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumptions 4.1-4.3, which
suppose that such bounds exist.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from gradbias.analytic.constants.softmax import SCORE, ProblemSizes, derivative_bounds
from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.problems.mdp import TabularMDP


@dataclass(frozen=True)
class ReturnConstants:
    """Bounds of the norms of the return's first four derivatives, over all theta and initial
    distributions: L0 (gradient), L1 (Hessian), L2, L3. Each is the Lipschitz constant of the one
    before.
    """

    slope: float
    curvature: float
    third: float
    fourth: float


@dataclass(frozen=True)
class HessianConstants:
    """Bounds for a Hessian estimate, over all theta: the norm of its mean's ``error``, the mean's
    Lipschitz constant (``change``), and the Frobenius ``deviation`` from one trajectory.
    """

    error: float
    change: float
    deviation: float


def return_constants(mdp: TabularMDP) -> ReturnConstants:
    """Bounds of the return's derivatives that hold for all logits ``[S, A]``.

    Args:
        mdp: the problem.

    Returns:
        The bounds, by recursion over the steps to go; over the infinite horizon their limit.

    Raises:
        ValueError: the problem is no `TabularMDP`.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumption 4.1
    (`analytic.constants.softmax` derives them).

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> bounds = return_constants(bandit)
    >>> round(bounds.slope, 4), round(bounds.curvature, 4)  # both attained
    (0.3536, 0.1925)
    """
    return _return_constants(ProblemSizes.of(mdp))


def mixed_constants(mdp: TabularMDP) -> ReturnConstants:
    """Bounds of LIRPG's mixed derivative ``d/dphi dJ/dtheta`` and of its derivatives in theta.

    They are the `return_constants` over all rewards ``[S, A]`` of norm 1: ``slope`` is the paper's
    c_1, ``curvature`` is rho_1 (which the paper lacks).

    Raises:
        ValueError: the problem is no `TabularMDP`.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumption 4.1.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[5.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> round(mixed_constants(bandit).slope, 4)
    0.5
    """
    return _return_constants(replace(ProblemSizes.of(mdp), action_span=SCORE, mean_span=SCORE))


def _return_constants(problem: ProblemSizes) -> ReturnConstants:
    last = derivative_bounds(problem)[-1]
    return ReturnConstants(last["x1"], last["x2"], last["x3"], last["x4"])


def hessian_constants(mdp: TabularMDP, curvature: Curvature) -> HessianConstants:
    """Bounds for a Hessian estimate ``[S, A, S, A]`` with rewards-to-go and no critic.

    Raises:
        ValueError: the problem is no `TabularMDP`, or another curvature.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Theorem 4.5
    (`analytic.constants.softmax` derives them).

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> hessian_constants(bandit, Curvature.LVC).error  # of one step it estimates the Hessian
    0.0
    """
    if not isinstance(curvature, Curvature):
        raise ValueError(f"curvature: expected a Curvature, got {curvature!r}")
    problem = ProblemSizes.of(mdp)
    last = derivative_bounds(problem)[-1]
    deviation = problem.largest_reward * _hessian_noise(problem, curvature)
    if curvature is Curvature.LVC:
        return HessianConstants(last["lvc_error"], last["lvc_change"], deviation)
    if curvature is Curvature.AD:
        return HessianConstants(last["ad"] + last["x2"], last["ad_change"], deviation)
    return HessianConstants(0.0, last["x3"], deviation)


def gradient_deviation(
    mdp: TabularMDP,
    *,
    credit: Credit = Credit.REWARD_TO_GO,
    exact_baseline: bool = False,
) -> float:
    """A bound of the standard deviation ``sqrt(E|ghat - g|^2)`` of one trajectory's gradient, for
    all logits ``[S, A]``; the exact values are subtracted from rewards-to-go if ``exact_baseline``.

    Raises:
        ValueError: total returns over the infinite horizon, or with the exact baseline.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumption 4.3; scores are
    martingale differences with ``E|u|^2 <= 1 - 1/A``.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> round(gradient_deviation(bandit), 4)
    0.7071
    """
    problem = ProblemSizes.of(mdp)
    if credit is Credit.TOTAL_RETURN:
        if mdp.horizon is None or exact_baseline:
            raise ValueError("credit: expected rewards-to-go, got total returns")
        length = problem.length(mdp.horizon)
        return float(problem.largest_reward * length * math.sqrt(mdp.horizon * problem.scatter))
    if exact_baseline:
        return problem.reward_span * math.sqrt(problem.scatter) * problem.paired_length
    return problem.largest_reward * mixed_deviation(mdp)


def mixed_deviation(mdp: TabularMDP) -> float:
    """A bound of the standard deviation of LIRPG's sampled Jacobian ``[S, A, S, A]``, in the
    Frobenius norm, and the bound of `gradient_deviation` for rewards of at most 1.

    Raises:
        ValueError: the problem is no `TabularMDP`.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Theorem 4.5 (sigma_J).

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[3.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> round(mixed_deviation(bandit), 4)
    0.7071
    """
    problem = ProblemSizes.of(mdp)
    if mdp.horizon is None:  # by Cauchy's inequality
        return math.sqrt(problem.scatter) * math.pow(1.0 - mdp.discount, -1.5)
    k = np.arange(mdp.horizon)
    return math.sqrt(problem.scatter) * float(mdp.discount**k @ np.sqrt(k + 1.0))


def largest_estimate(mdp: TabularMDP) -> float:
    """The largest norm of a gradient estimate ``[S, A]`` with rewards-to-go and no critic, from any
    trajectories at any theta. An inner step is no longer than that times the step size.

    Raises:
        ValueError: the problem is no `TabularMDP`.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Lemma 4.4 (where iterates
    may go).

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> round(largest_estimate(bandit), 4)
    1.4142
    """
    problem = ProblemSizes.of(mdp)
    return 0.0 if mdp.n_actions == 1 else SCORE * problem.largest_reward * problem.paired_length


def _hessian_noise(problem: ProblemSizes, curvature: Curvature) -> float:
    """A bound of the standard deviation of the Hessian's estimate for rewards of at most 1.

    Minkowski's inequality adds the noise of each reward: that of step k is multiplied by a
    martingale of k + 1 increments (for AD by a sum of k + 1 matrices).
    """
    mdp, scatter = problem.mdp, problem.scatter
    gamma = mdp.discount
    if curvature is Curvature.AD:  # a Frobenius norm of at most sqrt(|F| tr F)
        return math.sqrt(0.5 * scatter) * problem.paired_length
    steps = mdp.horizon
    if steps is None:
        # The sum is cut where the remainder is below rounding; a geometric series bounds that.
        steps = math.ceil(60.0 / (1.0 - gamma)) if gamma > 0.0 else 1
    k = np.arange(steps)
    diagonal = math.sqrt(2.0 * scatter)  # E|u u^T - F|^2 <= E|u|^4 <= 2 E|u|^2
    across = 2.0 * scatter * np.sqrt(k) if curvature is Curvature.DICE else np.zeros(steps)
    noise = np.sqrt(np.cumsum((diagonal + across) ** 2))
    cut = 0.0 if mdp.horizon is not None else gamma**steps * 60.0 * steps / (1.0 - gamma) ** 2
    return float(gamma**k @ noise) + cut
