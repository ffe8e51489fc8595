"""Of the linearised estimate."""

import math

import numpy as np
from errata_records import MERITS_PAPER, Erratum

from analytic.additive_expansions import additive_expansion, linearised_bias_bound
from analytic.additive_objectives import AdditiveFunction, AdditiveLaw, additive_moments
from analytic.bilevel import Maml
from analytic.derivatives import gradient
from analytic.metagradients import meta_gradient
from analytic.policies import softmax
from analytic.problems import TabularMDP


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


ERRATA = (
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
