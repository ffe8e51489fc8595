"""First order in 1/N of one inner step from N sampled trajectories.

Let ``phi`` be one trajectory's inner estimate, with mean g, covariance Sigma and derivative dphi in
theta, and u its score; ``phi u^T + dphi`` has the Hessian H as its mean. At theta' = theta + eta g,
with W = D^2 J(theta'), the gradient of the sampled-step objective and the mean of its linearised
estimate (`analytic.additive.maml_step`) both tend to ``(I + eta H) grad J(theta')``, MAML's
gradient with expected steps; N times their differences from it tend to

    linearised:  spread + reuse,
    gradient:    spread + eta^2/2 {E[u (dg^T W dg)] + 2 E[dphi^T W dg]},
    spread = eta^2/2 (I + eta H) D^3 J(theta')[Sigma],   reuse = eta^2 E[dH^T W dg],

with dg and dH the deviations of one trajectory's gradient and Hessian estimates from their means.
With independent batches for step and Hessian only the spread is left.

Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Prop. 6.2, with its constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.additive.maml_step import trajectory_law
from gradbias.analytic.additive.objectives import AdditiveLaw
from gradbias.analytic.moments.estimators import EstimateMoments, gradient_moments
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient, hessian, hvp, third_derivative
from gradbias.analytic.utils.validation import FloatArray, frozen_array, real_number


@dataclass(frozen=True, eq=False)
class StepExpansion:
    """The limits as N grows, each shaped like theta.

    Attributes:
        limit: MAML's gradient with an expected step.
        spread: the part of `linearised` that independent batches for step and Hessian have, too.
        reuse: the part of `linearised` that comes from using the step's trajectories for the
            Hessian.
        objective: the limit of N (gradient of the sampled-step objective - ``limit``).
    """

    limit: FloatArray
    spread: FloatArray
    reuse: FloatArray
    objective: FloatArray

    @property
    def linearised(self) -> FloatArray:
        """The limit of N (mean of the linearised estimate - ``limit``)."""
        return self.spread + self.reuse


def step_expansion(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    step_size: float,
    credit: Credit = Credit.TOTAL_RETURN,
    policy: Policy = TABULAR,
) -> StepExpansion:
    """First order in 1/N of one inner step from N trajectories.

    Prop. 6.2 of the source bounds both differences by O(1/sqrt(N)); they are O(1/N).

    Args:
        mdp: the problem, with a finite horizon.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        step_size: eta.
        credit: what multiplies the score of each step.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        The limits, each shaped like theta.

    Raises:
        ValueError: as `trajectory_law`, or a step size that is no number.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Prop. 6.2, with its constants.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> limits = step_expansion(bandit, [[1.0, 0.0]], step_size=1.0)
    >>> limits.spread.round(4).tolist(), limits.reuse.round(4).tolist()
    ([[0.0002, -0.0002]], [[0.0025, -0.0025]])
    """
    law = trajectory_law(mdp, theta, credit=credit, policy=policy)
    step = _ExpectedStep.of(mdp, theta, step_size, credit, policy)
    off = law.features - step.inner.mean.ravel()
    curvature = hessian(mdp, step.adapted, policy=policy).reshape(off.shape[1], -1)
    by_score, reuse = _cross_moments(law, off, step.step_size**2 * off @ curvature)
    shape, spread = step.inner.mean.shape, step.spread
    return StepExpansion(
        limit=step.through(gradient(mdp, step.adapted, policy=policy)),
        spread=spread,
        reuse=reuse.reshape(shape),
        objective=spread + by_score.reshape(shape),
    )


def step_spread(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    step_size: float,
    credit: Credit = Credit.TOTAL_RETURN,
    policy: Policy = TABULAR,
) -> FloatArray:
    """The ``spread`` of `step_expansion`, by recursion: trajectories are not enumerated.

    With independent batches for step and Hessian, there is no other term of first order.

    Args:
        mdp: the problem, with a finite horizon.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        step_size: eta.
        credit: what multiplies the score of each step.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        Shaped like theta.

    Raises:
        ValueError: theta does not fit, an infinite horizon, or a step size that is no number.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Prop. 6.2, with its constant.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> step_spread(bandit, [[0.0, 0.0]], step_size=1.0).round(4).tolist()
    [[-0.012, 0.012]]
    """
    return _ExpectedStep.of(mdp, theta, step_size, credit, policy).spread


@dataclass(frozen=True, eq=False)
class _ExpectedStep:
    """An expected inner step from theta to ``adapted``: along the ``inner`` estimate's mean."""

    mdp: TabularMDP
    theta: FloatArray
    step_size: float
    policy: Policy
    inner: EstimateMoments
    adapted: FloatArray

    @classmethod
    def of(
        cls, mdp: TabularMDP, theta: npt.ArrayLike, step_size: float, credit: Credit, policy: Policy
    ) -> _ExpectedStep:
        """Checks the arguments of `step_spread` and takes the step; ValueError as there."""
        eta = real_number("step_size", step_size, low=-1e12, high=1e12)
        inner = gradient_moments(mdp, theta, credit=credit, policy=policy)
        start = frozen_array("theta", theta)
        return cls(mdp, start, eta, policy, inner, start + eta * inner.mean)

    def through(self, vector: FloatArray) -> FloatArray:
        """``(I + eta H) vector``."""
        return vector + self.step_size * hvp(self.mdp, self.theta, vector, policy=self.policy)

    @property
    def spread(self) -> FloatArray:
        """``eta^2/2 (I + eta H) D^3 J[Sigma]``, by third derivatives along the roots of Sigma."""
        values, vectors = np.linalg.eigh(self.inner.covariance)
        roots = (np.sqrt(np.maximum(values, 0.0)) * vectors).T.reshape(-1, *self.theta.shape)
        third = third_derivative(self.mdp, self.adapted, roots, roots, policy=self.policy)
        return 0.5 * self.step_size**2 * self.through(third.sum(axis=0))


def _cross_moments(
    law: AdditiveLaw, deviations: FloatArray, products: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """``E[u (dg . W dg)] / 2 + E[dphi^T W dg]`` and ``E[(phi u^T + dphi)^T W dg]``, from
    ``deviations`` dg ``[M, p]`` and ``products`` W dg.
    """
    p = law.probabilities
    by_features = np.zeros(law.scores.shape[1])
    if law.jacobians is not None:
        by_features = np.einsum("m,mh,mhd->d", p, products, law.jacobians)
    by_score = 0.5 * (p * (products * deviations).sum(axis=1)) @ law.scores
    reuse = (p * (products * law.features).sum(axis=1)) @ law.scores
    return by_score + by_features, reuse + by_features
