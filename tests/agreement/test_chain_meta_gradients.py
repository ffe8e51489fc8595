"""Multi-step meta-gradients on reward chains: closed moments, samples and enumeration agree."""

from dataclasses import replace

import numpy as np
import pytest

from gradbias.analytic.moments.reward_chains import chain_oracle, chain_step_moments
from gradbias.analytic.problems.mixing import Validation, mixing_weights
from gradbias.analytic.problems.reward_chains import ChainLearner, RewardChain
from gradbias.stochastic.meta.reward_chains import (
    ChainRewards,
    chain_meta_gradients,
    draw_chain_rewards,
)
from tests.oracles.reward_chains import (
    TWO_POINTS,
    every_outcome,
    moments_of,
    unrolled_meta_gradients,
)
from tests.oracles.tolerances import close

FRESH, SHARED, REUSED = Validation


def learner(deviations, seed=0, **settings):
    """Unequal discounts, values that are not 0, and noise where asked for."""
    rng = np.random.default_rng(seed)
    m = len(deviations)
    chain = RewardChain(rng.normal(size=m), deviations)
    settings = {
        "step_size": 0.7,
        "loss_weight": 0.6,
        "batch_size": 1,
        "outer_batch_size": 1,
        **settings,
    }
    return ChainLearner(chain, rng.uniform(0.2, 1.1, size=m), rng.normal(size=m), **settings)


PAPER = ChainLearner(RewardChain.alternating(), np.full(10, 0.5), np.zeros(10))

# (learner, steps, validation): 3^(number of noisy rewards) outcomes each.
CASES = {
    "two noisy states": (learner([0.8, 0.5]), 2, FRESH),
    "many samples": (learner([0.0, 0.9], 1, batch_size=2, outer_batch_size=3), 1, FRESH),
    "three steps": (learner([0.0, 1.2, 0.0], 2, outer_batch_size=2), 3, FRESH),
    "one validation batch": (learner([0.6, 0.7], 3), 3, SHARED),
    "next inner batch": (learner([0.6, 0.7], 4), 3, REUSED),
    "next inner batches": (learner([0.6, 0.0], 5, batch_size=2, outer_batch_size=2), 3, REUSED),
    "overshooting": (learner([0.8, 0.3], 6, step_size=2.5), 2, FRESH),
}
DECAYS = (None, 0.0, 0.7, 1.0)


def enumerated(case, decay):
    """The exact moments of one case, from every outcome."""
    one, steps, validation = case
    weights, inner, outer = every_outcome(one, steps, validation)
    return moments_of(weights, unrolled_meta_gradients(one, inner, outer, decay))


def agree(found, wanted):
    mean, covariance = wanted
    return close(found.means, mean, 1.0), close(found.covariances, covariance, 1.0)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("name", sorted(CASES))
def test_moments_are_those_of_every_outcome(name, decay):
    one, steps, validation = CASES[name]
    wanted = enumerated(CASES[name], decay)
    found = chain_step_moments(one, steps, trace_decay=decay, validation=validation)
    assert agree(found, wanted) == (True, True)
    assert (np.diagonal(found.last.covariance) > 0).all()
    if decay is None:
        exact = [chain_oracle(one, steps=i) for i in range(1, steps + 1)]
        assert close(np.array(exact), wanted[0], 1.0)


def linearised(one, steps, **settings):
    """Only the part of the covariance that is linear in the noise's variance: no product of two."""
    half = replace(one, chain=replace(one.chain, deviations=one.chain.deviations / 2))
    full = chain_step_moments(one, steps, **settings)
    small = chain_step_moments(half, steps, **settings)
    return replace(full, covariances=(16 * small.covariances - full.covariances) / 3)


class ByProducts(ChainLearner):
    """Discounts as one would expect them, gamma_i ... gamma_j: not the paper's target."""

    @property
    def target_weights(self):
        factors = np.cumprod(
            np.triu(self.discounts, 0) + np.tril(np.ones_like(self._exponents), -1), 1
        )
        return np.triu(factors)


def test_the_comparison_tells_planted_errors():
    case = CASES["three steps"]
    one, steps, _ = case
    wanted = enumerated(case, None)
    both_sizes = replace(one, batch_size=one.outer_batch_size, outer_batch_size=one.batch_size)
    b = one.contraction
    products = ByProducts(**{f: getattr(one, f) for f in one.__dataclass_fields__})
    twins = {
        "sizes exchanged": (chain_step_moments(both_sizes, steps), (False, False)),
        "no product of noises": (linearised(one, steps), (True, False)),
        "another trace": (chain_step_moments(one, steps, trace_decay=b + 1e-6), (False, False)),
        "one validation batch": (chain_step_moments(one, steps, validation=SHARED), (True, False)),
        "product of factors": (chain_step_moments(products, steps), (False, False)),
    }
    for name, (twin, verdict) in twins.items():
        assert agree(twin, wanted) == verdict, name


@pytest.mark.parametrize("kappa", [None, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", ["three steps", "one validation batch", "next inner batch"])
def test_the_mix_has_the_moments_of_the_mixed_outcomes(name, kappa):
    one, steps, validation = CASES[name]
    weights, inner, outer = every_outcome(one, steps, validation)
    shares = [(1 - 1 / steps if kappa is None else kappa) ** i for i in range(steps)]
    each = unrolled_meta_gradients(one, inner, outer)
    mixed = sum(c * each[:, i : i + 1] for i, c in enumerate(shares)) / sum(shares)
    mean, covariance = moments_of(weights, mixed)
    found = chain_step_moments(one, steps, validation=validation).mixed(kappa)
    assert close(found.mean, mean[0], 1.0)
    assert close(found.covariance, covariance[0, 0], 1.0)
    assert close(found.variance, np.diagonal(covariance[0, 0]), 1.0)
    # Weights that forget the normalising constant, and an average of variances.
    moments = chain_step_moments(one, steps, validation=validation)
    assert close(moments.weighted(shares).covariance, sum(shares) ** 2 * covariance[0, 0], 1.0)
    if kappa != 0.0:
        assert not close(moments.weighted(shares).mean, mean[0], 1.0)
        apart = mixing_weights(steps, kappa) ** 2 @ np.einsum("iikk->ik", moments.covariances)
        assert not close(apart, found.variance, 1.0)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("name", ["three steps", "next inner batches", "overshooting"])
def test_the_sampled_estimator_is_reverse_mode_outcome_by_outcome(name, decay):
    one, steps, validation = CASES[name]
    _, inner, outer = every_outcome(one, steps, validation)
    found = chain_meta_gradients(one, ChainRewards(inner, outer), trace_decay=decay)
    assert close(found, unrolled_meta_gradients(one, inner, outer, decay), 1.0)
    assert not close(found, unrolled_meta_gradients(one, inner, outer, decay, power=False), 1.0)


def test_means_need_no_gaussian_rewards_but_variances_do():
    one, steps, validation = CASES["two noisy states"]
    weights, inner, outer = every_outcome(one, steps, validation, TWO_POINTS)
    mean, covariance = moments_of(weights, unrolled_meta_gradients(one, inner, outer))
    assert agree(chain_step_moments(one, steps), (mean, covariance)) == (True, False)


def test_an_average_has_the_mean_and_a_share_of_the_variance():
    one, steps, validation = CASES["many samples"]
    weights, inner, outer = every_outcome(one, steps, validation)
    each = unrolled_meta_gradients(one, inner, outer)
    pairs = (each[:, None] + each[None, :]).reshape(-1, *each.shape[1:]) / 2
    mean, covariance = moments_of(np.outer(weights, weights).ravel(), pairs)
    found = chain_step_moments(one, steps).last.averaged(2)
    assert close(found.mean, mean[0], 1.0)
    assert close(found.covariance, covariance[0, 0], 1.0)
    assert not close(chain_step_moments(one, steps).last.covariance, covariance[0, 0], 1.0)


REPLICATIONS = 60_000
DEVIATIONS = 5.5
"""Standard errors. False alarms, by the normal approximation: 4e-8 a comparison, of which there are
60, so under 3e-6 in all."""


def strays(found, wanted, errors):
    """Largest distance in standard errors, where there is any error."""
    noisy = errors > 1e-300
    assert noisy.any()
    return np.abs((found - wanted)[noisy] / errors[noisy]).max()


@pytest.mark.parametrize("validation", Validation)
def test_sampled_moments_lie_in_their_intervals(validation):
    values = np.linspace(0.5, 0.1, 10)
    one = replace(PAPER, batch_size=2, outer_batch_size=2, step_size=4.0, values=values)
    rng = np.random.default_rng(11)
    drawn = draw_chain_rewards(one, 3, rng=rng, replications=REPLICATIONS, validation=validation)
    estimates = mixing_weights(3) @ chain_meta_gradients(one, drawn)
    exact = chain_step_moments(one, 3, validation=validation)
    wanted = exact.mixed()
    errors = np.sqrt(wanted.averaged(REPLICATIONS).variance)
    squares = (estimates - wanted.mean) ** 2
    spread = squares.std(axis=0) / np.sqrt(REPLICATIONS)
    assert strays(estimates.mean(axis=0), wanted.mean, errors) < DEVIATIONS
    assert strays(squares.mean(axis=0), wanted.variance, spread) < DEVIATIONS
    # The mean of one step more or less, and the other validations' variance, lie outside.
    assert strays(estimates.mean(axis=0), exact.last.mean, errors) > DEVIATIONS
    for other in set(Validation) - {validation}:
        twin = chain_step_moments(one, 3, validation=other).mixed()
        assert strays(squares.mean(axis=0), twin.variance, spread) > DEVIATIONS


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("kappa", [0.0, 0.3, 0.999999, 1.0])
def test_mixing_weights_are_those_of_equation_ten(n, kappa):
    found = mixing_weights(n, kappa)
    assert abs(found.sum() - 1.0) < 1e-14
    constant = 1.0 / n if kappa == 1.0 else (1.0 - kappa) / (1.0 - kappa**n)
    # 1 - kappa^n cancels: at 1 - 1e-6 ten digits are left.
    np.testing.assert_allclose(found, constant * kappa ** np.arange(n), rtol=1e-9)
    if n > 1:
        wrong = (1.0 - kappa / 2) / (1.0 - (kappa / 2) ** n) * (kappa / 2) ** np.arange(n)
        assert np.allclose(found, wrong) is (kappa == 0.0)


def test_mixing_weights_tend_to_equal_ones_and_start_at_one_step():
    np.testing.assert_allclose(mixing_weights(5, 1 - 1e-12), np.full(5, 0.2), rtol=1e-11)
    assert mixing_weights(5, 0.0).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert mixing_weights(1).tolist() == [1.0]
    np.testing.assert_allclose(mixing_weights(4), mixing_weights(4, 0.75), rtol=1e-15)
    moments = chain_step_moments(PAPER, 1)
    np.testing.assert_array_equal(moments.mixed().mean, moments.last.mean)
    np.testing.assert_array_equal(moments.mixed().covariance, moments.last.covariance)


def step_biases(one, steps):
    return chain_step_moments(one, steps).means - chain_oracle(one, steps=None)


def test_a_mix_is_no_closer_than_its_last_step_where_biases_shrink_with_one_sign():
    applied = 0
    for seed in range(40):
        one = learner([0.5, 0.0, 1.0], seed, step_size=0.3)
        biases = step_biases(one, 6)
        same = (np.sign(biases) == np.sign(biases[0])).all(axis=0)
        shrinking = same & (np.diff(np.abs(biases), axis=0) <= 0).all(axis=0)
        for kappa in (0.2, 0.8, 1.0):
            mixed = np.abs(mixing_weights(6, kappa) @ biases)
            assert (mixed >= np.abs(biases[-1]))[shrinking].all()
        applied += shrinking.sum()
    assert applied > 40


def test_a_mix_is_closer_where_the_biases_change_sign():
    """Steps that overshoot: without one sign, the claim above is false."""
    one = learner([0.0, 0.0], 6, step_size=2.5)
    biases = step_biases(replace(one, values=one.target_weights @ one.chain.means), 2)
    assert (biases[0] * biases[1] < 0).all()
    mixed = np.abs(mixing_weights(2, 1.0) @ biases)
    assert (mixed < np.abs(biases[-1])).all()


def test_the_trace_that_decays_like_the_inner_step_is_exact_here():
    for seed in range(5):
        one = learner([0.5, 0.0, 1.0], seed)
        exact = chain_step_moments(one, 5)
        alike = chain_step_moments(one, 5, trace_decay=one.contraction)
        assert agree(alike, (exact.means, exact.covariances)) == (True, True)
        for mu in (one.contraction + 1e-6, 1.0):
            other = chain_step_moments(one, 5, trace_decay=mu)
            assert agree(other, (exact.means, exact.covariances)) == (False, False)


def test_a_target_takes_the_power_of_the_paying_state_s_own_factor():
    """With equal factors, the paper's start, the power and the product cannot be told apart."""
    gamma = np.array([0.9, 0.5, 0.3])
    one = ChainLearner(RewardChain.alternating(3), gamma, np.zeros(3))
    by_hand = [[0.9, 0.5**2, 0.3**3], [0.0, 0.5, 0.3**2], [0.0, 0.0, 0.3]]
    np.testing.assert_allclose(one.target_weights, by_hand, rtol=1e-15)
    step = 1e-30
    complex_step = np.triu((gamma + 1j * step) ** np.maximum(one._exponents, 0.0)).imag / step
    np.testing.assert_allclose(one.target_slopes, complex_step, rtol=1e-14)
    settings = {f: getattr(one, f) for f in one.__dataclass_fields__}
    assert not np.allclose(ByProducts(**settings).target_weights, by_hand)
    equal = {**settings, "discounts": np.full(3, 0.5)}
    np.testing.assert_allclose(
        ByProducts(**equal).target_weights, ChainLearner(**equal).target_weights, rtol=1e-15
    )


def noise_effect(gamma, deviation, k, one, n):
    """w (alpha w)^2 S_n(b^2)/N s_k^2 sum_{i <= k} (k-i+1) gamma_k^(2(k-i)+1), by a plain loop."""
    total = sum((k - i + 1) * gamma ** (2 * (k - i) + 1) for i in range(k + 1))
    steps = sum(one.contraction ** (2 * j) for j in range(n))
    pace = one.step_size * one.loss_weight
    return one.loss_weight * pace**2 * steps / one.batch_size * deviation**2 * total


@pytest.mark.parametrize("n", [1, 4])
def test_a_state_of_mean_zero_is_turned_down_by_covariance_alone(n):
    gamma = np.linspace(0.2, 0.9, 10)
    one = replace(PAPER, discounts=gamma)
    odd = chain_step_moments(one, n).last.mean[1::2]
    by_hand = [noise_effect(gamma[k], 1.0, k, one, n) for k in range(1, 10, 2)]
    assert (odd > 0).all()
    np.testing.assert_allclose(odd, by_hand, rtol=1e-12)
    four = chain_step_moments(replace(one, batch_size=4 * one.batch_size), n).last.mean
    np.testing.assert_allclose(four[1::2], odd / 4, rtol=1e-12)
    # Whereas at the even states, which pay without noise, the batch's size does not matter.
    np.testing.assert_array_equal(four[::2], chain_step_moments(one, n).last.mean[::2])
    wrong = [noise_effect(gamma[k - 1], 1.0, k, one, n) for k in range(1, 10, 2)]
    assert not np.allclose(odd, wrong)


def test_the_oracle_tends_to_its_limit():
    for seed in range(5):
        one = learner([0.5, 0.0, 1.0], seed)
        limit = chain_oracle(one, steps=None)
        np.testing.assert_allclose(chain_oracle(one, steps=200), limit, rtol=1e-12)
        assert not np.allclose(chain_oracle(one, steps=5), limit, rtol=1e-3)
    # In the limit the values are the targets' means: the gradient of half the squared error of Wo r
    # and W r, but for the covariance.
    still = replace(one, chain=replace(one.chain, deviations=np.zeros(3)))
    error = (still.outer_weights - still.target_weights) @ still.chain.means
    wanted = -still.loss_weight * (error @ still.target_slopes) * still.chain.means
    np.testing.assert_allclose(chain_oracle(still, steps=None), wanted, rtol=1e-12)


def test_biases_on_the_paper_s_chain():
    """Ten states, factors 0.5, values 0, alpha = 1, w = 0.1, N = 32; Euclidean norms over all
    factors. At the even states, which pay without noise, by autograd too.
    """
    oracle = chain_oracle(PAPER, steps=40)
    moments = chain_step_moments(PAPER, 10)
    found = {
        "1-step": moments.means[0],
        "10-step": moments.last.mean,
        "10-mix": moments.mixed().mean,
        "limit": chain_oracle(PAPER, steps=None),
    }
    norms = {name: np.linalg.norm(mean - oracle) for name, mean in found.items()}
    rounded = {"1-step": 0.0159, "10-step": 0.0054, "10-mix": 0.0108, "limit": 2.2e-4}
    for name, norm in norms.items():
        assert abs(norm - rounded[name]) < (5e-6 if name == "limit" else 5e-5), name
    rewards = np.tile(PAPER.chain.means, (1, 40, 1, 1))
    by_autograd = unrolled_meta_gradients(PAPER, rewards, rewards)[0, :, ::2]
    gaps = by_autograd - by_autograd[-1]
    own = {"1-step": gaps[0], "10-step": gaps[9], "10-mix": 0.9 ** np.arange(10) @ gaps[:10]}
    own["10-mix"] /= sum(0.9**i for i in range(10))
    for name, gap in own.items():
        assert close(found[name][::2] - oracle[::2], gap, 1e-2), name
    # Measured against the limit, or with another kappa, the same figures do not come out.
    assert abs(np.linalg.norm(found["10-step"] - found["limit"]) - 0.0054) > 5e-5
    assert abs(np.linalg.norm(moments.mixed(0.8).mean - oracle) - 0.0108) > 5e-5


def test_deviation_grows_with_the_steps_and_a_mix_has_less():
    """The trade-off of the paper's Sec. 3.4 and 3.5, on its chain."""
    moments = chain_step_moments(PAPER, 10)
    deviations = np.sqrt(np.einsum("iikk->ik", moments.covariances))[:, ::2].mean(axis=1)
    mixed = np.sqrt(moments.mixed().variance)[::2].mean()
    assert (np.diff(deviations) > 0).all()
    assert deviations[0] < mixed < deviations[-1]
    # It comes from the validation batches' averaging out: on one batch for all i there is far less.
    shared = chain_step_moments(PAPER, 10, validation=SHARED).mixed()
    assert np.sqrt(shared.variance)[::2].mean() > 2 * mixed


def test_draws_repeat_and_tie_batches_as_said():
    settings = {"rng": np.random.default_rng(0), "replications": 5}
    fresh = draw_chain_rewards(PAPER, 3, **settings)
    assert fresh.inner.shape == fresh.outer.shape == (5, 3, 32, 10)
    assert (fresh.outer[:, 0] != fresh.outer[:, 1]).any()
    assert (fresh.inner[:, 1:] != fresh.outer[:, :-1]).any()
    shared = draw_chain_rewards(PAPER, 3, validation=SHARED, **settings)
    assert (shared.outer[:, :1] == shared.outer).all()
    reused = draw_chain_rewards(PAPER, 3, validation=REUSED, **settings)
    assert (reused.inner[:, 1:] == reused.outer[:, :-1]).all()
    again = draw_chain_rewards(PAPER, 3, rng=np.random.default_rng(0), replications=5)
    np.testing.assert_array_equal(fresh.inner, again.inner)
    assert (fresh.inner[..., ::2] == 0.1).all()
    uneven = draw_chain_rewards(replace(PAPER, outer_batch_size=7), 3, **settings)
    assert (uneven.inner.shape, uneven.outer.shape) == ((5, 3, 32, 10), (5, 3, 7, 10))


def test_bad_input_is_named():
    chain, rng = RewardChain.alternating(2), np.random.default_rng(0)
    one = ChainLearner(chain, [0.5, 0.5], [0.0, 0.0])
    reuse = {"validation": REUSED}
    uneven = replace(one, outer_batch_size=3)
    bad = [
        (lambda: RewardChain([], []), "means: expected at least one state"),
        (lambda: RewardChain([0.0], [-1.0]), "deviations: expected numbers >= 0"),
        (lambda: RewardChain([0.0], [1.0, 1.0]), "deviations: expected shape"),
        (lambda: RewardChain.alternating(0), "n_states: expected an integer >= 1"),
        (lambda: ChainLearner("chain", [0.5], [0.0]), "chain: expected a RewardChain, got str"),
        (lambda: replace(one, discounts=[0.5]), "discounts: expected shape"),
        (lambda: replace(one, values=[0.0, np.nan]), "values: expected finite"),
        (lambda: replace(one, step_size=0.0), "step_size: expected a number > 0"),
        (lambda: replace(one, loss_weight=-1.0), "loss_weight: expected a number > 0"),
        (lambda: replace(one, batch_size=0), "batch_size: expected an integer"),
        (lambda: chain_step_moments(one, 0), "steps: expected an integer"),
        (lambda: chain_step_moments(one, 10_000), "steps: expected at most 5,000,000"),
        (lambda: chain_step_moments(one, 2, trace_decay=1.1), "trace_decay: expected a number"),
        (
            lambda: chain_step_moments(uneven, 2, **reuse),
            "outer_batch_size: expected batch_size where batches are reused",
        ),
        (lambda: chain_step_moments(one, 2).weighted([1.0]), "weights: expected shape"),
        (lambda: chain_step_moments(one, 2).mixed(2.0), "kappa: expected a number"),
        (lambda: chain_step_moments(one, 2).last.averaged(0), "estimates: expected an integer"),
        (lambda: chain_oracle(replace(one, step_size=20.0), steps=None), "step_size: expected"),
        (lambda: chain_oracle(one, steps=0), "steps: expected an integer"),
        (lambda: mixing_weights(0), "steps: expected an integer"),
        (lambda: ChainRewards(np.zeros((2, 2)), np.zeros((2, 2, 2))), "inner: expected shape"),
        (lambda: ChainRewards(np.zeros((3, 2, 2)), np.zeros((2, 2, 2))), "outer: expected shape"),
        (
            lambda: chain_meta_gradients(one, ChainRewards(*np.zeros((2, 1, 1, 3)))),
            "rewards: expected 2 states, got 3",
        ),
        (
            lambda: draw_chain_rewards(uneven, 2, rng=rng, replications=1, **reuse),
            "outer_batch_size: expected batch_size where batches are reused",
        ),
        (lambda: draw_chain_rewards(one, 2, rng=rng, replications=0), "replications: expected"),
    ]
    for call, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            call()
