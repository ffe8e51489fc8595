"""Errata on Lemma 4.4: the errors of sampled steps, and their rates."""

import math

import numpy as np

from gradbias.analytic.constants.loops import LoopConstants
from gradbias.analytic.meta.bilevel import Maml
from gradbias.analytic.meta.compositional_bias import compositional_bias
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.verification.bounds.meta_gradient_bias import compositional_error_bound
from tests.errata.records import BIAS_PAPER, Erratum
from tests.oracles.scalar_loops import ScalarLoop, coin


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
    asked = {"steps": 2, "step_size": 1.0, "batch_size": 1}
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
        at = {"steps": 1, "step_size": 1.3, "batch_size": n}
        sampled = compositional_bias(Maml(bandit), [[0.9, -0.3]], **at)
        error = math.sqrt(float(np.trace(sampled.iterate_covariance)))
        found[f"root mean square error of theta^1, times sqrt(N), N = {n}"] = error * math.sqrt(n)
        found[f"bias of the return at theta^1, times N, N = {n}"] = sampled.outer_return * n
    return found


ERRATA = (
    Erratum(
        "Noise off the expected path",
        f"{BIAS_PAPER}, Lemma 4.4",
        "sigma is the largest standard deviation at the expected iterates",
        "sigma must be the largest one at all points that sampled iterates can reach",
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
        "An expected error is not a bias",
        f"{BIAS_PAPER}, Sec. 4.1 and Lemma 4.4",
        "E|f(theta^K) - f|, of order N^(-1/2), is called the compositional bias",
        "the bias |E f(theta^K) - f| is of order 1/N",
        "two arms, K = 1: products that hardly change as N grows",
        error_is_no_bias,
    ),
)
