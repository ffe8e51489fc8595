"""Two-player games: autograd, closed forms at corner policies, textbook matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.problems.games import StochasticGame, memory_one_game, prisoners_dilemma
from gradbias.analytic.returns.game_derivatives import game_gradient, game_hvp, game_values
from gradbias.stochastic.networks.torch_policy import TorchPolicy
from tests.cases.strategies import games, parameters, shapes_of
from tests.oracles import torch_functions as by_torch
from tests.oracles.tolerances import close

LARGE = 800.0  # exp(-800) is 0 in floating point: an action that is never taken
DEFECT, COOPERATE = np.full(5, -LARGE), np.full(5, LARGE)
TIT_FOR_TAT = np.array([LARGE, LARGE, -LARGE, LARGE, -LARGE])  # own first: C after CC and DC
GRIM = np.array([LARGE, LARGE, -LARGE, -LARGE, -LARGE])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_values_gradients_and_products_agree_with_autograd(data):
    game = data.draw(games())
    shapes = shapes_of(game)
    thetas = [data.draw(parameters(shape)) for shape in shapes]
    vs = [data.draw(parameters(shape)) for shape in shapes]
    leaves = [by_torch.tensor(theta) for theta in thetas]
    time = game.horizon or 1.0 / (1.0 - game.discount)
    scale = max(np.abs(game.rewards).max(), 1.0) * time
    for of in (1, 2):

        def value(first, second, of=of):
            logits = (
                by_torch.player_logits(game, 1, first),
                by_torch.player_logits(game, 2, second),
            )
            return by_torch.game_return(game, of, *logits)

        assert close(game_values(game, *thetas)[of - 1], float(value(*leaves)), scale)
        for wrt in (1, 2):
            first = torch.func.jacrev(value, argnums=wrt - 1)
            found = game_gradient(game, *thetas, of=of, wrt=wrt)
            assert close(found, first(*leaves).numpy(), scale * time)
            for along in (1, 2):
                v = vs[along - 1]
                full = torch.func.jacrev(first, argnums=along - 1)(*leaves).numpy()
                found = game_hvp(game, *thetas, v, of=of, wrt=wrt, along=along)
                assert close(found, np.tensordot(full, v, v.ndim), scale * time**2)


def official_ipd_value(theta1, theta2, discount):
    """The published form: initial distribution times (I - gamma P)^-1 times payoffs, over the four
    outcomes CC, CD, DC, DD (player 1's action first), with player 2's middle states swapped."""
    p1 = 1 / (1 + np.exp(-np.array(theta1)))
    p2 = 1 / (1 + np.exp(-np.array(theta2)))
    seen = p2[[0, 1, 3, 2, 4]]

    def joint(x, y):
        return np.stack([x * y, x * (1 - y), (1 - x) * y, (1 - x) * (1 - y)], axis=-1)

    first, kernel = joint(p1[0], seen[0]), joint(p1[1:], seen[1:])
    spread = first @ np.linalg.inv(np.eye(4) - discount * kernel)
    return spread @ np.array([-1.0, -3.0, 0.0, -2.0]), spread @ np.array([-1.0, 0.0, -3.0, -2.0])


@pytest.mark.parametrize("seed", range(5))
def test_prisoners_dilemma_has_the_published_value(seed):
    theta1, theta2 = np.random.default_rng(seed).normal(size=(2, 5))
    found = game_values(prisoners_dilemma(), theta1, theta2)
    np.testing.assert_allclose(found, official_ipd_value(theta1, theta2, 0.96), rtol=1e-13)


def test_corner_policies_have_their_closed_forms():
    """By hand, with g = 0.96 and S = 1 / (1 - g) = 25 discounted rounds.

    - Both always defect: -2 a round. Both cooperate: -1 a round.
    - Tit-for-tat or grim against a defector: -3 once, then -2; the defector 0 once, then -2.
    - Tit-for-tat or grim against itself or against a cooperator: -1 a round.
    - A lone cooperator against a defector: -3 and 0 a round.
    """
    game, g, s = prisoners_dilemma(), 0.96, 25.0
    provoked = (-3.0 - 2.0 * g * s, -2.0 * g * s)
    wanted = [
        (DEFECT, DEFECT, (-2 * s, -2 * s)),
        (COOPERATE, COOPERATE, (-s, -s)),
        (COOPERATE, DEFECT, (-3 * s, 0.0)),
        (DEFECT, COOPERATE, (0.0, -3 * s)),
        (TIT_FOR_TAT, DEFECT, provoked),
        (GRIM, DEFECT, provoked),
        (DEFECT, GRIM, provoked[::-1]),
        (TIT_FOR_TAT, TIT_FOR_TAT, (-s, -s)),
        (GRIM, GRIM, (-s, -s)),
        (GRIM, TIT_FOR_TAT, (-s, -s)),
        (TIT_FOR_TAT, COOPERATE, (-s, -s)),
    ]
    for theta1, theta2, values in wanted:
        np.testing.assert_allclose(
            game_values(game, theta1, theta2), values, rtol=1e-12, atol=1e-12
        )


def test_gradients_at_a_corner_are_worked_out_by_hand():
    """Player 1 always defects but for p_start = sigmoid(x) at the start; player 2 plays one corner.

    Against a defector: cooperating once pays -3 instead of -2 and all is DD afterwards, so
    J_1 = -p - 2 S and dJ_1/dx = -p (1 - p). Against tit-for-tat: after C (p) the next round is DC,
    which pays 0, then DD; after D the next is DD:
    J_1 = p (-1 + 0 g - 2 g^2 S) + (1 - p)(0 - 2 g S).
    """
    game, g, s, x = prisoners_dilemma(), 0.96, 25.0, 0.3
    theta = DEFECT.copy()
    theta[0] = x
    p = 1 / (1 + np.exp(-x))
    slope = p * (1 - p)
    found = game_values(game, theta, DEFECT)
    np.testing.assert_allclose(found[0], -p - 2 * s, rtol=1e-13)
    gradient = game_gradient(game, theta, DEFECT, of=1, wrt=1)
    np.testing.assert_allclose(gradient, [-slope, 0, 0, 0, 0], atol=1e-12)
    for opponent in (TIT_FOR_TAT, GRIM):
        # Grim answers player 1's C at the start with C, as tit-for-tat does, and sees DC as CD.
        gain = (-1 - 2 * g**2 * s) - (-2 * g * s)
        np.testing.assert_allclose(
            game_values(game, theta, opponent)[0], p * gain - 2 * g * s, rtol=1e-13
        )
        gradient = game_gradient(game, theta, opponent, of=1, wrt=1)
        np.testing.assert_allclose(gradient, [slope * gain, 0, 0, 0, 0], atol=1e-11)
        second = game_hvp(game, theta, opponent, np.eye(5)[0], of=1, wrt=1, along=1)
        np.testing.assert_allclose(second[0], slope * (1 - 2 * p) * gain, rtol=1e-11)


@pytest.mark.parametrize(
    ("player", "after_a_defection"),
    [
        # Once a round is DC, all further ones are DD.
        (GRIM, lambda g, s: g * -2 * s),
        # After DC the copies alternate: CD, DC, CD, ... pay -3, 0, -3, ...
        (TIT_FOR_TAT, lambda g, s: g * -3 / (1 - g**2)),
    ],
)
def test_gradients_after_mutual_cooperation_are_worked_out_by_hand(player, after_a_defection):
    """Both play the same corner, but player 1 cooperates after CC with p = sigmoid(x) only.

    With V the value after CC and D that of a defection: V = p (-1 + g V) + (1 - p) D, so
    V = (-p + (1 - p) D) / (1 - g p), and J_1 = -1 + g V as the first round is CC.
    """
    game, g, s, x = prisoners_dilemma(), 0.96, 25.0, 0.7
    theta = player.copy()
    theta[1] = x
    p, d = 1 / (1 + np.exp(-x)), after_a_defection(g, s)
    top, bottom = -p + (1 - p) * d, 1 - g * p
    np.testing.assert_allclose(
        game_values(game, theta, player)[0], -1 + g * top / bottom, rtol=1e-13
    )
    slope = ((-1 - d) * bottom + g * top) / bottom**2
    gradient = game_gradient(game, theta, player, of=1, wrt=1)
    np.testing.assert_allclose(gradient, [0, g * p * (1 - p) * slope, 0, 0, 0], atol=1e-11)
    # Player 2's copy of the same logit, by symmetry, when it is the one that wavers.
    gradient = game_gradient(game, player, theta, of=2, wrt=2)
    np.testing.assert_allclose(gradient, [0, g * p * (1 - p) * slope, 0, 0, 0], atol=1e-11)


def test_matching_pennies_at_the_mixed_equilibrium_is_flat_in_ones_own_policy():
    table = np.array([[1.0, -1.0], [-1.0, 1.0]])
    game = memory_one_game(np.stack([table, -table]), discount=0.9)
    zero = np.zeros(5)
    assert np.abs(game_values(game, zero, zero)).max() < 1e-14
    for of in (1, 2):
        assert np.abs(game_gradient(game, zero, zero, of=of, wrt=of)).max() < 1e-15
    # The cross block at the start: dJ_1 = 4 (p - 1/2)(q - 1/2), p and q of slope 1/4.
    cross = game_hvp(game, zero, zero, np.eye(5)[0], of=1, wrt=1, along=2)
    assert abs(cross[0] - 4 * 0.25 * 0.25) < 1e-14


def test_nonlinear_policies_of_players_follow_by_the_chain_rule():
    inputs = by_torch.tensor(np.random.default_rng(5).normal(size=(2, 2)))

    def logits(p):
        return torch.tanh(inputs @ p[:4].reshape(2, 2)) @ p[4:].reshape(2, 2)

    rng = np.random.default_rng(0)
    rows, rewards = rng.dirichlet(np.ones(2), size=(2, 2, 2)), rng.normal(size=(2, 2, 2, 2))
    policies = (TorchPolicy(logits, 8), TABULAR)
    game = StochasticGame(rows, rewards, 0.8, [0.3, 0.7], None, policies)
    theta1, v1 = rng.normal(size=(2, 8))
    theta2 = rng.normal(size=(2, 2))

    def value(first, second):
        return by_torch.game_return(game, 2, logits(first), second)

    leaves = by_torch.tensor(theta1), by_torch.tensor(theta2)
    for wrt in (1, 2):
        first = torch.func.jacrev(value, argnums=wrt - 1)
        assert close(
            game_gradient(game, theta1, theta2, of=2, wrt=wrt), first(*leaves).numpy(), 0.0
        )
        full = torch.func.jacrev(first, argnums=0)(*leaves).numpy()
        found = game_hvp(game, theta1, theta2, v1, of=2, wrt=wrt, along=1)
        assert close(found, full @ v1, 0.0)


def test_players_are_exchangeable_in_a_symmetric_game():
    game = prisoners_dilemma(horizon=6)
    theta1, theta2 = np.random.default_rng(0).normal(size=(2, 5))
    here, there = game_values(game, theta1, theta2), game_values(game, theta2, theta1)
    np.testing.assert_allclose(here, there[::-1], rtol=1e-13)
    np.testing.assert_allclose(
        game_gradient(game, theta1, theta2, of=1, wrt=2),
        game_gradient(game, theta2, theta1, of=2, wrt=1),
        rtol=1e-12,
        atol=1e-14,
    )


def test_many_pairs_of_players_are_one_call():
    game = prisoners_dilemma()
    theta1, theta2, v = np.random.default_rng(0).normal(size=(3, 6, 5))
    values = game_values(game, theta1, theta2)
    gradients = game_gradient(game, theta1, theta2, of=2, wrt=1)
    products = game_hvp(game, theta1, theta2, v, of=2, wrt=1, along=2)
    for i in range(6):
        one = game_values(game, theta1[i], theta2[i])
        np.testing.assert_allclose([values[0][i], values[1][i]], one, rtol=1e-12)
        single = game_gradient(game, theta1[i], theta2[i], of=2, wrt=1)
        np.testing.assert_allclose(gradients[i], single, rtol=1e-10, atol=1e-13)
        single = game_hvp(game, theta1[i], theta2[i], v[i], of=2, wrt=1, along=2)
        np.testing.assert_allclose(products[i], single, rtol=1e-10, atol=1e-12)


def test_games_keep_their_own_arrays():
    rewards = np.zeros((2, 1, 2, 2))
    game = StochasticGame(np.ones((1, 2, 2, 1)), rewards, 0.9, [1.0])
    rewards[:] = 5.0
    assert not game.rewards.any()
    for array in (game.transition, game.rewards, game.start):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1.0


PAYOFFS = np.zeros((2, 1, 2, 2))
GOOD = {"transition": np.ones((1, 2, 2, 1)), "rewards": PAYOFFS, "discount": 0.9, "start": [1.0]}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"transition": np.ones((1, 2, 1))}, "transition: expected shape"),
        ({"transition": np.full((1, 2, 2, 1), 0.5)}, "transition: expected probabilities"),
        ({"transition": np.full((1, 2, 2, 2), 0.5)}, r"expected shape \[S, A1, A2, S\], got"),
        ({"rewards": np.zeros((1, 2, 2))}, r"rewards: expected shape \(2, 1, 2, 2\), got"),
        ({"rewards": np.zeros((2, 3, 1, 2, 2)), "horizon": 2}, "rewards: expected shape"),
        ({"discount": 1.0}, "discount: 1 needs a finite horizon"),
        ({"policies": (prisoners_dilemma().policies[0],) * 2}, "features: expected shape"),
        ({"policies": (TABULAR,)}, "policies: expected one a player, got 1"),
    ],
)
def test_bad_games_are_named(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        StochasticGame(**(GOOD | changes))


def test_bad_parameters_and_players_are_named():
    game = prisoners_dilemma()
    with pytest.raises(ValueError, match=r"theta2: expected shape \(5,\), got \(4,\)"):
        game_values(game, np.zeros(5), np.zeros(4))
    with pytest.raises(ValueError, match="theta1: expected finite"):
        game_values(game, np.full(5, np.nan), np.zeros(5))
    with pytest.raises(ValueError, match=r"theta2: expected leading axes \(3,\) \(or none\), got"):
        game_values(game, np.zeros((3, 5)), np.zeros((4, 5)))
    with pytest.raises(
        ValueError, match=r"v: expected leading axes \(3,\) \(or none\), got \(4,\)"
    ):
        game_hvp(game, np.zeros((3, 5)), np.zeros(5), np.zeros((4, 5)), of=1, wrt=1, along=2)
    with pytest.raises(ValueError, match=r"of: expected player 1 or 2, got 1\.0"):
        game_gradient(game, np.zeros(5), np.zeros(5), of=1.0, wrt=1)
    with pytest.raises(ValueError, match="wrt: expected player 1 or 2, got 0"):
        game_gradient(game, np.zeros(5), np.zeros(5), of=1, wrt=0)
    with pytest.raises(ValueError, match=r"payoffs: expected shape \(2, 2, 2\)"):
        memory_one_game(np.zeros((2, 2)))
