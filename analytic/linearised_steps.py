"""One inner step from N sampled trajectories: the additive objective that it is, and its first
order in 1/N.

With features ``phi`` = the inner estimate from one trajectory (mean g, covariance Sigma, mean
derivative H, the Hessian) and ``f(x, theta) = J(theta + eta x)``, E-MAML's objective is an additive
Monte Carlo objective. Its generalised linearised estimate (eq. 10) is the meta-gradient that MAML's
code computes with an unbiased Hessian and the *same* trajectories for step and Hessian,

    (I + eta Hhat)^T grad J(theta + eta ghat),   Hhat = mean_i (phi_i u_i^T + dphi_i/dtheta).

At theta' = theta + eta g, with W = D^2 J(theta'), both the objective's gradient and the mean of
that estimate tend to ``(I + eta H) grad J(theta')``, MAML's with expected steps; N times the rest
tends to

    linearised:  spread + reuse,
    gradient:    spread + eta^2/2 {E[u (dg^T W dg)] + 2 E[dphi^T W dg]},
    spread = eta^2/2 (I + eta H) D^3 J(theta')[Sigma],   reuse = eta^2 E[dH^T W dg],

with dg, dH one trajectory's deviations. With independent batches for step and Hessian only the
spread is left.

Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Secs. 3.4, 4.3 and Prop. 6.2, with its
constants. Eqs. (11) and (12) lack the step size in their first terms; it is there here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analytic.additive_objectives import AdditiveFunction, AdditiveLaw
from analytic.arrays import FloatArray, real_number
from analytic.derivatives import gradient, hessian, hvp, third_derivative
from analytic.moments import gradient_moments
from analytic.policies import TABULAR, Policy
from analytic.problems import TabularMDP
from analytic.trajectory_classes import LARGEST_TABLE, Batch, Credit, trajectory_classes
from analytic.values import expected_return, policy_of


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
    classes = trajectory_classes(mdp, mdp.horizon, credit)
    count, p = len(classes.weights), math.prod(at.shape)
    if count * p * p > LARGEST_TABLE:
        raise ValueError(
            f"horizon: expected a law of at most {LARGEST_TABLE:,} numbers, got {count * p * p:,}"
        )
    single = Batch.of(classes, classes.log_likelihood(at), at, np.arange(count)[:, None])
    jacobians = np.empty((count, p, p))
    for k, direction in enumerate(np.eye(p).reshape(p, *at.shape)):
        along = np.broadcast_to(direction, (count, *at.shape))
        jacobians[:, k] = single.estimate_vjp(at, along).reshape(count, p)
    features = at.pulled(single.estimate).reshape(count, p)
    scores = at.pulled(single.score).reshape(count, p)
    return AdditiveLaw(single.probability, features, scores, jacobians)


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


@dataclass(frozen=True, eq=False)
class StepExpansion:
    """Each shaped like theta: the ``limit``, which is MAML's gradient with an expected step, and
    the limits of N times what differs from it: the parts of the linearised estimate's mean,
    ``spread`` (what is left with independent batches) and ``reuse`` (of the step's trajectories for
    the Hessian), and that of the sampled-step ``objective``'s gradient.
    """

    limit: FloatArray
    spread: FloatArray
    reuse: FloatArray
    objective: FloatArray

    @property
    def linearised(self) -> FloatArray:
        """The limit of N (mean of the linearised estimate - limit)."""
        return self.spread + self.reuse


def step_expansion(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    step_size: float,
    credit: Credit = Credit.TOTAL_RETURN,
    policy: Policy = TABULAR,
) -> StepExpansion:
    """First order in 1/N of one inner step from N trajectories, shaped like theta (``[S, A]``).

    Prop. 6.2 of the source bounds both differences by O(1/sqrt(N)); they are O(1/N).
    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Prop. 6.2, with its constants.

    Raises:
        ValueError: as `trajectory_law`, or a step size that is no number.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> found = step_expansion(bandit, [[0.0, 0.0]], step_size=1.0)
    >>> found.limit.round(4).tolist(), found.linearised.round(4).tolist()
    ([[0.235, -0.235]], [[-0.012, 0.012]])
    """
    eta = real_number("step_size", step_size, low=-1e12, high=1e12)
    law = trajectory_law(mdp, theta, credit=credit, policy=policy)
    shape = policy_of(mdp, theta, policy).shape
    inner = gradient_moments(mdp, theta, credit=credit, policy=policy)
    adapted = np.asarray(theta, dtype=np.float64) + eta * inner.mean

    def through_step(vector: FloatArray) -> FloatArray:
        return vector + eta * hvp(mdp, theta, vector, policy=policy)

    values, vectors = np.linalg.eigh(inner.covariance)
    roots = (np.sqrt(np.maximum(values, 0.0)) * vectors).T.reshape(-1, *shape)
    third = third_derivative(mdp, adapted, roots, roots, policy=policy).sum(axis=0)
    spread = 0.5 * eta**2 * through_step(third)
    off = law.features - inner.mean.ravel()
    curvature = hessian(mdp, adapted, policy=policy).reshape(off.shape[1], -1)
    by_law, reuse = _cross_moments(law, off, eta**2 * off @ curvature)
    return StepExpansion(
        limit=through_step(gradient(mdp, adapted, policy=policy)),
        spread=spread,
        reuse=reuse.reshape(shape),
        objective=spread + by_law.reshape(shape),
    )


def _cross_moments(
    law: AdditiveLaw, off: FloatArray, turned: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """``E[u (dg . W dg)] / 2 + E[dphi^T W dg]`` and ``E[(phi u^T + dphi)^T W dg]``, from the
    deviations ``off [M, p]`` and W times them.
    """
    p = law.probabilities
    moved = np.zeros(law.scores.shape[1])
    if law.jacobians is not None:
        moved = np.einsum("m,mh,mhd->d", p, turned, law.jacobians)
    by_law = 0.5 * (p * (turned * off).sum(axis=1)) @ law.scores
    reuse = (p * (turned * law.features).sum(axis=1)) @ law.scores
    return by_law + moved, reuse + moved
