"""What mixing the i-step meta-gradients of one unroll does to bias and variance, with bounds.

The mean of a mix is the weighted average of the i-step means, so its bias is the weighted average
of theirs. On a reward chain, with ``b = 1 - alpha w`` and a target that is the limit of many steps,
the i-step bias in gamma_k is

    b_i = w b^i ((p_k - q_k) r_k + b^i (q_k r_k - c_k)),
    p = W'^T (W_o - W) r,   q = W'^T (W r - theta),   c_k = alpha w / (1 + b) (W'^T W)_kk s_k^2 / N

(r: mean rewards, s: their deviations, W: the inner targets' weights, W': their slopes, W_o: the
outer targets' weights). So ``|b_i| <= first |b|^i + second b^(2i)``, and a mix has the weighted
average of that: geometric in n for the n-step estimate alone, but of order 1/n where all steps
weigh the same (kappa = 1).

*If* the biases of all steps are aligned, and none is smaller than the n-step one, then the mix's is
no smaller than that either. Where they are not it may be: with steps that overshoot (b < 0) they
alternate, and cancel; on the paper's own chain they grow with i where the discounts are 0.95.

The deviation of a mix is at most the weighted average of the i-step deviations, whatever noise they
share, and those are bounded by Cauchy's inequality.

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
    """Exact: ``weights [n]`` of the steps, and their biases ``by_step [n, m]`` in the discounts."""

    weights: FloatArray
    by_step: FloatArray

    @property
    def bias(self) -> FloatArray:
        """The mix's ``[m]``."""
        found: FloatArray = self.weights @ self.by_step
        return found

    @property
    def norm(self) -> float:
        """Of the mix's bias."""
        return float(np.linalg.norm(self.bias))

    @property
    def last(self) -> float:
        """The norm of the n-step bias."""
        return float(np.linalg.norm(self.by_step[-1]))

    @property
    def average(self) -> float:
        """The weighted average of the norms: at least the mix's, and it where all are aligned."""
        return float(self.weights @ np.linalg.norm(self.by_step, axis=1))

    @property
    def aligned(self) -> bool:
        """Whether the biases of the steps that count point the same way."""
        return self.norm >= (1.0 - _ALIGNED) * self.average

    @property
    def decreasing(self) -> bool:
        """Whether none of them is smaller than the n-step one."""
        norms = np.linalg.norm(self.by_step[self.weights > 0.0], axis=1)
        return bool((norms >= (1.0 - _ALIGNED) * self.last).all())


@dataclass(frozen=True)
class MixtureBound:
    """Of the norm of a mix's ``bias``, and of its total ``variance``."""

    bias: float
    variance: float


def mixture_bias(
    learner: ChainLearner, steps: int, kappa: float | None = None, *, target: int | None = None
) -> MixtureBias:
    """The biases of the i-step meta-gradients, i = 1..``steps``, and their weights in the
    kappa-mix, against the meta-gradient after ``target`` expected steps (None: their limit).

    Source: *One Step at a Time*, eqs. (9), (10).

    Raises:
        ValueError: as `chain_step_moments`, `mixing_weights` and `chain_oracle`.

    >>> from gradbias.analytic import RewardChain
    >>> learner = ChainLearner(RewardChain([1.0], [0.0]), [0.5], [0.0])
    >>> found = mixture_bias(learner, 4, kappa=1.0)
    >>> found.aligned, found.decreasing, found.norm > found.last
    (True, True, True)
    """
    weights = mixing_weights(steps, kappa)
    means = chain_step_moments(learner, steps).means
    return MixtureBias(weights, means - chain_oracle(learner, steps=target))


def mixture_bound(learner: ChainLearner, steps: int, kappa: float | None = None) -> MixtureBound:
    """Bounds of the mix's bias against the limit of many steps, and of its variance, whatever its
    validation.

    Source: *One Step at a Time*, eq. (10); `verification.bounds.mixtures`.

    Raises:
        ValueError: as `mixing_weights`; an inner loop that diverges.

    >>> from gradbias.analytic import RewardChain
    >>> learner = ChainLearner(RewardChain([1.0, 0.1], [1.0, 1.0]), [0.5, 0.9], [0.0, 0.0])
    >>> found, exact = mixture_bound(learner, 4), mixture_bias(learner, 4)
    >>> round(found.bias, 4), round(exact.norm, 4)
    (0.0437, 0.0333)
    """
    weights = mixing_weights(steps, kappa)
    if abs(learner.contraction) >= 1.0:
        raise ValueError(
            f"step_size: expected step_size x loss_weight < 2 for a limit, got {learner.pace:g}"
        )
    each = _Parts.of(learner)
    left = np.abs(learner.contraction) ** np.arange(1.0, steps + 1.0)
    bias = weights @ left * each.first + weights @ left**2 * each.second
    deviations = weights @ each.deviations(learner, steps)
    return MixtureBound(float(np.linalg.norm(bias)), float(deviations @ deviations))


@dataclass(frozen=True, eq=False)
class _Parts:
    """Each ``[m]``: ``settled`` + b^i ``unsettled`` is the mean of u after i steps; ``judged`` is
    its variance by the outer batch, and ``noise`` times a geometric sum that by the inner ones (see
    `analytic.moments.reward_chains`).
    """

    weight: float
    means: FloatArray
    settled: FloatArray
    unsettled: FloatArray
    covariance: FloatArray
    judged: FloatArray
    trained: FloatArray
    noise: FloatArray

    @classmethod
    def of(cls, learner: ChainLearner) -> _Parts:
        """Those of a learner whose inner loop converges."""
        chain, slopes = learner.chain, learner.target_slopes.T
        inner, outer = slopes @ learner.target_weights, slopes @ learner.outer_weights
        noise = chain.deviations**2 / learner.batch_size
        kept = learner.pace / (1.0 + learner.contraction)  # pace^2 (1 + b^2 + ..)
        return cls(
            weight=learner.loss_weight,
            means=chain.means,
            settled=(outer - inner) @ chain.means,
            unsettled=inner @ chain.means - slopes @ learner.values,
            covariance=kept * np.diagonal(inner) * noise,
            judged=outer**2 @ (chain.deviations**2 / learner.outer_batch_size),
            trained=inner**2 @ noise,
            noise=noise,
        )

    @property
    def first(self) -> FloatArray:
        """What bounds the bias by ``|b|^i``."""
        found: FloatArray = self.weight * np.abs((self.settled - self.unsettled) * self.means)
        return found

    @property
    def second(self) -> FloatArray:
        """And by ``b^(2i)``."""
        found: FloatArray = self.weight * np.abs(self.unsettled * self.means - self.covariance)
        return found

    def deviations(self, learner: ChainLearner, steps: int) -> FloatArray:
        """``[n, m]``: what those of the i-step meta-gradients do not exceed."""
        b = learner.contraction
        left = b ** np.arange(1.0, steps + 1.0)[:, None]
        kept = learner.pace * (1.0 - left**2) / (1.0 + b)
        u, d = np.abs(self.settled + left * self.unsettled), np.abs((1.0 - left) * self.means)
        of_u, of_d = self.judged + kept * self.trained, kept * self.noise
        linear = u * np.sqrt(of_d) + d * np.sqrt(of_u)
        found: FloatArray = self.weight * np.sqrt(linear**2 + 2.0 * of_u * of_d)
        return found
