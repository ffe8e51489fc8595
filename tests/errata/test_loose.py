"""Remarks on loose statements: they hold, and what the page says about how far they are off."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from gradbias.analytic.additive.maml_expansion import step_expansion
from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.mdp import TabularMDP
from tests.errata import merits, theorem
from tests.errata.matrices import numbers

STEPS = (2, 3, 4, 6, 8)


def test_eq_9_is_a_constant_where_nothing_errs():
    found = numbers(theorem.constant_term)
    assert found[::3] == pytest.approx([0.0] * 3, abs=1e-15)
    assert found[2::3] == [0.0] * 3
    assert found[1::3] == pytest.approx([1.1, 2 * 1.1**2, 4 * 1.1**4], rel=1e-12)


def test_the_constant_of_eq_9_grows_with_the_steps_and_is_finite():
    """Closed forms of the biases; boundedness gives the constant 3 K max(1, alpha)^K, here that
    of |J| = |grad J_out| = 1."""
    found = numbers(theorem.constant_of_the_bias)
    for_hessians, for_jacobians = found[:5], found[5:]
    powers = [10 * sum(11.0**i - 1.0 for i in range(k)) for k in STEPS]
    wanted = [x / (2 ** (k - 1) * (k - 1)) for x, k in zip(powers, STEPS, strict=True)]
    assert for_hessians == pytest.approx(wanted, rel=1e-9)
    assert all(later > 2.5 * one for one, later in itertools.pairwise(for_hessians))
    assert for_jacobians == pytest.approx([k * k / (2 * k - 1) for k in STEPS], rel=1e-9)
    for k, by_h, by_j in zip(STEPS, for_hessians, for_jacobians, strict=True):
        assert by_h < 3 * k * 10.0**k
        assert k / 2 < by_j < 3 * k


def test_a_bound_that_vanishes_needs_a_lipschitz_mixed_derivative():
    """The bias tends to 2 / e - 1 while the expected error tends to 0. The printed constants stay
    bounded: J, H and H's derivative at x = sqrt(phi) y are functions of y alone, or times phi."""
    found = numbers(theorem.mixed_lipschitz)
    assert found[::2] == pytest.approx([1e-1, 1e-2, 1e-4], rel=1e-9)
    assert found[5] == pytest.approx(2 / math.e - 1, abs=1e-4)
    assert max(found[1::2]) < -0.2

    def two_steps(x, phi):
        """1 + H + J at theta^1 = x, where J = 1 at theta^0 = 0."""
        fall = math.exp(-(x**2) / phi)
        return 1.0 - 2.0 * x * fall + fall * (1.0 + x**2 / phi)

    for phi, bias in zip((1e-2, 1e-4, 1e-8), found[1::2], strict=True):
        noise = math.sqrt(phi)
        mean = (two_steps(phi + noise, phi) + two_steps(phi - noise, phi)) / 2
        assert bias == pytest.approx(mean - two_steps(phi, phi), rel=1e-9)
    y = np.linspace(-6.0, 6.0, 2001)
    fall = np.exp(-(y**2))
    assert np.abs(fall * (1.0 + y**2)).max() <= 1.0  # c_1
    assert np.abs(2.0 * y * fall).max() < 0.9  # c_2 over the root of phi
    assert np.abs(2.0 * fall * (1.0 - 2.0 * y**2)).max() <= 2.0  # rho_2
    change_of_j = np.gradient(fall * (1.0 + y**2), y)
    assert np.abs(change_of_j).max() > 0.5  # rho_1 times the root of phi: unbounded


def test_the_constant_of_eq_10_grows_with_the_steps():
    found = numbers(theorem.constant_of_the_variance)
    assert found[1::2] == pytest.approx([1.0] * 4, rel=1e-12)
    for k, constant in zip((2, 5, 10, 20), found[::2], strict=True):
        variance = ((4.0**k - 1.0) / 3.0) ** 2
        assert constant == pytest.approx(variance / (8.0 ** (k - 1) * (k - 1)), rel=1e-12)
        assert constant > 2.0 ** (k - 1) / (k - 1)
    for k in (2, 3):  # the closed form behind it, over all signs
        loop = theorem.hessian_off(k, 1.0, 1.0, 2.0)
        loop = replace(loop, outer_noise=1.0)
        assert loop.variance() == pytest.approx(sum(4.0**i for i in range(k)) ** 2, rel=1e-12)


def test_the_linearised_estimate_s_bias_is_of_order_1_over_n():
    *found, limit = numbers(merits.linearised_rate)
    assert all(bias <= bound for bias, bound in zip(found[::2], found[1::2], strict=True))
    gaps = [abs(bias - limit) for bias in found[::2]]
    assert gaps[0] / gaps[1] == pytest.approx(4.0, rel=0.2)
    assert gaps[1] / gaps[2] == pytest.approx(4.0, rel=0.2)


def test_both_adapted_gradients_are_1_over_n_away_from_the_expected_step_s():
    found = numbers(merits.adapted_rates)
    bandit = TabularMDP(np.ones((1, 2, 1)), [[1.0, -0.6]], 0.9, [1.0], horizon=1)
    limits = step_expansion(bandit, [[0.4, -0.3]], step_size=0.8)
    for values, limit in ((found[::2], limits.linearised), (found[1::2], limits.objective)):
        gaps = [abs(value - np.linalg.norm(limit)) for value in values]
        assert gaps[0] > 3.0 * gaps[1] > 9.0 * gaps[2]
        assert gaps[2] < 0.05 * np.linalg.norm(limit)


def toy_variance(n, baseline):
    """Eq. (4) for the mean of n draws of N(1, 1), by Gauss-Hermite nodes, which are exact here."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    estimate = (1.0 + nodes / math.sqrt(n) - baseline) * math.sqrt(n) * nodes
    mean = weights @ estimate
    assert mean == pytest.approx(1.0, rel=1e-12)  # unbiased, with any baseline
    return weights @ (estimate - mean) ** 2


def arms_variance(n, baseline, outer=0):
    """Eq. (8) with the exact gradient of V, over all ordered batches; also its mean. V is exact, or
    the mean return of ``outer`` trajectories, all of which are listed."""
    _, theta, eta = merits.ARMS
    p, rewards = softmax(theta)[0], np.array([1.0, -0.6])
    scores, block = np.eye(2) - p, np.diag(p) - np.outer(p, p)
    estimates, chance = [], []
    for batch in itertools.product(range(2), repeat=n):
        q = softmax(theta[0] + eta * sum(rewards[a] * scores[a] for a in batch) / n)
        factor = np.eye(2) - eta * rewards[list(batch)].mean() * block
        through = factor @ (np.diag(q) - np.outer(q, q)) @ rewards
        for after in itertools.product(range(2), repeat=outer):
            level = rewards[list(after)].mean() if outer else q @ rewards
            estimates.append((level - baseline) * sum(scores[a] for a in batch) + through)
            chance.append(math.prod(p[a] for a in batch) * math.prod(q[a] for a in after))
    mean = chance @ np.array(estimates)
    return mean, chance @ ((np.array(estimates) - mean) ** 2).sum(axis=1)


def test_a_constant_baseline_stops_the_growth_of_the_variance():
    found = numbers(merits.variance_of_the_unbiased)
    plain, plain_arms, less, less_arms, single, as_many = (found[k::6] for k in range(6))
    assert plain == pytest.approx([toy_variance(n, 0.0) for n in (4, 16, 64)], rel=1e-10)
    assert less == pytest.approx([toy_variance(n, 1.0) for n in (4, 16, 64)], rel=1e-10)
    assert less == pytest.approx([2.0] * 3, rel=1e-12)
    _, theta, eta = merits.ARMS
    p, rewards = softmax(theta)[0], np.array([1.0, -0.6])
    level = softmax(theta[0] + eta * (np.diag(p) - np.outer(p, p)) @ rewards) @ rewards
    mean, variance = arms_variance(4, 0.0)
    same_mean, smaller = arms_variance(4, level)
    assert same_mean == pytest.approx(mean, rel=1e-12)  # unbiased with the baseline too
    assert plain_arms[0] == pytest.approx(variance, rel=1e-10)
    assert less_arms[0] == pytest.approx(smaller, rel=1e-9)
    assert plain_arms[2] > 3.5 * plain_arms[1] > 12.0 * plain_arms[0]
    assert max(less_arms) == less_arms[0] < 0.01 * plain_arms[0]
    for outer, of in ((1, single), (4, as_many)):  # V-hat: the baseline helps if M grows with N
        mean_of_it, variance = arms_variance(4, level, outer)
        assert mean_of_it == pytest.approx(mean, rel=1e-12)
        assert of[0] == pytest.approx(variance, rel=1e-10)
    assert single[2] > 3.5 * single[1] > 12.0 * single[0]
    assert as_many == pytest.approx([as_many[0]] * 3, rel=0.01)
