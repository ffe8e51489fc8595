"""Remarks on Sec. 4.1 and Lemma 4.4: the errors of sampled steps, and their rates."""

import math

import numpy as np

from gradbias.analytic.constants.loops import LoopConstants
from gradbias.analytic.meta.bilevel import Maml
from gradbias.analytic.meta.compositional_bias import compositional_bias
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.verification.bounds.meta_gradient_bias import compositional_error_bound
from tests.errata.records import BIAS_PAPER, Erratum, Kind
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


def iterate_means():
    bandit = TabularMDP(np.ones((1, 2, 1)), [[1.0, -0.5]], 0.9, [1.0], horizon=1)
    found = {}
    for n in (1, 4):
        for k in (1, 2, 3):
            at = {"steps": k, "step_size": 1.3, "batch_size": n}
            bias = compositional_bias(Maml(bandit), [[0.9, -0.3]], **at).iterate
            found[f"distance, N = {n}, K = {k}"] = float(np.linalg.norm(bias))
    return found


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
        found[f"bias of f over K alpha^K, alpha = {alpha:g}"] = bias / claimed
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
        title="The mean of the sampled iterates",
        paper=BIAS_PAPER,
        where="Sec. 4.1",
        kind=Kind.WRONG,
        printed=(
            '"where E[theta-hat^K] = theta^K" (theta-hat: sampled), and f(theta^K) = '
            "f(E[theta-hat^K])"
        ),
        holds=(
            "that is true for K = 1; the second step is taken at a random point, where the mean of "
            "the gradient is in general not the gradient at the mean, so that for K >= 2 the "
            "iterates are biased themselves, at order 1/N"
        ),
        elsewhere=(
            'the next sentence, "However, this is not true", may be meant of it too, but the '
            "display after that uses it again; Lemma 4.4 does not"
        ),
        example=(
            "two arms with rewards 1 and -0.5, logits 0.9 and -0.3, step size 1.3: distance of "
            "E[theta-hat^K] to theta^K"
        ),
        numbers=iterate_means,
    ),
    Erratum(
        title="Noise off the expected path",
        paper=BIAS_PAPER,
        where="Lemma 4.4",
        kind=Kind.WRONG,
        printed=(
            "sigma_In is the largest standard deviation at theta^0 .. theta^(K-1), the expected "
            "iterates"
        ),
        holds=(
            "sampled iterates leave that path; with the largest standard deviation at all points "
            "that they can reach (perhaps theta-hat^i was meant), eq. (6) holds"
        ),
        example=(
            "J_in = 0 (c_2 tends to 0), f(theta) = theta, noise +-0.01 at theta^0 = 0 and +-1 "
            "elsewhere, alpha = 1, K = 2, N = 1"
        ),
        numbers=noise_off_the_path,
    ),
    Erratum(
        title="The abstract's first rate",
        paper=BIAS_PAPER,
        where="abstract, Secs. 1, 5.1 and 6",
        kind=Kind.WRONG,
        printed="a compositional bias of at most O(K alpha^K sigma_In |tau|^(-1/2))",
        holds=(
            "for small alpha the expected error is of order sqrt(K) alpha, as the noises of the "
            "steps are uncorrelated, and its effect on the mean of order K alpha^2; the power K of "
            "alpha appears only where alpha c_2 is large; so the rate fails for the error if K >= "
            "2, and for the bias if K >= 3"
        ),
        elsewhere="eq. (6), of which this is a summary, is of order K alpha for small alpha",
        example=(
            "J_in = theta, noise +-1, theta^0 = 0, K = 3, N = 1: bias of f(theta) = theta^2 (theta "
            "stays below 1) and expected error of theta itself; ratios that should be bounded"
        ),
        numbers=abstract_rate,
    ),
    Erratum(
        title="An expected error, called a bias",
        paper=BIAS_PAPER,
        where="Lemma 4.4",
        kind=Kind.NOTATION,
        printed='the expected error E|f(theta-hat^K) - f(theta^K)| is called "compositional bias"',
        holds=(
            "the lemma is about the expected error, which is of order N^(-1/2); a bias in the "
            "usual sense, |E f(theta-hat^K) - f(theta^K)|, is at most that, and of order 1/N if f "
            "and J_in are smooth"
        ),
        elsewhere="Theorem 4.5 defines the bias of the meta-gradient as usual",
        example=(
            "two arms with rewards 1 and -0.5, logits 0.9 and -0.3, step size 1.3, K = 1: products "
            "that hardly change as N grows"
        ),
        numbers=error_is_no_bias,
    ),
)
