"""What is printed and does not hold, each as a counterexample with its numbers.

`python -m benchmarks.errata` writes them as docs/errata.md; `tests/analytic/test_errata.py` says
which number must be what. Exact values here are sums over all samples, or exact derivatives.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scalar_loops import ScalarLoop, coin, lopsided

from analytic.additive_expansions import additive_expansion, linearised_bias_bound
from analytic.additive_objectives import AdditiveFunction, AdditiveLaw, additive_moments
from analytic.bilevel import Lirpg, Maml
from analytic.compositional import compositional_bias
from analytic.derivatives import gradient, hessian, reward_vjp
from analytic.game_derivatives import game_values
from analytic.games import memory_one_game
from analytic.metagradients import inner_loop, meta_gradient
from analytic.moments import gradient_moments
from analytic.policies import softmax
from analytic.problems import TabularMDP
from analytic.scoped_constants import LoopConstants
from verification.bounds import compositional_error_bound, meta_gradient_bias_bound
from verification.variance_bounds import meta_gradient_variance_bound

BIAS_PAPER = "A Theoretical Understanding of Gradient Bias in Meta-RL"
MERITS_PAPER = "On Merits of Biased Gradient Estimates for Meta-RL"


@dataclass(frozen=True)
class Erratum:
    """A statement that fails: where it is, what it says, what holds, and the numbers."""

    title: str
    where: str
    printed: str
    holds: str
    example: str
    numbers: Callable[[], dict[str, float]]


# --- Proposition 3.1 ---

STEP_SIZE = 0.8


@cache
def unrolled(steps, maml=False):
    """The exact meta-gradient; J_i (rows: phi's), I + alpha H_i and the outer gradient."""
    rng = np.random.default_rng(11)
    mdp = TabularMDP.random(3, 2, rng=rng, discount=0.9)
    phi, theta = rng.normal(size=(2, 3, 2))
    loop = {"steps": steps, "step_size": STEP_SIZE}
    given = (Maml(mdp), theta) if maml else (Lirpg(mdp), phi, theta)
    paid = mdp
    if not maml:
        paid = TabularMDP(mdp.transition, mdp.reward + phi, mdp.discount, mdp.start)
    path = inner_loop(*given, **loop)
    every = np.eye(6).reshape(6, 3, 2)
    curved = [hessian(paid, x).reshape(6, 6) for x in path]
    mixed = curved if maml else [reward_vjp(paid, x, every).reshape(6, 6).T for x in path]
    factors = [np.eye(6) + STEP_SIZE * h for h in curved]
    exact = meta_gradient(*given, **loop).ravel()
    return exact, mixed, factors, gradient(mdp, path[-1]).ravel()


def summed(mixed, factors, steps, first=lambda i: i + 1, backwards=False):
    """sum_i J_i prod_{j >= first(i)} (I + alpha H_j)."""
    total = np.zeros((6, 6))
    for i in range(steps):
        chosen = factors[first(i) : steps]
        product = mixed[i]
        for factor in reversed(chosen) if backwards else chosen:
            product = product @ factor
        total += product
    return total


def relative(found, wanted):
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def proposition_steps():
    exact, mixed, factors, outer = unrolled(3)
    jacobian = STEP_SIZE * summed(mixed, factors, 3)
    return {
        "error of J_out's chain rule with the true Jacobian": relative(jacobian @ outer, exact),
        "error with one more alpha in front": relative(STEP_SIZE * jacobian @ outer, exact),
    }


def equation_7():
    exact, mixed, _, outer = unrolled(1)
    return {
        "error of alpha J at theta^0": relative(STEP_SIZE * mixed[0] @ outer, exact),
        "error of alpha J at theta^1": relative(STEP_SIZE * mixed[1] @ outer, exact),
        "error of J at theta^1, as printed": relative(mixed[1] @ outer, exact),
    }


def equation_8():
    exact, mixed, factors, outer = unrolled(4)
    found = {"error, product from i + 1": relative(_by(mixed, factors, outer, 4), exact)}
    for t in range(3):
        wrong = _by(mixed, factors, outer, 4, first=lambda i, t=t: t + 1)
        found[f"error, product from t + 1 with t = {t}"] = relative(wrong, exact)
    return found


def product_order():
    exact, mixed, factors, outer = unrolled(4)
    return {
        "error, j increasing to the right": relative(_by(mixed, factors, outer, 4), exact),
        "error, j decreasing": relative(_by(mixed, factors, outer, 4, backwards=True), exact),
    }


def _by(mixed, factors, outer, steps, **options):
    return STEP_SIZE * summed(mixed, factors, steps, **options) @ outer


def maml_identity():
    found = {}
    for steps in (1, 3):
        exact, mixed, factors, outer = unrolled(steps, maml=True)
        printed = _by(mixed, factors, outer, steps)
        found[f"error as printed, K = {steps}"] = relative(printed, exact)
        found[f"error with the identity added, K = {steps}"] = relative(printed + outer, exact)
    return found


def lipschitz_of_the_hessian():
    """An outer return of 0 (m = 0), and an inner Hessian that moves."""
    rng = np.random.default_rng(0)
    mdp = TabularMDP.random(3, 2, rng=rng, discount=0.9)
    here, there = rng.normal(size=(2, 3, 2))
    moved = np.linalg.norm((hessian(mdp, here) - hessian(mdp, there)).reshape(6, 6), 2)
    unpaid = TabularMDP(mdp.transition, np.zeros((3, 2)), 0.9, mdp.start)
    return {
        "m of J_out": float(np.linalg.norm(gradient(unpaid, here))),
        "change of the inner Hessian over distance": float(moved / np.linalg.norm(here - there)),
    }


def hats():
    """One trajectory a step, one for the Hessian: AD's mean is not the Hessian."""
    reward, theta, alpha = np.array([1.0, -0.5]), np.array([0.3, -0.2]), 0.7

    def score(x, a):
        return np.eye(2)[a] - softmax(x)

    def fisher(x):
        return np.diag(softmax(x)) - np.outer(softmax(x), softmax(x))

    def slope(x):
        return fisher(x) @ reward

    totals = np.zeros((3, 2))
    for a0, a1, b in itertools.product(range(2), repeat=3):
        first = theta + alpha * reward[a0] * score(theta, a0)
        second = first + alpha * reward[a1] * score(first, a1)
        p = softmax(first)
        weight = softmax(theta)[a0] * p[a1] * p[b]
        square = sum(p[a] * reward[a] * np.outer(score(first, a), score(first, a)) for a in (0, 1))
        mean = -(p @ reward) * fisher(first)
        for k, h in enumerate((-reward[b] * fisher(first), mean, mean + square)):
            factor = np.eye(2) + alpha * h
            jacobian = alpha * (fisher(theta) @ factor + fisher(first))
            totals[k] += weight * jacobian @ slope(second)
    return {
        "with the mean of the Hessian's estimates": relative(totals[1], totals[0]),
        "with the exact Hessian, as printed": relative(totals[2], totals[0]),
    }


# --- the dilemma, off-policy ---


def dilemma_labels():
    own = np.array([[-2.0, 0.0], [-3.0, -1.0]])
    printed = memory_one_game(np.stack([own, own.T]))
    zero, one = np.full(5, 800.0), np.full(5, -800.0)
    return {
        "both play action 0, called cooperation: value": game_values(printed, zero, zero)[0],
        "both play action 1, called defection: value": game_values(printed, one, one)[0],
        "action 0 against action 1: value": game_values(printed, zero, one)[0],
        "action 1 against action 0: value": game_values(printed, one, zero)[0],
    }


def off_policy_ratios():
    rng = np.random.default_rng(1)
    mdp = TabularMDP.random(3, 2, rng=rng, discount=0.9, horizon=3)
    theta, behaviour = rng.normal(size=(2, 3, 2))
    pi, mu, exact = softmax(theta), softmax(behaviour), gradient(mdp, theta)
    means = {name: np.zeros((3, 2)) for name in ("product", "step", "law")}
    for walk in itertools.product(itertools.product(range(2), range(3)), repeat=3):
        state, under, ratio = 0, {"pi": 1.0, "mu": 1.0}, 1.0
        score, steps = np.zeros((3, 2)), np.zeros((3, 2))
        for t, (action, following) in enumerate(walk):
            for name, law in (("pi", pi), ("mu", mu)):
                under[name] *= law[state, action] * mdp.transition[state, action, following]
            own = np.zeros((3, 2))
            own[state] = np.eye(2)[action] - pi[state]
            single = pi[state, action] / mu[state, action]
            ratio, score, steps = ratio * single, score + own, steps + single * own
            # Each prefix is met once for every continuation.
            paid = mdp.discount**t * mdp.reward[state, action] / 6.0 ** (2 - t)
            state = following
            means["product"] += under["mu"] * paid * ratio * score
            means["step"] += under["mu"] * paid * steps
            means["law"] += under["pi"] * paid * steps
    return {
        "law mu, product of ratios": relative(means["product"], exact),
        "law mu, ratio of each step": relative(means["step"], exact),
        "law pi, ratio of each step (as printed)": relative(means["law"], exact),
    }


# --- Lemma 4.4 ---


def quadratic(steps, alpha, h, **more):
    """J_in = phi x + h x^2 / 2 at phi = 1, J_out = x."""
    return ScalarLoop(
        steps,
        alpha,
        inner=lambda x: 1.0 + h * x,
        mixed=np.ones_like,
        hessian=lambda x: np.full(np.shape(x), h),
        **more,
    )


def noise_off_the_path():
    eps = 0.01
    loop = ScalarLoop(
        2,
        1.0,
        inner=np.zeros_like,
        mixed=np.zeros_like,
        hessian=np.zeros_like,
        noise=coin(lambda x: np.where(x == 0.0, eps, 1.0)),
    )
    asked = {"steps": 2, "step_size": 1.0, "samples": 1}
    on_path = compositional_error_bound(LoopConstants(c2=0.0, m2=1.0, sigma=eps), **asked)
    reachable = compositional_error_bound(LoopConstants(c2=0.0, m2=1.0, sigma=1.0), **asked)
    return {
        "expected error": loop.errors()[0],
        "eq. (6), sigma on the expected path": on_path.printed,
        "eq. (6), sigma at all reachable points": reachable.printed,
    }


def abstract_rate():
    found = {}
    for alpha in (0.1, 0.01, 0.001):
        loop = quadratic(3, alpha, 0.0, noise=coin(1.0))
        weights, paths = loop.sampled_paths()
        end = loop.expected_path()[1][0, -1]
        bias = float(weights @ paths[:, -1] ** 2 - end**2)
        claimed = 3 * alpha**3
        found[f"bias of theta^2 over K alpha^K, alpha = {alpha:g}"] = bias / claimed
        found[f"expected error over K alpha^K, alpha = {alpha:g}"] = loop.errors()[0] / claimed
    return found


def error_is_no_bias():
    bandit = TabularMDP(np.ones((1, 2, 1)), [[1.0, -0.5]], 0.9, [1.0], horizon=1)
    found = {}
    for n in (4, 16, 64):
        at = {"steps": 1, "step_size": 1.3, "samples": n}
        sampled = compositional_bias(Maml(bandit), [[0.9, -0.3]], **at)
        error = math.sqrt(float(np.trace(sampled.iterate_covariance)))
        found[f"root mean square error of theta^1, times sqrt(N), N = {n}"] = error * math.sqrt(n)
        found[f"bias of the return at theta^1, times N, N = {n}"] = sampled.outer_return * n
    return found


# --- Theorem 4.5 ---


def constant_term():
    found = {}
    for k in (2, 3, 5):
        loop = quadratic(k, 1.0, 0.1)
        bound = meta_gradient_bias_bound(
            LoopConstants(c2=0.1, m2=1.0, c1=1.0), steps=k, step_size=1.0, samples=None
        )
        found[f"bias, K = {k}"] = abs(loop.bias())
        found[f"eq. (9) with constant 1, K = {k}"] = bound.printed
        found[f"corrected bound, K = {k}"] = bound.corrected
    return found


def hessian_off(steps, alpha, h, delta):
    return quadratic(steps, alpha, h, hessian_mean=lambda x: np.full(np.shape(x), h + delta))


def hessian_rate():
    found = {}
    for delta in (0.1, 0.01, 0.001):
        loop = hessian_off(3, 0.5, 0.3, delta)
        constants = LoopConstants(c2=0.3, m2=1.0, c1=1.0, delta_h=delta)
        bound = meta_gradient_bias_bound(constants, steps=3, step_size=0.5, samples=None)
        found[f"bias, Delta_H = {delta:g}"] = loop.bias()
        found[f"claimed (K - 1) Delta_H^(K - 1), Delta_H = {delta:g}"] = 2 * delta**2
        found[f"corrected bound, Delta_H = {delta:g}"] = bound.corrected
    return found


def base_of_powers():
    found = {}
    for k in (2, 3, 4, 6, 8):
        loop = hessian_off(k, 10.0, 0.0, 1.0)
        found[f"bias over (B + Delta_H)^(K-1) (K-1), K = {k}"] = loop.bias() / (
            2.0 ** (k - 1) * (k - 1)
        )
    return found


def variance_of_one_step():
    outer = quadratic(1, 1.0, 0.0, outer=np.zeros_like, outer_noise=1.0)
    mixed = quadratic(1, 1.0, 0.0, mixed_noise=1.0)
    asked = {"steps": 1, "step_size": 1.0, "samples": 1}
    by_outer = meta_gradient_variance_bound(
        LoopConstants(c2=0.0, m2=0.0, c1=1.0, sigma_2=1.0), **asked
    )
    by_mixed = meta_gradient_variance_bound(
        LoopConstants(c2=0.0, m2=1.0, c1=1.0, sigma_j=1.0), **asked
    )
    return {
        "variance, noise in the outer gradient": outer.variance(),
        "eq. (10) with constant 1, noise in the outer gradient": by_outer.printed,
        "corrected, noise in the outer gradient": by_outer.corrected,
        "variance, noise in the Jacobian": mixed.variance(),
        "eq. (10) with constant 1, noise in the Jacobian": by_mixed.printed,
        "corrected, noise in the Jacobian": by_mixed.corrected,
    }


def variance_base():
    """Exact steps, H = 1 with an error of 2; noise in the outer gradient alone."""
    found = {}
    for k in (2, 5, 10, 20):
        constants = LoopConstants(c2=1.0, m2=1.0, c1=1.0, delta_h=2.0, sigma_2=1.0)
        bound = meta_gradient_variance_bound(constants, steps=k, step_size=1.0, samples=1)
        variance = sum(4.0**i for i in range(k)) ** 2  # (sum_i (1 + 1 + 2)^i)^2
        found[f"variance over eq. (10), K = {k}"] = variance / bound.printed
        found[f"corrected bound over variance, K = {k}"] = bound.corrected / variance
    return found


def cross_lipschitz():
    found = {}
    for p in (1e-1, 1e-3, 1e-6, 1e-12):
        loop = ScalarLoop(
            1,
            1.0,
            inner=np.zeros_like,
            mixed=np.zeros_like,
            hessian=np.zeros_like,
            outer_in_phi=lambda x: np.where(x == 0, 0.0, x * np.log(np.where(x == 0, 1, x) ** 2)),
            noise=lopsided(1.0, p),
        )
        found[f"bias over expected error, p = {p:g}"] = abs(loop.bias()) / loop.errors()[0]
    return found


def mixed_lipschitz():
    found = {}
    for phi in (1e-2, 1e-4, 1e-8):
        loop = ScalarLoop(
            2,
            1.0,
            inner=lambda x, phi=phi: phi * np.exp(-(x**2) / phi),
            mixed=lambda x, phi=phi: np.exp(-(x**2) / phi) * (1.0 + x**2 / phi),
            hessian=lambda x, phi=phi: -2.0 * x * np.exp(-(x**2) / phi),
            noise=coin(math.sqrt(phi)),
        )
        one = ScalarLoop(**{**vars(loop), "steps": 1})
        found[f"expected error after one step, phi = {phi:g}"] = one.errors()[0]
        found[f"bias, phi = {phi:g}"] = loop.bias()
    return found


# --- On Merits of Biased Gradient Estimates ---


def linearised_rate():
    law = AdditiveLaw([0.3, 0.7], [[1.0], [-0.4]], [[0.7], [-0.3]])
    wave = AdditiveFunction(
        lambda x: np.cos(x).sum(axis=-1),
        lambda x: -np.sin(x),
        lambda x: np.array([[-math.cos(x[0])]]),
        lambda x: np.array([[[math.sin(x[0])]]]),
    )
    found = {}
    for n in (4, 16, 64):
        moments = additive_moments(law, wave, samples=n)
        bias = abs(float((moments.linearised.mean - moments.gradient)[0]))
        bound = linearised_bias_bound(law, lipschitz=1.0, samples=n)
        found[f"N times the bias, N = {n}"] = n * bias
        found[f"N times its bound, N = {n}"] = n * bound
    found["limit of N times the bias"] = abs(float(additive_expansion(law, wave).bias[0]))
    return found


def linearised_step_size():
    """Two arms, eq. (12): the first term with and without the step size."""
    theta, reward, eta = np.array([0.4, -0.3]), np.array([1.0, -0.6]), 0.3
    bandit = TabularMDP(np.ones((1, 2, 1)), reward[None], 0.9, [1.0], horizon=1)
    p = softmax(theta)
    scores = np.eye(2) - p
    square = np.einsum("a,ai,aj->ij", p * reward, scores, scores)
    second = -(p @ reward) * (np.diag(p) - np.outer(p, p))
    exact = meta_gradient(Maml(bandit), theta[None], steps=1, step_size=eta)[0]
    after = gradient(bandit, theta[None] + eta * gradient(bandit, theta[None]))[0]
    found = {}
    for label, factor in (("with the step size", eta), ("as printed", 1.0)):
        value = (factor * square + np.eye(2) + eta * second) @ after
        found[f"error of eq. (12) {label}"] = float(np.linalg.norm(value - exact))
    return found | {"norm of the gradient": float(np.linalg.norm(exact))}


# --- the published measure of bias ---


def published_measure():
    """Over all batches of 20 trials of one trajectory each, two arms; the estimator is unbiased."""
    bandit = TabularMDP(np.ones((1, 2, 1)), [[1.0, -0.5]], 0.9, [1.0], horizon=1)
    theta = np.array([[0.9, -0.3]])
    moments, p = gradient_moments(bandit, theta), softmax(theta)[0]
    estimates = np.array([1.0, -0.5])[:, None] * (np.eye(2) - p)
    measured = 0.0
    for count in range(21):
        chance = math.comb(20, count) * p[0] ** count * p[1] ** (20 - count)
        mean = (count * estimates[0] + (20 - count) * estimates[1]) / 20
        measured += chance * float(np.mean((mean - moments.mean[0]) ** 2))
    return {
        "bias": float(np.linalg.norm(p @ estimates - gradient(bandit, theta)[0])),
        "the measure's expectation": measured,
        "variance / (20 d)": float(np.trace(moments.covariance)) / 40,
    }


ERRATA = (
    Erratum(
        "A step size too many, or too few",
        f"{BIAS_PAPER}, eq. (3)",
        "alpha in front of the Jacobian of theta^K, by the symbol that elsewhere has alpha inside",
        "alpha once",
        "LIRPG, three states, K = 3, step size 0.8",
        proposition_steps,
    ),
    Erratum(
        "The mixed derivative of one step",
        f"{BIAS_PAPER}, eq. (7)",
        "the mixed derivative at theta^1, without alpha",
        "alpha times that at theta^0",
        "LIRPG, K = 1",
        equation_7,
    ),
    Erratum(
        "Where the product starts",
        f"{BIAS_PAPER}, eq. (8)",
        "j = t + 1, for a t that is not bound",
        "j = i + 1, with the sum's index",
        "LIRPG, K = 4",
        equation_8,
    ),
    Erratum(
        "The order of the product",
        f"{BIAS_PAPER}, eqs. (3) and (8)",
        "no order",
        "j increases from left to right where rows are phi's: Hessians do not commute",
        "LIRPG, K = 4",
        product_order,
    ),
    Erratum(
        "MAML's identity",
        f"{BIAS_PAPER}, eq. (3) read with phi = theta",
        "the sum, which telescopes to the Jacobian minus the identity",
        "the identity added: theta^0 depends on phi",
        "MAML, step size 0.8",
        maml_identity,
    ),
    Erratum(
        "rho_2",
        f"{BIAS_PAPER}, Assumption 4.1",
        "rho_2 = max m_phi, a constant of the outer objective",
        "rho_2 = max rho_phi, of the inner Hessian",
        "an outer reward of 0",
        lipschitz_of_the_hessian,
    ),
    Erratum(
        "Missing hats",
        f"{BIAS_PAPER}, eq. (4)",
        "exact derivatives of the inner objective inside the estimate",
        "their estimates: what the mean sees is the mean of those",
        "two arms, K = 2, AD's Hessian; errors relative to the mean of the estimate",
        hats,
    ),
    Erratum(
        "The dilemma's labels",
        f"{BIAS_PAPER}, appendix I.2",
        "action 0 is cooperation, with payoffs [[-2, 0], [-3, -1]]",
        "with those payoffs action 0 is defection",
        "discount 0.96; values are sums",
        dilemma_labels,
    ),
    Erratum(
        "Off-policy ratios",
        f"{BIAS_PAPER}, Sec. 4.4",
        "an expectation under pi of the ratio of each step",
        "an expectation under mu of the product of ratios so far",
        "three states, three steps; errors relative to the gradient",
        off_policy_ratios,
    ),
    Erratum(
        "Noise off the expected path",
        f"{BIAS_PAPER}, Lemma 4.4",
        "sigma is the largest deviation at the expected iterates",
        "at all points that sampled iterates can reach",
        "no drift, noise 0.01 at 0 and 1 elsewhere, K = 2, N = 1",
        noise_off_the_path,
    ),
    Erratum(
        "The abstract's first rate",
        f"{BIAS_PAPER}, abstract and Sec. 5.1",
        "compositional bias of order K alpha^K",
        "the expected error is of order K alpha, the bias of order K alpha^2",
        "linear inner objective, unit noise, K = 3: ratios that should be bounded",
        abstract_rate,
    ),
    Erratum(
        "An expected error is no bias",
        f"{BIAS_PAPER}, Sec. 4.1 and Lemma 4.4",
        "E|f(theta^K) - f|, of order N^(-1/2), is called the compositional bias",
        "the bias |E f(theta^K) - f| is of order 1/N",
        "two arms, K = 1: what stays the same as N grows",
        error_is_no_bias,
    ),
    Erratum(
        "A bound that does not vanish",
        f"{BIAS_PAPER}, eq. (9), K > 1",
        "(K - 1) inside the bracket",
        "(K - 1) alpha Delta_H: apparently a factor was lost",
        "no error anywhere, alpha c_2 = 0.1",
        constant_term,
    ),
    Erratum(
        "The abstract's second rate",
        f"{BIAS_PAPER}, abstract and Sec. 5.1",
        "Hessian bias of order (K - 1) Delta_H^(K - 1)",
        "linear in Delta_H where that is small; the corrected bound is attained here",
        "J_in = phi x + 0.15 x^2, J_out = x, alpha = 0.5, K = 3",
        hessian_rate,
    ),
    Erratum(
        "The base of the powers",
        f"{BIAS_PAPER}, eq. (9)",
        "B + Delta_H",
        "B + alpha Delta_H",
        "alpha = 10, as in the experiments: ratios that should be bounded",
        base_of_powers,
    ),
    Erratum(
        "The variance of one step",
        f"{BIAS_PAPER}, eq. (10), K = 1",
        "V_2 (Delta_J^2 + sigma_J^2), with m_1 in V_2",
        "the outer gradient's noise times the Jacobian, and m_2 in place of m_1",
        "one parameter, alpha = 1",
        variance_of_one_step,
    ),
    Erratum(
        "The base of the variance's powers",
        f"{BIAS_PAPER}, eq. (10)",
        "V_1 + Delta_H^2",
        "(B + alpha Delta_H)^2, with its cross term and step size",
        "alpha = 1, B = 2, Delta_H = 2: ratios that should be bounded",
        variance_base,
    ),
    Erratum(
        "A Lipschitz assumption across arguments",
        f"{BIAS_PAPER}, Assumption 4.1 and eq. (9)",
        "the outer gradient in phi is Lipschitz in phi alone",
        "it must be in theta",
        "J_out = phi x log(phi^2 + x^2) at phi = 0, K = 1, a step of 1 with probability p",
        cross_lipschitz,
    ),
    Erratum(
        "A Lipschitz assumption on the mixed derivative",
        f"{BIAS_PAPER}, Assumption 4.1 and eq. (9)",
        "nothing on how J changes with theta",
        "it must be Lipschitz, or the bias does not vanish with the errors",
        "dJ_in/dx = phi exp(-x^2 / phi), J_out = x, K = 2; all printed constants are bounded",
        mixed_lipschitz,
    ),
    Erratum(
        "The published measure of bias",
        f"{BIAS_PAPER}, the experiments' code",
        "mean squared distance of the mean of 20 trials to the truth",
        "its expectation is (|bias|^2 + variance / 20) / d",
        "two arms, an unbiased estimator",
        published_measure,
    ),
    Erratum(
        "The linearised estimate's rate",
        f"{MERITS_PAPER}, Lemma 4.2",
        "bias of order N^(-1/2)",
        "bias of order 1/N under the same condition",
        "f = cos, a coin",
        linearised_rate,
    ),
    Erratum(
        "The linearised estimate's step size",
        f"{MERITS_PAPER}, eqs. (11) and (12)",
        "no step size in the first terms",
        "eta in front of them",
        "two arms, eta = 0.3",
        linearised_step_size,
    ),
)

HEADER = """# Errata

What is printed in two papers and does not hold, each with a counterexample. All numbers are exact:
sums over all samples, or exact derivatives; nothing is sampled. What is used in place of it has its
own tests; `tests/analytic/test_errata.py` has a test for each of these.

    python -m benchmarks.errata

writes this page, and a test compares. Differences below 1e-9 are shown as 0.
"""


def shown(value):
    """Four digits."""
    return "0" if abs(value) < 1e-9 else f"{value:.4g}"


def page():
    """docs/errata.md."""
    parts = [HEADER]
    for each in ERRATA:
        parts.append(f"\n## {each.title}\n\n*{each.where}.*\n")
        parts.append(f"- Printed: {each.printed}.\n- Holds: {each.holds}.\n")
        parts.append(f"| {each.example} | |\n|---|---|")
        parts += [f"| {label} | {shown(value)} |" for label, value in each.numbers().items()]
    return "\n".join(parts) + "\n"
