"""Errata on the linearised estimate."""

import math

import numpy as np

from gradbias.analytic.additive.expansion import additive_expansion, linearised_bias_bound
from gradbias.analytic.additive.maml_step import adapted_return, trajectory_law
from gradbias.analytic.additive.objectives import AdditiveFunction, AdditiveLaw, additive_moments
from gradbias.analytic.meta.bilevel import Maml
from gradbias.analytic.meta.meta_gradients import meta_gradient
from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient
from tests.errata.records import MERITS_PAPER, Erratum, relative


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
        moments = additive_moments(law, wave, batch_size=n)
        bias = abs(float((moments.linearised.mean - moments.gradient)[0]))
        bound = linearised_bias_bound(law, lipschitz=1.0, batch_size=n)
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


def adapted_rates():
    """Two arms, eta = 0.8: the linearised estimate's mean, and the sampled-step objective's own
    gradient, less the gradient after an expected step."""
    bandit = TabularMDP(np.ones((1, 2, 1)), [[1.0, -0.6]], 0.9, [1.0], horizon=1)
    theta, eta = np.array([[0.4, -0.3]]), 0.8
    law, adapted = trajectory_law(bandit, theta), adapted_return(bandit, theta, step_size=eta)
    limit = meta_gradient(Maml(bandit), theta, steps=1, step_size=eta).ravel()
    found = {}
    for n in (4, 16, 64):
        moments = additive_moments(law, adapted, batch_size=n)
        for label, value in (
            ("linearised estimate", moments.linearised.mean),
            ("sampled-step objective", moments.gradient),
        ):
            found[f"N times the {label}'s distance, N = {n}"] = n * float(
                np.linalg.norm(value - limit)
            )
    return found


def outer_score():
    """Two arms: the mean of R times a score, under the policy after the step."""
    reward, theta, after = np.array([1.0, -0.6]), np.array([0.4, -0.3]), np.array([1.1, -1.0])
    p, exact = softmax(after), gradient_of_arms(reward, after)
    means = {
        "after": p * reward @ (np.eye(2) - p),
        "before": p * reward @ (np.eye(2) - softmax(theta)),
    }
    return {
        "error, score at the parameters after the step": relative(means["after"], exact),
        "error, score at theta, as printed": relative(means["before"], exact),
    }


def gradient_of_arms(reward, theta):
    bandit = TabularMDP(np.ones((1, 2, 1)), reward[None], 0.9, [1.0], horizon=1)
    return gradient(bandit, theta[None])[0]


ERRATA = (
    Erratum(
        "The linearised estimate's rate",
        f"{MERITS_PAPER}, Lemma 4.2",
        "the bias is of order N^(-1/2)",
        "the bias is of order 1/N under the same condition",
        "f = cos, a coin",
        linearised_rate,
    ),
    Erratum(
        "The linearised estimate's step size",
        f"{MERITS_PAPER}, eqs. (11) and (12)",
        "the first terms have no step size",
        "they have the factor eta",
        "two arms, eta = 0.3",
        linearised_step_size,
    ),
    Erratum(
        "The adapted gradients' rates",
        f"{MERITS_PAPER}, Prop. 6.2",
        "two distances to the gradient after an expected step are of order N^(-1/2)",
        "both are of order 1/N",
        "two arms, eta = 0.8: products that tend to a constant",
        adapted_rates,
    ),
    Erratum(
        "The outer score",
        f"{MERITS_PAPER}, Algorithm 1",
        "the score at theta, for trajectories that are drawn after the step",
        "the score at the parameters after the step",
        "two arms; errors relative to the gradient after the step",
        outer_score,
    ),
)
