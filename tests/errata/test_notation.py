"""Remarks on notation: what is meant holds, and the other reading does not.

The reference is autograd through the loop, or enumeration; nothing is compared with itself.
"""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from gradbias.analytic.meta.bilevel import Maml
from gradbias.analytic.meta.meta_gradients import inner_loop
from gradbias.analytic.moments.estimators import gradient_moments
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient, hessian
from tests.errata import estimates, merits, one_step, paths, unrolled
from tests.errata.matrices import (
    FAILS,
    HOLDS,
    STEP_SIZE,
    LirpgByMatrices,
    maml_through_the_loop,
    numbers,
)
from tests.errata.records import relative
from tests.oracles import brute_force as oracles


def test_equation_3_is_exactly_right_and_its_symbol_is_not_the_jacobian():
    """As defined there (without alpha) the formula holds; with the true Jacobian, which the MAML,
    LOLA and MGRL paragraphs call by the same symbol, the outer alpha is one too many."""
    case = LirpgByMatrices(steps=3)
    exact, jacobian = case.through_the_loop(), case.final_jacobian()
    assert relative(STEP_SIZE * case.series(), jacobian) < HOLDS
    assert relative(STEP_SIZE * case.series() @ case.outer, exact) < HOLDS
    assert relative(jacobian @ case.outer, exact) < HOLDS
    assert relative(case.found, exact) < HOLDS
    assert relative(STEP_SIZE * jacobian @ case.outer, exact) > FAILS


@pytest.mark.parametrize("t", range(3))
def test_no_value_of_the_undefined_index_makes_equation_8_right(t):
    """The product starts at j = t + 1 for a t that is not bound; it must be i + 1."""
    case = LirpgByMatrices(steps=4)
    jacobian = case.final_jacobian()
    assert relative(STEP_SIZE * case.series(), jacobian) < HOLDS
    assert relative(STEP_SIZE * case.series(first=lambda i: t + 1), jacobian) > FAILS


@pytest.mark.parametrize("steps", [3, 4])
def test_the_order_of_the_products_matters(steps):
    """Hessians do not commute; increasing j from left to right is right in this layout."""
    case = LirpgByMatrices(steps)
    jacobian = case.final_jacobian()
    assert relative(STEP_SIZE * case.series(), jacobian) < HOLDS
    backwards = case.series(order=lambda factors: factors[::-1])
    assert relative(STEP_SIZE * backwards, jacobian) > FAILS
    mdp, theta = case.mdp, case.theta
    path = inner_loop(Maml(mdp), theta, steps=2, step_size=STEP_SIZE)
    first, second = (np.eye(6) + STEP_SIZE * hessian(mdp, t).reshape(6, 6) for t in path[:2])
    outer = gradient(mdp, path[-1]).ravel()
    exact = maml_through_the_loop(mdp, theta, 2)
    assert relative(first @ second @ outer, exact) < HOLDS
    assert relative(second @ first @ outer, exact) > FAILS


def test_the_hessians_lipschitz_constant_is_not_that_of_the_outer_objective():
    """rho_2 is printed as max m_phi, the Lipschitz constant of J_out. LIRPG with an outer
    reward of 0 has m = 0 but a Hessian of J_in that moves; max rho_phi bounds it."""
    rng = np.random.default_rng(0)
    mdp = oracles.random_mdp(11, n_states=3, n_actions=2)
    unpaid = replace(mdp, reward=np.zeros((3, 2)))
    inner = replace(mdp, reward=rng.normal(size=(3, 2)))  # r + phi with r = 0
    span, g = float(np.ptp(inner.reward)), mdp.discount
    # The constant of theory for every tabular softmax: the third derivative's norm.
    rho = (
        span
        / (1 - g) ** 2
        * (
            1 / np.sqrt(2)
            + np.sqrt(2 / 3) * g / (1 - g)
            + 3 * g**2 / (2 * np.sqrt(2) * (1 - g) ** 2)
        )
    )
    m = 0.0
    for _ in range(20):
        here, there = rng.normal(size=(2, 3, 2))
        m = max(m, np.linalg.norm(gradient(unpaid, here)))
        moved = np.linalg.norm((hessian(inner, here) - hessian(inner, there)).reshape(6, 6), 2)
        distance = np.linalg.norm(here - there)
        assert moved > FAILS * distance > m * distance
        assert moved <= rho * distance
    assert m == 0.0


def test_equation_4_means_estimates_where_it_prints_no_hats():
    """Its inner factors bear no hats. On a bandit with one trajectory a step the mean of the
    estimate is the sum over paths with the *mean of the Hessian estimates* inside (here AD's, which
    is biased), not with the exact Hessian."""
    reward, alpha = np.array([1.0, -0.5]), 0.7
    theta = np.array([0.3, -0.2])
    bandit = TabularMDP(np.ones((1, 2, 1)), reward[None], 0.9, [1.0], 1)

    def policy(logits):
        return softmax(logits)

    def score(logits, a):
        return np.eye(2)[a] - policy(logits)

    def softmax_block(logits):
        p = policy(logits)
        return np.diag(p) - np.outer(p, p)

    def estimated(a):
        return lambda logits: -reward[a] * softmax_block(logits)

    def mean_hessian(logits):
        return sum(policy(logits)[a] * estimated(a)(logits) for a in range(2))

    def exact_hessian(logits):
        return hessian(bandit, logits[None]).reshape(2, 2)

    def outer(logits):
        return gradient(bandit, logits[None]).ravel()

    def mixed(logits):
        return softmax_block(logits)  # d/dphi d/dtheta of sum_a pi (r + phi)

    estimate = np.zeros(2)
    by_mean, by_exact = np.zeros(2), np.zeros(2)
    for a0, a1, b in itertools.product(range(2), repeat=3):
        first = theta + alpha * reward[a0] * score(theta, a0)
        second = first + alpha * reward[a1] * score(first, a1)
        path = policy(theta)[a0] * policy(first)[a1]
        weight = path * policy(first)[b]  # an independent trajectory b for the Hessian at theta^1
        factor = np.eye(2) + alpha * estimated(b)(first)
        estimate += weight * alpha * (mixed(theta) @ factor + mixed(first)) @ outer(second)
        if b == 0:
            for total, h in ((by_mean, mean_hessian), (by_exact, exact_hessian)):
                factor = np.eye(2) + alpha * h(first)
                total += path * alpha * (mixed(theta) @ factor + mixed(first)) @ outer(second)
    assert relative(by_mean, estimate) < HOLDS
    assert relative(by_exact, estimate) > FAILS


def test_an_expected_error_falls_with_the_root_of_n_and_the_bias_with_n():
    found = numbers(paths.error_is_no_bias)
    assert found[::2] == pytest.approx([found[0]] * 3, rel=1e-10)
    assert found[1::2] == pytest.approx([found[1]] * 3, rel=0.02)


def test_a_hessian_moves_where_the_outer_return_does_not():
    still, moved = numbers(unrolled.lipschitz_of_the_hessian)
    assert still == 0.0 < 0.1 < moved < 1.0


def test_the_page_s_intended_formulas_hold_and_the_other_readings_do_not():
    cases = (unrolled.proposition_steps, unrolled.equation_8, unrolled.product_order, unrolled.hats)
    for case in cases:
        found = numbers(case)
        assert found[0] < HOLDS, case
        assert min(found[1:]) > 1e-3, case
    assert numbers(unrolled.proposition_steps)[1] == pytest.approx(1.0 - STEP_SIZE, rel=1e-12)


def test_dice_s_gradient_is_reinforce_with_rewards_to_go():
    """The variances are those of the recursion over time; the total return has a larger one."""
    to_go, total, variance, larger = numbers(estimates.dice_gradient)
    assert to_go < HOLDS
    assert total > 0.1
    rng = np.random.default_rng(2)
    mdp = TabularMDP.random(2, 2, rng=rng, discount=0.9, horizon=3)
    theta = rng.normal(size=(2, 2))
    for credit, found in ((Credit.REWARD_TO_GO, variance), (Credit.TOTAL_RETURN, larger)):
        moments = gradient_moments(mdp, theta, credit=credit)
        assert found == pytest.approx(np.trace(moments.covariance.reshape(4, 4)), rel=1e-11)
    assert larger > 1.5 * variance


def test_a_trajectory_of_h_actions_has_h_rewards():
    assert numbers(estimates.steps_of_a_return) == [3.0, 4.0]


def test_the_first_term_of_eq_8_grows_and_the_second_falls():
    """At N = 4 over all ordered batches; the limits by the delta method."""
    found = numbers(merits.variance_of_terms)
    bandit, theta, eta = merits.ARMS
    p = softmax(theta)[0]
    scores, block = np.eye(2) - p, np.diag(p) - np.outer(p, p)
    rewards, terms, chance = np.array([1.0, -0.6]), [], []
    for batch in itertools.product(range(2), repeat=4):
        after = theta[0] + eta * sum(rewards[a] * scores[a] for a in batch) / 4
        q = softmax(after)
        factor = np.eye(2) - eta * rewards[list(batch)].mean() * block
        slope = (np.diag(q) - np.outer(q, q)) @ rewards
        terms.append((q @ rewards * sum(scores[a] for a in batch), factor @ slope))
        chance.append(math.prod(p[a] for a in batch))
    for k, scale in ((0, 0.25), (1, 4.0)):
        term = np.array([each[k] for each in terms])
        variance = chance @ ((term - chance @ term) ** 2).sum(axis=1)
        assert found[k] == pytest.approx(scale * variance, rel=1e-10)
    q = softmax(theta[0] + eta * gradient(bandit, theta)[0])
    assert found[4] == pytest.approx((q @ rewards) ** 2 * np.trace(block), rel=2e-3)
    assert found[1::2] == pytest.approx([found[5]] * 3, rel=0.02)
    assert min(found[::2]) > 0.1 > 0.01 > max(found[1::2]) > 1e-3


def test_table_1_has_standard_deviations():
    """Rounded to 0.1, the ratios may be off by 4 percent; 3 is the ratio, not its square."""
    found = numbers(one_step.mixed_deviations)
    assert found == pytest.approx([46 / 17, (46 / 17) ** 2, 86 / 26, (86 / 26) ** 2], rel=1e-12)
    assert all(2.5 < ratio < 3.5 for ratio in found[::2])
    assert min(found[1::2]) > 6.0


def test_the_underbraced_f_needs_the_minus_sign():
    alpha = 0.5
    right, wrong = 1.0 - (1.0 - alpha) ** 2, 1.0 - (1.0 + alpha) ** 2
    assert numbers(one_step.underbraced_sign) == pytest.approx([right, right, wrong], rel=1e-14)
