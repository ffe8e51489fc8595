"""`for_all_mdps`: what it finds, how small, what it prints, and what does not count."""

import re
import sys

import numpy as np
import pytest
from hypothesis import strategies as st

from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenTarget, Undiscounted, update_field
from gradbias.analytic.returns.evaluation import evaluate_parameters
from gradbias.stochastic.estimators.kinds import from_callable, from_surrogate
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import AD, LVC, ad, lvc
from gradbias.verification import properties
from gradbias.verification.measurement.measure import measure_bias
from gradbias.verification.properties.for_all import for_all_mdps
from gradbias.verification.properties.ledgers import Ledger
from gradbias.verification.properties.source_code import as_constructor, as_lists
from gradbias.verification.properties.strategies import PolicyKind, policies_for, tabular_mdps
from gradbias.verification.properties.table_strategies import Dynamics, Rewards
from tests.cases.failed_properties import failure, problem_in

SMALL = {"max_states": 2, "max_actions": 2, "max_horizon": 2}


def test_what_is_unbiased_holds_and_leaves_one_claim():
    ledger = Ledger()
    for_all_mdps(dice, order=2, **SMALL, max_examples=30)(ledger)
    (claim,) = ledger.claims
    assert claim.held
    assert claim.evidence.keys() == {"enumeration"}
    assert claim.evidence["enumeration"] - claim.vacuous >= 5
    assert ledger.spent == 0.0


def test_the_plain_loss_s_hessian_fails_on_a_bandit_of_one_step():
    text = failure(for_all_mdps(ad, order=2))
    mdp, theta = problem_in(text)
    assert mdp.transition.shape == (1, 2, 1)
    assert (mdp.reward.tolist(), mdp.horizon, mdp.discount) == ([[1.0, 0.0]], 1, 1.0)
    assert not theta.any()
    report = measure_bias(from_surrogate(ad, order=2), mdp, theta)
    assert "for the Hessian of the 1-step return" in text.splitlines()[0]
    assert f"absolute {report.bias_norm:.6g}" in text
    expected = np.array([[-1.0, 1.0], [1.0, -1.0]]) / 8  # -J F: a half, times the Fisher matrix
    assert np.abs(report.bias.reshape(2, 2) - expected).max() < 1e-15


@pytest.mark.slow
def test_lvc_s_hessian_fails_on_two_states_that_an_action_chooses_between():
    """Neither a state, nor an action, nor a step less has the bias: for any of them it holds."""
    mdp, theta = problem_in(failure(for_all_mdps(lvc, order=2)))
    assert (mdp.n_states, mdp.n_actions, mdp.horizon) == (2, 2, 2)
    assert (mdp.transition[:, 0] != mdp.transition[:, 1]).any()
    assert np.count_nonzero(mdp.reward) == 1
    report = measure_bias(from_surrogate(lvc, order=2), mdp, theta)
    assert report.bias_norm > 1e-3
    # The closed form: -(X + X^T), X = gamma delta grad pi(0|0) (grad V(0) - grad V(1))^T.
    if mdp.start[0] == 1.0 and not theta.any():
        delta = mdp.transition[0, 0, 0] - mdp.transition[0, 1, 0]
        along = np.array([[0.25, -0.25], [0.0, 0.0]])
        paid = mdp.reward[:, 0] - mdp.reward[:, 1]
        onward = 0.25 * np.array([[paid[0], -paid[0]], [-paid[1], paid[1]]])
        cross = mdp.discount * delta * np.multiply.outer(along, onward)
        expected = -(cross + cross.transpose(2, 3, 0, 1))
        assert np.abs(report.bias - expected).max() < 1e-15


SMALLER = {
    "one state": {"max_states": 1},
    "one step": {"max_horizon": 1},
    "no action leads elsewhere": {"dynamics": [Dynamics.ACTION_INDEPENDENT]},
}


def tilted(mdp):
    return policies_for(mdp, [PolicyKind.MILD, PolicyKind.PEAKED])


def lvc_claim(**sizes):
    """What a search for a bias of LVC's Hessian leaves, up to sizes at which there can be one."""
    problems = tabular_mdps(**(SMALL | sizes), min_actions=2, rewards=[Rewards.BY_ACTION])
    ledger = Ledger()
    for_all_mdps(lvc, order=2, problems=problems, policies=tilted, max_examples=60)(ledger)
    (claim,) = ledger.claims
    return claim


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLER)
def test_lvc_s_hessian_is_unbiased_on_anything_smaller(name):
    """Exactly, on at least ten different problems where neither mean nor target is 0."""
    claim = lvc_claim(**SMALLER[name])
    assert claim.held
    assert claim.evidence.keys() == {"enumeration"}
    assert claim.evidence["enumeration"] - claim.vacuous >= 10
    assert claim.undecided == 0


@pytest.mark.slow
def test_with_all_of_it_the_same_search_finds_lvc_s_bias():
    """The broken twin of the claims that nothing smaller has it."""
    with pytest.raises(AssertionError, match="2 states, 2 actions, horizon 2"):
        lvc_claim()


@pytest.mark.slow
def test_the_target_may_depend_on_the_problem():
    """The gradient without gamma^t is biased for the return's, and right for the update field."""
    plain = AD(weighting=Undiscounted())
    sizes = SMALL | {"max_examples": 40}
    mdp, _ = problem_in(failure(for_all_mdps(plain, **sizes)))
    assert mdp.discount < 1.0
    assert mdp.horizon == 2
    for_all_mdps(plain, target=lambda mdp: update_field(horizon=mdp.horizon), **sizes)(Ledger())


@pytest.mark.slow
def test_options_may_depend_on_the_problem():
    """With the exact baseline AD's Hessian is 0 on average: another bias, on another problem."""
    seen = []

    def with_values(mdp, theta):
        seen.append((mdp, theta))
        return {"critic": evaluate_parameters(mdp, theta, TABULAR).values}

    small = {"max_states": 1, "max_actions": 2, "max_horizon": 1}
    _, theta = problem_in(failure(for_all_mdps(ad, order=2, options=with_values, **small)))
    assert len(seen) > 1
    assert theta.any()  # at the uniform policy the Hessian is 0 as well
    with pytest.raises(ValueError, match="critic"):
        for_all_mdps(lvc, options={"critic": np.zeros(7)}, **SMALL)(Ledger())


def test_problems_on_which_nothing_is_tested_do_not_count():
    unpaid = tabular_mdps(**SMALL, rewards=[Rewards.ZERO])
    ledger = Ledger()
    with pytest.raises(AssertionError, match=r"only 0 of \d+ problems were informative") as caught:
        for_all_mdps(dice, problems=unpaid, max_examples=10)(ledger)
    assert "\n" not in str(caught.value)
    (claim,) = ledger.claims
    assert not claim.held
    assert claim.vacuous == sum(claim.evidence.values()) > 0


def test_sampled_examples_share_one_claim_s_rate_and_are_the_same_in_every_run():
    one = TabularMDP([[[1.0]] * 2], [[1.0, 0.0]], 1.0, [1.0], 1)
    options = {"evidence": "sampling", "budget": 40_000, "tolerance": 0.2}
    ledgers = [Ledger(), Ledger()]
    for ledger in ledgers:
        for_all_mdps(dice, problems=st.just(one), options=options, max_examples=8)(ledger)
        assert 0.0 < ledger.spent <= Ledger().next_rate() * (1 + 1e-12)
        assert ledger.claims[0].smallest_detectable > 0.2
    assert ledgers[0].claims == ledgers[1].claims


def test_sampled_examples_that_decide_nothing_do_not_count():
    one = TabularMDP([[[1.0]] * 2], [[1.0, 0.0]], 1.0, [1.0], 1)
    property_ = for_all_mdps(
        dice,
        problems=st.just(one),
        policies=lambda mdp: policies_for(mdp, [PolicyKind.PEAKED]),
        options={"evidence": "sampling", "budget": 200},
        max_examples=4,
    )
    told = r"only 0 of \d problems were informative \(0 vacuous, \d undecided\)"
    assert re.search(told, failure(property_))


@pytest.mark.slow
def test_a_sampled_bias_is_found_and_printed_with_its_rate():
    options = {"evidence": "sampling", "budget": 5_000}
    text = failure(for_all_mdps(ad, order=2, options=options, max_examples=20, **SMALL))
    assert "1 state, 2 actions, horizon 1" in text
    assert "false alarm" in text


def test_direct_estimates_and_given_targets_are_properties_too():
    def one(batch, theta):
        return np.ones(theta.shape)

    def ones(mdp):
        return GivenTarget("ones", np.ones((mdp.n_states, mdp.n_actions)))

    small = {"max_states": 1, "max_actions": 2, "max_horizon": 1, "max_examples": 10}
    for_all_mdps(from_callable(one, order=1), target=ones, **small)(Ledger())
    assert "one is biased for the gradient" in failure(
        for_all_mdps(from_callable(one, order=1), **small)
    )


def test_the_failure_says_which_known_mistake_it_is():
    """On a two-armed bandit at the uniform policy the target is 0, and AD's mean is AD's."""
    text = failure(for_all_mdps(ad, order=2, **SMALL))
    assert text.count("  diagnosis   ") == 1
    assert "  fits        AD" in text


def test_the_constructor_makes_the_very_problem():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        mdp = TabularMDP.random(3, 2, rng=rng, discount=0.9, horizon=None if seed % 2 else 3)
        again = eval(as_constructor(mdp), {"TabularMDP": TabularMDP})
        for name in ("transition", "reward", "start"):
            assert (getattr(again, name) == getattr(mdp, name)).all()
        assert (again.discount, again.horizon) == (mdp.discount, mdp.horizon)
        theta = rng.normal(size=(3, 2))
        assert (np.array(eval(as_lists(theta))) == theta).all()
        assert max(len(line) for line in as_constructor(mdp).splitlines()) < 100


def test_what_makes_no_property_is_refused():
    for wrong in (
        {"max_actions": 1},
        {"max_examples": 0},
        {"min_informative_share": 2.0},
        {"order": 4},
    ):
        with pytest.raises(ValueError, match="expected"):
            for_all_mdps(lvc, **wrong)
    assert for_all_mdps(LVC(), order=2).__doc__.endswith("LVC(), order 2, is unbiased.")


def test_without_hypothesis_one_sentence_says_what_to_install(monkeypatch):
    home = "gradbias.verification.properties.strategies"
    for name in [module for module in sys.modules if module.startswith(home)]:
        monkeypatch.delitem(sys.modules, name)
    # A name that was used before stands in the package itself.
    monkeypatch.delitem(vars(properties), "tabular_mdps", raising=False)
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match=r"tabular_mdps needs hypothesis: pip install 'gradbias"):
        properties.tabular_mdps  # noqa: B018
