"""Closed forms of the Gaussian toy: the mean of N draws of N(mu, sigma^2), and its square.

With ``z`` standard normal the mean of the draws is ``mu + sigma z / sqrt(N)`` and the sum of the
scores ``sqrt(N) z / sigma``, so the score-function and pathwise estimates are polynomials in one z.
The linearised estimate also needs the spread of the draws about their mean.

Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Lemmas 3.1, 3.2, 4.1 and 4.2; the
constants follow from the moments of the normal law.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradbias.analytic.utils.validation import real_number, whole_number


@dataclass(frozen=True)
class ScalarMoments:
    """``mean`` and ``variance`` of an estimate of one number."""

    mean: float
    variance: float


@dataclass(frozen=True)
class GaussianGradients:
    """The exact ``gradient`` in mu, and the moments of its estimates from N draws."""

    gradient: float
    score_function: ScalarMoments
    pathwise: ScalarMoments
    linearised: ScalarMoments


def gaussian_mean_gradients(
    mean: float, deviation: float, *, batch_size: int, baseline: float = 0.0
) -> GaussianGradients:
    """Moments of the estimates of ``d/dmu E[xbar] = 1``, where xbar is the mean of
    ``batch_size`` draws of N(mean, deviation^2); ``baseline`` is the score function's.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Lemmas 3.1, 3.2 and 4.1.

    Raises:
        ValueError: a deviation that is not positive, or no samples.

    >>> found = gaussian_mean_gradients(2.0, 1.0, batch_size=10)
    >>> found.score_function.variance, found.pathwise.variance, found.linearised.variance
    (42.0, 0.0, 0.6)
    """
    mu, sigma, n = _checked(mean, deviation, batch_size)
    less = real_number("baseline", baseline, low=-1e100, high=1e100)
    return GaussianGradients(
        1.0,
        ScalarMoments(1.0, n * ((mu - less) / sigma) ** 2 + 2.0),
        ScalarMoments(1.0, 0.0),
        ScalarMoments(1.0, ((mu / sigma) ** 2 + 2.0) / n),
    )


def gaussian_square_gradients(
    mean: float, deviation: float, *, batch_size: int, baseline: float = 0.0
) -> GaussianGradients:
    """Moments of the estimates of ``d/dmu E[xbar^2] = 2 mu``, where xbar is the mean of
    ``batch_size`` draws of N(mean, deviation^2); ``baseline`` is the score function's.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eqs. (4) and (9).

    Raises:
        ValueError: a deviation that is not positive, or no samples.

    >>> found = gaussian_square_gradients(2.0, 1.0, batch_size=10)
    >>> found.gradient, found.linearised.mean  # biased by 2 mu / N
    (4.0, 4.4)
    """
    mu, sigma, n = _checked(mean, deviation, batch_size)
    offset = mu**2 - real_number("baseline", baseline, low=-1e100, high=1e100)
    # The estimate is (a z + b z^2 + c z^3) - b less its mean: a^2 + 2 b^2 + 15 c^2 + 6 a c.
    linear, cubic = n * (offset / sigma) ** 2, 15.0 * sigma**2 / n
    by_score = linear + 8.0 * mu**2 + cubic + 6.0 * offset
    first = 4.0 * mu**4 / sigma**2 + 16.0 * mu**2 + 4.0 * sigma**2
    second = 40.0 * mu**2 + 24.0 * sigma**2
    linearised = first / n + second / n**2 + 32.0 * sigma**2 / n**3
    return GaussianGradients(
        2.0 * mu,
        ScalarMoments(2.0 * mu, by_score),
        ScalarMoments(2.0 * mu, 4.0 * sigma**2 / n),
        ScalarMoments(2.0 * mu + 2.0 * mu / n, linearised),
    )


def _checked(mean: float, deviation: float, batch_size: int) -> tuple[float, float, int]:
    mu = real_number("mean", mean, low=-1e50, high=1e50)
    sigma = real_number("deviation", deviation, low=1e-50, high=1e50)
    return mu, sigma, whole_number("batch_size", batch_size, at_least=1)
