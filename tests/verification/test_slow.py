"""The longer suite: larger problems, and the statistical pipeline's rates over many seeds."""

import gymnasium
import numpy as np
import oracles
import pytest

from analytic.derivatives import hessian
from analytic.problems import TabularMDP
from stochastic.estimators import from_surrogate
from stochastic.surrogates.dice import dice
from stochastic.surrogates.score_function import ad, lvc
from verification.measurement import measure_bias
from verification.reports import Verdict

pytestmark = pytest.mark.slow
SEEDS = 500
FALSE_ALARM = 0.05


def test_taxi_s_hessians_from_all_its_starts():
    """388,800 trajectories, 9 million components, exactly."""
    mdp = TabularMDP.from_gymnasium(gymnasium.make("Taxi-v4"), 0.9, 4)
    theta = np.zeros((500, 6))
    truth = hessian(mdp, theta)
    unbiased = measure_bias(from_surrogate(dice, 2), mdp, theta)
    assert unbiased.samples == 388_800
    assert unbiased.verdict is Verdict.UNBIASED
    biased = measure_bias(from_surrogate(lvc, 2), mdp, theta)
    wanted = oracles.lvc_hessian_mean(mdp, theta) - truth
    assert np.abs(biased.bias - wanted).max() <= 1e-10 * np.linalg.norm(truth)


def rate_of_exclusion(order, samples):
    """How often the interval leaves out the exact bias norm, over SEEDS seeds."""
    mdp = oracles.random_mdp(2, horizon=2, n_states=2, n_actions=2)
    theta = np.random.default_rng(2).normal(size=(2, 2))
    estimator = from_surrogate(ad, order)
    exact = measure_bias(estimator, mdp, theta).bias_norm
    missed = 0
    for seed in range(SEEDS):
        low, high = measure_bias(
            estimator,
            mdp,
            theta,
            evidence="sampling",
            samples=samples,
            false_alarm=FALSE_ALARM,
            rng=np.random.default_rng(seed),
        ).interval
        missed += not low <= exact + 1e-12 or not exact <= high + 1e-12
    return missed / SEEDS


@pytest.mark.parametrize("order", [1, 2])
def test_intervals_leave_out_the_exact_bias_no_more_often_than_they_say(order):
    """One-sided Hoeffding at 1e-6: a nominal 5% is refuted from 17% on."""
    slack = oracles.hoeffding_slack(SEEDS, 1e-6)
    assert rate_of_exclusion(order, samples=500) <= FALSE_ALARM + slack
