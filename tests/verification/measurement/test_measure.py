"""Verdicts: planted errors, vacuous problems, design of the statistical ones, bad requests."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import (
    GivenTarget,
    Undiscounted,
    return_derivative,
    update_field,
)
from gradbias.stochastic.estimators.kinds import from_callable, from_surrogate
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import AD, LVC, ad, lvc
from gradbias.verification.evidence.reports import Direction, Evidence, Verdict
from gradbias.verification.measurement.measure import assert_unbiased, measure_bias
from tests.oracles import brute_force as oracles

PROMISED = {
    "verdict",
    "target",
    "evidence",
    "bias",
    "bias_norm",
    "target_norm",
    "relative_bias",
    "half_width",
    "smallest_detectable",
    "samples",
    "seconds",
}


def small(seed=0, horizon=2):
    mdp = oracles.random_mdp(seed, horizon=horizon, n_states=2, n_actions=2)
    return mdp, np.random.default_rng(seed).normal(size=(2, 2))


def slightly_scaled(record):
    """REINFORCE with a planted error of 0.1%."""
    return 1.001 * ad(record)


def test_a_planted_tenth_of_a_percent_is_biased_by_enumeration():
    mdp, theta = small()
    report = measure_bias(from_surrogate(slightly_scaled, order=1), mdp, theta)
    assert report.verdict is Verdict.BIASED
    assert report.evidence is Evidence.ENUMERATION
    assert abs(report.relative_bias - 1e-3) < 1e-12
    assert abs(report.direction.scale - 1.001) < 1e-12
    assert report.direction.residual < 1e-12
    assert "off by 0.1% of the target's norm" in report.sentence()


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_tenth_of_a_percent_by_sampling_is_never_called_unbiased(seed, no_control):
    """Unless the tolerance allows it (false-alarm rate 1e-6)."""
    mdp, theta = small()
    estimator = from_surrogate(slightly_scaled, order=1)
    report = measure_bias(
        estimator,
        mdp,
        theta,
        evidence="sampling",
        tolerance=5e-4,
        false_alarm=1e-6,
        budget=20_000,
        rng=np.random.default_rng(seed),
    )
    assert report.verdict is Verdict.UNDECIDED
    assert 10**6 < report.samples_to_decide < 10**12
    assert "estimates would decide" in report.sentence()
    assert report.smallest_detectable > 1e-3


def test_sampling_decides_where_the_tolerance_allows_it():
    mdp, theta = small()
    allowed = measure_bias(
        from_surrogate(slightly_scaled, order=1),
        mdp,
        theta,
        evidence="sampling",
        tolerance=0.5,
        budget=50_000,
    )
    assert allowed.verdict is Verdict.UNBIASED
    assert "to within 50%" in allowed.sentence()
    assert "significantly" in allowed.sentence()
    biased = measure_bias(
        from_surrogate(ad, order=2), mdp, theta, evidence="sampling", budget=50_000
    )
    assert biased.verdict is Verdict.BIASED
    assert biased.false_alarm == 1e-3
    assert "central limit theorem" in biased.assumption


def test_the_samples_that_would_decide_do_decide():
    """An UNDECIDED report's own number of samples settles it (missed-bias rate 1e-2)."""
    mdp, theta = small()
    estimator = from_surrogate(lvc, order=2)
    options = {"evidence": "sampling", "tolerance": 0.05}
    first = measure_bias(estimator, mdp, theta, budget=300, **options)
    assert first.verdict is Verdict.UNDECIDED
    halfway = measure_bias(
        estimator, mdp, theta, budget=max(301, first.samples_to_decide // 100), **options
    )
    assert halfway.verdict is Verdict.UNDECIDED
    second = measure_bias(
        estimator,
        mdp,
        theta,
        budget=2 * first.samples_to_decide,
        rng=np.random.default_rng(1),
        **options,
    )
    assert second.verdict is Verdict.BIASED


def test_vacuous_where_nothing_is_tested():
    mdp, theta = small()
    unpaid = replace(mdp, reward=np.zeros((2, 2)))
    for evidence in ("enumeration", "sampling"):
        report = measure_bias(
            from_surrogate(ad, order=1), unpaid, theta, evidence=evidence, budget=500
        )
        assert report.verdict is Verdict.VACUOUS
        assert "every reward that can be reached is 0; use a longer" in report.sentence()
        assert report.detail == "within 2 steps of the start"
    one_action = oracles.random_mdp(0, horizon=2, n_states=2, n_actions=1)
    lonely = measure_bias(from_surrogate(ad, order=1), one_action, np.zeros((2, 1)))
    assert lonely.verdict is Verdict.VACUOUS
    level = replace(mdp, reward=np.ones((2, 2)))
    assert measure_bias(from_surrogate(ad, order=1), level, theta).verdict is Verdict.VACUOUS


def test_an_estimate_that_cancels_at_one_policy_is_biased_not_vacuous():
    """LVC's Hessian is 0 on every trajectory at the uniform policy over two actions, where
    u u^T = F: its coefficients are not 0, and neither is the true Hessian."""
    mdp, _ = small()
    report = measure_bias(from_surrogate(lvc, order=2), mdp, np.zeros((2, 2)))
    assert np.abs(report.mean).max() == 0.0
    assert report.verdict is Verdict.BIASED
    assert report.relative_bias == 1.0


def test_a_bias_for_a_target_of_zero_is_measured_against_the_natural_scale():
    mdp, theta = small()
    level = replace(mdp, reward=np.ones((2, 2)))
    report = measure_bias(
        from_surrogate(lambda r: (r.log_probs * r.actions).sum(-1).mean(), order=1), level, theta
    )
    assert report.verdict is Verdict.BIASED
    assert report.target_norm < 1e-12
    assert "max|Q| x occupancy" in report.sentence()


def test_rewards_beyond_the_horizon_do_not_count():
    rows = np.zeros((3, 1, 3))
    rows[0, 0, 1] = rows[1, 0, 2] = rows[2, 0, 2] = 1.0
    rows = np.repeat(rows, 2, axis=1)
    reward = np.array([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    for horizon, expected in ((1, Verdict.VACUOUS), (2, Verdict.UNBIASED)):
        mdp = TabularMDP(rows, reward, 0.9, [1.0, 0.0, 0.0], horizon)
        assert measure_bias(from_surrogate(ad, order=1), mdp, np.zeros((3, 2))).verdict is expected


def test_infinite_horizons_are_cut_and_the_truncation_is_named():
    mdp, theta = small()
    forever = replace(mdp, horizon=None)
    with pytest.raises(ValueError, match="the horizon is infinite"):
        measure_bias(from_surrogate(ad, order=1), forever, theta)
    report = measure_bias(from_surrogate(ad, order=1), forever, theta, length=3)
    assert report.verdict is Verdict.BIASED
    assert "infinite-horizon" in str(report.target)
    assert "trajectories are cut at 3 steps" in report.notes[0]
    assert f"{report.bias_norm:.3g} in norm" in report.notes[0]
    cut = return_derivative(1, horizon=3)
    against = measure_bias(from_surrogate(ad, order=1), forever, theta, length=3, target=cut)
    assert against.verdict is Verdict.UNBIASED


def test_n_scales_the_variance_of_what_is_not_coupled_and_nothing_else():
    mdp, theta = small()
    options = {"evidence": "sampling", "budget": 2000}
    one = measure_bias(from_surrogate(lvc, order=2), mdp, theta, **options)
    four = measure_bias(from_surrogate(lvc, order=2), mdp, theta, batch_size=4, **options)
    assert four.interval == one.interval
    np.testing.assert_allclose(four.variance, one.variance / 4)


def test_long_work_shows_progress():
    mdp, theta = small()
    for options in ({}, {"evidence": "sampling", "budget": 500}):
        seen = []
        measure_bias(
            from_surrogate(lvc, order=1),
            mdp,
            theta,
            progress=lambda done, total, seen=seen: seen.append((done, total)),
            **options,
        )
        assert seen
        assert seen[-1][0] == seen[-1][1]


def test_loops_are_capped_and_say_so(monkeypatch):
    monkeypatch.setattr("gradbias.stochastic.estimators.kinds.MAX_LOOPED", 150)
    mdp, theta = small(horizon=4)

    def slow(record):
        return record.rewards.sum().item() * record.log_probs.sum(-1).mean()

    report = measure_bias(from_surrogate(slow, order=1), mdp, theta, batch_size=1)
    assert report.evidence is Evidence.SAMPLING
    assert report.samples == 150
    assert any("only 150 estimates were sampled" in note for note in report.notes)


def test_noise_that_only_the_whole_enumeration_meets_is_seen():
    mdp, theta = small(horizon=3)
    rng = np.random.default_rng(0)
    calls = {"rare": 0}

    def rarely_noisy(batch, theta):
        if tuple(batch.states[0]) == (1, 1, 0, 1) and tuple(batch.actions[0]) == (1, 0, 1):
            calls["rare"] += 1
            return rng.normal(size=(2, 2))
        return np.ones((2, 2))

    estimator = from_callable(rarely_noisy, order=1)
    with pytest.raises(ValueError, match=r"two values|couples"):
        measure_bias(estimator, mdp, theta)
    assert calls["rare"] > 1


def test_dropping_gamma_is_right_for_the_update_field_alone():
    mdp, theta = small(horizon=3)
    for surrogate in (AD(weighting=Undiscounted()), LVC(weighting=Undiscounted())):
        estimator = from_surrogate(surrogate, order=1)
        assert measure_bias(estimator, mdp, theta).verdict is Verdict.BIASED
        field = measure_bias(estimator, mdp, theta, target=update_field(horizon=3))
        assert field.verdict is Verdict.UNBIASED
        assert "update field" in field.sentence()


def test_direct_estimates_are_measured_too():
    mdp, theta = small()

    def reinforce(batch, theta):
        policy = np.exp(theta - theta.max(1, keepdims=True))
        policy /= policy.sum(1, keepdims=True)
        result = np.zeros_like(theta)
        steps = np.arange(batch.shape[-1])
        for states, actions, rewards in zip(
            batch.states, batch.actions, batch.rewards, strict=True
        ):
            total = (mdp.discount**steps * rewards).sum()
            for s, a in zip(states[:-1], actions, strict=True):
                result[s] += total * (np.eye(2)[a] - policy[s]) / len(batch.actions)
        return torch.tensor(result)

    assert measure_bias(from_callable(reinforce, order=1), mdp, theta).verdict is Verdict.UNBIASED
    wrong = from_callable(lambda b, t: 0.5 * reinforce(b, t), order=1, name="half")
    assert measure_bias(wrong, mdp, theta).verdict is Verdict.BIASED


def test_assert_unbiased_raises_with_the_whole_report():
    mdp, theta = small()
    assert assert_unbiased(from_surrogate(dice, order=2), mdp, theta).verdict is Verdict.UNBIASED
    with pytest.raises(AssertionError, match=r"(?s)BIASED for the Hessian.*split.*evidence.*worst"):
        assert_unbiased(from_surrogate(lvc, order=2), mdp, theta)
    unpaid = replace(mdp, reward=np.zeros((2, 2)))
    with pytest.raises(AssertionError, match="VACUOUS"):
        assert_unbiased(from_surrogate(dice, order=2), unpaid, theta)


def test_a_report_s_text_and_data_say_the_same():
    mdp, theta = small()
    report = measure_bias(from_surrogate(lvc, order=2), mdp, theta)
    data = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert data.keys() >= PROMISED
    np.testing.assert_array_equal(np.array(data["bias"]), report.bias)
    assert data["half_width"] == 0.0
    assert data["seconds"] > 0
    worst = report.worst(2)
    assert abs(report.bias[worst[0]]) == np.abs(report.bias).max()
    s, a, s2, a2 = worst[0]
    text = str(report)
    assert f"(state {s}, action {a}) x (state {s2}, action {a2}): expected" in text
    for word in ("absolute", "relative", "scale", "cosine", "enumeration", "per trajectory"):
        assert word in text
    assert "N = 1, at this MDP and policy" in text


def test_direction_splits_a_mean_along_its_target():
    target = np.array([3.0, 4.0])
    split = Direction.of(2 * target, target)
    assert (split.scale, split.cosine) == (2.0, 1.0)
    assert split.residual < 1e-15
    across = Direction.of(np.array([-4.0, 3.0]), target)
    assert (across.scale, across.residual, across.cosine) == (0.0, 1.0, 0.0)
    assert np.isnan(Direction.of(target, np.zeros(2)).scale)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"evidence": "guessing"}, "evidence: expected one of auto, .*, got 'guessing'"),
        ({"evidence": "symbolic", "reference": np.ones((2, 2))}, "evidence: symbolic is for"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"false_alarm": 1.0}, "false_alarm"),
        ({"missed_bias": float("nan")}, "missed_bias"),
        ({"batch_size": 0}, "batch_size: expected an integer >= 1, got 0"),
        ({"budget": 50, "evidence": "sampling"}, "budget: expected at least 100"),
        ({"critic": np.zeros(3)}, r"critic: expected shape \(2,\) or \(3, 2\), got \(3,\)"),
        ({"critic": np.full(2, np.nan)}, "critic: expected finite"),
        ({"behaviour": np.zeros((3, 2))}, "behaviour: expected shape"),
        ({"target": return_derivative(2, horizon=2)}, "target: expected order 1"),
        (
            {"target": GivenTarget("mine", np.zeros((3, 2)))},
            r"target value: expected shape \(2, 2\)",
        ),
        ({"max_outcomes": 0}, "max_outcomes"),
        ({"length": 3}, "length: only for an infinite horizon"),
    ],
)
def test_bad_requests_are_refused(options, complaint):
    mdp, theta = small()
    with pytest.raises(ValueError, match=complaint):
        measure_bias(from_surrogate(ad, order=1), mdp, theta, **options)


def test_a_critic_must_vanish_where_episodes_end():
    rows = np.zeros((2, 2, 2))
    rows[:, :, 1] = 1.0
    mdp = TabularMDP(rows, [[1.0, 2.0], [0.0, 0.0]], 0.9, [1.0, 0.0], 2)
    with pytest.raises(
        ValueError, match=r"critic: expected 0 at terminal states, got 0\.5 at state 1"
    ):
        measure_bias(from_surrogate(ad, order=1), mdp, np.zeros((2, 2)), critic=[1.0, 0.5])


def test_measurements_repeat_exactly():
    mdp, theta = small()
    for options in ({}, {"evidence": "sampling", "budget": 1000}):
        first, second = (
            measure_bias(from_surrogate(lvc, order=2), mdp, theta, **options) for _ in range(2)
        )
        assert np.array_equal(first.mean, second.mean)
        assert np.array_equal(first.variance, second.variance)


@pytest.mark.parametrize("seed", range(3))
def test_peaked_policies_do_not_turn_rounding_into_a_bias(seed):
    mdp = oracles.random_mdp(seed, horizon=3, n_states=2, n_actions=2)
    theta = np.random.default_rng(seed).choice([-15.0, 15.0], size=(2, 2))
    for order in (1, 2):
        report = measure_bias(from_surrogate(dice, order=order), mdp, theta)
        assert report.verdict in (Verdict.UNBIASED, Verdict.VACUOUS)
