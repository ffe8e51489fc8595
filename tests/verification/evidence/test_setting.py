"""Where an estimator is measured: checked once, carried by the report, told by keywords that pass
through every function that measures."""

import inspect
from dataclasses import replace

import numpy as np
import pytest

from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.estimators.contexts import Context
from gradbias.stochastic.estimators.kinds import estimate, from_draws, from_surrogate
from gradbias.stochastic.rollouts.trajectories import empty_batches
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import ad, lvc
from gradbias.verification.evidence.reasons import Reason
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.evidence.setting import Setting, SettingOptions
from gradbias.verification.measurement.measure import MeasureOptions, assert_unbiased, measure_bias
from gradbias.verification.sequential.comparison import compare_estimators
from gradbias.verification.sequential.measure import measure_bias_sequentially

MDP = TabularMDP.random(3, 2, rng=np.random.default_rng(0), discount=0.9, horizon=3)
THETA = np.random.default_rng(1).normal(size=(3, 2))


def test_a_report_carries_the_setting_that_it_was_measured_at():
    policy = LinearSoftmax(np.random.default_rng(2).normal(size=(3, 2, 4)))
    options = {
        "policy": policy,
        "critic": [1.0, 2.0, 3.0],
        "behaviour": np.full(4, 0.1),
        "length": 3,
    }
    endless = replace(MDP, horizon=None)
    report = measure_bias(from_surrogate(ad, order=1), endless, np.zeros(4), **options)
    setting = report.setting
    assert (setting.mdp, setting.policy, setting.length, setting.steps) == (endless, policy, 3, 3)
    np.testing.assert_array_equal(setting.theta, np.zeros(4))
    np.testing.assert_array_equal(setting.critic, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(setting.behaviour, np.full(4, 0.1))
    assert not setting.on_policy
    assert 0.0 < setting.effective_share < 1.0
    assert setting.finite_mdp.horizon == 3
    assert not setting.context.critic.flags.writeable


def test_what_an_estimator_may_see_is_all_of_a_setting_but_the_problem():
    setting = Setting.of(MDP, THETA)
    assert (setting.on_policy, setting.effective_share, setting.finite_mdp) == (True, 1.0, MDP)
    assert not any(value is MDP for value in vars(setting.context).values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 3}, "length: only for an infinite horizon"),
        ({"critic": np.zeros(2)}, "critic"),
        ({"behaviour": np.zeros((2, 2))}, "behaviour: expected shape"),
        ({"reference": np.zeros((2, 2))}, "reference: expected shape"),
        ({"meta": {"eta": 1.0}}, "meta: expected torch tensors"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_setting_is_made(options, message):
    with pytest.raises(ValueError, match=message):
        Setting.of(MDP, THETA, **options)


def test_keywords_stand_in_one_place_and_unknown_ones_are_refused():
    setting_keywords = set(inspect.signature(Setting.of).parameters) - {"mdp", "theta"}
    assert set(SettingOptions.__annotations__) == setting_keywords
    own = set(inspect.signature(measure_bias).parameters) - {"estimator", "mdp", "theta", "setting"}
    assert set(MeasureOptions.__annotations__) == setting_keywords | own
    ours = from_surrogate(ad, order=1)
    for measure in (measure_bias, assert_unbiased, measure_bias_sequentially):
        with pytest.raises(TypeError, match="unexpected keyword argument 'critics'"):
            measure(ours, MDP, THETA, critics=np.zeros(3))
    with pytest.raises(TypeError, match="unexpected keyword argument 'critics'"):
        compare_estimators(ours, ours, MDP, THETA, critics=np.zeros(3))


def test_an_estimator_that_draws_itself_is_evaluated_like_the_others():
    ours = from_draws(lambda draw, theta: draw(theta, 2).rewards.sum() * theta, order=1, name="own")
    assert ours.draws_itself
    assert not from_surrogate(ad, order=1).draws_itself
    setting, rng = Setting.of(MDP, THETA), np.random.default_rng(0)
    with pytest.raises(ValueError, match="own: draws its own batches"):
        ours.prepare(empty_batches(3), setting.context)
    context = Context(THETA, MDP.discount, draw=lambda theta, n: setting.draw(theta, n, rng))
    found = estimate(ours, empty_batches(3), context)
    again = np.random.default_rng(0)
    expected = [setting.draw(THETA, 2, again).rewards.sum() * THETA for _ in range(3)]
    np.testing.assert_array_equal(found, expected)


def test_an_estimator_of_one_s_own_that_lacks_a_member_is_refused_by_its_name():
    class Incomplete:
        order, name = 1, "mine"

        def prepare(self, batch, context):
            raise NotImplementedError

    with pytest.raises(ValueError, match="got Incomplete without draws_itself"):
        measure_bias(Incomplete(), MDP, THETA)
    with pytest.raises(ValueError, match="got function without order"):
        measure_bias(lambda record: record.log_probs.sum(), MDP, THETA)


def test_a_report_raises_where_it_is_asked_to():
    biased = measure_bias(from_surrogate(lvc, order=2), MDP, THETA)
    with pytest.raises(AssertionError, match="BIASED for the Hessian"):
        biased.raise_if_biased()
    measure_bias(from_surrogate(dice, order=2), MDP, THETA).raise_unless_unbiased()
    nothing = measure_bias(from_surrogate(ad, order=1), replace(MDP, reward=0 * MDP.reward), THETA)
    nothing.raise_if_biased()
    assert (nothing.verdict, nothing.reason) == (Verdict.VACUOUS, Reason.NO_REWARD)
    with pytest.raises(AssertionError, match="VACUOUS for the gradient"):
        nothing.raise_unless_unbiased()
    assert Reason.NO_REWARD.value in nothing.sentence()
    assert nothing.as_dict()["reason"] == "NO_REWARD"
