"""Errata on estimates: labels, off-policy ratios, the published measure of bias."""

import itertools
import math

import numpy as np

from gradbias.analytic.moments.estimators import gradient_moments
from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.games import memory_one_game
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient
from gradbias.analytic.returns.game_derivatives import game_values
from tests.errata.records import BIAS_PAPER, Erratum, relative


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
        "under mu, product of ratios": relative(means["product"], exact),
        "under mu, ratio of each step": relative(means["step"], exact),
        "under pi, ratio of each step (as printed)": relative(means["law"], exact),
    }


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
        "an expectation under pi, with the ratio of each step alone",
        "an expectation under mu, with the product of all ratios so far",
        "three states, three steps; errors relative to the gradient",
        off_policy_ratios,
    ),
    Erratum(
        "The published measure of bias",
        f"{BIAS_PAPER}, the experiments' code",
        "the bias is the mean squared distance from the mean of 20 trials to the exact value",
        "its expectation is (|bias|^2 + variance / 20) / d, not 0 for an unbiased estimator",
        "two arms, an unbiased estimator",
        published_measure,
    ),
)
