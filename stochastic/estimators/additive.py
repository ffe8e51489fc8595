"""Gradient estimates of N-sample additive Monte Carlo objectives.

The objective is ``L_N = E[f(phibar, theta)]`` of the mean ``phibar`` of N features
``phi(X_i, theta)`` of independent draws, whose law moves with theta too. The estimators take what
was drawn, and f's values and slopes at ``phibar`` as numbers: those may be estimates themselves
(unbiased ones keep the score-function estimate unbiased), as in meta-RL, where f is the return
after an inner step ``phibar``. Leading axes are independent replications.

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
    """N draws: ``features [..., N, h]``, their ``scores [..., N, d]`` (grad log p of each draw) and
    ``jacobians [..., N, h, d]``, how features move with the parameters.

    The jacobians are those at a fixed draw for the generalised estimates, those along the path of
    a reparametrised draw for the pathwise one. What is not used may be left out.

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
        """``phibar [..., h]``: where f and its slope are to be taken."""
        mean: FloatArray = self.features.mean(axis=-2)
        return mean

    def _part(self, name: str) -> FloatArray:
        found: FloatArray | None = getattr(self, name)
        if found is None:
            raise ValueError(f"draws: expected their {name}, got None")
        return found

    def _slopes(self, slopes: npt.ArrayLike) -> FloatArray:
        return frozen_array("slopes", slopes, self.mean.shape)


def score_function_gradient(
    draws: AdditiveDraws, values: npt.ArrayLike, *, baseline: float = 0.0
) -> FloatArray:
    """The score-function estimate ``[..., d]`` from f's ``values [...]`` at the draws' mean.

    Unbiased where phi and f do not depend on theta. Its variance grows like N, unless a constant
    ``baseline`` close to f at the expected feature is taken off.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (4).

    Raises:
        ValueError: draws without scores, values of a wrong shape.
    """
    at = frozen_array("values", values, draws.mean.shape[:-1])
    less = real_number("baseline", baseline, low=-1e300, high=1e300)
    found: FloatArray = (at - less)[..., None] * draws._part("scores").sum(axis=-2)
    return found


def linearised_gradient(draws: AdditiveDraws, slopes: npt.ArrayLike) -> FloatArray:
    """The linearised score-function estimate ``[..., d]`` from f's ``slopes [..., h]`` in the
    feature at the draws' mean: ``mean_i (slope . phi_i) score_i``.

    Bias O(1/N), variance O(1/N). It depends on where the features' origin is.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (9).

    Raises:
        ValueError: draws without scores, slopes of a wrong shape.
    """
    along = np.matmul(draws.features, draws._slopes(slopes)[..., None])
    found: FloatArray = (along * draws._part("scores")).mean(axis=-2)
    return found


def pathwise_gradient(
    draws: AdditiveDraws, slopes: npt.ArrayLike, *, explicit: npt.ArrayLike | None = None
) -> FloatArray:
    """The estimate ``[..., d]`` through the features: ``explicit + mean_i jacobian_i^T slope``.

    With jacobians along the path of reparametrised draws it is the pathwise estimate, unbiased.
    With those at fixed draws it is term (ii) of eq. (6). ``explicit [..., d]`` is f's own
    derivative in theta (default 0).

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Sec. 2.3 and eq. (6), term (ii).

    Raises:
        ValueError: draws without jacobians, slopes or ``explicit`` of a wrong shape.
    """
    moved = draws._part("jacobians").mean(axis=-3)
    found: FloatArray = np.matmul(draws._slopes(slopes)[..., None, :], moved)[..., 0, :]
    if explicit is None:
        return found
    return found + frozen_array("explicit", explicit, found.shape)


def generalised_score_function_gradient(
    draws: AdditiveDraws,
    values: npt.ArrayLike,
    slopes: npt.ArrayLike,
    *,
    explicit: npt.ArrayLike | None = None,
    baseline: float = 0.0,
) -> FloatArray:
    """The score-function estimate ``[..., d]`` where phi or f depends on theta; unbiased.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (6).

    Raises:
        ValueError: as `score_function_gradient` and `pathwise_gradient`.
    """
    through = pathwise_gradient(draws, slopes, explicit=explicit)
    return score_function_gradient(draws, values, baseline=baseline) + through


def generalised_linearised_gradient(
    draws: AdditiveDraws, slopes: npt.ArrayLike, *, explicit: npt.ArrayLike | None = None
) -> FloatArray:
    """The linearised estimate ``[..., d]`` where phi or f depends on theta.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (10).

    Raises:
        ValueError: as `linearised_gradient` and `pathwise_gradient`.
    """
    through = pathwise_gradient(draws, slopes, explicit=explicit)
    return linearised_gradient(draws, slopes) + through
