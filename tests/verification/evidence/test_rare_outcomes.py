"""Samples of estimators of which nothing is known: trusted only where exact moments vouch for them.

In `rare` an estimate's mean rests on an outcome of a given probability, which most samples lack.
"""

import numpy as np
import pytest

import gradbias.verification.evidence.known_moments as known_moments
import gradbias.verification.evidence.verdicts as verdicts
from gradbias.analytic.problems.targets import GivenTarget
from gradbias.analytic.returns.derivatives import gradient
from gradbias.stochastic.estimators.kinds import from_draws, from_surrogate
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import Sampled
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.returns import discounts
from gradbias.stochastic.surrogates.score_function import ad
from gradbias.verification.evidence.reasons import Reason
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.evidence.request import Request
from gradbias.verification.evidence.setting import Setting
from gradbias.verification.measurement.measure import measure_bias
from gradbias.verification.measurement.meta_gradients import measure_meta_gradient
from gradbias.verification.sequential.comparison import compare_estimators
from gradbias.verification.sequential.comparison_report import Agreement
from gradbias.verification.sequential.measure import measure_bias_sequentially
from tests.cases.rare_rewards import THETA, rare_problem
from tests.oracles import brute_force as oracles


def with_baseline(scale=1.0):
    """Unbiased for ``scale`` times the gradient: the return less 1, times the scores."""

    def surrogate(record):
        returns = (discounts(record) * record.rewards).sum(-1, keepdim=True) - 1.0
        return scale * (returns * record.log_probs).sum(-1).mean()

    return from_surrogate(surrogate, order=1)


MEASURES = {
    "fixed": lambda *given, **more: measure_bias(
        *given, evidence="sampling", budget=20_000, **more
    ),
    "sequential": lambda *given, **more: measure_bias_sequentially(*given, budget=20_000, **more),
}


def without_exact_moments(monkeypatch):
    monkeypatch.setattr(known_moments, "MIN_OUTCOMES", 0)
    monkeypatch.setattr(verdicts, "_MAX_SHARE", 1.0)


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_a_rare_reward_does_not_make_an_unbiased_estimator_biased(name, monkeypatch):
    """Of 20,000 trajectories one in eight samples holds a reward of 1 in 10^5. Twelve seeds: the
    exact moments are the same for all, so that no verdict depends on chance. Without them most are
    wrong."""
    mdp = rare_problem(1e-5)
    reports = [
        MEASURES[name](with_baseline(), mdp, THETA, rng=np.random.default_rng(seed))
        for seed in range(12)
    ]
    assert {report.verdict for report in reports} == {Verdict.UNDECIDED}
    told = [report for report in reports if report.reason is Reason.RARE_OUTCOMES]
    assert len(told) >= 8
    assert "of 20,000 trajectories, less than 50" in told[0].detail
    assert "from state 0 by action 0 to state 1, 6.2e-06 a trajectory" in told[0].sentence()
    assert told[0].smallest_detectable is None
    without_exact_moments(monkeypatch)
    wrong = [
        MEASURES[name](with_baseline(), mdp, THETA, rng=np.random.default_rng(seed)).verdict
        for seed in range(12)
    ]
    assert wrong.count(Verdict.BIASED) >= 8


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_a_bias_is_found_where_enough_outcomes_carry_it(name):
    """Twice the gradient, with a reward of 1 in 20: missed with a probability below 1e-9."""
    assert MEASURES[name](with_baseline(3.0), rare_problem(0.05), THETA).verdict is Verdict.BIASED


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_a_multiple_of_a_known_estimate_has_no_noise_left(name):
    """REINFORCE written by hand is DiCE's gradient on every trajectory: what is left does not vary,
    and the verdict is exact to rounding; 2% more are seen as 2%."""
    mdp = oracles.random_mdp(0, horizon=3, n_states=3, n_actions=2)
    for scale, verdict in ((1.0, Verdict.UNBIASED), (1.02, Verdict.BIASED)):
        estimator = from_surrogate(lambda record, k=scale: k * ad(record), order=1)
        report = MEASURES[name](estimator, mdp, THETA)
        assert report.verdict is verdict
        low, high = report.relative_interval
        assert low - 1e-9 <= scale - 1 <= high + 1e-9 < low + 1e-6
        assert any("control variate" in note for note in report.notes)
    assert report.reason is None


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_a_control_variate_leaves_the_mean_as_it_is(name, request):
    """An estimator with noise of its own: its exact mean is in the interval (at 1e-6), which is
    narrower than without the control variate."""
    mdp, options = oracles.random_mdp(0, horizon=3, n_states=3, n_actions=2), {"tolerance": 1e-6}

    def noisy(record):
        return 1.1 * ad(record) - 0.2 * record.log_probs.sum(-1).mean()

    estimator = from_surrogate(noisy, order=1)
    exact = measure_bias(estimator, mdp, THETA)
    helped = MEASURES[name](estimator, mdp, THETA, false_alarm=1e-6, **options)
    request.getfixturevalue("no_control")
    alone = MEASURES[name](estimator, mdp, THETA, false_alarm=1e-6, **options)
    for report in (helped, alone):
        assert report.interval[0] <= exact.bias_norm <= report.interval[1]
    assert helped.half_width < 0.8 * alone.half_width
    assert name == "sequential" or np.array_equal(helped.variance, alone.variance)


def test_the_number_of_outcomes_is_trajectories_over_the_kurtosis():
    request = Request(with_baseline(), Setting.of(rare_problem(1e-3), THETA))
    kurtosis = known_moments.known_kurtosis(request)
    enough = int(np.ceil(50 * kurtosis.value))
    assert 75_000 < enough < 85_000  # one in 1,600
    assert known_moments.rare_doubt(kurtosis, enough) is None
    assert known_moments.rare_doubt(kurtosis, enough - 1)[0] is Reason.RARE_OUTCOMES


def test_batches_count_with_all_their_trajectories():
    """Coupled batches of 8: eight times as many outcomes as estimates."""

    def centred(record):
        returns = (discounts(record) * record.rewards).sum(-1, keepdim=True)
        return ((returns - returns.mean()) * record.log_probs).sum(-1).mean()

    coupled = from_surrogate(centred, order=1)
    mdp, options = rare_problem(0.05), {"evidence": "sampling", "batch_size": 8, "tolerance": 1.0}
    few = measure_bias(coupled, mdp, THETA, budget=1200, **options)
    many = measure_bias(coupled, mdp, THETA, budget=12_000, **options)
    assert (few.reason, few.samples) == (Reason.RARE_OUTCOMES, 150)
    assert many.verdict is Verdict.UNBIASED
    assert many.samples == 1500


def test_what_is_too_large_to_vouch_for_is_undecided(monkeypatch):
    mdp = oracles.random_mdp(0, horizon=3, n_states=3, n_actions=2)
    for measure in MEASURES.values():
        assert measure(with_baseline(3.0), mdp, THETA).verdict is Verdict.BIASED
    monkeypatch.setattr(known_moments, "MAX_KURTOSIS_WORK", 1.0)
    for measure in MEASURES.values():
        report = measure(with_baseline(3.0), mdp, THETA)
        assert (report.verdict, report.reason) == (Verdict.UNDECIDED, Reason.UNKNOWN_TAILS)


def test_a_higher_order_that_takes_too_long_leaves_it_to_the_first(monkeypatch):
    mdp = oracles.random_mdp(0, horizon=3, n_states=3, n_actions=2)
    request = Request(from_surrogate(dice, order=2), Setting.of(mdp, THETA))
    second = known_moments.known_kurtosis(request).value
    monkeypatch.setattr(known_moments, "MAX_KURTOSIS_WORK", known_moments.kurtosis_work(mdp, 1, 3))
    first = known_moments.known_kurtosis(request).value
    alone = Request(from_surrogate(dice, order=1), Setting.of(mdp, THETA))
    assert first == known_moments.known_kurtosis(alone).value != second


def test_comparisons_and_estimators_that_draw_themselves_are_vouched_for_too():
    mdp = rare_problem(1e-5)
    report = compare_estimators(
        with_baseline(), from_surrogate(dice, order=1), mdp, THETA, budget=20_000
    )
    assert (report.verdict, report.reason) == (Agreement.UNDECIDED, Reason.RARE_OUTCOMES)

    def drawing(draw, theta):
        batch = draw(theta, 1)
        table = np.zeros((3, 2))
        table[batch.states[0, 0], batch.actions[0, 0]] = batch.rewards.sum()
        return table

    report = measure_bias(from_draws(drawing, order=1), mdp, THETA, evidence="sampling", budget=400)
    assert (report.verdict, report.reason) == (Verdict.UNDECIDED, Reason.RARE_OUTCOMES)


def test_meta_gradients_are_vouched_for_by_the_policy_before_the_first_step():
    loop = SampledLoop(rare_problem(1e-5), starts_at_meta=True)
    slots = (Sampled(ad, 4), Sampled(dice, 4), Sampled(ad, 4))
    target = GivenTarget("the gradient", gradient(rare_problem(1e-5), THETA))
    sampled = MetaGradient(loop, 1, 0.1, *slots)
    report = measure_meta_gradient(
        sampled, THETA, target=target, evidence="sampling", replications=500
    )
    assert (report.verdict, report.reason) == (Verdict.UNDECIDED, Reason.RARE_OUTCOMES)
    assert "of 2,000 trajectories" in report.detail
    common = MetaGradient(SampledLoop(rare_problem(0.5), starts_at_meta=True), 1, 0.1, *slots)
    report = measure_meta_gradient(
        common, THETA, target=target, evidence="sampling", replications=500
    )
    assert report.reason is not Reason.RARE_OUTCOMES


def test_one_estimate_that_makes_most_of_the_squares_is_doubted():
    """The known estimates are harmless, the measured one is not: it cubes the return."""
    mdp = oracles.random_mdp(0, horizon=6, n_states=3, n_actions=2)

    def cubed(record):
        returns = (discounts(record) * record.rewards).sum(-1, keepdim=True)
        return ((4 * returns.abs()).exp() * record.log_probs).sum(-1).mean()

    report = measure_bias(
        from_surrogate(cubed, order=1), mdp, THETA, evidence="sampling", budget=2000
    )
    assert (report.verdict, report.reason) == (Verdict.UNDECIDED, Reason.HEAVY_TAILS)
