"""Sampled meta-gradients against autograd through the whole unrolled program, batch by batch: any
estimator in any slot, reuse and replay, corrections, ends of episodes, critics, networks, games."""

import numpy as np
import pytest
import torch

from gradbias.analytic.meta.bilevel import Lola
from gradbias.analytic.policies.softmax import TABULAR, LinearSoftmax
from gradbias.analytic.problems.games import StochasticGame
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.meta.backward_pass import Pass
from gradbias.stochastic.meta.game_loops import SampledGame
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import FIRST_ORDER, Given, Reuse, Sampled
from gradbias.stochastic.surrogates.dice import Dice, LoadedDice, Tmaml, dice
from gradbias.stochastic.surrogates.group_relative import dr_grpo, rloo
from gradbias.stochastic.surrogates.meta_losses import IntrinsicReward
from gradbias.stochastic.surrogates.off_policy import OffPolicyDice
from gradbias.stochastic.surrogates.score_function import AD, LVC, ad
from gradbias.stochastic.surrogates.taylor import Taylor, VTrace
from gradbias.verification.measurement.meta_enumeration import Enumerating
from gradbias.verification.measurement.meta_gradients import measure_meta_gradient
from tests.cases.surrogates import tanh_network
from tests.oracles.unrolled_programs import both_ways

SURROGATES = (
    AD(),
    AD(reward_to_go=False),
    AD(gae_lambda=0.3),
    LVC(),
    Dice(),
    LoadedDice(0.4),
    Tmaml(0.3),
    rloo,
    dr_grpo,
    OffPolicyDice(),
    Taylor(2),
    VTrace(1.1, 0.9),
)


def check_agreement(estimator, phi, theta, rng):
    found, wanted = both_ways(estimator, phi, theta, rng)
    assert np.abs(found - wanted).max() <= 1e-11 * max(1e-2, np.abs(wanted).max()), estimator.name


def ending(rng, discount, over_time):
    """Three states, the last terminal; starts in the first two."""
    rows = rng.dirichlet(np.ones(3), size=(3, 2))
    rows[-1] = np.eye(3)[-1]
    reward = rng.normal(size=(3, 3, 2, 1) if over_time else (3, 2, 3))
    reward[..., -1, :, :] = 0.0
    return TabularMDP(rows, reward, discount, [0.5, 0.5, 0.0], 3)


def critics(rng):
    table = rng.normal(size=(4, 3))
    table[:, -1] = 0.0

    def moving(thetas):
        size = np.sin(thetas.reshape(len(thetas), -1).sum(axis=1))
        return size[:, None, None] * table

    return [None, table[0], table, moving]


def random_case(rng, mdp, policy, critic, reuse, maml):
    """An estimator with random surrogates in its slots."""
    n, steps = 2, int(rng.choice([1, 3]))

    def slot(count=n, intrinsic=not maml):
        surrogate = SURROGATES[rng.integers(len(SURROGATES))]
        return Sampled(IntrinsicReward(surrogate) if intrinsic else surrogate, count)

    loop = SampledLoop(mdp, maml, policy, critic)
    outer = slot(3) if maml else Sampled(IntrinsicReward(Dice()), 2)
    options = {"jacobian": None if maml else slot(), "reuse": reuse, "correction": 0.7}
    hessian = FIRST_ORDER if rng.random() < 0.1 else slot()
    return MetaGradient(loop, steps, 0.6, slot(), hessian, outer, **options)


@pytest.mark.parametrize("maml", [True, False])
@pytest.mark.parametrize("reuse", Reuse)
@pytest.mark.parametrize("kind", ["tabular", "linear", "network"])
def test_every_slot_is_what_autograd_makes_of_it(kind, reuse, maml):
    rng = np.random.default_rng([len(kind), list(Reuse).index(reuse), maml])
    for i in range(4):
        mdp = ending(rng, (0.0, 0.7, 1.0)[i % 3], over_time=i % 2 == 1)
        policy, theta = {
            "tabular": (TABULAR, rng.normal(size=(3, 2))),
            "linear": (LinearSoftmax(rng.normal(size=(3, 2, 4))), rng.normal(size=4)),
            "network": (tanh_network(torch.tensor(rng.normal(size=(3, 2)))), rng.normal(size=8)),
        }[kind]
        critic = critics(rng)[i % 4]
        estimator = random_case(rng, mdp, policy, critic, reuse, maml)
        phi = theta if maml else rng.normal(size=(3, 2))
        check_agreement(estimator, phi, None if maml else theta, rng)


def uneven_game(rng, over_time=False):
    """Two and three actions; the last state ends the game, and one pays the players opposite
    amounts, which add up to 0."""
    rows = rng.dirichlet(np.ones(3), size=(3, 2, 3))
    rows[-1] = np.eye(3)[-1]
    rewards = rng.normal(size=(2, 3, 3, 2, 3) if over_time else (2, 3, 2, 3))
    rewards[1, ..., 1, :, :] = -rewards[0, ..., 1, :, :]
    rewards[..., -1, :, :] = 0.0
    return StochasticGame(rows, rewards, 0.8, [0.6, 0.4, 0.0], 3)


@pytest.mark.parametrize("player", [1, 2])
@pytest.mark.parametrize("reuse", Reuse)
def test_games_are_what_autograd_makes_of_them(player, reuse):
    rng = np.random.default_rng([player, list(Reuse).index(reuse)])
    sizes = [(3, 2), (3, 3)]
    for i in range(3):
        tables = rng.normal(size=(2, 4, 3))
        tables[..., -1] = 0.0
        loop = SampledGame(uneven_game(rng, i % 2 == 1), player, critics=tuple(tables))
        pick = lambda: SURROGATES[rng.integers(len(SURROGATES))]  # noqa: E731
        estimator = MetaGradient(
            loop,
            1 + i % 3,
            0.6,
            Sampled(pick(), 2),
            Sampled(pick(), 2),
            Sampled(pick(), 2),
            jacobian=Sampled(pick(), 2),
            reuse=reuse,
            correction=0.7,
        )
        phi, theta = rng.normal(size=sizes[player - 1]), rng.normal(size=sizes[2 - player])
        check_agreement(estimator, phi, theta, rng)


def test_players_who_are_paid_opposite_amounts_do_not_end_the_game():
    """A state whose rewards sum to 0 and which leads back to itself is no end."""
    rewards = np.array([[[[1.0, -1.0], [-1.0, 1.0]]], [[[-1.0, 1.0], [1.0, -1.0]]]])
    game = StochasticGame(np.ones((1, 2, 2, 1)), rewards, 0.9, [1.0], 2)
    rng = np.random.default_rng(0)
    phi, theta = rng.normal(size=(2, 1, 2))
    slot, given = Sampled(dice, 1), Given(Lola(game))
    estimator = MetaGradient(SampledGame(game), 1, 0.5, given, slot, slot, jacobian=slot)
    report = measure_meta_gradient(estimator, phi, theta, exact=Lola(game))
    assert report.relative_bias < 1e-12


@pytest.mark.parametrize("surrogate", [rloo, dr_grpo, ad])
def test_group_losses_see_both_players(surrogate):
    """The outer gradient in the opponent's parameters is the look-ahead; the group mean is a scale
    of one half."""
    rng = np.random.default_rng(1)
    game = StochasticGame(np.ones((1, 2, 2, 1)), rng.normal(size=(2, 1, 2, 2)), 0.9, [1.0], 1)
    phi, theta = rng.normal(size=(2, 1, 2))
    given = Given(Lola(game))
    estimator = MetaGradient(
        SampledGame(game), 1, 0.9, given, given, Sampled(surrogate, 2), jacobian=given
    )
    found = exact_parts(estimator, phi, theta)
    scale = 0.5 if surrogate is dr_grpo else 1.0
    wanted = exact_parts(
        MetaGradient(SampledGame(game), 1, 0.9, given, given, given, jacobian=given), phi, theta
    )
    np.testing.assert_allclose(found, scale * wanted, atol=1e-13)


def exact_parts(estimator, phi, theta):
    return estimator.mean_over(Enumerating(estimator.loop), phi, theta)[0]


def objective(estimator, phi, theta):
    """The mean outer return after the sampled steps."""
    phi, theta = estimator.loop.start(phi, theta)
    source = Enumerating(estimator.loop)
    return Pass(estimator, source, phi).from_step(0, theta[None], None).value[0]


@pytest.mark.parametrize("reuse", [Reuse.INNER, Reuse.REPLAY])
@pytest.mark.parametrize("kind", ["maml", "lirpg", "lola 1", "lola 2"])
def test_the_whole_correction_makes_it_the_gradient_of_what_sampling_gives(kind, reuse):
    """AD on the drawn batches with correction 1: central differences of the enumerated mean outer
    return, for every kind of meta-parameters. (Replayed in a game, too: the first batch's law.)"""
    rng = np.random.default_rng(7)
    phi, theta = rng.normal(size=(2, 1, 2))
    bandit = TabularMDP(np.ones((1, 2, 1)), [[1.0, -0.3]], 0.9, [1.0], 1)
    slot, jacobian = Sampled(AD(), 2), None
    if kind == "maml":
        loop, theta = SampledLoop(bandit, True), None
    elif kind == "lirpg":
        loop, slot = SampledLoop(bandit), Sampled(IntrinsicReward(AD()), 2)
        jacobian = slot
    else:
        rewards = rng.normal(size=(2, 1, 2, 2))
        game = StochasticGame(np.ones((1, 2, 2, 1)), rewards, 0.9, [1.0], 1)
        loop, jacobian = SampledGame(game, int(kind[-1])), slot
    estimator = MetaGradient(
        loop, 2, 0.9, slot, slot, Sampled(AD(), 1), jacobian=jacobian, reuse=reuse, correction=1.0
    )
    differences = np.zeros_like(phi)
    for k in np.ndindex(phi.shape):
        step = np.zeros_like(phi)
        step[k] = 1e-5
        ends = [objective(estimator, phi + s * step, theta) for s in (1, -1)]
        differences[k] = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(exact_parts(estimator, phi, theta), differences, atol=2e-9)
    if (kind, reuse) == ("lirpg", Reuse.REPLAY):
        return  # the one batch that is drawn has a law that does not depend on phi
    half = MetaGradient(
        loop, 2, 0.9, slot, slot, Sampled(AD(), 1), jacobian=jacobian, reuse=reuse, correction=0.5
    )
    assert np.abs(exact_parts(half, phi, theta) - differences).max() > 1e-4
