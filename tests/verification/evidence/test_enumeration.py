"""The enumerated measure: every outcome once, with its probability; moments as by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.estimators.contexts import Context
from gradbias.stochastic.estimators.kinds import estimate, from_surrogate
from gradbias.stochastic.rollouts.trajectories import sample
from gradbias.verification.evidence.enumeration import (
    Enumeration,
    EnumerationSizeError,
    check_outcomes,
)
from gradbias.verification.measurement.measure import measure_bias
from tests.cases.surrogates import CLEAN
from tests.oracles import brute_force as oracles


def measure_of(mdp, theta):
    return Enumeration.of(mdp, TABULAR, theta, mdp.horizon)


def by_hand(mdp, theta):
    """Probabilities of trajectories without a terminal state, keyed by what happens."""
    found = {}
    for probability, states, actions, _ in oracles.all_trajectories(mdp, theta, mdp.horizon):
        found[tuple(states), tuple(actions)] = probability
    return found


@given(seed=st.integers(0, 10**6), block=st.sampled_from([1, 3, 1000]))
def test_every_trajectory_comes_once_with_its_probability(seed, block):
    mdp = oracles.random_mdp(seed, horizon=1 + seed % 2, n_states=1 + seed % 3, n_actions=2)
    theta = np.random.default_rng(seed).normal(size=(mdp.n_states, 2))
    wanted, found = by_hand(mdp, theta), {}
    measure = measure_of(mdp, theta)
    for batch, weights in measure.trajectories(block):
        assert batch.shape[1] == 1
        for states, actions, weight in zip(batch.states, batch.actions, weights, strict=True):
            key = tuple(states[0].tolist()), tuple(actions[0].tolist())
            assert key not in found
            found[key] = weight
    assert found.keys() == wanted.keys()
    assert measure.count() == len(wanted)
    assert max(abs(found[key] - wanted[key]) for key in wanted) < 1e-15


def ending_problem(horizon=3):
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(3), size=(3, 2))
    rows[2] = [0.0, 0.0, 1.0]
    reward = rng.normal(size=(3, 2))
    reward[2] = 0.0
    return TabularMDP(rows, reward, 0.9, [0.6, 0.4, 0.0], horizon)


def test_ended_episodes_do_not_branch_and_change_no_expectation():
    mdp = ending_problem()
    theta = np.random.default_rng(1).normal(size=(3, 2))
    wanted = sum(p for p, *_ in oracles.all_trajectories(mdp, theta, 3))
    batches = list(measure_of(mdp, theta).trajectories(10**6))
    assert abs(sum(weights.sum() for _, weights in batches) - wanted) < 1e-14
    assert measure_of(mdp, theta).count() < sum(1 for _ in oracles.all_trajectories(mdp, theta, 3))
    report = measure_bias(from_surrogate(CLEAN["dice"], order=2), mdp, theta)
    truth = oracles.autograd_derivative(mdp, theta, 2)
    assert oracles.relative_gap(report.mean, truth) < 1e-13


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_batches_are_all_tuples_or_all_multisets(n, ordered):
    mdp = oracles.random_mdp(2, horizon=1, n_states=2, n_actions=2)
    theta = np.random.default_rng(2).normal(size=(2, 2))
    measure = measure_of(mdp, theta)
    singles = int(measure.count())
    batches, weights = measure.all_batches(n, ordered=ordered)
    expected = singles**n if ordered else math.comb(singles + n - 1, n)
    assert len(weights) == expected == measure.count_batches(n, ordered=ordered)
    assert abs(weights.sum() - 1) < 1e-13
    assert batches.shape == (expected, n, 1)
    # The first trajectory's law (for multisets: any one's) is that of single trajectories.
    returns = batches.rewards.sum(axis=-1).mean(axis=-1)
    alone, law = measure.all_batches(1, ordered=ordered)
    assert abs((returns * weights).sum() - (alone.rewards.sum(axis=(-1, -2)) * law).sum()) < 1e-13
    second = ((returns**2) * weights).sum() - ((returns * weights).sum()) ** 2
    single = alone.rewards.sum(axis=(-1, -2))
    variance = ((single**2) * law).sum() - ((single * law).sum()) ** 2
    assert abs(second - variance / n) < 1e-13


def test_impossible_actions_and_starts_are_left_out():
    mdp = oracles.random_mdp(2, horizon=1, n_states=2, n_actions=2)
    mdp = TabularMDP(mdp.transition, mdp.reward, 0.9, [1.0, 0.0], 1)
    assert measure_of(mdp, np.zeros((2, 2))).count() == 4
    assert measure_of(mdp, np.array([[0.0, 2000.0], [0.0, 0.0]])).count() == 2


@pytest.mark.parametrize("name", ["ad", "lvc", "dice", "entropy_bonus"])
@pytest.mark.parametrize("order", [1, 2])
def test_mean_and_variance_are_the_weighted_ones_of_dense_estimates(name, order):
    """Sparse rows, merged visits and blocks against plain sums: repeated states included."""
    mdp = ending_problem()
    theta = np.random.default_rng(3).normal(size=(3, 2))
    report = measure_bias(
        from_surrogate(CLEAN[name], order=order), mdp, theta, evidence="enumeration"
    )
    batches, weights = measure_of(mdp, theta).all_batches(1, ordered=True)
    dense = estimate(from_surrogate(CLEAN[name], order=order), batches, Context(theta, 0.9))
    expand = weights.reshape(-1, *(1,) * (2 * order))
    mean = (expand * dense).sum(axis=0)
    variance = (expand * (dense - mean) ** 2).sum(axis=0)
    np.testing.assert_allclose(report.mean, mean, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(report.variance, variance, rtol=1e-9, atol=1e-13)
    total = math.sqrt(variance.sum())
    assert abs(report.deviation_per_trajectory - total) < 1e-9 * total
    four = measure_bias(from_surrogate(CLEAN[name], order=order), mdp, theta, batch_size=4)
    np.testing.assert_allclose(four.variance, report.variance / 4)
    assert abs(four.deviation_per_trajectory - total) < 1e-9 * total


def test_the_covariance_of_a_gradient_is_given_on_request():
    mdp = ending_problem()
    theta = np.random.default_rng(3).normal(size=(3, 2))
    estimator = from_surrogate(CLEAN["lvc"], order=1)
    report = measure_bias(estimator, mdp, theta, covariance=True)
    batches, weights = measure_of(mdp, theta).all_batches(1, ordered=True)
    dense = estimate(estimator, batches, Context(theta, 0.9)).reshape(len(weights), -1)
    centred = dense - weights @ dense
    wanted = (weights[:, None] * centred).T @ centred
    np.testing.assert_allclose(report.covariance.reshape(6, 6), wanted, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(np.diag(wanted), report.variance.ravel(), rtol=1e-9, atol=1e-13)
    four = measure_bias(estimator, mdp, theta, covariance=True, batch_size=4)
    np.testing.assert_allclose(four.covariance, report.covariance / 4)
    # Gaps to the exact covariance were 1-2% of its largest entry over 12 seeds.
    sampled = measure_bias(
        estimator, mdp, theta, covariance=True, evidence="sampling", budget=50_000
    )
    assert np.abs(sampled.covariance - report.covariance).max() < 0.05 * wanted.max()
    assert measure_bias(estimator, mdp, theta).covariance is None
    with pytest.raises(ValueError, match="covariance: only for gradients"):
        measure_bias(from_surrogate(CLEAN["lvc"], order=2), mdp, theta, covariance=True)


def test_too_many_outcomes_are_refused_with_their_number_and_a_remedy():
    mdp = oracles.random_mdp(0, horizon=12, n_states=3, n_actions=3)
    estimator = from_surrogate(CLEAN["ad"], order=1)
    with pytest.raises(EnumerationSizeError, match=r"enumeration: [\d,]+ trajectories.*sampling"):
        measure_bias(estimator, mdp, np.zeros((3, 3)), evidence="enumeration")
    check_outcomes(10.0, 10, "things")
    with pytest.raises(EnumerationSizeError, match="11 things"):
        check_outcomes(11.0, 10, "things")
    # "auto" takes another measure instead, and says so: moments where they are known, or samples.
    assert measure_bias(estimator, mdp, np.zeros((3, 3))).evidence.value == "moments"
    other = from_surrogate(CLEAN["ppo_clip"], order=1)
    report = measure_bias(other, mdp, np.zeros((3, 3)), budget=500)
    assert report.evidence.value == "sampling"


def test_a_looped_surrogate_is_capped():
    mdp = oracles.random_mdp(0, horizon=5, n_states=3, n_actions=3)
    estimator = from_surrogate(CLEAN["branching"], order=1)
    with pytest.raises(EnumerationSizeError, match="to loop over"):
        measure_bias(estimator, mdp, np.zeros((3, 3)), evidence="enumeration", batch_size=1)


def test_sampling_and_enumeration_agree():
    """One estimator under both measures: the sampled interval holds the exact bias (false-alarm
    rate 1e-6), and the deviations agree to 5%, 5.5 of their standard errors or more."""
    mdp = oracles.random_mdp(3, horizon=2, n_states=2, n_actions=2)
    theta = np.random.default_rng(3).normal(size=(2, 2))
    for name in ("ad", "lvc", "dice"):
        estimator = from_surrogate(CLEAN[name], order=2)
        exact = measure_bias(estimator, mdp, theta)
        sampled = measure_bias(
            estimator, mdp, theta, evidence="sampling", false_alarm=1e-6, budget=400_000
        )
        low, high = sampled.interval
        assert low <= exact.bias_norm <= high
        ratio = sampled.deviation_per_trajectory / exact.deviation_per_trajectory
        assert abs(ratio - 1) < 0.05
    batch = sample(mdp, theta, 1, rng=np.random.default_rng(0))
    assert batch.shape == (1, 2)
