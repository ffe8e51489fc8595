"""The compositional bias of sampled inner steps to leading order in 1/N, exactly.

Inner step i adds the noise ``alpha xi_i`` to the path, with mean 0 and covariance
``Sigma(theta)/N`` given the steps before. In an expansion in all xi_i, first-order terms and terms
across steps vanish, and the dependence of Sigma on theta matters only to order N^-2. So for a
smooth function f of the path

    E f = f(expected path) + 1/(2N) sum_i sum_q D^2 f / d xi_i^2 [q, q] + O(N^-2),

with ``Sigma_i = sum_q q q^T`` at the expected theta^i. The path after step i, and with it the
adjoint recursion, is a curve in the noise along each q. Both are computed as jets with two equal
directions (`analytic.returns.curve_jets`), all q at once as leading axes. The first derivatives of
theta^K give its covariance, half the sum of its second derivatives its bias.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. 4 and Sec. 4.1; the delta
method.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.meta.biased_hessians import mean_products
from gradbias.analytic.meta.bilevel import BilevelProblem, Lirpg
from gradbias.analytic.meta.compositional_bias import CompositionalBias, ExpectedPath, expected_path
from gradbias.analytic.moments.estimators import Curvature, gradient_moments
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.jets import Part, add, required
from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.returns.curve_jets import Curve
from gradbias.analytic.utils.validation import FloatArray, real_number

_ROUNDING = 1e-14
"""Eigenvalues of a covariance below this share of the largest are rounding errors of 0."""


def leading_compositional_bias(
    problem: BilevelProblem,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None = None,
    *,
    steps: int,
    step_size: float,
    credit: Credit = Credit.REWARD_TO_GO,
    critic: npt.ArrayLike | None = None,
    curvature: Curvature | None = None,
    hessian_error: float = 1.0,
) -> CompositionalBias:
    """The limit of N times the bias (and covariance) of `compositional_bias` as N grows.

    With N trajectories a step, bias and covariance are an N-th of it up to terms of order N^-2.
    Nothing is enumerated: the cost is that of ``K^2 p`` third derivatives for p parameters.

    Args:
        problem: a `Maml` or `Lirpg` of a `TabularMDP` with a finite horizon.
        meta_parameters: phi; ``[S, A]`` for the tabular softmax and for an intrinsic reward.
        theta: theta^0 (None for `Maml`).
        steps: K, the number of inner steps.
        step_size: alpha.
        credit: what multiplies the score of each step.
        critic: v, ``[S]`` or ``[H + 1, S]``, held fixed (default: 0).
        curvature: the Hessian estimator whose mean the meta-gradient uses (None: exact Hessians).
            The result is then what sampled steps add to the meta-gradient with such Hessians along
            the expected path; the bias of that meta-gradient itself does not fall with N.
        hessian_error: the share of that mean's error which the Hessians have, 1 for all of it.

    Returns:
        The limits, shaped like theta and phi.

    Raises:
        ValueError: as `compositional_bias`, except that no problem is too large; a curvature with
            total returns, with a critic, or with a policy that is not tabular.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. 4 and Sec. 4.1; the delta
    method (`analytic.meta.compositional_expansion`).

    >>> from gradbias.analytic import Maml, TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> bias = leading_compositional_bias(Maml(bandit), [[0.5, 0.0]], steps=1, step_size=1.0)
    >>> bias.iterate_covariance.round(4).tolist(), round(bias.outer_return, 6)
    ([[0.0335, -0.0335], [-0.0335, 0.0335]], -0.006012)
    """
    loop = expected_path(problem, meta_parameters, theta, steps, step_size, credit, critic)
    share = real_number("hessian_error", hessian_error, low=0.0, high=1e12)
    biased = _checked_curvature(loop, curvature)
    path = _path(loop)
    end = path[-1]
    outer = Curve(loop.outer.tables, loop.at(loop.path[-1]), end.parts).gradient
    value, first, second = (required(outer[mask]) for mask in (0, 1, 3))
    flat = end.first.reshape(len(end.first), -1)
    cotangent = [value, first, first, second]
    return CompositionalBias(
        iterate=0.5 * end.second.sum(axis=0),
        iterate_covariance=flat.T @ flat,
        outer_return=0.5 * float((first * end.first).sum() + (value * end.second).sum()),
        outer_gradient=0.5 * second.sum(axis=0),
        meta_gradient=0.5 * _carried_back(loop, path, cotangent, biased, share),
    )


@dataclass(frozen=True, eq=False)
class _CurvePoint:
    """theta^i with its first and second derivatives ``[D, *shape]`` along D noise directions."""

    theta: FloatArray
    first: FloatArray
    second: FloatArray

    @property
    def parts(self) -> list[Part]:
        """The jet of theta^i of order 2, in which both directions are the same."""
        return [self.theta, self.first, self.first, self.second]

    def with_later(self, n: int) -> _CurvePoint:
        """The point with n directions in all; it does not depend on the noise of later steps."""
        missing = np.zeros((n - len(self.first), *self.theta.shape))
        first, second = (np.concatenate([part, missing]) for part in (self.first, self.second))
        return _CurvePoint(self.theta, first, second)


def _path(loop: ExpectedPath) -> list[_CurvePoint]:
    """The points theta^0 .. theta^K with their derivatives along the noise of all steps before."""
    empty = np.zeros((0, *loop.path[0].shape))
    path = [_CurvePoint(loop.path[0], empty, empty)]
    alpha, policy = loop.step_size, loop.problem.policy
    for i, theta in enumerate(loop.path[1:]):
        here = path[i]
        moments = gradient_moments(
            loop.inner, here.theta, credit=loop.credit, critic=loop.critic, policy=policy
        )
        noise = alpha * _factors(moments.covariance).reshape(-1, *here.theta.shape)
        first, second = here.first, here.second
        if i > 0:
            gradient = Curve(loop.inner.tables, loop.at(here.theta), here.parts).gradient
            first = first + alpha * required(gradient[1])
            second = second + alpha * required(gradient[3])
        second = np.concatenate([second, np.zeros_like(noise)])
        path.append(_CurvePoint(theta, np.concatenate([first, noise]), second))
    n = len(path[-1].first)
    return [point.with_later(n) for point in path]


def _factors(covariance: FloatArray) -> FloatArray:
    """Rows q ``[D, p]``, at least one, with ``sum_q q q^T`` the covariance up to rounding."""
    values, vectors = np.linalg.eigh(covariance)
    largest = max(float(values[-1]), 0.0)
    kept = values > _ROUNDING * largest
    kept[-1] = True
    return np.asarray((vectors * np.sqrt(np.clip(values, 0.0, largest))).T[kept])


def _checked_curvature(loop: ExpectedPath, curvature: Curvature | None) -> Curvature | None:
    """The curvature; None if its mean is exact. Raises ValueError if its jet is not known."""
    if curvature is None:
        return None
    if not isinstance(curvature, Curvature):
        raise ValueError(f"curvature: expected a Curvature or None, got {curvature!r}")
    plain = loop.credit is Credit.REWARD_TO_GO and loop.critic is None
    if not plain or loop.problem.policy is not TABULAR:
        raise ValueError(
            "curvature: expected rewards-to-go, no critic and a tabular policy with a curvature"
        )
    return None if curvature is Curvature.DICE else curvature


def _carried_back(
    loop: ExpectedPath,
    path: list[_CurvePoint],
    cotangent: list[FloatArray],
    curvature: Curvature | None,
    share: float,
) -> FloatArray:
    """The sum over noise directions of the meta-gradient's second derivative."""
    meta: Part = None
    intrinsic = isinstance(loop.problem, Lirpg)
    for point in reversed(path[:-1]):
        # The cotangent is a third direction: the parts from 4 on of a jet of order 3 are those of
        # the Hessian times the cotangent, part 7 of the visits those of the reward's derivative.
        parts: list[Part] = [*point.parts, *cotangent]
        curve = Curve(loop.inner.tables, loop.at(point.theta), parts)
        if intrinsic:
            meta = add(meta, loop.step_size * required(curve.visits[7]).sum(axis=0))
        products = [required(part) for part in curve.gradient[4:]]
        if curvature is not None:
            means = mean_products(curve.expansion, cotangent, curvature)
            weighed = zip(products, means, strict=True)
            products = [(1.0 - share) * h + share * required(mean) for h, mean in weighed]
        pairs = zip(cotangent, products, strict=True)
        cotangent = [part + loop.step_size * more for part, more in pairs]
    return required(meta) if intrinsic else cotangent[3].sum(axis=0)
