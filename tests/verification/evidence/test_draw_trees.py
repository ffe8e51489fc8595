"""Estimates that draw their own batches: a two-step meta-gradient through draw, under both
measures, and what such an estimate must not do."""

import numpy as np
import pytest

from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenTarget
from gradbias.analytic.returns.derivatives import gradient, hessian
from gradbias.stochastic.estimators.kinds import from_draws
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.evidence.reports import Evidence, Verdict
from gradbias.verification.measurement.measure import measure_bias
from tests.cases.bandits import bandit, score_gradient

STEP = 0.7


def score_hessian(batch, theta):
    """R (u u^T - F): unbiased, from the same kind of batch."""
    policy = softmax(theta)[0]
    scores = np.eye(2)[batch.actions[:, 0]] - policy
    fisher = np.diag(policy) - np.outer(policy, policy)
    curvature = scores[:, :, None] * scores[:, None, :] - fisher
    return (batch.rewards[:, 0, None, None] * curvature).mean(axis=0)


def two_step_maml(draw, theta, n=2):
    """Two sampled inner steps, an independent Hessian batch each, one outer batch."""
    jacobian, point = np.eye(2), theta
    for _ in range(2):
        step = score_gradient(draw(point, n), point)
        jacobian = jacobian @ (np.eye(2) + STEP * score_hessian(draw(point, 1), point))
        point = point + STEP * step
    return (jacobian @ score_gradient(draw(point, 1), point)[0])[None]


def two_step_mean_by_hand(theta, n=2):
    """The mean over the inner paths of exact Hessians and gradients (all batches independent)."""
    mdp = bandit()

    def steps_from(point):
        chosen = softmax(point)[0]
        for counts in np.ndindex(*(2,) * n):
            actions = np.array(counts)[:, None]
            batch = Trajectories(
                np.zeros((n, 2)), actions, mdp.reward[0][actions], np.ones((n, 1)), np.zeros((n, 1))
            )
            probability = np.prod(chosen[actions])
            yield probability, point + STEP * score_gradient(batch, point)

    total = np.zeros((1, 2))
    for p, first in steps_from(theta):
        for q, second in steps_from(first):
            jacobian = np.eye(2)
            for point in (theta, first):
                jacobian = jacobian @ (np.eye(2) + STEP * hessian(mdp, point)[0, :, 0, :])
            total += p * q * (jacobian @ gradient(mdp, second)[0])
    return total


def test_a_two_step_meta_gradient_draws_at_its_own_parameters():
    mdp, theta = bandit(), np.array([[0.3, -0.2]])
    point, jacobian = theta, np.eye(2)
    for _ in range(2):
        jacobian = jacobian @ (np.eye(2) + STEP * hessian(mdp, point)[0, :, 0, :])
        point = point + STEP * gradient(mdp, point)
    exact = (jacobian @ gradient(mdp, point)[0])[None]
    target = GivenTarget("the gradient of the return after 2 expected inner steps", exact)
    estimator = from_draws(two_step_maml, order=1)
    report = measure_bias(estimator, mdp, theta, target=target)
    assert report.evidence is Evidence.ENUMERATION
    assert report.samples == 4 * 2 * 4 * 2 * 2
    multisets = measure_bias(estimator, mdp, theta, target=target, max_outcomes=100)
    assert multisets.samples == 3 * 2 * 3 * 2 * 2
    np.testing.assert_allclose(multisets.mean, report.mean, rtol=1e-12)
    np.testing.assert_allclose(multisets.variance, report.variance, rtol=1e-9)
    np.testing.assert_allclose(report.mean, two_step_mean_by_hand(theta), rtol=1e-12)
    # Every part is unbiased, the whole is not: the compositional bias.
    assert report.verdict is Verdict.BIASED
    sampled = measure_bias(
        estimator, mdp, theta, target=target, evidence="sampling", budget=4000, false_alarm=1e-6
    )
    assert sampled.evidence is Evidence.SAMPLING
    low, high = sampled.interval
    assert low <= report.bias_norm <= high
    # Five standard errors: it was off by 2% on average over 12 seeds.
    assert abs(sampled.variance.sum() / report.variance.sum() - 1) < 0.1
    own = GivenTarget("its own mean", two_step_mean_by_hand(theta))
    assert measure_bias(estimator, mdp, theta, target=own).verdict is Verdict.UNBIASED


def test_draws_whose_order_matters_are_enumerated_as_tuples():
    def first_of_two(draw, theta):
        return score_gradient(draw(theta, 2)[:1], theta)

    def middle_of_three(draw, theta):
        return score_gradient(draw(theta, 3)[1:2], theta)

    mdp, theta = bandit(), np.array([[0.3, -0.2]])
    for function, outcomes in ((first_of_two, 4), (middle_of_three, 8)):
        report = measure_bias(from_draws(function, order=1), mdp, theta)
        assert report.samples == outcomes
        assert report.verdict is Verdict.UNBIASED
        with pytest.raises(ValueError, match="more than the limit"):
            measure_bias(
                from_draws(function, order=1),
                mdp,
                theta,
                evidence="enumeration",
                max_outcomes=outcomes - 1,
            )


def test_an_estimate_that_draws_for_ever_is_stopped():
    def until_paid(draw, theta):
        while True:
            batch = draw(theta, 1)
            if batch.rewards.sum() > 0:
                return score_gradient(batch, theta)

    mdp = TabularMDP([[[1.0], [1.0]]], [[0.0, 1.0]], 0.9, [1.0], horizon=1)
    estimator = from_draws(until_paid, order=1)
    report = measure_bias(estimator, mdp, np.array([[0.3, -0.2]]), budget=500)
    assert report.evidence is Evidence.SAMPLING


def test_estimates_that_draw_must_depend_on_their_draws_alone():
    rng = np.random.default_rng(0)
    mdp, theta = bandit(), np.array([[0.3, -0.2]])
    noisy = from_draws(
        lambda draw, t: score_gradient(draw(t, 1), t) + rng.normal(), order=1, name="noisy"
    )
    with pytest.raises(ValueError, match="noisy: returned two values for the same draws"):
        measure_bias(noisy, mdp, theta)
    good = from_draws(two_step_maml, order=1, name="good")
    with pytest.raises(ValueError, match="good draws its own batches"):
        measure_bias(good, mdp, theta, batch_size=3)
    with pytest.raises(ValueError, match="good draws at parameters of its own"):
        measure_bias(good, mdp, theta, behaviour=theta + 1)
    with pytest.raises(ValueError, match="outcomes of all draws together"):
        measure_bias(good, mdp, theta, evidence="enumeration", max_outcomes=50)
    with pytest.raises(ValueError, match="theta: expected shape"):
        measure_bias(from_draws(lambda draw, t: draw(np.zeros(3), 1), order=1), mdp, theta)
