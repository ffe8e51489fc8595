"""Gradient of what: Jacobians against closed forms, planted fields named, points of rest."""

import numpy as np
import pytest
from scipy.optimize import minimize

from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import Undiscounted, bootstrapped_gradient, update_field
from gradbias.analytic.returns.derivatives import gradient, hessian
from gradbias.analytic.returns.evaluation import expected_return
from gradbias.analytic.returns.lambda_returns import LambdaReturns
from gradbias.analytic.returns.target_values import evaluate_target
from gradbias.stochastic.estimators.kinds import from_callable, from_surrogate
from gradbias.stochastic.surrogates.group_relative import rloo
from gradbias.stochastic.surrogates.score_function import AD, ad
from gradbias.verification.diagnosis.fixed_points import stationary_point
from gradbias.verification.diagnosis.update_fields import Symmetry, differences, field_report
from tests.oracles.brute_force import complex_step_gradient, softmax_rows

STEPS = 3


def problem(seed, discount=0.6, n_states=2):
    rng = np.random.default_rng(seed)
    mdp = TabularMDP(
        rng.dirichlet(np.ones(n_states), size=(n_states, 2)),
        rng.normal(size=(n_states, 2)),
        discount,
        rng.dirichlet(np.ones(n_states)),
        STEPS,
    )
    return mdp, rng.normal(size=(n_states, 2)), rng.normal(size=n_states)


def undiscounted(mdp):
    return lambda theta: evaluate_target(update_field(horizon=STEPS), mdp, theta)


def lambda_returns(mdp, critic, gae_lambda):
    returns = LambdaReturns(mdp, critic)
    return lambda theta: returns.at(theta, discount=mdp.discount, gae_lambda=gae_lambda).update


def soft_return(mdp, theta, coefficient):
    """The return with entropies as rewards, by a plain recursion in any arithmetic."""
    policy = softmax_rows(theta)
    kernel = np.einsum("sa,sat->st", policy, mdp.transition)
    reward = (policy * (mdp.reward - coefficient * np.log(policy))).sum(axis=1)
    values = np.zeros(mdp.n_states, dtype=policy.dtype)
    for _ in range(STEPS):
        values = reward + mdp.discount * kernel @ values
    return mdp.start @ values


def soft_gradient(mdp, coefficient):
    def field(theta):
        found = np.zeros_like(theta)
        for index in np.ndindex(theta.shape):
            moved = theta.astype(complex)
            moved[index] += 1e-30j
            found[index] = soft_return(mdp, moved, coefficient).imag / 1e-30
        return found

    return field


def entropy_loss(mdp, coefficient, discount):
    """The return's gradient and that of the entropies of the states that are visited."""

    def field(theta):
        policy = softmax_rows(theta)
        kernel = np.einsum("sa,sat->st", policy, mdp.transition)
        law, visits = np.array(mdp.start), np.zeros(mdp.n_states)
        for t in range(STEPS):
            visits += discount**t * law
            law = law @ kernel
        entropy = -(policy * np.log(policy)).sum(axis=1)
        own = -policy * (np.log(policy) + entropy[:, None])
        return complex_step_gradient(mdp, theta) + coefficient * visits[:, None] * own

    return field


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_differences_are_the_closed_form_jacobian_to_their_stated_accuracy(seed):
    mdp, theta, critic = problem(seed, n_states=3)
    returns = LambdaReturns(mdp, critic, weighting=Undiscounted())
    update = returns.at(theta, discount=0.6, gae_lambda=0.4)
    basis = np.eye(theta.size).reshape(theta.size, *theta.shape)
    exact = np.stack([update.jvp(v) for v in basis], axis=-1).reshape(theta.shape * 2)
    found, accuracy = differences(
        lambda at: returns.at(at, discount=0.6, gae_lambda=0.4).update, theta
    )
    gap = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert gap < 1e-10
    assert gap <= accuracy < 1e-8
    found, _ = differences(lambda at: gradient(mdp, at), theta)
    assert np.linalg.norm(found - hessian(mdp, theta)) < 1e-10 * np.linalg.norm(found)


def test_differences_of_what_is_not_smooth_say_that_they_are_poor():
    theta = np.array([[0.003, -0.004]])
    _, accuracy = differences(np.abs, theta)
    assert accuracy > 0.01


def test_the_gradient_is_symmetric_and_the_undiscounted_field_is_not():
    mdp, theta, _ = problem(3)
    report = field_report(lambda at: gradient(mdp, at), mdp, theta, follow=False)
    assert report.verdict is Symmetry.SYMMETRIC
    assert [match.name for match in report.matches] == ["gradient"]
    assert report.displacement is None
    report = field_report(undiscounted(mdp), mdp, theta, follow=False)
    assert report.verdict is Symmetry.NOT_SYMMETRIC
    assert [match.name for match in report.matches] == ["no gamma^t"]
    jacobian = report.jacobian.reshape(4, 4)
    parts = np.linalg.norm(jacobian + jacobian.T), np.linalg.norm(jacobian - jacobian.T)
    assert np.isclose(report.asymmetry, parts[1] / np.hypot(*parts), rtol=1e-12)


def test_a_field_with_one_state_is_a_gradient_of_something_else():
    """With one state the undiscounted field is the gradient times a number."""
    rng = np.random.default_rng(0)
    mdp = TabularMDP(np.ones((1, 3, 1)), rng.normal(size=(1, 3)), 0.6, [1.0], STEPS)
    report = field_report(undiscounted(mdp), mdp, rng.normal(size=(1, 3)))
    assert report.verdict is Symmetry.SYMMETRIC
    names = {match.name for match in report.matches}
    assert {"no gamma^t", "no discount"} <= names
    assert "gradient" not in names


FIELDS = {
    "bootstrapped": lambda mdp, v: (
        lambda at: evaluate_target(bootstrapped_gradient(STEPS, v), mdp, at)
    ),
    "lambda-return": lambda mdp, v: lambda_returns(mdp, v, 0.4),
    "one-step actor-critic": lambda mdp, v: lambda_returns(mdp, v, 0.0),
    "entropy in the return": lambda mdp, _: soft_gradient(mdp, 0.3),
    "entropy as a loss": lambda mdp, _: entropy_loss(mdp, 0.3, mdp.discount),
    "entropy as a loss, no gamma^t": lambda mdp, _: entropy_loss(mdp, 0.3, 1.0),
    "weight decay": lambda mdp, _: lambda at: gradient(mdp, at) - 0.3 * at,
    "pure scale": lambda mdp, _: lambda at: 0.3 * gradient(mdp, at),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_known_field_is_named(name):
    mdp, theta, critic = problem(4)
    report = field_report(FIELDS[name](mdp, critic), mdp, theta, critic=critic, follow=False)
    assert [match.name for match in report.matches] == [name], str(report)
    fitted = report.matches[0].fitted
    wanted = {"lambda-return": 0.4, "weight decay": -0.3}.get(name, 0.3)
    assert fitted is None or abs(fitted - wanted) < 1e-9


def test_entropy_in_the_return_is_a_gradient_and_as_a_loss_it_is_none():
    mdp, theta, _ = problem(5)
    report = field_report(soft_gradient(mdp, 0.3), mdp, theta, follow=False)
    assert report.verdict is Symmetry.SYMMETRIC
    report = field_report(entropy_loss(mdp, 0.3, mdp.discount), mdp, theta, follow=False)
    assert report.verdict is Symmetry.NOT_SYMMETRIC


def test_an_unknown_field_is_called_unknown():
    """Also one that is the gradient at theta alone."""
    mdp, theta, _ = problem(6)
    report = field_report(lambda at: gradient(mdp, at) ** 3, mdp, theta, follow=False)
    assert report.matches == ()
    report = field_report(lambda at: gradient(mdp, theta), mdp, theta, follow=False)
    assert report.matches == ()
    assert "none of the known targets" in str(report)


def test_the_gradient_comes_to_rest_where_the_penalised_return_is_largest():
    mdp, theta, _ = problem(7)
    report = field_report(undiscounted(mdp), mdp, theta, decay=0.05)
    moved = report.displacement
    assert moved.settled

    def loss(flat):
        at = flat.reshape(theta.shape)
        return -expected_return(mdp, at) + 0.025 * (at**2).sum()

    best = minimize(loss, np.zeros(theta.size), method="BFGS", options={"gtol": 1e-9})
    assert np.allclose(moved.gradient.theta.ravel(), best.x, atol=1e-6)
    objectives = [-loss(rest.theta.ravel()) for rest in (moved.gradient, moved.field)]
    assert np.isclose(moved.objective_lost, objectives[0] - objectives[1], atol=1e-12)
    assert moved.objective_lost > 1e-4
    policies = [softmax_rows(rest.theta) for rest in (moved.gradient, moved.field)]
    assert np.isclose(moved.policy_distance, np.abs(policies[0] - policies[1])[:, 0].max())
    assert moved.policy_distance > 0.01
    rest = moved.field.theta
    assert np.abs(undiscounted(mdp)(rest) - 0.05 * rest).max() < 1e-9


def test_a_rest_that_plain_ascent_comes_to_late_is_found_and_is_that_of_the_ascent():
    """From here, 60 steps of ascent end where the root finder is lost; ascent to the end settles on
    one of two rests of the field with its decay, 0.7 in total variation from the gradient's.
    """
    rng = np.random.default_rng(5)
    rows, reward = rng.dirichlet(np.ones(2), size=(2, 2)), rng.normal(size=(2, 2))
    mdp = TabularMDP(rows, reward, 0.95, rng.dirichlet(np.ones(2)), 5)
    theta = rng.normal(size=(2, 2))

    def field(at):
        return evaluate_target(update_field(horizon=5), mdp, at)

    moved = field_report(field, mdp, theta).displacement
    assert moved.settled
    here = theta
    for _ in range(1500):
        here = here + 0.5 * (field(here) - moved.decay * here)
    assert np.abs(here - moved.field.theta).max() < 1e-9
    assert moved.policy_distance > 0.5
    lost = expected_return(mdp, moved.gradient.theta) - expected_return(mdp, here)
    assert lost > 0.05
    assert abs(moved.return_lost - lost) < 1e-9


def test_the_gradient_itself_moves_nothing():
    mdp, theta, _ = problem(8)
    moved = field_report(lambda at: gradient(mdp, at), mdp, theta).displacement
    assert moved.settled
    assert moved.policy_distance < 1e-12
    assert abs(moved.return_lost) < 1e-12


def test_a_field_without_rest_is_not_called_settled():
    theta = np.zeros((1, 2))
    rest = stationary_point(np.ones_like, theta, 0.0, 1.0)
    assert not rest.settled


def test_an_estimators_mean_is_its_field():
    mdp, theta, critic = problem(9)
    plain = field_report(lambda at: gradient(mdp, at), mdp, theta, follow=False)
    report = field_report(from_surrogate(ad, order=1), mdp, theta, critic=critic, follow=False)
    assert np.abs(report.field - plain.field).max() < 1e-13
    assert np.abs(report.jacobian - plain.jacobian).max() < 1e-10
    assert [match.name for match in report.matches] == ["gradient"]
    wrong = from_surrogate(AD(weighting=Undiscounted()), order=1)
    report = field_report(wrong, mdp, theta, follow=False)
    assert report.verdict is Symmetry.NOT_SYMMETRIC


def test_coupled_estimators_and_other_policies_are_taken_too():
    rng = np.random.default_rng(0)
    mdp = TabularMDP(np.ones((1, 2, 1)), [[1.0, 0.0]], 0.9, [1.0], horizon=2)
    policy = LinearSoftmax(rng.normal(size=(1, 2, 3)))
    theta = rng.normal(size=3)
    options = {"policy": policy, "follow": False}
    report = field_report(from_surrogate(rloo, order=1), mdp, theta, batch_size=2, **options)
    assert "gradient" in [match.name for match in report.matches]
    assert report.jacobian.shape == (3, 3)


def test_what_has_no_exact_mean_or_another_order_is_refused():
    mdp, theta, _ = problem(10)
    with pytest.raises(ValueError, match="field: expected an estimator of order 1, got 2"):
        field_report(from_surrogate(ad, order=2), mdp, theta)
    big = TabularMDP.random(9, 4, rng=np.random.default_rng(0), discount=0.9, horizon=6)
    slow = from_callable(lambda batch, at: np.ones_like(at) * batch.rewards.sum(), order=1)
    with pytest.raises(ValueError, match="expected an exact mean"):
        field_report(slow, big, np.zeros((9, 4)), batch_size=1)
    with pytest.raises(ValueError, match="field: its value"):
        field_report(lambda at: np.zeros(3), mdp, theta)
