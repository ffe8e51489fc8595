"""Importance sampling: what is unbiased off policy, exactly."""

from dataclasses import replace

import numpy as np
import pytest

from gradbias.analytic.policies.softmax import TABULAR, log_softmax, softmax
from gradbias.analytic.problems.games import StochasticGame
from gradbias.analytic.returns.game_derivatives import game_gradient
from gradbias.stochastic.estimators.contexts import Context, OtherPlayer, player_tables
from gradbias.stochastic.estimators.kinds import estimate, from_surrogate
from gradbias.stochastic.rollouts.records import build_record, record_tensors
from gradbias.stochastic.rollouts.trajectories import Trajectories, sample
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.off_policy import (
    OffPolicyDice,
    Ratio,
    effective_sample_size,
    off_policy_dice,
)
from gradbias.verification.evidence.enumeration import Enumeration
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.evidence.setting import effective_share
from gradbias.verification.measurement.measure import measure_bias
from tests.oracles import brute_force as oracles


def setting(seed, horizon=3):
    mdp = oracles.random_mdp(seed, horizon=horizon, n_states=2, n_actions=2, next_rewards=True)
    return mdp, *np.random.default_rng(seed).normal(size=(2, 2, 2))


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("ratio", [Ratio.TRAJECTORY, Ratio.PER_DECISION])
@pytest.mark.parametrize("seed", range(5))
def test_products_of_ratios_are_unbiased_to_every_order(seed, ratio, order):
    mdp, theta, behaviour = setting(seed, horizon=2)
    estimator = from_surrogate(OffPolicyDice(ratio), order=order)
    report = measure_bias(estimator, mdp, theta, behaviour=behaviour)
    assert report.verdict is Verdict.UNBIASED


@pytest.mark.parametrize("seed", range(5))
def test_the_printed_ratio_of_a_single_step_is_biased(seed):
    mdp, theta, behaviour = setting(seed)
    per_step = from_surrogate(OffPolicyDice(Ratio.PER_STEP), order=1)
    report = measure_bias(per_step, mdp, theta, behaviour=behaviour)
    assert report.verdict is Verdict.BIASED
    assert report.relative_bias > 0.01
    # Even on policy: a step's own ratio says nothing of how later states come about.
    assert measure_bias(per_step, mdp, theta).verdict is Verdict.BIASED
    one_step = replace(mdp, horizon=1)
    report = measure_bias(per_step, one_step, theta, behaviour=behaviour)
    assert report.verdict is Verdict.UNBIASED


def test_ratios_that_are_cut_off_are_biased_where_they_are():
    mdp, theta, behaviour = setting(0)
    for largest, verdict in ((1e6, Verdict.UNBIASED), (1.2, Verdict.BIASED)):
        estimator = from_surrogate(OffPolicyDice(max_ratio=largest), order=1)
        report = measure_bias(estimator, mdp, theta, behaviour=behaviour)
        assert report.verdict is verdict


@pytest.mark.parametrize("order", [1, 2])
def test_on_policy_it_is_dice(order):
    mdp, theta, _ = setting(1)
    one, other = (
        measure_bias(from_surrogate(s, order=order), mdp, theta, evidence="enumeration")
        for s in (dice, off_policy_dice)
    )
    np.testing.assert_allclose(other.mean, one.mean, atol=1e-13)
    np.testing.assert_allclose(other.variance, one.variance, atol=1e-13)


def test_two_players_both_off_policy():
    """One round of a 2x2 game: all four outcomes, weighted as both behaviours draw them."""
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(2, 1, 2, 2))
    game = StochasticGame(np.ones((1, 2, 2, 1)), rewards, 0.9, [1.0], 1)
    own, other, mu1, mu2 = rng.normal(size=(4, 1, 2))
    first, second = (a.ravel()[:, None, None] for a in np.indices((2, 2)))
    batch = Trajectories(
        states=np.zeros((4, 1, 2)),
        actions=first,
        rewards=rewards[0, 0][first, second],
        alive=np.ones((4, 1, 1), dtype=bool),
        behaviour_log_probs=log_softmax(mu1)[0][first],
        other_actions=second,
        other_rewards=rewards[1, 0][first, second],
        other_behaviour_log_probs=log_softmax(mu2)[0][second],
    )
    weights = np.outer(softmax(mu1)[0], softmax(mu2)[0]).ravel()
    context = Context(own, 0.9, other=OtherPlayer(other))
    found = weights @ estimate(from_surrogate(off_policy_dice, order=1), batch, context).reshape(
        4, -1
    )
    wanted = [game_gradient(game, own, other, of=1, wrt=wrt).ravel() for wrt in (1, 2)]
    np.testing.assert_allclose(found, np.concatenate(wanted), atol=1e-14)


def test_the_effective_sample_size_is_n_on_policy_and_falls_with_distance():
    mdp, theta, direction = setting(2)
    sizes = []
    for distance in (0.0, 0.5, 1.0, 2.0):
        batch = sample(mdp, theta + distance * direction, 500, rng=np.random.default_rng(0))
        context = Context(theta, mdp.discount)
        one = batch.reshape(1, 500)
        own, other = player_tables(context, 3)
        tensors = {k: v[0] for k, v in record_tensors(one, own, other).items()}
        record = build_record(tensors, mdp.discount, {})
        sizes.append(float(effective_sample_size(record)))
    assert abs(sizes[0] - 500.0) < 1e-9
    assert sizes == sorted(sizes, reverse=True)
    assert 1.0 <= sizes[-1] < 400.0
    far = replace(record, log_probs=record.log_probs - 1e3)  # ratios below the smallest float
    assert abs(float(effective_sample_size(far)) - sizes[-1]) < 1e-6


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="max_ratio: expected a positive number, got -1"):
        OffPolicyDice(max_ratio=-1)


def test_the_report_says_how_far_off_policy_it_is():
    """The share is 1 / E[w^2], here by enumeration; a control refuses what is farther off."""
    mdp, theta, direction = setting(3)
    behaviour = theta + 0.7 * direction
    options = {"behaviour": behaviour, "evidence": "enumeration"}
    estimator = from_surrogate(off_policy_dice, order=1)
    report = measure_bias(estimator, mdp, theta, **options)
    batch, weights = Enumeration.of(mdp, TABULAR, behaviour, mdp.horizon).all_batches(
        1, ordered=True
    )
    now = batch.states[..., :-1]
    gaps = log_softmax(theta)[now, batch.actions] - batch.behaviour_log_probs
    ratios = np.exp((gaps * batch.alive).sum(axis=-1))[:, 0]
    assert abs(weights @ ratios - 1.0) < 1e-12
    share = 1.0 / (weights @ ratios**2)
    assert share < 0.95
    assert f"the effective sample size is {share:.3g} of the trajectories" in str(report)
    log_policies = (log_softmax(theta), log_softmax(behaviour))
    found = effective_share(mdp, *log_policies, mdp.horizon)
    assert abs(found / share - 1.0) < 1e-12
    assert measure_bias(estimator, mdp, theta, **options, min_effective_share=0.9 * share)
    with pytest.raises(ValueError, match="behaviour: expected an effective sample size of at"):
        measure_bias(estimator, mdp, theta, **options, min_effective_share=1.01 * share)
    assert "effective" not in str(measure_bias(estimator, mdp, theta))
    far = [[4000.0, 0.0]] * 2
    assert effective_share(mdp, log_policies[0], log_softmax(far), 5000) == 0.0
