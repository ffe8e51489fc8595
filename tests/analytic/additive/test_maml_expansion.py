"""One sampled inner step at first order in 1/N: by autograd, by enumeration, by extrapolation."""

import itertools

import numpy as np
import pytest
import torch

from gradbias.analytic.additive import maml_step as step_objectives
from gradbias.analytic.additive.expansion import additive_expansion, score_function_growth
from gradbias.analytic.additive.maml_expansion import step_expansion, step_spread
from gradbias.analytic.additive.maml_step import adapted_return, trajectory_law
from gradbias.analytic.additive.objectives import AdditiveFunction, AdditiveLaw, additive_moments
from gradbias.analytic.meta.bilevel import Maml
from gradbias.analytic.meta.meta_gradients import meta_gradient
from gradbias.analytic.meta.sampled_objective import sampled_step_objective
from gradbias.analytic.moments.estimators import gradient_moments
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.softmax import TABULAR, LinearSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient, hessian
from gradbias.analytic.returns.evaluation import expected_return
from gradbias.stochastic.networks.torch_policy import TorchPolicy
from tests.oracles import brute_force as oracles
from tests.oracles import torch_functions as by_torch
from tests.oracles.additive import laurent
from tests.oracles.tolerances import close

STEP_SIZE = 0.9
BANDIT = TabularMDP([[[1.0], [1.0]]], [[1.0, -0.6]], 0.9, [1.0], horizon=1)
ARMS = np.array([[0.3, -0.4]])


def policies():
    features = np.random.default_rng(1).normal(size=(2, 2, 3))

    def quadratic(p):
        return (by_torch.tensor(features) @ p) ** 2

    return {
        "tabular": TABULAR,
        "linear": LinearSoftmax(features),
        "curved": TorchPolicy(quadratic, 3),
    }


def problem(name, horizon=2, seed=4):
    policy = policies()[name]
    mdp = oracles.random_mdp(seed, horizon=horizon, n_states=2, n_actions=2)
    theta = np.random.default_rng(seed).normal(size=policy.parameter_shape(2, 2)) / 2
    return mdp, theta, policy


EVERY = list(itertools.product(sorted(policies()), Credit))


@pytest.mark.parametrize(("name", "credit"), EVERY)
def test_the_law_of_trajectories_has_the_known_moments(name, credit):
    mdp, theta, policy = problem(name, horizon=3)
    law = trajectory_law(mdp, theta, credit=credit, policy=policy)
    wanted = gradient_moments(mdp, theta, credit=credit, policy=policy)
    assert close(law.mean, wanted.mean.ravel(), 1.0)
    off = law.features - law.mean
    weighted = law.probabilities[:, None] * off
    assert close(weighted.T @ off, wanted.covariance, 1.0)
    by_scores = (law.probabilities[:, None] * law.features).T @ law.scores
    moved = by_scores + np.tensordot(law.probabilities, law.jacobians, axes=1)
    curvature = hessian(mdp, theta, policy=policy).reshape(moved.shape)
    assert close(moved, curvature, 1.0)
    assert not close(by_scores, curvature, 1.0)


def ending():
    """A terminal state, rewards by next state and over time."""
    rows = np.zeros((2, 2, 2))
    rows[0] = [[0.3, 0.7], [0.6, 0.4]]
    rows[1, :, 1] = 1.0
    reward = np.random.default_rng(3).normal(size=(3, 2, 2, 2))
    reward[:, 1] = 0.0
    return TabularMDP(rows, reward, 0.8, [0.7, 0.3], 3)


@pytest.mark.parametrize("credit", list(Credit))
def test_ends_and_peaked_policies_are_no_exception(credit):
    for theta in (np.array([[0.4, -0.1], [2.0, 1.0]]), np.array([[500.0, -500.0], [0.0, 0.0]])):
        law = trajectory_law(ending(), theta, credit=credit)
        function = adapted_return(ending(), theta, step_size=STEP_SIZE)
        found = step_expansion(ending(), theta, step_size=STEP_SIZE, credit=credit)
        wanted = additive_expansion(law, function)
        assert close(found.limit.ravel(), wanted.limit, 1.0)
        assert close(found.objective.ravel(), wanted.objective, 1.0)
        assert close(found.linearised.ravel(), wanted.linearised, 1.0)
        exact = sampled_step_objective(
            ending(), theta, batch_size=2, steps=1, step_size=STEP_SIZE, credit=credit
        )
        gradients = additive_moments(law, function, batch_size=2).gradient
        assert close(gradients, exact.gradient.ravel(), 1.0)


@pytest.mark.parametrize(("name", "credit"), EVERY)
def test_meta_rl_is_an_additive_objective(name, credit):
    """Sec. 3.4: value and gradient (eq. 7) are those of enumerated inner loops."""
    mdp, theta, policy = problem(name)
    loop = {"step_size": STEP_SIZE, "policy": policy}
    law = trajectory_law(mdp, theta, credit=credit, policy=policy)
    found = additive_moments(law, adapted_return(mdp, theta, **loop), batch_size=2)
    wanted = sampled_step_objective(mdp, theta, batch_size=2, steps=1, credit=credit, **loop)
    assert close(found.value, wanted.value, 1.0)
    assert close(found.gradient, wanted.gradient.ravel(), 1.0)
    assert not close(found.linearised.mean, wanted.gradient.ravel(), 1.0)


@pytest.mark.parametrize(("name", "credit"), EVERY)
def test_the_constants_are_those_of_the_additive_objective(name, credit):
    """By moments and closed-form derivatives, against full tensors over enumerated outcomes."""
    mdp, theta, policy = problem(name)
    loop = {"step_size": STEP_SIZE, "policy": policy}
    found = step_expansion(mdp, theta, credit=credit, **loop)
    law = trajectory_law(mdp, theta, credit=credit, policy=policy)
    wanted = additive_expansion(law, adapted_return(mdp, theta, **loop))
    assert close(found.limit.ravel(), wanted.limit, 1.0)
    assert close(found.objective.ravel(), wanted.objective, 1.0)
    assert close(found.linearised.ravel(), wanted.linearised, 1.0)
    assert not close(found.spread.ravel(), wanted.linearised, 1.0)  # samples are re-used
    expected = meta_gradient(Maml(mdp, policy=policy), theta, steps=1, step_size=STEP_SIZE)
    assert close(found.limit, expected, 1.0)


def extrapolated(sequence, samples, order):
    """Coefficients of 1/N^0..1/N^order: Richardson's, with as many powers as there are N."""
    powers = [-k for k in range(len(samples))]
    return laurent(sequence, samples, powers)[: order + 1]


def check_extrapolation(exact, samples, sequence, constant, tolerance):
    found = extrapolated(sequence, samples, 1)
    assert np.abs(found[0] - exact.limit.ravel()).max() < 1e-2 * tolerance
    scale = np.linalg.norm(constant)
    assert np.linalg.norm(found[1] - constant.ravel()) < tolerance * scale


@pytest.mark.parametrize("case", ["bandit", "three arms", "two states"])
def test_the_constants_are_what_enumerated_batches_tend_to(case):
    mdp, theta, samples, tolerance = {
        "bandit": (BANDIT, ARMS, (15, 20, 30, 40, 60, 90), 1e-7),
        "three arms": (
            TabularMDP(np.ones((1, 3, 1)), [[1.0, -0.5, 0.2]], 0.9, [1.0], horizon=1),
            np.array([[0.3, -0.4, 0.1]]),
            (10, 15, 20, 30, 40, 60),
            1e-7,
        ),
        "two states": (
            oracles.random_mdp(4, horizon=1, n_states=2, n_actions=2),
            np.array([[0.3, -0.4], [0.5, 0.2]]),
            (6, 9, 12, 16, 20, 26),
            1e-4,
        ),
    }[case]
    exact = step_expansion(mdp, theta, step_size=STEP_SIZE)
    law, function = trajectory_law(mdp, theta), adapted_return(mdp, theta, step_size=STEP_SIZE)
    every = [additive_moments(law, function, batch_size=n) for n in samples]
    loop = {"steps": 1, "step_size": STEP_SIZE, "credit": Credit.TOTAL_RETURN}
    slopes = [
        sampled_step_objective(mdp, theta, batch_size=n, **loop).gradient.ravel() for n in samples
    ]
    linearised = [one.linearised.mean for one in every]
    check_extrapolation(exact, samples, slopes, exact.objective, tolerance)
    check_extrapolation(exact, samples, linearised, exact.linearised, tolerance)
    for broken in (exact.spread, exact.objective):
        with pytest.raises(AssertionError):
            check_extrapolation(exact, samples, linearised, broken, tolerance)


def pulls(n, probability):
    """How often the first arm comes up in n pulls, by the recursion of the binomial law."""
    law = np.ones(1)
    for _ in range(n):
        law = np.append(law * (1 - probability), 0.0) + np.append(0.0, law * probability)
    return law


def bandit_step(n, step_size):
    """From the definitions: outcomes k = 0..n, their probabilities, mean inner estimates, mean
    per-sample Hessian estimates R (u u^T - F), and grad J after the step."""
    policy = np.exp(ARMS[0]) / np.exp(ARMS[0]).sum()
    scores = np.eye(2) - policy
    fisher = np.diag(policy) - np.outer(policy, policy)
    returns = np.array([1.0, -0.6])
    share = np.arange(n + 1)[:, None] / n
    share = np.hstack([share, 1 - share])
    steps = (share * returns) @ scores
    squares = np.einsum("ai,aj->aij", scores, scores)
    curvature = np.einsum("ka,aij->kij", share * returns, squares - fisher)
    scored = np.einsum("ka,aij->kij", share * returns, squares)
    after = gradient(BANDIT, ARMS + step_size * steps[:, None, :])[:, 0]
    return pulls(n, policy[0]), curvature, scored, after


def test_independent_batches_leave_the_spread_and_shared_ones_add_reuse():
    """N (mean - limit) by the binomial law, far enough out that the error is O(1/N)."""
    exact = step_expansion(BANDIT, ARMS, step_size=STEP_SIZE)
    curvature = hessian(BANDIT, ARMS).reshape(2, 2)
    gaps = {"independent": [], "shared": []}
    for n in (200, 400, 800):
        weights, estimates, _, after = bandit_step(n, STEP_SIZE)
        independent = (np.eye(2) + STEP_SIZE * curvature) @ (weights @ after)
        shared = weights @ (after + STEP_SIZE * np.einsum("kij,kj->ki", estimates, after))
        for name, mean, constant in (
            ("independent", independent, exact.spread),
            ("shared", shared, exact.linearised),
        ):
            gap = n * (mean - exact.limit[0]) - constant[0]
            gaps[name].append(np.linalg.norm(gap) / np.linalg.norm(constant))
    for errors in gaps.values():
        ratios = np.array(errors[:-1]) / errors[1:]
        assert (np.abs(ratios - 2.0) < 0.1).all(), ratios
        assert errors[-1] < 5e-3
    assert np.linalg.norm(exact.reuse) > 0.1 * np.linalg.norm(exact.spread)


def as_printed(n, scored_step, step_size):
    """Means over batches of n of (11), and the same with the outer gradient of (12)."""
    weights, curvature, scored, after = bandit_step(n, step_size)
    expected = gradient(BANDIT, ARMS + step_size * gradient(BANDIT, ARMS))[0]
    matrix = np.eye(2) + step_size * (curvature - scored) + scored_step * scored
    return weights @ np.einsum("kij,kj->ki", matrix, after), weights @ (matrix @ expected)


def test_eqs_11_and_12_lack_the_step_size():
    """At step size 0.3, (12) as printed is off by 0.0099 from the gradient of J(theta + eta g), of
    norm 0.43, and the bias of (11) tends to that: 0.0099 at N = 50 and at 400. With the step size
    (12) is right, and the bias of (11) is 8e-6 at N = 50 and an eighth of that at 400."""
    eta = 0.3
    leaf = by_torch.tensor(ARMS).requires_grad_(True)
    inner = by_torch.gradient_in(by_torch.return_of(BANDIT, leaf), leaf)
    adapted = by_torch.return_of(BANDIT, leaf + eta * inner)
    truth = torch.autograd.grad(adapted, leaf)[0].numpy()[0]
    assert close(as_printed(5, eta, eta)[1], truth, 1.0)
    off = np.linalg.norm(as_printed(5, 1.0, eta)[1] - truth)
    assert off > 0.01 * np.linalg.norm(truth)

    def biases(scored_step):
        found = []
        for n in (50, 400):
            loop = {"steps": 1, "step_size": eta, "credit": Credit.TOTAL_RETURN}
            wanted = sampled_step_objective(BANDIT, ARMS, batch_size=n, **loop).gradient[0]
            found.append(np.linalg.norm(as_printed(n, scored_step, eta)[0] - wanted))
        return found

    right, printed = biases(eta), biases(1.0)
    assert abs(right[0] / right[1] - 8.0) < 0.5  # 1/N
    assert abs(printed[1] / off - 1.0) < 0.05
    assert printed[1] > 20 * right[1]


@pytest.mark.parametrize("credit", list(Credit))
def test_the_spread_is_known_beyond_enumeration(credit):
    """Twenty steps: third derivatives by autograd, contracted with the covariance; and, where both
    can be had, that of the expansion."""
    mdp, theta, _ = problem("tabular", horizon=20)
    found = step_spread(mdp, theta, step_size=STEP_SIZE, credit=credit)
    inner = gradient_moments(mdp, theta, credit=credit)
    third = oracles.autograd_derivative(mdp, theta + STEP_SIZE * inner.mean, 3).reshape(4, 4, 4)
    matrix = np.eye(4) + STEP_SIZE * oracles.autograd_derivative(mdp, theta, 2).reshape(4, 4)
    wanted = STEP_SIZE**2 / 2 * matrix @ np.tensordot(third, inner.covariance, 2)
    assert close(found.ravel(), wanted, 1.0)
    short, theta, policy = problem("curved")
    loop = {"step_size": STEP_SIZE, "credit": credit, "policy": policy}
    whole = step_expansion(short, theta, **loop)
    assert (step_spread(short, theta, **loop) == whole.spread).all()


def test_algorithm_1_s_outer_score_is_that_of_the_adapted_policy():
    """Printed with the score at theta: that estimates another vector."""
    adapted = ARMS + STEP_SIZE * gradient(BANDIT, ARMS)
    policy, before = (np.exp(x[0]) / np.exp(x[0]).sum() for x in (adapted, ARMS))
    returns = np.array([1.0, -0.6])
    truth = gradient(BANDIT, adapted)[0]
    assert close((policy * returns) @ (np.eye(2) - policy), truth, 1.0)
    printed = (policy * returns) @ (np.eye(2) - before)
    assert np.linalg.norm(printed - truth) > 0.05 * np.linalg.norm(truth)


@pytest.mark.parametrize("credit", list(Credit))
def test_the_linearised_estimate_is_maml_s_with_the_step_s_own_trajectories(credit):
    """Autograd through an inner step whose surrogate puts back what sampling forgets."""
    mdp, theta, _ = problem("tabular")
    law = trajectory_law(mdp, theta, credit=credit)
    wanted = additive_moments(
        law, adapted_return(mdp, theta, step_size=STEP_SIZE), batch_size=2
    ).linearised
    probabilities, estimates = [], []
    for batch in itertools.product(oracles.all_trajectories(mdp, theta, 2), repeat=2):
        leaf = by_torch.tensor(theta).requires_grad_(True)
        log_policy, step = torch.log_softmax(leaf, -1), 0.0
        for _, states, actions, rewards in batch:
            log_probs = log_policy[states[:-1], actions]
            ratio = torch.exp(log_probs.sum() - log_probs.sum().detach())
            paid = [mdp.discount**t * r for t, r in enumerate(rewards)]
            whole = credit is Credit.TOTAL_RETURN
            weights = by_torch.tensor([sum(paid) if whole else sum(paid[t:]) for t in range(2)])
            score = by_torch.gradient_in((weights * log_probs).sum(), leaf)
            step = step + ratio * score / 2
        adapted = by_torch.return_of(mdp, leaf + STEP_SIZE * step)
        estimates.append(torch.autograd.grad(adapted, leaf)[0].numpy().ravel())
        probabilities.append(np.prod([each[0] for each in batch]))
    mean = np.array(probabilities) @ estimates
    off = np.array(estimates) - mean
    assert close(mean, wanted.mean, 1.0)
    assert close((np.array(probabilities)[:, None] * off).T @ off, wanted.covariance, 1.0)


def test_the_first_term_s_variance_grows_and_the_second_s_falls():
    """Sec. 3.4 prints that of (ii); it is (i): N J(theta')^2 tr F, and O(1) with a baseline."""
    law, function = trajectory_law(BANDIT, ARMS), adapted_return(BANDIT, ARMS, step_size=STEP_SIZE)
    adapted = expected_return(BANDIT, ARMS + STEP_SIZE * gradient(BANDIT, ARMS))
    policy = np.exp(ARMS[0]) / np.exp(ARMS[0]).sum()
    fisher = np.diag(policy) - np.outer(policy, policy)
    assert close(score_function_growth(law, function), adapted**2 * fisher, 1.0)
    still = AdditiveLaw(law.probabilities, law.features, law.scores)
    first = AdditiveFunction(function.value, function.gradient)
    unscored = AdditiveLaw(law.probabilities, law.features, 0 * law.scores, law.jacobians)

    def variance(case, f, n, baseline=0.0):
        found = additive_moments(case, f, batch_size=n, baseline=baseline).score_function
        return np.trace(found.covariance)

    samples = (100, 200, 400, 800)
    grows = np.array([variance(still, first, n) for n in samples])
    slope = (grows[-1] - grows[-2]) / 400
    assert abs(slope / (adapted**2 * np.trace(fisher)) - 1.0) < 1e-3
    stays = [variance(still, first, n, adapted) for n in samples]
    assert abs(stays[-1] / stays[0] - 1.0) < 0.05
    falls = [variance(unscored, function, n) for n in samples]
    assert abs(falls[0] / falls[-1] - 8.0) < 0.2


def test_bad_input_is_named(monkeypatch):
    mdp, theta, _ = problem("tabular")
    endless = oracles.random_mdp(4, n_states=2, n_actions=2)
    bad = [
        (lambda: trajectory_law(endless, theta), "horizon: expected a finite one"),
        (lambda: trajectory_law(mdp, np.zeros((3, 2, 2))), "theta: expected one policy"),
        (lambda: trajectory_law(mdp, np.zeros(2)), "theta: expected shape"),
        (lambda: adapted_return(mdp, theta, step_size=np.inf), "step_size: expected a number"),
        (lambda: step_expansion(mdp, theta, step_size=None), "step_size: expected a number"),
        (lambda: step_expansion(endless, theta, step_size=0.1), "horizon: expected a finite one"),
    ]
    for call, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            call()
    monkeypatch.setattr(step_objectives, "MAX_TABLE", 200)
    with pytest.raises(
        ValueError, match="horizon: expected a distribution of at most 200 numbers, got 256"
    ):
        trajectory_law(mdp, theta)
