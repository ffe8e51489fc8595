"""Exact mean and covariance of a sampled meta-gradient.

The backward pass through the inner steps carries T = (lambda, out, J_out): the adjoint of the
parameters, the gradient in the meta-parameters, and the outer objective. Given the path of
parameters each step maps it linearly, ``T_i = Phi_i T_{i+1}`` with Phi = I + c S + D_1 + D_2: the
score of the step's batch, the Jacobian and the Hessian. So its mean and second moment obey

    E[T T^T] = sum over batches tau_0 of p Phi E[T' T'^T] Phi^T
               + (the variance of each D that has a batch of its own),

where only the batches of the steps' values branch. The brute-force tree over all batches gives the
same numbers, with the product of all their counts as leaves.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. (4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.derivatives.known_surrogates import is_known
from gradbias.stochastic.meta.backward_pass import Derivative, Pass, weighted_means
from gradbias.stochastic.meta.slots import Given, Reuse, Sampled, Slot
from gradbias.stochastic.rollouts.trajectories import Trajectories


@dataclass(frozen=True, eq=False)
class MetaMoments:
    """The mean ``[B, q]`` and the second moment ``[B, q, q]`` of T at each of B parameters."""

    mean: FloatArray
    second: FloatArray


@dataclass(frozen=True, eq=False)
class MomentPass:
    """The backward pass of T's moments, with the derivatives of ``base``: the backward pass of
    single estimates, whose source enumerates.
    """

    base: Pass

    def from_step(self, i: int, theta: FloatArray, replayed: Trajectories | None) -> MetaMoments:
        """The moments of T at ``theta [B, *shape]``, before step i."""
        loop = self.base.spec
        if i == loop.steps:
            return self._outer(theta)
        here, batch, weights = self.base.value_batch(theta, replayed)
        after = self.base.after_step(i, here, batch)
        keep = batch if loop.reuse is Reuse.REPLAY else None
        child = self.from_step(i + 1, after, keep)
        shared, independent = self.base.slots(i)
        maps = np.zeros_like(child.second)
        maps += np.eye(maps.shape[-1])
        if loop.correction and replayed is None and batch is not None:
            maps += self._score_map(here, batch)
        for derivative in shared:
            maps += self._map(derivative, here, batch)
        drawn = [self._drawn_maps(derivative, theta) for derivative in independent]
        outcomes = weights.shape[1]
        for estimate in drawn:
            maps += np.repeat(estimate.mean, outcomes, axis=0)
        mean = np.einsum("bij,bj->bi", maps, child.mean)
        second = maps @ child.second @ np.swapaxes(maps, -1, -2)
        arriving = weighted_means(child.second, weights)
        total = weighted_means(second, weights)
        for estimate in drawn:
            total += estimate.spread(arriving)
        return MetaMoments(weighted_means(mean, weights), total)

    def _outer(self, theta: FloatArray) -> MetaMoments:
        slot = self.base.spec.outer
        n, share = _enumerated(slot)
        outcomes, weights = self.base.outer_outcomes(theta, n)
        flat = [part.reshape(len(part), -1) for part in (outcomes.cotangent, outcomes.meta)]
        every = np.concatenate([*flat, np.reshape(outcomes.value, (-1, 1))], axis=1)
        mean = weighted_means(every, weights)
        second = weighted_means(every[:, :, None] * every[:, None, :], weights)
        squared = mean[:, :, None] * mean[:, None, :]
        return MetaMoments(mean, squared + share * (second - squared))

    def _drawn_maps(self, derivative: Derivative, theta: FloatArray) -> _Maps:
        n, share = _enumerated(derivative.slot)
        if isinstance(derivative.slot, Given):
            return _Maps(self._map(derivative, theta, None)[:, None], np.ones((len(theta), 1)), 1.0)
        batch, weights = self.base.draw(theta, n)
        here = np.repeat(theta, weights.shape[1], axis=0)
        maps = self._map(derivative, here, batch)
        return _Maps(maps.reshape(*weights.shape, *maps.shape[1:]), weights, share)

    def _map(
        self, derivative: Derivative, theta: FloatArray, batch: Trajectories | None
    ) -> FloatArray:
        """The step's derivative as matrices ``[B, q, q]``, column by column."""
        size = theta[0].size
        maps = np.zeros((len(theta), self._length(theta), self._length(theta)))
        linear = self.base.linear(derivative, theta, batch)
        for k, v in enumerate(np.eye(size).reshape(size, *theta.shape[1:])):
            for_lambda, for_phi = linear(np.broadcast_to(v, theta.shape))
            maps[:, :size, k] = for_lambda.reshape(len(theta), -1)
            maps[:, size:-1, k] = for_phi.reshape(len(theta), -1)
        return maps

    def _score_map(self, theta: FloatArray, batch: Trajectories) -> FloatArray:
        size = theta[0].size
        for_lambda, for_phi = self.base.score_term(theta, batch, np.ones(len(theta)))
        maps = np.zeros((len(theta), self._length(theta), self._length(theta)))
        maps[:, :size, -1] = for_lambda.reshape(len(theta), -1)
        maps[:, size:-1, -1] = for_phi.reshape(len(theta), -1)
        return maps

    def _length(self, theta: FloatArray) -> int:
        return int(theta[0].size + self.base.phi.size + 1)


@dataclass(frozen=True, eq=False)
class _Maps:
    """A derivative on each of M batches, ``maps [B, M, q, q]``, with the batches' ``weights``. The
    variance of the slot's estimate is ``share`` times that of the estimate from one such batch.
    """

    maps: FloatArray
    weights: FloatArray
    share: float

    @property
    def mean(self) -> FloatArray:
        mean: FloatArray = np.einsum("bm,bmij->bij", self.weights, self.maps)
        return mean

    def spread(self, second: FloatArray) -> FloatArray:
        """What the variance of the maps adds to T's ``second`` moment ``[B, q, q]``."""
        centred = self.maps - self.mean[:, None]
        conjugated = centred @ second[:, None] @ np.swapaxes(centred, -1, -2)
        spread: FloatArray = self.share * np.einsum("bm,bmij->bij", self.weights, conjugated)
        return spread


def _enumerated(slot: Slot) -> tuple[int, float]:
    """The size n of the batches that are enumerated for a slot, and the variance of the slot's
    estimate divided by that of an estimate from such a batch. If trajectories are known not to be
    coupled, single ones are enumerated: ``(1, 1 / N)``.
    """
    if isinstance(slot, Sampled):
        return (1, 1.0 / slot.batch_size) if is_known(slot.surrogate) else (slot.batch_size, 1.0)
    return 1, 1.0
