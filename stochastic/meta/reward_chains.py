"""Sampled multi-step meta-gradients on a reward chain of m states, many replications at once.

Drawing and estimating are separate: an estimate is a function of the rewards, so that it can be
averaged over draws, or over all nodes of a quadrature. One unroll of n inner steps gives the i-step
meta-gradients of all i, and a mix is ``mixing_weights(n, kappa) @ estimates``.

Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, eqs. (5) and (10),
App. C.1 and D.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradbias.analytic.problems.mixing import Validation
from gradbias.analytic.problems.reward_chains import ChainLearner
from gradbias.analytic.utils.validation import (
    FloatArray,
    choice,
    frozen_array,
    real_number,
    whole_number,
)


@dataclass(frozen=True, eq=False)
class ChainRewards:
    """The rewards that n inner steps and the outer losses after them use.

    Attributes:
        inner: the batches of the inner steps, ``[..., n, N, m]``; leading axes are replications.
        outer: the batches of the outer losses at the n iterates, ``[..., n, N', m]``.

    Raises:
        ValueError: other shapes, or numbers that are not finite.
    """

    inner: FloatArray
    outer: FloatArray

    def __post_init__(self) -> None:
        for name in ("inner", "outer"):
            object.__setattr__(self, name, frozen_array(name, getattr(self, name)))
        if self.inner.ndim < 3 or 0 in self.inner.shape or 0 in self.outer.shape:
            raise ValueError(f"inner: expected shape (..., n, N, m), got {self.inner.shape}")
        wanted = (*self.inner.shape[:-2], self.inner.shape[-1])
        if self.outer.ndim < 3 or (*self.outer.shape[:-2], self.outer.shape[-1]) != wanted:
            expected = (*wanted[:-1], "any", wanted[-1])
            raise ValueError(f"outer: expected shape {expected}, got {self.outer.shape}")


def draw_chain_rewards(
    learner: ChainLearner,
    steps: int,
    *,
    rng: np.random.Generator,
    replications: int,
    validation: Validation | str = Validation.FRESH,
) -> ChainRewards:
    """Random rewards for independent unrolls.

    Args:
        learner: the chain, with its batch sizes N (inner) and N' (outer).
        steps: n, the number of inner steps.
        rng: the generator of all draws.
        replications: R, the number of unrolls.
        validation: which batch each outer loss is taken on (a `Validation` or its value).

    Returns:
        Rewards ``[R, n, N, m]`` and ``[R, n, N', m]``.

    Raises:
        ValueError: counts below 1, or batches that are reused though their sizes differ.

    Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, App. C.1.
    """
    n = whole_number("steps", steps, at_least=1)
    r = whole_number("replications", replications, at_least=1)
    validation = choice("validation", validation, Validation)
    chain, inner, outer = learner.chain, learner.batch_size, learner.outer_batch_size

    def normal(batches: int, size: int) -> FloatArray:
        noise = rng.standard_normal((r, batches, size, chain.n_states))
        return chain.means + chain.deviations * noise

    if validation is Validation.REUSED:
        if inner != outer:
            raise ValueError(
                "outer_batch_size: expected batch_size where batches are reused, "
                f"got {outer} and {inner}"
            )
        drawn = normal(n + 1, inner)
        return ChainRewards(drawn[:, :-1], drawn[:, 1:])
    inner_rewards = normal(n, inner)
    outer_rewards = normal(1 if validation is Validation.SHARED else n, outer)
    shape = (r, n, *outer_rewards.shape[2:])
    return ChainRewards(inner_rewards, np.broadcast_to(outer_rewards, shape))


def chain_meta_gradients(
    learner: ChainLearner, rewards: ChainRewards, *, trace_decay: float | None = None
) -> FloatArray:
    """The i-step meta-gradients in the discounts, i = 1..n, of each replication.

    Args:
        learner: the chain and its learning rule.
        rewards: the batches of n inner steps.
        trace_decay: mu of the accumulative trace; None differentiates the inner steps exactly.

    Returns:
        The meta-gradients, ``[..., n, m]``.

    Raises:
        ValueError: rewards that do not fit the chain, or mu outside [0, 1].

    Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, eq. (5), App. D.1.
    """
    m = learner.chain.n_states
    if rewards.inner.shape[-1] != m:
        raise ValueError(f"rewards: expected {m} states, got {rewards.inner.shape[-1]}")
    decay = learner.contraction
    if trace_decay is not None:
        decay = real_number("trace_decay", trace_decay, low=0.0, high=1.0)
    targets, slopes, pace = learner.target_weights, learner.target_slopes, learner.pace
    inner_means, outer_means = rewards.inner.mean(axis=-2), rewards.outer.mean(axis=-2)
    values, derivative = learner.values, np.zeros((m, m))  # of the values, in the discounts
    estimates = np.empty(inner_means.shape)
    for j in range(inner_means.shape[-2]):
        mean = inner_means[..., j, :]
        values = values + pace * (mean @ targets.T - values)
        derivative = decay * derivative + pace * slopes * mean[..., None, :]
        error = outer_means[..., j, :] @ learner.outer_weights.T - values
        product = np.einsum("...i,...ik->...k", error, derivative)
        estimates[..., j, :] = -learner.loss_weight * product
    return estimates
