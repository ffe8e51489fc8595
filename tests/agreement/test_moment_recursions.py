"""Moments by recursion equal those by enumeration, of the estimators' own code."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from gradbias.analytic.moments.estimators import Curvature, gradient_moments, hvp_moments
from gradbias.analytic.moments.hessian_means import hessian_estimate_mean
from gradbias.analytic.moments.independent_steps import CreditedSums
from gradbias.analytic.moments.paired_steps import PairedSums
from gradbias.analytic.moments.suffix_sums import SuffixSums
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.softmax import TABULAR, LinearSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import DISCOUNTED, GivenWeights, Undiscounted
from gradbias.analytic.returns.derivatives import gradient, hvp
from gradbias.analytic.returns.evaluation import state_values
from gradbias.stochastic.estimators.contexts import Context
from gradbias.stochastic.estimators.kinds import estimate, from_surrogate
from gradbias.stochastic.networks.torch_policy import TorchPolicy
from gradbias.stochastic.surrogates.dice import Dice, LoadedDice
from gradbias.stochastic.surrogates.score_function import AD, LVC
from gradbias.verification.evidence.enumeration import Enumeration
from tests.oracles import brute_force as oracles

AGREEMENT = 1e-10
SEEDS = range(50)


def problem(seed):
    """Two or three steps, all kinds of rewards, with a terminal state now and then."""
    rng = np.random.default_rng(seed)
    n_states, n_actions, horizon = 1 + seed % 3, 2 + seed // 3 % 2, 1 + seed // 6 % 3
    if n_states * n_actions > 4:
        horizon = min(horizon, 2)
    rows = rng.dirichlet(np.ones(n_states), size=(n_states, n_actions))
    shape = (
        (n_states, n_actions),
        (n_states, n_actions, n_states),
        (horizon, n_states, n_actions, n_states),
    )[seed % 3 if seed % 2 else seed // 2 % 3]
    reward = rng.normal(size=shape)
    if seed % 5 == 0 and n_states > 1:
        rows[-1] = np.eye(n_states)[-1]
        reward[(slice(None), -1) if len(shape) == 4 else -1] = 0.0
    start = rng.dirichlet(np.ones(n_states))
    mdp = TabularMDP(rows, reward, float(rng.uniform(0.3, 1.0)), start, horizon)
    critic = np.where(mdp.terminal, 0.0, rng.normal(size=(horizon + 1, n_states)))
    return mdp, *rng.normal(size=(2, n_states, n_actions)), critic


def enumerated(surrogate, order, mdp, theta, critic, policy=TABULAR):
    """Mean and covariance of the estimate from one trajectory, its axes flattened."""
    context = Context(theta, mdp.discount, policy=policy, critic=critic)
    measure = Enumeration.of(mdp, policy, theta, mdp.horizon)
    values, weights = [], []
    for batch, probability in measure.trajectories(4096):
        found = estimate(from_surrogate(surrogate, order=order), batch, context)
        values.append(found.reshape(len(found), -1))
        weights.append(probability)
    values, weights = np.concatenate(values), np.concatenate(weights)
    mean = weights @ values
    centred = values - mean
    return mean, (weights[:, None] * centred).T @ centred


def check_agreement(found, mean, covariance):
    assert np.abs(found.mean.ravel() - mean).max() <= AGREEMENT * max(1.0, np.abs(mean).max())
    gap = np.abs(found.covariance - covariance).max()
    assert gap <= AGREEMENT * max(1.0, np.abs(covariance).max())
    assert np.array_equal(found.variance.ravel(), np.diag(found.covariance))


@dataclass(frozen=True)
class Case:
    """A surrogate, and how the recursion names its derivatives."""

    surrogate: object
    curvature: Curvature
    options: dict


def weightings(horizon):
    return DISCOUNTED, Undiscounted(), GivenWeights(tuple(1.0 + 0.5 * t for t in range(horizon)))


def cases(weightings):
    for weighting in weightings:
        for record, curvature in ((AD, Curvature.AD), (LVC, Curvature.LVC)):
            yield Case(record(weighting=weighting), curvature, {"weighting": weighting})
        whole = {"weighting": weighting, "credit": Credit.TOTAL_RETURN}
        yield Case(AD(reward_to_go=False, weighting=weighting), Curvature.AD, whole)
        yield Case(LVC(reward_to_go=False, weighting=weighting), Curvature.LVC, whole)
        loaded = {"weighting": weighting, "gae_lambda": 0.6}
        yield Case(LoadedDice(0.6, weighting), Curvature.DICE, loaded)
        for record, curvature in ((AD, Curvature.AD), (LVC, Curvature.LVC)):
            yield Case(record(weighting=weighting, gae_lambda=0.6), curvature, loaded)
    yield Case(Dice(), Curvature.DICE, {})
    for lam in (0.0, 1.0):
        yield Case(LoadedDice(lam), Curvature.DICE, {"gae_lambda": lam})


def check_every_case(seed, check, *, every_weighting=True):
    """``check`` on every estimator at one problem; over seeds each meets every kind of critic, and
    every weighting of steps."""
    mdp, theta, v, critic = problem(seed)
    kinds, chosen = (None, critic[0], critic), weightings(mdp.horizon)
    if not every_weighting:
        chosen = chosen[seed // 7 % 3 :][:1]
    for i, case in enumerate(cases(chosen)):
        check(mdp, theta, v, case, kinds[(seed // 3 + i) % 3])


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_have_the_enumerated_mean_and_covariance(seed):
    def check(mdp, theta, v, case, critic):
        wanted = enumerated(case.surrogate, 1, mdp, theta, critic)
        check_agreement(gradient_moments(mdp, theta, critic=critic, **case.options), *wanted)

    check_every_case(seed, check)


@pytest.mark.parametrize("seed", SEEDS)
def test_hessians_have_the_enumerated_mean_and_products_the_covariance(seed):
    def check(mdp, theta, v, case, critic):
        n = theta.size
        product = np.kron(np.eye(n), v.reshape(1, n))  # of a flattened Hessian
        mean, covariance = enumerated(case.surrogate, 2, mdp, theta, critic)
        options = {"critic": critic, **case.options}
        found = hvp_moments(mdp, theta, v, case.curvature, **options)
        check_agreement(found, product @ mean, product @ covariance @ product.T)
        whole = hessian_estimate_mean(mdp, theta, case.curvature, **options)
        assert np.abs(whole.ravel() - mean).max() <= AGREEMENT * max(1.0, np.abs(mean).max())

    check_every_case(seed, check, every_weighting=False)


def of_mean_rewards(kind):
    """The moments of a sum that takes rewards' mean square for the square of their mean."""
    moments = kind.moments.fget

    def wrong(self):
        mean = (self.mdp.transition * self.signal).sum(axis=-1, keepdims=True)
        return moments(replace(self, signal=np.broadcast_to(mean, self.signal.shape)))

    return property(wrong)


def test_a_recursion_with_an_error_is_seen(monkeypatch):
    mdp, theta, v, critic = problem(13)
    assert mdp.next_state_reward.shape[-1] > 1
    loaded = {"critic": critic, "gae_lambda": 0.6}
    whole = {"critic": critic, "credit": Credit.TOTAL_RETURN}

    def every():
        yield gradient_moments(mdp, theta, **loaded)
        yield gradient_moments(mdp, theta, **whole)
        yield hvp_moments(mdp, theta, v, Curvature.DICE, **loaded)

    right = list(every())
    for kind in (CreditedSums, PairedSums, SuffixSums):
        monkeypatch.setattr(kind, "moments", of_mean_rewards(kind))
    for found, other in zip(every(), right, strict=True):
        with pytest.raises(AssertionError):
            check_agreement(found, other.mean.ravel(), other.covariance)
    monkeypatch.undo()
    off = gradient_moments(mdp, theta, critic=critic, gae_lambda=0.6 + 1e-6)
    for found, seen in ((right[0], False), (off, True)):
        wanted = enumerated(LoadedDice(0.6), 1, mdp, theta, critic)
        gap = max(
            np.abs(a.ravel() - b.ravel()).max() for a, b in zip(both(found), wanted, strict=True)
        )
        assert bool(gap > AGREEMENT) is seen


def both(found):
    return found.mean, found.covariance


def policies():
    rng = np.random.default_rng(0)
    inputs = torch.tensor(rng.normal(size=(2, 2)))

    def network(p):
        return torch.tanh(inputs @ p[:4].reshape(2, 2)) @ p[4:].reshape(2, 2)

    return {
        "linear": (LinearSoftmax(rng.normal(size=(2, 2, 3))), 3),
        "network": (TorchPolicy(network, 8), 8),
    }


@pytest.mark.parametrize("name", ["linear", "network"])
@pytest.mark.parametrize("curvature", list(Curvature))
def test_other_policies_follow_by_the_chain_rule(name, curvature):
    policy, p = policies()[name]
    mdp = oracles.random_mdp(3, horizon=2, n_states=2, n_actions=2)
    theta, v = np.random.default_rng(1).normal(size=(2, p))
    surrogate = {Curvature.AD: AD(), Curvature.LVC: LVC(), Curvature.DICE: Dice()}[curvature]
    product = np.kron(np.eye(p), v.reshape(1, p))
    mean, covariance = enumerated(surrogate, 2, mdp, theta, None, policy)
    found = hvp_moments(mdp, theta, v, curvature, policy=policy)
    check_agreement(found, product @ mean, product @ covariance @ product.T)
    check_agreement(
        gradient_moments(mdp, theta, policy=policy),
        *enumerated(surrogate, 1, mdp, theta, None, policy),
    )


def test_known_facts_hold_far_beyond_enumeration():
    """20 steps, 1e18 trajectories: what is unbiased has the exact mean, and what is known of the
    others holds."""
    mdp = oracles.random_mdp(7, horizon=20, n_states=3, n_actions=3)
    rng = np.random.default_rng(0)
    theta, v = rng.normal(size=(2, 3, 3))
    values = state_values(mdp, theta)
    truth = hvp(mdp, theta, v)
    for critic in (None, values, rng.normal(size=(21, 3)) * (np.arange(21) < 20)[:, None]):
        first = gradient_moments(mdp, theta, critic=critic)
        np.testing.assert_allclose(first.mean, gradient(mdp, theta), rtol=1e-9, atol=1e-12)
        second = hvp_moments(mdp, theta, v, Curvature.DICE, critic=critic)
        np.testing.assert_allclose(second.mean, truth, rtol=1e-9, atol=1e-11)
    # With exact values Loaded-DiCE is unbiased for every lambda, with wrong ones below 1 it is not.
    for gae_lambda in (0.0, 0.5, 1.0):
        options = {"critic": values, "gae_lambda": gae_lambda}
        found = hvp_moments(mdp, theta, v, Curvature.DICE, **options)
        np.testing.assert_allclose(found.mean, truth, rtol=1e-9, atol=1e-11)
    wrong = hvp_moments(mdp, theta, v, Curvature.DICE, gae_lambda=0.5)
    assert np.linalg.norm(wrong.mean - truth) > 0.01 * np.linalg.norm(truth)
    # AD's Hessian has mean 0 under the exact value baseline; the exact baseline lowers variance.
    silent = hvp_moments(mdp, theta, v, Curvature.AD, critic=values)
    assert np.abs(silent.mean).max() < 1e-12
    assert silent.variance.sum() > 0.0
    plain, based = (gradient_moments(mdp, theta, critic=c) for c in (None, values))
    assert based.variance.sum() < plain.variance.sum()


def test_ad_s_hessian_is_not_silent_for_a_hidden_layer():
    policy, p = policies()["network"]
    mdp = oracles.random_mdp(3, horizon=3, n_states=2, n_actions=2)
    theta, v = np.random.default_rng(1).normal(size=(2, p))
    values = state_values(mdp, theta, policy=policy)
    found = hvp_moments(mdp, theta, v, Curvature.AD, critic=values, policy=policy)
    assert np.abs(found.mean).max() > 1e-3


def test_lvc_is_unbiased_where_actions_do_not_move_states():
    mdp = oracles.random_mdp(7, horizon=10, n_states=3, n_actions=3)
    rows = np.repeat(mdp.transition[:, :1], 3, axis=1)
    theta, v = np.random.default_rng(0).normal(size=(2, 3, 3))
    for transition, unbiased in ((rows, True), (mdp.transition, False)):
        one = replace(mdp, transition=transition)
        bias = hvp_moments(one, theta, v, Curvature.LVC).mean - hvp(one, theta, v)
        assert bool(np.abs(bias).max() < 1e-12) is unbiased


def test_bad_input_is_named():
    mdp = oracles.random_mdp(3, horizon=2, n_states=2, n_actions=2)
    zero = np.zeros((2, 2))
    whole = {"credit": Credit.TOTAL_RETURN}
    bad = [
        (lambda: gradient_moments(mdp, np.zeros((3, 2, 2))), "theta: expected one policy"),
        (lambda: gradient_moments(mdp, zero, critic=[0.0]), r"critic: expected shape \(2,\) or"),
        (lambda: gradient_moments(mdp, zero, gae_lambda=1.5), "gae_lambda: expected a number"),
        (lambda: gradient_moments(mdp, zero, gae_lambda=1.0, **whole), "credit: expected"),
        (lambda: hvp_moments(mdp, zero, zero, Curvature.DICE, **whole), "credit: expected"),
        (lambda: hvp_moments(mdp, zero, zero, Curvature.LVC, gae_lambda=-1.0), "gae_lambda: exp"),
        (lambda: hvp_moments(mdp, zero, np.zeros(3), Curvature.AD), "v: expected shape"),
        (
            lambda: gradient_moments(mdp, zero, weighting=GivenWeights((1.0,))),
            r"state weighting: expected . weights",
        ),
        (
            lambda: gradient_moments(
                TabularMDP.random(40, 10, rng=np.random.default_rng(0), discount=0.9, horizon=3),
                np.zeros((40, 10)),
                **whole,
            ),
            "mdp: expected a recursion of at most",
        ),
    ]
    for call, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            call()
