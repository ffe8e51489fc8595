"""The longer suite: larger problems, and the statistical pipeline's rates over many seeds."""

import gymnasium
import numpy as np
import pytest
from scipy.stats import binom

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import hessian
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.catalogue import CATALOGUE
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import lvc
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.measurement.measure import measure_bias
from tests.oracles import brute_force as oracles

pytestmark = pytest.mark.slow
SEEDS = 300
FALSE_ALARM = 0.05
GROUPS = ("rloo", "grpo", "dr_grpo")


def test_taxi_s_hessians_from_all_its_starts():
    """388,800 trajectories, 9 million components, exactly."""
    mdp = TabularMDP.from_gymnasium(gymnasium.make("Taxi-v4"), 0.9, 4)
    theta = np.zeros((500, 6))
    truth = hessian(mdp, theta)
    unbiased = measure_bias(from_surrogate(dice, order=2), mdp, theta)
    assert unbiased.samples == 388_800
    assert unbiased.verdict is Verdict.UNBIASED
    biased = measure_bias(from_surrogate(lvc, order=2), mdp, theta)
    wanted = oracles.lvc_hessian_mean(mdp, theta) - truth
    assert np.abs(biased.bias - wanted).max() <= 1e-10 * np.linalg.norm(truth)


def exclusions(surrogate, order, samples, trajectories):
    """How often the interval leaves out the exact bias norm, over SEEDS seeds."""
    mdp = oracles.random_mdp(2, horizon=2, n_states=2, n_actions=2)
    theta = np.random.default_rng(2).normal(size=(2, 2))
    estimator = from_surrogate(surrogate, order=order)
    exact = measure_bias(estimator, mdp, theta, batch_size=trajectories).bias_norm
    missed = 0
    for seed in range(SEEDS):
        low, high = measure_bias(
            estimator,
            mdp,
            theta,
            batch_size=trajectories,
            evidence="sampling",
            budget=samples,
            false_alarm=FALSE_ALARM,
            rng=np.random.default_rng(seed),
        ).interval
        missed += not low <= exact + 1e-12 or not exact <= high + 1e-12
    return missed


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_intervals_leave_out_the_exact_bias_no_more_often_than_they_say(name, order):
    """Every surrogate with a name, biased or not. A nominal 5% is refuted from 37 of 300 on: a
    false alarm of 5e-7 for each of 28 tests."""
    group = 2 if name in GROUPS else None
    missed = exclusions(CATALOGUE[name], order, 600, group)
    assert binom.sf(missed - 1, SEEDS, FALSE_ALARM) > 1e-6


def test_an_excess_would_be_refuted():
    assert binom.sf(37 - 1, SEEDS, FALSE_ALARM) < 2e-6
    assert binom.cdf(36, SEEDS, 3 * FALSE_ALARM) < 0.1  # three times the rate is caught
