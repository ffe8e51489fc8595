"""Each mistake that an estimator can make fails the check that is there for it, and what is no
mistake fails none.
"""

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.stochastic.derivatives.process_state import Generators, Settings, put_back
from gradbias.stochastic.estimators.dtype_device import USUAL, elsewhere, gradients_at
from gradbias.stochastic.estimators.kinds import from_callable, from_draws, from_surrogate
from gradbias.stochastic.surrogates.group_relative import grpo
from gradbias.stochastic.surrogates.off_policy import log_ratios
from gradbias.stochastic.surrogates.score_function import ad
from gradbias.verification.conformance.problems import Setup, distribution, ended
from gradbias.verification.conformance.report import Outcome
from gradbias.verification.conformance.runner import NotSatisfied, check_equal
from gradbias.verification.conformance.suite import Claim, check_estimator
from tests.cases.checkout import ROOT
from tests.cases.conforming import by_hand, ranks, reinforce_each


def without_third_action(batch, theta):
    found = np.array(by_hand(batch, theta))
    found[:, 2:] = 0.0
    return found


def needs_two_actions(batch, theta):
    assert theta.shape[1] > 1
    return by_hand(batch, theta)


def needs_rewards(batch, theta):
    return by_hand(batch, theta) / np.mean(batch.rewards != 0.0)


def needs_unlike_rewards(batch, theta):
    assert batch.rewards.std() > 0.0
    return by_hand(batch, theta)


def twice_over_one_step(batch, theta):
    return by_hand(batch, theta) * (2.0 if batch.rewards.shape[1] == 1 else 1.0)


def first_three(batch, theta):
    return reinforce_each(batch, theta)[:3].mean(axis=0)


def without_the_end(batch, theta):
    return by_hand(replace(batch, alive=np.ones_like(batch.alive)), theta)


def single_theta(batch, theta):
    return by_hand(batch, theta.astype(np.float32).astype(np.float64))


def single(tensor):
    return tensor.float().to(torch.get_default_dtype())


def single_values(record):
    return ad(replace(record, values=single(record.values)))


def single_behaviour(record):
    drawn = single(record.behaviour_log_probs)
    return (torch.exp(record.log_probs - drawn) * record.rewards).sum(-1).mean()


MISTAKES = {
    "a third action": (without_third_action, "relabelling"),
    "one action": (needs_two_actions, "runs and shapes"),
    "no rewards": (needs_rewards, "runs and shapes"),
    "constant rewards": (needs_unlike_rewards, "runs and shapes"),
    "one step": (twice_over_one_step, "dead steps carry nothing"),
    "more than three trajectories": (first_three, "coupling declared"),
    "dead steps": (without_the_end, "dead steps carry nothing"),
    "float32 parameters": (single_theta, "double precision"),
}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_on_some_problems_alone_is_seen(name):
    function, check = MISTAKES[name]
    assert check_estimator(from_callable(function, order=1)).failed == (check,)


@pytest.mark.parametrize("function", [single_values, single_behaviour])
def test_single_precision_is_seen_in_whatever_is_rounded(function):
    assert check_estimator(from_surrogate(function, order=1)).failed == ("double precision",)


def draws_with_torch():
    torch.rand(1)


def seeds_numpy():
    np.random.seed(0)


def draws_with_python():
    random.random()


def goes_double():
    torch.set_default_dtype(torch.float64)


def stops_gradients():
    torch.set_grad_enabled(False)


def hides_errors():
    np.seterr(all="ignore")


DISTURBANCES = {
    draws_with_torch: "drew from or seeded torch's global generator",
    seeds_numpy: "drew from or seeded numpy's global generator",
    draws_with_python: "drew from or seeded Python's global generator",
    goes_double: "changed torch's default dtype",
    stops_gradients: "changed torch's gradient mode",
    hides_errors: "changed numpy's error handling",
}


@pytest.mark.parametrize("draws", [False, True])
@pytest.mark.parametrize("disturb", DISTURBANCES)
def test_what_a_process_shares_is_left_alone_and_put_back(disturb, draws):
    def disturbing(batch, theta):
        disturb()
        return by_hand(batch, theta)

    def drawing(draw, theta):
        return disturbing(draw(theta, 1), theta)

    before = Generators.now(), Settings.now()
    report = check_estimator(
        from_draws(drawing, order=1) if draws else from_callable(disturbing, order=1)
    )
    assert report.failed == ("purity",)
    assert report.checks[1].detail == DISTURBANCES[disturb]
    assert before[0].changed(Generators.now()) == ""
    assert before[1].changed(Settings.now()) == ""


def test_a_normal_number_that_numpy_kept_is_its_generator_s_state_too():
    """They are drawn in pairs: the second one leaves everything but the kept number as it was."""
    with put_back():
        np.random.seed(0)
        np.random.normal()
        before = Generators.now()
        np.random.normal()
        after = Generators.now()
    np.testing.assert_array_equal(before.numpy["state"]["key"], after.numpy["state"]["key"])
    assert before.numpy["state"]["pos"] == after.numpy["state"]["pos"]
    assert before.changed(after) == "numpy's global generator"


def test_torch_default_dtype_is_not_an_input():
    def by_default(batch, theta):
        return torch.tensor(by_hand(batch, theta).tolist())

    report = check_estimator(from_callable(by_default, order=1))
    assert report.failed == ("purity",)
    assert "as torch's default dtype" in report.checks[1].detail


def clipped(batch, theta):
    return by_hand(replace(batch, rewards=np.clip(batch.rewards, -50.0, 50.0)), theta)


def positive_part(batch, theta):
    return by_hand(replace(batch, rewards=batch.rewards.clip(min=0.0)), theta)


@pytest.mark.parametrize("function", [clipped, positive_part])
def test_a_claimed_scale_is_of_every_size_and_sign(function):
    report = check_estimator(from_callable(function, order=1), claims=[Claim.REWARD_SCALE])
    assert report.failed == ("claim REWARD_SCALE",)


def baseline_unless_low(record):
    whole = record.rewards.sum(-1)
    taken = torch.where(whole.min() < -20.0, 0.0, 1.0) * whole.mean()
    return ((whole - taken) * record.log_probs.sum(-1)).mean()


def test_a_claimed_shift_is_of_either_sign():
    claims = [Claim.REWARD_SHIFT]
    report = check_estimator(
        from_surrogate(baseline_unless_low, order=1), claims=claims, batch_size=3
    )
    assert report.failed == ("claim REWARD_SHIFT",)


@pytest.mark.parametrize("n", [1, 4, 20])
def test_a_ratio_for_each_step_is_seen_in_batches_of_any_size(n):
    """Over one step alone it would be right."""

    def a_ratio_a_step(record):
        to_go = record.rewards.flip(-1).cumsum(-1).flip(-1)
        return (torch.exp(log_ratios(record)) * to_go).sum(-1).mean()

    estimator = from_surrogate(a_ratio_a_step, order=1)
    report = check_estimator(estimator, claims=[Claim.OFF_POLICY], batch_size=n)
    assert report.failed == ("claim OFF_POLICY",)


@dataclass(frozen=True, eq=False)
class Spoiled:
    """REINFORCE by hand, whose evaluators spoil some of their rows."""

    spoil: object
    name: str = "spoiled"
    order: int = 1

    def prepare(self, batch, context):
        evaluator = from_callable(by_hand, order=1).prepare(batch, context)
        return SpoiledEvaluator(evaluator, self.spoil)


@dataclass(frozen=True, eq=False)
class SpoiledEvaluator:
    evaluator: object
    spoil: object
    notes: tuple = ()
    most: int | None = None

    def rows(self, batch):
        return Rows.of_dense(self.spoil(self.evaluator.rows(batch).dense()))


def test_an_evaluator_that_changes_its_batch_is_seen():
    """Where it does not read what it changes, nothing else would tell."""

    @dataclass(frozen=True, eq=False)
    class Changing(SpoiledEvaluator):
        def rows(self, batch):
            batch.behaviour_log_probs.setflags(write=True)
            batch.behaviour_log_probs[...] = -1.0
            return super().rows(batch)

    class Estimator(Spoiled):
        def prepare(self, batch, context):
            return Changing(from_callable(by_hand, order=1).prepare(batch, context), self.spoil)

    report = check_estimator(Estimator(lambda rows: rows))
    assert report.failed == ("purity",)
    assert report.checks[1].detail == "changed the batch's behaviour_log_probs"


def test_estimates_that_draw_are_run_where_nothing_is_earned():
    def divided(draw, theta):
        batch = draw(theta, 1)
        if not batch.rewards.any():
            raise ZeroDivisionError("no rewards")
        return by_hand(batch, theta)

    report = check_estimator(from_draws(divided, order=1))
    assert report.failed == ("runs and shapes",)
    assert "ZeroDivisionError" in report.checks[0].detail


def test_what_is_not_a_number_is_not_the_same():
    report = check_estimator(Spoiled(lambda rows: rows * (np.nan if len(rows) == 12 else 1.0)))
    assert "replications independent" in report.failed
    with pytest.raises(NotSatisfied, match="differs by nan"):
        check_equal([np.nan], [1.0], "one")


def test_shapes_that_broadcast_are_not_the_same():
    with pytest.raises(NotSatisfied, match=r"one: expected shape \(2, 3\), got \(3,\)"):
        check_equal(np.ones(3), np.ones((2, 3)), "one")


def test_an_evaluator_that_raises_fails_the_check():
    report = check_estimator(Spoiled(lambda rows: rows[len(rows) - 1 : len(rows) + 99][98]))
    assert report.failed == ("runs and shapes",)
    assert "raised IndexError" in report.checks[0].detail


@pytest.mark.parametrize("thing", [ad, 3, "ad", from_callable])
def test_what_is_no_estimator_is_refused(thing):
    with pytest.raises(ValueError, match="estimator: expected what from_surrogate, from_callable"):
        check_estimator(thing)


def test_noise_of_rounding_is_compared_with_the_whole():
    """Two of a group that earn the same have an estimate that is rounding divided by epsilon."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        assert not check_estimator(from_surrogate(grpo, order=1), batch_size=2, rng=rng).failed
    check_equal([1e-13], [2e-13], "small", beside=[1.0])
    with pytest.raises(NotSatisfied):
        check_equal([1e-13], [2e-13], "small")


@pytest.mark.parametrize("n", [2, 3, 32])
def test_ranks_are_a_step_function_not_single_precision(n):
    claims = [Claim.REWARD_SHIFT]
    report = check_estimator(from_surrogate(ranks, order=1), batch_size=n, claims=claims)
    assert not report.failed, str(report)


def test_half_precision_in_numpy_is_said_to_be_possible():
    """Steps a thousand times as wide as those of single precision answer no small change."""

    def half(batch, theta):
        rewards = batch.rewards.astype(np.float16).astype(np.float64)
        return by_hand(replace(batch, rewards=rewards), theta)

    report = check_estimator(from_callable(half, order=1))
    details = {check.name: check.detail for check in report.checks}
    assert "a step function of rewards (or half precision?)" in details["double precision"]


def looking(record):
    """Branches on its values."""
    return ad(record) if record.rewards.sum() > 0.0 else 2.0 * ad(record)


def test_a_device_check_says_where_it_ran_or_why_not():
    plain, branching = (check_estimator(from_surrogate(f, order=1)) for f in (ad, looking))
    in_numpy = check_estimator(from_callable(by_hand, order=1))
    found, other, numpy_s = (
        next(check for check in report.checks if check.name == "another device")
        for report in (plain, branching, in_numpy)
    )
    assert found.outcome is Outcome.PASSED
    assert numpy_s.outcome is Outcome.SKIPPED
    assert numpy_s.detail == "no surrogate: it is given numpy arrays, float64"
    if not elsewhere().has_values:
        assert found.detail == "by shapes alone: there is no accelerator"
        assert other.outcome is Outcome.SKIPPED
        assert other.detail.startswith("there is no accelerator, and it looks at values")
    else:
        assert found.detail.startswith("on torch.float64 on")
        assert other.outcome is Outcome.PASSED


def crashes_in_single(record):
    weights = torch.ones(record.rewards.shape[-1], 2, dtype=torch.float64)
    return (record.log_probs * record.rewards @ weights).mean()


def worse_in_single(record):
    """Cancels what is eight digits larger."""
    large = 1e6 * record.log_probs.detach().exp()
    return ((record.rewards + large - large) * record.log_probs).sum(-1).mean()


@pytest.mark.parametrize(
    ("function", "what"),
    [(crashes_in_single, "raised RuntimeError"), (worse_in_single, "derivatives differ by")],
)
def test_a_float32_record_is_no_reason_to_crash_or_to_be_wrong(function, what):
    report = check_estimator(from_surrogate(function, order=1))
    detail = {check.name: check.detail for check in report.checks}["float32 record"]
    assert "float32 record" in report.failed
    assert what in detail


def test_derivatives_elsewhere_are_those_of_the_estimator():
    """Float64 throughout, also in what a surrogate makes by torch's default."""

    def by_default(record):
        weights = record.discount ** torch.arange(record.rewards.shape[-1])
        return (weights * record.rewards * record.log_probs).sum(-1).mean()

    trial = Setup.random(np.random.default_rng(0), (3, 2, 3))
    batch = trial.drawn(np.random.default_rng(1), 2, 1)
    found = gradients_at(from_surrogate(by_default, order=1), batch, trial.context, USUAL)
    wanted = 0.8 ** np.arange(3) * batch.rewards[:, 0]
    assert np.allclose(found[:, :3], wanted, rtol=1e-14)


def test_a_pair_in_order_couples_and_is_no_mistake():
    def pair(record):
        whole = record.rewards.sum(-1)
        scores = record.log_probs.sum(-1)
        return (whole[0] - whole[-1]) * (scores[0] - scores[-1]) / 2

    assert not check_estimator(from_surrogate(pair, order=1), batch_size=2, mode="sampling").failed


def test_batches_of_ended_episodes_earn_unlike_sums_and_nothing_after_the_end():
    setup = Setup.random(np.random.default_rng(2), (3, 2, 3), ends=True)
    batch = ended(setup, np.random.default_rng(3), 5, 40)
    assert batch.shape == (5, 40, 3)
    assert setup.mdp.terminal[batch.states[..., -1]].all()
    assert (batch.rewards[~batch.alive] == 0.0).all()
    assert len(np.unique(batch.rewards.sum(-1))) == 200


def test_a_distribution_has_the_range_of_all_outcomes():
    found = distribution(np.array([[0.0, 1.0], [4.0, 1.0]]), np.array([0.75, 0.25]))
    assert found.mean.tolist() == [1.0, 1.0]
    assert found.variance.tolist() == [3.0, 0.0]
    assert found.reach.tolist() == [3.0, 0.0]


def test_the_page_lists_the_checks():
    page = ROOT / "docs" / "conformance.md"
    rows = [line.split("|")[1].strip() for line in page.read_text().splitlines() if "|" in line]
    report = check_estimator(from_callable(by_hand, order=1))
    assert rows[2:] == [c.name for c in report.checks if not c.name.startswith("claim")]


def test_counts_are_of_the_checks_that_ran():
    report = check_estimator(from_surrogate(looking, order=1), claims=[Claim.BEHAVIOUR_IGNORED])
    ran = [check for check in report.checks if check.outcome is not Outcome.SKIPPED]
    assert report.ran == len(ran)
    assert all(check.detail for check in report.checks if check.outcome is Outcome.SKIPPED)
    assert report.comparisons == sum(check.comparisons for check in ran)
    names = [check.name for check in report.checks]
    assert len(set(names)) == len(names) == 11 + len(Claim) + 1
