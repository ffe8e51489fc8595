"""The exact kurtosis of gradient estimates, against every trajectory with its probability."""

from dataclasses import replace

import numpy as np
import pytest

from gradbias.analytic.moments import kurtosis
from gradbias.analytic.moments.kurtosis import DIRECTIONS, derivative_kurtosis, kurtosis_work
from gradbias.analytic.policies.at_parameters import policy_at
from gradbias.analytic.policies.softmax import TABULAR, softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.off_policy import OffPolicyDice
from gradbias.stochastic.surrogates.score_function import ad
from gradbias.verification.evidence.request import Request
from gradbias.verification.evidence.setting import Setting
from tests.oracles import brute_force as oracles


def projections(estimator, setting):
    """All estimates along the module's directions ``[B, D]``, with their probabilities."""
    request = Request(estimator, setting)
    batches = list(request.enumeration.batches(1, ordered=True, block=1 << 14))
    evaluator = estimator.prepare(batches[0][0], request.context)
    rng = np.random.default_rng(0)
    directions = [rng.normal(size=setting.theta.size) for _ in range(DIRECTIONS)]
    along = []
    for v in directions:
        weights = v
        for _ in range(estimator.order - 1):
            weights = np.multiply.outer(weights, v)
        along.append(weights.ravel())
    values = np.concatenate([evaluator.rows(batch).dense() for batch, _ in batches])
    chances = np.concatenate([weights for _, weights in batches])
    return values.reshape(len(chances), -1) @ np.stack(along, axis=1), chances


def kurtosis_of(values, chances):
    gaps = values - chances @ values
    return float((chances @ gaps**4).sum() / ((chances @ gaps**2) ** 2).sum())


def problems():
    plain = oracles.random_mdp(3, horizon=3, n_states=3, n_actions=2)
    by_successor = oracles.random_mdp(4, horizon=3, n_states=3, n_actions=2, next_rewards=True)
    timed = replace(plain, reward=np.random.default_rng(5).normal(size=(3, 3, 2, 3)))
    ends = np.array(plain.transition)
    ends[2] = np.eye(3)[2]
    reward = np.array(plain.reward)
    reward[2] = 0.0
    terminal = TabularMDP(ends, reward, 0.8, plain.start, 3)
    return {"plain": plain, "by successor": by_successor, "timed": timed, "terminal": terminal}


@pytest.mark.parametrize("name", sorted(problems()))
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("on_policy", [True, False])
def test_the_kurtosis_is_that_of_all_trajectories(name, order, on_policy, monkeypatch):
    """With and without the exact baseline at order 1, without it at order 2 (whose estimate with a
    baseline is that of advantages, and no surrogate's here)."""
    monkeypatch.setattr(kurtosis, "_BLOCK", 5)
    mdp, theta = problems()[name], np.random.default_rng(1).normal(size=(3, 2))
    drawn = theta if on_policy else np.random.default_rng(2).normal(size=(3, 2))
    at, behaviour = policy_at(TABULAR, theta, 3, 2), softmax(drawn)
    values = kurtosis._values(mdp, at.probabilities, 3)
    plain = from_surrogate(dice if on_policy else OffPolicyDice(), order=order)
    expected = [kurtosis_of(*projections(plain, Setting.of(mdp, theta, behaviour=drawn)))]
    if order == 1 and on_policy:
        setting = Setting.of(mdp, theta, critic=values)
        expected.append(kurtosis_of(*projections(from_surrogate(ad, order=1), setting)))
    else:
        monkeypatch.setattr(kurtosis, "_values", lambda *_: np.zeros((4, 3)))
    found = derivative_kurtosis(mdp, at, behaviour, order, 3)
    assert abs(found.value - max(expected)) < 1e-9 * max(expected)


def test_the_step_that_matters_is_named():
    """One step in a thousand pays a thousand: by action 0 from state 0 to state 1."""
    rows = np.zeros((3, 2, 3))
    rows[0, 0, 1], rows[0, 0, 2], rows[0, 1, 2] = 1e-3, 0.999, 1.0
    rows[1, :, 1] = rows[2, :, 2] = 1.0
    reward = np.zeros((3, 2, 3))
    reward[0, 0, 1], reward[0, 1, 2] = 1e3, 0.7
    mdp, theta = TabularMDP(rows, reward, 0.9, [1.0, 0.0, 0.0], 2), np.zeros((3, 2))
    found = derivative_kurtosis(mdp, policy_at(TABULAR, theta, 3, 2), softmax(theta), 1, 2)
    assert found.step == (0, 0, 1)
    assert abs(found.probability - 5e-4) < 1e-12
    assert 1900 < found.value < 2100  # one trajectory in 2,000


def test_what_never_varies_has_none():
    mdp = oracles.random_mdp(0, horizon=3, n_states=2, n_actions=1)
    at = policy_at(TABULAR, np.zeros((2, 1)), 2, 1)
    assert derivative_kurtosis(mdp, at, np.ones((2, 1)), 1, 3).value == 0.0


def test_the_work_grows_with_what_is_done():
    mdp = oracles.random_mdp(3, horizon=3, n_states=3, n_actions=2)
    by_successor = oracles.random_mdp(4, horizon=3, n_states=3, n_actions=2, next_rewards=True)
    assert kurtosis_work(mdp, 1, 6) == 2 * kurtosis_work(mdp, 1, 3)
    assert kurtosis_work(mdp, 2, 3) > 3 * kurtosis_work(mdp, 1, 3)
    assert kurtosis_work(by_successor, 1, 3) > kurtosis_work(mdp, 1, 3)
