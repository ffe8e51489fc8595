"""Moments as evidence: the same report as by enumeration, and beyond it."""

import numpy as np
import pytest

import gradbias.verification.measurement.find_moments as find_moments
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.estimators.kinds import from_callable, from_draws, from_surrogate
from gradbias.stochastic.surrogates.dice import dice, loaded_dice
from gradbias.stochastic.surrogates.score_function import AD, LVC, Reduction, ad, lvc
from gradbias.verification.evidence.reports import Evidence, Verdict
from gradbias.verification.measurement.measure import measure_bias
from tests.cases.surrogates import tanh_network
from tests.oracles import brute_force as oracles

BUILT_IN = (
    ad,
    lvc,
    dice,
    loaded_dice,
    AD(reward_to_go=False),
    LVC(reward_to_go=False),
    AD(gae_lambda=0.5),
    LVC(gae_lambda=0.5),
)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("surrogate", BUILT_IN, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_both_exact_measures_make_the_same_report(surrogate, order, seed):
    mdp = oracles.random_mdp(seed, horizon=2, n_states=2, n_actions=2, next_rewards=True)
    rng = np.random.default_rng(seed)
    theta, critic = rng.normal(size=(2, 2)), rng.normal(size=2)
    estimator = from_surrogate(surrogate, order=order)
    options = {"critic": critic, "batch_size": 3, "covariance": order == 1}
    one = measure_bias(estimator, mdp, theta, evidence="enumeration", **options)
    other = measure_bias(estimator, mdp, theta, evidence="moments", **options)
    assert other.evidence is Evidence.MOMENTS
    assert other.verdict is one.verdict
    assert other.scope == one.scope
    np.testing.assert_allclose(other.mean, one.mean, atol=1e-12)
    np.testing.assert_allclose(other.variance, one.variance, atol=1e-12)
    if order == 1:
        np.testing.assert_allclose(other.covariance, one.covariance, atol=1e-12)
    assert "by recursion over time" in other.assumption
    assert "moments, by recursion" in str(other)
    assert other.half_width == 0.0


def test_what_cannot_be_enumerated_is_exact_by_moments_and_no_longer_sampled():
    mdp = oracles.random_mdp(7, horizon=20, n_states=3, n_actions=2)
    theta = np.random.default_rng(0).normal(size=(3, 2))
    verdicts = {}
    for surrogate in (ad, lvc, dice, loaded_dice):
        report = measure_bias(from_surrogate(surrogate, order=2), mdp, theta)
        assert report.evidence is Evidence.MOMENTS
        verdicts[surrogate] = report.verdict
    assert verdicts[dice] is verdicts[loaded_dice] is Verdict.UNBIASED
    assert verdicts[ad] is verdicts[lvc] is Verdict.BIASED
    assert measure_bias(from_surrogate(dice, order=1), mdp, theta).verdict is Verdict.UNBIASED


def test_an_infinite_horizon_is_cut_and_the_report_says_so():
    mdp = oracles.random_mdp(7, n_states=3, n_actions=2)
    theta = np.random.default_rng(0).normal(size=(3, 2))
    report = measure_bias(from_surrogate(dice, order=1), mdp, theta, length=15)
    assert report.evidence is Evidence.MOMENTS
    assert report.verdict is Verdict.BIASED
    assert "truncation bias" in str(report)


def test_other_policies_have_moments_too():
    import torch

    policy = tanh_network(torch.tensor(np.random.default_rng(0).normal(size=(2, 2))))
    mdp = oracles.random_mdp(3, horizon=2, n_states=2, n_actions=2)
    theta = np.random.default_rng(1).normal(size=8)
    one, other = (
        measure_bias(from_surrogate(lvc, order=2), mdp, theta, policy=policy, evidence=evidence)
        for evidence in ("enumeration", "moments")
    )
    np.testing.assert_allclose(other.mean, one.mean, atol=1e-12)
    np.testing.assert_allclose(other.variance, one.variance, atol=1e-12)


def test_estimators_without_a_recursion_are_sampled_and_say_so_when_asked(monkeypatch):
    mdp = TabularMDP.random(3, 2, rng=np.random.default_rng(0), discount=0.9, horizon=12)
    theta = np.zeros((3, 2))
    mean = AD(reduction=Reduction.MEAN_OVER_STEPS)
    mine = from_callable(lambda batch, theta: np.zeros(theta.shape), order=1, name="mine")
    unknown = [
        (from_surrogate(mean, order=1), {}),
        (from_surrogate(dice, order=3), {}),
        (mine, {}),
        (from_surrogate(ad, order=1), {"behaviour": np.ones((3, 2)) * [1.0, 0.0]}),
    ]
    for estimator, options in unknown:
        with pytest.raises(ValueError, match="moments are known of AD, LVC, DiCE and Loaded-DiCE"):
            measure_bias(estimator, mdp, theta, evidence="moments", batch_size=2, **options)
    drawing = from_draws(lambda draw, theta: np.zeros(theta.shape), order=1, name="drawing")
    with pytest.raises(ValueError, match="got drawing of order 1; use enumeration or sampling"):
        measure_bias(drawing, mdp, theta, evidence="moments")
    monkeypatch.setattr(find_moments, "MAX_WORK", 1.0)
    report = measure_bias(from_surrogate(ad, order=1), mdp, theta, budget=2_000)
    assert report.evidence is Evidence.SAMPLING


def test_silent_estimators_and_problems_are_vacuous_by_moments_as_well():
    mdp = oracles.random_mdp(3, horizon=2, n_states=2, n_actions=2)
    unpaid = TabularMDP(mdp.transition, np.zeros((2, 2)), 0.9, mdp.start, 2)
    report = measure_bias(from_surrogate(ad, order=1), unpaid, np.zeros((2, 2)), evidence="moments")
    assert report.verdict is Verdict.VACUOUS


def sparse_chain(steps):
    """Pays after that many right actions in a row, and ends at the first wrong one."""
    size = steps + 2
    rows, reward = np.zeros((size, 2, size)), np.zeros((size, 2))
    rows[:, :, -1] = 1.0
    rows[: steps - 1, 1] = np.eye(size)[1:steps]
    reward[steps - 1, 1] = 1.0
    return TabularMDP(rows, reward, 0.99, np.eye(size)[0], steps)


def test_a_reward_that_no_sample_shows_is_no_reason_to_take_a_batch_for_one():
    mdp, theta = sparse_chain(12), np.tile([1.0, 0.0], (14, 1))
    one, other = (
        measure_bias(from_surrogate(ad, order=1), mdp, theta, batch_size=10, evidence=evidence)
        for evidence in ("enumeration", "moments")
    )
    assert not other.coupled
    np.testing.assert_allclose(other.variance, one.variance, rtol=1e-9)


@pytest.mark.parametrize("surrogate", [ad, lvc, dice], ids=str)
def test_an_offset_that_the_critic_takes_off_does_not_spoil_the_variance(surrogate):
    plain = oracles.random_mdp(3, horizon=4, n_states=2, n_actions=2, next_rewards=True)
    mdp = TabularMDP(plain.transition, plain.reward + 1e7, 0.9, plain.start, 4)
    theta = np.random.default_rng(0).normal(size=(2, 2))
    left = (1 - 0.9 ** np.arange(4, -1, -1)) / (1 - 0.9)
    critic = np.repeat(1e7 * left[:, None], 2, axis=1)
    one, other = (
        measure_bias(
            from_surrogate(surrogate, order=1), mdp, theta, critic=critic, evidence=evidence
        )
        for evidence in ("enumeration", "moments")
    )
    np.testing.assert_allclose(other.variance, one.variance, rtol=1e-6)
