"""Gradient estimates of N-sample additive Monte Carlo objectives.

The objective is ``L_N = E[f(phibar, theta)]``: phibar is the mean of N features ``phi(X_i, theta)
[h]`` of independent draws X_i, whose distribution depends on the parameters theta ``[d]`` as well.
The estimators take f's values and gradients at phibar as numbers. These may be estimates themselves
(unbiased ones keep the score-function estimate unbiased), as in meta-RL, where f is the return
after an inner step phibar. Leading axes are independent replications.

Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Secs. 2.3, 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, frozen_array, real_number


@dataclass(frozen=True, eq=False)
class AdditiveDraws:
    """N independent draws. Scores or Jacobians that an estimate does not use may be left out.

    Attributes:
        features: phi(X_i, theta), ``[..., N, h]``.
        scores: grad log p(X_i), ``[..., N, d]``.
        jacobians: derivatives of the features in theta, ``[..., N, h, d]``: at a fixed draw for the
            generalised estimates, along the path of a reparametrised draw for the pathwise one.

    Raises:
        ValueError: shapes that do not match, or an entry that is not finite.
    """

    features: FloatArray
    scores: FloatArray | None = None
    jacobians: FloatArray | None = None

    def __post_init__(self) -> None:
        features = frozen_array("features", self.features)
        if features.ndim < 2 or features.shape[-2] == 0:
            raise ValueError(f"features: expected shape (..., N, h), N > 0, got {features.shape}")
        object.__setattr__(self, "features", features)
        d = None
        if self.scores is not None:
            scores = frozen_array("scores", self.scores, (*features.shape[:-1], None))
            object.__setattr__(self, "scores", scores)
            d = scores.shape[-1]
        if self.jacobians is not None:
            jacobians = frozen_array("jacobians", self.jacobians, (*features.shape, d))
            object.__setattr__(self, "jacobians", jacobians)

    @cached_property
    def mean(self) -> FloatArray:
        """The mean feature phibar, ``[..., h]``, at which f and its gradient are taken."""
        mean: FloatArray = self.features.mean(axis=-2)
        return mean

    def _part(self, name: str) -> FloatArray:
        part: FloatArray | None = getattr(self, name)
        if part is None:
            raise ValueError(f"draws: expected their {name}, got None")
        return part

    def _slopes(self, slopes: npt.ArrayLike) -> FloatArray:
        return frozen_array("slopes", slopes, self.mean.shape)


def score_function_gradient(
    draws: AdditiveDraws, values: npt.ArrayLike, *, baseline: float = 0.0
) -> FloatArray:
    """The score-function estimate, unbiased if phi and f do not depend on theta.

    Its variance grows like N, unless ``baseline`` is close to f at the expected feature.

    Args:
        draws: what was drawn.
        values: f at the draws' mean, ``[...]``; unbiased estimates of it will do.
        baseline: a constant that is subtracted from the values.

    Returns:
        The estimates, ``[..., d]``.

    Raises:
        ValueError: draws without scores, values of a wrong shape.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (4).
    """
    checked = frozen_array("values", values, draws.mean.shape[:-1])
    constant = real_number("baseline", baseline, low=-1e300, high=1e300)
    gradient: FloatArray = (checked - constant)[..., None] * draws._part("scores").sum(axis=-2)
    return gradient


def linearised_gradient(draws: AdditiveDraws, slopes: npt.ArrayLike) -> FloatArray:
    """The linearised score-function estimate, ``mean_i (slope . phi_i) score_i``.

    Bias and variance are O(1/N). It depends on the features' origin.

    Args:
        draws: what was drawn.
        slopes: f's gradient in the feature at the draws' mean, ``[..., h]``.

    Returns:
        The estimates, ``[..., d]``.

    Raises:
        ValueError: draws without scores, slopes of a wrong shape.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (9).
    """
    products = np.matmul(draws.features, draws._slopes(slopes)[..., None])
    gradient: FloatArray = (products * draws._part("scores")).mean(axis=-2)
    return gradient


def pathwise_gradient(
    draws: AdditiveDraws, slopes: npt.ArrayLike, *, explicit: npt.ArrayLike | None = None
) -> FloatArray:
    """The estimate through the features, ``explicit + mean_i jacobian_i^T slope``.

    With jacobians along the path of reparametrised draws it is the pathwise estimate, which is
    unbiased. With jacobians at fixed draws it is term (ii) of eq. (6).

    Args:
        draws: what was drawn.
        slopes: f's gradient in the feature at the draws' mean, ``[..., h]``.
        explicit: f's own gradient in theta, ``[..., d]`` (default: 0).

    Returns:
        The estimates, ``[..., d]``.

    Raises:
        ValueError: draws without jacobians, slopes or ``explicit`` of a wrong shape.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Sec. 2.3 and eq. (6), term (ii).
    """
    jacobian = draws._part("jacobians").mean(axis=-3)
    gradient: FloatArray = np.matmul(draws._slopes(slopes)[..., None, :], jacobian)[..., 0, :]
    if explicit is None:
        return gradient
    return gradient + frozen_array("explicit", explicit, gradient.shape)


def generalised_score_function_gradient(
    draws: AdditiveDraws,
    values: npt.ArrayLike,
    slopes: npt.ArrayLike,
    *,
    explicit: npt.ArrayLike | None = None,
    baseline: float = 0.0,
) -> FloatArray:
    """The score-function estimate if phi or f depends on theta; unbiased.

    Args:
        draws: what was drawn.
        values: f at the draws' mean, ``[...]``; unbiased estimates of it will do.
        slopes: f's gradient in the feature at the draws' mean, ``[..., h]``.
        explicit: f's own gradient in theta, ``[..., d]`` (default: 0).
        baseline: a constant that is subtracted from the values.

    Returns:
        The estimates, ``[..., d]``.

    Raises:
        ValueError: as `score_function_gradient` and `pathwise_gradient`.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (6).
    """
    pathwise = pathwise_gradient(draws, slopes, explicit=explicit)
    return score_function_gradient(draws, values, baseline=baseline) + pathwise


def generalised_linearised_gradient(
    draws: AdditiveDraws, slopes: npt.ArrayLike, *, explicit: npt.ArrayLike | None = None
) -> FloatArray:
    """The linearised estimate if phi or f depends on theta.

    Args:
        draws: what was drawn.
        slopes: f's gradient in the feature at the draws' mean, ``[..., h]``.
        explicit: f's own gradient in theta, ``[..., d]`` (default: 0).

    Returns:
        The estimates, ``[..., d]``.

    Raises:
        ValueError: as `linearised_gradient` and `pathwise_gradient`.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (10).
    """
    return linearised_gradient(draws, slopes) + pathwise_gradient(draws, slopes, explicit=explicit)
