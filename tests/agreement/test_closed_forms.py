"""Enumerated expectations equal the closed forms of theory, on many random problems."""

from dataclasses import replace

import numpy as np
import pytest

from gradbias.analytic.problems.targets import (
    GivenTarget,
    GivenWeights,
    bootstrapped_gradient,
    update_field,
)
from gradbias.analytic.returns.derivatives import gradient, hessian
from gradbias.analytic.returns.evaluation import state_values
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.dice import Dice, LoadedDice, dice, loaded_dice
from gradbias.stochastic.surrogates.score_function import AD, LVC, Reduction, ad, lvc
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.measurement.measure import measure_bias
from tests.oracles import brute_force as oracles

AGREEMENT = 1e-10
SEEDS = range(50)


def problem(seed):
    mdp = oracles.random_mdp(
        seed,
        horizon=1 + seed % 3,
        n_states=1 + seed // 3 % 3,
        n_actions=2 + seed // 9 % 2,
        next_rewards=seed % 2 == 0,
    )
    return mdp, np.random.default_rng(seed).normal(size=(mdp.n_states, mdp.n_actions))


def hessian_bias(surrogate, mdp, theta, **options):
    return measure_bias(from_surrogate(surrogate, order=2), mdp, theta, **options).bias


def check_agreement(found, wanted, scale):
    assert np.abs(found - wanted).max() <= AGREEMENT * max(scale, 1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_four_estimators_have_the_biases_of_theory(seed):
    mdp, theta = problem(seed)
    truth = hessian(mdp, theta)
    scale = np.linalg.norm(truth)
    check_agreement(
        hessian_bias(ad, mdp, theta), oracles.ad_hessian_mean(mdp, theta) - truth, scale
    )
    total = AD(reward_to_go=False)
    check_agreement(
        hessian_bias(total, mdp, theta),
        oracles.ad_total_return_hessian_mean(mdp, theta) - truth,
        scale,
    )
    check_agreement(
        hessian_bias(lvc, mdp, theta), oracles.lvc_hessian_mean(mdp, theta) - truth, scale
    )
    check_agreement(
        hessian_bias(LVC(reward_to_go=False), mdp, theta),
        oracles.lvc_hessian_mean(mdp, theta) - truth,
        scale,
    )
    check_agreement(hessian_bias(dice, mdp, theta), 0.0, scale)
    check_agreement(hessian_bias(loaded_dice, mdp, theta), 0.0, scale)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_four_gradients_are_unbiased(seed):
    mdp, theta = problem(seed)
    for surrogate in (ad, lvc, dice, loaded_dice):
        report = measure_bias(from_surrogate(surrogate, order=1), mdp, theta)
        assert report.verdict is Verdict.UNBIASED
        assert np.abs(report.bias).max() < AGREEMENT


@pytest.mark.parametrize("seed", range(0, 50, 5))
def test_third_derivatives_of_dice_are_unbiased_and_lvc_s_are_not(seed):
    mdp, theta = problem(seed)
    truth = oracles.autograd_derivative(mdp, theta, 3)
    target = GivenTarget("the third derivative of the return, by autograd", truth, order=3)
    for surrogate in (dice, loaded_dice):
        report = measure_bias(from_surrogate(surrogate, order=3), mdp, theta, target=target)
        check_agreement(report.bias, 0.0, np.linalg.norm(truth))
    if mdp.horizon > 1 and mdp.n_states > 1:
        report = measure_bias(from_surrogate(lvc, order=3), mdp, theta, target=target)
        assert report.verdict is Verdict.BIASED


@pytest.mark.parametrize("seed", range(6))
def test_baselines_change_ad_s_hessian_and_nothing_else(seed):
    """AD's mean Hessian depends on the baseline (0 under the exact values), gradients do not."""
    mdp = oracles.random_mdp(seed, horizon=3, n_states=2, n_actions=2)
    theta = np.random.default_rng(seed).normal(size=(2, 2))
    exact, wrong = state_values(mdp, theta), np.array([0.7, -1.1])
    truth = hessian(mdp, theta)
    report = measure_bias(from_surrogate(ad, order=2), mdp, theta, critic=exact)
    assert np.abs(report.mean).max() < 1e-14
    assert report.verdict is Verdict.BIASED
    assert abs(report.relative_bias - 1) < 1e-9
    with_wrong = oracles.ad_hessian_mean(mdp, theta, critic=wrong) - truth
    check_agreement(hessian_bias(ad, mdp, theta, critic=wrong), with_wrong, np.linalg.norm(truth))
    lvc_bias = oracles.lvc_hessian_mean(mdp, theta) - truth
    check_agreement(hessian_bias(lvc, mdp, theta, critic=wrong), lvc_bias, np.linalg.norm(truth))
    for surrogate in (ad, lvc, dice):
        for critic in (exact, wrong):
            found = measure_bias(from_surrogate(surrogate, order=1), mdp, theta, critic=critic)
            assert found.verdict is Verdict.UNBIASED
    assert np.abs(hessian_bias(Dice(), mdp, theta, critic=wrong)).max() < 1e-13


@pytest.mark.parametrize("seed", range(6))
def test_lvc_is_unbiased_where_transitions_do_not_depend_on_actions(seed):
    mdp = oracles.random_mdp(seed, horizon=3, n_states=3, n_actions=2)
    rows = np.repeat(mdp.transition[:, :1], 2, axis=1)
    theta = np.random.default_rng(seed).normal(size=(3, 2))
    report = measure_bias(from_surrogate(lvc, order=2), replace(mdp, transition=rows), theta)
    assert report.verdict is Verdict.UNBIASED
    assert measure_bias(from_surrogate(lvc, order=2), mdp, theta).verdict is Verdict.BIASED


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_loaded_dice_trades_bias_only_where_its_values_are_wrong(seed, lam):
    mdp = oracles.random_mdp(seed, horizon=3, n_states=2, n_actions=2)
    theta = np.random.default_rng(seed).normal(size=(2, 2))
    wrong = state_values(mdp, theta) + np.array([[0.3, -0.5], [0.1, 0.4], [-0.2, 0.6], [0.0, 0.0]])
    for order in (1, 2):
        estimator = from_surrogate(LoadedDice(lam), order=order)
        exact_values = measure_bias(estimator, mdp, theta, critic=state_values(mdp, theta))
        assert exact_values.verdict is Verdict.UNBIASED
        expected = Verdict.UNBIASED if lam == 1.0 else Verdict.BIASED
        assert measure_bias(estimator, mdp, theta).verdict is expected
        assert measure_bias(estimator, mdp, theta, critic=wrong).verdict is expected


def test_means_over_steps_and_given_weights_are_what_they_say():
    mdp = oracles.random_mdp(3, horizon=3, n_states=2, n_actions=2)
    theta = np.random.default_rng(3).normal(size=(2, 2))
    weights = GivenWeights((1.0, 0.5, 0.25))
    for kind in (AD, LVC):
        averaged = from_surrogate(kind(reduction=Reduction.MEAN_OVER_STEPS), order=1)
        third = GivenTarget("a third of the gradient", gradient(mdp, theta) / 3)
        assert measure_bias(averaged, mdp, theta, target=third).verdict is Verdict.UNBIASED
        weighted = from_surrogate(kind(weighting=weights), order=1)
        field = update_field(horizon=3, weighting=weights)
        assert measure_bias(weighted, mdp, theta, target=field).verdict is Verdict.UNBIASED


def test_bootstrapping_moves_the_target():
    """Loaded-DiCE with v_H != 0 estimates the gradient of the bootstrapped return."""
    mdp = oracles.random_mdp(1, horizon=2, n_states=2, n_actions=2)
    theta = np.random.default_rng(1).normal(size=(2, 2))
    critic = np.array([0.4, -0.9])
    estimator = from_surrogate(loaded_dice, order=1)
    plain = measure_bias(estimator, mdp, theta, critic=critic)
    moved = measure_bias(
        estimator, mdp, theta, critic=critic, target=bootstrapped_gradient(2, critic)
    )
    assert plain.verdict is Verdict.BIASED
    assert moved.verdict is Verdict.UNBIASED
    np.testing.assert_allclose(plain.exact, gradient(mdp, theta))
