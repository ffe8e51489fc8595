"""Additive objectives: autograd over ordered batches, exact extrapolation in N, random bounds."""

import itertools

import numpy as np
import pytest
import torch

from gradbias.analytic.additive import objectives as additive_objectives
from gradbias.analytic.additive.expansion import (
    additive_expansion,
    linearised_bias_bound,
    quadratic_bias,
    score_function_growth,
)
from gradbias.analytic.additive.objectives import AdditiveFunction, AdditiveLaw, additive_moments
from tests.oracles.additive import Toy, laurent, parameters
from tests.oracles.tolerances import close

CASES = [(seed, moves) for seed in range(3) for moves in (True, False)]


def square(x):
    return (x**2).sum(axis=-1)


SQUARE = AdditiveFunction(square, lambda x: 2 * x)
COIN = AdditiveLaw([0.5, 0.5], [[1.0], [0.0]], [[0.5], [-0.5]])


def problem(seed, moves, **kwargs):
    toy, theta = Toy.random(seed, moves=moves, **kwargs), parameters(seed)
    return toy, theta, toy.law(theta), toy.exact(theta)


@pytest.mark.parametrize(("seed", "moves"), CASES)
@pytest.mark.parametrize("samples", [1, 2, 4])
def test_value_and_gradient_agree_with_autograd_over_ordered_batches(seed, moves, samples):
    toy, theta, law, function = problem(seed, moves)
    found = additive_moments(law, function, batch_size=samples)
    wanted = torch.func.grad(lambda t: toy.objective(t, samples))(theta).numpy()
    assert close(found.value, float(toy.objective(theta, samples)), 1.0)
    assert close(found.gradient, wanted, 1.0)
    if moves:
        still = AdditiveLaw(law.probabilities, law.features, law.scores)
        assert not close(
            additive_moments(still, function, batch_size=samples).gradient, wanted, 1.0
        )


def test_batches_are_added_up_over_blocks(monkeypatch):
    _, _, law, function = problem(0, True)
    whole = additive_moments(law, function, batch_size=5)
    monkeypatch.setattr(additive_objectives, "BLOCK", 5 * law.numbers * 4)  # four at a time
    parts = additive_moments(law, function, batch_size=5)
    assert abs(parts.value - whole.value) < 1e-13
    np.testing.assert_allclose(parts.linearised.covariance, whole.linearised.covariance, rtol=1e-12)


def check_expansion(law, function, expansion, degree):
    """N-sample means of a polynomial f are polynomials in 1/N: few N give every coefficient."""
    samples = range(1, degree + 2)
    powers = [-k for k in range(len(samples))]
    every = [additive_moments(law, function, batch_size=n) for n in samples]
    wanted = laurent([one.gradient for one in every], samples, powers)
    biased = laurent([one.linearised.mean for one in every], samples, powers)
    assert close(expansion.limit, wanted[0], 1.0)
    assert close(expansion.limit, biased[0], 1.0)
    assert close(expansion.objective, wanted[1], 1.0)
    assert close(expansion.linearised, biased[1], 1.0)


@pytest.mark.parametrize(("seed", "moves"), CASES)
def test_the_constants_of_one_over_n_are_those_of_exact_extrapolation(seed, moves):
    _, _, law, function = problem(seed, moves, degree=4)
    expansion = additive_expansion(law, function)
    check_expansion(law, function, expansion, 4)
    # The bias alone: half the scores' part, and what the origin of the features adds.
    p, u, off = law.probabilities, law.scores, law.features - law.mean
    turned = off @ function.hessian(law.mean)
    own = (p[:, None] * law.features).T @ u
    centred = 0.5 * (p * (turned * off).sum(axis=1)) @ u
    origin = own.T @ function.hessian(law.mean) @ law.mean
    assert close(expansion.bias, centred + origin, 1e-1)
    assert np.linalg.norm(origin) > 1e-3
    with pytest.raises(AssertionError):  # a broken twin: as if features had mean 0
        check_expansion(law, function, _centred(expansion, centred), 4)


def _centred(expansion, bias):
    return type(expansion)(expansion.limit, expansion.objective, expansion.objective + bias)


def test_centred_features_leave_half_the_scores_part():
    _, _, law, function = problem(1, False)
    m = law.mean
    about = AdditiveLaw(law.probabilities, law.features - m, law.scores)
    moved = AdditiveFunction(
        *(lambda x, f=f: f(x + m) for f in (function.value, function.gradient)),
        *(lambda x, f=f: f(x + m) for f in (function.hessian, function.third_derivative)),
    )
    found, plain = additive_expansion(about, moved), additive_expansion(law, function)
    assert close(found.objective, plain.objective, 1.0)
    turned = about.features @ function.hessian(m)
    wanted = 0.5 * (law.probabilities * (turned * about.features).sum(axis=1)) @ law.scores
    assert close(found.bias, wanted, 1e-1)
    assert not close(found.bias, plain.bias, 1e-1)


@pytest.mark.parametrize("seed", range(3))
def test_the_bias_falls_like_one_over_n_not_its_root(seed):
    """Not a polynomial: f = exp(w . x). N x bias tends to the constant, its error halving."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=2)
    _, _, law, _ = problem(seed, False)
    function = AdditiveFunction(
        lambda x: np.exp(x @ w),
        lambda x: np.exp(x @ w)[..., None] * w,
        lambda x: np.exp(x @ w) * np.multiply.outer(w, w),
        lambda x: np.exp(x @ w) * np.multiply.outer(np.multiply.outer(w, w), w),
    )
    constant = additive_expansion(law, function).bias
    samples = (20, 40, 80, 160)
    biases = [additive_moments(law, function, batch_size=n).bias for n in samples]
    slopes = -np.diff(np.log([np.linalg.norm(bias) for bias in biases])) / np.log(2.0)
    assert np.abs(slopes[-1] - 1.0) < 0.02
    assert np.abs(slopes - 0.5).min() > 0.3
    errors = [np.linalg.norm(n * b - constant) for n, b in zip(samples, biases, strict=True)]
    ratios = np.array(errors[:-1]) / errors[1:]
    assert (np.abs(ratios - 2.0) < 0.3).all(), ratios
    last = [n * b for n, b in zip(samples, biases, strict=True)]
    for power in (2.0, 4.0, 8.0):  # Richardson: one order of 1/N after the other
        pairs = itertools.pairwise(last)
        last = [(power * second - first) / (power - 1.0) for first, second in pairs]
    assert np.linalg.norm(last[0] - constant) < 1e-5 * np.linalg.norm(constant)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("samples", [1, 2, 7, 40])
def test_a_quadratic_s_bias_is_exact_for_every_n(seed, samples):
    _, _, law, _ = problem(seed, True)
    root = np.random.default_rng(seed).normal(size=(2, 2))
    matrix = root + root.T
    function = AdditiveFunction(
        lambda x: 0.5 * ((x @ matrix) * x).sum(axis=-1) + x[..., 0],
        lambda x: x @ matrix + np.array([1.0, 0.0]),
    )
    bias = additive_moments(law, function, batch_size=samples).bias
    found = quadratic_bias(law, matrix, batch_size=samples)
    assert close(bias, found, 1.0)
    assert not close(bias, quadratic_bias(law, 2 * matrix, batch_size=samples), 1e-2)
    squares = additive_moments(law, SQUARE, batch_size=samples).bias
    wanted = (law.probabilities * square(law.features)) @ law.scores / samples
    assert close(squares, wanted, 1.0)


def cosine(w, offset):
    """f = sum_k cos(w_k . x + c_k), whose gradient has the Lipschitz constant sum_k |w_k|^2."""
    return AdditiveFunction(
        lambda x: np.cos(x @ w.T + offset).sum(axis=-1), lambda x: -np.sin(x @ w.T + offset) @ w
    )


def test_the_bound_on_the_bias_holds_and_is_reached_to_a_finite_factor():
    """240 random instances: the bound is 1.06 to 907 times the bias, 7.6 times in the median."""
    ratios = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        _, _, law, _ = problem(seed, seed % 2 == 0, outcomes=2 + seed % 2, h=1 + seed % 3)
        h = law.features.shape[1]
        w = rng.normal(size=(2, h)) * rng.choice([0.1, 0.5, 1.0])
        function, lipschitz = cosine(w, rng.normal(size=2)), float((w**2).sum())
        for samples in (1, 2, 5, 20):
            bias = np.linalg.norm(additive_moments(law, function, batch_size=samples).bias)
            bound = linearised_bias_bound(law, lipschitz=lipschitz, batch_size=samples)
            ratios.append(bound / bias)
    assert min(ratios) >= 1.0
    assert np.isfinite(ratios).all()
    assert np.median(ratios) < 10.0
    assert min(ratios) < 1.5  # the broken twin: two thirds of the bound do not hold


def test_the_bound_is_attained():
    """By a square of features 0 and 1: only one outcome counts, so nothing cancels."""
    for samples in (1, 3, 10):
        bias = additive_moments(COIN, SQUARE, batch_size=samples).bias
        bound = linearised_bias_bound(COIN, lipschitz=2.0, batch_size=samples)
        assert abs(np.linalg.norm(bias) - bound) < 1e-15
    with_mean = problem(0, False)[2]
    loose = linearised_bias_bound(with_mean, lipschitz=2.0, batch_size=3)
    assert np.linalg.norm(additive_moments(with_mean, SQUARE, batch_size=3).bias) < loose


@pytest.mark.parametrize(("seed", "moves"), CASES)
def test_the_score_function_s_variance_grows_with_n_but_for_a_baseline(seed, moves):
    """V = N f(m)^2 tr F + O(1), and with the constant baseline f(m) it stays O(1); that of the
    linearised estimate is O(1/N). All are exact Laurent polynomials in N."""
    _, _, law, function = problem(seed, moves, degree=2)
    m = law.mean
    fisher = (law.probabilities[:, None] * law.scores).T @ law.scores
    level = float(function.value(m))
    samples, powers = range(1, 7), [1, 0, -1, -2, -3, -4]

    def coefficients(estimate, baseline=0.0):
        every = [additive_moments(law, function, batch_size=n, baseline=baseline) for n in samples]
        values = [np.trace(getattr(one, estimate).covariance) for one in every]
        return laurent(values, samples, powers)[:, 0]

    grows = coefficients("score_function")
    assert close(grows[0], level**2 * np.trace(fisher), 1.0)
    assert close(grows[0], np.trace(score_function_growth(law, function)), 1.0)
    assert not score_function_growth(law, function, baseline=level).any()
    stays = coefficients("score_function", baseline=level)
    assert abs(stays[0]) < 1e-9 * grows[0]
    off = law.features - m
    along = off @ function.part("gradient", m, m.shape)
    cross = (law.probabilities * along) @ law.scores
    wanted = (law.probabilities @ along**2) * np.trace(fisher) + cross @ cross
    assert abs(stays[1] - wanted) < 1e-9 * max(wanted, grows[0])
    falls = coefficients("linearised")
    assert np.abs(falls[:2]).max() < 1e-9 * falls[2]
    assert falls[2] > 0.0


def test_the_expected_feature_is_not_dropped_for_nothing():
    """Appendix A derives eq. (9) from the mean of ``grad f(phibar) . (phibar - m) sum_j u_j`` by
    dropping m, which it says changes nothing, and the terms of different draws. For f = x^2 each
    changes the mean by the whole limit of the gradient; together they cancel but for 1/N of it."""
    _, _, law, _ = problem(0, False, h=1)
    m = law.mean
    limit = 2 * m @ ((law.probabilities[:, None] * law.features).T @ law.scores)
    line = AdditiveFunction(lambda x: 2 * m[0] * x[..., 0], lambda x: 2 * m[0] + 0 * x)
    assert np.linalg.norm(limit) > 0.1
    for samples in (1, 4, 16):
        of_mean = additive_moments(law, line, batch_size=samples).gradient
        assert close(of_mean, limit, 1.0)
        found = additive_moments(law, SQUARE, batch_size=samples)
        different = 2 * found.gradient - found.linearised.mean
        assert close(different, of_mean - limit / samples, 1.0)


def test_bad_input_is_named():
    scores = [[0.5], [-0.5]]
    bad = [
        (lambda: AdditiveLaw([0.5, 0.6], [[1.0], [0.0]], scores), "probabilities: expected"),
        (lambda: AdditiveLaw([1.0, 0.0], [[1.0], [0.0]], scores), "expected positive ones"),
        (lambda: AdditiveLaw([0.5, 0.5], [1.0, 0.0], scores), "features: expected shape"),
        (lambda: AdditiveLaw([0.5, 0.5], [[1.0], [0.0]], [[0.5]]), "scores: expected shape"),
        (lambda: AdditiveLaw([0.5, 0.5], [[1.0], [0.0]], [[0.5], [0.5]]), "a mean of 0"),
        (
            lambda: AdditiveLaw([0.5, 0.5], [[1.0], [0.0]], scores, [[1.0], [1.0]]),
            "jacobians: expected shape",
        ),
        (
            lambda: additive_moments(COIN, SQUARE, batch_size=0),
            "batch_size: expected an integer",
        ),
        (lambda: additive_moments(COIN, SQUARE, batch_size=10**7), r"got about 10\^7\.0 batches"),
        (lambda: additive_moments(COIN, SQUARE, batch_size=20_000), r"got about 10\^4\.3 batches"),
        (
            lambda: additive_moments(COIN, AdditiveFunction(square, square), batch_size=2),
            "its gradient: expected shape",
        ),
        (
            lambda: additive_moments(COIN, SQUARE, batch_size=2, baseline=float("nan")),
            "baseline: expected a number",
        ),
        (lambda: additive_expansion(COIN, SQUARE), "expected its hessian, got None"),
        (lambda: linearised_bias_bound(COIN, lipschitz=-1.0, batch_size=2), "lipschitz: expected"),
        (lambda: quadratic_bias(COIN, [[1.0, 2.0]], batch_size=2), "curvature: expected shape"),
    ]
    two = problem(0, False)[2]
    bad.append((lambda: quadratic_bias(two, [[1.0, 2.0], [0.0, 1.0]], batch_size=2), "symmetric"))
    for call, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            call()
