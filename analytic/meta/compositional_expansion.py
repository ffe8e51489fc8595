"""The compositional bias of sampled inner steps to leading order in 1/N, exactly.

Step i adds ``alpha xi_i`` to the inner path, with mean 0 and covariance ``Sigma(theta)/N`` given
what came before. Expanded in all of them, the first-order terms and those across steps vanish, and
how Sigma moves with theta matters only to order N^-2. So for any smooth function f of the path

    E f = f(expected path) + 1/(2N) sum_i sum_q D^2 f / d xi_i^2 [q, q] + O(N^-2),

with ``Sigma_i = sum_q q q^T`` at the expected theta^i. Each q bends the path after step i, and with
it the adjoint recursion: both are carried as jets with two directions that are equal
(`analytic.returns.curve_jets`), all q at once as leading axes. The first parts of theta^K make its
covariance, half the sum of its second parts its bias.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. 4 and Sec. 4.2; the delta
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
    """N times the bias (and covariance) of `compositional_bias` as N grows, shaped like phi (``[S,
    A]``) and theta: with N samples a step they are an N-th of it, but for terms of order N^-2.

    With ``curvature`` the meta-gradient's Hessians are off by ``hessian_error`` times what that
    estimator's mean is (rewards-to-go, no critic). The bias is then what sampled steps add to what
    such Hessians give along the expected path, which does not fall with N.

    Nothing is enumerated: the cost is that of ``K^2 p`` third derivatives for p parameters.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. 4 and Sec. 4.2; the delta
    method (`analytic.meta.compositional_expansion`).

    Raises:
        ValueError: as `compositional_bias`, but for what is too large to enumerate; a curvature
            with whole returns, a critic, or another policy than a tabular one.

    >>> from gradbias.analytic import Maml, TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> found = leading_compositional_bias(Maml(bandit), [[0.5, 0.0]], steps=1, step_size=1.0)
    >>> found.iterate_covariance.round(4).tolist(), round(found.outer_return, 6)
    ([[0.0335, -0.0335], [-0.0335, 0.0335]], -0.006012)
    """
    loop = expected_path(problem, meta_parameters, theta, steps, step_size, credit, critic)
    times = real_number("hessian_error", hessian_error, low=0.0, high=1e12)
    erring = _checked_curvature(loop, curvature)
    path = _path(loop)
    end = path[-1]
    outer = Curve(loop.outer.tables, loop.at(loop.path[-1]), end.parts).gradient
    slope, turned, bent = (required(outer[mask]) for mask in (0, 1, 3))
    flat = end.first.reshape(len(end.first), -1)
    return CompositionalBias(
        iterate=0.5 * end.second.sum(axis=0),
        iterate_covariance=flat.T @ flat,
        outer_return=0.5 * float((turned * end.first).sum() + (slope * end.second).sum()),
        outer_gradient=0.5 * bent.sum(axis=0),
        meta_gradient=0.5 * _carried_back(loop, path, [slope, turned, turned, bent], erring, times),
    )


@dataclass(frozen=True, eq=False)
class _Bent:
    """theta^i along D directions of noise: where it is, and its first and second derivatives
    ``[D, *shape]``.
    """

    theta: FloatArray
    first: FloatArray
    second: FloatArray

    @property
    def parts(self) -> list[Part]:
        """The jet of theta^i, with each direction twice."""
        return [self.theta, self.first, self.first, self.second]

    def with_later(self, n: int) -> _Bent:
        """With n directions in all, the later of which do not move it yet."""
        missing = np.zeros((n - len(self.first), *self.theta.shape))
        first, second = (np.concatenate([part, missing]) for part in (self.first, self.second))
        return _Bent(self.theta, first, second)


def _path(loop: ExpectedPath) -> list[_Bent]:
    """theta^0 .. theta^K along the noise of all steps before."""
    none = np.zeros((0, *loop.path[0].shape))
    path = [_Bent(loop.path[0], none, none)]
    alpha, policy = loop.step_size, loop.problem.policy
    for i, following in enumerate(loop.path[1:]):
        here = path[i]
        moments = gradient_moments(
            loop.inner, here.theta, credit=loop.credit, critic=loop.critic, policy=policy
        )
        own = alpha * _factors(moments.covariance).reshape(-1, *here.theta.shape)
        first, second = here.first, here.second
        if i > 0:
            moved = Curve(loop.inner.tables, loop.at(here.theta), here.parts).gradient
            first = first + alpha * required(moved[1])
            second = second + alpha * required(moved[3])
        both = np.concatenate([first, own]), np.concatenate([second, np.zeros_like(own)])
        path.append(_Bent(following, *both))
    n = len(path[-1].first)
    return [point.with_later(n) for point in path]


def _factors(covariance: FloatArray) -> FloatArray:
    """``[D, p]``: q with ``sum_q q q^T`` the covariance, without what is rounding; one at least."""
    values, vectors = np.linalg.eigh(covariance)
    largest = max(float(values[-1]), 0.0)
    kept = values > _ROUNDING * largest
    kept[-1] = True
    found: FloatArray = (vectors * np.sqrt(np.clip(values, 0.0, largest))).T[kept]
    return found


def _checked_curvature(loop: ExpectedPath, curvature: Curvature | None) -> Curvature | None:
    """None where the mean is the Hessian itself. Raises ValueError for what has no jets here."""
    if curvature is None:
        return None
    if not isinstance(curvature, Curvature):
        raise ValueError(f"curvature: expected a Curvature or None, got {curvature!r}")
    plain = loop.credit is Credit.REWARD_TO_GO and loop.critic is None
    if not plain or loop.problem.policy is not TABULAR:
        raise ValueError(
            "curvature: expected rewards-to-go, no critic and a tabular policy with one"
        )
    return None if curvature is Curvature.DICE else curvature


def _carried_back(
    loop: ExpectedPath,
    path: list[_Bent],
    cotangent: list[FloatArray],
    curvature: Curvature | None,
    times: float,
) -> FloatArray:
    """The sum over directions of the meta-gradient's second derivative."""
    meta: Part = None
    intrinsic = isinstance(loop.problem, Lirpg)
    for point in reversed(path[:-1]):
        parts: list[Part] = [*point.parts, *cotangent]
        moved = Curve(loop.inner.tables, loop.at(point.theta), parts)
        if intrinsic:
            meta = add(meta, loop.step_size * required(moved.visits[7]).sum(axis=0))
        turned = moved.gradient[4:]
        if curvature is not None:
            means = mean_products(moved.expansion, cotangent, curvature)
            shares = zip(turned, means, strict=True)
            turned = [(1.0 - times) * required(h) + times * required(e) for h, e in shares]
        pairs = zip(cotangent, turned, strict=True)
        cotangent = [own + loop.step_size * required(more) for own, more in pairs]
    return required(meta) if intrinsic else cotangent[3].sum(axis=0)
