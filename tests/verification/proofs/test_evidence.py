"""Symbolic evidence of `measure_bias`: for every policy at one problem."""

from dataclasses import replace

import numpy as np
import pytest

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import return_derivative
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.dice import Dice, dice
from gradbias.stochastic.surrogates.group_relative import rloo
from gradbias.stochastic.surrogates.returns import rewards_to_go
from gradbias.stochastic.surrogates.score_function import AD, actor_critic, lvc
from gradbias.verification.evidence.reasons import Reason
from gradbias.verification.evidence.reports import Evidence, Verdict
from gradbias.verification.measurement.measure import measure_bias
from tests.cases.surrogates import FAST, entropy_bonus
from tests.oracles.tolerances import close


def ending(seed=1, steps=3):
    """Three states, the last terminal; rewards over time and by next state; a critic over time."""
    rng = np.random.default_rng(seed)
    law = rng.dirichlet(np.ones(3), size=(3, 2))
    law[2] = np.eye(3)[2]
    rewards = rng.normal(size=(steps, 3, 2, 3))
    rewards[:, 2] = 0.0
    critic = rng.normal(size=(steps + 1, 3))
    critic[:, 2] = 0.0
    mdp = TabularMDP(law, rewards, 0.9, [0.5, 0.3, 0.2], steps)
    return mdp, rng.normal(size=(3, 2)), critic


def plain():
    law = [[[0.5, 0.5], [0.25, 0.75]], [[0.1, 0.9], [0.6, 0.4]]]
    return TabularMDP(law, [[1.0, 0.0], [2.0, -1.0]], 0.5, [0.5, 0.5], 2)


@pytest.mark.parametrize(
    ("name", "order"), [(name, 2) for name in sorted(FAST)] + [("ad", 1), ("loaded_dice", 1)]
)
def test_formula_and_enumeration_agree_with_ends_and_rewards_over_time(name, order):
    """Their disagreement would be a ValueError; the verdict is the same."""
    mdp, theta, critic = ending()
    estimator = from_surrogate(FAST[name], order=order)
    found, known = (
        measure_bias(estimator, mdp, theta, critic=critic, evidence=e)
        for e in ("symbolic", "enumeration")
    )
    assert found.evidence is Evidence.SYMBOLIC
    assert found.verdict is known.verdict
    assert close(found.bias, known.bias, known.normaliser)
    everywhere = found.scope.endswith("at this MDP, for every policy")
    assert everywhere == (found.verdict is Verdict.UNBIASED)


def without_masks(record):
    """Weights of states and actions, at dead steps too, where log-probabilities are constants."""
    weights = 1.0 + record.states[..., :-1] + 2.0 * record.actions
    return (weights * record.log_probs * rewards_to_go(record)[..., :1]).sum(-1).mean()


def test_dead_steps_carry_nothing_where_coefficients_differ_between_trajectories():
    mdp, theta, critic = ending()
    report = measure_bias(
        from_surrogate(without_masks, order=2), mdp, theta, critic=critic, evidence="symbolic"
    )
    assert report.verdict is Verdict.BIASED
    assert not report.bias[2].any()


def test_a_report_says_for_every_policy_and_carries_the_identity():
    report = measure_bias(
        from_surrogate(dice, order=2), plain(), np.ones((2, 2)), evidence="symbolic"
    )
    assert report.verdict is Verdict.UNBIASED
    assert "N = 1, at this MDP, for every policy" in report.sentence()
    assert "discount and log-probabilities as symbols" in report.assumption
    assert any(note.startswith("proof: E[estimate] - Hessian") for note in report.notes)


def test_a_biased_report_is_of_this_policy_and_carries_the_formula():
    theta = np.array([[0.3, 0.0], [0.0, 1.0]])
    report = measure_bias(from_surrogate(lvc, order=2), plain(), theta, evidence="symbolic")
    assert report.verdict is Verdict.BIASED
    assert report.scope == "N = 1, at this MDP and policy"
    assert any("formula: " in note and "pi_0_0" in note for note in report.notes)


def test_unbiased_at_one_policy_alone_is_not_called_so_for_every_policy():
    """The critic holds this policy's values, exactly; another policy's differ."""
    law = np.array([[[0.5, 0.5], [0.25, 0.75]]] * 2)
    mdp = TabularMDP(law, [[1.0, 0.0], [2.0, -1.0]], 0.5, [0.5, 0.5], 2)
    last = mdp.reward.mean(axis=1)
    values = np.array([last + 0.5 * law.mean(axis=1) @ last, last, np.zeros(2)])
    estimator = from_surrogate(actor_critic, order=1)
    theta = np.zeros((2, 2))
    report = measure_bias(estimator, mdp, theta, critic=values, evidence="symbolic")
    assert report.verdict is Verdict.UNBIASED
    assert report.scope == "N = 1, at this MDP and policy"
    assert any(note.startswith("formula: for policies in general") for note in report.notes)
    report = measure_bias(estimator, mdp, np.eye(2), critic=values, evidence="symbolic")
    assert report.verdict is Verdict.BIASED


def peaked_only(record):
    """DiCE, but for a term that shows only where an action is all but never taken."""
    rare = (record.log_probs.detach() < -310.0) * rewards_to_go(record)
    return Dice()(record) + 1e140 * (rare * record.log_probs).sum(-1).mean()


def test_what_branches_on_the_policy_can_be_tested_at_it_alone():
    estimator = from_surrogate(peaked_only, order=1)
    with pytest.raises(
        ValueError, match=r"lt depends on .*log_probs .*tested at given points, not"
    ):
        measure_bias(estimator, plain(), np.zeros((2, 2)), evidence="symbolic")
    for theta, verdict in ((0.0, Verdict.UNBIASED), (320.0, Verdict.BIASED)):
        at = np.array([[theta, 0.0], [0.0, 0.0]])
        assert measure_bias(estimator, plain(), at, evidence="enumeration").verdict is verdict


def absorbs_small_rewards(record):
    """DiCE of rewards from which rounding takes what is small."""
    return Dice()(replace(record, rewards=(record.rewards + 1e3) - 1e3))


def test_where_floats_do_not_resolve_the_numbers_formula_and_enumeration_disagree():
    estimator = from_surrogate(absorbs_small_rewards, order=1)
    mdp = plain()
    tiny = replace(mdp, reward=1e-11 * mdp.reward)
    with pytest.raises(ValueError, match="symbolic expectation differs from the enumerated"):
        measure_bias(estimator, tiny, np.zeros((2, 2)), evidence="symbolic")
    report = measure_bias(estimator, mdp, np.zeros((2, 2)), evidence="symbolic")
    assert report.verdict is Verdict.UNBIASED


def test_what_does_not_fit_is_refused():
    mdp = plain()
    endless = TabularMDP(mdp.transition, mdp.reward, 0.5, mdp.start)
    estimator = from_surrogate(AD(), order=1)
    other = {"target": return_derivative(1, horizon=5)}
    large = TabularMDP.random(5, 5, rng=np.random.default_rng(0), discount=0.9, horizon=9)
    for how, problem, options, text in [
        (estimator, endless, {"length": 2}, "finite horizons alone"),
        (estimator, mdp, other, "the return's own derivatives alone"),
        (estimator, mdp, {"behaviour": np.ones((2, 2)) * [0.0, 1.0]}, "of the policy itself"),
        (estimator, mdp, {"reference": np.ones((2, 2))}, "without a reference policy"),
        (from_surrogate(entropy_bonus, order=1), mdp, {}, "depend on the policy"),
        (from_surrogate(rloo, order=1), mdp, {"batch_size": 2}, "do not couple"),
        (estimator, large, {}, "more than the limit"),
    ]:
        at = np.zeros((problem.n_states, problem.n_actions))
        with pytest.raises(ValueError, match=text):
            measure_bias(how, problem, at, evidence="symbolic", **options)


def test_a_target_of_zero_shows_nothing_for_every_policy():
    """At the uniform policy this bandit's Hessian is 0; elsewhere it is not."""
    bandit = TabularMDP(np.ones((1, 2, 1)), np.array([[1.0, 0.0]]), 0.5, np.ones(1), 1)
    estimator = from_surrogate(Dice(), order=2)
    report = measure_bias(estimator, bandit, np.zeros((1, 2)), evidence="symbolic")
    assert report.verdict is Verdict.VACUOUS
    assert report.scope == "N = 1, at this MDP and policy"
    elsewhere = measure_bias(estimator, bandit, np.array([[1.0, 0.0]]), evidence="symbolic")
    assert elsewhere.scope == "N = 1, at this MDP, for every policy"


@pytest.mark.parametrize(
    ("actions", "reward", "why"), [(2, 0.0, Reason.NO_REWARD), (1, 1.0, Reason.ZERO_TARGET)]
)
def test_where_estimate_and_derivative_are_0_for_every_policy_the_verdict_is_vacuous(
    actions, reward, why
):
    """As with all other evidence: nothing was tested, and that is no bad input."""
    law = np.full((2, actions, 2), 0.5)
    mdp = TabularMDP(law, np.full((2, actions), reward), 0.9, [0.5, 0.5], 2)
    report = measure_bias(
        from_surrogate(dice, order=2), mdp, np.zeros((2, actions)), evidence="symbolic"
    )
    assert report.verdict is Verdict.VACUOUS
    assert report.evidence is Evidence.ENUMERATION
    assert report.reason is why
    assert any("nothing to prove" in note for note in report.notes)


def test_a_mean_that_is_not_0_where_the_derivative_is_has_its_formula():
    """There is something to prove then: sum log pi, differentiated twice, does not have mean 0."""
    mdp = TabularMDP(np.full((2, 2, 2), 0.5), np.zeros((2, 2)), 0.9, [0.5, 0.5], 2)
    scores = from_surrogate(lambda record: record.log_probs.sum(-1).mean(), order=2)
    report = measure_bias(scores, mdp, np.zeros((2, 2)), evidence="symbolic")
    assert report.evidence is Evidence.SYMBOLIC
    assert any(note.startswith("formula") for note in report.notes)
