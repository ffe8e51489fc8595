"""Sampled meta-gradients conform; for each check there is one that fails it."""

import re
from dataclasses import replace
from math import comb

import numpy as np
import pytest
import torch

from gradbias.analytic.meta.bilevel import Lirpg, Maml
from gradbias.analytic.problems.games import prisoners_dilemma
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.meta.game_loops import SampledGame
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import FIRST_ORDER, Given, Reuse, Sampled
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import ad, lvc
from gradbias.verification.conformance.report import Outcome
from gradbias.verification.conformance.sampling import median_blocks, median_of_means, median_radius
from gradbias.verification.conformance.suite import (
    assert_conforms,
    check_estimator,
    check_meta_gradient,
)

RNG = np.random.default_rng(5)
MDP = TabularMDP(
    RNG.dirichlet(np.ones(2), size=(2, 2)), RNG.normal(size=(2, 2, 2)), 0.8, [0.4, 0.6], 2
)
THETA, PHI = RNG.normal(size=(2, 2)), RNG.normal(size=(2, 2))
MAML = SampledLoop(MDP, starts_at_meta=True, critic=RNG.normal(size=2))
LIRPG = SampledLoop(MDP)
GAME = SampledGame(prisoners_dilemma(0.9), length=1)
FIVE = RNG.normal(size=5)


def paid_more(record):
    """An intrinsic reward for each state and action."""
    extra = record.meta["phi"][record.states[:, :-1], record.actions]
    to_go = (record.rewards + extra).flip(-1).cumsum(-1).flip(-1)
    return (to_go * record.log_probs).sum(-1).mean()


def plain(loop=MAML, steps=1, **slots):
    chosen = {"value": Sampled(ad, 1), "hessian": Sampled(lvc, 1), "outer": Sampled(ad, 1)}
    return MetaGradient(loop, steps, 0.4, **(chosen | slots))


def with_phi(steps=1, **slots):
    inner = Sampled(paid_more, 1)
    chosen = {"value": inner, "hessian": inner, "outer": Sampled(ad, 1), "jacobian": inner}
    return MetaGradient(LIRPG, steps, 0.4, **(chosen | slots))


EXACT = Given(Maml(MDP))
CONFORMING = {
    "maml": (plain(), (THETA,), 6),
    "maml, batches of two": (plain(hessian=Sampled(dice, 2)), (THETA,), 6),
    "first order, two steps": (plain(steps=2, hessian=FIRST_ORDER), (THETA,), 6),
    "corrected": (plain(correction=1.0, reuse=Reuse.HESSIAN), (THETA,), 5),
    "replayed": (plain(steps=2, reuse=Reuse.REPLAY), (THETA,), 6),
    "exact value": (plain(value=EXACT, outer=EXACT), (THETA,), 6),
    "nothing sampled": (plain(value=EXACT, hessian=EXACT, outer=EXACT), (THETA,), 6),
    "lirpg": (with_phi(), (PHI, THETA), 6),
    "lirpg, exact Jacobian": (with_phi(jacobian=Given(Lirpg(MDP))), (PHI, THETA), 5),
    "lola": (plain(loop=GAME, jacobian=Sampled(dice, 1)), (FIVE, FIVE[::-1]), 5),
}


@pytest.mark.parametrize("name", CONFORMING)
def test_meta_gradients_conform(name):
    """False alarms: 1e-4 each at most, with a fixed seed."""
    estimator, parameters, ran = CONFORMING[name]
    report = check_meta_gradient(estimator, *parameters, mode="sampling")
    assert not report.failed, str(report)
    assert report.ran == ran
    assert all(check.detail for check in report.checks if check.outcome is Outcome.SKIPPED)
    assert report.false_alarm == 1e-4


class Loop(SampledLoop):
    """MAML's, with something wrong."""

    def read(self, drawn, phi, theta):
        return self.spoil(drawn)


class Centred(Loop):
    def spoil(self, drawn):
        return replace(drawn, rewards=drawn.rewards - drawn.rewards.mean(axis=0))


class Noisy(Loop):
    def spoil(self, drawn):
        return replace(drawn, rewards=drawn.rewards + np.random.normal(size=drawn.rewards.shape))


class FirstThousand(Loop):
    def spoil(self, drawn):
        places = np.arange(len(drawn.rewards)).reshape(-1, 1, 1)
        return replace(drawn, rewards=np.where(places < 1_000, drawn.rewards, 0.0))


class Uneven(SampledLoop):
    def outer_gradients(self, found):
        gradient, meta = super().outer_gradients(found)
        return gradient * (1.0 + (len(gradient) == 1)), meta


class Infinite(SampledLoop):
    def outer_gradients(self, found):
        gradient, meta = super().outer_gradients(found)
        return gradient * np.inf, meta


def by_action_number(record):
    return ad(record) + (record.actions * record.log_probs).sum(-1).mean()


def wrong(kind):
    return plain(loop=kind(MDP, starts_at_meta=True))


BROKEN = {
    "runs and shapes": wrong(Infinite),
    "purity": wrong(Noisy),
    "replications independent": wrong(Centred),
    "relabelling": plain(outer=Sampled(by_action_number, 1)),
    "sampling agrees with enumeration": wrong(FirstThousand),
}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", BROKEN)
def test_each_check_is_failed_by_one_that_fails_no_other(name):
    report = check_meta_gradient(BROKEN[name], THETA, mode="sampling")
    assert report.failed == (name,), str(report)


def test_more_steps_of_size_0_change_nothing():
    class Counting(SampledLoop):
        """Adds to the outer gradient what it saw in inner steps."""

        seen = 0

        def inner(self, surrogate, phi, theta, batch):
            Counting.seen += 1
            return super().inner(surrogate, phi, theta, batch)

        def outer_gradients(self, found):
            gradient, meta = super().outer_gradients(found)
            seen, Counting.seen = Counting.seen, 0
            return gradient * (1 + (seen > 1)), meta

        outer = SampledLoop.inner

    estimator = plain(loop=Counting(MDP, starts_at_meta=True), hessian=FIRST_ORDER)
    report = check_meta_gradient(estimator, THETA)
    assert report.failed == ("steps of size 0",), str(report)


def test_a_replication_alone_and_among_others_is_compared_to_the_last_digit():
    report = check_meta_gradient(wrong(Uneven), THETA)
    assert "replications independent" in report.failed


class Careless(Loop):
    def spoil(self, drawn):
        np.random.random()  # and does not use it
        return drawn


def test_numbers_that_are_drawn_elsewhere_and_not_used_are_seen():
    report = check_meta_gradient(wrong(Careless), THETA)
    assert report.failed == ("purity",), str(report)
    assert "drew from or seeded numpy's global generator" in str(report)


class AllButTheLargest(SampledLoop):
    def outer_gradients(self, found):
        gradient, meta = super().outer_gradients(found)
        size = np.linalg.norm(gradient.reshape(len(gradient), -1), axis=1)
        return gradient * (1.0 + (size < size.max())).reshape(-1, 1, 1), meta


def test_every_replication_is_compared_with_itself_alone():
    """One of them is the same alone, whichever it is: by twelve seeds the first, too."""
    for seed in range(12):
        report = check_meta_gradient(
            wrong(AllButTheLargest), THETA, rng=np.random.default_rng(seed)
        )
        assert report.failed == ("replications independent",), (seed, str(report))


def test_what_cannot_be_given_other_names_is_skipped_with_the_reason():
    def reason(estimator, *parameters):
        report = check_meta_gradient(estimator, *parameters)
        (found,) = (check for check in report.checks if check.name == "relabelling")
        assert found.outcome is Outcome.SKIPPED
        return found.detail

    def scaled(record):
        return ad(record) * record.meta["phi"].sum()

    inner = Sampled(scaled, 1)
    slots = {"value": inner, "hessian": inner, "jacobian": inner}
    assert "which axes of meta-parameters (2,) are states" in reason(
        with_phi(**slots), np.ones(2), THETA
    )
    function = SampledLoop(
        MDP, starts_at_meta=True, critic=lambda theta: np.zeros((len(theta), 3, 2))
    )
    assert "the critic is a function" in reason(plain(loop=function), THETA)
    assert not check_meta_gradient(with_phi(**slots), np.ones(3), THETA).failed


def test_what_is_too_large_to_enumerate_is_skipped_with_the_reason():
    report = check_meta_gradient(plain(steps=4), THETA, mode="sampling", replications=200)
    assert report.false_alarm == 0.0
    assert report.enumerated == ""
    assert report.checks[-1].detail.startswith("enumeration: ")
    few = check_meta_gradient(plain(), THETA, mode="sampling", replications=10)
    assert re.fullmatch(r"10 samples are fewer than the \d+ blocks it takes", few.checks[-1].detail)


def binomial_tail(blocks):
    """Of more than half of them, each with probability 1/5."""
    half = blocks // 2 + 1
    return sum(comb(blocks, k) * 0.2**k * 0.8 ** (blocks - k) for k in range(half, blocks + 1))


def test_the_rate_of_a_check_is_split_over_the_entries_that_it_compares():
    """Four of them: the blocks are those of a quarter of the rate, by plain binomial sums."""
    report = check_meta_gradient(plain(), THETA, mode="sampling", replications=1, false_alarm=0.01)
    (blocks,) = map(int, re.findall(r"the (\d+) blocks", report.checks[-1].detail))
    assert 2.0 * binomial_tail(blocks) <= 0.01 / 4 < 2.0 * binomial_tail(blocks - 2)


def test_it_is_asked_for_by_its_kind():
    with pytest.raises(ValueError, match="give a meta-gradient to check_meta_gradient"):
        check_estimator(plain())
    with pytest.raises(ValueError, match="expected a MetaGradient, got a SurrogateEstimator"):
        check_meta_gradient(from_surrogate(ad, order=1), THETA)
    assert assert_conforms(plain(), meta_parameters=THETA).ran == 5
    with pytest.raises(AssertionError, match="failed  purity: a generator in the same state again"):
        assert_conforms(wrong(Noisy), meta_parameters=THETA)
    with pytest.raises(ValueError, match=r"meta_parameters|theta"):
        check_meta_gradient(plain(), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="mode: expected one of exact, sampling, got 'quick'"):
        check_meta_gradient(plain(), THETA, mode="quick")
    with pytest.raises(ValueError, match="exempt: expected names among replications independent"):
        check_meta_gradient(plain(), THETA, exempt={"purity": "no"})
    report = check_meta_gradient(plain(), THETA, exempt={"relabelling": "labelled on purpose"})
    assert "skipped relabelling: exempt: labelled on purpose" in str(report)


def test_random_surrogates_fail_first():
    def noisy(record):
        return ad(record) * torch.rand(())

    report = check_meta_gradient(plain(outer=Sampled(noisy, 1)), THETA)
    assert report.ran == 1
    assert "must be a function of its record alone" in report.checks[0].detail


@pytest.mark.parametrize("rate", [0.2, 0.02])
def test_a_median_of_means_strays_less_often_than_it_says(rate):
    """Skewed coins; more than the stated part stray with probability below 1e-6."""
    rng, blocks, samples, runs = np.random.default_rng(1), median_blocks(rate), 300, 4_000
    for probability in (0.5, 0.03):
        draws = (rng.random((samples, runs)) < probability).astype(np.float64)
        variance = np.array(probability * (1.0 - probability))
        radius = median_radius(variance, samples, blocks)
        strays = np.abs(median_of_means(draws, blocks) - probability) > radius
        assert strays.mean() <= rate
        assert radius < 8.0 * np.sqrt(variance * np.log(2.0 / rate) / samples)


def test_the_number_of_blocks_is_the_smallest_that_will_do():
    """By plain sums of binomial probabilities."""
    assert median_blocks(0.5) == 1
    for rate in (0.3, 1e-2, 1e-5):
        blocks = median_blocks(rate)
        assert blocks % 2 == 1
        assert 2.0 * binomial_tail(blocks) <= rate < 2.0 * binomial_tail(blocks - 2)


def test_two_standard_deviations_are_attained_by_a_distribution_on_two_points():
    """2 with probability 1/5 and else -1/2: mean 0, variance 1, so nothing less than 2 would do."""
    values, weights = np.array([2.0, -0.5]), np.array([0.2, 0.8])
    assert weights @ values == pytest.approx(0.0, abs=1e-15)
    assert weights @ values**2 == pytest.approx(1.0)
    assert median_radius(np.array(1.0), 7, 7) == 2.0
    assert median_radius(np.array(4.0), 44, 11) == 2.0
    assert median_of_means(np.array([1.0, 3.0, 9.0, 11.0, 0.0, 0.0, 50.0]), 3) == 2.0
