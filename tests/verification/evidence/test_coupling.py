"""Coupling at the N that is asked for: estimators that change with N, and what was looked at."""

import numpy as np
import pytest
import torch
from scipy import stats

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.estimators.kinds import from_callable, from_surrogate
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import ad
from gradbias.verification.evidence import coupling
from gradbias.verification.evidence.reports import Evidence, Verdict
from gradbias.verification.measurement.measure import measure_bias
from tests.cases.bandits import score_gradient
from tests.oracles import brute_force as oracles


def problem(horizon=3):
    mdp = oracles.random_mdp(0, horizon=horizon, n_states=3, n_actions=2)
    return mdp, np.random.default_rng(1).normal(size=(3, 2))


def coin(p=0.3):
    """One state, two actions, one step; the second action pays 1 and has probability ``p``."""
    mdp = TabularMDP(np.ones((1, 2, 1)), np.array([[0.0, 1.0]]), 0.9, [1.0], 1)
    return mdp, np.log([[1 - p, p]])


def late_factor(record):
    """Right below 300 trajectories, a tenth too large from there on."""
    return dice(record) * (1.1 if len(record.rewards) >= 300 else 1.0)


def late_normalisation(record):
    """REINFORCE below 512 trajectories, with rewards normalised in the batch from there on."""
    rewards = record.rewards[:, 0]
    return (
        record.log_probs[:, 0] * (normalised(rewards) if len(rewards) >= 512 else rewards)
    ).mean()


def normalised(rewards):
    """Rewards with mean 0 and deviation 1; 0 where all are equal."""
    spread = rewards.std(unbiased=False)
    return (rewards - rewards.mean()) / torch.where(spread > 0, spread, 1.0)


@pytest.mark.parametrize("order", [1, 2])
def test_a_factor_from_300_trajectories_on_is_seen_at_1000_and_not_at_200(order):
    mdp, theta = problem()
    estimator = from_surrogate(late_factor, order=order)
    small = measure_bias(estimator, mdp, theta, batch_size=200)
    assert (small.verdict, small.coupled) == (Verdict.UNBIASED, False)
    large = measure_bias(estimator, mdp, theta, batch_size=1000, budget=100_000)
    assert (large.verdict, large.coupled) == (Verdict.BIASED, True)
    assert large.evidence is Evidence.SAMPLING
    low, high = large.relative_interval
    assert low < 0.1 < high  # false alarm 1e-3; the seed is fixed


def normalised_mean(n, p):
    """E of the normalised estimate's derivative in the second logit: a sum over the number of
    ones, c: the mean of (r - c/n) / sqrt(c/n (1 - c/n)) times (a - p).
    """
    ones = np.arange(1, n)
    share = ones / n
    spread = np.sqrt(share * (1 - share))
    return float(stats.binom.pmf(ones, n, p) @ spread)


def test_a_normalisation_from_512_trajectories_on_has_the_bias_of_its_binomial_sum():
    mdp, theta = coin()
    estimator = from_surrogate(late_normalisation, order=1)
    report = measure_bias(estimator, mdp, theta, batch_size=600)
    assert (report.verdict, report.coupled) == (Verdict.BIASED, True)
    assert report.evidence is Evidence.ENUMERATION  # 601 multisets
    wanted = normalised_mean(600, 0.3)
    assert abs(report.mean[0, 1] - wanted) < 1e-11
    assert abs(report.relative_bias - (wanted / (0.3 * 0.7) - 1)) < 1e-10
    assert measure_bias(estimator, mdp, theta, batch_size=500).verdict is Verdict.UNBIASED


def test_a_direct_estimate_that_changes_with_n_is_seen():
    mdp, theta = coin()

    def late(batch, theta):
        return score_gradient(batch, theta) * (1.5 if len(batch.actions) > 700 else 1.0)

    estimator = from_callable(late, order=1, name="late")
    assert measure_bias(estimator, mdp, theta, batch_size=700).verdict is Verdict.UNBIASED
    report = measure_bias(estimator, mdp, theta, batch_size=800)
    assert (report.verdict, report.coupled) == (Verdict.BIASED, True)


def test_only_an_estimator_that_errs_on_equal_trajectories_couples_on_batches_of_one_kind():
    """Batches that repeat one trajectory are among those that are tried."""
    mdp, theta = problem()

    def wrong_where_all_are_alike(record):
        alike = (record.actions == record.actions[:1]).all()
        return ad(record) * torch.where(alike & torch.tensor(len(record.rewards) > 4), 2.0, 1.0)

    estimator = from_surrogate(wrong_where_all_are_alike, order=1)
    assert measure_bias(estimator, mdp, theta, batch_size=50).coupled
    assert not measure_bias(estimator, mdp, theta, batch_size=4).coupled


def test_the_note_says_which_batches_were_looked_at(monkeypatch):
    mdp, theta = problem()
    (note,) = measure_bias(from_surrogate(dice, order=2), mdp, theta, batch_size=1000).notes
    assert "576 batches of two and 32 of 1000 of the most informative trajectories" in note
    wide = TabularMDP.random(40, 2, rng=np.random.default_rng(0), discount=0.9, horizon=2)
    estimator = from_surrogate(dice, order=2)
    report = measure_bias(estimator, wide, np.zeros((40, 2)), batch_size=200)
    assert "80 of 100 and 24 of 200" in report.notes[0]
    monkeypatch.setattr(coupling, "MAX_LOOKED_AT", 100)
    report = measure_bias(estimator, wide, np.zeros((40, 2)), batch_size=200)
    assert "none of 200, which are too large to look at" in report.notes[0]
