"""What happens rarely, or at an extreme scale, must not turn into a wrong verdict."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gradbias.analytic.policies.softmax import TABULAR, LinearSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import (
    FiniteHorizon,
    GivenTarget,
    Target,
    Undiscounted,
    bootstrapped_gradient,
)
from gradbias.analytic.returns.derivatives import gradient
from gradbias.analytic.returns.evaluation import evaluate_parameters, state_values
from gradbias.analytic.returns.target_values import evaluate_target
from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.stochastic.estimators.contexts import Context, OtherPlayer
from gradbias.stochastic.estimators.kinds import from_callable, from_draws, from_surrogate
from gradbias.stochastic.surrogates.dice import dice, loaded_dice
from gradbias.stochastic.surrogates.returns import discounts
from gradbias.stochastic.surrogates.score_function import AD, Reduction, ad, lvc
from gradbias.verification.confidence.norm_intervals import estimate_spread
from gradbias.verification.evidence.enumeration import Enumeration, EnumerationSizeError
from gradbias.verification.evidence.reasons import Reason
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.evidence.request import Request
from gradbias.verification.evidence.setting import Setting
from gradbias.verification.measurement.measure import measure_bias
from tests.cases.surrogates import leave_one_out
from tests.oracles import brute_force as oracles


def lottery(probability, prizes, horizon=1, discount=1.0):
    """State 0 goes to state 1 with that probability, else to state 2; going to 1 pays by action."""
    rows = np.zeros((3, 2, 3))
    rows[0, :, 1], rows[0, :, 2] = probability, 1 - probability
    rows[1, :, 1] = rows[2, :, 2] = 1.0
    reward = np.zeros((3, 2, 3))
    reward[0, :, 1] = prizes
    return TabularMDP(rows, reward, discount, [1.0, 0.0, 0.0], horizon)


def summed(record):
    """Sums over trajectories instead of averaging: right for N = 1 alone."""
    return ((discounts(record) * record.rewards).sum(-1) * record.log_probs.sum(-1)).sum()


def first_of_batch(record):
    total = (discounts(record) * record.rewards).sum(-1)
    return ((total - total[0]) * record.log_probs.sum(-1)).mean()


def test_coupling_is_seen_where_most_trajectories_earn_nothing():
    mdp = lottery(0.001, [5.0, 1.0])
    theta = np.zeros((3, 2))
    with pytest.raises(ValueError, match="couples the trajectories"):
        measure_bias(from_surrogate(summed, order=1), mdp, theta)
    for n in (2, 3):
        report = measure_bias(from_surrogate(summed, order=1), mdp, theta, batch_size=n)
        assert report.coupled
        assert report.verdict is Verdict.BIASED
        assert abs(report.direction.scale - n) < 1e-12
        assert f"N = {n}" in report.sentence()


@pytest.mark.parametrize("n", [2, 4])
def test_order_is_seen_where_it_rarely_matters(n):
    mdp = lottery(0.01, [100.0, 50.0])
    report = measure_bias(
        from_surrogate(first_of_batch, order=1), mdp, np.zeros((3, 2)), batch_size=n
    )
    assert report.samples == 4**n
    # Each trajectory but the first keeps its own term: (n - 1) / n of the gradient.
    assert abs(report.direction.scale - (n - 1) / n) < 1e-9


def test_coupling_is_seen_at_every_scale_of_rewards():
    mdp = lottery(0.001, [5e-12, 1e-12])
    with pytest.raises(ValueError, match="couples the trajectories"):
        measure_bias(from_surrogate(summed, order=1), mdp, np.zeros((3, 2)))


def test_n_is_taken_at_its_word_where_nothing_was_earned():
    """Sampling sees no prize among the trajectories it puts the question to."""
    mdp = lottery(2e-5, [1.0, 0.5])
    options = {"evidence": "sampling", "max_outcomes": 2, "budget": 40_000}
    theta = np.zeros((3, 2))
    report = measure_bias(from_surrogate(summed, order=1), mdp, theta, batch_size=4, **options)
    assert report.coupled
    assert "N = 4" in report.sentence()
    alone = measure_bias(from_surrogate(summed, order=1), mdp, theta, **options)
    assert any("other N may have another bias" in note for note in alone.notes)


def test_tiny_given_targets_are_told_from_zero():
    mdp = oracles.random_mdp(1, horizon=2, n_states=2, n_actions=2)
    theta = np.random.default_rng(1).normal(size=(2, 2))
    truth = 1e-15 * gradient(mdp, theta)
    for factor, verdict in ((1e-15, Verdict.UNBIASED), (2e-15, Verdict.BIASED)):
        estimator = from_surrogate(lambda r, k=factor: k * ad(r), order=1)
        report = measure_bias(estimator, mdp, theta, target=GivenTarget("tiny", truth))
        assert report.verdict is verdict


def test_single_precision_is_avoided_or_named():
    mdp = oracles.random_mdp(1, horizon=3, n_states=2, n_actions=2)
    theta = np.random.default_rng(1).normal(size=(2, 2))

    def natural(record):
        powers = record.discount ** torch.arange(record.rewards.shape[-1])
        weighted = powers * record.rewards
        return (record.log_probs * weighted.flip(-1).cumsum(-1).flip(-1)).sum(-1).mean()

    assert measure_bias(from_surrogate(natural, order=1), mdp, theta).verdict is Verdict.UNBIASED
    assert torch.get_default_dtype() == torch.float32
    rounded = from_surrogate(lambda r: ad(replace(r, rewards=r.rewards.float().double())), order=1)
    report = measure_bias(rounded, mdp, theta)
    assert (report.verdict, report.reason) == (Verdict.UNBIASED, Reason.ROUNDED)
    assert report.detail.startswith("float32, test_rare_events.py line")


def test_direct_estimates_of_large_hessians_go_in_small_blocks():
    mdp = lottery(0.5, [1.0, 2.0])
    request = Request(
        from_callable(lambda b, t: np.zeros((3, 2, 3, 2)), order=2),
        Setting.of(replace(mdp, horizon=1), np.zeros((3, 2))),
    )
    many = TabularMDP.random(300, 20, rng=np.random.default_rng(0), discount=0.9, horizon=1)
    large = replace(request, setting=Setting.of(many, np.zeros((300, 20))))
    assert request.block(1) == 2**14
    assert large.block(1) == 1


def test_a_rare_end_that_couples_is_seen():
    rows = np.zeros((3, 2, 3))
    rows[0, :, 2], rows[0, :, 1], rows[1, :, 1], rows[2, :, 2] = 0.001, 0.999, 1.0, 1.0
    reward = np.zeros((3, 2, 3))
    reward[0, 0], reward[0, 1] = [0, 0.2, 1000], [0, 0.1, 0]
    reward[1, :, 1] = 0.05
    mdp = TabularMDP(rows, reward, 1.0, [1.0, 0.0, 0.0], 3)
    surrogate = AD(weighting=Undiscounted(), reduction=Reduction.MEAN_OVER_STEPS)
    with pytest.raises(ValueError, match="couples the trajectories"):
        measure_bias(from_surrogate(surrogate, order=1), mdp, np.zeros((3, 2)))


def test_the_spread_counts_what_the_kept_estimates_do_not_show():
    rng = np.random.default_rng(0)
    values = 1e-3 * rng.normal(size=(512, 3))
    rows = [Rows(values, None, (3,), 1.0)]
    rare = estimate_spread(4.0, rows)
    assert rare.frobenius > 0.99 * 4.0
    assert rare.interval(0.0, 100, 1e-3).high > 2 * np.sqrt(4.0 / 100)


@pytest.mark.slow
def test_a_rare_outcome_does_not_make_sampling_overconfident(no_control):
    """Unbiased or 8% off, about 100 prizes in 200,000 trajectories: 20 seeds each at a false alarm
    of 1e-6, 4e-5 in all. None may be BIASED, and none so sure as to be UNBIASED to within 1%, which
    would take far more samples."""
    rows = np.zeros((3, 2, 3))
    rows[0, :, 1], rows[0, :, 2] = 1 / 2000, 1 - 1 / 2000
    rows[1, :, 1] = rows[2, :, 2] = 1.0
    reward = np.zeros((3, 2, 3))
    reward[0, :, 1], reward[0, :, 2] = [800, 400], 0.1
    mdp = TabularMDP(rows, reward, 1.0, [1.0, 0.0, 0.0], 1)
    verdicts = [
        measure_bias(
            from_surrogate(lambda r, k=k: k * ad(r), order=1),
            mdp,
            np.zeros((3, 2)),
            evidence="sampling",
            false_alarm=1e-6,
            rng=np.random.default_rng(seed),
        ).verdict
        for k in (1.0, 1.08)
        for seed in range(20)
    ]
    assert set(verdicts) == {Verdict.UNDECIDED}


def test_unreachable_riches_do_not_hide_a_bias():
    mdp = oracles.random_mdp(0, horizon=2, n_states=2, n_actions=2)
    rows = np.zeros((3, 2, 3))
    rows[:2, :, :2] = mdp.transition
    rows[2, :, 2] = 1.0
    reward = np.vstack([mdp.reward, [[1e16, 1e16]]])
    rich = TabularMDP(rows, reward, 0.9, [*mdp.start, 0.0], 2)
    theta = np.random.default_rng(0).normal(size=(3, 2))
    assert measure_bias(from_surrogate(lvc, order=2), rich, theta).verdict is Verdict.BIASED


def corridor(length, discount):
    """Action 0 goes on, action 1 falls out; only the far end pays."""
    rows = np.zeros((length + 2, 2, length + 2))
    for s in range(length):
        rows[s, 0, s + 1] = rows[s, 1, length + 1] = 1.0
    rows[length:, :, length + 1] = 1.0
    reward = np.zeros((length + 2, 2))
    reward[length] = 1.0
    start = np.eye(length + 2)[0]
    return TabularMDP(rows, reward, discount, start, length + 1)


@pytest.mark.parametrize("length", [10, 34])
@pytest.mark.parametrize("discount", [0.999, 0.99999])
def test_small_targets_are_resolved_where_the_arithmetic_does(length, discount):
    """Gradients of 1e-11 x max|Q| x occupancy that are known to 1e-16 of themselves: a bias of a
    part in ten thousand is one."""
    mdp = corridor(length, discount)
    theta = np.zeros((length + 2, 2))
    dropped = measure_bias(from_surrogate(AD(weighting=Undiscounted()), order=1), mdp, theta)
    assert dropped.verdict is Verdict.BIASED
    assert measure_bias(from_surrogate(ad, order=1), mdp, theta).verdict is Verdict.UNBIASED


@pytest.mark.parametrize("size", [8.0, 12.0])
def test_biases_at_peaked_policies_are_seen(size):
    mdp = oracles.random_mdp(1, horizon=3, n_states=2, n_actions=2)
    theta = np.array([[size, -size], [-size, size]])
    dropped = measure_bias(from_surrogate(AD(weighting=Undiscounted()), order=1), mdp, theta)
    assert dropped.verdict is Verdict.BIASED
    assert dropped.relative_bias > 1e-3
    assert measure_bias(from_surrogate(ad, order=1), mdp, theta).verdict is Verdict.UNBIASED


def test_rewards_that_average_to_nothing_do_not_make_rounding_a_bias():
    reward = [[[1, -1], [2, -2]], [[0.3, -0.3], [0.7, -0.7]]]
    mdp = TabularMDP(np.full((2, 2, 2), 0.5), reward, 0.9, [1.0, 0.0], 3)
    theta = np.array([[0.3, 0.1], [-0.2, 0.4]])
    assert measure_bias(from_surrogate(ad, order=1), mdp, theta).verdict is Verdict.VACUOUS
    sampled = measure_bias(
        from_surrogate(ad, order=1), mdp, theta, evidence="sampling", budget=1000
    )
    assert "the target is 0" in str(sampled)
    assert sampled.as_dict()["half_width"] >= 0
    noisy = replace(mdp, reward=1e8 * np.array(reward) + 1.0 * np.arange(4).reshape(2, 2, 1))
    report = measure_bias(from_surrogate(ad, order=1), noisy, theta)
    assert report.verdict is Verdict.UNBIASED
    assert 1e-9 < report.tolerance < 1e-2


def test_targets_that_do_not_live_on_rewards_are_tested_without_them():
    mdp = replace(
        oracles.random_mdp(1, horizon=2, n_states=2, n_actions=2), reward=np.zeros((2, 2))
    )
    theta = np.random.default_rng(1).normal(size=(2, 2))
    critic = np.array([0.4, -0.9])
    target = bootstrapped_gradient(2, critic)
    right = measure_bias(
        from_surrogate(loaded_dice, order=1), mdp, theta, critic=critic, target=target
    )
    assert right.verdict is Verdict.UNBIASED
    twice = from_surrogate(lambda r: 2 * loaded_dice(r), order=1)
    wrong = measure_bias(twice, mdp, theta, critic=critic, target=target)
    assert wrong.verdict is Verdict.BIASED
    given = GivenTarget("given", right.exact)
    same = measure_bias(
        from_surrogate(loaded_dice, order=1), mdp, theta, critic=critic, target=given
    )
    assert same.verdict is Verdict.UNBIASED


@pytest.mark.parametrize("scale", [1e-160, 1e120, 1e160])
def test_rewards_whose_squares_are_no_floats_are_refused(scale):
    mdp = TabularMDP(np.full((2, 2, 2), 0.5), np.eye(2) * scale, 0.9, [1.0, 0.0], 3)
    with pytest.raises(ValueError, match=r"rewards: expected values .* rescale them"):
        measure_bias(from_surrogate(ad, order=2), mdp, np.eye(2))


def test_estimates_whose_squares_are_no_floats_are_refused():
    mdp = oracles.random_mdp(0, horizon=1, n_states=2, n_actions=2)
    with pytest.raises(ValueError, match=r"estimates: expected numbers up to 1e\+140"):
        measure_bias(from_surrogate(lambda r: 1e200 * ad(r), order=1), mdp, np.zeros((2, 2)))


def test_counts_of_batches_do_not_overflow():
    mdp = oracles.random_mdp(0, horizon=40, n_states=3, n_actions=3)
    measure = Enumeration.of(mdp, TABULAR, np.zeros((3, 3)), 40)
    assert measure.count_batches(16, ordered=True) == np.inf
    assert measure.count_batches(16, ordered=False) > 1e300
    with pytest.raises(EnumerationSizeError, match="batches of 16"):
        measure_bias(
            from_surrogate(leave_one_out, order=1),
            mdp,
            np.zeros((3, 3)),
            batch_size=16,
            evidence="enumeration",
        )
    sampled = measure_bias(
        from_surrogate(leave_one_out, order=1), mdp, np.zeros((3, 3)), batch_size=16, budget=3200
    )
    assert sampled.evidence.value == "sampling"


@pytest.mark.parametrize(
    ("horizon", "order", "complaint"),
    [(6000, 1, "at most 5,000 steps, got 6,000"), (4000, 2, "GiB at a time")],
)
def test_what_does_not_fit_into_memory_is_refused(horizon, order, complaint):
    mdp = oracles.random_mdp(0, horizon=horizon, n_states=2, n_actions=2)
    features = np.random.default_rng(0).normal(size=(2, 2, 3))
    with pytest.raises(ValueError, match=complaint):
        measure_bias(
            from_surrogate(dice, order=order),
            mdp,
            np.zeros(3),
            policy=LinearSoftmax(features),
            budget=200,
            evidence="sampling",
        )


def test_large_batches_of_what_is_not_coupled_cost_nothing_more():
    mdp = oracles.random_mdp(0, horizon=4, n_states=2, n_actions=2)
    one = measure_bias(from_surrogate(dice, order=2), mdp, np.zeros((2, 2)))
    many = measure_bias(from_surrogate(dice, order=2), mdp, np.zeros((2, 2)), batch_size=10_000)
    np.testing.assert_allclose(many.variance, one.variance / 10_000)


def test_the_exact_critic_vanishes_where_episodes_end():
    """By linear solves it did so up to rounding only, which the critic's check refuses."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = rng.dirichlet(np.ones(6), size=(6, 3))
        rows[4:] = np.eye(6)[[4, 5]][:, None]
        reward = rng.normal(size=(6, 3))
        reward[4:] = 0.0
        mdp = TabularMDP(rows, reward, 0.99, rng.dirichlet(np.ones(6)))
        values = state_values(mdp, rng.normal(size=(6, 3)))
        assert (values[4:] == 0.0).all()


def test_the_scale_is_that_of_visited_states():
    mdp = corridor(3, 0.9)
    exact = evaluate_parameters(mdp, np.zeros((5, 2)), TABULAR)
    assert exact.rounding_scale <= exact.scale


def test_targets_in_other_parameters_are_not_taken_for_the_policy_s():
    mdp = oracles.random_mdp(0, horizon=3, n_states=2, n_actions=2)
    target = Target(1, FiniteHorizon(3), with_respect_to="the rewards")
    with pytest.raises(ValueError, match=r"no closed form for .* with respect to the rewards"):
        evaluate_target(target, mdp, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="expected an update field"):
        Target(1, FiniteHorizon(3), weighting=Undiscounted())


def test_trees_of_draws_stay_within_their_limit():
    mdp = TabularMDP([[[1.0], [1.0]]], [[1.0, -0.5]], 0.9, [1.0], horizon=1)

    def adaptive(draw, theta):
        more = 10 if draw(theta, 1).actions[0, 0] == 1 else 0
        for _ in range(more):
            draw(theta, 1)
        return np.ones((1, 2))

    with pytest.raises(EnumerationSizeError, match="more than the limit of 100"):
        measure_bias(
            from_draws(adaptive, order=1),
            mdp,
            np.zeros((1, 2)),
            evidence="enumeration",
            max_outcomes=100,
        )
    rng = np.random.default_rng(0)

    def sometimes(draw, theta):
        draw(theta, int(rng.integers(1, 3)))
        return np.ones((1, 2))

    with pytest.raises(ValueError, match="same draws"):
        measure_bias(from_draws(sometimes, order=1), mdp, np.zeros((1, 2)), evidence="enumeration")


def test_players_must_fit_together():
    with pytest.raises(ValueError, match="expected as many actions each, got 2 and 3"):
        Context(np.zeros((2, 2)), 0.9, other=OtherPlayer(np.zeros((2, 3))))
    with pytest.raises(ValueError, match="rows below 2, got 4"):
        OtherPlayer(np.zeros((2, 2)), np.array([0, 4]))
    with pytest.raises(ValueError, match="other: theta: expected finite"):
        OtherPlayer(np.full((2, 2), np.nan))
