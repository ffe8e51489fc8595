"""Exact moments of multi-step meta-gradients on a reward chain: i-step ones, mixes and averages.

With a table of values everything is linear in the batches' mean rewards rbar_j. Let w be the loss
weight, alpha the step size, b = 1 - alpha w, mu the trace decay, theta the initial values, W_k the
derivative of the target weights in gamma_k, gbar_j the mean inner and gbar'_i the mean outer
target. The meta-gradient in gamma_k after i inner steps is a product of two numbers,

    nabla_{gamma_k} L'(theta^(i)) = -w u_i d_i,    d_i = alpha w sum_{j < i} mu^(i-1-j) rbar_jk,
    u_i = W_k^T (gbar'_i - theta^(i)),    theta^(i) = b^i theta + alpha w sum_{j < i} b^(i-1-j)
    gbar_j,

so its mean is ``-w (E u_i E d_i + Cov(u_i, d_i))``, whatever the rewards' distribution. For
Gaussian rewards (only variances need this) Isserlis' theorem gives the covariance of two products,

    Cov(u_i d_i, u_l d_l) = E u_i E u_l Cov(d_i, d_l) + E d_i E d_l Cov(u_i, u_l)
        + E d_i E u_l Cov(u_i, d_l) + E u_i E d_l Cov(d_i, u_l)
        + Cov(u_i, u_l) Cov(d_i, d_l) + Cov(u_i, d_l) Cov(d_i, u_l),

where the i-step and the l-step meta-gradient of one unroll share the noise of their first
min(i, l) inner batches. A mix has the weighted sum of these. ``mu = b`` is the exact meta-gradient,
because every inner step has the derivative b I; another mu is the accumulative trace.

Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, eqs. (5), (7), (9), (10)
and App. D.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.moments.estimators import EstimateMoments
from gradbias.analytic.problems.mixing import Validation, mixing_weights
from gradbias.analytic.problems.reward_chains import ChainLearner
from gradbias.analytic.utils.validation import FloatArray, frozen_array, real_number, whole_number

MAX_COVARIANCE = 5_000_000
"""Numbers (steps^2 x states^2) up to which the covariances are worked out."""


@dataclass(frozen=True, eq=False)
class StepMoments:
    """The moments of the i-step meta-gradients of one unroll, i = 1..n.

    Attributes:
        means: ``[n, m]``.
        covariances: of component k of the i-step and component q of the l-step one, ``[n, n, m,
            m]``.
    """

    means: FloatArray
    covariances: FloatArray

    def weighted(self, weights: npt.ArrayLike) -> EstimateMoments:
        """The moments of the sum of the i-step meta-gradients times ``weights [n]``. Raises
        ValueError for weights of another shape.
        """
        w = frozen_array("weights", weights, (len(self.means),))
        return EstimateMoments(w @ self.means, np.einsum("i,l,ilkq->kq", w, w, self.covariances))

    @property
    def last(self) -> EstimateMoments:
        """The moments of the n-step meta-gradient."""
        return EstimateMoments(self.means[-1], self.covariances[-1, -1])

    def mixed(self, kappa: float | None = None) -> EstimateMoments:
        """The moments of the kappa-mix, eq. (10). Raises ValueError if kappa is not in [0, 1]."""
        return self.weighted(mixing_weights(len(self.means), kappa))


def chain_step_moments(
    learner: ChainLearner,
    steps: int,
    *,
    trace_decay: float | None = None,
    validation: Validation = Validation.FRESH,
) -> StepMoments:
    """The moments of the i-step meta-gradients in the discounts, i = 1..n.

    They are gradients of the outer *loss*, to be descended.

    Args:
        learner: the chain, the initial values and the inner steps.
        steps: n, the number of inner steps.
        trace_decay: mu of the accumulative trace, in [0, 1] (None: the inner steps' exact
            derivatives).
        validation: the outer loss's batches; a mix's moments depend on it, an i-step one's do not.

    Returns:
        Means ``[n, m]`` and covariances ``[n, n, m, m]``.

    Raises:
        ValueError: steps < 1 or too many, mu outside [0, 1], or batches that are reused for
            validation though their sizes differ.

    Source: *One Step at a Time*, eqs. (5), (10), App. D.1; the moments follow by Isserlis' theorem.

    >>> from gradbias.analytic import RewardChain
    >>> from gradbias.analytic.problems import ChainLearner
    >>> learner = ChainLearner(RewardChain([1.0], [0.0]), [0.5], [0.0])
    >>> moments = chain_step_moments(learner, 2)
    >>> moments.means.round(6).tolist(), moments.mixed(kappa=1.0).mean.round(7).tolist()
    ([[-0.0095], [-0.017195]], [-0.0133475])
    """
    n = whole_number("steps", steps, at_least=1)
    if (n * learner.chain.n_states) ** 2 > MAX_COVARIANCE:
        raise ValueError(
            f"steps: expected at most {MAX_COVARIANCE:,} covariances (steps^2 x states^2), "
            f"got {(n * learner.chain.n_states) ** 2:,}"
        )
    if validation is Validation.REUSED and learner.outer_batch_size != learner.batch_size:
        raise ValueError(
            "outer_batch_size: expected batch_size where batches are reused, "
            f"got {learner.outer_batch_size} and {learner.batch_size}"
        )
    decay = learner.contraction
    if trace_decay is not None:
        decay = real_number("trace_decay", trace_decay, low=0.0, high=1.0)
    forms = _Forms.of(learner, n, decay, validation)
    return forms.product(-learner.loss_weight)


def chain_oracle(learner: ChainLearner, *, steps: int | None) -> FloatArray:
    """The expected exact meta-gradient after many inner steps, against which a bias is measured.

    Args:
        learner: the chain, the initial values and the inner steps.
        steps: the number of inner steps; the paper takes 40 (None: the limit).

    Returns:
        ``[m]``, one entry for each discount.

    Raises:
        ValueError: steps < 1; the limit, if a step size x loss weight >= 2 lets the inner loop
            diverge.

    Source: *One Step at a Time*, eqs. (7) and (9).

    >>> from gradbias.analytic import RewardChain
    >>> from gradbias.analytic.problems import ChainLearner
    >>> learner = ChainLearner(RewardChain([1.0], [0.0]), [0.5], [0.0])
    >>> [chain_oracle(learner, steps=n).round(4).tolist() for n in (1, 10, None)]
    [[-0.0095], [-0.0439], [-0.05]]
    """
    b, chain = learner.contraction, learner.chain
    if steps is None and abs(b) >= 1.0:
        raise ValueError(
            f"step_size: expected step_size x loss_weight < 2 for a limit, got {learner.pace:g}"
        )
    n = None if steps is None else whole_number("steps", steps, at_least=1)
    initial = 0.0 if n is None else b**n
    slopes, weights = learner.target_slopes, learner.target_weights
    error = learner.outer_weights @ chain.means - initial * learner.values
    error -= (1.0 - initial) * (weights @ chain.means)
    shared = learner.pace**2 * _geometric(b * b, n) * (slopes * weights).sum(axis=0)
    covariance = -shared * chain.deviations**2 / learner.batch_size
    mean_d = learner.pace * _geometric(b, n) * chain.means
    return np.asarray(-learner.loss_weight * ((error @ slopes) * mean_d + covariance))


def _geometric(ratio: float, terms: int | None) -> float:
    """``1 + ratio + ratio^2 + ...`` with that many terms, or (None) with all."""
    return 1.0 / (1.0 - ratio) if terms is None else float((ratio ** np.arange(terms)).sum())


def _powers(ratio: float, n: int) -> FloatArray:
    """``ratio^(i-1-j)`` in row i - 1 and column j, 0 if batch j comes later, ``[n, n]``."""
    gaps = np.arange(n)[:, None] - np.arange(n)[None, :]
    return np.tril(ratio ** np.maximum(gaps, 0))


@dataclass(frozen=True, eq=False)
class _Forms:
    """The factors u_i and d_i for each gamma_k: means ``[n, m]``, covariances ``[n, n, m, m]``."""

    u: FloatArray
    d: FloatArray
    uu: FloatArray
    ud: FloatArray
    dd: FloatArray

    @classmethod
    def of(cls, learner: ChainLearner, n: int, decay: float, validation: Validation) -> _Forms:
        """The factors of ``learner``; ``decay`` is mu."""
        chain, b = learner.chain, learner.contraction
        in_theta = learner.pace * _powers(b, n)  # the share of inner batch j in theta^(i)
        in_d = learner.pace * _powers(decay, n)  # and in d_i
        by_inner = learner.target_slopes.T @ learner.target_weights  # du_k/dr_c, inner rewards
        by_outer = learner.target_slopes.T @ learner.outer_weights  # and outer ones
        inner, outer = (
            chain.deviations**2 / size for size in (learner.batch_size, learner.outer_batch_size)
        )
        shared = np.ones((n, n)) if validation is Validation.SHARED else np.eye(n)
        reused = np.eye(n, k=1) if validation is Validation.REUSED else np.zeros((n, n))
        initial = np.outer(b ** np.arange(1, n + 1), learner.target_slopes.T @ learner.values)
        cross = _each(in_theta @ reused.T, by_inner * inner @ by_outer.T)
        return cls(
            u=by_outer @ chain.means
            - initial
            - np.outer(in_theta.sum(axis=1), by_inner @ chain.means),
            d=np.outer(in_d.sum(axis=1), chain.means),
            uu=_each(shared, by_outer * outer @ by_outer.T)
            + _each(in_theta @ in_theta.T, by_inner * inner @ by_inner.T)
            - cross
            - cross.transpose(1, 0, 3, 2),
            ud=_each(reused @ in_d.T, by_outer * inner)
            - _each(in_theta @ in_d.T, by_inner * inner),
            dd=_each(in_d @ in_d.T, np.diag(inner)),
        )

    def product(self, factor: float) -> StepMoments:
        """The moments of ``factor x u_i d_i`` for Gaussian u and d."""
        du = self.ud.transpose(1, 0, 3, 2)
        covariance = np.einsum("iikk->ik", self.ud)
        covariances = (
            self.dd * (_pairs(self.u, self.u) + self.uu)
            + _pairs(self.d, self.d) * self.uu
            + _pairs(self.d, self.u) * self.ud
            + _pairs(self.u, self.d) * du
            + self.ud * du
        )
        return StepMoments(factor * (self.u * self.d + covariance), factor**2 * covariances)


def _each(over_steps: FloatArray, over_states: FloatArray) -> FloatArray:
    """The products of all entries of two matrices, ``[n, n, m, m]``."""
    return over_steps[:, :, None, None] * over_states


def _pairs(first: FloatArray, second: FloatArray) -> FloatArray:
    """All products of an entry of ``first [n, m]`` and one of ``second``, ``[n, n, m, m]``."""
    return first[:, None, :, None] * second[None, :, None, :]
