"""Constants that hold for all theta, or on a ball: against exact derivatives and moments
at random and extreme policies, closed forms, and enumeration."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from gradbias.analytic.constants.at_point import Point, variance_slope
from gradbias.analytic.constants.games import game_constants
from gradbias.analytic.constants.loops import LoopConstants, Scope, loop_constants
from gradbias.analytic.constants.returns import (
    gradient_deviation,
    hessian_constants,
    largest_estimate,
    mixed_constants,
    mixed_deviation,
    return_constants,
)
from gradbias.analytic.constants.softmax import influence, softmax_constants
from gradbias.analytic.meta.bilevel import Lirpg, Maml
from gradbias.analytic.meta.compositional_bias import expected_path
from gradbias.analytic.moments.estimators import Curvature, gradient_moments, hvp_moments
from gradbias.analytic.moments.hessian_means import hessian_estimate_mean
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.games import StochasticGame, prisoners_dilemma
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient, hessian, reward_vjp, third_derivative
from gradbias.analytic.returns.game_derivatives import game_gradient, game_hvp
from tests.cases.bandits import bandit
from tests.cases.strategies import shapes_of
from tests.oracles import brute_force as oracles

UP = 1.0 + 1e-10


def derivatives_of_a_softmax(logits, v, radius=0.3, points=64):
    """``[4, A]``: derivatives 1 to 4 of softmax(logits + t v) at t = 0, by Cauchy's formula."""
    turns = np.exp(2j * np.pi * np.arange(points) / points)
    weights = np.exp(logits + radius * turns[:, None] * v)
    values = weights / weights.sum(axis=1, keepdims=True)
    k = np.arange(1, 5)
    kernel = turns[:, None] ** -k / points
    factors = np.array([math.factorial(n) for n in k]) / radius**k
    return (kernel.T @ values).real * factors[:, None]


def unit(rng, shape):
    v = rng.normal(size=shape)
    return v / np.linalg.norm(v)


@pytest.mark.parametrize("n_actions", [1, 2, 3, 5])
def test_derivatives_of_a_softmax_stay_below_their_constants(n_actions):
    rng = np.random.default_rng(n_actions)
    bounds, largest = np.array(softmax_constants(n_actions)), np.zeros(4)
    pair = np.array([1.0, -1.0]) / math.sqrt(2.0)
    for trial in range(800):
        logits = rng.normal(size=n_actions) * rng.choice([0.3, 1.0, 3.0])
        v = unit(rng, n_actions)
        if n_actions > 1 and trial % 2:  # two actions that count, moved against each other
            v = np.concatenate([pair, np.zeros(n_actions - 2)])
            logits[2:] = -20.0
            logits[:2] = [3.0 * trial / 800, 0.0]
        sums = np.abs(derivatives_of_a_softmax(logits, v)).sum(axis=1)
        assert (sums <= bounds * UP + 1e-9).all()
        largest = np.maximum(largest, sums)
    if n_actions == 2:
        assert (largest > 0.999 * bounds).all()  # all are attained
    elif n_actions > 2:
        assert (largest[:2] > 0.99 * bounds[:2]).all()


def problems():
    rng = np.random.default_rng(5)
    for seed in range(12):
        horizon = [None, 1, 2, 4][seed % 4]
        mdp = oracles.random_mdp(seed, horizon=horizon, n_states=3, n_actions=2 + seed % 2)
        if seed % 3 == 0:  # deterministic
            kernel = np.eye(3)[rng.integers(3, size=mdp.transition.shape[:2])]
            mdp = replace(mdp, transition=kernel)
        if seed % 5 == 1:
            mdp = replace(mdp, reward=rng.normal(size=mdp.transition.shape))
        for spread in (0.0, 1.0, 3.0):
            yield mdp, rng.normal(size=mdp.transition.shape[:2]) * spread


def norms(mdp, theta):
    """Of the first three derivatives; the third along random directions alone."""
    rng, p = np.random.default_rng(0), theta.size
    v, w = (np.stack([unit(rng, theta.shape) for _ in range(20)]) for _ in range(2))
    third = third_derivative(mdp, theta, v, w).reshape(20, -1)
    bent = np.linalg.norm(hessian(mdp, theta).reshape(p, p), 2)
    return np.linalg.norm(gradient(mdp, theta)), bent, np.linalg.norm(third, axis=1).max()


def test_derivatives_of_the_return_stay_below_their_constants():
    ratios = []
    for mdp, theta in problems():
        c = return_constants(mdp)
        bounds = np.array([c.slope, c.curvature, c.third])
        found = np.array(norms(mdp, theta))
        assert (found <= bounds * UP).all()
        ratios.append(found / bounds)
        # L3, between neighbours along a line.
        v = unit(np.random.default_rng(1), theta.shape)
        here, there = (third_derivative(mdp, x, v, v) for x in (theta, theta + 0.05 * v))
        assert np.linalg.norm(there - here) <= 0.05 * c.fourth * UP
    assert np.max(ratios, axis=0)[0] > 0.2


def test_the_first_two_constants_are_attained_by_bandits():
    mdp = TabularMDP(np.ones((1, 2, 1)), [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    c = return_constants(mdp)
    assert np.linalg.norm(gradient(mdp, [[0.0, 0.0]])) == pytest.approx(c.slope, rel=1e-12)
    z = math.log((3 + math.sqrt(3)) / (3 - math.sqrt(3)))
    found = np.linalg.norm(hessian(mdp, [[z, 0.0]]).reshape(2, 2), 2)
    assert found == pytest.approx(c.curvature, rel=1e-12)


def decided(discount, horizon):
    """Two states that the action chooses between: tau = 1."""
    kernel = np.broadcast_to(np.eye(2), (2, 2, 2))
    return TabularMDP(kernel, [[1.0, 0.0], [0.0, 0.5]], discount, [1.0, 0.0], horizon)


def test_the_infinite_horizon_s_constants_are_the_closed_forms_and_the_limit():
    g = 0.6
    mdp = decided(g, None)
    assert influence(mdp) == 1.0
    c, e = return_constants(mdp), 1.0 / (1.0 - g)
    assert c.slope == pytest.approx(e**2 / (2 * math.sqrt(2)), rel=1e-12)
    assert c.curvature == pytest.approx(e**2 * (1 / (3 * math.sqrt(3)) + g * e / 2), rel=1e-12)
    third = math.sqrt(0.125) + math.sqrt(2 / 3) * g * e + 3 * g**2 * e**2 / (2 * math.sqrt(2))
    assert c.third == pytest.approx(e**2 * third, rel=1e-12)  # b_3 of two actions
    far = decided(g, 200)
    for one, limit in zip(vars(return_constants(far)).values(), vars(c).values(), strict=True):
        assert one == pytest.approx(limit, rel=1e-10)
    for curvature in Curvature:
        one, limit = hessian_constants(far, curvature), hessian_constants(mdp, curvature)
        for name in ("error", "change", "deviation"):
            assert getattr(one, name) == pytest.approx(getattr(limit, name), rel=1e-10)
    lvc = hessian_constants(mdp, Curvature.LVC).error
    assert lvc == pytest.approx(g * e**3 / 2, rel=1e-12)
    assert gradient_deviation(mdp) ** 2 == pytest.approx(0.5 * e**3, rel=1e-12)


def test_every_other_constant_of_the_infinite_horizon_is_its_closed_form():
    """All span 1, tau 1, two actions: e = 1 / (1 - gamma) is the span of the action values."""
    g = 0.6
    mdp, e = decided(g, None), 1.0 / (1.0 - g)
    b1, b2, b3, b4 = softmax_constants(2)
    c, third_moment = return_constants(mdp), math.sqrt(2.0) / (3.0 * math.sqrt(3.0))
    fourth = 0.5 * b4 * e + g * (4 * b1 * c.third + 6 * b2 * c.curvature + 4 * b3 * c.slope)
    assert c.fourth == pytest.approx(e * fourth, rel=1e-12)
    lvc, ad = 0.5 * b2 * e**2, 0.5 * e**2
    found = {curvature: hessian_constants(mdp, curvature) for curvature in Curvature}
    wanted = e * (0.5 * b3 * e + g * (b2 * c.slope + b1 * lvc))
    assert found[Curvature.LVC].change == pytest.approx(wanted, rel=1e-12)
    wanted = e * (0.5 * c.slope + third_moment * e + g * b1 * ad)
    assert found[Curvature.AD].change == pytest.approx(wanted, rel=1e-12)
    assert found[Curvature.AD].error == pytest.approx(ad + c.curvature, rel=1e-12)
    assert found[Curvature.DICE].change == c.third
    k = np.arange(400)
    for curvature, across in ((Curvature.DICE, np.sqrt(k)), (Curvature.LVC, 0.0 * k)):
        wanted = g**k @ np.sqrt(np.cumsum((1.0 + across) ** 2))
        assert found[curvature].deviation == pytest.approx(float(wanted), rel=1e-12)
    assert found[Curvature.AD].deviation == pytest.approx(0.5 * e**2, rel=1e-12)
    assert softmax_constants(3)[3] == pytest.approx(5.0 + 4.0 / (3.0 * math.sqrt(3.0)), rel=1e-12)


def test_rewards_that_are_0_on_average_are_noise_all_the_same():
    reward = np.broadcast_to([[[1.0, -1.0]]], (2, 2, 2))
    mdp = TabularMDP(np.full((2, 2, 2), 0.5), reward, 0.9, [1.0, 0.0], horizon=2)
    found = math.sqrt(np.trace(gradient_moments(mdp, np.zeros((2, 2))).covariance))
    assert return_constants(mdp).slope == 0.0 < 0.5 < found <= gradient_deviation(mdp)
    assert hessian_constants(mdp, Curvature.DICE).deviation > 0.0


def test_how_fast_a_variance_changes_is_the_sum_of_its_three_parts():
    mdp = oracles.random_mdp(3, horizon=4, n_states=2, n_actions=2)
    each = largest_estimate(mdp) * gradient_deviation(mdp)
    moved = each * (math.sqrt(0.5 * 4) + math.sqrt(0.5))
    assert variance_slope(mdp, 0.0, 0.0) == pytest.approx(moved, rel=1e-12)
    assert variance_slope(mdp, 2.0, 3.0) == pytest.approx(moved + 12.0, rel=1e-12)


def test_the_mixed_derivative_stays_below_its_constants():
    for mdp, theta in problems():
        c, p = mixed_constants(mdp), theta.size
        every = np.eye(p).reshape(p, *theta.shape)
        mixed = reward_vjp(mdp, theta, every).reshape(p, -1)
        assert np.linalg.norm(mixed, 2) <= c.slope * UP
        v = unit(np.random.default_rng(2), theta.shape)
        there = reward_vjp(mdp, theta + 0.1 * v, every).reshape(p, -1)
        assert np.linalg.norm(there - mixed, 2) <= 0.1 * c.curvature * UP
    mdp = decided(0.5, 3)
    h = [1.75, 1.5, 1.0]
    wanted = 0.5 * sum(0.5**t * h[t] for t in range(3))
    assert mixed_constants(mdp).slope == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("curvature", list(Curvature))
def test_errors_of_hessian_estimates_and_how_they_change_stay_below_their_constants(curvature):
    largest = 0.0
    for mdp, theta in problems():
        c, p = hessian_constants(mdp, curvature), theta.size
        mean = hessian_estimate_mean(mdp, theta, curvature).reshape(p, p)
        off = np.linalg.norm(mean - hessian(mdp, theta).reshape(p, p), 2)
        assert off <= c.error * UP + 1e-12
        v = unit(np.random.default_rng(3), theta.shape)
        there = hessian_estimate_mean(mdp, theta + 0.1 * v, curvature).reshape(p, p)
        assert np.linalg.norm(there - mean, 2) <= 0.1 * c.change * UP
        if mdp.horizon is not None:
            every = np.eye(p).reshape(p, *theta.shape)
            noise = sum(hvp_moments(mdp, theta, u, curvature).variance.sum() for u in every)
            assert noise <= c.deviation**2 * UP
            largest = max(largest, noise / c.deviation**2)
    assert largest > 0.05


def test_dice_s_deviation_needs_its_terms_across_steps():
    """Ten steps that pay 1 each, two actions alike: E of the squared norm is 825, by the moments of
    sums of signs; a bound without those terms, which is LVC's, is lower."""
    mdp = TabularMDP(np.ones((1, 2, 1)), [[1.0, 1.0]], 1.0, [1.0], horizon=10)
    every = np.eye(2).reshape(2, 1, 2)
    theta = np.zeros((1, 2))
    noise = sum(hvp_moments(mdp, theta, u, Curvature.DICE).variance.sum() for u in every)
    pairs = sum((2 * (10 - m) + 1) * m * (m - 1) / 2 for m in range(1, 11))
    assert noise == pytest.approx(pairs, rel=1e-12)
    assert hessian_constants(mdp, Curvature.LVC).deviation ** 2 < noise
    assert hessian_constants(mdp, Curvature.DICE).deviation ** 2 >= noise


def test_deviations_of_gradients_stay_below_their_constants():
    largest = np.zeros(3)
    for mdp, theta in problems():
        if mdp.horizon is None:
            continue
        whole = {"credit": Credit.TOTAL_RETURN}
        policy = np.exp(theta) / np.exp(theta).sum(axis=1, keepdims=True)
        exact = gradient_moments(mdp, theta, critic=_values(mdp, policy))
        found = [
            np.trace(gradient_moments(mdp, theta).covariance) / gradient_deviation(mdp) ** 2,
            np.trace(gradient_moments(mdp, theta, **whole).covariance)
            / gradient_deviation(mdp, **whole) ** 2,
            np.trace(exact.covariance) / gradient_deviation(mdp, exact_baseline=True) ** 2,
        ]
        assert max(found) <= UP
        largest = np.maximum(largest, found)
    assert (largest > 0.1).all()


def _values(mdp, policy):
    """``[H + 1, S]``, backwards."""
    values = [np.zeros(mdp.n_states)]
    reward = mdp.reward
    if reward.ndim == 3:
        reward = np.einsum("sax,sax->sa", mdp.transition, reward)
    for _ in range(mdp.horizon):
        values.append((policy * (reward + mdp.discount * mdp.transition @ values[-1])).sum(axis=1))
    return np.array(values[::-1])


def test_single_estimates_and_sampled_jacobians_stay_below_their_constants():
    """Over all trajectories."""
    mdp = oracles.random_mdp(3, horizon=3, n_states=2, n_actions=2)
    theta = np.array([[0.3, -0.2], [1.0, 0.4]])
    policy = oracles.softmax_rows(theta)
    largest, square, mean = 0.0, 0.0, np.zeros((4, 4))
    for probability, states, actions, rewards in oracles.all_trajectories(mdp, theta, 3):
        score, estimate, jacobian = np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((4, 4))
        for t, (s, a) in enumerate(zip(states, actions, strict=False)):
            score[s] -= policy[s]
            score[s, a] += 1.0
            estimate += mdp.discount**t * rewards[t] * score
            jacobian[2 * s + a] += mdp.discount**t * score.ravel()
        largest = max(largest, np.linalg.norm(estimate))
        square += probability * np.sum(jacobian**2)
        mean += probability * jacobian
    assert 0.1 < largest / largest_estimate(mdp) <= 1.0
    assert 0.1 < (square - np.sum(mean**2)) / mixed_deviation(mdp) ** 2 <= 1.0


def test_constants_without_what_actions_do_to_the_next_state_fail():
    """A broken twin: tau = 0, where rewards depend on the state alone."""
    mdp = replace(decided(0.9, 4), reward=[[1.0, 1.0], [0.0, 0.0]])
    blind = return_constants(replace(mdp, transition=np.full((2, 2, 2), 0.5)))
    found = np.linalg.norm(gradient(mdp, np.zeros((2, 2))))
    assert blind.slope == 0.0 < found <= return_constants(mdp).slope


def random_games():
    rng = np.random.default_rng(8)
    for k in range(9):
        horizon = [None, 2, 4][k % 3]
        kernel = rng.dirichlet(np.full(3, 0.4), size=(3, 2, 3))
        if k % 2:
            kernel = np.eye(3)[rng.integers(3, size=(3, 2, 3))]
        yield StochasticGame(kernel, rng.normal(size=(2, 3, 2, 3)), 0.7, [1.0, 0, 0], horizon)
    yield prisoners_dilemma(discount=0.8)
    yield replace(prisoners_dilemma(discount=0.8), horizon=3)


def test_derivatives_of_a_game_s_returns_stay_below_their_constants():
    rng, largest = np.random.default_rng(9), np.zeros(3)
    for game in random_games():
        shapes = shapes_of(game)
        for spread, player in ((0.0, 1), (1.0, 2), (2.0, 1)):
            c = game_constants(game, player)
            thetas = [rng.normal(size=shape) * spread for shape in shapes]
            slopes = [game_gradient(game, *thetas, of=player, wrt=k).ravel() for k in (1, 2)]
            blocks = [[], []]
            for wrt, along in itertools.product((1, 2), repeat=2):
                every = np.eye(thetas[along - 1].size).reshape(-1, *shapes[along - 1])
                asked = {"of": player, "wrt": wrt, "along": along}
                rows = [game_hvp(game, *thetas, v, **asked).ravel() for v in every]
                blocks[wrt - 1].append(np.array(rows).T)
            whole, across = np.linalg.norm(np.block(blocks), 2), np.linalg.norm(blocks[0][1], 2)
            own = max(np.linalg.norm(blocks[0][0], 2), np.linalg.norm(blocks[1][1], 2))
            assert max(map(np.linalg.norm, slopes)) <= c.own.slope * UP
            assert np.linalg.norm(np.concatenate(slopes)) <= c.joint.slope * UP
            assert own <= c.own.curvature * UP
            assert whole <= c.joint.curvature * UP
            assert across <= c.mixed * UP
            found = np.array([own / c.own.curvature, whole / c.joint.curvature, across / c.mixed])
            largest = np.maximum(largest, found)
            if whole > 0.0:  # the joint Hessian's change, along one player's direction
                v = unit(rng, shapes[0])
                moved = [thetas[0] + 0.05 * v, thetas[1]]
                w = unit(rng, shapes[1])
                here, there = (
                    game_hvp(game, *x, w, of=player, wrt=2, along=2) for x in (thetas, moved)
                )
                assert np.linalg.norm(there - here) <= 0.05 * c.joint.third * UP
    assert (largest > 0.05).all()


def test_a_game_s_mixed_constant_is_its_closed_form():
    for discount in (0.3, 0.9):
        wanted = 3.0 * (1.0 + discount) / (4.0 * (1.0 - discount) ** 3)
        game = prisoners_dilemma(discount=discount)
        assert game_constants(game, 2).mixed == pytest.approx(wanted, rel=1e-12)
    far, bad = LinearSoftmax(3.0 * np.ones((3, 2, 1))), "policies: expected features of norm 1"
    game = next(random_games())
    with pytest.raises(ValueError, match=bad):
        game_constants(replace(game, policies=(far, game.policies[1])), 1)
    with pytest.raises(ValueError, match="player: expected"):
        game_constants(game, 3)


def test_a_game_s_joint_constants_are_the_largest_over_how_a_direction_is_shared():
    """One step of the dilemma, whose payoffs span 3: directions (cos x, sin x) of the players."""
    c = game_constants(prisoners_dilemma(horizon=1), 1)
    b1, b2, b3, b4 = softmax_constants(2)
    x = np.linspace(0.0, math.pi / 2, 2001)
    one, two = np.cos(x), np.sin(x)
    shared = (
        b1 * (one + two),
        b2 * (one**2 + two**2) + 2 * b1**2 * one * two,
        b3 * (one**3 + two**3) + 3 * b1 * b2 * one * two * (one + two),
    )
    for found, sums in zip((c.joint.slope, c.joint.curvature, c.joint.third), shared, strict=True):
        assert found == pytest.approx(1.5 * sums.max(), rel=1e-6)
    fourth = b4 * (one**4 + two**4) + 4 * b1 * b3 * one * two + 6 * b2**2 * (one * two) ** 2
    assert 1.5 * fourth.max() <= c.joint.fourth <= 1.5 * (b4 + 2 * b1 * b3 + 1.5 * b2**2) * UP
    assert (c.own.slope, c.mixed) == pytest.approx((1.5 * b1, 0.75))


def ball_loop(lirpg, curvature):
    mdp = oracles.random_mdp(7, horizon=2, n_states=2, n_actions=2)
    phi, theta = np.random.default_rng(7).normal(size=(2, 2, 2))
    given = (Lirpg(mdp), 0.3 * phi, theta) if lirpg else (Maml(mdp), theta)
    return given, {"steps": 2, "step_size": 0.02, "curvature": curvature}


@pytest.mark.parametrize("lirpg", [False, True])
@pytest.mark.parametrize("curvature", [None, Curvature.AD, Curvature.LVC])
def test_local_constants_hold_on_the_ball_and_lie_between_those_of_the_path_and_global(
    lirpg, curvature
):
    given, asked = ball_loop(lirpg, curvature)
    scopes = {scope: loop_constants(*given, **asked, scope=scope) for scope in Scope}
    local, far = scopes[Scope.LOCAL], scopes[Scope.GLOBAL]
    problem, *rest = given
    phi, theta = rest if lirpg else (rest[0], None)
    loop = expected_path(problem, phi, theta, 2, 0.02, Credit.REWARD_TO_GO, None)
    rng, names, inside = np.random.default_rng(0), set(), 0
    points = [Point(loop, point, curvature, 1.0) for point in loop.path]
    for name in points[0].inner() | points[0].outer():
        inner = max(point.inner().get(name, 0.0) for point in points[:-1])
        assert max(inner, points[-1].outer().get(name, 0.0)) <= getattr(local, name) * UP, name
    for name, scope in local.scopes.items():
        assert getattr(local, name) <= getattr(far, name), name
        assert (getattr(local, name) < getattr(far, name)) == (scope is Scope.LOCAL), name
    for _ in range(25):
        point = loop.path[0] + unit(rng, (2, 2)) * local.radius * rng.uniform() ** 0.25
        at = Point(loop, point, curvature, 1.0)
        for name, value in (at.inner() | at.outer()).items():
            if name not in ("rho2", "nu2", "rho1"):  # there the norm of an unfolding, an estimate
                assert value <= getattr(local, name) * UP, name
                inside += 1
                names.add(name)
    assert inside >= 100
    assert {"c2", "m2", "sigma", "sigma_2", "mu2"} <= names
    assert sum(scope is Scope.LOCAL for scope in local.scopes.values()) >= 5


def test_the_ball_is_as_large_as_sampled_steps_can_go():
    """A rare arm is drawn three times: each step is nearly alpha times the largest estimate."""
    alpha, theta = 0.02, np.array([[-8.0, 0.0]])
    once = TabularMDP(np.ones((1, 2, 1)), [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    local = loop_constants(Maml(once), theta, steps=3, step_size=alpha)
    here = theta[0]
    for _ in range(3):
        here = here + alpha * (np.array([1.0, 0.0]) - oracles.softmax_rows(here[None])[0])
    assert 0.999 < np.linalg.norm(here - theta[0]) / local.radius <= 1.0


def test_the_noise_in_the_ball_is_at_most_its_local_constant():
    """Where the variance rises a sixth as fast as it could at all."""
    arms = TabularMDP(np.ones((1, 2, 1)), [[-0.59, -0.58]], 1.0, [1.0], horizon=1)
    theta = np.array([[2.239, 0.4375]])
    local = loop_constants(Maml(arms), theta, steps=1, step_size=0.05)
    assert local.scopes["sigma"] is Scope.LOCAL
    worst = 0.0
    for sign in (-1.0, 1.0):
        there = theta + sign * local.radius * np.array([[1.0, -1.0]]) / math.sqrt(2.0)
        worst = max(worst, float(np.trace(gradient_moments(arms, there).covariance)))
    start = float(np.trace(gradient_moments(arms, theta).covariance))
    rise = local.sigma**2 - start
    assert 0.12 * rise < worst - start <= rise


def test_a_multiple_of_an_error_changes_as_fast_as_both_parts():
    """(1 - times) H + times E, whose error is times (E - H)."""
    given, asked = ball_loop(True, Curvature.LVC)
    exact = loop_constants(*given, **asked | {"curvature": None}, scope=Scope.GLOBAL)
    own = hessian_constants(
        expected_path(*given, 2, 0.02, Credit.REWARD_TO_GO, None).inner, Curvature.LVC
    )
    for times in (0.0, 0.5, 3.0):
        found = loop_constants(*given, **asked, scope=Scope.GLOBAL, hessian_error=times)
        wanted = abs(1.0 - times) * exact.rho2 + times * own.change
        assert found.change_h == pytest.approx(wanted, rel=1e-12)
        assert found.delta_h == pytest.approx(times * own.error, rel=1e-12)
        small = asked | {"step_size": 1e-4, "hessian_error": times}
        local = loop_constants(*given, **small)
        loop = expected_path(*given, 1, 1e-4, Credit.REWARD_TO_GO, None)
        start = Point(loop, loop.path[0], Curvature.LVC, times).inner()["delta_h"]
        rise = times * (own.change + local.rho2) * local.radius
        assert local.delta_h == pytest.approx(start + rise, rel=1e-12, abs=1e-15)
        assert times == 0.0 or local.scopes["delta_h"] is Scope.LOCAL
    problem = given[0]
    assert exact.sigma_2 == gradient_deviation(problem.mdp)
    assert exact.sigma != exact.sigma_2


def test_a_smaller_step_makes_a_smaller_ball():
    given, asked = ball_loop(False, None)
    sizes = (1.0, 0.1, 0.001, 0.0)
    found = [loop_constants(*given, **asked | {"step_size": size}) for size in sizes]
    curvatures = [c.c2 for c in found]
    assert curvatures == sorted(curvatures, reverse=True)
    exact = np.linalg.norm(hessian(given[0].mdp, given[1]).reshape(4, 4), 2)
    assert curvatures[-1] == pytest.approx(exact, rel=1e-12)


class Lpg:
    """Another problem."""

    starts_at_meta = False


def test_bad_input_is_named():
    theta, asked = np.array([[0.9, -0.3]]), {"steps": 1, "step_size": 1.0}
    linear = LinearSoftmax(np.ones((1, 2, 1)))
    bad = [
        (lambda: return_constants(3), "mdp: expected a TabularMDP, got a int"),
        (lambda: influence(None), "mdp: expected a TabularMDP"),
        (lambda: softmax_constants(0), "n_actions: expected"),
        (lambda: hessian_constants(bandit(), "AD"), "curvature: expected a Curvature"),
        (
            lambda: gradient_deviation(bandit(), credit=Credit.TOTAL_RETURN, exact_baseline=True),
            "credit: expected rewards-to-go, got total returns",
        ),
        (lambda: LoopConstants(c2=-1.0, m2=0.0), "c2: expected a number in"),
        (lambda: LoopConstants(c2=math.inf, m2=0.0), "c2: expected a number in"),
        (lambda: LoopConstants(c2=0.0, m2=0.0, radius=-1.0), "radius: expected"),
        (lambda: LoopConstants(c2=0.0, m2=0.0, starts_at_meta=1), "starts_at_meta: expected"),
        (lambda: LoopConstants(c2=0.0, m2=0.0, sigma=math.nan), "sigma: expected a number in"),
        (
            lambda: loop_constants(Lpg(), theta, theta, **asked),
            "problem: expected a Maml or Lirpg",
        ),
        (
            lambda: loop_constants(Maml(bandit(), linear), np.zeros(1), **asked),
            "problem: expected a tabular softmax",
        ),
        (lambda: loop_constants(Maml(bandit()), theta, **asked, scope="all"), "scope: expected"),
        (
            lambda: loop_constants(Maml(bandit()), theta, steps=1, step_size=-1.0),
            "step_size: expected",
        ),
    ]
    for call, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            call()
