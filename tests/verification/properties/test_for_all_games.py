"""`for_all_games`: LOLA gradients for all small games, their failures, and games as code."""

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from gradbias.analytic.meta.bilevel import Lola
from gradbias.analytic.meta.meta_gradients import meta_gradient
from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.games import StochasticGame, memory_one_game
from gradbias.stochastic.meta.game_loops import SampledGame
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import Given, Sampled
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import lvc
from gradbias.verification.properties.for_all import for_all_games
from gradbias.verification.properties.ledgers import Ledger
from gradbias.verification.properties.source_code import as_constructor

NAMES = {"StochasticGame": StochasticGame, "LinearSoftmax": LinearSoftmax}


def paid(record):
    times = torch.arange(record.rewards.shape[1], dtype=torch.float64)
    return record.discount**times * record.rewards


def both_players(record):
    """DiCE of both players' choices, by hand."""
    path = (record.log_probs + record.other.log_probs).cumsum(1)
    return (torch.exp(path - path.detach()) * paid(record)).sum(1).mean()


def own_alone(record):
    """A user's mistake: the other's choices are taken for the world's."""
    path = record.log_probs.cumsum(1)
    return (torch.exp(path - path.detach()) * paid(record)).sum(1).mean()


def lola(surrogate, player=1):
    def of(game):
        exact, own = Given(Lola(game, player)), Sampled(surrogate, 1)
        return MetaGradient(SampledGame(game, player), 1, 0.5, exact, exact, own, jacobian=own)

    return of


def failure(property_):
    with pytest.raises(AssertionError) as caught:
        property_(Ledger())
    return str(caught.value)


def pasted(text):
    names = {}
    code = text[text.index("game = ") : text.index("\n\n", text.index("theta = "))]
    exec(code, dict(NAMES), names)
    return names["game"], np.array(names["meta_parameters"]), np.array(names["theta"])


@pytest.mark.parametrize("player", [1, 2])
def test_a_right_surrogate_of_both_players_holds_for_all_games(player):
    ledger = Ledger()
    for_all_games(lola(both_players, player), max_examples=24)(ledger)
    (claim,) = ledger.claims
    assert claim.held
    assert claim.evidence.keys() == {"enumeration"}
    assert claim.evidence["enumeration"] - claim.vacuous >= 6
    assert ledger.spent == 0.0


def test_the_other_player_s_missing_scores_are_found_on_a_matrix_game():
    """What is missing is alpha (d^2 J_2 / dphi dtheta)^T (dJ_1 / dtheta): closed form."""
    text = failure(for_all_games(lola(own_alone)))
    assert "The smallest problem found (1 state, 2 x 2 actions, horizon 1):" in text
    game, phi, theta = pasted(text)
    exact = Lola(game)
    whole = meta_gradient(exact, phi, theta, steps=1, step_size=0.5)
    assert "mean " in text
    step = exact.inner_step(phi, theta)
    moved = theta + 0.5 * np.asarray(step.update)
    direct = exact.outer(phi, moved).meta_gradient
    assert np.abs(whole - direct).max() > 1e-3
    printed = next(line for line in text.splitlines() if line.startswith("  mean"))
    mean = np.array(eval(printed.removeprefix("  mean")))
    assert np.abs(mean - direct).max() < 1e-14


@pytest.mark.slow
def test_lvc_s_mixed_derivative_fails_where_a_choice_leads_elsewhere():
    game, _, _ = pasted(failure(for_all_games(lola(lvc), max_examples=120)))
    assert game.horizon == 2
    assert game.n_states > 1
    assert (game.transition != game.transition[:, :1, :1]).any()


@pytest.mark.slow
def test_a_sampled_step_is_biased_for_the_expected_one():
    def sampled(game):
        slot = Sampled(dice, 2)
        return MetaGradient(SampledGame(game), 1, 0.5, slot, slot, slot, jacobian=slot)

    assert "1 expected inner steps" in failure(for_all_games(sampled, max_states=1, max_horizon=1))


@pytest.mark.parametrize("memory_one", [False, True])
def test_the_constructor_makes_the_very_game(memory_one):
    rng = np.random.default_rng(3)
    game = memory_one_game(rng.normal(size=(2, 2, 2)), 0.9, 2)
    if not memory_one:
        rows = rng.dirichlet([1.0, 1.0], size=(2, 2, 3))
        game = StochasticGame(rows, rng.normal(size=(2, 2, 2, 3)), 0.9, [0.5, 0.5])
    again = eval(as_constructor(game), dict(NAMES))
    for name in ("transition", "rewards", "start"):
        assert (getattr(again, name) == getattr(game, name)).all()
    assert (again.discount, again.horizon) == (game.discount, game.horizon)
    for mine, other in zip(game.policies, again.policies, strict=True):
        assert type(mine) is type(other)
        assert not memory_one or (mine.features == other.features).all()


def test_what_is_no_property_of_games_is_refused():
    wrong = ({"max_actions": 1}, {"problems": 3}, {"options": {"exact": None}}, {"max_examples": 0})
    for given in wrong:
        with pytest.raises(ValueError, match="expected"):
            for_all_games(lola(dice), **given)
    with pytest.raises(ValueError, match="expected a function of the game, got 3"):
        for_all_games(3)
    one = st.just(memory_one_game(np.ones((2, 2, 2)), 0.9, 1))
    with pytest.raises(ValueError, match="MetaGradient of a SampledGame, got 3"):
        for_all_games(lambda game: 3, problems=one)(Ledger())
