"""Exact mean and covariance of sampled meta-gradients, against the tree of all draws, samples,
autograd, and the exact side's own enumeration."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gradbias.analytic.meta.bilevel import Lirpg, Maml
from gradbias.analytic.meta.compositional_bias import compositional_bias
from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.problems.games import prisoners_dilemma
from gradbias.stochastic.estimators.kinds import from_draws
from gradbias.stochastic.meta.backward_pass import Pass
from gradbias.stochastic.meta.game_loops import SampledGame
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import FIRST_ORDER, Given, Reuse, Sampled
from gradbias.stochastic.rollouts.trajectories import draw_trajectories
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.group_relative import rloo
from gradbias.stochastic.surrogates.meta_losses import IntrinsicReward
from gradbias.stochastic.surrogates.off_policy import off_policy_dice
from gradbias.stochastic.surrogates.score_function import ad, lvc
from gradbias.verification.measurement.measure import measure_bias
from gradbias.verification.measurement.meta_enumeration import Enumerating
from gradbias.verification.measurement.meta_gradients import measure_meta_gradient
from gradbias.verification.measurement.meta_moments import MomentPass
from tests.cases.meta_gradients import TWO_ARMS, close, exact_mean, maml, small
from tests.oracles.torch_records import record_at

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
        from_draws(run, order=1),
        mdp,
        theta,
        evidence="enumeration",
        covariance=True,
        max_outcomes=20_000,
    )


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("n", [1, 2])
def test_moments_are_those_of_the_tree_of_all_draws(name, n):
    """Mean and covariance by recursion, against every leaf; of a two-armed bandit."""
    theta = np.array([[0.3, -0.4]])
    estimator = maml(TWO_ARMS, 1, 1.3, batch_size=n, **CASES[name])
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

    estimator = maml(mdp, 2, 0.9, value=lvc, hessian=dice, outer=ad, batch_size=3)
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


@pytest.mark.parametrize(("steps", "n"), [(1, 1), (1, 3), (2, 1), (2, 2)])
@pytest.mark.parametrize("hessian", ["exact", "AD", "LVC", "DICE"])
def test_the_mean_is_that_of_the_exact_sides_enumeration(steps, n, hessian):
    """Two programs that share nothing: batches of trajectory classes with exact products, and
    surrogates on trajectories."""
    mdp, theta, _ = small(14, horizon=1 if n > 1 else 2)
    slot = {"exact": Given(Maml(mdp)), "AD": ad, "LVC": lvc, "DICE": dice}[hessian]
    estimator = maml(mdp, steps, value=ad, hessian=dice, outer=Given(Maml(mdp)), batch_size=n)
    slot = slot if isinstance(slot, Given) else Sampled(slot, 1)
    estimator = replace(estimator, hessian=slot)
    report = measure_meta_gradient(estimator, theta, exact=Maml(mdp))
    curvature = None if hessian == "exact" else Curvature[hessian]
    options = {"steps": steps, "step_size": 0.7, "batch_size": n, "curvature": curvature}
    wanted = compositional_bias(Maml(mdp), theta, **options).meta_gradient
    np.testing.assert_allclose(report.bias, wanted, atol=1e-13)
    assert np.abs(wanted).max() > 1e-5
