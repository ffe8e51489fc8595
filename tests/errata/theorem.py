"""Remarks on Theorem 4.5: bounds of bias and variance."""

import math
from dataclasses import replace

import numpy as np

from gradbias.analytic.constants.loops import LoopConstants
from gradbias.verification.bounds.meta_gradient_bias import meta_gradient_bias_bound
from gradbias.verification.bounds.meta_gradient_variance import meta_gradient_variance_bound
from tests.errata.paths import quadratic
from tests.errata.records import BIAS_PAPER, Erratum, Kind
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


def constant_of_the_bias():
    """Bias over (B + Delta_H)^(K-1) (E|e_K| + Delta_J + K - 1); all steps are exact."""
    found = {}
    for k in (2, 3, 4, 6, 8):
        bias = hessian_off(k, 10.0, 0.0, 1.0).bias()
        label = f"alpha = 10 (as in the experiments), Delta_H = 1, K = {k}"
        found[label] = bias / (2.0 ** (k - 1) * (k - 1))
    for k in (2, 3, 4, 6, 8):
        mixed_off = quadratic(k, 1.0, 0.0, mixed_mean=lambda x, k=k: np.full(np.shape(x), 1.0 + k))
        label = f"alpha = 1, Delta_H = 0, Delta_J = K = {k}"
        found[label] = mixed_off.bias() / (2.0 * k - 1.0)
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


def noise_after_the_first_step():
    """Exact steps and outer gradient; noise of H alone, then noise of J with a biased H."""
    found = {}
    for size in (1.0, 10.0, 100.0):
        noisy = quadratic(2, 1.0, 0.0, hessian_noise=size)
        biased = replace(hessian_off(2, 1.0, 0.0, size), mixed_noise=size)
        for label, loop, constants in (
            (f"sigma_H = {size:g}, all else exact", noisy, {"sigma_h": size}),
            (f"sigma_J = Delta_H = {size:g}", biased, {"sigma_j": size, "delta_h": size}),
        ):
            of = LoopConstants(c2=0.0, m1=1.0, m2=1.0, c1=1.0, **constants)
            bound = meta_gradient_variance_bound(of, steps=2, step_size=1.0, batch_size=1)
            found[f"variance, {label}"] = loop.variance()
            found[f"eq. (10) with constant 1, {label}"] = bound.printed
            found[f"corrected, {label}"] = bound.corrected
    return found


def constant_of_the_variance():
    """Exact steps, H = 1 with an error of 2; noise in the outer gradient alone."""
    found = {}
    for k in (2, 5, 10, 20):
        constants = LoopConstants(c2=1.0, m2=1.0, c1=1.0, delta_h=2.0, sigma_2=1.0)
        bound = meta_gradient_variance_bound(constants, steps=k, step_size=1.0, batch_size=1)
        variance = sum(4.0**i for i in range(k)) ** 2  # (sum_i (1 + 1 + 2)^i)^2
        found[f"least constant of eq. (10), K = {k}"] = variance / bound.printed
        found[f"corrected bound divided by the variance, K = {k}"] = bound.corrected / variance
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
        title="The abstract's second rate",
        paper=BIAS_PAPER,
        where="abstract, Secs. 1, 5.1 and 6",
        kind=Kind.WRONG,
        printed="the Hessian's bias has an impact of O((K - 1) Delta_H^(K - 1))",
        holds=(
            "the impact is linear in small Delta_H, for all K >= 2, so that the rate fails for K "
            ">= 3; it is the right power for K = 2 and for large Delta_H; the corrected bound, "
            "alpha m_2 c_1 (S_K(B + alpha Delta_H) - S_K(B)), is attained in the example"
        ),
        elsewhere="eq. (9) has (B + Delta_H)^(K - 1), with B >= 1, and no such rate",
        example="J_in = phi x + 0.15 x^2, J_out = x, alpha = 0.5, K = 3, exact steps",
        numbers=hessian_rate,
    ),
    Erratum(
        title="The variance of one step",
        paper=BIAS_PAPER,
        where="eq. (10), K = 1",
        kind=Kind.WRONG,
        printed=(
            "for K = 1 the right side is E|e_1|^2 + V_2 (Delta_J^2 + sigma_J^2), where V_2 "
            "contains m_1 and sigma_2"
        ),
        holds=(
            "the noise of the outer gradients, sigma_1 and sigma_2 |J|, counts also where J is "
            "exact, and V_2 needs m_2, the bound of the gradient in theta, in place of m_1; with "
            "exact steps, (sigma_1 + alpha (c_1 + Delta_J) sigma_2)^2 "
            "+ alpha^2 (m_2^2 + sigma_2^2) sigma_J^2 is a bound"
        ),
        example=(
            "J_in = phi x, alpha = 1, an exact step; J_out = 0 and noise +-1 in the outer "
            "gradient, or J_out = x and noise +-1 in the Jacobian"
        ),
        numbers=variance_of_one_step,
    ),
    Erratum(
        title="The variance of more steps",
        paper=BIAS_PAPER,
        where="eq. (10), K > 1",
        kind=Kind.WRONG,
        printed=(
            "the second term is (V_2 + .. sigma_H ..) (Delta_J^2 + sigma_J^2), where sigma_H is in "
            "the bracket alone, and V_2 is not multiplied by powers of the base"
        ),
        holds=(
            "the Hessian's noise acts on J itself, not on J's error alone, so that it needs the "
            "factor c_1^2, too; and J's noise grows with the powers of (B + alpha Delta_H)^2; so "
            "no constant inside O(..) is enough for all sigma_H, or for all sigma_J and Delta_H"
        ),
        example="J_in = phi x, J_out = phi + x, alpha = 1, K = 2, exact steps and outer gradient",
        numbers=noise_after_the_first_step,
    ),
    Erratum(
        title="A Lipschitz assumption across arguments",
        paper=BIAS_PAPER,
        where="Assumption 4.1 and eq. (9), K = 1",
        kind=Kind.WRONG,
        printed="nabla_phi J_out is assumed to be Lipschitz in phi, with constant mu_1",
        holds=(
            "it must be Lipschitz in theta, because the estimate is taken at theta-hat^K; mu_1 "
            "is not needed"
        ),
        elsewhere=(
            "the outer returns of MAML, MGRL, LPG and LIRPG do not depend on phi; LOLA's with a "
            "softmax policy satisfies both"
        ),
        example=(
            "J_out = phi x log(phi^2 + x^2), whose printed constants are finite for phi and x of "
            "size 1 at most, at phi = 0; J_in = 0, alpha = 1; noise of mean 0 that is 1 with "
            "probability p and has one other value"
        ),
        numbers=cross_lipschitz,
    ),
    Erratum(
        title="A bound that does not vanish",
        paper=BIAS_PAPER,
        where="eq. (9), K > 1",
        kind=Kind.LOOSE,
        printed="the bracket is E|e_K| + Delta_J + (K - 1)",
        holds=(
            "for K > 1 the bound holds, if its constant may depend on K and alpha, but only "
            "because K - 1 does not vanish: it follows from the boundedness of all factors, and "
            "stays away from 0 where nothing errs; perhaps a factor was lost, as the telescoped "
            "product gives (K - 1) alpha Delta_H in this place; with that factor, a term with "
            "rho_1 is to be added (next entry)"
        ),
        example="J_in = phi x + 0.05 x^2, J_out = x, alpha = 1; all errors are 0",
        numbers=constant_term,
    ),
    Erratum(
        title="What a vanishing bound needs",
        paper=BIAS_PAPER,
        where="Assumption 4.1 and eq. (9), K > 1",
        kind=Kind.LOOSE,
        printed="no assumption on how J changes with theta",
        holds=(
            "with the printed assumptions no bound can vanish with the errors; with J's Lipschitz "
            "constant rho_1 in theta one does, with a term in rho_1 E|e_i|, i < K"
        ),
        example=(
            "dJ_in/dx = phi exp(-x^2 / phi), J_out = x, alpha = 1, K = 2, exact estimates of J and "
            "H; all printed constants are bounded, the step's noise is sqrt(phi)"
        ),
        numbers=mixed_lipschitz,
    ),
    Erratum(
        title="The constant of eq. (9)",
        paper=BIAS_PAPER,
        where="eq. (9), K > 1",
        kind=Kind.LOOSE,
        printed="O((B + Delta_H)^(K - 1) (E|e_K| + Delta_J + (K - 1)))",
        holds=(
            "the constant inside O(..) must grow like alpha^(K - 1) if alpha > 1, because the base "
            "is B + alpha Delta_H, and like K where Delta_J does, because Delta_J enters in every "
            "step; no constant is enough for all K and alpha"
        ),
        example=(
            "J_in = phi x, J_out = x, exact steps: the least constant with which eq. (9) holds"
        ),
        numbers=constant_of_the_bias,
    ),
    Erratum(
        title="The constant of eq. (10)",
        paper=BIAS_PAPER,
        where="eq. (10), K > 1, Delta_J = sigma_J = sigma_H = 0",
        kind=Kind.LOOSE,
        printed="the base of the powers is V_1 + Delta_H^2 = B^2 + Delta_H^2",
        holds=(
            "it is (B + alpha Delta_H)^2, with a cross term and a step size, so that the constant "
            "inside O(..) must grow like 2^(K - 1) even if alpha = 1; the outer gradients' noise, "
            "sigma_1 and sigma_2, has to be inside the constant, too"
        ),
        example=(
            "J_in = phi x + x^2 / 2, alpha = 1, exact steps, Delta_H = 2 (= B), noise +-1 in the "
            "outer gradient"
        ),
        numbers=constant_of_the_variance,
    ),
)
