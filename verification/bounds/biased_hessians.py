"""Bilevel problems whose Hessians have the error of an estimator's mean, times a factor.

The inner steps themselves are exact; only the Hessians of the backward pass are biased. The exact
meta-gradient of such a problem is the mean of one with biased Hessians, along the expected path and
over sampled ones.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 5.1 (which multiplies the
Hessian's error by coefficients).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gradbias.analytic.meta.bilevel import Lirpg, Maml
from gradbias.analytic.meta.inner_steps import InnerStep, PulledBack
from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.moments.hessian_means import hessian_estimate_mean
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import hessian
from gradbias.analytic.utils.validation import FloatArray

_Error = Callable[[FloatArray], FloatArray]
"""A map from theta ``[..., S, A]`` to the Hessian's error at theta, ``[..., p, p]``."""


def with_hessian_error(
    problem: Maml | Lirpg, inner: TabularMDP, curvature: Curvature | None, times: float
) -> Maml | Lirpg:
    """The problem with ``times`` the error of ``curvature``'s mean added to its Hessians; ``inner``
    is the MDP whose return the inner steps ascend.
    """
    if curvature is None or times == 0.0:
        return problem
    shape = (inner.n_states, inner.n_actions)
    p = inner.n_states * inner.n_actions

    def error(theta: FloatArray) -> FloatArray:
        policies = theta.reshape(-1, *shape)
        means = [hessian_estimate_mean(inner, policy, curvature) for policy in policies]
        difference = np.stack(means) - hessian(inner, policies)
        scaled: FloatArray = times * difference.reshape(*theta.shape[:-2], p, p)
        return scaled

    if isinstance(problem, Maml):
        return _BiasedMaml(problem.mdp, problem.policy, error=error)
    at_end = problem.paid_at_end
    return _BiasedLirpg(problem.mdp, problem.policy, paid_at_end=at_end, error=error)


@dataclass(frozen=True, eq=False)
class _BiasedStep:
    """An inner step with ``error [..., p, p]`` added to its Hessian."""

    exact: InnerStep
    error: FloatArray

    @property
    def update(self) -> FloatArray:
        """The exact update."""
        return self.exact.update

    def jvp(self, v: FloatArray) -> FloatArray:
        """The biased Hessian times v."""
        return self.exact.jvp(v) + self._error_times(v)

    def pull_back(self, cotangent: FloatArray) -> PulledBack:
        """The vector-Jacobian product with the biased (symmetric) Hessian; the rest is exact."""
        exact = self.exact.pull_back(cotangent)
        added = self._error_times(cotangent)
        return replace(exact, state=lambda: exact.state() + added)

    def _error_times(self, v: FloatArray) -> FloatArray:
        flat = v.reshape(*v.shape[:-2], -1, 1)
        product: FloatArray = (self.error @ flat).reshape(v.shape)
        return product


def _no_error(theta: FloatArray) -> FloatArray:
    p = theta.shape[-2] * theta.shape[-1]
    return np.zeros((*theta.shape[:-2], p, p))


@dataclass(frozen=True, eq=False)
class _BiasedMaml(Maml):
    error: _Error = _no_error

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> InnerStep:
        return _BiasedStep(super().inner_step(meta_parameters, theta), self.error(theta))


@dataclass(frozen=True, eq=False)
class _BiasedLirpg(Lirpg):
    error: _Error = _no_error

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> InnerStep:
        return _BiasedStep(super().inner_step(meta_parameters, theta), self.error(theta))
