"""Conforming estimators pass; for each check there is an estimator that fails it and no other."""

import itertools
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.stochastic.estimators.kinds import (
    CallableEvaluator,
    SurrogateEstimator,
    from_callable,
    from_draws,
    from_surrogate,
)
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import Sampled
from gradbias.stochastic.surrogates.group_relative import rloo
from gradbias.stochastic.surrogates.off_policy import OffPolicyDice, Ratio
from gradbias.stochastic.surrogates.score_function import AD, LVC, actor_critic, ad
from gradbias.verification.conformance import meta_checks as conformance_meta_checks
from gradbias.verification.conformance import sampling as conformance_sampling
from gradbias.verification.conformance.problems import Distribution, Relabelling, Setup
from gradbias.verification.conformance.report import ConformanceVerdict, Outcome
from gradbias.verification.conformance.sampling import bernstein
from gradbias.verification.conformance.suite import (
    Claim,
    assert_conforms,
    check_estimator,
    check_meta_gradient,
    conformance_tests,
)
from tests.cases.conforming import (
    CONFORMING,
    by_hand,
    one_step_ahead,
    probabilities,
    reinforce_each,
)

QUICK = ("ad", "rloo", "by hand", "one step ahead", "off_policy_dice")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CONFORMING],
)
def test_a_conforming_estimator_passes_every_check_that_it_claims(name):
    """Mode sampling: false alarms 1e-4 an estimator at most, with a fixed seed."""
    estimator, n, claims = CONFORMING[name]
    report = assert_conforms(
        estimator,
        claims=claims,
        batch_size=n,
        mode="sampling",
        replications=300,
        rng=np.random.default_rng(1),
    )
    # Those that draw their own batches have no batches to be looked at: four checks are left.
    # Those that couple theirs are not asked two questions, those in numpy not two others.
    fewest = {"one step ahead": 4, "by hand": 10}.get(name, 12 if n is None else 10)
    assert report.ran == fewest + len(claims)


@pytest.mark.parametrize(
    "name", ["rloo", *(pytest.param(n, marks=pytest.mark.slow) for n in ("ad, Hessian", "dice"))]
)
def test_what_is_not_claimed_is_not_so(name):
    """The table's claims are complete: each other one fails."""
    estimator, n, claims = CONFORMING[name]
    others = set(Claim) - claims - ({Claim.SYMMETRIC} if estimator.order == 1 else set())
    report = check_estimator(estimator, claims=others, batch_size=n, rng=np.random.default_rng(1))
    assert set(report.failed) == {f"claim {claim.name}" for claim in others}


def steps_of(record):
    return torch.arange(record.rewards.shape[-1], device=record.rewards.device)


def scores(record, credit):
    return record.discount ** steps_of(record) * credit * record.log_probs


def rewards_to_go(record):
    steps = steps_of(record)
    later = (steps[:, None] - steps[None, :]).clamp(min=0)
    return record.rewards @ torch.tril(record.discount**later)


def rounded(record):
    """Single precision inside."""
    return ad(replace(record, rewards=record.rewards.float().to(record.rewards.dtype)))


def product_of_means(record):
    """Couples unlike trajectories, not copies of one."""
    whole = (record.discount ** steps_of(record) * record.rewards).sum(-1)
    return record.log_probs.sum(-1).mean() * whole.mean()


def without_copies(batch, theta):
    """The sum over different trajectories, over the number of all."""
    steps = np.concatenate([batch.states, batch.actions, batch.rewards], axis=1)
    _, first = np.unique(steps, axis=0, return_index=True)
    return reinforce_each(batch, theta)[first].sum(axis=0) / len(steps)


def by_action_number(record):
    return scores(record, rewards_to_go(record) * (1 + record.actions)).sum(-1).mean()


def by_number_of_states(batch, theta):
    return by_hand(batch, theta) / len(theta)


def mean_over_all_steps(record):
    return scores(record, rewards_to_go(record)).mean()


def always_double(record):
    """Insists on float64."""
    return ad(record).double()


def on_the_cpu(record):
    """Insists on the CPU."""
    weights = 0.9 ** torch.arange(record.rewards.shape[-1])
    return (weights * rewards_to_go(record) * record.log_probs).sum(-1).mean()


def not_symmetric(batch, theta):
    """The first step's score times the gradient: the two derivatives are of two kinds."""
    policy, found = probabilities(theta), np.zeros(theta.shape * 2)
    for i, each in enumerate(reinforce_each(batch, theta)):
        first = np.zeros(theta.shape)
        if batch.alive[i, 0]:
            start = batch.states[i, 0]
            first[start] -= policy[start]
            first[start, batch.actions[i, 0]] += 1.0
        found += np.multiply.outer(first, each)
    return found / len(batch.actions)


def not_homogeneous(record):
    return ad(replace(record, rewards=record.rewards + record.rewards**2))


@dataclass(frozen=True, eq=False)
class Meddling:
    """REINFORCE by hand, whose evaluators meddle with all replications of a call at once."""

    meddle: object
    name: str = "meddling"
    order: int = 1

    def prepare(self, batch, context):
        del batch
        return MeddlingEvaluator(from_callable(by_hand, order=1), context, meddle=self.meddle)


@dataclass(frozen=True, eq=False)
class MeddlingEvaluator(CallableEvaluator):
    meddle: object = None

    def rows(self, batch):
        return Rows.of_dense(self.meddle(super().rows(batch).dense()))


def centred(values):
    return values - values.mean(axis=0)


def first_thousand(values):
    """A last chunk that is forgotten."""
    return np.where(np.arange(len(values))[:, None, None] < 1_000, values, 0.0)


def growing():
    calls = itertools.count(1)
    return lambda values: values * (1 + 1e-3 * next(calls))


BROKEN = {
    "runs and shapes": from_callable(lambda batch, theta: by_hand(batch, theta)[0], order=1),
    "purity": Meddling(growing()),
    "replications independent": Meddling(centred),
    "double precision": from_surrogate(rounded, order=1),
    "float32 record": from_surrogate(always_double, order=1),
    "another device": from_surrogate(on_the_cpu, order=1),
    "coupling declared": from_surrogate(product_of_means, order=1),
    "identical trajectories": from_callable(without_copies, order=1),
    "relabelling": from_surrogate(by_action_number, order=1),
    "horizon 1 is a bandit": from_callable(by_number_of_states, order=1),
    "dead steps carry nothing": from_surrogate(mean_over_all_steps, order=1),
    "claim REWARD_SCALE": from_surrogate(not_homogeneous, order=1),
    "claim SYMMETRIC": from_callable(not_symmetric, order=2),
    "claim REWARD_SHIFT": from_surrogate(ad, order=1),
    "claim MEAN_REWARD_SHIFT": from_surrogate(ad, order=2),
    "claim CRITIC_IGNORED": from_surrogate(ad, order=1),
    "claim CRITIC_IS_BASELINE": from_surrogate(actor_critic, order=1),
    "claim BEHAVIOUR_IGNORED": from_surrogate(OffPolicyDice(), order=1),
    "claim OFF_POLICY": from_surrogate(OffPolicyDice(Ratio.PER_STEP), order=1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_check_is_failed_by_an_estimator_that_fails_no_other(name):
    claims = [claim for claim in Claim if f"claim {claim.name}" == name]
    report = check_estimator(BROKEN[name], claims=claims)
    assert report.failed == (name,), str(report)


def test_sampling_that_differs_from_enumeration_fails_that_check_alone():
    estimator = Meddling(first_thousand)
    report = check_estimator(estimator, mode="sampling", replications=2_000)
    assert report.failed == ("sampling agrees with enumeration",)
    assert not check_estimator(estimator).failed
    assert not check_estimator(estimator, mode="sampling", replications=900).failed


def test_once_an_estimator_is_no_function_nothing_else_is_asked():
    report = check_estimator(BROKEN["purity"])
    assert report.ran == 2
    skipped = [check for check in report.checks if check.outcome is Outcome.SKIPPED]
    assert all(check.detail == "says nothing, as purity failed" for check in skipped)


def drawing(change):
    def run(draw, theta):
        return change(one_step_ahead(draw, theta), theta)

    return from_draws(run, order=1)


def wandering():
    calls = itertools.count()
    return drawing(lambda found, theta: found * (1 + next(calls)))


DRAWING = {
    "runs and shapes": drawing(lambda found, theta: found[0]),
    "purity": wandering(),
    "relabelling": drawing(lambda found, theta: found * np.arange(1, theta.shape[1] + 1)),
}


@pytest.mark.parametrize("name", DRAWING)
def test_estimates_that_draw_fail_the_checks_that_apply_to_them(name):
    assert check_estimator(DRAWING[name]).failed == (name,)


def test_an_estimate_that_draws_at_random_parameters_of_its_own_fails_purity():
    rng = np.random.default_rng(0)

    def lost(draw, theta):
        return by_hand(draw(theta + rng.normal(), 1), theta)

    assert check_estimator(from_draws(lost, order=1)).failed == ("purity",)


def test_a_declared_coupling_is_not_held_against_an_estimator():
    assert check_estimator(from_surrogate(rloo, order=1)).failed != ()
    report = check_estimator(from_surrogate(rloo, order=1), batch_size=2)
    assert not report.failed
    details = {check.name: check.detail for check in report.checks}
    assert details["coupling declared"] == "coupling was declared"
    assert report.enumerated == ""


@pytest.mark.parametrize(
    ("n", "enumerated", "remark"),
    [
        (4, "2 states, 2 actions, 2 steps", ""),
        (16, "2 states, 2 actions, 2 steps", ""),
        (64, "1 states, 2 actions, 1 steps", "over one step only: batches of 64 are too many"),
    ],
)
def test_means_over_one_step_are_said_to_be_that(n, enumerated, remark):
    """Sets of trajectories in any order, where the order makes no difference."""
    claim = Claim.MEAN_REWARD_SHIFT
    report = check_estimator(from_surrogate(rloo, order=1), batch_size=n, claims=[claim])
    assert not report.failed
    assert report.enumerated == enumerated
    detail = {check.name: check.detail for check in report.checks}["claim MEAN_REWARD_SHIFT"]
    assert detail.startswith(remark)
    assert bool(detail) == bool(remark)


def pairwise(record):
    """The first trajectory's return is the second's baseline: their order matters."""
    whole = record.rewards.sum(-1)
    return ((whole[1:] - whole[:1]) * record.log_probs[1:].sum(-1)).mean()


def test_where_order_matters_batches_are_enumerated_in_every_order():
    claims = [Claim.MEAN_REWARD_SHIFT]
    few, many = (
        check_estimator(from_surrogate(pairwise, order=1), batch_size=n, claims=claims)
        for n in (4, 13)
    )
    assert few.enumerated == "2 states, 2 actions, 2 steps"
    assert not few.failed
    details = {check.name: check.detail for check in many.checks}
    assert details["claim MEAN_REWARD_SHIFT"].startswith("batches of 13 are too many to enumerate")


def test_a_report_says_how_many_checks_ran_and_one_line_for_each():
    report = check_estimator(
        from_surrogate(LVC(), order=2), claims=[Claim.REWARD_SCALE], mode="sampling"
    )
    lines = str(report).splitlines()
    assert lines[0] == "LVC(): 13 checks ran, none failed, 7 skipped"
    assert len(report.checks) == 20
    assert lines[-2] == "  means over all batches, on 3 states, 2 actions, 3 steps"
    assert re.fullmatch(r"  \d+ comparisons; false alarms: 0.0001 at most", lines[-1])
    assert report.false_alarm == 1e-4
    assert check_estimator(from_surrogate(LVC(), order=2)).false_alarm == 0.0
    assert "skipped claim OFF_POLICY: not claimed" in str(report)


def test_assert_conforms_raises_with_the_report():
    with pytest.raises(AssertionError, match=r"1 failed(.|\n)*failed  relabelling: with states"):
        assert_conforms(BROKEN["relabelling"])
    assert check_estimator(BROKEN["relabelling"]).verdict is ConformanceVerdict.FAILS
    assert assert_conforms(from_surrogate(ad, order=1)).verdict is ConformanceVerdict.CONFORMS


test_ad_conforms = conformance_tests(from_surrogate(ad, order=1), claims=[Claim.REWARD_SCALE])


def test_a_check_is_a_test_item_of_its_own():
    """One for each check that was asked for; what does not apply is a skipped test."""
    options = {
        "claims": [Claim.SYMMETRIC],
        "mode": "sampling",
        "exempt": {"horizon 1 is a bandit": "on purpose"},
    }
    item = conformance_tests(BROKEN["relabelling"], **options)
    (mark,) = item.pytestmark
    report = check_estimator(BROKEN["relabelling"], **options)
    unasked = ("not claimed", "exempt: on purpose")
    asked = [check for check in report.checks if check.detail not in unasked]
    assert mark.args == ("check", [check.name for check in asked])
    outcomes = {}
    for name in mark.args[1]:
        try:
            outcomes[name] = item(name)
        except (AssertionError, pytest.skip.Exception) as raised:
            outcomes[name] = str(raised)
    assert outcomes["relabelling"].startswith("by_action_number: failed  relabelling: with states")
    assert outcomes["claim SYMMETRIC"] == "an estimate of order 1 has nothing to exchange"
    assert [name for name, said in outcomes.items() if said is None] == [
        check.name for check in asked if check.outcome is Outcome.PASSED
    ]
    with pytest.raises(ValueError, match="claims: expected several members of Claim"):
        conformance_tests(from_surrogate(ad, order=1), claims=None)


def test_a_meta_gradient_has_test_items_of_its_own():
    bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    slot = Sampled(ad, 1)
    meta = MetaGradient(SampledLoop(bandit, starts_at_meta=True), 1, 1.0, slot, slot, slot)
    items = conformance_tests(meta, meta_parameters=[[0.5, 0.0]])
    names = items.pytestmark[0].args[1]
    assert len(names) == 5
    for name in names:
        items(name)


def test_means_of_estimates_that_draw_are_compared_too():
    claims = [Claim.MEAN_REWARD_SHIFT, Claim.OFF_POLICY]
    right = from_draws(lambda draw, theta: by_hand(draw(theta, 1), theta), order=1)
    report = check_estimator(right, claims=claims)
    results = {check.name: check for check in report.checks}
    assert results["claim MEAN_REWARD_SHIFT"].outcome is Outcome.PASSED
    assert results["claim OFF_POLICY"].detail == "the estimate draws its own batches"
    ahead = from_draws(one_step_ahead, order=1)
    assert check_estimator(ahead, claims=claims).failed == ("claim MEAN_REWARD_SHIFT",)


def test_an_exemption_is_granted_with_its_reason():
    """Weight decay acts on all states, also over one step."""

    def decayed(batch, theta):
        return by_hand(batch, theta) - 0.1 * theta

    estimator = from_callable(decayed, order=1)
    assert check_estimator(estimator).failed == ("horizon 1 is a bandit",)
    report = check_estimator(estimator, exempt={"horizon 1 is a bandit": "weight decay"})
    assert not report.failed
    assert "skipped horizon 1 is a bandit: exempt: weight decay" in str(report)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"claims": ["REWARD_SCALE"]}, "claims: expected members of Claim, got 'REWARD_SCALE'"),
        ({"claims": "REWARD_SCALE"}, "claims: expected several members of Claim, got 'REWARD_SC"),
        ({"claims": Claim.REWARD_SCALE}, "claims: expected several members of Claim, got <Claim"),
        ({"claims": None}, "claims: expected several members of Claim, got None"),
        ({"exempt": ["relabelling"]}, "exempt: expected reasons by name of the check, got ['rel"),
        ({"exempt": {"relabelling": 3}}, "exempt: expected the reason for 'relabelling' in words"),
        ({"exempt": {"relabelling": " "}}, "exempt: expected the reason for 'relabelling' in wor"),
        ({"mode": "quick"}, "mode: expected one of exact, sampling, got 'quick'"),
        ({"exempt": {"purity": "no"}}, "exempt: expected names among"),
        ({"rng": 3}, "rng: expected a numpy Generator, got 3"),
        ({"false_alarm": 0.7}, "false_alarm: expected"),
        ({"batch_size": 0}, "batch_size: expected"),
    ],
)
def test_bad_requests_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_estimator(from_surrogate(ad, order=1), **options)


def test_relabelling_moves_every_label_and_keeps_the_problem():
    rng = np.random.default_rng(3)
    setup = Setup.random(rng, (3, 2, 3))
    names = Relabelling.random(rng, setup)
    assert (names.states != np.arange(3)).all()
    assert (names.actions != np.arange(2)).all()
    renamed = names.setup(setup)
    for s, a, later in itertools.product(range(3), range(2), range(3)):
        at = names.states[s], names.actions[a], names.states[later]
        assert renamed.mdp.transition[at] == setup.mdp.transition[s, a, later]
        assert renamed.mdp.reward[at] == setup.mdp.reward[s, a, later]
        assert renamed.theta[at[:2]] == setup.theta[s, a]
        assert renamed.critic[1, at[0]] == setup.critic[1, s]
    batch = setup.drawn(rng, 4, 2)
    log_policy = np.log(probabilities(renamed.theta))
    turned = names.batch(batch)
    found = log_policy[turned.states[..., :-1], turned.actions]
    assert np.allclose(found, batch.behaviour_log_probs)
    assert np.allclose(
        renamed.mdp.step_reward(turned.states[..., :-1], turned.actions, turned.states[..., 1:]),
        batch.rewards,
    )


def test_relabelled_trajectories_that_have_ended_stay_so():
    rng = np.random.default_rng(4)
    setup = Setup.random(rng, (3, 2, 3), ends=True)
    names = Relabelling.random(rng, setup)
    batch = setup.drawn(rng, 20, 2)
    turned, renamed = names.batch(batch), names.setup(setup)
    assert (~batch.alive).any()
    assert (turned.actions[~turned.alive] == 0).all()
    assert np.array_equal(turned.alive, ~renamed.mdp.terminal[turned.states[..., :-1]])


def test_the_sampling_bound_holds_far_more_often_than_it_says():
    """Skewed coins: at a nominal 5% no more than 5% stray, one-sided binomial slack 1e-6."""
    rng = np.random.default_rng(0)
    for probability in (0.5, 0.02, 0.001):
        exact = Distribution(
            np.array([probability]),
            np.array([probability * (1 - probability)]),
            np.array([max(probability, 1 - probability)]),
        )
        radius = bernstein(exact, 100, 0.05)[0]
        means = rng.binomial(100, probability, size=20_000) / 100
        strays = (np.abs(means - probability) > radius).mean()
        assert strays <= 0.05
        if probability > 0.01:
            assert radius < 5 * np.sqrt(exact.variance[0] / 100)  # and it is not idle


@pytest.mark.parametrize("function", ["bernstein", "median_blocks"])
def test_the_rate_is_split_over_the_entries(function, monkeypatch):
    """Of the estimates over 2 states and 2 actions, or over as many as can be enumerated."""
    asked, plain = [], getattr(conformance_sampling, function)

    def watched(*given):
        asked.append(given[-1])
        return plain(*given)

    for module in (conformance_sampling, conformance_meta_checks):
        monkeypatch.setattr(module, function, watched, raising=False)
    if function == "bernstein":
        report = check_estimator(from_surrogate(ad, order=1), mode="sampling", replications=50)
        entries = int(report.enumerated[0]) * 2
    else:
        bandit = TabularMDP([[[1.0], [1.0], [1.0]]], [[1.0, 0.0, 2.0]], 0.9, [1.0], horizon=1)
        loop, slot = SampledLoop(bandit, starts_at_meta=True), Sampled(ad, 1)
        asker = MetaGradient(loop, 1, 1.0, slot, slot, slot)
        report = check_meta_gradient(asker, [[0.5, 0.0, 1.0]], mode="sampling", replications=500)
        entries = 3
    assert not report.failed
    assert asked == [pytest.approx(1e-4 / entries)]


@pytest.mark.slow
def test_no_false_alarms_over_many_seeds():
    """By the bound at most 114 x 1e-4 of runs of this test fail."""
    names = list(CONFORMING)
    for seed in range(114):
        estimator, n, claims = CONFORMING[names[seed % len(names)]]
        assert_conforms(
            estimator,
            claims=claims,
            batch_size=n,
            mode="sampling",
            replications=500,
            rng=np.random.default_rng(seed),
        )


def test_surrogates_are_checked_as_they_come():
    assert isinstance(BROKEN["relabelling"], SurrogateEstimator)
    assert not check_estimator(from_surrogate(AD(), order=3)).failed


def test_a_critic_that_is_bootstrapped_from_is_a_baseline_where_it_ends_in_0():
    estimator = from_surrogate(AD(gae_lambda=1.0), order=1)
    assert not check_estimator(estimator, claims=[Claim.CRITIC_IS_BASELINE]).failed
