"""Errata on Theorem 4.5: bounds of bias and variance."""

import math

import numpy as np

from gradbias.analytic.constants.loops import LoopConstants
from gradbias.verification.bounds.meta_gradient_bias import meta_gradient_bias_bound
from gradbias.verification.bounds.meta_gradient_variance import meta_gradient_variance_bound
from tests.errata.paths import quadratic
from tests.errata.records import BIAS_PAPER, Erratum
from tests.oracles.scalar_loops import ScalarLoop, coin, lopsided


def constant_term():
    found = {}
    for k in (2, 3, 5):
        loop = quadratic(k, 1.0, 0.1)
        bound = meta_gradient_bias_bound(
            LoopConstants(c2=0.1, m2=1.0, c1=1.0), steps=k, step_size=1.0, batch_size=None
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
        bound = meta_gradient_bias_bound(constants, steps=3, step_size=0.5, batch_size=None)
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
    asked = {"steps": 1, "step_size": 1.0, "batch_size": 1}
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
        bound = meta_gradient_variance_bound(constants, steps=k, step_size=1.0, batch_size=1)
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


ERRATA = (
    Erratum(
        "A bound that does not vanish",
        f"{BIAS_PAPER}, eq. (9), K > 1",
        "the bracket contains the term (K - 1)",
        "the term is (K - 1) alpha Delta_H; apparently a factor was lost",
        "all errors are 0, alpha c_2 = 0.1",
        constant_term,
    ),
    Erratum(
        "The abstract's second rate",
        f"{BIAS_PAPER}, abstract and Sec. 5.1",
        "Hessian bias of order (K - 1) Delta_H^(K - 1)",
        "it is linear in small Delta_H; this example attains the corrected bound",
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
        "the bound is V_2 (Delta_J^2 + sigma_J^2), where V_2 contains m_1",
        "it also needs the noise of the outer gradient times the Jacobian, and m_2 in place of m_1",
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
        "the outer gradient in phi need only be Lipschitz in phi",
        "it must be Lipschitz in theta",
        "J_out = phi x log(phi^2 + x^2) at phi = 0, K = 1, a step of 1 with probability p",
        cross_lipschitz,
    ),
    Erratum(
        "A Lipschitz assumption on the mixed derivative",
        f"{BIAS_PAPER}, Assumption 4.1 and eq. (9)",
        "no assumption on how J changes with theta",
        "J must be Lipschitz in theta; otherwise the bias does not vanish with the errors",
        "dJ_in/dx = phi exp(-x^2 / phi), J_out = x, K = 2; all printed constants are bounded",
        mixed_lipschitz,
    ),
)
