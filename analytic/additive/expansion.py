"""First order in 1/N of additive Monte Carlo objectives, and bounds and identities for every N.

Let phi be the feature of one draw, with mean m and covariance C, and ``u`` the draw's score. The
objective is f of the mean feature; let ``H = D^2 f(m)`` and ``y = phi u^T + dphi/dtheta``, so that
``E y = dm/dtheta``. As N grows, the objective's gradient and the mean of its linearised estimate
both tend to the gradient of ``f(m)``; N times their differences from it tend to

    gradient:    E[(dphi/dtheta)^T H (phi - m)] + 1/2 E[u (phi - m)^T H (phi - m)] + common,
    linearised:  E[y^T H (phi - m)] + common,
    common = 1/2 (E y)^T D^3 f[C] + 1/2 d/dtheta tr(H C) at fixed C.

So the bias is of order 1/N, as its bound shows for every N; Lemma 4.2 of the source has
``1/sqrt(N)``. The linearised estimate changes if a constant vector is added to all features.

Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Sec. 4.1; the constants follow by
Taylor's theorem.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.additive.objectives import AdditiveFunction, AdditiveLaw
from gradbias.analytic.utils.validation import FloatArray, frozen_array, real_number, whole_number


@dataclass(frozen=True, eq=False)
class AdditiveExpansion:
    """The gradient's limit as N grows, and the 1/N constants around it; each is ``[d]``.

    Attributes:
        limit: the limit of the objective's gradient.
        objective: the limit of N times (the objective's gradient - ``limit``).
        linearised: the limit of N times (the mean of the linearised estimate - ``limit``).
    """

    limit: FloatArray
    objective: FloatArray
    linearised: FloatArray

    @property
    def bias(self) -> FloatArray:
        """The limit of N times the linearised estimate's bias, ``[d]``."""
        return np.asarray(self.linearised - self.objective)


def additive_expansion(law: AdditiveLaw, function: AdditiveFunction) -> AdditiveExpansion:
    """The limit of the objective's gradient, and the 1/N constants of it and of its linearised
    estimate.

    Args:
        law: the distribution of one draw's features and scores.
        function: f, with its Hessian and third derivative.

    Returns:
        The limit and both constants, each ``[d]``.

    Raises:
        ValueError: the function lacks a derivative, or one has a wrong shape.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Lemma 4.2, with its constant.

    >>> coin = AdditiveLaw([0.5, 0.5], [[1.0], [0.0]], [[0.5], [-0.5]])
    >>> square = AdditiveFunction(
    ...     lambda x: (x**2).sum(axis=-1), lambda x: 2 * x, lambda x: np.array([[2.0]]),
    ...     lambda x: np.zeros((1, 1, 1)))
    >>> limits = additive_expansion(coin, square)
    >>> limits.limit.tolist(), limits.objective.tolist(), limits.linearised.tolist()
    ([0.25], [0.0], [0.25])
    """
    p, m, scores = law.probabilities, law.mean, law.scores
    h, d = law.features.shape[1], scores.shape[1]
    curvature = function.part("hessian", m, (h, h))
    third = function.part("third_derivative", m, (h, h, h))
    off = law.features - m
    covariance = (p[:, None] * off).T @ off
    products = off @ curvature
    slope = np.zeros((h, d)) if law.jacobians is None else np.tensordot(p, law.jacobians, axes=1)
    slope = slope + (p[:, None] * law.features).T @ scores
    limit = slope.T @ function.part("gradient", m, (h,))
    common = 0.5 * slope.T @ np.tensordot(third, covariance, axes=2)
    if law.jacobians is not None:
        common = common + np.einsum("m,mh,mhd->d", p, products, law.jacobians)
    if function.explicit is not None:
        limit = limit + function.part("explicit", m, (d,))
        explicit = function.part("explicit_hessian", m, (h, h, d))
        common = common + 0.5 * np.tensordot(covariance, explicit, axes=2)
    objective = 0.5 * (p * (products * off).sum(axis=1)) @ scores
    linearised = (p * (products * law.features).sum(axis=1)) @ scores
    return AdditiveExpansion(limit, objective + common, linearised + common)


def score_function_growth(
    law: AdditiveLaw, function: AdditiveFunction, *, baseline: float = 0.0
) -> FloatArray:
    """The limit of 1/N times the score-function estimate's covariance, ``(f(m) - b)^2 E[u u^T]``.

    It is 0 for the baseline ``b = f(m)``: the covariance need not grow with N.

    Args:
        law: the distribution of one draw's features and scores.
        function: f of the mean feature.
        baseline: b.

    Returns:
        ``[d, d]``.

    Raises:
        ValueError: a function of a wrong shape, a baseline that is no number.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Lemma 3.1, with its constant.

    >>> coin = AdditiveLaw([0.5, 0.5], [[1.0], [0.0]], [[0.5], [-0.5]])
    >>> square = AdditiveFunction(lambda x: (x**2).sum(axis=-1), lambda x: 2 * x)
    >>> score_function_growth(coin, square).tolist()
    [[0.015625]]
    """
    constant = real_number("baseline", baseline, low=-1e300, high=1e300)
    level = function.part("value", law.mean, ()) - constant
    return np.asarray(level**2 * (law.probabilities[:, None] * law.scores).T @ law.scores)


def linearised_bias_bound(law: AdditiveLaw, *, lipschitz: float, batch_size: int) -> float:
    """An upper bound on the norm of the linearised estimate's bias ``[d]``, ``C / (2 N) E[|phi|^2
    |u|]``.

    It is sharper than the O(1/sqrt(N)) of *On Merits of Biased Gradient Estimates for Meta-RL*,
    Lemma 4.2, under the same condition.

    Args:
        law: the distribution of one draw's features and scores.
        lipschitz: C, a Lipschitz constant of f's gradient in the mean feature.
        batch_size: N, the number of draws.

    Returns:
        The bound.

    Raises:
        ValueError: a negative constant, or no draws.

    Source: the score of one draw multiplies only the change of f that this draw causes, which
    Taylor's theorem bounds.

    >>> coin = AdditiveLaw([0.5, 0.5], [[1.0], [0.0]], [[0.5], [-0.5]])
    >>> linearised_bias_bound(coin, lipschitz=2.0, batch_size=2)  # the bias is half of it
    0.125
    """
    constant = real_number("lipschitz", lipschitz, low=0.0, high=1e300)
    n = whole_number("batch_size", batch_size, at_least=1)
    squares = (law.features**2).sum(axis=1) * np.linalg.norm(law.scores, axis=1)
    return float(constant / (2 * n) * (law.probabilities @ squares))


def quadratic_bias(law: AdditiveLaw, curvature: npt.ArrayLike, *, batch_size: int) -> FloatArray:
    """The exact bias of the linearised estimate for any f with a constant Hessian,
    ``E[(phi^T D^2f phi) u] / (2 N)``.

    Args:
        law: the distribution of one draw's features and scores.
        curvature: the Hessian ``D^2f``, ``[h, h]``.
        batch_size: N, the number of draws.

    Returns:
        ``[d]``.

    Raises:
        ValueError: a curvature of a wrong shape or not symmetric, or no draws.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (9), for quadratic f.

    >>> coin = AdditiveLaw([0.5, 0.5], [[1.0], [0.0]], [[0.5], [-0.5]])
    >>> quadratic_bias(coin, [[2.0]], batch_size=2).tolist()
    [0.125]
    """
    h = law.features.shape[1]
    matrix = frozen_array("curvature", curvature, (h, h))
    if not np.allclose(matrix, matrix.T, rtol=1e-12, atol=0.0):
        raise ValueError("curvature: expected a symmetric matrix")
    n = whole_number("batch_size", batch_size, at_least=1)
    squares = ((law.features @ matrix) * law.features).sum(axis=1)
    return np.asarray((law.probabilities * squares) @ law.scores / (2 * n))
