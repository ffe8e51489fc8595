"""Expressions against linear solves, enumeration and hand-written algebra; exactness; sizes."""

import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from gradbias.analytic.meta.bilevel import Lirpg, Lola, Maml
from gradbias.analytic.meta.meta_gradients import meta_gradient
from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.games import StochasticGame, prisoners_dilemma
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient, hessian, reward_vjp
from gradbias.analytic.returns.evaluation import expected_return, state_values
from gradbias.analytic.returns.game_derivatives import game_gradient, game_hvp, game_values
from gradbias.analytic.symbolic.meta_gradients import (
    lirpg_expression,
    lola_expression,
    maml_expression,
)
from gradbias.analytic.symbolic.policy_rings import exact
from gradbias.analytic.symbolic.problems import SymbolicGame, SymbolicMDP
from gradbias.stochastic.networks.torch_policy import TorchPolicy
from tests.cases.strategies import mdps, parameters
from tests.oracles import brute_force as oracles
from tests.oracles.tolerances import TINY


def agrees(found, wanted, scale=0.0):
    """To 1e-12 relative, or 1e-12 of the scale."""
    gap = np.abs(np.asarray(found) - wanted).max()
    return gap <= TINY * max(np.linalg.norm(wanted), scale)


@pytest.mark.parametrize("spread", [5.0, 20.0])
def test_peaked_policies_lose_no_digits(spread):
    """Sums of a thousand terms cancel to the last digit or two of the policy's smallest entries."""
    rng = np.random.default_rng(1)
    mdp = TabularMDP.random(3, 2, rng=rng, discount=0.99, concentration=0.1)
    second = SymbolicMDP.of(mdp).hessian().function()
    for _ in range(5):
        theta = rng.normal(size=(3, 2)) * spread
        assert agrees(second(theta), hessian(mdp, theta))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_value_and_gradient_agree_with_the_linear_solve(data):
    mdp = data.draw(mdps(horizons=(None, 1, 2), sizes=(3, 2)))
    theta = data.draw(parameters((mdp.n_states, mdp.n_actions), (0.0, 1.0, 10.0)))
    symbolic = SymbolicMDP.of(mdp)
    time = mdp.horizon or 1.0 / (1.0 - mdp.discount)
    scale = np.abs(mdp.reward).max() * time**2
    assert agrees(symbolic.expected_return().function()(theta), expected_return(mdp, theta), scale)
    assert agrees(symbolic.gradient().function()(theta), gradient(mdp, theta), scale)
    values = state_values(mdp, theta)
    values = values if mdp.horizon is None else values[0]
    assert agrees(symbolic.state_values().function()(theta), values, scale)


@pytest.mark.parametrize("horizon", [None, 1, 3])
@pytest.mark.parametrize("size", [(2, 2), (3, 2), (2, 3)])
def test_hessian_and_mixed_jacobian_agree_with_the_linear_solve(size, horizon):
    mdp = oracles.random_mdp(sum(size), horizon=horizon, n_states=size[0], n_actions=size[1])
    rng = np.random.default_rng(0)
    symbolic = SymbolicMDP.of(mdp)
    second, mixed = symbolic.hessian().function(), symbolic.mixed_jacobian().function()
    for _ in range(3):
        theta, v = rng.normal(size=(2, *size))
        assert agrees(second(theta), hessian(mdp, theta))
        found = np.tensordot(mixed(theta), v, 2)
        assert agrees(found, reward_vjp(mdp, theta, v))


def test_rewards_over_time_and_by_next_state():
    rng = np.random.default_rng(0)
    plain = oracles.random_mdp(4, horizon=3, n_states=2, n_actions=2)
    theta = rng.normal(size=(2, 2))
    for shape in ((3, 2, 2, 1), (3, 2, 2, 2), (2, 2, 2)):
        mdp = TabularMDP(plain.transition, rng.normal(size=shape), 0.7, plain.start, 3)
        found = SymbolicMDP.of(mdp).gradient().function()(theta)
        assert agrees(found, gradient(mdp, theta))


def test_shared_logits_differentiate_by_the_chain_rule():
    features = np.zeros((2, 2, 2))
    features[:, 0] = [[1, 0], [2, -1]]
    mdp = oracles.random_mdp(4, n_states=2, n_actions=2)
    policy = LinearSoftmax(features)
    theta = np.array([0.3, -0.7])
    symbolic = SymbolicMDP.of(mdp, policy)
    assert agrees(symbolic.gradient().function()(theta), gradient(mdp, theta, policy=policy))
    assert agrees(symbolic.hessian().function()(theta), hessian(mdp, theta, policy=policy))
    for other in (
        LinearSoftmax(0.5 * features),
        LinearSoftmax(1e30 * features),
        TorchPolicy(lambda p: p.reshape(2, 2), 4),
    ):
        with pytest.raises(ValueError, match="policy: expected a tabular softmax"):
            SymbolicMDP.of(mdp, other)


def test_a_reward_on_top_is_paid_at_every_step():
    rng = np.random.default_rng(0)
    plain = oracles.random_mdp(4, horizon=3, n_states=2, n_actions=2)
    reward, phi, theta = rng.normal(size=(3, 2, 2, 1)), *rng.normal(size=(2, 2, 2))
    mdp = TabularMDP(plain.transition, reward, 0.7, plain.start, 3)
    found = SymbolicMDP.of(mdp).with_reward(phi).gradient().function()(theta)
    paid = TabularMDP(plain.transition, reward + phi[..., None], 0.7, plain.start, 3)
    assert agrees(found, gradient(paid, theta))


def test_a_bandit_has_the_expressions_of_a_textbook():
    """J = pi r_0 + (1 - pi) r_1, dJ/dtheta = pi (1 - pi) (r_0 - r_1) (1, -1), and so on."""
    r0, r1, pi = sympy.symbols("r0 r1"), None, sympy.Symbol("pi_0_0", positive=True)
    r0, r1 = r0
    bandit = SymbolicMDP([[[1], [1]]], [[r0, r1]], 0, [1], horizon=1)
    slope = pi * (1 - pi) * (r0 - r1)
    curve = slope * (1 - 2 * pi)
    assert sympy.expand(bandit.expected_return().expression - (pi * r0 + (1 - pi) * r1)) == 0
    found = bandit.gradient().entries[0]
    assert [sympy.expand(f - w) for f, w in zip(found, (slope, -slope), strict=True)] == [0, 0]
    second = bandit.hessian().entries[0, :, 0]
    assert sympy.expand(second[0, 0] - curve) == 0
    assert sympy.expand(second[0, 1] + curve) == 0


def test_entries_can_be_symbols_and_results_are_identities_in_them():
    """A chain 0 -> 1 with probability p under action 0: V(0) = pi r / (1 - g (1 - pi p))."""
    p, g, r = sympy.symbols("p g r")
    pi = sympy.Symbol("pi_0_0", positive=True)
    rows = [[[1 - p, p], [1, 0]], [[0, 1], [0, 1]]]
    chain = SymbolicMDP(rows, [[r, 0], [0, 0]], g, [1, 0])
    value = pi * r / (1 - g * (1 - pi * p))
    assert sympy.cancel(chain.expected_return().expression - value) == 0
    slope = sympy.diff(value, pi) * pi * (1 - pi)
    assert sympy.cancel(chain.gradient().entries[0, 0] - slope) == 0
    numbers = (0.3, 0.9, 2.0)
    mdp = TabularMDP([[[0.7, 0.3], [1, 0]], [[0, 1], [0, 1]]], [[2.0, 0], [0, 0]], 0.9, [1, 0])
    theta = np.array([[0.4, -0.2], [0.0, 0.0]])
    assert agrees(chain.hessian().function(p, g, r)(theta, *numbers), hessian(mdp, theta))
    with pytest.raises(ValueError, match=r"expected all that occur, got none for \[g, p\]"):
        chain.hessian().function(r)
    for wrong, complaint in (((p, p, g, r), "each once"), ((p, g, "r"), "sympy symbols")):
        with pytest.raises(ValueError, match=complaint):
            chain.hessian().function(*wrong)
    with pytest.raises(ValueError, match="number: expected shape"):
        chain.hessian().function(p, g, r)(theta, [0.3], 0.9, 2.0)
    with pytest.raises(ValueError, match="parameters of 1 players and 3 numbers, got 2 arguments"):
        chain.hessian().function(p, g, r)(theta, 0.3)


def test_rational_entries_give_exact_rationals():
    mdp = SymbolicMDP([[["1/3", "2/3"]], [["0", "1"]]], [["1/7"], ["0"]], "1/2", ["1", "0"])
    assert mdp.expected_return().expression == sympy.Rational(6, 35)
    assert exact(0.1) == sympy.Rational(1, 10)
    assert exact(1 / 3) == sympy.Rational(1, 3)
    assert exact(Fraction(2, 7)) == sympy.Rational(2, 7)
    assert exact(np.int64(3)) == 3
    assert exact(sympy.Float(0.1) * sympy.Symbol("x")) == sympy.Symbol("x") / 10
    assert exact("gamma + lam/2").free_symbols == set(sympy.symbols("gamma lam"))
    irrational = float(np.pi)
    assert exact(irrational) == sympy.Rational(*Fraction(irrational).as_integer_ratio())
    third = TabularMDP([[[1 / 3, 2 / 3]], [[0.0, 1.0]]], [[1 / 7], [0.0]], 0.5, [1.0, 0.0])
    assert SymbolicMDP.of(third).expected_return().expression == sympy.Rational(6, 35)


def test_an_identity_is_the_zero_polynomial():
    """Gradients over one state's actions sum to 0, whatever the policy: identically."""
    symbolic = SymbolicMDP.of(oracles.random_mdp(4, n_states=2, n_actions=3))
    for row in symbolic.gradient().entries:
        assert sympy.cancel(sum(row)) == 0
    found = symbolic.hessian().entries
    for row in found[0, :, 1].T:
        assert sympy.cancel(sum(row)) == 0


def test_expressions_print_and_take_logits():
    bandit = SymbolicMDP([[[1], [1]]], [[1, 0]], "1/2", [1], horizon=1)
    assert bandit.expected_return().latex() == r"\pi_{0 0}"
    theta = sympy.symbols("theta_0_0 theta_0_1", real=True)
    in_logits = bandit.expected_return().in_logits().expression
    share = sympy.exp(theta[0]) / (sympy.exp(theta[0]) + sympy.exp(theta[1]))
    assert sympy.simplify(in_logits - share) == 0
    at_one = bandit.expected_return().in_logits().function()([[1.0, 0.0]])
    assert agrees(at_one, 1 / (1 + np.exp(-1.0)))
    # The gradient in the logits is what sympy finds by differentiating the return in the logits.
    mdp = SymbolicMDP.of(
        TabularMDP([[[0.5, 0.5], [1, 0]], [[0, 1], [1, 0]]], [[1, 0], [0, 2]], 0.5, [1, 0])
    )
    value, gradients = mdp.expected_return().in_logits().expression, mdp.gradient().in_logits()
    at = dict(
        zip(
            sympy.symbols("theta_0_0 theta_0_1 theta_1_0 theta_1_1", real=True),
            (0, 1, 2, 3),
            strict=True,
        )
    )
    for symbol, entry in zip(at, gradients.entries.ravel(), strict=True):
        assert abs(sympy.N((sympy.diff(value, symbol) - entry).subs(at), 30)) < 1e-25
    assert r"\pi_{1 0}" in mdp.gradient().latex()
    assert mdp.gradient().expression.shape == (2, 2)


def small_game(horizon=None):
    rng = np.random.default_rng(2)
    rows = rng.dirichlet(np.ones(2), size=(2, 2, 2))
    return StochasticGame(rows, rng.normal(size=(2, 2, 2, 2)), 0.8, [0.3, 0.7], horizon)


@pytest.mark.parametrize("horizon", [None, 2])
def test_games_agree_with_the_linear_solve(horizon):
    game = small_game(horizon)
    symbolic = SymbolicGame.of(game)
    theta1, theta2, v = np.random.default_rng(0).normal(size=(3, 2, 2))
    for of in (1, 2):
        value = symbolic.expected_return(of=of).function()(theta1, theta2)
        assert agrees(value, game_values(game, theta1, theta2)[of - 1])
        for wrt in (1, 2):
            found = symbolic.gradient(of=of, wrt=wrt).function()(theta1, theta2)
            assert agrees(found, game_gradient(game, theta1, theta2, of=of, wrt=wrt))
    for wrt, along in ((1, 1), (1, 2), (2, 1)):
        matrix = symbolic.hessian(of=1, wrt=wrt, along=along).function()(theta1, theta2)
        wanted = game_hvp(game, theta1, theta2, v, of=1, wrt=wrt, along=along)
        assert agrees(np.tensordot(matrix, v, 2), wanted)


def test_the_prisoners_dilemma_in_symbols():
    """Three rounds, and for ever: the value at random memory-one policies."""
    theta1, theta2 = np.random.default_rng(0).normal(size=(2, 5))
    for horizon in (None, 2):
        game = prisoners_dilemma(0.96, horizon)
        symbolic = SymbolicGame.of(game)
        found = symbolic.expected_return(of=2).function()(theta1, theta2)
        assert agrees(found, game_values(game, theta1, theta2)[1])
    found = symbolic.gradient(of=1, wrt=2).function()(theta1, theta2)
    assert agrees(found, game_gradient(game, theta1, theta2, of=1, wrt=2))
    assert r"\pi^{1}_{0 0}" in symbolic.expected_return(of=1).latex()


@pytest.mark.parametrize("horizon", [None, 2])
@pytest.mark.parametrize("steps", [1, 2])
def test_meta_gradients_agree_with_the_adjoint_recursion(steps, horizon):
    mdp = oracles.random_mdp(4, horizon=horizon, n_states=2, n_actions=2)
    rng = np.random.default_rng(0)
    theta, phi = rng.normal(size=(2, 2, 2))
    loop = {"steps": steps, "step_size": 0.7}
    symbolic = SymbolicMDP.of(mdp)
    found = maml_expression(symbolic, steps=steps).function()(theta, 0.7)
    assert agrees(found, meta_gradient(Maml(mdp), theta, **loop))
    found = lirpg_expression(symbolic, phi, steps=steps).function()(theta, 0.7)
    assert agrees(found, meta_gradient(Lirpg(mdp), phi, theta, **loop))
    names = sympy.symbols("phi_0:4")
    rows = [names[:2], names[2:]]
    found = lirpg_expression(symbolic, rows, steps=steps).function(*names)(theta, 0.7, *phi.ravel())
    assert agrees(found, meta_gradient(Lirpg(mdp), phi, theta, **loop))
    game = small_game(horizon)
    for player in (1, 2):
        expression = lola_expression(SymbolicGame.of(game), steps=steps, player=player)
        wanted = meta_gradient(Lola(game, player), phi, theta, **loop)
        assert agrees(expression.function()(phi, theta, 0.7), wanted)


def test_a_meta_gradient_in_logits_is_the_derivative_of_the_adapted_return():
    """With every step put in: differentiate J(theta + alpha grad J(theta)) by sympy alone."""
    bandit = SymbolicMDP([[[1], [1]]], [[1, "-1/2"]], 0, [1], horizon=1)
    theta = sympy.symbols("theta_0_0 theta_0_1", real=True)
    alpha = sympy.Symbol("alpha", real=True)

    def value(logits):
        weights = [sympy.exp(z) for z in logits]
        return (weights[0] - weights[1] / 2) / sum(weights)

    step = [t + alpha * sympy.diff(value(theta), t) for t in theta]
    at = {theta[0]: sympy.Rational(1, 3), theta[1]: sympy.Rational(-1, 5), alpha: 2}
    staged = maml_expression(bandit, steps=1)
    for t, entry in zip(theta, staged.in_logits().entries[0], strict=True):
        wanted = sympy.diff(value(step), t).subs(at)
        assert abs(sympy.N(wanted - entry.subs(at), 30)) < 1e-25
    assert r"\pi^{(1)}_{0 0}" in staged.latex()
    assert staged.expression.shape == (1, 2)


def test_what_is_too_large_is_said_before_trying():
    mdp = TabularMDP.random(8, 4, rng=np.random.default_rng(0), discount=0.9)
    with pytest.raises(ValueError, match=r"at most 600,000 terms, got up to [\d,]+ for order 2"):
        SymbolicMDP.of(mdp).hessian()
    small = SymbolicMDP.of(oracles.random_mdp(4, n_states=2, n_actions=2))
    tight = replace(small, max_size=10)
    with pytest.raises(ValueError, match="raise `max_size`"):
        tight.hessian()
    with pytest.raises(ValueError, match="got up to"):
        SymbolicGame.of(prisoners_dilemma()).hessian(of=1, wrt=1, along=2)


def terms_of(expression):
    """Terms of all numerators."""
    entries = expression.entries.ravel()
    return sum(len(sympy.Add.make_args(sympy.numer(entry))) for entry in entries)


def small_problems():
    """Problems whose expressions are small, with the quantities to count the terms of."""
    x, y = sympy.symbols("x y")
    plain = {h: oracles.random_mdp(4, horizon=h, n_states=2, n_actions=3) for h in (None, 2)}
    found = {f"H = {h}": SymbolicMDP.of(mdp) for h, mdp in plain.items()}
    powers = SymbolicMDP([[[1], [1]]], [[(x + y) ** 12, 0]], 0, [1])
    rates = SymbolicMDP([[[1 - x, x], [1, 0]], [[0, 1], [y, 1 - y]]], [[1, 0], [0, 2]], y, [1, 0])
    found |= {"powers of symbols": powers, "symbols all over": rates}
    quantities = ("expected_return", "state_values", "gradient", "mixed_jacobian", "hessian")
    yield from ((name, problem, q, {}) for name, problem in found.items() for q in quantities)
    for horizon in (None, 2):
        game = SymbolicGame.of(small_game(horizon))
        for quantity, options in (("gradient", {}), ("hessian", {"along": 2})):
            yield f"game, H = {horizon}", game, quantity, {"of": 1, "wrt": 1, **options}
    yield "game, H = 4", SymbolicGame.of(small_game(4)), "expected_return", {"of": 1}


@pytest.mark.parametrize("case", list(small_problems()), ids=lambda c: f"{c[0]}, {c[2]}")
def test_the_estimate_bounds_the_terms(case):
    """What is said when there is no room is at least what there is."""
    _, problem, quantity, options = case
    terms = terms_of(getattr(problem, quantity)(**options))
    assert terms > 0
    with pytest.raises(ValueError, match="got up to") as caught:
        getattr(replace(problem, max_size=0), quantity)(**options)
    said = re.search(r"got up to ([\d,]+) for order", str(caught.value))
    assert int(said[1].replace(",", "")) >= terms


@pytest.mark.parametrize(
    "mdp",
    [
        TabularMDP.random(10, 2, rng=np.random.default_rng(0), discount=0.9),
        TabularMDP.random(60, 1, rng=np.random.default_rng(0), discount=0.9),
        TabularMDP.random(5, 10, rng=np.random.default_rng(0), discount=0.9),
        TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.9, horizon=80),
    ],
)
def test_what_would_take_too_long_is_refused_too(mdp):
    with pytest.raises(ValueError, match="operations to begin with"):
        SymbolicMDP.of(mdp).expected_return()


GOOD = {
    "transition": [[["1/2", "1/2"]], [["0", "1"]]],
    "reward": [[1], [0]],
    "discount": "1/2",
    "start": [1, 0],
}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"transition": [[["1/2", "1/3"]], [[0, 1]]]},
            r"transition: expected probabilities .* 5/6",
        ),
        ({"transition": [[["p", "q"]], [[0, 1]]]}, r"sum to 1 exactly, got p \+ q in row \(0, 0\)"),
        ({"transition": [[[1, 0]]]}, "transition: expected as many next states"),
        ({"reward": [[1]]}, r"rewards: expected shape \(2, 1\)"),
        ({"reward": [1, 2]}, r"reward: expected \[S\]\[A\]"),
        ({"start": [1]}, r"start: expected shape \(2,\)"),
        ({"discount": float("nan")}, "entry: expected a finite number"),
        ({"discount": object()}, "entry: expected a number or an expression"),
        ({"discount": 1}, "discount: 1 needs a finite horizon"),
        ({"discount": "3/2"}, r"discount: expected a number in \[0, 1\]"),
        ({"discount": "1", "horizon": 0}, "horizon: expected an integer >= 1"),
        ({"discount": "1", "horizon": 200}, "horizon: expected at most 100"),
        ({"discount": "__import__('os')"}, "entry: expected a number or an expression"),
        ({"discount": True}, "entry: expected a number or an expression, got True"),
        ({"reward": [[None], [0]]}, "entry: expected a number or an expression, got None"),
        ({"start": [2, -1]}, "start: expected probabilities, got -1"),
        ({"reward": [["pi_0_0"], [0]]}, "entries: expected symbols other than pi_"),
        ({"reward": [["alpha"], [0]]}, "got alpha"),
        ({"reward": [["x"], [sympy.Symbol("x", positive=True)]]}, "one symbol of a name"),
    ],
)
def test_bad_entries_are_named(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        SymbolicMDP(**(GOOD | changes))


def test_entries_that_are_no_polynomials_are_named():
    gamma = sympy.Symbol("gamma")
    with pytest.raises(ValueError, match="entry: expected a polynomial in"):
        SymbolicMDP(**(GOOD | {"discount": sympy.exp(gamma)})).expected_return()
    with pytest.raises(ValueError, match="theta: expected shape"):
        SymbolicMDP(**GOOD).gradient().function()(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="steps: expected at most 4 in an expression, got 5"):
        maml_expression(SymbolicMDP(**GOOD), steps=5)
    with pytest.raises(ValueError, match="steps: expected an integer >= 1"):
        maml_expression(SymbolicMDP(**GOOD), steps=0)
    with pytest.raises(ValueError, match="phi: expected shape"):
        lirpg_expression(SymbolicMDP(**GOOD), [[1]], steps=1)
