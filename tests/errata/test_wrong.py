"""Remarks on wrong statements: each fails numerically, and what the page says holds does.

The reference is autograd through the loop, enumeration or a closed form; nothing is compared with
itself.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from gradbias.analytic.meta.bilevel import Maml
from gradbias.analytic.meta.meta_gradients import inner_loop
from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.games import memory_one_game, prisoners_dilemma
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient, hessian
from gradbias.analytic.returns.game_derivatives import game_values
from tests.errata import estimates, merits, paths, theorem, unrolled
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


def test_equation_7_takes_the_mixed_derivative_at_the_wrong_parameters():
    """At theta^1; it belongs at theta^0. In front of it stands alpha, as in eq. (3)."""
    case = LirpgByMatrices(steps=1)
    jacobian = case.final_jacobian()
    assert relative(STEP_SIZE * case.mixed[0], jacobian) < HOLDS
    assert relative(STEP_SIZE * case.mixed[1], jacobian) > FAILS
    right, wrong = numbers(unrolled.equation_7)
    assert right < HOLDS
    assert wrong > 0.1


@pytest.mark.parametrize("steps", [1, 3])
def test_equation_3_does_not_cover_maml(steps):
    """With phi = theta its sum telescopes to the Jacobian *minus the identity*."""
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
    one, with_one, three, with_three = numbers(unrolled.maml_identity)
    assert max(with_one, with_three) < HOLDS
    assert min(one, three) > 0.5


def test_the_printed_payoffs_have_their_actions_labels_swapped():
    """With R1 = [[-2, 0], [-3, -1]] action 0, called cooperation, is defection."""
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
    assert numbers(estimates.dilemma_labels) == pytest.approx([-50, -25, 0, -75], abs=1e-9)
    assert own[0, 0] > own[1, 0]  # action 0 pays more if the other plays 0 ..
    assert own[0, 1] > own[1, 1] > own[0, 0]  # .. and 1, but both do better with action 1


def test_the_off_policy_formula_has_the_wrong_law_and_the_wrong_ratio():
    """Sec. 4.4 prints an expectation under the *target* policy of per-step ratios times the return.
    The law must be the behaviour's, and even then the ratio must be the product up to each step."""
    rng = np.random.default_rng(1)
    mdp = TabularMDP.random(3, 2, rng=rng, discount=0.9, horizon=3)
    theta, behaviour = rng.normal(size=(2, 3, 2))
    target, mu = softmax(theta), softmax(behaviour)
    exact = gradient(mdp, theta)

    def mean(law, estimate):
        """The expectation under a law of ``estimate(rewards, ratios, scores)``."""
        total = np.zeros((3, 2))
        for probability, states, actions, rewards in oracles.all_trajectories(mdp, law, 3):
            pairs = list(zip(states, actions, strict=False))
            ratios = np.array([target[s, a] / mu[s, a] for s, a in pairs])
            scores = np.zeros((3, 3, 2))
            for t, (s, a) in enumerate(pairs):
                scores[t, s] -= target[s]
                scores[t, s, a] += 1.0
            paid = np.asarray(rewards) * mdp.discount ** np.arange(3)
            total += probability * estimate(paid, ratios, scores)
        return total

    def per_step(paid, ratios, scores):
        """The gradient in theta of sum_t ratio_t R, as printed."""
        return paid.sum() * np.tensordot(ratios, scores, axes=1)

    def product(paid, ratios, scores):
        """That of sum_t (the product of ratios up to t) r_t, as in Sec. 5.2."""
        return np.tensordot(paid * ratios.cumprod(), scores.cumsum(axis=0), axes=1)

    right, step, printed = numbers(estimates.off_policy_ratios)
    assert relative(mean(behaviour, product), exact) < HOLDS
    assert right < HOLDS
    assert step == pytest.approx(relative(mean(behaviour, per_step), exact), rel=1e-10)
    assert printed == pytest.approx(relative(mean(theta, per_step), exact), rel=1e-10)
    assert min(step, printed, relative(mean(theta, product), exact)) > 1e-2


def test_noise_elsewhere_than_on_the_expected_path_counts():
    error, on_path, reachable = numbers(paths.noise_off_the_path)
    assert error == 1.0
    assert on_path == pytest.approx(0.02, rel=1e-12)
    assert on_path < error <= reachable


def test_the_abstract_s_rates_are_exceeded_without_bound():
    """Bias alpha^2 K sigma^2; error alpha E|sum of three signs| = 1.5 alpha."""
    found = numbers(paths.abstract_rate)
    assert found[::2] == pytest.approx([10.0, 100.0, 1000.0], rel=1e-9)
    assert found[1::2] == pytest.approx([50.0, 5e3, 5e5], rel=1e-9)
    found = numbers(theorem.hessian_rate)
    for k, delta in enumerate((0.1, 0.01, 0.001)):
        bias, claim, bound = found[3 * k : 3 * k + 3]
        wanted = 0.5 * sum((1.15 + 0.5 * delta) ** i - 1.15**i for i in range(3))
        assert bias == pytest.approx(wanted, rel=1e-9)
        assert bound == pytest.approx(wanted, rel=1e-12)  # attained
        assert bias > 4 * claim
    assert found[6] / found[7] > 40 * found[0] / found[1]


def right_side_of_eq_10(k, alpha=1.0, c2=0.0, m1=0.0, error=0.0, **square):
    """Eq. (10) from the paper, with constant 1; ``square``: the squares of Delta and sigma."""
    of = dict.fromkeys(("delta_h", "sigma_h", "delta_j", "sigma_j", "sigma_2"), 0.0) | square
    base = (1.0 + alpha * c2) ** 2 + of["delta_h"]
    second = 2.0 * alpha**2 * (m1**2 + 3.0 * of["sigma_2"])
    second += (base + of["sigma_h"]) ** (k - 1) - base ** (k - 1)
    return base ** (k - 1) * (error + k - 1) + second * (of["delta_j"] + of["sigma_j"])


def test_eq_10_is_0_for_one_step_whose_variance_is_1():
    assert numbers(theorem.variance_of_one_step) == pytest.approx([1, 0, 1, 1, 0, 1])
    assert right_side_of_eq_10(1, sigma_2=1.0) == right_side_of_eq_10(1, sigma_j=1.0) == 0.0


def test_eq_10_misses_the_hessian_s_noise_and_the_growth_of_j_s():
    """The estimates are 2 + noise, with two values, and (1 + noise) (1 + Delta_H) + 1 + noise."""
    found = np.array(numbers(theorem.noise_after_the_first_step)).reshape(3, 2, 3)
    for size, (by_h, by_j) in zip((1.0, 10.0, 100.0), found, strict=True):
        square = size**2
        assert by_h == pytest.approx([square, 1.0, square], rel=1e-12)
        variance = square * ((1.0 + size) ** 2 + 1.0)
        right = right_side_of_eq_10(2, m1=1.0, sigma_j=square, delta_h=square)
        assert by_j == pytest.approx([variance, right, variance], rel=1e-12)
        assert right_side_of_eq_10(2, m1=1.0, sigma_h=square) == by_h[1]
    assert found[2, 1, 0] > 1e3 * found[2, 1, 1]


def test_the_gradient_in_phi_must_be_lipschitz_in_theta():
    found = numbers(theorem.cross_lipschitz)
    wanted = [math.log((1 - p) / p) for p in (1e-1, 1e-3, 1e-6, 1e-12)]
    assert found == pytest.approx(wanted, rel=1e-4)  # p in float: 1 - p loses digits


def test_that_outer_return_meets_the_printed_assumptions():
    """Where phi and x are at most 1, its first derivatives and both pure second ones are bounded,
    on ever smaller circles, too; the mixed one is not. It is the same in phi and x."""
    angles = np.linspace(0.0, 2.0 * math.pi, 721)
    mixed = []
    for radius in (1.0, 1e-2, 1e-4, 1e-8):
        phi, x = torch.tensor(radius * np.stack([np.cos(angles), np.sin(angles)]))
        phi.requires_grad_(True), x.requires_grad_(True)
        value = (phi * x * torch.log(phi**2 + x**2)).sum()
        (slope,) = torch.autograd.grad(value, phi, create_graph=True)
        pure, cross = torch.autograd.grad(slope.sum(), (phi, x))
        assert slope.abs().max() < 2.0
        assert pure.abs().max() < 4.0
        mixed.append(float(cross.abs().max()))
    assert mixed[3] > mixed[2] + 10.0 > mixed[1] + 15.0


def test_eq_12_without_the_step_size_is_not_the_gradient():
    right, wrong, norm = numbers(merits.linearised_step_size)
    assert right < HOLDS
    assert wrong > 0.01 * norm > 1e-3


def test_a_score_from_before_the_step_does_not_fit_trajectories_from_after():
    after, before = numbers(merits.outer_score)
    assert after < HOLDS
    assert before > 0.1


def test_the_published_measure_calls_an_unbiased_estimator_biased():
    """Over all ordered batches of ten trials; the shares by an enumeration at N = 2."""
    bias, measured, variance, *shares = numbers(estimates.published_measure)
    assert bias < 1e-15
    p, rewards = softmax([0.9, -0.3]), np.array([1.0, -0.5])
    block = np.diag(p) - np.outer(p, p)
    single, exact = rewards[:, None] * (np.eye(2) - p), block @ rewards
    wanted = 0.0
    for trials in itertools.product(range(2), repeat=10):
        mean = single[list(trials)].mean(axis=0)
        wanted += math.prod(p[a] for a in trials) * ((mean - exact) ** 2).mean()
    assert measured == pytest.approx(wanted, rel=1e-10)
    assert measured == pytest.approx(variance, rel=1e-10)
    assert measured > 1e-4

    def meta_gradient_after(step):
        q = softmax([0.9, -0.3] + 3.0 * step)
        curved = np.einsum("a,ai,aj->ij", p * rewards, np.eye(2) - p, np.eye(2) - p)
        factor = np.eye(2) + 3.0 * (curved - p @ rewards * block)
        return factor @ (np.diag(q) - np.outer(q, q)) @ rewards

    pairs = list(itertools.product(range(2), repeat=2))
    chance = np.array([p[a] * p[b] for a, b in pairs])
    after = np.array([meta_gradient_after((single[a] + single[b]) / 2) for a, b in pairs])
    squared = np.sum((chance @ after - meta_gradient_after(exact)) ** 2)
    noise = chance @ ((after - chance @ after) ** 2).sum(axis=1) / 10
    assert shares[0] == pytest.approx(noise / (squared + noise), rel=1e-10)
    assert 0.8 < shares[0] < shares[1] < shares[2] < 1.0


def test_sampled_iterates_are_biased_from_the_second_step_on():
    """All ordered batches of all steps, at N = 1; the order 1/N by the ratio of N = 4 to N = 1."""
    found = numbers(paths.iterate_means)
    rewards, start = np.array([1.0, -0.5]), np.array([0.9, -0.3])

    def after(x, actions):
        p = softmax(x)
        return x + 1.3 * rewards[actions] * (np.eye(2)[actions] - p), p[actions]

    for k in (1, 2, 3):
        mean, expected = np.zeros(2), start
        for actions in itertools.product(range(2), repeat=k):
            x, chance = start, 1.0
            for action in actions:
                x, p = after(x, action)
                chance *= p
            mean += chance * x
        for _ in range(k):
            p = softmax(expected)
            expected = expected + 1.3 * (np.diag(p) - np.outer(p, p)) @ rewards
        assert found[k - 1] == pytest.approx(np.linalg.norm(mean - expected), abs=1e-14)
    assert max(found[0], found[3]) < 1e-15
    assert all(3.5 < found[k] / found[k + 3] < 4.5 for k in (1, 2))
    assert min(found[1:3]) > 1e-3
