"""Two estimators against each other: rare differences, importance weights, and what is refused."""

import dataclasses

import numpy as np
import pytest

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.estimators.kinds import from_callable, from_draws, from_surrogate
from gradbias.stochastic.surrogates.dice import dice, loaded_dice
from gradbias.stochastic.surrogates.off_policy import OffPolicyDice
from gradbias.stochastic.surrogates.score_function import ad, lvc
from gradbias.verification.evidence.reasons import Reason
from gradbias.verification.evidence.reports import Evidence
from gradbias.verification.sequential.comparison import compare_estimators
from gradbias.verification.sequential.comparison_report import Agreement, ComparisonReport
from gradbias.verification.sequential.stream import Stopped
from tests.oracles import brute_force as oracles

MDP = oracles.random_mdp(0, horizon=3, n_states=3, n_actions=2)
THETA = np.random.default_rng(1).normal(size=(3, 2))
RARE = 1 / 100


def rare_mdp():
    """One step; state 1 follows with probability `RARE`, else state 2."""
    rows = np.zeros((3, 2, 3))
    rows[0, :, 1], rows[0, :, 2] = RARE, 1 - RARE
    rows[1, :, 1] = rows[2, :, 2] = 1.0
    reward = np.zeros((3, 2, 3))
    reward[0, 0] = 1.0
    return TabularMDP(rows, reward, 1.0, [1.0, 0.0, 0.0], 1)


def noisy(batch, theta):
    """Far more spread than the difference."""
    chosen = float((batch.actions[:, 0] == 0).mean())
    table = np.zeros((3, 2))
    table[0] = 1.0 + (20.0 * chosen - 10.0) * np.array([1.0, -1.0])
    return table


def with_rare_term(batch, theta):
    """The same mean: the term is rare, and 0 on average."""
    seen = float(((batch.states[:, 1] == 1) / RARE - 1).mean())
    table = noisy(batch, theta)
    table[0] += 0.05 * seen * np.array([1.0, -1.0])
    return table


def test_a_rare_difference_is_not_hidden_by_the_reference_s_own_spread():
    """Six seeds: of two hundred estimates few show the difference, and of those that do, one
    carries a large share; the reference's squares are 400 times as many."""
    first, second = from_callable(with_rare_term, order=1), from_callable(noisy, order=1)
    for seed in range(6):
        report = compare_estimators(
            first,
            second,
            rare_mdp(),
            np.zeros((3, 2)),
            budget=2000,
            tolerance=0.01,
            rng=np.random.default_rng(seed),
        )
        assert report.verdict is Agreement.UNDECIDED, (seed, str(report))
    assert report.reason is Reason.HEAVY_TAILS


def test_a_normal_difference_is_not_judged_early():
    """Before a tenth of the budget nothing is decided; a known range decides whenever it can."""
    options = {"budget": 40_000, "tolerance": 0.1}
    twice = from_surrogate(lambda record: 2 * ad(record), order=1)
    report = compare_estimators(twice, from_surrogate(ad, order=1), MDP, THETA, **options)
    assert report.verdict is Agreement.DIFFER
    assert report.samples >= 4000

    told = []

    def stop(done, total):
        told.append(done)
        if len(told) == 1:
            raise KeyboardInterrupt

    report = compare_estimators(
        twice, from_surrogate(ad, order=1), MDP, THETA, progress=stop, **options
    )
    assert (report.verdict, report.stopped) == (Agreement.UNDECIDED, Stopped.INTERRUPTED)
    assert report.reason is Reason.TOO_FEW_ESTIMATES


def test_importance_weights_that_leave_little_decide_nothing():
    mdp = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.3]], 0.9, [1.0], horizon=1)
    behaviour = np.array([[0.0, np.log(0.002 / 0.998)]])
    report = compare_estimators(
        from_surrogate(OffPolicyDice(), order=1),
        from_surrogate(ad, order=1),
        mdp,
        np.zeros((1, 2)),
        behaviour=behaviour,
        budget=20_000,
    )
    assert report.verdict is Agreement.UNDECIDED
    assert report.reason is Reason.LOW_EFFECTIVE_SIZE


def test_what_differs_by_rounding_alone_agrees():
    """Rounding has heavy tails, and means nothing."""
    rounding = from_surrogate(lambda r: dice(r) + 1e-17 * ad(r), order=1)
    report = compare_estimators(
        rounding, from_surrogate(loaded_dice, order=1), MDP, THETA, budget=40_000, tolerance=0.1
    )
    assert report.verdict is Agreement.AGREE


def test_arguments_are_called_by_their_names():
    ours = from_surrogate(ad, order=1)
    draws = from_draws(lambda draw, theta: np.zeros((3, 2)), order=1, name="own draws")
    for first, second, message in (
        (draws, ours, "first: expected an estimate from given batches, got own draws"),
        (ours, draws, "second: expected an estimate from given batches, got own draws"),
        (ours, from_surrogate(ad, order=2), "second: expected order 1, got 2"),
        (ours, ad, "second: expected an estimator, got AD"),
        (ad, ours, "first: expected an estimator, got AD"),
    ):
        with pytest.raises(ValueError, match=message):
            compare_estimators(first, second, MDP, THETA)


def test_no_comparison_can_be_called_exact():
    """Not even where every difference is 0; and the evidence is no argument."""
    ours = from_surrogate(lvc, order=1)
    report = compare_estimators(ours, ours, MDP, THETA, budget=2000, tolerance=1.0)
    assert report.evidence is Evidence.SAMPLING
    assert "exact" not in str(report)
    assert "sampling on both sides" in str(report)
    evidence = next(f for f in dataclasses.fields(ComparisonReport) if f.name == "evidence")
    assert not evidence.init
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(report, evidence=Evidence.ENUMERATION)


def test_a_difference_that_never_varied_may_have_rare_parts_that_were_not_seen():
    def more(batch, theta):
        return noisy(batch, theta) + 0.5

    pair = from_callable(more, order=1), from_callable(noisy, order=1)
    report = compare_estimators(*pair, rare_mdp(), np.zeros((3, 2)), budget=2000)
    assert report.verdict is Agreement.UNDECIDED
    assert (report.reason, report.detail) == (Reason.CONSTANT_DIFFERENCE, "2,000")
