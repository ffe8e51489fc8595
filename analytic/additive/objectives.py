"""N-sample additive Monte Carlo objectives of a law with finitely many outcomes, exactly.

The objective is ``L_N = E[f(phibar, theta)]`` with ``phibar`` the mean of N independent features
``phi(X_i, theta)``; the outcomes' probabilities move with theta by their scores. Every batch is
enumerated as a multiset of outcomes, which gives the objective, its gradient, and mean and
covariance of the two estimates of the gradient: the generalised score function (eq. 6, unbiased)
and the generalised linearised score function (eq. 10, biased). Their first-order expansion in 1/N
and the bound on the bias need no batches: `analytic.additive.expansion`.

Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Secs. 3 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.moments.estimators import EstimateMoments
from gradbias.analytic.moments.multisets import multiset_probabilities, multisets
from gradbias.analytic.moments.trajectory_classes import BLOCK, MAX_COUNT, MAX_TABLE
from gradbias.analytic.utils.validation import (
    FloatArray,
    IntArray,
    frozen_array,
    probability_rows,
    real_number,
    whole_number,
)

_SCORE_TOLERANCE = 1e-9

Field = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, eq=False)
class AdditiveLaw:
    """M outcomes: ``probabilities [M]`` (positive), ``features [M, h]``, ``scores [M, d]`` (the
    gradient of each log-probability in theta) and ``jacobians [M, h, d]``, the features' own
    derivative in theta (default 0).

    Raises:
        ValueError: shapes that do not match, probabilities that are not positive or do not sum to
            one, or scores whose mean is not 0.

    >>> coin = AdditiveLaw([0.5, 0.5], [[1.0], [0.0]], [[0.5], [-0.5]])  # theta is the logit
    >>> coin.mean.tolist()
    [0.5]
    """

    probabilities: FloatArray
    features: FloatArray
    scores: FloatArray
    jacobians: FloatArray | None = None

    def __post_init__(self) -> None:
        p = probability_rows("probabilities", self.probabilities, (None,))
        if (p <= 0.0).any():
            raise ValueError("probabilities: expected positive ones (leave out what cannot happen)")
        features = frozen_array("features", self.features, (len(p), None))
        scores = frozen_array("scores", self.scores, (len(p), None))
        if (np.abs(p @ scores) > _SCORE_TOLERANCE * (1.0 + p @ np.abs(scores))).any():
            raise ValueError(f"scores: expected a mean of 0, got {(p @ scores).tolist()}")
        given = {"probabilities": p, "features": features, "scores": scores}
        if self.jacobians is not None:
            shape = (*features.shape, scores.shape[1])
            given["jacobians"] = frozen_array("jacobians", self.jacobians, shape)
        for name, array in given.items():
            object.__setattr__(self, name, array)

    @property
    def mean(self) -> FloatArray:
        """``[h]``: the expected feature."""
        mean: FloatArray = self.probabilities @ self.features
        return mean

    @property
    def numbers(self) -> int:
        """How many numbers one draw is."""
        return sum(
            part[0].size
            for part in (self.features, self.scores, self.jacobians)
            if part is not None
        )


@dataclass(frozen=True, eq=False)
class AdditiveFunction:
    """f of the mean feature: ``value`` ``[..., h] -> [...]``, ``gradient`` ``[..., h] -> [..., h]``
    and, where the expansion in 1/N is wanted, ``hessian`` ``[h] -> [h, h]`` and
    ``third_derivative`` ``[h] -> [h, h, h]``.

    ``explicit`` ``[..., h] -> [..., d]`` is f's own derivative in theta (default 0), and
    ``explicit_hessian`` ``[h] -> [h, h, d]`` that of the Hessian.

    >>> square = AdditiveFunction(lambda x: (x**2).sum(axis=-1), lambda x: 2 * x)
    """

    value: Field
    gradient: Field
    hessian: Field | None = None
    third_derivative: Field | None = None
    explicit: Field | None = None
    explicit_hessian: Field | None = None

    def part(self, name: str, at: FloatArray, shape: tuple[int, ...]) -> FloatArray:
        """The callable of that name at ``at``. Raises ValueError if there is none, or what it
        returns is not finite or has another shape.
        """
        function: Field | None = getattr(self, name)
        if function is None:
            raise ValueError(f"function: expected its {name}, got None")
        return frozen_array(f"function: its {name}", function(at), shape)


@dataclass(frozen=True, eq=False)
class AdditiveMoments:
    """The objective's ``value``, and the moments of two estimates of its gradient from one batch:
    ``score_function``, whose mean is the gradient, and ``linearised``.
    """

    value: float
    score_function: EstimateMoments
    linearised: EstimateMoments

    @property
    def gradient(self) -> FloatArray:
        """``[d]``: of the objective."""
        return self.score_function.mean

    @property
    def bias(self) -> FloatArray:
        """``[d]``: of the linearised estimate."""
        found: FloatArray = self.linearised.mean - self.gradient
        return found


def additive_moments(
    law: AdditiveLaw, function: AdditiveFunction, *, batch_size: int, baseline: float = 0.0
) -> AdditiveMoments:
    """The N-sample objective, its gradient ``[d]``, and mean ``[d]`` and covariance ``[d, d]`` of
    its score-function estimate (with a constant ``baseline``) and of its linearised one.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eqs. (3), (5), (6) and (10).

    Raises:
        ValueError: a function of a wrong shape, or too many batches (the message says so).

    >>> coin = AdditiveLaw([0.5, 0.5], [[1.0], [0.0]], [[0.5], [-0.5]])
    >>> square = AdditiveFunction(lambda x: (x**2).sum(axis=-1), lambda x: 2 * x)
    >>> found = additive_moments(coin, square, batch_size=2)
    >>> found.value, found.gradient.tolist(), found.bias.tolist()
    (0.375, [0.25], [0.125])
    """
    n = whole_number("batch_size", batch_size, at_least=1)
    less = real_number("baseline", baseline, low=-1e300, high=1e300)
    _check_size(law, n)
    log_likelihood = np.log(law.probabilities)
    block = max(1, BLOCK // (n * law.numbers))
    found = []
    for chosen in multisets(len(log_likelihood), n, block):
        probability = multiset_probabilities(chosen, log_likelihood)
        found.append((probability, *_estimates(law, function, chosen, less)))
    probability, values, by_score, linearised = (
        np.concatenate(parts) for parts in zip(*found, strict=True)
    )
    return AdditiveMoments(
        float(probability @ values),
        _moments(probability, by_score),
        _moments(probability, linearised),
    )


def _check_size(law: AdditiveLaw, n: int) -> None:
    outcomes = len(law.probabilities)
    logarithm = math.lgamma(outcomes + n) - math.lgamma(n + 1) - math.lgamma(outcomes)
    numbers = logarithm + math.log(n * law.numbers)
    if logarithm > math.log(MAX_COUNT) or numbers > math.log(MAX_TABLE):
        raise ValueError(
            f"samples: expected at most {MAX_COUNT:,} batches of {MAX_TABLE:,} numbers in "
            f"all, got about 10^{logarithm / math.log(10):.1f} batches of {n:,} of {outcomes:,} "
            "outcomes; use fewer samples or outcomes"
        )


def _estimates(
    law: AdditiveLaw, function: AdditiveFunction, chosen: IntArray, baseline: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """F ``[B]`` and both estimates ``[B, d]`` of the batches ``chosen [B, N]``."""
    features, scores = law.features[chosen], law.scores[chosen]
    mean = features.mean(axis=1)
    values = function.part("value", mean, (len(chosen),))
    slopes = function.part("gradient", mean, mean.shape)
    through = np.zeros((len(chosen), scores.shape[-1]))
    if law.jacobians is not None:
        through = through + np.einsum("bh,bhd->bd", slopes, law.jacobians[chosen].mean(axis=1))
    if function.explicit is not None:
        through = through + function.part("explicit", mean, through.shape)
    by_score = (values - baseline)[:, None] * scores.sum(axis=1)
    linearised = (np.einsum("bh,bnh->bn", slopes, features)[..., None] * scores).mean(axis=1)
    return values, by_score + through, linearised + through


def _moments(probability: FloatArray, estimates: FloatArray) -> EstimateMoments:
    mean = probability @ estimates
    off = estimates - mean
    return EstimateMoments(mean, (probability[:, None] * off).T @ off)
