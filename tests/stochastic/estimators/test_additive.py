"""Estimates of additive objectives: over all ordered batches, by quadrature, and by sampling."""

import itertools

import numpy as np
import pytest
import torch

from gradbias.analytic.additive.objectives import additive_moments
from gradbias.stochastic.estimators.additive import (
    AdditiveDraws,
    generalised_linearised_gradient,
    generalised_score_function_gradient,
    linearised_gradient,
    pathwise_gradient,
    score_function_gradient,
)
from tests.oracles.additive import Toy, parameters
from tests.oracles.gaussian import gaussian_mean_gradients, gaussian_square_gradients
from tests.oracles.tolerances import close


def every_batch(law, n):
    """All ordered batches as replications, and their probabilities."""
    chosen = np.array(list(itertools.product(range(len(law.probabilities)), repeat=n)))
    parts = (law.features, law.scores, law.jacobians)
    draws = AdditiveDraws(*(None if part is None else part[chosen] for part in parts))
    return draws, law.probabilities[chosen].prod(axis=1)


def moments_of(estimates, weights):
    mean = weights @ estimates
    off = estimates - mean
    return mean, (weights[:, None] * off).T @ off


def check_moments(estimates, weights, wanted):
    mean, covariance = moments_of(estimates, weights)
    assert close(mean, wanted.mean, 1.0)
    assert close(covariance, wanted.covariance, 1.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("samples", [1, 3])
def test_estimates_have_the_exact_mean_and_covariance(seed, samples):
    for moves in (True, False):
        toy, theta = Toy.random(seed, moves=moves), parameters(seed)
        law, function = toy.law(theta), toy.exact(theta)
        exact = additive_moments(law, function, batch_size=samples, baseline=0.3)
        draws, weights = every_batch(law, samples)
        values, slopes = function.value(draws.mean), function.gradient(draws.mean)
        if moves:
            explicit = function.explicit(draws.mean)
            by_score = generalised_score_function_gradient(
                draws, values, slopes, explicit=explicit, baseline=0.3
            )
            linearised = generalised_linearised_gradient(draws, slopes, explicit=explicit)
            without = generalised_linearised_gradient(draws, slopes)
            assert not close(weights @ without, exact.linearised.mean, 1.0)
        else:
            by_score = score_function_gradient(draws, values, baseline=0.3)
            linearised = linearised_gradient(draws, slopes)
        check_moments(by_score, weights, exact.score_function)
        check_moments(linearised, weights, exact.linearised)
        with pytest.raises(AssertionError):  # a broken twin: the two exchanged
            check_moments(linearised, weights, exact.score_function)


def gaussian_nodes(mean, deviation, samples, nodes=8):
    """Every draw of N normals on Gauss-Hermite nodes ``[nodes^N, N, 1]``, and weights."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    chosen = np.array(list(itertools.product(range(nodes), repeat=samples)))
    noise = z[chosen][..., None]
    path = np.ones((*noise.shape, 1))
    draws = AdditiveDraws(mean + deviation * noise, noise / deviation, path)
    return draws, w[chosen].prod(axis=1)


def gaussian_estimates(draws, power, baseline):
    mean = draws.mean[:, 0]
    slopes = power * draws.mean ** (power - 1)
    return {
        "score_function": score_function_gradient(draws, mean**power, baseline=baseline),
        "pathwise": pathwise_gradient(draws, slopes),
        "linearised": linearised_gradient(draws, slopes),
    }


CLOSED = {1: gaussian_mean_gradients, 2: gaussian_square_gradients}


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("baseline", [0.0, 1.7])
def test_the_gaussian_toy_s_closed_forms_are_those_of_quadrature(power, samples, baseline):
    """Gauss-Hermite with 8 nodes is exact: no moment has a degree above 12 in one draw."""
    for mean, deviation in ((1.3, 0.7), (-0.4, 2.0), (0.0, 1.0)):
        draws, weights = gaussian_nodes(mean, deviation, samples)
        found = CLOSED[power](mean, deviation, batch_size=samples, baseline=baseline)
        wrong = CLOSED[power](mean, deviation, batch_size=samples + 1, baseline=baseline)
        for name, estimates in gaussian_estimates(draws, power, baseline).items():
            wanted_mean, wanted_variance = moments_of(estimates, weights)
            one = getattr(found, name)
            assert close([one.mean], wanted_mean, 10.0)
            assert close([[one.variance]], wanted_variance, 100.0)
            if name == "linearised":
                assert not close([[getattr(wrong, name).variance]], wanted_variance, 1.0)
        assert found.gradient == found.pathwise.mean


def test_the_score_function_s_growth_needs_an_offset():
    """Lemma 3.1's O(N): at mean 0, or with the baseline f(mu), the variance does not grow."""
    grows = [gaussian_mean_gradients(2.0, 1.0, batch_size=n).score_function for n in (1, 10, 100)]
    assert [one.variance for one in grows] == [6.0, 42.0, 402.0]
    for mean, baseline in ((0.0, 0.0), (2.0, 2.0)):
        for n in (1, 10, 1000):
            found = gaussian_mean_gradients(mean, 1.0, batch_size=n, baseline=baseline)
            assert found.score_function.variance == 2.0
    many = [gaussian_square_gradients(2.0, 1.0, batch_size=n, baseline=4.0) for n in (10**3, 10**6)]
    assert abs(many[0].score_function.variance - 32.0) < 0.02
    assert abs(many[1].score_function.variance - 32.0) < 1e-4


def test_sampled_replications_agree_with_the_closed_forms():
    """20,000 replications of 50 draws, at once: 6 means within 5 standard errors (false alarms 4e-6
    in all, by the normal law), 4 variances within 10 % (three standard errors and more)."""
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(20_000, 50, 1))
    draws = AdditiveDraws(1.5 + noise, noise, np.ones((*noise.shape, 1)))
    checked = 0
    for power in (1, 2):
        closed = CLOSED[power](1.5, 1.0, batch_size=50)
        for name, estimates in gaussian_estimates(draws, power, 0.0).items():
            assert estimates.shape == (20_000, 1)
            wanted = getattr(closed, name)
            error = np.sqrt(wanted.variance / len(estimates))
            assert abs(estimates.mean() - wanted.mean) <= 5 * error + 1e-12
            if wanted.variance > 0 and name != "pathwise":
                assert abs(estimates.var() / wanted.variance - 1.0) < 0.1
                checked += 1
    assert checked == 4
    # A broken twin: the square's linearised estimate is biased by 3 / 50, and this sees it.
    estimates = gaussian_estimates(draws, 2, 0.0)["linearised"]
    spread = estimates.std() / np.sqrt(len(estimates))
    assert abs(estimates.mean() - closed.gradient) > 5 * spread


def test_unbiased_values_and_slopes_keep_the_mean():
    """f's value and slope may be estimates themselves, as with sampled outer returns."""
    toy, theta = Toy.random(2), parameters(2)
    law, function = toy.law(theta), toy.exact(theta)
    draws, weights = every_batch(law, 2)
    sign = np.array([1.0, -1.0])[:, None]
    values = function.value(draws.mean) + 0.7 * sign
    slopes = function.gradient(draws.mean) + 0.2 * sign[..., None]
    explicit = np.broadcast_to(function.explicit(draws.mean), (2, len(weights), 2))
    both = AdditiveDraws(
        *(np.stack([part] * 2) for part in (draws.features, draws.scores, draws.jacobians))
    )
    found = generalised_score_function_gradient(both, values, slopes, explicit=explicit)
    wanted = additive_moments(law, function, batch_size=2)
    assert close(np.tensordot(found.mean(axis=0), weights, axes=(0, 0)), wanted.gradient, 1.0)
    linearised = generalised_linearised_gradient(both, slopes, explicit=explicit)
    mean = np.tensordot(linearised.mean(axis=0), weights, axes=(0, 0))
    assert close(mean, wanted.linearised.mean, 1.0)


def test_the_estimates_are_autograd_s():
    """Term (i) of the linearised estimate is the gradient of f(mean_i stop(phi_i) log p_i)."""
    toy, theta = Toy.random(1), parameters(1)
    law = toy.law(theta)
    chosen = [0, 2, 2, 1]
    parts = (law.features, law.scores, law.jacobians)
    draws = AdditiveDraws(*(part[chosen] for part in parts))
    leaf = theta.clone().requires_grad_(True)
    log_p = torch.log(toy.probabilities(leaf))[chosen]
    weight = torch.exp(log_p - log_p.detach())
    value = toy.function((weight[:, None] * toy.features(leaf)[chosen]).mean(0), leaf)
    wanted = torch.autograd.grad(value, leaf)[0].numpy()
    function = toy.exact(theta)
    at = draws.mean
    found = generalised_linearised_gradient(
        draws, function.gradient(at), explicit=function.explicit(at)
    )
    assert close(found, wanted, 1.0)


def test_bad_input_is_named():
    features, scores = np.zeros((4, 3, 2)), np.zeros((4, 3, 5))
    draws = AdditiveDraws(features, scores)
    bad = [
        (lambda: AdditiveDraws(np.zeros(3)), r"features: expected shape \(\.\.\., N, h\)"),
        (lambda: AdditiveDraws(np.zeros((0, 2))), r"features: .* N > 0, got \(0, 2\)"),
        (lambda: AdditiveDraws(features, scores[:, :2]), "scores: expected shape"),
        (lambda: AdditiveDraws(features, scores, np.zeros((4, 3, 2, 4))), "jacobians: expected"),
        (lambda: AdditiveDraws(features * np.nan), "features: expected finite"),
        (lambda: score_function_gradient(draws, 1.0), "values: expected shape"),
        (
            lambda: score_function_gradient(draws, np.zeros(4), baseline=None),
            "baseline: expected",
        ),
        (lambda: score_function_gradient(AdditiveDraws(features), np.zeros(4)), "their scores"),
        (lambda: linearised_gradient(draws, np.zeros(2)), "slopes: expected shape"),
        (lambda: pathwise_gradient(draws, np.zeros((4, 2))), "their jacobians, got None"),
        (
            lambda: pathwise_gradient(
                AdditiveDraws(features, None, np.zeros((4, 3, 2, 5))),
                np.zeros((4, 2)),
                explicit=np.zeros(5),
            ),
            "explicit: expected shape",
        ),
    ]
    for call, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            call()
