"""Which losses of language-model fine-tuning are biased, for which target: exactly, by groups."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenTarget
from gradbias.analytic.returns.derivatives import gradient
from gradbias.stochastic.derivatives.coefficients import SurrogateError
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.group_relative import (
    Baseline,
    GroupRelative,
    Length,
    Penalty,
    dr_grpo,
    grpo,
    rloo,
)
from gradbias.stochastic.surrogates.penalties import k1, k2, k3, negative_entropy
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.measurement.measure import measure_bias
from tests.oracles import torch_functions as by_torch


def bandit(n_actions=3):
    reward = np.array([[1.0, 0.3, -0.5, 0.8]])[:, :n_actions]
    return TabularMDP(np.ones((1, n_actions, 1)), reward, 1.0, [1.0], 1)


def ending():
    """Answers of one to three steps: action 0 ends, the others go on."""
    rows = np.zeros((3, 2, 3))
    rows[0], rows[1] = [[0, 0, 1], [0, 1, 0]], [[0, 0, 1], [0.5, 0.5, 0]]
    rows[2, :, 2] = 1.0
    reward = [[1.0, 0.2], [0.5, -0.3], [0.0, 0.0]]
    return TabularMDP(rows, reward, 1.0, [1.0, 0.0, 0.0], 3)


THETA = {
    "bandit": np.array([[0.5, -0.2, 0.1]]),
    "ending": np.array([[0.2, 0.4], [0.1, -0.3], [0, 0]]),
}
PROBLEMS = {"bandit": bandit(), "ending": ending()}


def report(surrogate, name, n, **options):
    return measure_bias(
        from_surrogate(surrogate, order=1), PROBLEMS[name], THETA[name], batch_size=n, **options
    )


@pytest.mark.parametrize("name", sorted(PROBLEMS))
@pytest.mark.parametrize("n", [2, 3])
def test_leaving_one_out_is_unbiased(name, n):
    found = report(rloo, name, n)
    assert found.verdict is Verdict.UNBIASED
    assert found.coupled
    assert report(GroupRelative(Baseline.NONE), name, n).verdict is Verdict.UNBIASED


@pytest.mark.parametrize("baseline", list(Baseline))
def test_baselines_do_not_see_an_offset_of_all_returns(baseline):
    surrogate, theta = from_surrogate(GroupRelative(baseline), order=1), THETA["bandit"]
    paid_more = replace(bandit(), reward=bandit().reward + 10.0)
    one, other = (
        measure_bias(surrogate, mdp, theta, batch_size=2).variance.sum()
        for mdp in (bandit(), paid_more)
    )
    if baseline is Baseline.NONE:
        assert other > 100 * one
    else:
        assert abs(other / one - 1.0) < 1e-10


@pytest.mark.parametrize("name", sorted(PROBLEMS))
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("clip", [None, 0.2])
def test_the_group_mean_is_a_pure_scale(name, n, clip):
    found = report(replace(dr_grpo, clip=clip), name, n)
    assert found.verdict is Verdict.BIASED
    assert abs(found.direction.scale - (n - 1) / n) < 1e-10
    assert found.direction.residual < 1e-9


def test_division_by_the_deviation_biases_the_direction_too():
    """With two arms there is only one direction; with three the mean leaves it."""
    normalised = GroupRelative(Baseline.GROUP_MEAN, normalise=True)
    found = report(normalised, "bandit", 3)
    assert found.verdict is Verdict.BIASED
    assert found.direction.residual > 0.01
    two = measure_bias(
        from_surrogate(normalised, order=1), bandit(2), np.array([[0.5, -0.2]]), batch_size=3
    )
    assert two.verdict is Verdict.BIASED
    assert two.direction.residual < 1e-9


@pytest.mark.parametrize("n", [2, 3, 4])
def test_where_returns_are_right_or_wrong_the_deviation_is_a_scale(n):
    """The mean is a multiple of E[score | right] - E[score | wrong], which the gradient is too."""
    mdp = TabularMDP(np.ones((1, 4, 1)), [[1.0, 0.0, 0.0, 1.0]], 1.0, [1.0], 1)
    normalised = GroupRelative(Baseline.GROUP_MEAN, normalise=True)
    theta = np.array([[0.5, -0.2, 0.1, 0.3]])
    found = measure_bias(from_surrogate(normalised, order=1), mdp, theta, batch_size=n)
    assert found.verdict is Verdict.BIASED
    assert found.direction.residual < 1e-12


def test_division_by_the_own_length_biases_where_lengths_vary():
    by_length = replace(rloo, length=Length.TRAJECTORY)
    assert report(by_length, "ending", 2).verdict is Verdict.BIASED
    assert report(by_length, "ending", 2).direction.residual > 0.01
    assert report(by_length, "bandit", 2).verdict is Verdict.UNBIASED
    assert report(replace(rloo, length=Length.GROUP), "ending", 2).verdict is Verdict.BIASED
    assert report(grpo, "ending", 2).verdict is Verdict.BIASED


def test_clipping_biases_off_policy_alone():
    behaviour = THETA["bandit"] + np.array([[0.8, 0.0, -0.8]])
    ratio = report(rloo, "bandit", 2, behaviour=behaviour)
    assert ratio.verdict is Verdict.UNBIASED  # one step: importance sampling is exact
    clipped = report(replace(rloo, clip=0.2), "bandit", 2, behaviour=behaviour)
    assert clipped.verdict is Verdict.BIASED
    assert report(replace(rloo, clip=0.2), "bandit", 2).verdict is Verdict.UNBIASED
    # Over several steps a ratio a step is not the trajectory's.
    far = THETA["ending"] + np.array([[0.5, 0.0], [0.0, 0.5], [0.0, 0.0]])
    assert report(rloo, "ending", 2, behaviour=far).verdict is Verdict.BIASED


def divergence(name, first, second):
    """The expected sum over visited states of KL(first || second) of two log-policies, as a torch
    function of logits: visits are those of the logits' own policy."""
    mdp = PROBLEMS[name]

    def function(logits):
        log_pi = torch.log_softmax(logits, -1)
        parts = {"pi": log_pi, "ref": torch.log_softmax(by_torch.tensor(reference(name)), -1)}
        one, other = parts[first], parts[second]
        kl = (one.exp() * (one - other)).sum(-1) * by_torch.tensor(~mdp.terminal)
        kernel = torch.einsum("sa,sat->st", log_pi.exp(), by_torch.tensor(mdp.transition))
        law, total = by_torch.tensor(mdp.start), 0.0
        for _ in range(mdp.horizon):
            total, law = total + law @ kl, law @ kernel
        return total

    return function


def reference(name):
    return THETA[name] + np.random.default_rng(3).normal(size=THETA[name].shape)


def slope(function, name):
    return torch.func.jacrev(function)(by_torch.tensor(THETA[name])).numpy()


def penalty_gradient(step, name, *, as_loss):
    """The mean gradient of the penalty alone: with a coefficient less without one, N = 2."""
    options = {"reference": reference(name)}
    with_it = replace(rloo, penalty=Penalty(step, 0.5, as_loss=as_loss))
    return (report(rloo, name, 2, **options).mean - report(with_it, name, 2, **options).mean) / 0.5


@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_k1_differentiated_as_a_loss_does_nothing_on_average(name):
    assert np.abs(penalty_gradient(k1, name, as_loss=True)).max() < 1e-14
    assert np.abs(penalty_gradient(negative_entropy, name, as_loss=True)).max() < 1e-14


def test_k1_as_a_loss_is_felt_where_lengths_that_vary_divide_it_and_off_policy():
    options = {"reference": reference("ending")}
    far = THETA["ending"] + np.array([[0.5, 0.0], [0.0, 0.5], [0.0, 0.0]])
    for base, more in (
        (replace(rloo, length=Length.TRAJECTORY), {}),
        (replace(rloo, length=Length.GROUP), {}),
        (rloo, {"behaviour": far}),
    ):
        penalised = replace(base, penalty=Penalty(k1, 1.0, as_loss=True))
        one, other = (report(s, "ending", 2, **options, **more).mean for s in (base, penalised))
        assert np.abs(one - other).max() > 1e-2


def test_k2_and_k3_as_losses_are_gradients_of_different_divergences():
    backward, forward = divergence("bandit", "pi", "ref"), divergence("bandit", "ref", "pi")
    second, third = (penalty_gradient(k, "bandit", as_loss=True) for k in (k2, k3))
    np.testing.assert_allclose(second, slope(backward, "bandit"), atol=1e-13)
    np.testing.assert_allclose(third, slope(forward, "bandit"), atol=1e-13)
    assert np.abs(second - third).max() > 1e-2


@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_taken_off_the_return_k1_alone_makes_the_penalised_gradient(name):
    wanted = slope(divergence(name, "pi", "ref"), name)
    np.testing.assert_allclose(penalty_gradient(k1, name, as_loss=False), wanted, atol=1e-13)
    for step in (k2, k3):
        found = penalty_gradient(step, name, as_loss=False)
        assert np.abs(found - wanted).max() > 1e-2
    penalised = replace(rloo, penalty=Penalty(k1, 0.5))
    target = GivenTarget(
        "the gradient of the return less 0.5 times the divergence from the reference",
        gradient(PROBLEMS[name], THETA[name]) - 0.5 * wanted,
    )
    found = report(penalised, name, 2, target=target, reference=reference(name))
    assert found.verdict is Verdict.UNBIASED
    assert report(penalised, name, 2, reference=reference(name)).verdict is Verdict.BIASED


def test_an_entropy_bonus_in_the_return_is_the_entropy_s_gradient():
    theta = by_torch.tensor(THETA["bandit"])
    entropy = lambda z: -(torch.softmax(z, -1) * torch.log_softmax(z, -1)).sum()  # noqa: E731
    wanted = -torch.func.jacrev(entropy)(theta).numpy()
    found = penalty_gradient(negative_entropy, "bandit", as_loss=False)
    np.testing.assert_allclose(found, wanted, atol=1e-13)


def test_values_of_k1_and_k3_have_the_divergence_as_their_mean():
    pi, ref = softmax(THETA["bandit"])[0], softmax(reference("bandit"))[0]
    x = np.log(pi / ref)
    exact = float(divergence("bandit", "pi", "ref")(by_torch.tensor(THETA["bandit"])))
    assert abs(pi @ x - exact) < 1e-14
    assert abs(pi @ (np.exp(-x) - 1 + x) - exact) < 1e-14
    assert abs(pi @ x**2 / 2 - exact) > 1e-3


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="clip: expected a positive number, got 0"):
        GroupRelative(clip=0.0)
    with pytest.raises(SurrogateError, match="expected a group of at least 2, got 1"):
        report(rloo, "bandit", 1)
    with pytest.raises(SurrogateError, match="expected a reference policy"):
        report(replace(rloo, penalty=Penalty(k1, 0.1)), "bandit", 2)
