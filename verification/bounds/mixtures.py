"""The bias and variance of a mix of the i-step meta-gradients of one unroll, with bounds.

The mean of a mix is the weighted average of the i-step means, so its bias is the weighted average
of their biases. On a reward chain, with step size alpha, loss weight w, ``b = 1 - alpha w`` and the
limit of many steps as target, the i-step bias in the discount gamma_k is

    b_i = w b^i ((p_k - q_k) r_k + b^i (q_k r_k - c_k)),
    p = W'^T (W_o - W) r,   q = W'^T (W r - theta),   c_k = alpha w / (1 + b) (W'^T W)_kk s_k^2 / N

(r: mean rewards, s: their standard deviations, c_k: from the noise of N samples, W: the weights of
rewards in the inner targets, W': their derivatives in the discounts, W_o: the weights in the outer
targets). So ``|b_i| <= first |b|^i + second b^(2i)``, and a mix has the weighted
average of that: geometric in n for the n-step estimate alone, but of order 1/n where all steps
weigh the same (kappa = 1).

*If* the biases of all steps are aligned, and none is smaller than the n-step one, then the mix's is
no smaller than that either. Where they are not it may be: with steps that overshoot (b < 0) they
alternate, and cancel; on the paper's own chain they grow with i where the discounts are 0.95.

The standard deviation of a mix is at most the weighted average of the i-step ones, whatever noise
they share, and those are bounded by Cauchy's inequality.

Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, eqs. (5), (10), Sec. 3.5
and App. D.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradbias.analytic.moments.reward_chains import chain_oracle, chain_step_moments
from gradbias.analytic.problems.mixing import mixing_weights
from gradbias.analytic.problems.reward_chains import ChainLearner
from gradbias.analytic.utils.validation import FloatArray

_ALIGNED = 1e-9


@dataclass(frozen=True, eq=False)
class MixtureBias:
    """The exact biases of the i-step meta-gradients in every discount (``by_step [n, m]``), and the
    ``weights [n]`` of the steps in the mix.
    """

    weights: FloatArray
    by_step: FloatArray

    @property
    def bias(self) -> FloatArray:
        """The mix's bias ``[m]``."""
        mixed: FloatArray = self.weights @ self.by_step
        return mixed

    @property
    def norm(self) -> float:
        """The norm of the mix's bias."""
        return float(np.linalg.norm(self.bias))

    @property
    def last(self) -> float:
        """The norm of the n-step bias."""
        return float(np.linalg.norm(self.by_step[-1]))

    @property
    def average(self) -> float:
        """The weighted average of the norms: at least the mix's, equal to it if all are aligned."""
        return float(self.weights @ np.linalg.norm(self.by_step, axis=1))

    @property
    def aligned(self) -> bool:
        """Whether all biases with a positive weight point the same way."""
        return self.norm >= (1.0 - _ALIGNED) * self.average

    @property
    def decreasing(self) -> bool:
        """Whether no bias with a positive weight is smaller than the n-step one."""
        norms = np.linalg.norm(self.by_step[self.weights > 0.0], axis=1)
        return bool((norms >= (1.0 - _ALIGNED) * self.last).all())


@dataclass(frozen=True)
class MixtureBound:
    """Bounds of the norm of a mix's ``bias`` and of its total ``variance``."""

    bias: float
    variance: float


def mixture_bias(
    learner: ChainLearner, steps: int, kappa: float | None = None, *, target: int | None = None
) -> MixtureBias:
    """The exact biases of the i-step meta-gradients and of their mix.

    Args:
        learner: the reward chain and its inner learner.
        steps: n, the largest number of inner steps.
        kappa: the ratio of successive weights, from 0 to 1 (default: 1 - 1/n).
        target: the number of expected steps after which the target is taken (default: the limit).

    Returns:
        The biases for i = 1 .. n steps, and their weights.

    Raises:
        ValueError: as `chain_step_moments`, `mixing_weights` and `chain_oracle`.

    Source: *One Step at a Time*, eqs. (9), (10).

    >>> from gradbias.analytic import RewardChain
    >>> learner = ChainLearner(RewardChain([1.0], [0.0]), [0.5], [0.0])
    >>> exact = mixture_bias(learner, 4, kappa=1.0)
    >>> exact.aligned, exact.decreasing, exact.norm > exact.last
    (True, True, True)
    """
    weights = mixing_weights(steps, kappa)
    means = chain_step_moments(learner, steps).means
    return MixtureBias(weights, means - chain_oracle(learner, steps=target))


def mixture_bound(learner: ChainLearner, steps: int, kappa: float | None = None) -> MixtureBound:
    """Bounds of a mix's bias against the limit of many steps, and of its variance.

    Args:
        learner: the reward chain and its inner learner.
        steps: n, the largest number of inner steps.
        kappa: the ratio of successive weights, from 0 to 1 (default: 1 - 1/n).

    Returns:
        Both bounds; they hold whichever samples the outer loss is computed from.

    Raises:
        ValueError: as `mixing_weights`; an inner loop that diverges.

    Source: *One Step at a Time*, eq. (10); `verification.bounds.mixtures` derives them.

    >>> from gradbias.analytic import RewardChain
    >>> learner = ChainLearner(RewardChain([1.0, 0.1], [1.0, 1.0]), [0.5, 0.9], [0.0, 0.0])
    >>> bound, exact = mixture_bound(learner, 4), mixture_bias(learner, 4)
    >>> round(bound.bias, 4), round(exact.norm, 4)
    (0.0437, 0.0333)
    """
    weights = mixing_weights(steps, kappa)
    if abs(learner.contraction) >= 1.0:
        raise ValueError(
            f"step_size: expected step_size x loss_weight < 2 for a limit, got {learner.pace:g}"
        )
    parts = _Parts.of(learner)
    contracted = np.abs(learner.contraction) ** np.arange(1.0, steps + 1.0)
    bias = weights @ contracted * parts.first + weights @ contracted**2 * parts.second
    deviations = weights @ parts.deviations(learner, steps)
    return MixtureBound(float(np.linalg.norm(bias)), float(deviations @ deviations))


@dataclass(frozen=True, eq=False)
class _Parts:
    """The parts of an i-step meta-gradient's moments, each ``[m]`` (the formula is in
    `analytic.moments.reward_chains`).

    Its factor u has the mean ``limit + b^i transient`` after i steps. The outer batch gives u the
    variance ``outer_noise``, the inner ones give it ``inner_noise`` times a geometric sum.
    """

    weight: float
    means: FloatArray
    limit: FloatArray
    transient: FloatArray
    covariance: FloatArray
    outer_noise: FloatArray
    inner_noise: FloatArray
    noise: FloatArray

    @classmethod
    def of(cls, learner: ChainLearner) -> _Parts:
        """The parts for a learner whose inner loop converges."""
        chain, slopes = learner.chain, learner.target_slopes.T
        inner, outer = slopes @ learner.target_weights, slopes @ learner.outer_weights
        noise = chain.deviations**2 / learner.batch_size
        memory = learner.pace / (1.0 + learner.contraction)  # pace^2 (1 + b^2 + ..)
        return cls(
            weight=learner.loss_weight,
            means=chain.means,
            limit=(outer - inner) @ chain.means,
            transient=inner @ chain.means - slopes @ learner.values,
            covariance=memory * np.diagonal(inner) * noise,
            outer_noise=outer**2 @ (chain.deviations**2 / learner.outer_batch_size),
            inner_noise=inner**2 @ noise,
            noise=noise,
        )

    @property
    def first(self) -> FloatArray:
        """The factor of ``|b|^i`` in the bias's bound."""
        factor: FloatArray = self.weight * np.abs((self.limit - self.transient) * self.means)
        return factor

    @property
    def second(self) -> FloatArray:
        """The factor of ``b^(2i)`` in the bias's bound."""
        factor: FloatArray = self.weight * np.abs(self.transient * self.means - self.covariance)
        return factor

    def deviations(self, learner: ChainLearner, steps: int) -> FloatArray:
        """Bounds ``[n, m]`` of the i-step meta-gradients' standard deviations.

        A meta-gradient is a product u d; ``d`` is the distance that the value has moved.
        """
        b = learner.contraction
        left = b ** np.arange(1.0, steps + 1.0)[:, None]
        memory = learner.pace * (1.0 - left**2) / (1.0 + b)
        u, d = np.abs(self.limit + left * self.transient), np.abs((1.0 - left) * self.means)
        of_u, of_d = self.outer_noise + memory * self.inner_noise, memory * self.noise
        linear = u * np.sqrt(of_d) + d * np.sqrt(of_u)
        bound: FloatArray = self.weight * np.sqrt(linear**2 + 2.0 * of_u * of_d)
        return bound
