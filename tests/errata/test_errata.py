"""What is printed in *A Theoretical Understanding of Gradient Bias in Meta-RL* and does not hold.

For each erratum the printed statement fails numerically and the corrected one holds. The reference
is autograd through the loop, or enumeration of all trajectories; nothing is compared with itself.
The numbers of docs/errata.md, also of *On Merits of Biased Gradient Estimates for Meta-RL*, are in
the second half.
"""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gradbias.analytic.additive.maml_expansion import step_expansion
from gradbias.analytic.meta.bilevel import Lirpg, Maml
from gradbias.analytic.meta.meta_gradients import inner_loop, meta_gradient
from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.games import memory_one_game, prisoners_dilemma
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient, hessian
from gradbias.analytic.returns.game_derivatives import game_values
from tests.cases.checkout import ROOT
from tests.errata import cases as errata_cases
from tests.errata import estimates as errata_estimates
from tests.errata import merits as errata_merits
from tests.errata import paths as errata_paths
from tests.errata import theorem as errata_theorem
from tests.errata import unrolled as errata_unrolled
from tests.oracles import brute_force as oracles
from tests.oracles import torch_functions as by_torch

STEP_SIZE = 0.8
HOLDS = 1e-11
FAILS = 1e-6  # five orders above; the order of products makes the smallest error, 2e-5


class LirpgByMatrices:
    """Dense derivatives along LIRPG's inner loop, and the loop's derivative by autograd.

    Rows of a Jacobian are phi's, as in the paper: ``mixed[i]`` is d/dphi d/dtheta J_in at theta^i.
    """

    def __init__(self, steps, seed=11):
        rng = np.random.default_rng(seed)
        self.mdp = oracles.random_mdp(seed, n_states=3, n_actions=2)
        self.phi, self.theta = rng.normal(size=(2, 3, 2))
        self.steps = steps
        loop = {"steps": steps, "step_size": STEP_SIZE}
        self.path = inner_loop(Lirpg(self.mdp), self.phi, self.theta, **loop)
        paid = TabularMDP(
            self.mdp.transition, self.mdp.reward + self.phi, self.mdp.discount, self.mdp.start
        )
        self.hessians = [hessian(paid, theta).reshape(6, 6) for theta in self.path]
        self.mixed = [self._mixed(theta) for theta in self.path]
        self.outer = gradient(self.mdp, self.path[-1]).ravel()
        self.found = meta_gradient(Lirpg(self.mdp), self.phi, self.theta, **loop).ravel()

    def _mixed(self, theta):
        def function(phi, logits):
            return by_torch.return_of(self.mdp, logits, extra_reward=phi)

        both = torch.func.jacrev(torch.func.jacrev(function, 1), 0)
        found = both(by_torch.tensor(self.phi), by_torch.tensor(theta)).numpy()
        return found.reshape(6, 6).T  # rows: phi

    def inner(self, phi, theta):
        value = by_torch.return_of(self.mdp, theta, extra_reward=phi)
        return by_torch.gradient_in(value, theta)

    def through_the_loop(self):
        outer = lambda phi, theta: by_torch.return_of(self.mdp, theta)  # noqa: E731
        _, found = by_torch.through_the_loop(
            self.inner, outer, self.phi, self.theta, self.steps, STEP_SIZE
        )
        return found.ravel()

    def final_jacobian(self):
        """dtheta^K/dphi by autograd, rows phi's."""

        def final(phi):
            theta = by_torch.tensor(self.theta).requires_grad_(True)
            for _ in range(self.steps):
                theta = theta + STEP_SIZE * self.inner(phi, theta)
            return theta

        phi = by_torch.tensor(self.phi)
        return torch.autograd.functional.jacobian(final, phi).numpy().reshape(6, 6).T

    def factor(self, j):
        return np.eye(6) + STEP_SIZE * self.hessians[j]

    def series(self, first=lambda i: i + 1, order=lambda factors: factors):
        """sum_i J_i prod_{j >= first(i)} (I + alpha H_j), the paper's (3), without alpha."""
        total = np.zeros((6, 6))
        for i in range(self.steps):
            product = self.mixed[i]
            for j in order(list(range(first(i), self.steps))):
                product = product @ self.factor(j)
            total += product
        return total


def relative(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def test_equation_3_has_one_step_size_too_many_if_its_symbol_is_the_jacobian():
    """(i): as defined there (without alpha) the formula holds; with the true Jacobian, which the
    MAML, LOLA and MGRL paragraphs call by the same symbol, the outer alpha is one too many."""
    case = LirpgByMatrices(steps=3)
    exact, jacobian = case.through_the_loop(), case.final_jacobian()
    assert relative(STEP_SIZE * case.series(), jacobian) < HOLDS
    assert relative(STEP_SIZE * case.series() @ case.outer, exact) < HOLDS
    assert relative(jacobian @ case.outer, exact) < HOLDS
    assert relative(case.found, exact) < HOLDS
    assert relative(STEP_SIZE * jacobian @ case.outer, exact) > FAILS


def test_equation_7_takes_the_mixed_derivative_at_the_wrong_parameters():
    """(ii): at theta^1 and without alpha; it belongs at theta^0, times alpha."""
    case = LirpgByMatrices(steps=1)
    jacobian = case.final_jacobian()
    assert relative(STEP_SIZE * case.mixed[0], jacobian) < HOLDS
    assert relative(case.mixed[1], jacobian) > FAILS
    assert relative(STEP_SIZE * case.mixed[1], jacobian) > FAILS
    assert relative(case.mixed[0], jacobian) > FAILS


@pytest.mark.parametrize("t", range(3))
def test_equation_8_starts_its_product_at_an_index_that_is_not_the_sums(t):
    """(iii): the product starts at j = t + 1 for a t that is not bound; it must be i + 1."""
    case = LirpgByMatrices(steps=4)
    jacobian = case.final_jacobian()
    assert relative(STEP_SIZE * case.series(), jacobian) < HOLDS
    assert relative(STEP_SIZE * case.series(first=lambda i: t + 1), jacobian) > FAILS


@pytest.mark.parametrize("steps", [3, 4])
def test_the_order_of_the_products_matters(steps):
    """(iv): Hessians do not commute; increasing j from left to right is right in this layout."""
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


def maml_through_the_loop(mdp, theta, steps):
    value = lambda phi, here: by_torch.return_of(mdp, here)  # noqa: E731
    inner = lambda phi, here: by_torch.gradient_in(value(phi, here), here)  # noqa: E731
    return by_torch.through_the_loop(inner, value, theta, None, steps, STEP_SIZE)[1].ravel()


@pytest.mark.parametrize("steps", [1, 3])
def test_equation_3_does_not_cover_maml(steps):
    """(v): with phi = theta its sum telescopes to the Jacobian *minus the identity*."""
    case = LirpgByMatrices(steps=1)
    mdp, theta = case.mdp, case.theta
    path = inner_loop(Maml(mdp), theta, steps=steps, step_size=STEP_SIZE)
    hessians = [hessian(mdp, t).reshape(6, 6) for t in path[:-1]]
    factors = [np.eye(6) + STEP_SIZE * h for h in hessians]
    printed = np.zeros((6, 6))
    for i, mixed in enumerate(hessians):  # "nabla_phi nabla_theta" read as the Hessian
        for factor in factors[i + 1 :]:
            mixed = mixed @ factor
        printed += STEP_SIZE * mixed
    jacobian = np.linalg.multi_dot([np.eye(6), *factors]) if steps > 1 else factors[0]
    outer, exact = gradient(mdp, path[-1]).ravel(), maml_through_the_loop(mdp, theta, steps)
    assert relative(jacobian @ outer, exact) < HOLDS
    assert relative(printed, jacobian - np.eye(6)) < HOLDS
    assert relative(printed @ outer, exact) > FAILS


def test_the_hessians_lipschitz_constant_is_not_that_of_the_outer_objective():
    """(vi): rho_2 is printed as max m_phi, the Lipschitz constant of J_out. LIRPG with an outer
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


def test_equation_4_means_estimates_where_it_prints_exact_derivatives():
    """(vii): its inner factors bear no hats. On a bandit with one trajectory a step the mean of the
    estimate is the sum over paths with the *mean of the Hessian estimates* inside (here AD's, which
    is biased), not with the exact Hessian that is printed."""
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


def test_the_printed_payoffs_have_their_actions_labels_swapped():
    """(viii): with R1 = [[-2, 0], [-3, -1]] action 0, called cooperation, is defection."""
    own = np.array([[-2.0, 0.0], [-3.0, -1.0]])
    printed = memory_one_game(np.stack([own, own.T]))
    always, never = np.full(5, 800.0), np.full(5, -800.0)
    game = prisoners_dilemma()
    np.testing.assert_allclose(game_values(printed, always, always), [-50.0, -50.0])
    np.testing.assert_allclose(game_values(printed, always, never), [0.0, -75.0], atol=1e-12)
    assert game_values(game, always, always) != pytest.approx(game_values(printed, always, always))
    for first, second in itertools.product((always, never), repeat=2):
        np.testing.assert_allclose(
            game_values(printed, first, second), game_values(game, -first, -second), atol=1e-12
        )


def test_the_off_policy_formula_has_the_wrong_law_and_the_wrong_ratio():
    """(ix): Sec. 4.4 prints an expectation under the *target* policy of per-step ratios. The law
    must be the behaviour's, and even then the ratio must be the product up to each step."""
    rng = np.random.default_rng(1)
    mdp = oracles.random_mdp(3, horizon=3, n_states=3, n_actions=2)
    theta, behaviour = rng.normal(size=(2, 3, 2))
    target, mu = softmax(theta), softmax(behaviour)
    exact = gradient(mdp, theta)

    def mean(law, weight_of):
        """The gradient in theta of E_law[sum_t gamma^t r_t weight_t(theta)], by enumeration."""
        total = np.zeros((3, 2))
        for probability, states, actions, rewards in oracles.all_trajectories(mdp, law, 3):
            ratios = [target[s, a] / mu[s, a] for s, a in zip(states, actions, strict=False)]
            scores = np.zeros((3, 3, 2))
            for t, (s, a) in enumerate(zip(states, actions, strict=False)):
                scores[t, s] -= target[s]
                scores[t, s, a] += 1.0
            for t, reward in enumerate(rewards):
                total += probability * mdp.discount**t * reward * weight_of(t, ratios, scores)
        return total

    def per_step(t, ratios, scores):
        """d/dtheta of the sum of single ratios up to t."""
        return sum(ratios[u] * scores[u] for u in range(t + 1))

    def product(t, ratios, scores):
        """d/dtheta of the product of ratios up to t."""
        return np.prod(ratios[: t + 1]) * scores[: t + 1].sum(axis=0)

    assert relative(mean(behaviour, product), exact) < HOLDS
    assert relative(mean(theta, per_step), exact) > 1e-2
    assert relative(mean(behaviour, per_step), exact) > 1e-2


# --- the numbers of docs/errata.md, against closed forms ---


def test_the_page_is_what_its_cases_give():
    page = ROOT / "docs" / "errata.md"
    assert page.read_text() == errata_cases.page()
    assert len(errata_cases.ERRATA) >= 24


def numbers(function):
    return list(function().values())


def test_the_page_s_formulas_for_the_unrolled_loop_fail_and_their_corrections_do_not():
    cases = (
        (errata_unrolled.proposition_steps, 1),
        (errata_unrolled.equation_7, 1),
        (errata_unrolled.equation_8, 1),
        (errata_unrolled.product_order, 1),
        (errata_unrolled.hats, 1),
        (errata_estimates.off_policy_ratios, 1),
        (errata_merits.linearised_step_size, 1),
    )
    for case, right in cases:
        found = numbers(case)
        assert max(found[:right]) < HOLDS, case
        assert min(found[right:]) > 1e-3, case
    one, with_one, three, with_three = numbers(errata_unrolled.maml_identity)
    assert max(with_one, with_three) < HOLDS
    assert min(one, three) > 0.5
    assert numbers(errata_estimates.dilemma_labels) == pytest.approx([-50, -25, 0, -75], abs=1e-9)


def test_noise_elsewhere_than_on_the_expected_path_counts():
    error, on_path, reachable = numbers(errata_paths.noise_off_the_path)
    assert error == 1.0
    assert on_path == pytest.approx(0.02, rel=1e-12)
    assert on_path < error <= reachable


def test_the_abstract_s_rates_are_exceeded_without_bound():
    """Bias alpha^2 K sigma^2; error alpha E|sum of three signs| = 1.5 alpha."""
    found = numbers(errata_paths.abstract_rate)
    assert found[::2] == pytest.approx([10.0, 100.0, 1000.0], rel=1e-9)
    assert found[1::2] == pytest.approx([50.0, 5e3, 5e5], rel=1e-9)
    found = numbers(errata_theorem.hessian_rate)
    for k, delta in enumerate((0.1, 0.01, 0.001)):
        bias, claim, bound = found[3 * k : 3 * k + 3]
        wanted = 0.5 * sum((1.15 + 0.5 * delta) ** i - 1.15**i for i in range(3))
        assert bias == pytest.approx(wanted, rel=1e-9)
        assert bound == pytest.approx(wanted, rel=1e-12)  # attained
        assert bias > 4 * claim
    assert found[6] / found[7] > 40 * found[0] / found[1]


def test_eq_9_is_a_constant_where_nothing_errs_and_its_base_lacks_a_step_size():
    found = numbers(errata_theorem.constant_term)
    assert found[::3] == pytest.approx([0.0] * 3, abs=1e-15)
    assert found[2::3] == [0.0] * 3
    assert found[1::3] == pytest.approx([1.1, 2 * 1.1**2, 4 * 1.1**4], rel=1e-12)
    found = numbers(errata_theorem.base_of_powers)
    powers = [10 * sum(11.0**i - 1.0 for i in range(k)) for k in (2, 3, 4, 6, 8)]
    wanted = [x / (2 ** (k - 1) * (k - 1)) for x, k in zip(powers, (2, 3, 4, 6, 8), strict=True)]
    assert found == pytest.approx(wanted, rel=1e-9)
    assert all(later > 2.5 * one for one, later in itertools.pairwise(found))


def test_eq_10_is_0_for_one_step_whose_variance_is_1():
    assert numbers(errata_theorem.variance_of_one_step) == pytest.approx([1, 0, 1, 1, 0, 1])
    found = numbers(errata_theorem.variance_base)
    assert found[1::2] == pytest.approx([1.0] * 4, rel=1e-12)
    assert found[6] > 1e4 * found[0]
    for k in (2, 3):  # the closed form behind it, over all signs
        loop = errata_theorem.hessian_off(k, 1.0, 1.0, 2.0)
        loop = replace(loop, outer_noise=1.0)
        assert loop.variance() == pytest.approx(sum(4.0**i for i in range(k)) ** 2, rel=1e-12)


def test_the_two_lipschitz_assumptions_are_needed():
    found = numbers(errata_theorem.cross_lipschitz)
    wanted = [math.log((1 - p) / p) for p in (1e-1, 1e-3, 1e-6, 1e-12)]
    assert found == pytest.approx(wanted, rel=1e-4)  # p in float: 1 - p loses digits
    found = numbers(errata_theorem.mixed_lipschitz)
    assert found[::2] == pytest.approx([1e-1, 1e-2, 1e-4], rel=1e-9)
    assert found[5] == pytest.approx(2 / math.e - 1, abs=1e-4)
    assert max(found[1::2]) < -0.2


def test_an_expected_error_falls_with_the_root_of_n_and_the_bias_with_n():
    found = numbers(errata_paths.error_is_no_bias)
    assert found[::2] == pytest.approx([found[0]] * 3, rel=1e-10)
    assert found[1::2] == pytest.approx([found[1]] * 3, rel=0.02)


def test_the_linearised_estimate_s_bias_is_of_order_1_over_n():
    *found, limit = numbers(errata_merits.linearised_rate)
    assert all(bias <= bound for bias, bound in zip(found[::2], found[1::2], strict=True))
    gaps = [abs(bias - limit) for bias in found[::2]]
    assert gaps[0] / gaps[1] == pytest.approx(4.0, rel=0.2)
    assert gaps[1] / gaps[2] == pytest.approx(4.0, rel=0.2)


def test_both_adapted_gradients_are_1_over_n_away_from_the_expected_step_s():
    found = numbers(errata_merits.adapted_rates)
    bandit = TabularMDP(np.ones((1, 2, 1)), [[1.0, -0.6]], 0.9, [1.0], horizon=1)
    limits = step_expansion(bandit, [[0.4, -0.3]], step_size=0.8)
    for values, limit in ((found[::2], limits.linearised), (found[1::2], limits.objective)):
        gaps = [abs(value - np.linalg.norm(limit)) for value in values]
        assert gaps[0] > 3.0 * gaps[1] > 9.0 * gaps[2]
        assert gaps[2] < 0.05 * np.linalg.norm(limit)


def test_a_score_from_before_the_step_does_not_fit_trajectories_from_after():
    after, before = numbers(errata_merits.outer_score)
    assert after < HOLDS
    assert before > 0.1


def test_the_published_measure_calls_an_unbiased_estimator_biased():
    bias, measured, variance = numbers(errata_estimates.published_measure)
    assert bias < 1e-15
    assert measured == pytest.approx(variance, rel=1e-10)
    assert measured > 1e-4


def test_a_hessian_moves_where_the_outer_return_does_not():
    still, moved = numbers(errata_unrolled.lipschitz_of_the_hessian)
    assert still == 0.0 < 0.1 < moved
