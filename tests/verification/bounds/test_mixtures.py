"""Mixes of i-step meta-gradients: biases and variances against their bounds, and when a mix is less
biased than the n-step estimate that it is made of."""

import numpy as np
import pytest

from gradbias.analytic.moments.reward_chains import chain_oracle, chain_step_moments
from gradbias.analytic.problems.mixing import Validation, mixing_weights
from gradbias.analytic.problems.reward_chains import ChainLearner, RewardChain
from gradbias.verification.bounds.mixture_sweep import MixtureSweep, mixture_versus_bounds
from gradbias.verification.bounds.mixtures import MixtureBias, mixture_bias, mixture_bound

UP = 1.0 + 1e-10


def random_learner(seed):
    """Rewards of both signs, without noise or mean; steps that crawl, overshoot or nearly diverge;
    discounts beyond 1 and below 0."""
    rng = np.random.default_rng([seed, 9])
    m = int(rng.integers(1, 5))
    chain = RewardChain(
        rng.normal(size=m) * rng.choice([0.0, 0.1, 1.0, 10.0]),
        np.abs(rng.normal(size=m)) * rng.choice([0.0, 0.1, 1.0, 10.0]),
    )
    weight = float(rng.choice([1.0, 0.1, 1.0 / m]))
    pace = float(rng.choice([1e-3, 0.1, 0.9, 1.0, 1.5, 1.99]))
    sizes = rng.integers(1, 9, size=2) if rng.random() < 0.5 else np.full(2, rng.integers(1, 9))
    return ChainLearner(
        chain,
        rng.uniform(-0.5, 1.5, size=m) if seed % 4 == 0 else rng.uniform(size=m),
        rng.normal(size=m) * rng.choice([0.0, 1.0, 10.0]),
        pace / weight,
        weight,
        int(sizes[0]),
        int(sizes[1]),
    )


def cases():
    for seed in range(600):
        steps, kappa = (1, 2, 5, 20)[seed % 4], (None, 0.0, 0.5, 1.0, 0.9)[seed % 5]
        yield random_learner(seed), steps, kappa


def same_sizes(learner):
    return learner.batch_size == learner.outer_batch_size


def test_the_bounds_hold_for_every_mix_and_are_nearly_attained():
    loose = []
    for learner, steps, kappa in cases():
        found, bound = mixture_bias(learner, steps, kappa), mixture_bound(learner, steps, kappa)
        scale = 1e-13 * (1.0 + np.abs(chain_step_moments(learner, steps).means).max())
        assert found.norm <= bound.bias * UP + scale
        possible = [v for v in Validation if v is not Validation.REUSED or same_sizes(learner)]
        every = [chain_step_moments(learner, steps, validation=v) for v in possible]
        variances = [float(np.trace(moments.mixed(kappa).covariance)) for moments in every]
        assert max(variances) <= bound.variance * UP + scale**2
        loose.append((bound.bias / max(found.norm, scale), bound.variance / max(*variances, 1e-99)))
    smallest = np.min([pair for pair in loose if min(pair) > 0.0], axis=0)
    assert smallest[0] < 1.0 + 1e-9  # attained: aligned, or one step
    assert smallest[1] < 1.2


def test_the_bias_of_a_mix_is_the_average_of_its_steps():
    """Against the mean of the mix itself."""
    for learner, steps, kappa in cases():
        found = mixture_bias(learner, steps, kappa)
        exact = chain_step_moments(learner, steps).mixed(kappa).mean
        exact = exact - chain_oracle(learner, steps=None)
        scale = 1e-12 * (1.0 + np.abs(found.by_step).max() + np.abs(exact).max())
        np.testing.assert_allclose(found.bias, exact, rtol=0.0, atol=scale)
        assert found.norm <= found.average * UP


def test_a_bound_without_the_covariance_of_its_parts_fails():
    """A broken twin: rewards of mean 0, whose whole bias is that of the shared noise."""
    learner = ChainLearner(RewardChain([0.0], [1.0]), [0.5], [0.0], 1.0, 0.5, 4, 4)
    found, bound = mixture_bias(learner, 3), mixture_bound(learner, 3)
    assert 0.0 < found.norm <= bound.bias
    still = ChainLearner(RewardChain([0.0], [0.0]), [0.5], [0.0], 1.0, 0.5, 4, 4)
    assert mixture_bound(still, 3).bias == 0.0
    assert bound.bias == pytest.approx(found.norm, rel=1e-12)


@pytest.mark.parametrize(
    ("discount", "mixed", "last"), [(0.5, 0.0108, 0.0054), (0.95, 0.0056, 0.0167)]
)
def test_on_the_paper_s_chain_the_mix_is_more_biased_or_less(discount, mixed, last):
    """Ten states, ten steps, against 40 expected ones: with a discount of 0.5 the biases decrease
    with the steps, with 0.95 they do not."""
    chain = RewardChain.alternating(10)
    learner = ChainLearner(chain, np.full(10, discount), np.zeros(10))
    found = mixture_bias(learner, 10, target=40)
    assert (found.norm, found.last) == pytest.approx((mixed, last), abs=5e-5)
    assert found.decreasing == (mixed > last) == (discount == 0.5)
    assert mixture_bias(learner, 10).norm <= mixture_bound(learner, 10).bias * UP


def test_aligned_and_decreasing_biases_make_a_mix_that_is_never_less_biased():
    held = 0
    for learner, steps, kappa in cases():
        found = mixture_bias(learner, steps, kappa)
        if found.aligned and found.decreasing and found.last > 1e-12:
            held += 1
            assert found.norm >= found.last * (1.0 - 1e-8)
    assert held >= 50


def test_biases_that_are_nearly_aligned_are_not():
    """Two steps of one length, a little apart: what they leave of each other is below it."""
    for angle, aligned in ((0.05, False), (1e-3, False), (0.0, True)):
        steps = np.array([[np.cos(angle), np.sin(angle)], [np.cos(angle), -np.sin(angle)]])
        found = MixtureBias(np.array([0.5, 0.5]), steps)
        assert found.decreasing
        assert found.aligned == aligned == (found.norm == found.last)


def test_steps_without_weight_do_not_make_biases_decrease_or_not():
    """The first step alone counts; the second is less biased than the last."""
    learner = ChainLearner(RewardChain([1.0], [0.0]), [0.9], [0.3], 0.1, 1.0)
    tried = [
        (n, mixture_bias(learner, n, 0.0), mixture_bias(learner, n, 1.0)) for n in range(2, 40)
    ]
    apart = [(one, equal) for _, one, equal in tried if one.decreasing and not equal.decreasing]
    assert apart
    for one, _ in apart:
        norms = np.abs(one.by_step[:, 0])
        assert norms[0] >= norms[-1] > norms.min()


@pytest.mark.parametrize("why", ["overshooting", "opposite parts"])
def test_where_biases_are_not_aligned_a_mix_can_be_less_biased(why):
    """Two counterexamples to the claim without its condition."""
    if why == "overshooting":  # b = -0.8: they alternate
        learner = ChainLearner(RewardChain([1.0], [0.0]), [0.9], [0.9], 1.8, 1.0)
        steps = 2
    else:  # the first step's bias is positive, later ones are negative
        learner = ChainLearner(RewardChain([1.0], [0.0]), [0.9], [0.3], 0.1, 1.0)
        steps = 3
    found = mixture_bias(learner, steps, 1.0)
    assert not found.aligned
    assert np.sign(found.by_step[0, 0]) == -np.sign(found.by_step[-1, 0])
    assert found.norm < 0.2 * found.last
    assert found.norm <= mixture_bound(learner, steps, 1.0).bias


def test_a_mix_of_equal_weights_is_biased_to_order_1_over_n_and_n_steps_geometrically():
    learner = ChainLearner(RewardChain([1.0, 0.5], [0.1, 0.1]), [0.6, 0.7], [0.0, 0.0], 1.0, 0.5)
    equal = [mixture_bias(learner, n, 1.0).norm for n in (20, 40, 80)]
    assert equal[0] / equal[1] == pytest.approx(2.0, rel=1e-4)
    assert equal[1] / equal[2] == pytest.approx(2.0, rel=1e-4)
    alone = [mixture_bias(learner, n, 1.0).last for n in (10, 11)]
    assert alone[1] / alone[0] == pytest.approx(0.5, rel=1e-2)
    bounds = [mixture_bound(learner, n, 1.0).bias for n in (20, 40)]
    assert bounds[0] / bounds[1] == pytest.approx(2.0, rel=1e-4)


def test_a_finite_target_is_what_the_bias_is_measured_against():
    learner = random_learner(3)
    found = mixture_bias(learner, 4, target=4)
    np.testing.assert_allclose(found.by_step[-1], 0.0, atol=1e-12)


def test_bad_input_is_named():
    learner = ChainLearner(RewardChain([1.0], [0.0]), [0.9], [0.0], 2.0, 1.0)
    bad = [
        (lambda: mixture_bound(learner, 2), "step_size: expected"),
        (lambda: mixture_bias(learner, 2), "step_size: expected"),
        (lambda: mixture_bound(learner, 0), "steps: expected"),
        (lambda: mixture_bias(learner, 2, 1.5), "kappa: expected"),
    ]
    for call, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            call()
    assert mixing_weights(3, 1.0).sum() == pytest.approx(1.0)


def paper_learner(discount):
    return ChainLearner(RewardChain.alternating(10), np.full(10, discount), np.zeros(10))


def test_a_sweep_over_kappa_ends_at_one_step_and_at_equal_weights():
    learner = paper_learner(0.5)
    values = [0.0, 0.5, 0.9, 1.0]
    rows = mixture_versus_bounds(learner, sweep=MixtureSweep.KAPPA, values=values)
    biases = [row.bias for row in rows]
    assert biases == sorted(biases, reverse=True)
    means = chain_step_moments(learner, 10).means - chain_oracle(learner, steps=None)
    assert biases[0] == pytest.approx(float(np.linalg.norm(means[0])), rel=1e-12)
    assert biases[-1] == pytest.approx(float(np.linalg.norm(means.mean(axis=0))), rel=1e-12)
    for row in rows:
        assert row.last_bias == pytest.approx(float(np.linalg.norm(means[-1])), rel=1e-12)
        assert row.decreasing
        assert row.last_bias <= row.bias <= row.bias_bound * UP
        assert row.variance <= row.variance_bound


def test_a_row_s_variance_is_that_of_its_own_mix():
    """That of the first step for kappa = 0, the mean of all covariances for kappa = 1."""
    learner = ChainLearner(RewardChain([0.7], [0.3]), [0.5], [0.0], 0.4, 1.0, 4, 4)
    asked = {"sweep": MixtureSweep.KAPPA, "values": [0.0, 1.0], "steps": 3}
    one, equal = mixture_versus_bounds(learner, **asked)
    moments = chain_step_moments(learner, 3)
    assert one.variance == pytest.approx(float(moments.covariances[0, 0, 0, 0]), rel=1e-12)
    assert equal.variance == pytest.approx(float(moments.covariances.mean()), rel=1e-12)
    assert one.variance != pytest.approx(equal.variance, rel=1e-2)
    (of_steps,) = mixture_versus_bounds(learner, sweep=MixtureSweep.STEPS, values=[3], kappa=1.0)
    assert (of_steps.kappa, of_steps.variance, of_steps.bias) == (1.0, equal.variance, equal.bias)


def test_a_sweep_over_steps_says_where_the_claim_fails():
    learner = paper_learner(0.95)
    rows = mixture_versus_bounds(learner, sweep=MixtureSweep.STEPS, values=[1, 2, 10, 60])
    assert [row.steps for row in rows] == [1, 2, 10, 60]
    below = [row for row in rows if row.bias < row.last_bias * (1 - 1e-9)]
    assert {row.steps for row in below} == {10}
    assert not any(row.aligned and row.decreasing for row in below)
    assert rows[0].variance == pytest.approx(rows[0].last_variance, rel=1e-12)
    shared = {"sweep": MixtureSweep.STEPS, "values": [10], "validation": Validation.SHARED}
    (other,) = mixture_versus_bounds(learner, **shared)
    assert rows[2].variance < other.variance <= other.variance_bound


def test_bad_input_of_a_sweep_is_named():
    learner = paper_learner(0.5)
    bad = [
        ({"sweep": "N", "values": [1.0]}, "sweep: expected one of kappa, steps, got 'N'"),
        ({"sweep": MixtureSweep.KAPPA, "values": []}, "values: expected at least one"),
        ({"sweep": MixtureSweep.KAPPA, "values": [1.1]}, "values: expected a number"),
        ({"sweep": MixtureSweep.STEPS, "values": [1.5]}, "values: expected an integer"),
    ]
    for options, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            mixture_versus_bounds(learner, **options)
