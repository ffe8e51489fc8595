"""The exact norms, errors and standard deviations of a MAML or LIRPG loop at one theta."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.constants.returns import gradient_deviation, largest_estimate
from gradbias.analytic.meta.compositional_bias import ExpectedPath
from gradbias.analytic.moments.estimators import Curvature, gradient_moments
from gradbias.analytic.moments.hessian_means import hessian_estimate_mean
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient, hessian, reward_vjp, third_derivative
from gradbias.analytic.utils.validation import FloatArray


@dataclass(frozen=True, eq=False)
class Point:
    """Logits ``[S, A]`` at which a loop's constants are evaluated; ``curvature`` and
    ``hessian_error`` are as in `ReturnLoop`.
    """

    loop: ExpectedPath
    theta: FloatArray
    curvature: Curvature | None
    hessian_error: float

    def inner(self) -> dict[str, float]:
        """The values for the inner return and its estimates, by the constants' names."""
        mdp = self.loop.inner
        values = {"c2": self._curvature(mdp), "rho2": self._third(mdp), "sigma": self._noise(mdp)}
        if self.curvature is not None:
            values["delta_h"] = self.hessian_error * self._hessian_error(self.curvature)
        if not self.loop.problem.starts_at_meta:
            values |= self._mixed()
        return values

    def outer(self) -> dict[str, float]:
        """The values for the outer return and its gradient's estimate, by the constants' names."""
        mdp = self.loop.outer
        slope = float(np.linalg.norm(gradient(mdp, self.theta)))
        higher = {"mu2": self._curvature(mdp), "nu2": self._third(mdp)}
        return {"m2": slope, **higher, "sigma_2": self._noise(mdp)}

    def _curvature(self, mdp: TabularMDP) -> float:
        p = self.theta.size
        return float(np.linalg.norm(hessian(mdp, self.theta).reshape(p, p), 2))

    def _third(self, mdp: TabularMDP) -> float:
        """The spectral norm of the third derivative unfolded to ``[p, p^2]``: at least its norm."""
        p = self.theta.size
        every = np.eye(p).reshape(p, *self.theta.shape)
        first, second = every.repeat(p, axis=0), np.concatenate([every] * p)
        third = third_derivative(mdp, self.theta, first, second)
        return float(np.linalg.norm(third.reshape(p, p * p), 2))

    def _noise(self, mdp: TabularMDP) -> float:
        return math.sqrt(max(float(np.trace(gradient_moments(mdp, self.theta).covariance)), 0.0))

    def _hessian_error(self, curvature: Curvature) -> float:
        mdp, p = self.loop.inner, self.theta.size
        error = hessian_estimate_mean(mdp, self.theta, curvature) - hessian(mdp, self.theta)
        return float(np.linalg.norm(error.reshape(p, p), 2))

    def _mixed(self) -> dict[str, float]:
        mdp, p = self.loop.inner, self.theta.size
        every = np.eye(p).reshape(p, *self.theta.shape)
        mixed = reward_vjp(mdp, self.theta, every).reshape(p, -1)
        single = np.eye(mdp.n_states * mdp.n_actions).reshape(-1, mdp.n_states, mdp.n_actions)
        unfolded = np.concatenate(  # [S A p, p]
            [hessian(_with_reward(mdp, reward), self.theta).reshape(p, p) for reward in single]
        )
        return {
            "c1": float(np.linalg.norm(mixed, 2)),
            "rho1": float(np.linalg.norm(unfolded, 2)),
        }


def _with_reward(mdp: TabularMDP, reward: FloatArray) -> TabularMDP:
    return TabularMDP(mdp.transition, reward, mdp.discount, mdp.start, mdp.horizon)


def variance_slope(mdp: TabularMDP, slope: float, curvature: float) -> float:
    """The Lipschitz constant, for all theta, of the gradient estimate's total variance ``E|ghat|^2
    - |g|^2``: both the estimate and the distribution of trajectories change. ``slope`` and
    ``curvature`` bound the norms of the return's gradient and Hessian.
    """
    if mdp.horizon is None:
        raise ValueError("problem: expected a finite horizon, got None")
    deviation, largest = gradient_deviation(mdp), largest_estimate(mdp)
    by_distribution = largest * deviation * math.sqrt(0.5 * mdp.horizon)
    by_estimate = 2.0 * deviation * 0.5 * largest / math.sqrt(2.0)
    return by_distribution + by_estimate + 2.0 * slope * curvature
