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
    """Eq. (4) on the paper's Gaussian toy with mu = sigma = 1, and eq. (8) on two arms, with exact
    V, then with V from the returns of M trajectories."""
    bandit, theta, eta = ARMS
    law, adapted = trajectory_law(bandit, theta), adapted_return(bandit, theta, step_size=eta)
    level = float(expected_return(bandit, theta + eta * gradient(bandit, theta)))
    found = {}
    for n in (4, 16, 64):
        for name, toy, arms in (("none", 0.0, 0.0), ("a constant", 1.0, level)):
            variance = gaussian_mean_gradients(1.0, 1.0, batch_size=n, baseline=toy)
            moments = additive_moments(law, adapted, batch_size=n, baseline=arms).score_function
            found[f"toy, baseline: {name}, N = {n}"] = variance.score_function.variance
            found[f"two arms, exact V, baseline: {name}, N = {n}"] = float(
                np.trace(moments.covariance)
            )
        exact = found[f"two arms, exact V, baseline: a constant, N = {n}"]
        for name, outer in (("1", 1), ("N", n)):
            label = f"two arms, V-hat with M = {name}, baseline: a constant, N = {n}"
            found[label] = exact + added_by_outer_trajectories(n) / outer
    return found


def added_by_outer_trajectories(n):
    """The mean of Var(R | theta') |sum of scores|^2: what the noise of one outer trajectory's
    return adds to the variance of term (i)."""
    bandit, theta, eta = ARMS
    p, rewards = softmax(theta)[0], bandit.reward[0]
    scores, total = np.eye(2) - p, 0.0
    for k in range(n + 1):
        counts = np.array([k, n - k])
        after = softmax(theta + eta * (counts * rewards) @ scores / n)[0]
        variance = after @ rewards**2 - (after @ rewards) ** 2
        chance = math.comb(n, k) * p[0] ** k * p[1] ** (n - k)
        total += chance * variance * float(((counts @ scores) ** 2).sum())
    return total


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
        example="eq. (12) on two arms with rewards 1 and -0.6, logits 0.4 and -0.3, eta = 0.3",
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
        example=(
            "two arms with rewards 1 and -0.6, logits 0.4 and -0.3 before the step and 1.1 and -1 "
            "after it; errors relative to the gradient after the step"
        ),
        numbers=outer_score,
    ),
    Erratum(
        title="The linearised estimate's rate",
        paper=MERITS_PAPER,
        where="Lemma 4.2 (also in the abstract and Sec. 1)",
        kind=Kind.LOOSE,
        printed="the bias is O(N^(-1/2))",
        holds=(
            "it is; under the same condition it is also O(1/N), as it is at most "
            "C / (2 N) E[|phi(X)|^2 |u|], where u is the score"
        ),
        example=(
            "f = cos (C = 1); phi(X) is 1 or -0.4 with chances 0.3 and 0.7, whose logit is theta"
        ),
        numbers=linearised_rate,
    ),
    Erratum(
        title="The adapted gradients' rates",
        paper=MERITS_PAPER,
        where="Prop. 6.2",
        kind=Kind.LOOSE,
        printed=(
            "the distances of E[J-hat_(N,LSF)] and of J_N to J_infinity, the gradient of the "
            "objective with an expected step, are O(N^(-1/2))"
        ),
        holds="they are; both are also of order 1/N",
        example=(
            "two arms with rewards 1 and -0.6, logits 0.4 and -0.3, eta = 0.8, eq. (11) with the "
            "step size: products that tend to a constant"
        ),
        numbers=adapted_rates,
    ),
    Erratum(
        title="The variance of unbiased estimates",
        paper=MERITS_PAPER,
        where="abstract, Sec. 1, Lemma 3.1 and Sec. 3.4",
        kind=Kind.LOOSE,
        printed='"unbiased gradient estimates have variance O(N)"',
        holds=(
            "so have eqs. (4) and (8) as they stand; a constant baseline, subtracted from f or "
            "V-hat, leaves them unbiased, and with the right one (mu in the toy, V after an "
            "expected step in eq. (8)) the variance does not grow; this needs an exact V, or M of "
            "order N trajectories for V-hat, whose own noise adds a part of order N / M"
        ),
        elsewhere="Lemma 3.2 has an unbiased estimate without variance, for the toy",
        example=(
            "the toy with mu = sigma = 1; eq. (8) on two arms with rewards 1 and -0.6, logits 0.4 "
            "and -0.3, eta = 0.8, exact gradient of V (trace of the covariance)"
        ),
        numbers=variance_of_the_unbiased,
    ),
    Erratum(
        title="The label of the large term",
        paper=MERITS_PAPER,
        where="Sec. 3.4, last paragraph",
        kind=Kind.NOTATION,
        printed="there are examples with V[J-hat^(ii)] = O(N), as the reason for a new estimate",
        holds=(
            "J-hat^(i): term (i), with the sum of scores, has the large variance; that of term "
            "(ii), a mean, falls with N"
        ),
        elsewhere="Sec. 3.3 names term (i), and Sec. 4 replaces it",
        example=(
            "eq. (8) on two arms with rewards 1 and -0.6, logits 0.4 and -0.3, exact V, eta = 0.8"
        ),
        numbers=variance_of_terms,
    ),
)
