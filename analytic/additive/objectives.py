"""N-sample additive Monte Carlo objectives of distributions with finitely many outcomes, exactly.

The objective is ``L_N = E[f(phibar, theta)]`` with ``phibar`` the mean of N independent features
``phi(X_i, theta)``; the outcomes' probabilities depend on theta, by their scores. Every batch is
enumerated as a multiset of outcomes. That gives the objective, its gradient, and mean and
covariance of two estimates of the gradient: the generalised score function (eq. 6, unbiased) and
the generalised linearised score function (eq. 10, biased). `analytic.additive.expansion` has
the first order in 1/N and a bound on the bias, for which no batch is enumerated.

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
    set_fields,
    whole_number,
)

_SCORE_TOLERANCE = 1e-9

Field = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, eq=False)
class AdditiveLaw:
    """The distribution of one draw, with M outcomes.

    Attributes:
        probabilities: positive, ``[M]``.
        features: phi of each outcome, ``[M, h]``.
        scores: the gradient of each log-probability in theta, ``[M, d]``.
        jacobians: the derivative of each feature in theta, ``[M, h, d]`` (None: 0).

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
        set_fields(self, probabilities=p, features=features, scores=scores)
        if self.jacobians is not None:
            shape = (*features.shape, scores.shape[1])
            set_fields(self, jacobians=frozen_array("jacobians", self.jacobians, shape))

    @property
    def mean(self) -> FloatArray:
        """The expected feature, ``[h]``."""
        return np.asarray(self.probabilities @ self.features)

    @property
    def numbers(self) -> int:
        """How many numbers one draw consists of."""
        parts = (self.features, self.scores, self.jacobians)
        return sum(part[0].size for part in parts if part is not None)


@dataclass(frozen=True, eq=False)
class AdditiveFunction:
    """A function f of the mean feature x, as callables.

    Attributes:
        value: f, ``[..., h] -> [...]``.
        gradient: in x, ``[..., h] -> [..., h]``.
        hessian: in x, ``[h] -> [h, h]`` (the expansion in 1/N needs it).
        third_derivative: in x, ``[h] -> [h, h, h]`` (the expansion in 1/N needs it).
        explicit: the partial derivative of f in theta, ``[..., h] -> [..., d]`` (None: 0).
        explicit_hessian: the partial derivative of f's Hessian in theta, ``[h] -> [h, h, d]``.

    >>> square = AdditiveFunction(lambda x: (x**2).sum(axis=-1), lambda x: 2 * x)
    """

    value: Field
    gradient: Field
    hessian: Field | None = None
    third_derivative: Field | None = None
    explicit: Field | None = None
    explicit_hessian: Field | None = None

    def part(self, name: str, at: FloatArray, shape: tuple[int, ...]) -> FloatArray:
        """The value of one of the callables, checked.

        Args:
            name: the callable's name.
            at: the mean feature, ``[..., h]``.
            shape: the shape that the value must have.

        Raises:
            ValueError: there is no such callable, or its value is not finite or has another shape.
        """
        function: Field | None = getattr(self, name)
        if function is None:
            raise ValueError(f"function: expected its {name}, got None")
        return frozen_array(f"function: its {name}", function(at), shape)


@dataclass(frozen=True, eq=False)
class AdditiveMoments:
    """The N-sample objective, and the moments of two estimates of its gradient from one batch.

    Attributes:
        value: the objective.
        score_function: the unbiased estimate, whose mean is the gradient.
        linearised: the biased estimate.
    """

    value: float
    score_function: EstimateMoments
    linearised: EstimateMoments

    @property
    def gradient(self) -> FloatArray:
        """The objective's gradient, ``[d]``."""
        return self.score_function.mean

    @property
    def bias(self) -> FloatArray:
        """The linearised estimate's bias, ``[d]``."""
        return np.asarray(self.linearised.mean - self.gradient)


def additive_moments(
    law: AdditiveLaw, function: AdditiveFunction, *, batch_size: int, baseline: float = 0.0
) -> AdditiveMoments:
    """The N-sample objective, its gradient, and the moments of two estimates of the gradient.

    Args:
        law: the distribution of one draw's features and scores.
        function: f of the mean feature.
        batch_size: N, the number of draws.
        baseline: a constant that the score-function estimate subtracts from f.

    Returns:
        The value, and for both estimates the mean ``[d]`` and the covariance ``[d, d]``.

    Raises:
        ValueError: a function of a wrong shape, or too many batches (the message says so).

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eqs. (3), (5), (6) and (10).

    >>> coin = AdditiveLaw([0.5, 0.5], [[1.0], [0.0]], [[0.5], [-0.5]])
    >>> square = AdditiveFunction(lambda x: (x**2).sum(axis=-1), lambda x: 2 * x)
    >>> moments = additive_moments(coin, square, batch_size=2)
    >>> moments.value, moments.gradient.tolist(), moments.bias.tolist()
    (0.375, [0.25], [0.125])
    """
    n = whole_number("batch_size", batch_size, at_least=1)
    constant = real_number("baseline", baseline, low=-1e300, high=1e300)
    _check_size(law, n)
    log_likelihood = np.log(law.probabilities)
    block = max(1, BLOCK // (n * law.numbers))
    blocks = []
    for chosen in multisets(len(log_likelihood), n, block):
        probability = multiset_probabilities(chosen, log_likelihood)
        blocks.append((probability, *_estimates(law, function, chosen, constant)))
    probability, values, by_score, linearised = (
        np.concatenate(parts) for parts in zip(*blocks, strict=True)
    )
    return AdditiveMoments(
        float(probability @ values),
        _moments(probability, by_score),
        _moments(probability, linearised),
    )


def _check_size(law: AdditiveLaw, n: int) -> None:
    """Raises ValueError for too many batches of ``n`` to enumerate."""
    outcomes = len(law.probabilities)
    logarithm = math.lgamma(outcomes + n) - math.lgamma(n + 1) - math.lgamma(outcomes)
    numbers = logarithm + math.log(n * law.numbers)
    if logarithm > math.log(MAX_COUNT) or numbers > math.log(MAX_TABLE):
        raise ValueError(
            f"batch_size: expected at most {MAX_COUNT:,} batches of {MAX_TABLE:,} numbers in "
            f"all, got about 10^{logarithm / math.log(10):.1f} batches of {n:,} of {outcomes:,} "
            "outcomes; use a smaller batch or fewer outcomes"
        )


def _estimates(
    law: AdditiveLaw, function: AdditiveFunction, chosen: IntArray, baseline: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The values of f ``[B]`` and both estimates ``[B, d]`` for the batches ``chosen [B, N]``."""
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
