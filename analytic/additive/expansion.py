"""First order in 1/N of additive Monte Carlo objectives, and bounds and identities for every N.

With m the expected feature, C its covariance, ``u`` the score and ``y = phi u^T + dphi/dtheta`` (so
that ``E y`` is dm/dtheta), both the objective's gradient and the mean of its linearised estimate
tend to the gradient of ``f(m)``; N times what is left tends to

    gradient:    E[(dphi/dtheta)^T H (phi - m)] + 1/2 E[u (phi - m)^T H (phi - m)] + common,
    linearised:  E[y^T H (phi - m)] + common,
    common = 1/2 (E y)^T D^3 f[C] + 1/2 d/dtheta tr(H C) at fixed C,      H = D^2 f(m).

So the bias is of order 1/N, as its bound shows for every N; Lemma 4.2 of the source has
``1/sqrt(N)``. The origin of the features matters: the estimate is not invariant to it.

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
    """Each ``[d]``: the ``limit`` of the gradient, and the limits of N times what the gradient
    (``objective``) and the mean of the linearised estimate (``linearised``) differ from it.
    """

    limit: FloatArray
    objective: FloatArray
    linearised: FloatArray

    @property
    def bias(self) -> FloatArray:
        """``[d]``: the limit of N times the linearised estimate's bias."""
        found: FloatArray = self.linearised - self.objective
        return found


def additive_expansion(law: AdditiveLaw, function: AdditiveFunction) -> AdditiveExpansion:
    """The limit of the objective's gradient ``[d]``, and the 1/N constants ``[d]`` of the gradient
    and of its linearised estimate. ``function`` needs its Hessian and third derivative.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Lemma 4.2, with its constant.

    Raises:
        ValueError: the function lacks a derivative, or one has a wrong shape.

    >>> coin = AdditiveLaw([0.5, 0.5], [[1.0], [0.0]], [[0.5], [-0.5]])
    >>> square = AdditiveFunction(
    ...     lambda x: (x**2).sum(axis=-1), lambda x: 2 * x, lambda x: np.array([[2.0]]),
    ...     lambda x: np.zeros((1, 1, 1)))
    >>> found = additive_expansion(coin, square)
    >>> found.limit.tolist(), found.objective.tolist(), found.linearised.tolist()
    ([0.25], [0.0], [0.25])
    """
    p, m, scores = law.probabilities, law.mean, law.scores
    h, d = law.features.shape[1], scores.shape[1]
    curvature = function.part("hessian", m, (h, h))
    third = function.part("third_derivative", m, (h, h, h))
    off = law.features - m
    covariance = (p[:, None] * off).T @ off
    turned = off @ curvature
    moved = np.zeros((h, d)) if law.jacobians is None else np.tensordot(p, law.jacobians, axes=1)
    moved = moved + (p[:, None] * law.features).T @ scores
    limit = moved.T @ function.part("gradient", m, (h,))
    common = 0.5 * moved.T @ np.tensordot(third, covariance, axes=2)
    if law.jacobians is not None:
        common = common + np.einsum("m,mh,mhd->d", p, turned, law.jacobians)
    if function.explicit is not None:
        limit = limit + function.part("explicit", m, (d,))
        explicit = function.part("explicit_hessian", m, (h, h, d))
        common = common + 0.5 * np.tensordot(covariance, explicit, axes=2)
    objective = 0.5 * (p * (turned * off).sum(axis=1)) @ scores
    linearised = (p * (turned * law.features).sum(axis=1)) @ scores
    return AdditiveExpansion(limit, objective + common, linearised + common)


def score_function_growth(
    law: AdditiveLaw, function: AdditiveFunction, *, baseline: float = 0.0
) -> FloatArray:
    """The limit of 1/N times the score-function estimate's covariance, ``[d, d]``:
    ``(f(m) - baseline)^2 E[u u^T]``. It is 0 for the baseline ``f(m)``: growth is no necessity.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Lemma 3.1, with its constant.

    Raises:
        ValueError: a function of a wrong shape, a baseline that is no number.

    >>> coin = AdditiveLaw([0.5, 0.5], [[1.0], [0.0]], [[0.5], [-0.5]])
    >>> square = AdditiveFunction(lambda x: (x**2).sum(axis=-1), lambda x: 2 * x)
    >>> score_function_growth(coin, square).tolist()
    [[0.015625]]
    """
    less = real_number("baseline", baseline, low=-1e300, high=1e300)
    level = function.part("value", law.mean, ()) - less
    found: FloatArray = level**2 * (law.probabilities[:, None] * law.scores).T @ law.scores
    return found


def linearised_bias_bound(law: AdditiveLaw, *, lipschitz: float, batch_size: int) -> float:
    """What the norm of the linearised estimate's bias ``[d]`` from N samples cannot exceed, where
    f's gradient in the mean feature has the Lipschitz constant ``lipschitz``:
    ``C / (2 N) E[|phi|^2 |u|]``.

    Sharper than the O(1/sqrt(N)) of *On Merits of Biased Gradient Estimates for Meta-RL*, Lemma
    4.2, under the same condition. Source: the score of one draw sees f only by what that draw adds
    to the mean, which Taylor's theorem bounds.

    Raises:
        ValueError: a negative constant, or no samples.

    >>> coin = AdditiveLaw([0.5, 0.5], [[1.0], [0.0]], [[0.5], [-0.5]])
    >>> linearised_bias_bound(coin, lipschitz=2.0, batch_size=2)  # the bias is half of it
    0.125
    """
    constant = real_number("lipschitz", lipschitz, low=0.0, high=1e300)
    n = whole_number("batch_size", batch_size, at_least=1)
    squares = (law.features**2).sum(axis=1) * np.linalg.norm(law.scores, axis=1)
    return float(constant / (2 * n) * (law.probabilities @ squares))


def quadratic_bias(law: AdditiveLaw, curvature: npt.ArrayLike, *, batch_size: int) -> FloatArray:
    """The bias ``[d]`` of the linearised estimate from N samples, for any f with the constant
    Hessian ``curvature [h, h]``: ``E[(phi^T D^2f phi) u] / (2 N)``, exactly.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (9), for quadratic f.

    Raises:
        ValueError: a curvature of a wrong shape or not symmetric, or no samples.

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
    found: FloatArray = (law.probabilities * squares) @ law.scores / (2 * n)
    return found
