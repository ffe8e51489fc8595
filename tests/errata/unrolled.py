"""Remarks on eqs. (3), (4), (7) and (8): the unrolled loop, against exact meta-gradients."""

import itertools
from functools import cache

import numpy as np

from gradbias.analytic.meta.bilevel import Lirpg, Maml
from gradbias.analytic.meta.meta_gradients import inner_loop, meta_gradient
from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient, hessian, reward_vjp
from tests.errata.records import BIAS_PAPER, Erratum, Kind, relative

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


def proposition_steps():
    exact, mixed, factors, outer = unrolled(3)
    jacobian = STEP_SIZE * summed(mixed, factors, 3)
    return {
        "error of the pair as printed": relative(_by(mixed, factors, outer, 3), exact),
        "error of the first line if its symbol is the Jacobian": relative(
            STEP_SIZE * jacobian @ outer, exact
        ),
    }


def equation_7():
    exact, mixed, _, outer = unrolled(1)
    return {
        "error with the mixed derivative at theta^0": relative(STEP_SIZE * mixed[0] @ outer, exact),
        "error with that at theta^1, as printed": relative(STEP_SIZE * mixed[1] @ outer, exact),
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
        "change of the inner Hessian divided by the distance": float(
            moved / np.linalg.norm(here - there)
        ),
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
        "with the exact Hessian": relative(totals[2], totals[0]),
    }


ERRATA = (
    Erratum(
        title="The superscript of eq. (7)",
        paper=BIAS_PAPER,
        where="eq. (7)",
        kind=Kind.WRONG,
        printed="for K = 1, the mixed derivative of J_in at theta^1",
        holds=(
            "the mixed derivative belongs at theta^0, from which the step is taken; only the "
            "superscript is wrong (alpha stands outside, as in eq. (3))"
        ),
        elsewhere=(
            "eq. (3) at K = 1, and the paragraphs on LOLA, MGRL and LPG, have the parameters "
            "before the step"
        ),
        example="LIRPG, three states, K = 1; errors relative to the meta-gradient",
        numbers=equation_7,
    ),
    Erratum(
        title="MAML in eq. (3)",
        paper=BIAS_PAPER,
        where="Prop. 3.1 for MAML, Table 1",
        kind=Kind.WRONG,
        printed=(
            "eq. (3), the sum alone, for all loops of eq. (2), of which MAML (phi = theta^0) is one"
        ),
        holds=(
            "for MAML, alpha times the sum is the Jacobian minus the identity, if the mixed "
            "derivative is read as the Hessian (as a partial derivative in phi it would be 0); the "
            "identity has to be added, because theta^0 depends on phi; where it does not, eq. (3) "
            "is right"
        ),
        elsewhere="the MAML paragraph of Sec. 3 prints I + alpha H, which is right",
        example="MAML, three states, step size 0.8; errors relative to the meta-gradient",
        numbers=maml_identity,
    ),
    Erratum(
        title="One symbol for two Jacobians",
        paper=BIAS_PAPER,
        where="eqs. (3) and (4)",
        kind=Kind.NOTATION,
        printed=(
            "alpha times nabla_phi theta^K in the first line; the second line defines it without "
            "alpha"
        ),
        holds="the pair is exactly right; its symbol is the Jacobian of theta^K divided by alpha",
        elsewhere=(
            "in the paragraphs on MAML, LOLA, MGRL and LPG the same symbol is the Jacobian itself, "
            "with alpha inside"
        ),
        example="LIRPG, three states, K = 3, step size 0.8; errors relative to the meta-gradient",
        numbers=proposition_steps,
    ),
    Erratum(
        title="Where the product starts",
        paper=BIAS_PAPER,
        where="eq. (8)",
        kind=Kind.NOTATION,
        printed="the product starts at j = t + 1, and t is not defined",
        holds="it starts at j = i + 1, where i is the index of the sum",
        elsewhere="eqs. (3) and (4) have i + 1",
        example="LIRPG, K = 4; errors relative to the meta-gradient",
        numbers=equation_8,
    ),
    Erratum(
        title="The order of the product",
        paper=BIAS_PAPER,
        where="eqs. (3), (4) and (8)",
        kind=Kind.NOTATION,
        printed="a product of matrices over j, whose order is not said",
        holds=(
            "j increases from left to right, as one would read it, because rows belong to phi; the "
            "order matters, as Hessians do not commute"
        ),
        example="LIRPG, K = 4; errors relative to the meta-gradient",
        numbers=product_order,
    ),
    Erratum(
        title="The constant rho_2",
        paper=BIAS_PAPER,
        where="Assumption 4.1",
        kind=Kind.NOTATION,
        printed="rho_2 = max m_phi, where m_phi is a constant of the outer objective",
        holds=(
            "rho_2 = max rho_phi, the Lipschitz constant of the inner Hessian, which the same "
            "sentence introduces"
        ),
        example="LIRPG with an outer reward of 0",
        numbers=lipschitz_of_the_hessian,
    ),
    Erratum(
        title="Estimates without hats",
        paper=BIAS_PAPER,
        where="eq. (4)",
        kind=Kind.NOTATION,
        printed="J_in, without a hat, in the mixed derivative and in the Hessian",
        holds=(
            "estimates, as their arguments tau_1 and tau_2 are samples; with exact derivatives the "
            "mean would be another one"
        ),
        example=(
            "two arms with rewards 1 and -0.5, logits 0.3 and -0.2, alpha = 0.7, LIRPG, K = 2, one "
            "trajectory a batch, AD's Hessian; errors relative to the mean of the estimate"
        ),
        numbers=hats,
    ),
)
