"""Verdicts at the edges: rounding of coarse dtypes, small guarding constants, means of 0."""

import inspect
import json

import numpy as np
import pytest
import torch

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenTarget, zero
from gradbias.experiments.cli import main
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.score_function import ad
from gradbias.verification.evidence.reasons import Reason
from gradbias.verification.evidence.reports import Evidence, Verdict
from gradbias.verification.measurement.measure import measure_bias
from tests.oracles import brute_force as oracles


def problem(horizon=3):
    mdp = oracles.random_mdp(0, horizon=horizon, n_states=3, n_actions=2)
    return mdp, np.random.default_rng(1).normal(size=(3, 2))


def measured(function, order=1, **options):
    mdp, theta = problem()
    return measure_bias(from_surrogate(function, order=order), mdp, theta, **options)


def powers(record, dtype=torch.float64):
    steps = torch.arange(record.rewards.shape[-1], dtype=dtype)
    return torch.tensor(record.discount, dtype=dtype) ** steps


def single_weights(record):
    """REINFORCE with the powers of the discount in float32."""
    to_go = (powers(record, torch.float32) * record.rewards).flip(-1).cumsum(-1).flip(-1)
    return (record.log_probs * to_go).sum(-1).mean()


def single_result(record):
    to_go = (powers(record) * record.rewards).flip(-1).cumsum(-1).flip(-1)
    return (record.log_probs.float() * to_go.float()).sum(-1).mean()


def half_result(record):
    to_go = (powers(record) * record.rewards).flip(-1).cumsum(-1).flip(-1)
    return (record.log_probs * to_go.half()).sum(-1).mean()


def guarded_ratio(record, guard=1e-8):
    """DiCE with a guard in its denominator."""
    behaviour = record.behaviour_log_probs.cumsum(-1).exp()
    ratio = record.log_probs.cumsum(-1).exp() / (behaviour + guard)
    return (powers(record) * record.rewards * ratio).sum(-1).mean()


def guarded_mean(record):
    """REINFORCE, with the mean over trajectories as a masked sum over a guarded count."""
    to_go = (powers(record) * record.rewards).flip(-1).cumsum(-1).flip(-1)
    mask = torch.ones_like(record.log_probs[:, 0])
    return (record.log_probs * to_go).sum() / (mask.sum() + 1e-8)


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


@pytest.mark.parametrize(
    ("function", "name", "text", "largest"),
    [
        (single_weights, "float32", "to_go =", 1e-6),
        (single_result, "float32", ".float()", 1e-6),
        (half_result, "float16", ".half()", 1e-2),
    ],
)
def test_rounding_of_a_coarse_dtype_is_unbiased_to_within_it(function, name, text, largest):
    report = measured(function)
    assert report.evidence is Evidence.ENUMERATION
    assert (report.verdict, report.reason) == (Verdict.UNBIASED, Reason.ROUNDED)
    assert report.detail.startswith(f"{name}, test_edges.py line")
    assert 1e-9 < report.relative_bias < largest
    assert f"UNBIASED to within {100 * report.relative_bias:.3g}% for" in report.sentence()
    assert not report.coupled
    strict = measured(function, tolerance=1e-10)
    assert strict.verdict is Verdict.BIASED
    assert any(name in note for note in strict.notes)


def test_the_bias_of_float32_weights_is_that_of_their_rounding_by_hand():
    """The mean is the policy gradient with gamma^t rounded to float32, by brute force."""
    mdp, theta = problem()
    rounded = (np.float32(mdp.discount) ** np.arange(3, dtype=np.float32)).astype(np.float64)
    wanted = sum(
        p * sum(scores[t] * (rounded * rewards)[t:].sum() for t in range(3))
        for p, scores, rewards in weighted_scores(mdp, theta)
    )
    report = measured(single_weights)
    assert np.abs(report.mean - wanted).max() < 1e-14


def weighted_scores(mdp, theta):
    """Probability, scores ``[H, S, A]`` and rewards ``[H]`` of every trajectory of three steps."""
    policy = np.exp(theta) / np.exp(theta).sum(-1, keepdims=True)
    n_states, n_actions = theta.shape
    for path in np.ndindex(*(n_states, n_actions) * 3, n_states):
        states, actions = path[::2], path[1::2]
        p, scores, rewards = mdp.start[states[0]], np.zeros((3, n_states, n_actions)), []
        for t in range(3):
            s, a, u = states[t], actions[t], states[t + 1]
            p = p * policy[s, a] * mdp.transition[s, a, u]
            scores[t, s] = np.eye(n_actions)[a] - policy[s]
            rewards.append(
                np.broadcast_to(mdp.next_state_reward, (3, *mdp.transition.shape))[t, s, a, u]
            )
        yield p, scores, np.array(rewards)


@pytest.mark.parametrize(
    ("function", "text"), [(guarded_ratio, " + guard)"), (guarded_mean, "+ 1e-8")]
)
def test_the_effect_of_a_guard_is_unbiased_to_within_it_and_its_line_is_named(function, text):
    report = measured(function, batch_size=1)
    assert (report.verdict, report.reason) == (Verdict.UNBIASED, Reason.GUARDED)
    assert report.detail == f"1e-08, test_edges.py line {line_of(function, text)}"
    assert 1e-9 < report.relative_bias < 1e-6
    strict = measured(function, batch_size=1, tolerance=1e-9)
    assert strict.verdict is Verdict.BIASED
    assert any("1e-08" in note for note in strict.notes)


def test_the_bias_of_a_guarded_mean_is_its_share_of_the_count():
    """The sum over N trajectories, divided by N + 1e-8, is 1e-8 / N too small."""
    for n in (1, 2):
        report = measured(guarded_mean, batch_size=n)
        assert abs(report.relative_bias * n / 1e-8 - 1) < 1e-6


@pytest.mark.parametrize(
    "wrong",
    [
        lambda r: 1.00000001 * ad(r),  # no constant is added
        lambda r: ad(r) + 1e-8 * (r.log_probs**2).sum(-1).mean(),  # a small term
        lambda r: torch.add(ad(r), (r.log_probs**2).sum(-1).mean(), alpha=1e-8),
        lambda r: guarded_ratio(r) * 1.000001,  # a guard beside a larger error
    ],
)
def test_a_small_bias_that_no_guard_or_dtype_explains_is_biased(wrong):
    report = measured(wrong)
    assert report.verdict is Verdict.BIASED
    assert 1e-9 < report.relative_bias < 1e-4


def test_a_guard_that_does_much_is_no_guard():
    assert measured(lambda r: guarded_ratio(r, guard=1e-3)).verdict is Verdict.BIASED


def test_a_given_tolerance_holds_for_exact_evidence():
    def scaled(record):
        return 1.03 * ad(record)

    assert measured(scaled).verdict is Verdict.BIASED
    assert measured(scaled, tolerance=0.02).verdict is Verdict.BIASED
    report = measured(scaled, tolerance=0.05)
    assert (report.verdict, report.reason) == (Verdict.UNBIASED, Reason.WITHIN_TOLERANCE)
    assert "UNBIASED to within 3%" in report.sentence()
    by_moments = measured(ad, evidence="moments", tolerance=0.05)
    assert (by_moments.verdict, by_moments.reason) == (Verdict.UNBIASED, None)


def test_the_command_line_has_the_tolerance_of_exact_evidence(tmp_path, capsys):
    file = tmp_path / "loss.py"
    file.write_text(
        "from gradbias.stochastic import ad\n\ndef scaled(record):\n    return 1.03 * ad(record)\n"
    )
    common = ["check", f"{file}:scaled", "--random", "2x2", "--horizon", "2", "--json"]
    assert main(common) == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "BIASED"
    assert main([*common, "--tolerance", "0.05"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["verdict"], answer["reason"]) == ("UNBIASED", "WITHIN_TOLERANCE")


def k1_loss(record):
    """k1 as a loss: its gradient on policy is a score, with mean 0 and deviation of order 1."""
    return (record.log_probs - record.behaviour_log_probs).sum(-1).mean()


@pytest.mark.parametrize("target", [zero(), GivenTarget("nothing", np.zeros((3, 2)))])
def test_a_mean_of_zero_is_an_answer(target):
    report = measured(k1_loss, target=target)
    assert (report.verdict, report.reason) == (Verdict.UNBIASED, Reason.NOTHING_ON_AVERAGE)
    assert "does nothing on average" in report.sentence()
    assert report.deviation_per_trajectory > 0.5
    biased = measured(lambda r: k1_loss(r) + 0.1 * (r.log_probs**2).sum(-1).mean(), target=target)
    assert biased.verdict is Verdict.BIASED


def test_the_deviation_of_k1_is_the_root_of_the_fisher_information():
    """One state, one step, p = 1/3: the trace of diag(p) - p p^T is 2 p (1 - p)."""
    bandit = TabularMDP(np.ones((1, 2, 1)), np.array([[0.0, 1.0]]), 0.9, [1.0], 1)
    theta = np.log([[1 / 3, 2 / 3]])
    report = measure_bias(from_surrogate(k1_loss, order=1), bandit, theta, target=zero())
    assert report.reason is Reason.NOTHING_ON_AVERAGE
    assert abs(report.deviation_per_trajectory - np.sqrt(4 / 9)) < 1e-12


def test_zero_of_another_order_and_what_cannot_vary():
    mdp, theta = problem()
    hessian = from_surrogate(k1_loss, order=2)
    report = measure_bias(hessian, mdp, theta, target=zero(2))
    assert report.verdict is Verdict.BIASED  # minus the Fisher information
    with pytest.raises(ValueError, match="order 2"):
        measure_bias(hessian, mdp, theta, target=zero())
    with pytest.raises(ValueError, match=">= 1"):
        zero(0)
    nothing = measured(lambda r: 0.0 * r.log_probs.sum(), target=zero())
    assert (nothing.verdict, nothing.reason) == (Verdict.VACUOUS, Reason.ZERO_ESTIMATOR)


def masked_leave_one_out(record):
    """A leave-one-out baseline that is masked out for groups of one."""
    returns = (powers(record) * record.rewards).sum(-1)
    n = len(returns)
    advantages = (n * returns - returns.sum()) / max(n - 1, 1) * (n > 1)
    return (record.log_probs.sum(-1) * advantages).mean()


def test_an_estimator_that_is_always_zero_is_biased_by_all_of_the_target():
    report = measured(masked_leave_one_out, batch_size=1)
    assert report.verdict is Verdict.BIASED
    assert report.relative_bias == 1.0
    assert measured(masked_leave_one_out, batch_size=2).verdict is Verdict.UNBIASED
    sampled = measured(masked_leave_one_out, batch_size=1, evidence="sampling", budget=1000)
    assert (sampled.verdict, sampled.reason) == (Verdict.UNDECIDED, Reason.ONLY_ZEROS)
