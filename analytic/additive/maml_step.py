"""One inner step from N sampled trajectories, as an additive Monte Carlo objective.

The features phi are the inner estimates from single trajectories, and ``f(x, theta) = J(theta + eta
x)``. Then the N-sample objective is E-MAML's and its gradient is eq. (7). Its generalised
linearised estimate (eq. 10) is the meta-gradient that MAML's code computes with an unbiased Hessian
and the *same* trajectories for step and Hessian: with ghat the mean of the phi_i and scores u_i,

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
from gradbias.analytic.returns.evaluation import expected_return, policy_of, single_policy
from gradbias.analytic.utils.validation import FloatArray, real_number


def trajectory_law(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    credit: Credit = Credit.TOTAL_RETURN,
    policy: Policy = TABULAR,
) -> AdditiveLaw:
    """The distribution of one trajectory's inner estimate, by enumeration.

    Args:
        mdp: the problem, with a finite horizon.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        credit: what multiplies the score of each step.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        M classes of trajectories: features (the estimates) and scores ``[M, p]``, and the features'
        derivatives in theta ``[M, p, p]``, for theta of p numbers.

    Raises:
        ValueError: theta does not fit, an infinite horizon, or too many trajectories.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Sec. 3.4.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> law = trajectory_law(bandit, [[0.0, 0.0]])
    >>> law.features.tolist()  # the arm with reward 0, then that with reward 1
    [[0.0, 0.0], [0.5, -0.5]]
    """
    if mdp.horizon is None:
        raise ValueError("horizon: expected a finite one to enumerate, got horizon None")
    at = single_policy(mdp, theta, policy)
    classes = TrajectoryClasses.of(mdp, to_go=credit is Credit.REWARD_TO_GO)
    count, p = len(classes.weights), math.prod(at.shape)
    if count * p * p > MAX_TABLE:
        raise ValueError(
            f"horizon: expected a distribution of at most {MAX_TABLE:,} numbers, "
            f"got {count * p * p:,}"
        )
    (all_classes,) = classes.batches(1, classes.visits.size)
    single = all_classes.drawn_at(at)
    jacobians = np.empty((count, p, p))
    for k, direction in enumerate(np.eye(p).reshape(p, *at.shape)):
        along = np.broadcast_to(direction, (count, *at.shape))
        jacobians[:, k] = single.estimate_vjp(at, along).reshape(count, p)
    features = at.vjp(single.estimate).reshape(count, p)
    scores = at.vjp(single.score).reshape(count, p)
    likely = single.probability > 0.0  # a product of many probabilities may underflow
    parts = (single.probability, features, scores, jacobians)
    return AdditiveLaw(*(part[likely] for part in parts))


def adapted_return(
    mdp: TabularMDP, theta: npt.ArrayLike, *, step_size: float, policy: Policy = TABULAR
) -> AdditiveFunction:
    """The return after a step x, ``f(x, theta) = J(theta + step_size x)``, with all its
    derivatives.

    Args:
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        step_size: eta.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        A function of steps x ``[..., p]``, shaped like theta but flattened.

    Raises:
        ValueError: theta does not fit, or a step size that is no number.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Sec. 3.4.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> adapted = adapted_return(bandit, [[0.0, 0.0]], step_size=2.0)
    >>> adapted.value(np.array([[0.0, 0.0], [0.5, -0.5]])).round(4).tolist()
    [0.5, 0.8808]
    """
    eta = real_number("step_size", step_size, low=-1e12, high=1e12)
    at = policy_of(mdp, theta, policy)
    p, kwargs = math.prod(at.shape), {"policy": policy}

    def adapted(x: FloatArray) -> FloatArray:
        return np.asarray(at.theta + eta * x.reshape(*x.shape[:-1], *at.shape))

    def slope(x: FloatArray) -> FloatArray:
        return gradient(mdp, adapted(x), **kwargs).reshape(x.shape)

    def curvature(x: FloatArray) -> FloatArray:
        return hessian(mdp, adapted(x), **kwargs).reshape(p, p)

    def third(x: FloatArray) -> FloatArray:
        basis = np.eye(p).reshape(p, *at.shape)
        first, second = basis.repeat(p, axis=0), np.concatenate([basis] * p)
        return third_derivative(mdp, adapted(x), first, second, **kwargs).reshape(p, p, p)

    return AdditiveFunction(
        value=lambda x: np.asarray(expected_return(mdp, adapted(x), **kwargs)),
        gradient=lambda x: eta * slope(x),
        hessian=lambda x: eta**2 * curvature(x),
        third_derivative=lambda x: eta**3 * third(x),
        explicit=slope,
        explicit_hessian=lambda x: eta**2 * third(x),
    )
