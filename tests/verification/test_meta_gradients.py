"""Sampled K-step meta-gradients: exact means and variances, and what they are unbiased for."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from torch_records import record_at

from analytic.bilevel import Lirpg, Lola, Maml, Mgrl
from analytic.derivatives import gradient
from analytic.games import StochasticGame, prisoners_dilemma
from analytic.logits import policy_at
from analytic.metagradients import inner_loop, meta_gradient
from analytic.policies import TABULAR, LinearSoftmax
from analytic.problems import TabularMDP
from analytic.sampled_steps import sampled_step_objective
from analytic.targets import GivenTarget
from analytic.trajectory_classes import Credit
from analytic.values import evaluate
from stochastic.estimators import from_draws
from stochastic.game_loops import SampledGame
from stochastic.inner_loops import SampledLoop
from stochastic.meta_gradients import (
    FIRST_ORDER,
    Given,
    MetaGradient,
    Pass,
    Reuse,
    Sampled,
)
from stochastic.products import Side, SurrogateBatch
from stochastic.surrogates.dice import LoadedDice, dice, loaded_dice
from stochastic.surrogates.group_relative import rloo
from stochastic.surrogates.meta_parameters import IntrinsicReward, LambdaReturn
from stochastic.surrogates.off_policy import off_policy_dice
from stochastic.surrogates.score_function import LVC, ad, lvc, reinforce
from stochastic.trajectories import draw_trajectories, sample
from verification.measurement import measure_bias
from verification.meta_measurement import measure_meta_gradient
from verification.meta_measures import Enumerating
from verification.meta_moments import MomentPass
from verification.reports import Verdict


def close(found, wanted, tolerance=1e-12):
    return np.abs(found - wanted).max() <= tolerance * max(np.abs(wanted).max(), 1e-3)


def small(seed=0, horizon=2, n_states=2):
    rng = np.random.default_rng(seed)
    mdp = TabularMDP.random(n_states, 2, rng=rng, discount=0.8, horizon=horizon)
    return mdp, rng.normal(size=(n_states, 2)), rng


def maml(mdp, steps=1, step_size=0.7, *, value=ad, hessian=dice, outer=ad, n=1, **options):
    """MAML with every slot sampled, unless it is said to be given."""

    def slot(surrogate):
        return surrogate if isinstance(surrogate, Given) else Sampled(surrogate, n)

    if hessian is not FIRST_ORDER:
        hessian = slot(hessian)
    loop = SampledLoop(mdp, starts_at_meta=True)
    return MetaGradient(loop, steps, step_size, slot(value), hessian, slot(outer), **options)


def exact_mean(estimator, phi, theta=None):
    source = Enumerating(estimator.loop, ordered=False)
    return estimator.mean_over(source, phi, theta)[0]


# What each slot may be unbiased for.


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_exact_slots_are_the_exact_meta_gradient(steps):
    mdp, theta, _ = small()
    given = Given(Maml(mdp))
    estimator = maml(mdp, steps, value=given, hessian=given, outer=given)
    assert close(
        exact_mean(estimator, theta), meta_gradient(Maml(mdp), theta, steps=steps, step_size=0.7)
    )


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("hessian", [dice, loaded_dice, LoadedDice(0.3)])
def test_unbiased_slots_after_exact_steps_are_unbiased(steps, hessian):
    """Values exact, Hessian and outer slot sampled: no compositional bias is left. (Loaded-DiCE of
    lambda 0.3 needs exact values, which move with theta.)"""
    mdp, theta, _ = small(1)

    def values(parameters):
        rows = [evaluate(mdp, policy_at(TABULAR, one, 2, 2).probabilities) for one in parameters]
        return np.stack([one.values for one in rows])

    loop = SampledLoop(mdp, starts_at_meta=True, critic=values)
    estimator = MetaGradient(
        loop, steps, 0.7, Given(Maml(mdp)), Sampled(hessian, 1), Sampled(ad, 1)
    )
    wanted = meta_gradient(Maml(mdp), theta, steps=steps, step_size=0.7)
    assert close(exact_mean(estimator, theta), wanted)
    broken = replace(estimator, hessian=Sampled(lvc, 1))
    assert not close(exact_mean(broken, theta), wanted, 1e-3)


def test_first_order_maml_is_the_outer_gradient():
    mdp, theta, _ = small(2)
    given = Given(Maml(mdp))
    path = inner_loop(Maml(mdp), theta, steps=2, step_size=0.7)
    estimator = maml(mdp, 2, value=given, hessian=FIRST_ORDER, outer=given)
    assert close(exact_mean(estimator, theta), gradient(mdp, path[-1]))
    assert not close(
        exact_mean(estimator, theta), meta_gradient(Maml(mdp), theta, steps=2, step_size=0.7), 1e-3
    )


def test_lirpg_is_unbiased_after_exact_steps_and_ad_at_one_step_too():
    mdp, theta, rng = small(3)
    phi, problem = rng.normal(size=(2, 2)), Lirpg(mdp)
    for steps, hessian, unbiased in ((1, ad, True), (2, dice, True), (2, ad, False)):
        estimator = MetaGradient(
            SampledLoop(mdp),
            steps,
            0.7,
            Given(problem),
            Sampled(IntrinsicReward(hessian), 1),
            Sampled(dice, 1),
            Sampled(IntrinsicReward(ad), 1),
        )
        wanted = meta_gradient(problem, phi, theta, steps=steps, step_size=0.7)
        assert close(exact_mean(estimator, phi, theta), wanted, 1e-12) == unbiased


@pytest.mark.parametrize("discount_and_lambda", [(0.9, 0.6), (0.0, 0.5), (0.7, 1.0)])
def test_mgrls_jacobian_in_discount_and_lambda_is_unbiased(discount_and_lambda):
    """One exact step. At two, the update's Jacobian is not symmetric, as every surrogate's is."""
    mdp, theta, rng = small(4)
    critic = rng.normal(size=2)
    problem, phi = Mgrl(mdp, critic), np.array(discount_and_lambda)
    loop = SampledLoop(mdp, critic=critic)
    found = {}
    for steps in (1, 2):
        slot = Sampled(LambdaReturn(), 1)
        estimator = MetaGradient(
            loop, steps, 0.7, Given(problem), slot, Given(problem), jacobian=slot
        )
        wanted = meta_gradient(problem, phi, theta, steps=steps, step_size=0.7)
        found[steps] = close(exact_mean(estimator, phi, theta), wanted)
    assert found == {1: True, 2: False}


@pytest.mark.parametrize("player", [1, 2])
@pytest.mark.parametrize("kind", ["prisoners", "uneven"])
def test_lola_needs_both_players_scores(player, kind):
    rng = np.random.default_rng(5)
    game, sizes = prisoners_dilemma(0.9, horizon=2), [(5,), (5,)]
    if kind == "uneven":
        rows = rng.dirichlet(np.ones(2), size=(2, 2, 3))
        rewards = rng.normal(size=(2, 2, 2, 2, 3))
        game = StochasticGame(rows, rewards, 0.9, [0.7, 0.3], horizon=2)
        sizes = [(2, 2), (2, 3)]
    phi, theta = rng.normal(size=sizes[player - 1]), rng.normal(size=sizes[2 - player])
    problem, loop = Lola(game, player), SampledGame(game, player)
    for surrogate, unbiased in ((dice, True), (ad, False)):
        slot = Sampled(surrogate, 1)
        estimator = MetaGradient(loop, 2, 0.7, Given(problem), slot, Sampled(ad, 1), jacobian=slot)
        wanted = meta_gradient(problem, phi, theta, steps=2, step_size=0.7)
        assert close(exact_mean(estimator, phi, theta), wanted) == unbiased


def test_a_users_problem_reads_its_meta_parameters_from_the_record():
    """phi scales the inner step: d/dphi of J(theta + alpha phi g) is alpha g . grad J."""
    mdp, theta, _ = small(6)

    def scaled(record):
        return record.meta["phi"] * ad(record)

    class Scaled:
        """What the library does not know: an inner step of length phi."""

        def inner_step(self, phi, theta):
            step = Maml(mdp).inner_step(phi, theta)
            return type("Step", (), {"update": phi * step.update})

    estimator = MetaGradient(
        SampledLoop(mdp),
        1,
        0.7,
        Given(Scaled()),
        FIRST_ORDER,
        Sampled(dice, 1),
        jacobian=Sampled(scaled, 1),
    )
    after = theta + 0.7 * 0.5 * gradient(mdp, theta)
    wanted = 0.7 * (gradient(mdp, theta) * gradient(mdp, after)).sum()
    assert close(exact_mean(estimator, 0.5, theta), wanted)


# The sampled-step objective, and the correction for sampling.


@pytest.mark.parametrize(("steps", "samples"), [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("credit", Credit)
def test_e_maml_is_unbiased_for_the_sampled_step_objective(steps, samples, credit):
    """Correction 1, and the derivative of the drawn batch's own update: AD on the same samples."""
    mdp, theta, _ = small(7)
    surrogate = ad if credit is Credit.REWARD_TO_GO else reinforce
    estimator = maml(
        mdp,
        steps,
        value=surrogate,
        hessian=surrogate,
        n=samples,
        reuse=Reuse.HESSIAN,
        correction=1.0,
    )
    wanted = sampled_step_objective(
        mdp, theta, samples=samples, steps=steps, step_size=0.7, credit=credit
    ).gradient
    assert close(exact_mean(estimator, theta), wanted)
    for broken in (
        replace(estimator, correction=0.9),
        replace(estimator, reuse=Reuse.NONE),
        replace(estimator, hessian=Sampled(lvc, samples)),
    ):
        assert not close(exact_mean(broken, theta), wanted, 1e-4)


def test_a_partial_correction_interpolates():
    mdp, theta, _ = small(7)
    means = [exact_mean(maml(mdp, 2, correction=c), theta) for c in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(means[1], (means[0] + means[2]) / 2, atol=1e-14)


TWO_ARMS = TabularMDP(np.ones((1, 2, 1)), [[1.0, 0.0]], 0.9, [1.0], horizon=1)
ONE_LOGIT = LinearSoftmax(np.array([[[1.0], [0.0]]]))
TABLE = {
    "DiCE, independent batches": (dice, Reuse.NONE, 0.0, -0.068, -0.020),
    "DiCE, the same batch": (dice, Reuse.HESSIAN, 0.0, -0.081, -0.035),
    "AD, the same batch": (ad, Reuse.HESSIAN, 0.0, -0.49, -0.46),
    "E-MAML": (ad, Reuse.HESSIAN, 1.0, -0.048, 0.0),
}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_which_estimator_is_biased_for_which_target(name):
    """Two arms, one logit at -0.5, one step of size 4 from 4 samples: relative biases against the
    expected-step and the sampled-step objective. No estimator is unbiased for both."""
    hessian, reuse, correction, for_expected, for_sampled = TABLE[name]
    theta = np.array([-0.5])
    loop = SampledLoop(TWO_ARMS, starts_at_meta=True, policy=ONE_LOGIT)
    exact = Maml(TWO_ARMS, policy=ONE_LOGIT)
    estimator = MetaGradient(
        loop,
        1,
        4.0,
        Sampled(ad, 4),
        Sampled(hessian, 4),
        Given(exact),
        reuse=reuse,
        correction=correction,
    )
    expected = meta_gradient(exact, theta, steps=1, step_size=4.0)
    sampled = sampled_step_objective(
        TWO_ARMS, theta, samples=4, steps=1, step_size=4.0, policy=ONE_LOGIT
    ).gradient
    found = exact_mean(estimator, theta)
    digits = 2 if name.startswith("AD") else 3
    assert round(float(found[0] / expected[0]) - 1, digits) == for_expected
    assert round(float(found[0] / sampled[0]) - 1, digits) == for_sampled
    if name == "E-MAML":
        assert close(found, sampled)


# Moments, against the tree of all draws and against samples.

CASES = {
    "independent": {"value": ad, "hessian": dice, "outer": ad},
    "biased Hessian": {"value": ad, "hessian": lvc, "outer": dice},
    "same batch": {"value": ad, "hessian": dice, "outer": ad, "reuse": Reuse.HESSIAN},
    "corrected": {"value": ad, "hessian": ad, "outer": ad, "correction": 0.6},
    "first order": {"value": ad, "hessian": FIRST_ORDER, "outer": dice},
    "all the same": {
        "value": ad,
        "hessian": ad,
        "outer": ad,
        "reuse": Reuse.HESSIAN,
        "correction": 1.0,
    },
}


def by_brute_force(estimator, mdp, theta):
    """The same estimator as an estimate that draws, run once for each leaf of all its draws."""

    class OneByOne:
        def __init__(self, draw):
            self.drawn = draw

        def draw(self, log_policy, n):
            batch = self.drawn(log_policy[0], n)
            return batch.reshape(1, n), np.ones((1, 1))

    def run(draw, theta):
        return estimator.mean_over(OneByOne(draw), theta, None)[0]

    return measure_bias(
        from_draws(run),
        mdp,
        theta,
        evidence="enumeration",
        covariance=True,
        enumeration_limit=20_000,
    )


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("n", [1, 2])
def test_moments_are_those_of_the_tree_of_all_draws(name, n):
    """Mean and covariance by recursion, against every leaf; of a two-armed bandit."""
    theta = np.array([[0.3, -0.4]])
    estimator = maml(TWO_ARMS, 1, 1.3, n=n, **CASES[name])
    tree = by_brute_force(estimator, TWO_ARMS, theta)
    report = measure_meta_gradient(estimator, theta, exact=Maml(TWO_ARMS))
    np.testing.assert_allclose(report.mean, tree.mean, atol=1e-13)
    np.testing.assert_allclose(report.covariance, tree.covariance, atol=1e-13)
    np.testing.assert_allclose(report.mean, exact_mean(estimator, theta), atol=1e-13)


def test_moments_of_two_steps_are_those_of_the_tree_of_all_draws():
    theta = np.array([[0.3, -0.4]])
    for case in CASES.values():
        estimator = maml(TWO_ARMS, 2, 1.3, **case)
        tree = by_brute_force(estimator, TWO_ARMS, theta)
        report = measure_meta_gradient(estimator, theta, exact=Maml(TWO_ARMS))
        np.testing.assert_allclose(report.mean, tree.mean, atol=1e-13)
        np.testing.assert_allclose(report.covariance, tree.covariance, atol=1e-13)


def test_moments_of_a_replayed_batch():
    """The second step differentiates the first step's batch, with importance ratios or without."""
    theta = np.array([[0.3, -0.4]])
    loop = SampledLoop(TWO_ARMS, starts_at_meta=True)
    means = []
    for surrogate in (ad, off_policy_dice):
        slot = Sampled(surrogate, 2)
        estimator = MetaGradient(loop, 2, 1.3, slot, slot, Sampled(ad, 1), reuse=Reuse.REPLAY)
        tree = by_brute_force(estimator, TWO_ARMS, theta)
        report = measure_meta_gradient(estimator, theta, exact=Maml(TWO_ARMS))
        np.testing.assert_allclose(report.mean, tree.mean, atol=1e-13)
        np.testing.assert_allclose(report.variance, tree.variance, atol=1e-13)
        means.append(report.mean)
    assert np.abs(means[0] - means[1]).max() > 1e-3


def test_moments_with_a_meta_parameter_of_its_own_and_a_coupled_surrogate():
    """LIRPG with every slot sampled, the outer one by leave-one-out baselines of two."""
    mdp, theta, rng = small(8, horizon=1)
    phi = rng.normal(size=(2, 2))
    slot = Sampled(IntrinsicReward(ad), 1)
    estimator = MetaGradient(
        SampledLoop(mdp),
        2,
        0.7,
        slot,
        Sampled(IntrinsicReward(dice), 1),
        Sampled(rloo, 2),
        jacobian=slot,
    )
    report = measure_meta_gradient(estimator, phi, theta, exact=Lirpg(mdp))
    assert close(report.mean, exact_mean(estimator, phi, theta))
    runs = 20_000
    found = estimator.estimates(phi, theta, replications=runs, rng=np.random.default_rng(0))
    check_sampled(found, report.mean, report.variance)
    check_sampled(found, report.mean + 6 * np.sqrt(report.variance / runs), None, inside=False)


def check_sampled(found, mean, variance, inside=True):
    """Mean and variance within 5.5 of their standard errors: by the normal approximation a false
    alarm of 4e-8 a number, and some 100 numbers are compared in this file."""
    error = found.std(axis=0) / np.sqrt(len(found))
    assert bool((np.abs(found.mean(axis=0) - mean) <= 5.5 * error + 1e-15).all()) == inside
    if variance is not None:
        squares = (found - found.mean(axis=0)) ** 2
        error = squares.std(axis=0) / np.sqrt(len(found))
        assert (np.abs(squares.mean(axis=0) - variance) <= 5.5 * error + 1e-15).all()


@pytest.mark.parametrize("name", sorted(CASES))
def test_sampled_estimates_have_those_moments(name):
    """Two steps, 20,000 runs; a mean that is off by a hundredth of the deviation would show."""
    mdp, theta, _ = small(9)
    estimator = maml(mdp, 2, **CASES[name])
    report = measure_meta_gradient(estimator, theta, exact=Maml(mdp))
    found = estimator.estimates(theta, replications=20_000, rng=np.random.default_rng(1))
    check_sampled(found, report.mean, report.variance)


def test_a_step_takes_its_value_from_one_estimate_and_its_derivative_from_another():
    """The appendix's construction, stop(I) + II - stop(II), differentiated by autograd."""
    mdp, theta, rng = small(10, horizon=3)
    draws = []

    class Recorded:
        def draw(self, log_policy, n):
            draws.append(draw_trajectories(mdp, log_policy, (1, n), 3, rng))
            return draws[-1], np.ones((1, 1))

    estimator = maml(mdp, 2, 0.9, value=lvc, hessian=dice, outer=ad, n=3)
    found = estimator.mean_over(Recorded(), theta, None)[0]
    # In the order of the recursion: values forward, the outer batch, Hessians back.
    values, outer, hessians = draws[:2], draws[2], [draws[4], draws[3]]
    leaf = torch.tensor(theta, requires_grad=True)
    here = leaf
    for value, hessian in zip(values, hessians, strict=True):
        first = here + 0.9 * torch_gradient(lvc, value[0], here, mdp.discount)
        second = here + 0.9 * torch_gradient(dice, hessian[0], here, mdp.discount)
        here = first.detach() + second - second.detach()
    (outer_gradient,) = torch.autograd.grad(
        (torch_gradient(ad, outer[0], here.detach(), mdp.discount) * here).sum(), leaf
    )
    assert close(found, outer_gradient.numpy())


def torch_gradient(surrogate, batch, theta, discount):
    leaf = theta if theta.requires_grad else theta.clone().requires_grad_()
    value = surrogate(record_at(batch, leaf, discount))
    return torch.autograd.grad(value, leaf, create_graph=True)[0]


# Reports, and what does not fit.


def test_the_report_names_target_and_slots():
    mdp, theta, _ = small(11)
    report = measure_meta_gradient(maml(mdp), theta, exact=Maml(mdp))
    text = str(report)
    assert report.verdict is Verdict.BIASED
    assert "after 1 expected inner steps" in text or "after 1 expected inner step" in text
    assert "value AD() x 1, Hessian Dice() x 1, outer AD() x 1" in text
    given = maml(mdp, value=Given(Maml(mdp)))
    assert measure_meta_gradient(given, theta, exact=Maml(mdp)).verdict is Verdict.UNBIASED
    sampled = measure_meta_gradient(
        given, theta, exact=Maml(mdp), evidence="sampling", samples=4_000, tolerance=3.0
    )
    assert sampled.verdict is Verdict.UNBIASED
    value = sampled_step_objective(mdp, theta, samples=1, steps=1, step_size=0.7).gradient
    target = GivenTarget("the gradient of the objective of one sampled step", value)
    emaml = maml(mdp, hessian=ad, reuse=Reuse.HESSIAN, correction=1.0)
    assert measure_meta_gradient(emaml, theta, target=target).verdict is Verdict.UNBIASED


def test_bad_input_is_named():
    mdp, theta, _ = small()
    loop = SampledLoop(mdp, starts_at_meta=True)
    slot, numbers = Sampled(ad, 2), count()
    given = Given(Maml(mdp))
    for make, message in (
        (lambda: Sampled(ad, 0), "n: expected"),
        (lambda: MetaGradient(loop, 0, 1.0, slot, slot, slot), "steps: expected"),
        (lambda: MetaGradient(loop, 201, 1.0, slot, slot, slot), "steps: expected at most 200"),
        (lambda: MetaGradient(loop, 1, np.inf, slot, slot, slot), "step_size"),
        (lambda: MetaGradient(loop, 1, 1.0, slot, slot, slot, jacobian=slot), "jacobian: expected"),
        (lambda: MetaGradient(SampledLoop(mdp), 1, 1.0, slot, slot, slot), "jacobian: expected"),
        (lambda: MetaGradient(loop, 1, 1.0, slot, slot, slot, correction=1.5), "correction"),
        (lambda: MetaGradient(loop, 1, 1.0, given, slot, slot, correction=0.5), "correction"),
        (
            lambda: MetaGradient(loop, 1, 1.0, slot, Sampled(ad, 3), slot, reuse=Reuse.HESSIAN),
            "reuse: expected slots of as many trajectories",
        ),
        (
            lambda: MetaGradient(loop, 1, 1.0, given, slot, slot, reuse=Reuse.HESSIAN),
            "reuse: expected slots of as many trajectories",
        ),
        (lambda: SampledLoop(mdp, length=3), "length"),
        (lambda: SampledGame(prisoners_dilemma(), length=None), "length"),
        (lambda: SampledGame(prisoners_dilemma(horizon=2), player=3), "player"),
        (lambda: exact_mean(maml(mdp), np.zeros((3, 2))), "theta"),
        (lambda: exact_mean(maml(mdp), theta, theta + 1), "theta: expected None"),
        (lambda: exact_mean(maml(mdp, step_size=1e12, steps=30), theta), "step_size|enumeration"),
        (lambda: measure_meta_gradient(maml(mdp), theta), "exact: expected the problem"),
        (
            lambda: measure_meta_gradient(
                maml(mdp), theta, target=GivenTarget("wrong", np.zeros(3))
            ),
            "target value: expected shape",
        ),
        (
            lambda: measure_meta_gradient(
                maml(mdp, n=30), theta, exact=Maml(mdp), evidence="enumeration"
            ),
            "enumeration: .* batches of 30 at one step",
        ),
    ):
        next(numbers)
        with pytest.raises(ValueError, match=message):
            make()
    assert next(numbers) == 19


def test_the_pass_and_its_moments_agree_on_a_game():
    game = prisoners_dilemma(0.9, horizon=1)
    rng = np.random.default_rng(12)
    phi, theta = rng.normal(size=(2, 5))
    slot = Sampled(dice, 1)
    estimator = MetaGradient(
        SampledGame(game), 2, 0.5, slot, slot, slot, jacobian=slot, correction=1.0
    )
    source = Enumerating(estimator.loop, ordered=False)
    found = MomentPass(Pass(estimator, source, phi)).from_step(0, theta[None], None)
    assert close(found.mean[0, 5:10], estimator.mean_over(source, phi, theta)[0])
    runs = estimator.estimates(phi, theta, replications=20_000, rng=rng)
    variance = np.diagonal(found.second[0])[5:10] - found.mean[0, 5:10] ** 2
    moved = variance > 1e-12  # at horizon 1 the start state's parameters alone matter
    assert moved.sum() == 1
    check_sampled(runs[:, moved], found.mean[0, 5:10][moved], variance[moved])


def test_lvc_is_an_estimate_of_the_same_gradient():
    """The slots' surrogates are used as they are: a value slot of LVC is AD's."""
    mdp, theta, rng = small(13)
    batch = sample(mdp, theta, 3, rng=rng, replications=2)
    side = Side(policy_at(TABULAR, theta, 2, 2))
    one, other = (SurrogateBatch(s, batch, side, 0.8).gradient() for s in (ad, LVC()))
    np.testing.assert_allclose(one, other, atol=1e-14)
