"""LOLA's constants and bounds against exact biases and variances: every sample set enumerated."""

import math

import numpy as np
import pytest

from gradbias.analytic.constants.games import _together, game_constants
from gradbias.analytic.constants.loops import Scope, loop_constants, loop_source
from gradbias.analytic.constants.softmax import softmax_constants
from gradbias.analytic.meta.bilevel import Lola
from gradbias.analytic.meta.meta_gradients import inner_loop
from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.problems.games import StochasticGame, prisoners_dilemma
from gradbias.analytic.returns.game_derivatives import game_gradient, game_hvp
from gradbias.stochastic.meta.game_loops import SampledGame
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import Sampled
from gradbias.stochastic.surrogates.catalogue import CATALOGUE
from gradbias.verification.bounds.meta_gradient_bias import meta_gradient_bias_bound
from gradbias.verification.bounds.meta_gradient_variance import meta_gradient_variance_bound
from gradbias.verification.bounds.sweep import Sweep, bound_versus_empirical
from gradbias.verification.measurement.meta_gradients import measure_meta_gradient
from tests.cases.bound_loops import Found, of_bias

GAMES = 24


def random_game_loop(seed):
    """A matrix game, a dilemma or one with two states; near-deterministic policies among them."""
    rng = np.random.default_rng([seed, 5])
    kind, player = ("matrix", "dilemma", "states")[seed % 3], 1 + seed % 2
    steps, shape = int(rng.integers(1, 4)), (2, 2)
    if kind == "matrix":
        rewards = rng.normal(size=(2, 1, 2, 2)) * rng.choice([0.1, 1.0, 5.0])
        game, shape = StochasticGame(np.ones((1, 2, 2, 1)), rewards, 0.9, [1.0], 1), (1, 2)
    elif kind == "dilemma":
        steps, shape = 1 + seed % 2, (5,)
        game = prisoners_dilemma(0.9, horizon=2 if steps == 1 else 1)
    else:
        rows = rng.dirichlet(np.full(2, 0.4), size=(2, 2, 2))
        game = StochasticGame(rows, rng.normal(size=(2, 2, 2, 2)), 0.9, [0.7, 0.3], 1)
        steps = min(steps, 2)
    phi, theta = rng.normal(size=(2, *shape)) * rng.choice([0.0, 1.0, 3.0])
    return Lola(game, player), phi, theta, steps, float(rng.choice([0.03, 0.3, 3.0]))


def measured(problem, phi, theta, steps, step_size):
    slot, curved = Sampled(CATALOGUE["ad"], 1), Sampled(CATALOGUE["dice"], 1)
    loop = SampledGame(problem.game, problem.player)
    estimator = MetaGradient(loop, steps, step_size, slot, curved, slot, jacobian=curved)
    return measure_meta_gradient(estimator, phi, theta, exact=problem, evidence="enumeration")


def findings(seeds):
    for seed in seeds:
        *given, steps, step_size = random_game_loop(seed)
        report = measured(*given, steps, step_size)
        asked = {"steps": steps, "step_size": step_size}
        size = 1.0 + report.target_norm
        for scope in (Scope.GLOBAL, Scope.LOCAL):
            constants = loop_constants(*given, **asked, scope=scope, curvature=Curvature.DICE)
            bias = meta_gradient_bias_bound(constants, **asked, batch_size=1)
            yield from of_bias(bias, report.bias_norm, size, scope.name)
            variance = meta_gradient_variance_bound(constants, **asked, batch_size=1)
            exact = float(np.sum(report.variance))
            yield Found("variance", exact, variance.corrected, size**2)


def test_every_bound_holds_for_sampled_look_ahead():
    every = list(findings(range(GAMES)))
    assert len(every) == 6 * GAMES
    for found in every:
        assert found.holds, found
    loose = [found.looseness for found in every if found.looseness is not None]
    assert len(loose) >= 5 * GAMES
    assert min(loose) < 5.0


@pytest.mark.slow
def test_every_bound_holds_on_500_games():
    for found in findings(range(GAMES, GAMES + 500)):
        assert found.holds, found


def test_a_bound_without_the_outer_gradient_s_change_with_the_look_ahead_fails():
    """A broken twin: mu_12 = 0, with no other part: payoffs of the opponent that phi does not
    move."""
    rewards = np.zeros((2, 1, 2, 2))
    rewards[0, 0] = [[1.0, -1.0], [-1.0, 1.0]]
    rewards[1, 0] = [[1.0, 0.0], [1.0, 0.0]]
    problem = Lola(StochasticGame(np.ones((1, 2, 2, 1)), rewards, 0.9, [1.0], 1))
    phi, theta, asked = np.zeros((1, 2)), np.array([[1.0, 0.0]]), {"steps": 1, "step_size": 1.0}
    report = measured(problem, phi, theta, 1, 1.0)
    whole = loop_constants(problem, phi, theta, **asked)
    # The constants at theta^0 and theta^1, the smallest there are.
    first, last = (
        _source(problem, phi, theta).at(x) for x in inner_loop(problem, phi, theta, **asked)
    )
    assert first["c1"] == pytest.approx(0.0, abs=1e-15)
    path = vars(whole) | last | {"c1": first["c1"], "c2": first["c2"]}
    without = path | {"mu12": 0.0, "nu12": 0.0, "scopes": {}}
    bound = meta_gradient_bias_bound(type(whole)(**without), **asked, batch_size=1)
    assert bound.corrected < 1e-12 < 0.003 < report.bias_norm
    assert 0.3 < last["mu12"] <= whole.mu12
    assert report.bias_norm <= meta_gradient_bias_bound(whole, **asked, batch_size=1).smallest


def test_local_constants_of_a_game_hold_on_the_ball():
    ran, rng = 0, np.random.default_rng(0)
    for seed in range(12):
        problem, phi, theta, steps, _ = random_game_loop(seed)
        asked = {"steps": steps, "step_size": 0.01}
        local = loop_constants(problem, phi, theta, **asked)
        far = loop_constants(problem, phi, theta, **asked, scope=Scope.GLOBAL)
        path = inner_loop(problem, phi, theta, **asked)
        source = _source(problem, phi, theta)
        for name, scope in local.scopes.items():
            assert (getattr(local, name) < getattr(far, name)) == (scope is Scope.LOCAL), name
        for point in path:
            for name, value in source.at(point).items():
                assert value <= getattr(far, name) * (1 + 1e-12), name
        for _ in range(5):
            v = rng.normal(size=theta.shape)
            there = theta + local.radius * v / np.linalg.norm(v)
            for name, value in at_point(problem, phi, there).items():
                assert value <= getattr(local, name) * (1 + 1e-12), name
                ran += 1
    assert ran == 12 * 5 * 6


def at_point(problem, phi, theta):
    """Norms of the derivatives, from the game's Jacobian by central differences of gradients."""
    me, other = problem.player, 3 - problem.player
    thetas = (phi, theta) if me == 1 else (theta, phi)

    def slope(of, wrt, at):
        pair = (phi, at) if me == 1 else (at, phi)
        return game_gradient(problem.game, *pair, of=of, wrt=wrt).ravel()

    def changed(of, wrt):
        every = 1e-5 * np.eye(theta.size).reshape(-1, *theta.shape)
        rows = [(slope(of, wrt, theta + v) - slope(of, wrt, theta - v)) / 2e-5 for v in every]
        return float(np.linalg.norm(rows, 2)) * (1 - 1e-6)

    one = np.eye(theta.size).reshape(-1, *theta.shape)[0]
    exact = game_hvp(problem.game, *thetas, one, of=other, wrt=other, along=other).ravel()
    assert np.linalg.norm(exact) <= changed(other, other) * (1 + 1e-5) + 1e-9
    return {
        "c2": changed(other, other),
        "c1": changed(other, me),
        "mu2": changed(me, other),
        "mu12": changed(me, me),
        "m1": float(np.linalg.norm(slope(me, me, theta))),
        "m2": float(np.linalg.norm(slope(me, other, theta))),
    }


def test_a_sweep_of_a_game_has_exact_biases_that_fall_as_1_over_n():
    problem, phi, theta, *_ = random_game_loop(0)
    asked = {"sweep": Sweep.BATCH_SIZE, "values": [2, 4, 6], "step_size": 0.03, "steps": 2}
    found = bound_versus_empirical(problem, phi, theta, **asked)
    assert found.slopes["bias"].value == pytest.approx(-1.0, abs=0.05)
    assert found.slopes["corrected"].value == pytest.approx(-0.5, abs=1e-6)
    for row in found.rows:
        assert 0.0 < row.bias <= min(row.corrected, row.second_order)
        assert row.leading is None
    (still,) = bound_versus_empirical(
        problem, phi, theta, sweep=Sweep.STEPS, values=[2], batch_size=None
    ).rows
    assert (still.bias, still.corrected) == (0.0, 0.0)


def test_a_bias_that_is_rounding_is_0():
    """At steps of 1e-9 it is some 1e-18; enumeration leaves more than that."""
    for seed in (0, 3, 6):
        *given, _, _ = random_game_loop(seed)
        rows = bound_versus_empirical(
            *given, sweep=Sweep.STEP_SIZE, values=[1e-9, 0.1], batch_size=2
        ).rows
        assert rows[0].bias == 0.0 < rows[1].bias


def test_a_sweep_of_a_game_beyond_enumeration_is_sampled_or_left_out():
    """A fixed seed; the stated rate of a miss is 1e-3."""
    problem, phi, theta, *_ = random_game_loop(9)
    asked = {"sweep": Sweep.BATCH_SIZE, "values": [1], "step_size": 3.0}
    (exact,) = bound_versus_empirical(problem, phi, theta, **asked).rows
    (none,) = bound_versus_empirical(problem, phi, theta, **asked, max_outcomes=0).rows
    (drawn,) = bound_versus_empirical(
        problem, phi, theta, **asked, max_outcomes=0, replications=2000
    ).rows
    assert none.bias is None
    low, high = drawn.interval
    assert low <= exact.bias <= high < math.inf


def test_bad_input_is_named():
    problem, phi, theta, *_ = random_game_loop(0)
    asked = {"steps": 1, "step_size": 0.1}
    endless = Lola(prisoners_dilemma())
    bad = [
        *(
            (lambda c=each: loop_constants(problem, phi, theta, **asked, curvature=c), "curvature")
            for each in (Curvature.AD, Curvature.LVC)
        ),
        (lambda: loop_constants(endless, np.zeros(5), np.zeros(5), **asked), "finite horizon"),
        (lambda: loop_constants(problem, np.zeros((3, 1, 2)), theta, **asked), "theta: expected"),
        (lambda: loop_constants(problem, phi, None, **asked), "theta: expected"),
    ]
    for call, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            call()


def test_the_deviations_of_sampled_hessians_are_their_closed_forms():
    """Two steps of the dilemma, payoffs of at most 3, scores of mean square one half: step k adds
    noise 1 + sqrt(k) to the Hessian's martingale and (1 + 2 sqrt(k)) / 2 to the mixed one's."""
    problem = Lola(prisoners_dilemma(0.9, horizon=2))
    asked = {"steps": 1, "step_size": 0.1, "curvature": Curvature.DICE}
    found = loop_constants(problem, np.zeros(5), np.zeros(5), **asked, scope=Scope.GLOBAL)
    assert found.sigma_h == pytest.approx(3.0 * (1.0 + 0.9 * math.sqrt(1.0 + 4.0)), rel=1e-12)
    assert found.sigma_j == pytest.approx(3.0 * (0.5 + 0.9 * math.sqrt(0.25 + 2.25)), rel=1e-12)
    assert found.sigma == pytest.approx(3.0 * math.sqrt(0.5) * (1.0 + 0.9 * math.sqrt(2.0)))


@pytest.mark.parametrize("actions", [2, 3])
def test_two_policies_together_turn_as_far_as_the_worst_direction_of_both(actions):
    """Over a grid of directions (c, s), by Leibniz's rule; for three actions the third derivative's
    largest is at neither end, c = 1 or c = s."""
    b1, b2, b3, b4 = own = softmax_constants(actions)
    angle = np.linspace(0.0, math.pi / 2, 100_001)
    c, s = np.cos(angle), np.sin(angle)
    largest = [
        (b1 * (c + s)).max(),
        (b2 * (c**2 + s**2) + 2 * b1**2 * c * s).max(),
        (b3 * (c**3 + s**3) + 3 * b1 * b2 * c * s * (c + s)).max(),
        (b4 + 4 * b1 * b3 * c * s * (c**2 + s**2) + 6 * (b2 * c * s) ** 2).max(),
    ]
    found = _together(own)
    np.testing.assert_allclose(found[:3], largest[:3], rtol=1e-9)
    assert largest[3] <= found[3] * (1 + 1e-12)
    inside = largest[2] > (1 + 1e-4) * max(b3, math.sqrt(2) * (b3 + (3 * b1 * b2 - b3) / 2))
    assert inside == (actions == 3)


@pytest.mark.parametrize("player", [1, 2])
def test_constants_across_players_are_of_both_players_directions(player):
    """Third derivatives, one in phi and two in theta, can be larger than any in one player's
    parameters: x1 x2 has the mixed one alone. So they take those of both, of whose return it is."""
    rewards = np.random.default_rng(0).normal(size=(2, 1, 2, 3)) * [[[[1.0]]], [[[5.0]]]]
    game = StochasticGame(np.ones((1, 2, 3, 1)), rewards, 0.9, [1.0], 1)
    phi, theta = np.zeros((1, (2, 3)[player - 1])), np.zeros((1, (3, 2)[player - 1]))
    asked = {"steps": 1, "step_size": 0.1, "scope": Scope.GLOBAL}
    found = loop_constants(Lola(game, player), phi, theta, **asked)
    inner, outer = (game_constants(game, who) for who in (3 - player, player))
    assert (found.c1, found.rho1, found.chi1) == (
        inner.mixed,
        inner.joint.third,
        inner.joint.fourth,
    )
    assert (found.mu12, found.nu12) == (outer.mixed, outer.joint.third)
    # One step: deviations are the largest reward's times a score's, of its player's actions.
    paid = np.abs(rewards).max(axis=(1, 2, 3))
    scores = np.sqrt(1.0 - 1.0 / np.array([2.0, 3.0]))
    me, other = player - 1, 2 - player
    deviations = (found.sigma, found.sigma_1, found.sigma_2)
    expected = [paid[other] * scores[other], paid[me] * scores[me], paid[me] * scores[other]]
    np.testing.assert_allclose(deviations, expected, rtol=1e-12)
    assert inner.own.third < inner.joint.third
    assert inner.own.third / outer.own.third != pytest.approx(1.0, rel=0.5)


def _source(problem, phi, theta):
    return loop_source(problem, phi, theta, 1, 0.1, None, 1.0)


def test_norms_at_a_point_are_those_of_differences_of_gradients():
    """Where a step is taken from, and where it leads to."""
    for seed in (0, 3):
        problem, phi, theta, *_ = random_game_loop(seed)
        source = _source(problem, phi, theta)
        thetas = (phi, theta) if problem.player == 1 else (theta, phi)
        other = 3 - problem.player
        moved = theta + 3.0 * game_gradient(problem.game, *thetas, of=other, wrt=other)
        first, last = at_point(problem, phi, theta), at_point(problem, phi, moved)
        for here, by_differences in ((theta, first), (moved, last)):
            for name, value in source.at(here).items():
                assert value == pytest.approx(by_differences[name], rel=1e-5), name
        assert first["c2"] != pytest.approx(last["c2"], rel=1e-2)


def test_who_has_one_action_alone_takes_no_steps():
    """The opponent moves: a ball of radius 0 is right where it is the opponent, and only there."""
    for actions, moves in (((2, 1), False), ((1, 2), True)):
        rewards = np.random.default_rng(0).normal(size=(2, 1, *actions))
        game = StochasticGame(np.ones((1, *actions, 1)), rewards, 0.9, [1.0], 1)
        phi, theta = (np.zeros((1, n)) for n in actions)
        found = loop_constants(Lola(game, 1), phi, theta, steps=1, step_size=0.5)
        largest = 0.5 * math.sqrt(2.0) * np.abs(rewards[1]).max()
        assert found.radius == pytest.approx(largest if moves else 0.0, rel=1e-12)
