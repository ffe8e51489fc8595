"""TMAML's control variate: its mean Hessian, and what step t's own ratio would make of it."""

from dataclasses import dataclass

import numpy as np
import pytest

from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.returns import (
    before_each,
    discounts,
    path_ratios,
    probability_ratios,
)
from gradbias.verification.measurement.measure import measure_bias

HORIZON = 3


@dataclass(frozen=True)
class Term:
    """sum_t gamma^t (1 - W) (1 - pi/stop(pi)) v(s_t), where W ends before step t or at it."""

    own: bool

    def __call__(self, record):
        ratios = path_ratios(record)
        crossed = 1.0 - (ratios if self.own else before_each(ratios))
        variate = crossed * (1.0 - probability_ratios(record)) * record.values[..., :-1]
        return (discounts(record) * variate * record.alive).sum(dim=-1).mean()


def case(seed):
    """A problem with a critic, and sum_t gamma^t E[v(s_t) F(s_t)] by powers of its kernel."""
    rng = np.random.default_rng(seed)
    mdp = TabularMDP.random(2, 3, rng=rng, discount=0.8, horizon=HORIZON)
    theta, critic = rng.normal(size=(2, 3)), rng.normal(size=2)
    policy = softmax(theta)
    kernel = np.einsum("sa,sat->st", policy, mdp.transition)
    occupied = sum(
        mdp.discount**t * mdp.start @ np.linalg.matrix_power(kernel, t) for t in range(HORIZON)
    )
    fisher = np.zeros((2, 3, 2, 3))
    for s, p in enumerate(policy):
        fisher[s, :, s] = occupied[s] * critic[s] * (np.diag(p) - np.outer(p, p))
    return mdp, theta, critic, fisher


@pytest.mark.parametrize("seed", range(2))
def test_the_own_ratio_makes_the_mean_hessian_twice_the_value_times_the_fisher_information(seed):
    mdp, theta, critic, fisher = case(seed)
    means = {}
    for own in (False, True):
        for order in (1, 2):
            estimator = from_surrogate(Term(own), order=order)
            found = measure_bias(estimator, mdp, theta, critic=critic, evidence="enumeration")
            means[own, order] = found.mean.reshape(fisher.shape if order == 2 else theta.shape)
    assert np.abs(means[False, 2]).max() < 1e-14
    assert max(np.abs(means[own, 1]).max() for own in (False, True)) < 1e-14
    np.testing.assert_allclose(means[True, 2], 2.0 * fisher, rtol=0.0, atol=1e-14)
    assert np.abs(fisher).max() > 0.01
