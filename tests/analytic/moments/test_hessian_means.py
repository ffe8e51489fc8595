"""What Hessian estimators estimate: matrices against products, plain recursions, known facts."""

from dataclasses import replace

import numpy as np
import pytest

import gradbias.analytic.moments.hessian_means as estimate_means
from gradbias.analytic.moments.estimators import Curvature, hvp_moments
from gradbias.analytic.moments.hessian_means import hessian_estimate_mean
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.softmax import TABULAR, LinearSoftmax
from gradbias.analytic.problems.targets import DISCOUNTED, GivenWeights, Undiscounted
from gradbias.analytic.returns.derivatives import hessian
from gradbias.analytic.returns.evaluation import state_values
from tests.oracles import brute_force as oracles
from tests.oracles.tolerances import close

CURVATURES = list(Curvature)
HORIZONS = (None, 1, 4)


def problem(seed, horizon):
    mdp = oracles.random_mdp(seed, horizon=horizon, n_actions=3, next_rewards=seed % 2 == 0)
    rows, reward = np.array(mdp.transition), np.array(mdp.reward)
    if seed % 3 == 0 and mdp.n_states > 1:
        rows[-1] = np.eye(mdp.n_states)[-1]
        reward[-1] = 0.0
    mdp = replace(mdp, transition=rows, reward=reward)
    rng = np.random.default_rng(seed)
    shape = (mdp.n_states,) if horizon is None else (horizon + 1, mdp.n_states)
    critic = np.where(mdp.terminal, 0.0, rng.normal(size=shape))
    return mdp, rng.normal(size=(mdp.n_states, 3)), critic


def options_of(horizon):
    """Every way to credit and to weigh steps that AD and LVC have."""
    given = (
        [] if horizon is None else [Undiscounted(), GivenWeights((0.5, 0.0, 2.0, 1.0)[:horizon])]
    )
    for weighting in (DISCOUNTED, *given):
        for gae_lambda in (None, 0.0, 0.7):
            yield {"weighting": weighting, "gae_lambda": gae_lambda}
        if horizon is not None:
            yield {"weighting": weighting, "credit": Credit.TOTAL_RETURN}


def columns(mdp, theta, curvature, policy=TABULAR, **options):
    """The mean, column by column, from the recursion of second moments."""
    every = np.eye(theta.size).reshape(theta.size, *theta.shape)
    found = [hvp_moments(mdp, theta, v, curvature, policy=policy, **options).mean for v in every]
    return np.stack(found, axis=-1).reshape(theta.shape * 2)


def check_columns(mdp, theta, critic, policy=TABULAR):
    for curvature in CURVATURES:
        for options in options_of(mdp.horizon):
            if curvature is Curvature.DICE and "credit" in options:
                continue
            for values in (None, critic):
                asked = {"critic": values, "policy": policy, **options}
                wanted = columns(mdp, theta, curvature, **asked)
                found = hessian_estimate_mean(mdp, theta, curvature, **asked)
                assert close(found, wanted, 1.0 + np.abs(wanted).max())


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("seed", range(6))
def test_their_columns_are_the_means_of_products(seed, horizon):
    check_columns(*problem(seed, horizon))


@pytest.mark.parametrize("horizon", HORIZONS)
def test_other_policies_follow_by_the_chain_rule(horizon):
    mdp, _, critic = problem(4, horizon)
    rng = np.random.default_rng(0)
    policy = LinearSoftmax(rng.normal(size=(mdp.n_states, mdp.n_actions, 2)))
    check_columns(mdp, rng.normal(size=2), critic, policy)


@pytest.mark.parametrize("seed", range(50))
def test_finite_ones_are_those_of_plain_recursions(seed):
    mdp = oracles.random_mdp(seed, horizon=1 + seed % 4, next_rewards=seed % 2 == 0)
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(mdp.n_states, mdp.n_actions))
    critic = rng.normal(size=mdp.n_states)
    whole = {"credit": Credit.TOTAL_RETURN}
    cases = [
        (Curvature.AD, {}, oracles.ad_hessian_mean(mdp, theta)),
        (Curvature.AD, {"critic": critic}, oracles.ad_hessian_mean(mdp, theta, critic)),
        (Curvature.AD, whole, oracles.ad_total_return_hessian_mean(mdp, theta)),
        (Curvature.LVC, {"critic": critic}, oracles.lvc_hessian_mean(mdp, theta)),
        (Curvature.LVC, whole, oracles.lvc_hessian_mean(mdp, theta)),
        (Curvature.DICE, {"critic": critic}, oracles.complex_step_hessian(mdp, theta)),
    ]
    for curvature, options, wanted in cases:
        found = hessian_estimate_mean(mdp, theta, curvature, **options)
        assert close(found, wanted, 1.0 + np.abs(wanted).max())


def loaded_dice_mean(mdp, theta, values, lam):
    """The Hessian of the return of rewards ``B_t - sum_b pi B_t``, by the plain recursion of B and
    a complex step: the rewards stay where they are while theta moves."""
    policy = oracles.softmax_rows(theta)
    reward = mdp.reward if mdp.reward.ndim == 2 else (mdp.transition * mdp.reward).sum(axis=2)
    later, paid = np.zeros(mdp.n_states), []
    for t in reversed(range(mdp.horizon)):
        ahead = mdp.transition @ (values[t + 1] + lam * later)
        own = reward + mdp.discount * ahead - values[t][:, None]
        later = (policy * own).sum(axis=1)
        paid.insert(0, own - later[:, None])

    def slope(logits):
        pi = oracles.softmax_rows(logits)
        law, total, later = mdp.start.astype(complex), 0.0, [np.zeros(mdp.n_states)]
        q = []
        for t in reversed(range(mdp.horizon)):
            q.insert(0, paid[t] + mdp.discount * mdp.transition @ later[0])
            later.insert(0, (pi * q[0]).sum(axis=1))
        for t in range(mdp.horizon):
            total = total + law[:, None] * pi * (q[t] - later[t][:, None])
            law = mdp.discount * law @ np.einsum("sa,sat->st", pi, mdp.transition)
        return total

    found = np.zeros(theta.shape * 2)
    for index in np.ndindex(theta.shape):
        moved = theta.astype(complex)
        moved[index] += 1e-30j
        found[(..., *index)] = slope(moved).imag / 1e-30
    return found


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(20))
def test_loaded_dice_has_the_hessian_of_frozen_advantages(seed, lam):
    mdp, theta, critic = problem(seed, 4)
    wanted = loaded_dice_mean(mdp, theta, critic, lam)
    options = {"critic": critic, "gae_lambda": lam}
    found = hessian_estimate_mean(mdp, theta, Curvature.DICE, **options)
    assert close(found, wanted, 1.0 + np.abs(wanted).max())


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("seed", range(5))
def test_what_is_biased_and_what_is_not(seed, horizon):
    mdp, theta, wrong = problem(seed, horizon)
    mdp = replace(mdp, start=np.full(mdp.n_states, 1.0 / mdp.n_states))
    exact, truth = state_values(mdp, theta), hessian(mdp, theta)
    scale = 1.0 + np.abs(truth).max()
    silent = hessian_estimate_mean(mdp, theta, Curvature.AD, critic=exact)
    assert np.abs(silent).max() < 1e-13 * scale
    assert close(hessian_estimate_mean(mdp, theta, Curvature.DICE, critic=wrong), truth, scale)
    for lam in (0.0, 0.5, 1.0):
        options = {"gae_lambda": lam, "critic": exact}
        assert close(hessian_estimate_mean(mdp, theta, Curvature.DICE, **options), truth, scale)
        options["critic"] = (
            wrong if horizon is None else wrong * (np.arange(horizon + 1) < horizon)[:, None]
        )
        found = hessian_estimate_mean(mdp, theta, Curvature.DICE, **options)
        right = lam == 1.0 or horizon == 1 or mdp.n_states == 1
        if right or not mdp.terminal.any():
            assert close(found, truth, scale) is right


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("seed", range(5))
def test_lvc_misses_how_later_values_change(seed, horizon):
    """Its bias is -(X + X^T), X = sum m_t(s) grad pi(a|s) (grad Q_t(s,a))^T."""
    mdp, theta, _ = problem(seed, horizon)
    bias = hessian_estimate_mean(mdp, theta, Curvature.LVC) - hessian(mdp, theta)
    n = theta.size
    cross = np.zeros((n, n))
    for i in range(n):
        cross[:, i] = later_part(mdp, theta, np.eye(n)[i].reshape(theta.shape)).ravel()
    scale = 1.0 + np.abs(cross).max()
    assert close(bias.reshape(n, n), -(cross + cross.T), scale)
    if horizon == 1:
        assert np.abs(bias).max() < 1e-14 * scale


def later_part(mdp, theta, v):
    """X v: ``sum_t,s,a m_t(s) grad pi(a|s) (gamma P DV_{t+1} v)(s, a)``, DV by
    the complex step."""
    policy = oracles.softmax_rows(theta)
    moved = oracles.softmax_rows(theta + 1e-30j * v)
    reward = mdp.reward if mdp.reward.ndim == 2 else (mdp.transition * mdp.reward).sum(axis=2)
    kernel = np.einsum("sa,sat->st", policy, mdp.transition)
    total = np.zeros(theta.shape)
    if mdp.horizon is None:
        own = np.einsum("sa,sat->st", moved, mdp.transition)
        system = np.eye(mdp.n_states) - mdp.discount * own
        slopes = [np.linalg.solve(system, (moved * reward).sum(axis=1)).imag / 1e-30]
        system = np.eye(mdp.n_states) - mdp.discount * kernel
        laws = [np.linalg.solve(system.T, mdp.start)]
    else:
        values, slopes, laws = np.zeros(mdp.n_states), [], [np.array(mdp.start)]
        for _ in range(mdp.horizon):
            slopes.insert(0, values.imag / 1e-30)
            values = (moved * (reward + mdp.discount * mdp.transition @ values)).sum(axis=1)
            laws.append(mdp.discount * laws[-1] @ kernel)
    for law, slope in zip(laws, slopes, strict=False):
        ahead = mdp.discount * mdp.transition @ slope
        mean = (policy * ahead).sum(axis=1, keepdims=True)
        total += law[:, None] * policy * (ahead - mean)
    return total


def test_lvc_is_unbiased_where_actions_do_not_move_states():
    for horizon in HORIZONS:
        mdp, theta, _ = problem(5, horizon)
        assert mdp.n_states > 1
        still = replace(mdp, transition=np.repeat(mdp.transition[:, :1], 3, axis=1))
        for one, unbiased in ((still, True), (mdp, horizon == 1)):
            bias = hessian_estimate_mean(one, theta, Curvature.LVC) - hessian(one, theta)
            assert bool(np.abs(bias).max() < 1e-13) is unbiased


def test_errors_are_seen(monkeypatch):
    """What was earned before a step forgotten in whole returns; blocks without their cross term."""
    mdp, theta, critic = problem(4, 4)
    weight = property(lambda self: (self.exact.occupancy * self.exact.step_values).sum(axis=0))
    monkeypatch.setattr(estimate_means._Credited, "total_return_weight", weight)
    with pytest.raises(AssertionError):
        check_columns(mdp, theta, critic)
    monkeypatch.undo()
    check_columns(mdp, theta, critic)
    right = estimate_means.block_term
    monkeypatch.setattr(estimate_means, "block_term", lambda *args: 1.01 * right(*args))
    with pytest.raises(AssertionError):
        check_columns(mdp, theta, critic)


def test_bad_input_is_named():
    mdp, theta, _ = problem(4, None)
    whole = {"credit": Credit.TOTAL_RETURN}
    for asked, options, complaint in [
        (mdp, whole, "credit: expected rewards-to-go with horizon None"),
        (replace(mdp, horizon=2), {**whole, "gae_lambda": 1.0}, "credit: expected rewards-to-go"),
        (mdp, {"weighting": Undiscounted()}, "weighting: undiscounted state weighting needs"),
        (mdp, {"gae_lambda": 2.0}, "gae_lambda: expected a number"),
        (mdp, {"critic": [0.0]}, "critic: expected shape"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            hessian_estimate_mean(asked, theta, Curvature.AD, **options)
    with pytest.raises(ValueError, match="theta: expected one policy"):
        hessian_estimate_mean(mdp, np.stack([theta, theta]), Curvature.AD)
    with pytest.raises(ValueError, match="credit: expected rewards-to-go with DiCE"):
        hessian_estimate_mean(replace(mdp, horizon=2), theta, Curvature.DICE, **whole)
