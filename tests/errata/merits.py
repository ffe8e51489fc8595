"""Remarks on *On Merits*: the linearised estimate, and the variance of the score function's."""

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
from gradbias.analytic.returns.evaluation import expected_return
from tests.errata.records import MERITS_PAPER, Erratum, Kind, relative
from tests.oracles.gaussian import gaussian_mean_gradients

ARMS = (
    TabularMDP(np.ones((1, 2, 1)), [[1.0, -0.6]], 0.9, [1.0], horizon=1),
    np.array([[0.4, -0.3]]),
    0.8,
)
"""Two arms, their logits, and a step size."""


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
    bandit, theta, eta = ARMS
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


def variance_of_the_unbiased():
    """Eq. (4) on the paper's Gaussian toy with mu = sigma = 1, and eq. (8) on two arms."""
    bandit, theta, eta = ARMS
    law, adapted = trajectory_law(bandit, theta), adapted_return(bandit, theta, step_size=eta)
    level = float(expected_return(bandit, theta + eta * gradient(bandit, theta)))
    found = {}
    for n in (4, 16, 64):
        for name, toy, arms in (("none", 0.0, 0.0), ("a constant", 1.0, level)):
            variance = gaussian_mean_gradients(1.0, 1.0, batch_size=n, baseline=toy)
            moments = additive_moments(law, adapted, batch_size=n, baseline=arms).score_function
            found[f"toy, baseline: {name}, N = {n}"] = variance.score_function.variance
            found[f"two arms, baseline: {name}, N = {n}"] = float(np.trace(moments.covariance))
    return found


def variance_of_terms():
    """The two terms of eq. (8), with exact V and its gradient, over all batches."""
    bandit, theta, eta = ARMS
    p, rewards = softmax(theta)[0], bandit.reward[0]
    scores, square = np.eye(2) - p, np.diag(p) - np.outer(p, p)
    found = {}
    for n in (4, 16, 64):
        first, second, chance = [], [], []
        for k in range(n + 1):
            counts = np.array([k, n - k])
            chance.append(math.comb(n, k) * p[0] ** k * p[1] ** (n - k))
            after = theta + eta * (counts * rewards) @ scores / n
            first.append(float(expected_return(bandit, after)) * (counts @ scores))
            factor = np.eye(2) - eta * float(counts @ rewards) / n * square
            second.append(factor @ gradient(bandit, after)[0])
        for name, term, scale in (("(i), over N", first, 1.0 / n), ("(ii), times N", second, n)):
            off = np.array(term) - chance @ np.array(term)
            found[f"variance of term {name}, N = {n}"] = scale * float(
                chance @ (off**2).sum(axis=1)
            )
    return found


def gradient_of_arms(reward, theta):
    bandit = TabularMDP(np.ones((1, 2, 1)), reward[None], 0.9, [1.0], horizon=1)
    return gradient(bandit, theta[None])[0]


ERRATA = (
    Erratum(
        title="The linearised estimate's step size",
        paper=MERITS_PAPER,
        where="eqs. (11) and (12)",
        kind=Kind.WRONG,
        printed="the first terms, (1/N) sum_i R u u^T times the outer gradient, have no step size",
        holds="they have the factor eta, as the second terms do",
        elsewhere=(
            "eq. (10), of which they are instances, is right: f's gradient in the mean feature has "
            "the factor"
        ),
        example="two arms, eta = 0.3",
        numbers=linearised_step_size,
    ),
    Erratum(
        title="The outer score",
        paper=MERITS_PAPER,
        where="Algorithm 1",
        kind=Kind.WRONG,
        printed="grad log p_theta of trajectories that are drawn after the step, from p_theta'",
        holds="the score is to be taken at theta', from which the trajectories are",
        elsewhere=(
            "Sec. 2.1 has law and score at the same theta, and Lemma 3.4 says that the gradient is "
            "taken at theta'"
        ),
        example="two arms; errors relative to the gradient after the step",
        numbers=outer_score,
    ),
    Erratum(
        title="The linearised estimate's rate",
        paper=MERITS_PAPER,
        where="Lemma 4.2 (also in the abstract)",
        kind=Kind.LOOSE,
        printed="the bias is O(N^(-1/2))",
        holds="the bias is of order 1/N under the same condition",
        example="f = cos, a coin",
        numbers=linearised_rate,
    ),
    Erratum(
        title="The adapted gradients' rates",
        paper=MERITS_PAPER,
        where="Prop. 6.2",
        kind=Kind.LOOSE,
        printed="two distances to the gradient after an expected step are O(N^(-1/2))",
        holds="both are of order 1/N",
        example="two arms, eta = 0.8: products that tend to a constant",
        numbers=adapted_rates,
    ),
    Erratum(
        title="The variance of unbiased estimates",
        paper=MERITS_PAPER,
        where="abstract, Sec. 1, Lemma 3.1 and Sec. 3.4",
        kind=Kind.LOOSE,
        printed='"unbiased gradient estimates have variance O(N)"',
        holds=(
            "so have eqs. (4) and (8) as they stand; with a constant baseline (mu in the toy, V "
            "after an expected step in eq. (8)) they remain unbiased, and their variance does not "
            "grow"
        ),
        elsewhere="Lemma 3.2 has an unbiased estimate without variance, for the toy",
        example=(
            "the toy with mu = sigma = 1; two arms with exact V, eta = 0.8 (trace of the "
            "covariance)"
        ),
        numbers=variance_of_the_unbiased,
    ),
    Erratum(
        title="The label of the large term",
        paper=MERITS_PAPER,
        where="Sec. 3.4, last paragraph",
        kind=Kind.NOTATION,
        printed="V[J^(ii)] = O(N)",
        holds=(
            "term (i), the sum of scores, has the large variance; that of term (ii), a mean, falls "
            "with N"
        ),
        elsewhere="Sec. 3.3 names term (i)",
        example="eq. (8) on two arms with exact V, eta = 0.8",
        numbers=variance_of_terms,
    ),
)
