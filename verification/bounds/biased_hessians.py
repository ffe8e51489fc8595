"""Bilevel problems whose Hessians are off by what an estimator's mean is, times a factor.

The inner steps themselves are right; what is carried back through them is not. So the exact side
gives what a meta-gradient with biased Hessians is on average, along the expected path and over
sampled ones.

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
"""theta ``[..., S, A]`` to the Hessian's error there, ``[..., p, p]``."""


def with_hessian_error(
    problem: Maml | Lirpg, inner: TabularMDP, curvature: Curvature | None, times: float
) -> Maml | Lirpg:
    """The problem with ``times`` the error of ``curvature``'s mean in its Hessians; ``inner`` is
    what pays the inner steps.
    """
    if curvature is None or times == 0.0:
        return problem

    shape = (inner.n_states, inner.n_actions)
    p = inner.n_states * inner.n_actions

    def error(theta: FloatArray) -> FloatArray:
        each = theta.reshape(-1, *shape)
        means = [hessian_estimate_mean(inner, one, curvature) for one in each]
        off = np.stack(means) - hessian(inner, each)
        found: FloatArray = times * off.reshape(*theta.shape[:-2], p, p)
        return found

    if isinstance(problem, Maml):
        return _ErringMaml(problem.mdp, problem.policy, error=error)
    paid = problem.paid_at_end
    return _ErringLirpg(problem.mdp, problem.policy, paid_at_end=paid, error=error)


@dataclass(frozen=True, eq=False)
class _ErringStep:
    """A step whose Hessian is off by ``error [..., p, p]``."""

    exact: InnerStep
    error: FloatArray

    @property
    def update(self) -> FloatArray:
        """The exact update."""
        return self.exact.update

    def jvp(self, v: FloatArray) -> FloatArray:
        """The Hessian, error included, times v."""
        return self.exact.jvp(v) + self._off(v)

    def pull_back(self, cotangent: FloatArray) -> PulledBack:
        """The same, as the Hessian is symmetric; the rest is exact."""
        exact = self.exact.pull_back(cotangent)
        off = self._off(cotangent)
        return replace(exact, state=lambda: exact.state() + off)

    def _off(self, v: FloatArray) -> FloatArray:
        flat = v.reshape(*v.shape[:-2], -1, 1)
        found: FloatArray = (self.error @ flat).reshape(v.shape)
        return found


def _no_error(theta: FloatArray) -> FloatArray:
    p = theta.shape[-2] * theta.shape[-1]
    return np.zeros((*theta.shape[:-2], p, p))


@dataclass(frozen=True, eq=False)
class _ErringMaml(Maml):
    error: _Error = _no_error

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> InnerStep:
        return _ErringStep(super().inner_step(meta_parameters, theta), self.error(theta))


@dataclass(frozen=True, eq=False)
class _ErringLirpg(Lirpg):
    error: _Error = _no_error

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> InnerStep:
        return _ErringStep(super().inner_step(meta_parameters, theta), self.error(theta))
