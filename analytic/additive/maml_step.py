"""One inner step from N sampled trajectories, as an additive Monte Carlo objective.

The features are the inner estimates from single trajectories, and ``f(x, theta) = J(theta + eta
x)``: then the N-sample objective is E-MAML's, its gradient is eq. (7), and its generalised
linearised estimate (eq. 10) is the meta-gradient that MAML's code computes with an unbiased Hessian
and the *same* trajectories for step and Hessian,

    (I + eta Hhat)^T grad J(theta + eta ghat),   Hhat = mean_i (phi_i u_i^T + dphi_i/dtheta).

Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Secs. 3.4 and 4.3. Eqs. (11) and (12)
lack the step size in their first terms; it is there here.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gradbias.analytic.additive.objectives import AdditiveFunction, AdditiveLaw
from gradbias.analytic.moments.trajectory_classes import MAX_TABLE, Credit, TrajectoryClasses
from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient, hessian, third_derivative
from gradbias.analytic.returns.evaluation import expected_return, policy_of
from gradbias.analytic.utils.validation import FloatArray, real_number


def trajectory_law(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    credit: Credit = Credit.TOTAL_RETURN,
    policy: Policy = TABULAR,
) -> AdditiveLaw:
    """The law of one trajectory's inner estimate (features ``[M, p]``), with scores ``[M, p]`` and
    derivatives ``[M, p, p]`` in theta (p numbers), over M classes of trajectories.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Sec. 3.4.

    Raises:
        ValueError: theta does not fit, an infinite horizon, or too many trajectories.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> law = trajectory_law(bandit, [[0.0, 0.0]])
    >>> law.features.tolist()  # the arm that pays nothing, the other one
    [[0.0, 0.0], [0.5, -0.5]]
    """
    if mdp.horizon is None:
        raise ValueError("horizon: expected a finite one to enumerate, got horizon None")
    at = policy_of(mdp, theta, policy)
    if at.leading:
        raise ValueError(f"theta: expected one policy, got leading axes {at.leading}")
    classes = TrajectoryClasses.of(mdp, to_go=credit is Credit.REWARD_TO_GO)
    count, p = len(classes.weights), math.prod(at.shape)
    if count * p * p > MAX_TABLE:
        raise ValueError(
            f"horizon: expected a law of at most {MAX_TABLE:,} numbers, got {count * p * p:,}"
        )
    (together,) = classes.batches(1, classes.visits.size)
    single = together.drawn_at(at)
    jacobians = np.empty((count, p, p))
    for k, direction in enumerate(np.eye(p).reshape(p, *at.shape)):
        along = np.broadcast_to(direction, (count, *at.shape))
        jacobians[:, k] = single.estimate_vjp(at, along).reshape(count, p)
    features = at.vjp(single.estimate).reshape(count, p)
    scores = at.vjp(single.score).reshape(count, p)
    likely = single.probability > 0.0  # but for products that are too small for a float
    parts = (single.probability, features, scores, jacobians)
    return AdditiveLaw(*(part[likely] for part in parts))


def adapted_return(
    mdp: TabularMDP, theta: npt.ArrayLike, *, step_size: float, policy: Policy = TABULAR
) -> AdditiveFunction:
    """``f(x, theta) = J(theta + step_size x)`` of steps x ``[..., p]`` (theta flattened), with all
    derivatives that the expansion in 1/N takes.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Sec. 3.4.

    Raises:
        ValueError: theta does not fit, or a step size that is no number.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> adapted = adapted_return(bandit, [[0.0, 0.0]], step_size=2.0)
    >>> adapted.value(np.array([[0.0, 0.0], [0.5, -0.5]])).round(4).tolist()
    [0.5, 0.8808]
    """
    eta = real_number("step_size", step_size, low=-1e12, high=1e12)
    at = policy_of(mdp, theta, policy)
    p, kwargs = math.prod(at.shape), {"policy": policy}

    def moved(x: FloatArray) -> FloatArray:
        found: FloatArray = at.theta + eta * x.reshape(*x.shape[:-1], *at.shape)
        return found

    def slope(x: FloatArray) -> FloatArray:
        return gradient(mdp, moved(x), **kwargs).reshape(x.shape)

    def curvature(x: FloatArray) -> FloatArray:
        return hessian(mdp, moved(x), **kwargs).reshape(p, p)

    def third(x: FloatArray) -> FloatArray:
        every = np.eye(p).reshape(p, *at.shape)
        first, second = every.repeat(p, axis=0), np.concatenate([every] * p)
        return third_derivative(mdp, moved(x), first, second, **kwargs).reshape(p, p, p)

    return AdditiveFunction(
        value=lambda x: np.asarray(expected_return(mdp, moved(x), **kwargs)),
        gradient=lambda x: eta * slope(x),
        hessian=lambda x: eta**2 * curvature(x),
        third_derivative=lambda x: eta**3 * third(x),
        explicit=slope,
        explicit_hessian=lambda x: eta**2 * third(x),
    )
