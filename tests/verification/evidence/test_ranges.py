"""Certified ranges of estimates, against all trajectories."""

import numpy as np
import pytest
from hypothesis import given, settings

from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenWeights, Undiscounted
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.dice import LoadedDice, dice, loaded_dice, tmaml
from gradbias.stochastic.surrogates.score_function import AD, LVC, Reduction, ad, lvc, reinforce
from gradbias.verification.confidence.scaled_sequences import Method, ScaledSequence
from gradbias.verification.evidence.enumeration import Enumeration
from gradbias.verification.evidence.ranges import component_range
from gradbias.verification.evidence.request import Request
from gradbias.verification.evidence.setting import Setting
from gradbias.verification.sequential.functionals import Functionals, pilot_direction
from tests.cases import strategies as drawn
from tests.oracles import brute_force as oracles

SURROGATES = {
    "AD": ad,
    "LVC": lvc,
    "DiCE": dice,
    "Loaded-DiCE(0.5)": LoadedDice(0.5),
    "AD, undiscounted": AD(weighting=Undiscounted()),
    "LVC, GAE(0.7)": LVC(gae_lambda=0.7),
}


def asked_for(surrogate, order, mdp, theta, critic=None, behaviour=None):
    setting = Setting.of(mdp, theta, critic=critic, behaviour=behaviour)
    return Request(from_surrogate(surrogate, order=order), setting)


def all_estimates(asked):
    """Estimates of every trajectory that can happen."""
    parts, evaluator = [], None
    measure = Enumeration.of(asked.mdp, TABULAR, asked.behaviour, asked.length)
    for batch, _ in measure.batches(1, ordered=True, block=4096):
        evaluator = evaluator or asked.estimator.prepare(batch, asked.context)
        parts.append(evaluator.rows(batch).dense())
    return np.concatenate(parts)


def excess(asked):
    """How far estimates are outside, and how much too wide the range is, relative to its width."""
    known, values = component_range(asked), all_estimates(asked)
    least, most = values.min(axis=0), values.max(axis=0)
    unit = max(np.abs(values).max(), 1e-300)
    outside = max((known.low - least).max(), (most - known.high).max()) / unit
    wide = max((least - known.low).max(), (known.high - most).max()) / unit
    return outside, wide


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", sorted(SURROGATES))
@settings(max_examples=20)
@given(mdp=drawn.mdps(horizons=(1, 2, 3), sizes=(3, 2)))
def test_no_trajectory_s_estimate_is_outside(name, order, mdp):
    theta = np.random.default_rng(mdp.n_states).normal(size=(mdp.n_states, mdp.n_actions))
    outside, wide = excess(asked_for(SURROGATES[name], order, mdp, theta))
    assert outside <= 1e-12
    if mdp.horizon == 1:
        assert wide <= 1e-12


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("surrogate", [ad, lvc, dice])
def test_a_critic_and_given_weights_are_in_the_range(order, surrogate):
    for seed in range(10):
        mdp = oracles.random_mdp(seed, horizon=3, n_states=3, n_actions=2)
        rng = np.random.default_rng(seed)
        theta, critic = rng.normal(size=(3, 2)), 5 * rng.normal(size=3)
        assert excess(asked_for(surrogate, order, mdp, theta, critic))[0] <= 1e-12
        weighted = AD(weighting=GivenWeights((1.0, -2.0, 0.5)))
        assert excess(asked_for(weighted, order, mdp, theta, critic))[0] <= 1e-12


def test_a_range_that_forgets_earlier_visits_or_the_critic_is_too_small():
    """Broken twins: DiCE's Hessian in LVC's range, and a critic left out."""
    mdp = oracles.random_mdp(0, horizon=3, n_states=2, n_actions=2)
    theta = np.zeros((2, 2))
    crossed = all_estimates(asked_for(dice, 2, mdp, theta))
    small = component_range(asked_for(lvc, 2, mdp, theta))
    assert (crossed > small.high + 0.1).any()
    values = all_estimates(asked_for(ad, 1, mdp, theta, critic=np.array([5.0, -5.0])))
    assert (values > component_range(asked_for(ad, 1, mdp, theta)).high + 0.1).any()


def test_what_cannot_be_visited_or_does_not_happen_has_no_width():
    rows = np.zeros((3, 2, 3))
    rows[0, :, 1] = rows[1, :, 1] = rows[2, :, 2] = 1.0
    reward = np.zeros((3, 2))
    reward[0], reward[2] = [1.0, 0.5], [1e9, 1e9]
    mdp = TabularMDP(rows, reward, 0.9, [1.0, 0.0, 0.0], 2)
    known = component_range(asked_for(ad, 1, mdp, np.zeros((3, 2))))
    np.testing.assert_allclose(known.high, [[0.5, 0.25], [0, 0], [0, 0]])
    np.testing.assert_allclose(known.low, [[-0.25, -0.5], [0, 0], [0, 0]])


def test_no_range_is_claimed_of_what_has_none_here():
    mdp = oracles.random_mdp(0, horizon=2, n_states=2, n_actions=2)
    theta, critic = np.zeros((2, 2)), np.ones(2)
    assert component_range(asked_for(ad, 3, mdp, theta)) is None
    assert component_range(asked_for(ad, 1, mdp, theta, behaviour=np.eye(2))) is None
    assert component_range(asked_for(reinforce, 1, mdp, theta)) is None
    assert component_range(asked_for(tmaml, 2, mdp, theta)) is None
    assert component_range(asked_for(lambda r: 2 * ad(r), 1, mdp, theta)) is None
    assert component_range(asked_for(loaded_dice, 1, mdp, theta, critic)) is None
    assert component_range(asked_for(AD(gae_lambda=0.5), 1, mdp, theta, critic)) is None
    mean = AD(reduction=Reduction.MEAN_OVER_STEPS)
    assert component_range(asked_for(mean, 1, mdp, theta)) is None


CLOSE = {
    "a constant reward of a million": ([[1e6, 1e6]], 0.0),
    "peaked policies": ([[0.3, 1.0]], 30.0),
    "a policy beyond rounding": ([[0.3, 1.0]], 800.0),
    "a critic that takes almost all off": ([[1e8, 1e8 + 1]], 1.0),
}


@pytest.mark.parametrize("surrogate", [ad, lvc, dice])
@pytest.mark.parametrize("name", sorted(CLOSE))
def test_rounding_is_not_outside_the_range(name, surrogate):
    """Ranges without width, or with less of it than the rounding of what they are made of."""
    (reward, peak), rng = CLOSE[name], np.random.default_rng(0)
    for seed in range(8):
        rows = np.random.default_rng(seed).dirichlet(np.ones(3), size=(3, 2))
        mdp = TabularMDP(rows, np.tile(reward, (3, 1)), 0.9, [0.2, 0.3, 0.5], 1 + seed % 3)
        theta = peak * rng.normal(size=(3, 2))
        critic = np.full(3, 1e8) if name.startswith("a critic") else None
        asked = asked_for(surrogate, 2, mdp, theta, critic)
        known, values = component_range(asked), all_estimates(asked).reshape(-1, 36)
        reading = Functionals(None, pilot_direction(rng.normal(size=36)))
        ends = reading.range_of(known.low.ravel(), known.high.ravel())
        sizes = np.full(36, known.rounding)
        rounding = reading.range_of(-sizes, sizes)[1]
        sequence = ScaledSequence.bounded(*ends, Method.BETTING, 0.1, rounding)
        sequence.updated(reading.of(values))
        if surrogate is dice:  # whose range is wide
            continue
        with pytest.raises(ValueError, match="bounds: expected estimates"):
            sequence.updated(reading.of(values + 1e-9 * (1 + np.abs(values).max())) + 4 * rounding)


def test_each_of_a_range_s_parts_is_needed():
    """Start states, rewards over time, a lambda below 1, a critic over time, negative weights,
    terminal states: each instance has the range of its trajectories where one step makes it exact,
    and one that no trajectory leaves otherwise."""
    rng = np.random.default_rng(5)
    for seed in range(12):
        rows = np.random.default_rng(seed).dirichlet(np.ones(3), size=(3, 2))
        rows[2] = np.eye(3)[2]
        reward = rng.normal(size=(2, 3, 2, 3)) * np.array([1.0, 5.0])[:, None, None, None]
        reward[:, 2] = 0.0
        mdp = TabularMDP(rows, reward, 0.9, [0.3, 0.7, 0.0], 2)
        critic = rng.normal(size=(3, 3)) * np.array([[0.0], [20.0], [0.0]])
        critic[:, 2] = 0.0
        theta = rng.normal(size=(3, 2))
        for surrogate, values in (
            (ad, None),
            (ad, critic),
            (dice, critic),
            (LoadedDice(0.5), None),
            (LVC(weighting=GivenWeights((-1.0, 2.0))), critic),
        ):
            for order in (1, 2):
                outside, wide = excess(asked_for(surrogate, order, mdp, theta, values))
                assert outside <= 1e-12
                # Never more than what independent worst cases at two steps can add.
                assert wide <= 4.0
