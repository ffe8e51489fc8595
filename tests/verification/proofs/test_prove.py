"""Proofs for every policy, formulas of biases, and identity tests at random points."""

import doctest
import inspect
import re
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.symbolic.problems import SymbolicMDP
from gradbias.stochastic.estimators.exact_coefficients import exact_coefficients
from gradbias.stochastic.estimators.kinds import from_callable, from_surrogate
from gradbias.stochastic.surrogates.catalogue import CATALOGUE
from gradbias.stochastic.surrogates.dice import Dice, LoadedDice, Tmaml
from gradbias.stochastic.surrogates.returns import discounts, path_ratios, probability_ratios
from gradbias.stochastic.surrogates.score_function import AD, LVC
from gradbias.stochastic.surrogates.taylor import Taylor, VTrace
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.measurement.measure import measure_bias
from gradbias.verification.proofs.exact_problems import CriticKind
from gradbias.verification.proofs.identity_testing import SIZE, bias_degree, certify
from gradbias.verification.proofs.prove import prove_unbiased
from gradbias.verification.proofs.symbolic_problems import of_shape, of_symbolic_mdp
from tests.cases.checkout import ROOT
from tests.cases.surrogates import cubic, entropy_bonus, lvc_with_detach
from tests.oracles.tolerances import close

ZERO, EXACT, ANY, NO_END = "zero", "exact", "any", "any, then 0"


def proof(surrogate, order, shape, **options):
    return prove_unbiased(from_surrogate(surrogate, order=order), shape, **options)


@dataclass(frozen=True)
class TmamlWithOwnStep(Tmaml):
    """The control variate with step t's own ratio in W."""

    def __call__(self, record):
        crossed = (1.0 - path_ratios(record)) * (1.0 - probability_ratios(record))
        variate = crossed * record.values[..., :-1] * record.alive
        return Dice.__call__(self, record) - (discounts(record) * variate).sum(dim=-1).mean()


def dice_times(factor):
    def scaled(record):
        return factor * Dice()(record)

    return scaled


def dice_with_shifted_discount(record):
    weights = discounts(record) * record.discount
    return (weights * record.rewards * path_ratios(record)).sum(-1).mean()


def dice_without_the_last_reward(record):
    terms = discounts(record) * record.rewards * path_ratios(record)
    return terms[..., :-1].sum(-1).mean()


def baseline(table):
    """DiCE with a baseline of the caller's own, by state or by state and action."""

    def surrogate(record):
        values = table(record.states[..., :-1].double(), record.actions.double())
        extra = discounts(record) * (1.0 - probability_ratios(record)) * values
        return Dice()(record) + (extra * record.alive).sum(-1).mean()

    return surrogate


by_state = baseline(lambda states, actions: 3.0 * states - 1.0)
by_action = baseline(lambda states, actions: states + 2.0 * actions)


def all_actions(record):
    """Both leaves, and products of them."""
    weights = discounts(record) * record.rewards * record.alive
    second = torch.exp(record.log_policy[..., 1] - record.log_policy[..., 1].detach())
    mixed = probability_ratios(record) * second + record.log_policy[..., 0]
    return (weights * mixed).sum(-1).mean()


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("order", [1, 2])
def test_dice_is_proved_unbiased_for_every_policy_and_problem_of_two_states_and_actions(
    steps, order
):
    found = proof(Dice(), order, (2, 2, steps))
    assert found.verdict is Verdict.UNBIASED
    assert found.trajectories == 2 * 4**steps
    assert found.terms > 0
    assert "every policy, transition law, reward r(s, a), discount and start" in found.holds_for
    assert "no terminal states" in found.holds_for
    assert "= 0, all" in str(found)


@pytest.mark.slow
def test_dice_s_hessian_is_proved_for_four_steps():
    assert proof(Dice(), 2, (2, 2, 4), critic_kind=ANY).verdict is Verdict.UNBIASED


PROVED = [
    (AD(), 1, ANY),
    (LVC(), 1, ANY),
    (AD(reward_to_go=False), 1, ANY),
    (AD(gae_lambda=0.5), 1, EXACT),
    (CATALOGUE["actor_critic"], 1, EXACT),
    (Dice(), 3, ZERO),
    (Tmaml(0.25), 2, ANY),
    (LoadedDice(), 2, NO_END),
    (LoadedDice(0.3), 2, EXACT),
    (Taylor(2), 2, NO_END),
    (VTrace(), 2, NO_END),
    (by_state, 2, ZERO),
]
BIASED = [
    (AD(), 2, ZERO),
    (LVC(), 2, ZERO),
    (AD(gae_lambda=0.5), 1, NO_END),
    (CATALOGUE["actor_critic"], 1, ANY),
    (LoadedDice(), 1, ANY),
    (LoadedDice(0.3), 2, ZERO),
    (Taylor(1), 2, NO_END),
    (AD(), 3, ZERO),
    (VTrace(), 1, ANY),
    (TmamlWithOwnStep(), 2, NO_END),
    (dice_times(1.001), 1, ZERO),
    (dice_times(1.001), 2, ZERO),
    (dice_with_shifted_discount, 1, ZERO),
    (dice_without_the_last_reward, 2, ZERO),
    (by_action, 1, ZERO),
    (all_actions, 2, ZERO),
]


@pytest.mark.parametrize(("surrogate", "order", "critic"), PROVED)
def test_what_enumeration_finds_unbiased_is_proved_and_passes_the_identity_test(
    surrogate, order, critic
):
    assert proof(surrogate, order, (2, 2, 2), critic_kind=critic).verdict is Verdict.UNBIASED
    test = certify(from_surrogate(surrogate, order=order), (2, 2, 2), critic_kind=critic)
    assert test.verdict is Verdict.UNBIASED
    assert test.critic_kind is CriticKind(critic)
    assert f", {CriticKind(critic)}" in str(test)
    assert test.problem is None


def numbers(rng, critic, steps=2):
    """A random problem of (2, 2, steps), its critic, and the same by the formula's symbols."""
    mdp = TabularMDP(
        rng.dirichlet([1.0, 1.0], size=(2, 2)),
        rng.normal(size=(2, 2)),
        rng.uniform(0.1, 1.0),
        rng.dirichlet([1.0, 1.0]),
        steps,
    )
    named = {"gamma": mdp.discount, "rho_0": mdp.start[0]}
    for s, a in np.ndindex(2, 2):
        named |= {f"P_{s}_{a}_0": mdp.transition[s, a, 0], f"r_{s}_{a}": mdp.reward[s, a]}
    values = None
    if critic in (ANY, NO_END):
        values = rng.normal(size=(steps + 1, 2))
        values[-1] *= critic == ANY
        named |= {f"v_{t}_{s}": values[t, s] for t in range(steps + 1) for s in range(2)}
    return mdp, values, named


@pytest.mark.parametrize(("surrogate", "order", "critic"), BIASED)
def test_a_biased_twin_is_not_proved_and_its_formula_is_what_enumeration_measures(
    surrogate, order, critic
):
    estimator = from_surrogate(surrogate, order=order)
    formula = prove_unbiased(estimator, (2, 2, 2), critic_kind=critic)
    assert formula.verdict is Verdict.BIASED
    assert formula.terms > 0
    rng = np.random.default_rng(3)
    mdp, values, named = numbers(rng, critic)
    theta = rng.normal(size=(2, 2))
    report = measure_bias(estimator, mdp, theta, critic=values, evidence="enumeration")
    found = formula.at(theta, named)
    assert close(found, report.bias, report.normaliser)
    assert not close(found * (1 + 1e-6), report.bias, 0.0)
    test = certify(estimator, (2, 2, 2), critic_kind=critic)
    assert test.verdict is Verdict.BIASED
    assert test.components
    assert test.probability == 0.0


def random_surrogate(rng):
    """Terms of all kinds with random whole weights: products of scores with earlier and later
    rewards and critic values, of both leaves, with states in them.
    """
    weights = torch.tensor(rng.integers(-3, 4, size=(2, 2)), dtype=torch.float64)
    one, two, three, four = (float(c) for c in rng.integers(1, 4, size=4))
    by_state = float(rng.integers(0, 2))

    def surrogate(record):
        moves = record.log_probs - record.log_probs.detach()
        mixed = moves @ weights + moves[..., :1] * moves[..., 1:]
        earlier = record.values[..., :1] * moves[..., 1:] * (1.0 + moves[..., 1:])
        paid = discounts(record) * record.rewards * (one * path_ratios(record) + two * mixed)
        late = (
            record.values[..., 1:] * record.discount * (mixed + by_state * record.states[..., 1:])
        )
        other = record.log_policy[..., 0] * (record.rewards + by_state * record.states[..., :-1])
        terms = paid + three * earlier + late * moves + four * other
        return (terms * record.alive).sum(-1).mean()

    return surrogate


@pytest.mark.parametrize("critic", [ZERO, ANY, NO_END])
@pytest.mark.parametrize("seed", range(4))
def test_formulas_of_random_surrogates_are_what_enumeration_measures(seed, critic):
    rng = np.random.default_rng(seed)
    order = 1 + seed % 2
    estimator = from_surrogate(random_surrogate(rng), order=order)
    formula = prove_unbiased(estimator, (2, 2, 2), critic_kind=critic)
    mdp, values, named = numbers(rng, critic)
    theta = 2 * rng.normal(size=(2, 2))
    report = measure_bias(estimator, mdp, theta, critic=values, evidence="enumeration")
    assert close(formula.at(theta, named), report.bias, report.normaliser)
    assert certify(estimator, (2, 2, 2), critic_kind=critic).verdict is Verdict.BIASED


def test_the_formula_s_expression_is_what_it_evaluates_to():
    formula = proof(LVC(), 2, (2, 2, 2))
    rng = np.random.default_rng(5)
    _, _, named = numbers(rng, ZERO)
    theta = rng.normal(size=(2, 2))
    symbols = sorted(named)
    function = formula.bias.function(*(sympy.Symbol(name) for name in symbols))
    assert close(function(theta, *(named[n] for n in symbols)), formula.at(theta, named), 1.0)


def test_lvc_s_hessian_bias_vanishes_where_actions_do_not_move_the_state():
    formula = proof(LVC(), 2, (2, 2, 2))
    same = {sympy.Symbol(f"P_{s}_1_0"): sympy.Symbol(f"P_{s}_0_0") for s in range(2)}
    entries = [entry.xreplace(same).expand() for entry in formula.bias.entries.ravel()]
    assert set(entries) == {0}
    assert not any(entry.expand() == 0 for entry in formula.bias.entries.ravel())
    kernel = [[["p", "1 - p"]] * 2, [["q", "1 - q"]] * 2]
    moving = [[["p", "1 - p"], ["q", "1 - q"]], [["q", "1 - q"]] * 2]
    rewards = [["x", "y"], ["z", "w"]]
    unmoved = SymbolicMDP(kernel, rewards, "gamma", ["u", "1 - u"], 3)
    found = proof(LVC(), 2, unmoved)
    assert found.verdict is Verdict.UNBIASED
    assert "every policy and gamma, p, q, u, w, x, y, z" in found.holds_for
    assert proof(LVC(), 2, replace(unmoved, transition=moving)).verdict is Verdict.BIASED


def test_a_given_problem_s_trajectories_end_where_nothing_can_follow():
    """A loss that adds a constant for each dead step is right only if steps are never dead."""
    kernel = [[["p", "1 - p"], ["q", "1 - q"]], [["0", "1"]] * 2]
    endless = SymbolicMDP(kernel, [["x", "y"], ["1", "0"]], "gamma", ["1", "0"], 2)
    ending = replace(endless, reward=[["x", "y"], ["0", "0"]])

    def punishes_ends(record):
        dead = (1.0 - record.alive.double()).sum(-1)
        return Dice()(record) + (dead * record.log_probs[..., 0]).mean()

    assert proof(punishes_ends, 1, endless).verdict is Verdict.UNBIASED
    assert proof(punishes_ends, 1, ending).verdict is Verdict.BIASED
    assert proof(Dice(), 1, ending).verdict is Verdict.UNBIASED


def test_ad_s_hessian_has_mean_zero_under_the_policy_s_own_values():
    """So its bias is minus the Hessian, derived apart."""
    formula = proof(AD(), 2, (2, 2, 2), critic_kind=EXACT)
    assert not any(formula.means.values())
    assert any(proof(AD(), 2, (2, 2, 2)).means.values())
    numeric = TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.5, horizon=2)
    mdp = SymbolicMDP.of(numeric)
    hessian = mdp.hessian().entries
    bias = proof(AD(), 2, mdp, critic_kind=EXACT).bias.entries
    gaps = [(b + h).expand() for b, h in zip(bias.ravel(), hessian.ravel(), strict=True)]
    assert set(gaps) == {0}


def test_a_random_point_decides_where_polynomials_are_too_large():
    with pytest.raises(ValueError, match="use `certify`"):
        proof(Dice(), 2, (3, 3, 3))
    test = certify(from_surrogate(Dice(), order=2), (3, 3, 3), critic_kind=ANY)
    assert test.verdict is Verdict.UNBIASED
    assert test.probability == test.degree / SIZE < 1e-15
    twice = certify(from_surrogate(Dice(), order=1), (2, 2, 2), points=2)
    assert twice.probability == (twice.degree / SIZE) ** 2
    assert "exactly 0 at 2 random points" in str(twice)
    assert "unbiased for the gradient of the 2-step return, 2 states, 2 actions" in str(twice)


@pytest.mark.slow
def test_the_identity_test_takes_four_steps_of_three_states_and_actions():
    test = certify(from_surrogate(Dice(), order=2), (3, 3, 4), critic_kind=ANY)
    assert test.verdict is Verdict.UNBIASED


@pytest.mark.parametrize("surrogate", [LVC(), AD()])
def test_where_the_bias_is_not_zero_the_point_says_so_and_enumeration_agrees(surrogate):
    estimator = from_surrogate(surrogate, order=2)
    test = certify(estimator, (2, 3, 2))
    at = test.problem

    def floats(part):
        return [floats(p) for p in part] if isinstance(part, list) else float(part)

    rewards = np.array(floats(at.rewards)) / SIZE
    law = floats(at.transition)
    mdp = TabularMDP(law, rewards, float(at.discount), floats(at.start), 2)
    report = measure_bias(estimator, mdp, np.log(floats(at.policy)), evidence="enumeration")
    bias = np.zeros((6, 6))
    for key, value in test.components.items():
        bias[key] = float(value / SIZE)
    assert close(bias.reshape(2, 3, 2, 3), report.bias, report.normaliser)
    assert report.verdict is Verdict.BIASED


@pytest.mark.parametrize("critic", [ZERO, ANY, EXACT])
@pytest.mark.parametrize(("surrogate", "order"), [(LVC(), 2), (AD(), 2), (LoadedDice(0.5), 1)])
def test_the_stated_degree_bounds_the_bias_s_own(surrogate, order, critic):
    found = proof(surrogate, order, (2, 2, 2), critic_kind=critic)
    if found.verdict is Verdict.UNBIASED:
        return
    own = max(sum(m) for element in found.components.values() for m in element)
    assert 4 < own <= bias_degree((2, 2, 2), order, 3, CriticKind(critic))


def one_path_alone(record):
    """The longest coefficient there is: of one trajectory, with its first value."""
    here = ((record.actions == 0).all(-1) & (record.states == 0).all(-1)).double()
    scores = record.log_policy[..., -1, 0]
    return record.discount**3 * (here * record.values[..., 0] * scores).mean()


def test_the_degree_counts_the_policy_s_own_values():
    found = proof(one_path_alone, 1, (2, 2, 2), critic_kind=EXACT)
    own = max(sum(m) for element in found.components.values() for m in element)
    zero, exact = (bias_degree((2, 2, 2), 1, 3, CriticKind(kind)) for kind in (ZERO, EXACT))
    assert zero < own == exact


def test_coefficients_are_found_as_the_polynomials_that_they_are():
    paths = of_shape((2, 2, 3), CriticKind.ZERO).problem.paths
    found = exact_coefficients(from_surrogate(AD(), order=1), paths, 2, 2)
    wanted = set()
    for t in range(3):
        for k in range(t, 3):  # gamma^t gamma^(k-t) r_k
            wanted.add((((t, -1),), 1 + k, (*[Fraction(0)] * k, Fraction(1))))
        wanted.add((((t, -1),), 4 + t, (*[Fraction(0)] * t, Fraction(-1))))
    assert set(found.shared) == wanted
    loaded = exact_coefficients(from_surrogate(LoadedDice(0.3), order=1), paths, 2, 2)
    lam = Fraction(0.3)
    values = {p[-1] for _, x, p in loaded.shared if x == 3 and len(p) == 3}
    assert values == {lam**2, lam, 1}
    assert loaded.rounded
    assert not found.rounded


def test_a_result_says_what_was_symbolic_and_what_concrete():
    whole = proof(Dice(), 1, (2, 2, 2)).covered
    assert "rewards, critic, discount and log-probabilities as symbols" in whole
    assert "shape and alive as they are; read from 1 run of 18 operations" in whole
    by_path = certify(from_surrogate(by_action, order=1), (2, 2, 2)).covered
    assert "shape, states, actions and alive as they are; read from 32 runs" in by_path
    assert "each constant for the rational that its float is" in by_path


def test_states_and_actions_may_enter_a_coefficient():
    paths = of_shape((2, 2, 2), CriticKind.ZERO).problem.paths
    assert exact_coefficients(from_surrogate(Dice(), order=1), paths, 2, 2).shared is not None
    found = exact_coefficients(from_surrogate(by_action, order=1), paths, 2, 2)
    assert found.shared is None
    assert len(found.of_path) == len(paths.actions)


def test_one_set_of_coefficients_serves_trajectories_that_end():
    kernel = [[["1", "0"]] * 2, [["p", "1 - p"]] * 2]
    mdp = SymbolicMDP(kernel, [["0", "0"], ["x", "y"]], "gamma", ["u", "1 - u"], 2)
    paths = of_symbolic_mdp(mdp, CriticKind.ZERO).problem.paths
    assert paths.ended[0].all()
    found = exact_coefficients(from_surrogate(Dice(), order=1), paths, 2, 2)
    assert found.shared


def test_what_a_surrogate_makes_of_dead_steps_does_not_matter():
    """Not even what is no polynomial there."""

    def squares_after_the_end(record):
        dead = (~record.alive).double() * (record.log_probs + record.log_probs**2)
        return Dice()(record) + (dead * record.rewards.sum(-1, keepdim=True) ** 2).sum(-1).mean()

    kernel = [[["p", "1 - p"], ["q", "1 - q"]], [["0", "1"]] * 2]
    mdp = SymbolicMDP(kernel, [["x", "y"], ["0", "0"]], "gamma", ["1", "0"], 3)
    assert proof(squares_after_the_end, 2, mdp).verdict is Verdict.UNBIASED


def test_any_critic_is_zero_in_terminal_states():
    kernel = [[["p", "1 - p"], ["q", "1 - q"]], [["0", "1"]] * 2]
    mdp = SymbolicMDP(kernel, [["x", "y"], ["0", "0"]], "gamma", ["1", "0"], 2)
    formula = proof(LoadedDice(), 1, mdp, critic_kind=ANY)
    assert {str(s) for s in formula.bias.entries[0, 0].free_symbols} >= {"v_2_0"}
    assert "v_2_1" not in {str(s) for s in formula.bias.entries[0, 0].free_symbols}


def squared_rewards(record):
    return (record.log_probs * record.rewards**2).sum(-1).mean()


def rational_discount(record):
    return (record.log_probs * record.rewards).sum(-1).mean() / (1.0 + record.discount)


def instead_of_rewards(change):
    """DiCE of changed rewards."""

    def surrogate(record):
        return Dice()(replace(record, rewards=change(record.rewards)))

    return surrogate


def clipped_scores(record):
    return (discounts(record) * record.rewards * record.log_probs.clamp(min=-18.0)).sum(-1).mean()


def absolute_where_there_is_no_critic(record):
    rewards = record.rewards if record.values.any() else record.rewards.abs()
    return Dice()(replace(record, rewards=rewards))


def twice_at_constant_rewards(record):
    constant = (record.rewards == record.rewards[..., :1]).all()
    return (1.0 + constant.double()) * Dice()(record)


def with_a_limit_on_the_discount(record):
    return Dice()(replace(record, discount=0.99 if 0.99 < record.discount < 1 else record.discount))


def absolute_beside_a_large_constant(record):
    return instead_of_rewards(torch.abs)(record) + 1e12 * record.log_probs.sum(-1).mean()


def absolute_rewards(record):
    return (record.log_probs * record.rewards.abs()).sum(-1).mean()


REFUSED = [
    (entropy_bonus, "depend on the policy"),
    (cubic, "depend on the policy"),
    (squared_rewards, r"not affine in rewards and critic \(rewards\[0, 0\]\^2\)"),
    (absolute_rewards, "abs depends on the values of its input, computed from record.rewards"),
    (rational_discount, "reciprocal is a division by what is no product of probabilities"),
    (lvc_with_detach, "couples the trajectories"),
    (instead_of_rewards(lambda r: r.clamp(-10.0, 10.0)), "clamp depends"),
    (instead_of_rewards(lambda r: r.clamp(-1e5, 1e5)), "clamp depends"),
    (instead_of_rewards(torch.round), "round depends"),
    (instead_of_rewards(lambda r: r.long().double()), "a cast to integers"),
    (instead_of_rewards(lambda r: r.float().double()), "rounds to torch.float32"),
    (instead_of_rewards(lambda r: torch.where(r < -9.0, 2 * r, r)), "lt depends"),
    (absolute_where_there_is_no_critic, "any depends .* record.values"),
    (twice_at_constant_rewards, "eq depends"),
    (absolute_beside_a_large_constant, "abs depends"),
    (with_a_limit_on_the_discount, "gt depends .* record.discount"),
    (clipped_scores, "clamp depends .* record.log_probs"),
]


@pytest.mark.parametrize(("surrogate", "reason"), REFUSED)
def test_a_surrogate_whose_coefficients_are_no_exact_polynomials_is_refused(surrogate, reason):
    for function, shape in ((prove_unbiased, (2, 2, 2)), (certify, (1, 2, 2))):
        with pytest.raises(ValueError, match=reason):
            function(from_surrogate(surrogate, order=1), shape)


def test_a_refusal_names_the_operation_and_the_line_of_the_program():
    lines, first = inspect.getsourcelines(absolute_where_there_is_no_critic)
    line = first + next(i for i, text in enumerate(lines) if ".any()" in text)
    text = rf"any depends .*\({re.escape(__file__)}, line {line}\); .* at given points, not proved"
    with pytest.raises(ValueError, match=text):
        proof(absolute_where_there_is_no_critic, 1, (2, 2, 2))


def test_constants_are_the_rationals_that_their_floats_are():
    """An identity that holds for every lambda holds for that of a float, 0.95 or sqrt(1/2)."""
    for lam, shape in [(0.95, (1, 2, 8)), (1 / 3, (1, 2, 6)), (0.5**0.5, (2, 2, 4))]:
        test = certify(from_surrogate(AD(gae_lambda=lam), order=1), shape, critic_kind=EXACT)
        assert test.verdict is Verdict.UNBIASED
    assert proof(LoadedDice(0.95), 1, (1, 2, 4), critic_kind=EXACT).verdict is Verdict.UNBIASED


@pytest.mark.parametrize("factor", [1.0 + 1e-11, 1.0 + 1e-14, 1.0 + 2.0**-52])
def test_a_bias_that_rounded_constants_may_explain_is_neither_proved_nor_called_one(factor):
    with pytest.raises(ValueError, match="may be the rounding of its constants"):
        proof(dice_times(factor), 1, (2, 2, 2))
    with pytest.raises(ValueError, match="may be the rounding of its constants"):
        certify(from_surrogate(dice_times(factor), order=1), (2, 2, 2))
    assert proof(dice_times(1.0 + 1e-8), 1, (2, 2, 2)).verdict is Verdict.BIASED


def by_one_state_and_action(record):
    """DiCE with a baseline that depends on the action in the last state alone."""
    last = (record.states[..., :-1] == 1) * record.actions
    return Dice()(record) + (last * record.log_probs).sum(-1).mean()


def test_one_component_that_is_not_zero_is_a_bias():
    formula = proof(by_one_state_and_action, 1, (2, 2, 2))
    assert formula.verdict is Verdict.BIASED
    assert [key for key, element in formula.components.items() if element] == [(2,), (3,)]
    assert certify(
        from_surrogate(by_one_state_and_action, order=1), (2, 2, 2)
    ).components.keys() == {
        (2,),
        (3,),
    }


def test_too_many_different_trajectories_are_refused(monkeypatch):
    monkeypatch.setattr("gradbias.stochastic.estimators.exact_coefficients.MAX_RUNS", 31)
    with pytest.raises(
        ValueError, match=r"at most 31 different trajectories, got 32 \(it reads ac"
    ):
        proof(by_action, 1, (2, 2, 2))
    assert proof(Dice(), 1, (2, 2, 2)).verdict is Verdict.UNBIASED


def test_bad_requests_are_refused_in_one_sentence():
    estimator = from_surrogate(Dice(), order=2)
    direct = from_callable(lambda batch, theta: np.zeros((2, 2)), order=1, name="direct")
    bandit = SymbolicMDP([[["1"], ["1"]]], [["0", "0"]], "gamma", ["1"], 1)
    named = replace(bandit, reward=[["v_0_0", "0"]])
    for arguments, options, text in [
        ((estimator, (2, 2)), {}, "shape: expected \\(states, actions, steps\\)"),
        ((estimator, (2, 0, 1)), {}, "shape: actions"),
        ((estimator, (2, 2, 1)), {"critic_kind": "some"}, "critic_kind: expected one of zero, e"),
        ((direct, (2, 2, 1)), {}, "direct: expected an estimator that"),
        ((estimator, (2, 1, 1)), {}, "nothing to prove"),
        ((estimator, bandit), {}, "nothing to prove"),
        ((estimator, replace(bandit, horizon=None)), {}, "finite horizon"),
        ((estimator, named), {"critic_kind": ANY}, "other than the critic's, got v_0_0"),
        ((estimator, (2, 2, 2)), {"max_size": 10}, "expected at most 10 terms"),
        ((estimator, (9, 9, 5)), {}, "at most 200,000 trajectories"),
    ]:
        with pytest.raises(ValueError, match=text):
            prove_unbiased(*arguments, **options)
    with pytest.raises(ValueError, match="two actions or more"):
        certify(estimator, (2, 1, 1))
    formula = proof(LVC(), 2, (2, 2, 2))
    member = prove_unbiased(estimator, (2, 2, 2), critic_kind=CriticKind.ANY_THEN_ZERO)
    assert member.holds_for.endswith("any critic that is 0 at the horizon")
    for symbols in ({"gamma": 0.5}, [1.0], None):
        with pytest.raises(ValueError, match="symbols: expected numbers for"):
            formula.at(np.zeros((2, 2)), symbols)
    named = dict.fromkeys(map(str, formula.symbolic.ring.symbols), 0.5)
    for value in (np.nan, np.inf, "1", None, True):
        with pytest.raises(ValueError, match="gamma: expected a number"):
            formula.at(np.zeros((2, 2)), named | {"gamma": value})
    for nothing in (Dice(), None):
        with pytest.raises(ValueError, match="expected an estimator that"):
            prove_unbiased(nothing, (2, 2, 2))
    with pytest.raises(ValueError, match="rng: expected a numpy Generator, got int"):
        certify(estimator, (2, 2, 1), rng=3)
    for shape in [(10**6, 10**6, 10**6), (1, 2, 10**9)]:
        with pytest.raises(ValueError, match="at most 200,000 trajectories, got about 10"):
            certify(estimator, shape)
    with pytest.raises(ValueError, match="critic_kind: expected one of"):
        proof(Dice(), 1, (2, 2, 1), critic_kind=np.zeros((2, 2)))


def test_the_documents_examples_run():
    page = ROOT / "docs" / "certificates.md"
    found = doctest.testfile(str(page), module_relative=False)
    assert found.failed == 0
    assert found.attempted > 8
