"""Sampled multi-step meta-gradients on a reward chain, many replications at once.

Drawing and estimating are apart: an estimate is a function of the rewards, so it can be averaged
over draws, or over every outcome of a quadrature. One unroll gives the i-step meta-gradients of all
i, and a mix is ``mixing_weights(n, kappa) @ estimates``.

Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, eqs. (5) and (10),
App. C.1 and D.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradbias.analytic.problems.mixing import Validation
from gradbias.analytic.problems.reward_chains import ChainLearner
from gradbias.analytic.utils.validation import FloatArray, frozen_array, real_number, whole_number


@dataclass(frozen=True, eq=False)
class ChainRewards:
    """What n inner steps train on, ``inner [..., n, N, m]``, and what the outer loss at each of the
    n iterates is taken on, ``outer [..., n, N', m]``. Leading axes are replications.

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
    validation: Validation = Validation.FRESH,
) -> ChainRewards:
    """Rewards ``[R, n, ., m]`` for ``replications`` independent unrolls of ``steps`` inner steps.

    Raises:
        ValueError: counts < 1, or batches that are reused though their sizes differ.
    """
    n = whole_number("steps", steps, at_least=1)
    r = whole_number("replications", replications, at_least=1)
    chain, inner, outer = learner.chain, learner.batch_size, learner.outer_batch_size

    def normal(batches: int, size: int) -> FloatArray:
        noise = rng.standard_normal((r, batches, size, chain.n_states))
        return chain.means + chain.deviations * noise

    if validation is Validation.REUSED:
        if inner != outer:
            raise ValueError(
                "outer_batch_size: expected as many as samples where batches are reused, "
                f"got {outer} and {inner}"
            )
        drawn = normal(n + 1, inner)
        return ChainRewards(drawn[:, :-1], drawn[:, 1:])
    trained = normal(n, inner)
    judged = normal(1 if validation is Validation.SHARED else n, outer)
    return ChainRewards(trained, np.broadcast_to(judged, (r, n, *judged.shape[2:])))


def chain_meta_gradients(
    learner: ChainLearner, rewards: ChainRewards, *, trace_decay: float | None = None
) -> FloatArray:
    """The i-step meta-gradients ``[..., n, m]`` in the discounts, i = 1..n, of each replication.

    ``trace_decay`` is mu of the accumulative trace; None differentiates the inner steps exactly.

    Raises:
        ValueError: rewards that do not fit the chain, or mu outside [0, 1].
    """
    m = learner.chain.n_states
    if rewards.inner.shape[-1] != m:
        raise ValueError(f"rewards: expected {m} states, got {rewards.inner.shape[-1]}")
    decay = learner.contraction
    if trace_decay is not None:
        decay = real_number("trace_decay", trace_decay, low=0.0, high=1.0)
    targets, slopes, pace = learner.target_weights, learner.target_slopes, learner.pace
    trained, judged = rewards.inner.mean(axis=-2), rewards.outer.mean(axis=-2)
    values, moved = learner.values, np.zeros((m, m))
    estimates = np.empty(trained.shape)
    for j in range(trained.shape[-2]):
        mean = trained[..., j, :]
        values = values + pace * (mean @ targets.T - values)
        moved = decay * moved + pace * slopes * mean[..., None, :]
        error = judged[..., j, :] @ learner.outer_weights.T - values
        estimates[..., j, :] = -learner.loss_weight * np.einsum("...i,...ik->...k", error, moved)
    return estimates
