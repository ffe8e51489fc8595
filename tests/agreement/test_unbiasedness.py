"""Which surrogate's derivatives of which order are unbiased, with which critic: by enumeration."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.evaluation import evaluate_parameters
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.catalogue import CATALOGUE
from gradbias.stochastic.surrogates.dice import Dice, LoadedDice, Tmaml
from gradbias.stochastic.surrogates.off_policy import OffPolicyDice, Ratio
from gradbias.stochastic.surrogates.returns import discounts, path_ratios, probability_ratios
from gradbias.stochastic.surrogates.score_function import AD, LVC
from gradbias.stochastic.surrogates.taylor import Taylor, VTrace
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.measurement.measure import measure_bias
from tests.oracles import brute_force as oracles

NO_END, RANDOM, EXACT, ZERO = "random, 0 at the end", "random", "exact", "zero"
LATE = OffPolicyDice(Ratio.TRAJECTORY)  # the score function of the whole trajectory

UNBIASED = [
    (AD(), 1, RANDOM),
    (AD(reward_to_go=False), 1, RANDOM),
    (AD(gae_lambda=1.0), 1, NO_END),
    (AD(gae_lambda=0.5), 1, EXACT),
    (CATALOGUE["actor_critic"], 1, EXACT),
    (LVC(), 1, RANDOM),
    (LVC(gae_lambda=0.5), 1, EXACT),
    (Dice(), 3, RANDOM),
    (Tmaml(), 3, RANDOM),
    (Tmaml(0.4), 3, RANDOM),
    (LoadedDice(), 3, NO_END),
    (LoadedDice(0.3), 3, EXACT),
    (LATE, 3, ZERO),
    (OffPolicyDice(), 3, ZERO),
    (Taylor(1), 1, NO_END),
    (Taylor(2), 2, NO_END),
    (Taylor(3), 3, NO_END),
    (Taylor(2, 0.4), 2, EXACT),
    (VTrace(), 3, NO_END),
    (CATALOGUE["taylor_2"], 2, NO_END),
]


@dataclass(frozen=True)
class TmamlWithOwnStep(Tmaml):
    """The control variate with step t's own ratio in W."""

    def __call__(self, record):
        crossed = (1.0 - path_ratios(record)) * (1.0 - probability_ratios(record))
        variate = crossed * record.values[..., :-1] * record.alive
        taken_off = (discounts(record) * variate).sum(dim=-1).mean()
        return Dice.__call__(self, record) - taken_off


BIASED = [
    (AD(), 2, RANDOM),
    (AD(gae_lambda=0.5), 1, RANDOM),
    (AD(gae_lambda=1.0), 1, RANDOM),
    (CATALOGUE["actor_critic"], 1, NO_END),
    (LVC(), 2, RANDOM),
    (LoadedDice(0.3), 1, ZERO),
    (LoadedDice(), 1, RANDOM),
    (Taylor(1), 2, NO_END),
    (Taylor(2), 3, NO_END),
    (Taylor(2, 0.4), 1, ZERO),
    (TmamlWithOwnStep(), 2, NO_END),
    (VTrace(), 1, RANDOM),
]


def setting(seed, kind, horizon=3):
    """Two or three states, the last terminal in every third; rewards by next state."""
    rng = np.random.default_rng(seed)
    n_states = 2 + seed % 2
    rows = rng.dirichlet(np.full(n_states, 0.6), size=(n_states, 2))
    reward = rng.normal(size=(n_states, 2, n_states))
    if seed % 3 == 0:
        rows[-1], reward[-1] = np.eye(n_states)[-1], 0.0
    mdp = TabularMDP(
        rows, reward, [0.0, 0.7, 1.0][seed % 7 % 3], rng.dirichlet(np.ones(n_states)), horizon
    )
    theta = rng.normal(size=(n_states, 2))
    critic = rng.normal(size=(horizon + 1, n_states)) * ~mdp.terminal
    if kind == NO_END:
        critic[-1] = 0.0
    if kind == EXACT:
        critic = evaluate_parameters(mdp, theta, TABULAR).values
    return mdp, theta, None if kind == ZERO else critic


def named(case):
    return f"{case[0]}, order {case[1]}, {case[2]}"


ORDERS = [(s, order, kind) for s, highest, kind in UNBIASED for order in range(1, highest + 1)]


@pytest.mark.parametrize("case", ORDERS, ids=named)
def test_these_are_unbiased_up_to_their_order(case):
    """On 24 problems at orders 1 and 2, 6 at order 3; to 1e-12 of the derivative's size."""
    surrogate, order, kind = case
    told = 0
    for seed in range(24 if order < 3 else 6):
        mdp, theta, critic = setting(seed, kind, horizon=3 if order < 3 else 2)
        report = measure_bias(from_surrogate(surrogate, order=order), mdp, theta, critic=critic)
        scale = max(np.linalg.norm(report.exact), 1e-2 * report.normaliser, 1e-3)
        assert np.linalg.norm(report.mean - report.exact) < 1e-12 * scale, seed
        told += report.verdict is Verdict.UNBIASED
    assert told >= (20 if order < 3 else 4)


@pytest.mark.parametrize("case", BIASED, ids=named)
def test_and_these_are_not(case):
    surrogate, order, kind = case
    mdp, theta, critic = setting(1, kind)
    report = measure_bias(from_surrogate(surrogate, order=order), mdp, theta, critic=critic)
    assert report.verdict is Verdict.BIASED
    assert report.relative_bias > 1e-3


@pytest.mark.parametrize("order", [1, 2])
def test_v_trace_is_unbiased_off_policy_unless_its_ratios_are_cut_off(order):
    for seed in range(8):
        mdp, theta, critic = setting(seed, NO_END)
        options = {"critic": critic, "behaviour": 0.5 * theta[:, ::-1]}
        report = measure_bias(from_surrogate(VTrace(), order=order), mdp, theta, **options)
        assert report.verdict is Verdict.UNBIASED
    mdp, theta, critic = setting(1, NO_END)
    options = {"critic": critic, "behaviour": 0.5 * theta[:, ::-1]}
    for cut_off in (VTrace(1.0), VTrace(None, 1.0), VTrace(1.0, 1.0)):
        report = measure_bias(from_surrogate(cut_off, order=order), mdp, theta, **options)
        assert report.verdict is Verdict.BIASED


def test_the_whole_expansion_is_loaded_dice():
    """Taylor of as many orders as there are steps: the same estimate on every trajectory."""
    for order in (1, 2, 3):
        mdp, theta, critic = setting(1, RANDOM)
        means = [
            measure_bias(from_surrogate(s, order=order), mdp, theta, critic=critic)
            for s in (Taylor(3, 0.6), LoadedDice(0.6))
        ]
        assert oracles.relative_gap(means[0].mean, means[1].mean) < 1e-12
        assert oracles.relative_gap(means[0].variance, means[1].variance) < 1e-12


def test_the_control_variate_lowers_the_variance():
    """Where rewards have an offset and the baseline is the exact values, by more than half; with
    the other sign it is raised."""
    mdp, theta, _ = setting(1, ZERO)
    mdp = replace(mdp, reward=mdp.reward + 2.0)
    critic = evaluate_parameters(mdp, theta, TABULAR).values
    variances = [
        measure_bias(from_surrogate(Tmaml(c), order=2), mdp, theta, critic=critic).variance.sum()
        for c in (0.0, 1.0, -1.0)
    ]
    assert variances[1] < 0.5 * variances[0] < 0.5 * variances[2]


def test_bad_input_is_named():
    for make, message in (
        (lambda: Taylor(0), "order: expected"),
        (lambda: Taylor(1, 1.5), "gae_lambda: expected"),
        (lambda: VTrace(0.0), "max_rho: expected a positive number"),
        (lambda: VTrace(1.0, -1.0), "max_c: expected a positive number"),
        (lambda: AD(gae_lambda=1.5), "gae_lambda: expected"),
        (lambda: replace(AD(), gae_lambda=0.5, reward_to_go=False), "reward_to_go: expected True"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    assert torch.get_default_dtype() is torch.float32
