"""One evaluation of a meta-gradient: forward through its inner steps, and back.

With theta^i the parameters before step i and alpha the step size, an inner step is
``theta^(i+1) = theta^i + alpha g(tau_0)``. Going back, lambda is the derivative of the outer return
in theta^(i+1) (the adjoint), and the gradient in the meta-parameters phi is collected on the way.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. (4); the correction: E-MAML
(Stadie et al. 2018; Al-Shedivat et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from gradbias.analytic.policies.softmax import MAX_PARAMETER
from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.meta.inner_loops import Loop
from gradbias.stochastic.meta.slots import FirstOrder, Given, Reuse, Slot, Source
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.stochastic.surrogates.returns import log_probabilities


class LoopSpec(Protocol):
    """What a pass needs to know of a meta-gradient: its inner steps and the estimates in its slots.

    `MetaGradient` checks these attributes and offers estimates to users; a pass runs any object
    that has them, and so does not depend on that class, which is built on passes. Exact evidence
    (`verification.measurement`) runs the same passes with a source that enumerates.
    """

    @property
    def loop(self) -> Loop:
        """What trajectories are drawn from, and how surrogates see them."""
        ...

    @property
    def steps(self) -> int:
        """The number K of inner steps."""
        ...

    @property
    def step_size(self) -> float:
        """The step size alpha."""
        ...

    @property
    def value(self) -> Slot:
        """The estimate g that an inner step moves along."""
        ...

    @property
    def hessian(self) -> Slot | FirstOrder:
        """The estimate of an inner step's derivative in theta."""
        ...

    @property
    def outer(self) -> Slot:
        """The estimate of the outer return's gradients."""
        ...

    @property
    def jacobian(self) -> Slot | None:
        """The estimate of an inner step's derivative in phi; None where theta^0 is phi."""
        ...

    @property
    def reuse(self) -> Reuse | str:
        """Which of a step's slots share one batch."""
        ...

    @property
    def correction(self) -> float:
        """The factor of the score term that accounts for the inner batches' distribution."""
        ...


@dataclass(frozen=True, eq=False)
class Derivative:
    """The slot of an inner step's derivative: in the meta-parameters (``in_meta``), or in theta."""

    slot: Slot
    in_meta: bool


@dataclass(frozen=True, eq=False)
class Back:
    """What B passes have carried back to one step.

    Attributes:
        cotangent: the adjoint lambda in theta, ``[B, *shape]``.
        meta: the gradient in phi that has been collected so far, ``[B, *phi]``.
        value: the outer return, ``[B]``.
    """

    cotangent: FloatArray
    meta: FloatArray
    value: FloatArray

    def plus(self, cotangent: FloatArray | float, meta: FloatArray | float) -> Back:
        """A copy with ``cotangent`` added to the adjoint and ``meta`` to the gradient in phi."""
        return Back(self.cotangent + cotangent, self.meta + meta, self.value)

    def mean(self, weights: FloatArray) -> Back:
        """The means over the M outcomes of each of B draws, ``weights [B, M]``."""
        return Back(
            *(weighted_means(part, weights) for part in (self.cotangent, self.meta, self.value))
        )


def weighted_means(parts: FloatArray, weights: FloatArray) -> FloatArray:
    """``[B, ...]``: the weighted sums of ``parts [B * M, ...]`` with ``weights [B, M]``."""
    split = parts.reshape(*weights.shape, *parts.shape[1:])
    means: FloatArray = np.einsum("bm,bm...->b...", weights, split)
    return means


@dataclass(frozen=True, eq=False)
class Pass:
    """One evaluation of the meta-gradient ``spec`` at phi, with batches from ``source``."""

    spec: LoopSpec
    source: Source
    phi: FloatArray

    def from_step(self, i: int, theta: FloatArray, replayed: Trajectories | None) -> Back:
        """What the passes carry back to the parameters ``theta [B, *shape]`` before step i.

        Args:
            i: the step, 0..K; K is the outer return.
            theta: B parameters.
            replayed: the batches that all steps share; None if each step draws its own.
        """
        spec = self.spec
        if i == spec.steps:
            outer, weights = self.outer_outcomes(theta)
            return outer.mean(weights)
        here, batch, weights = self.value_batch(theta, replayed)
        keep = batch if spec.reuse is Reuse.REPLAY else None
        child = self.from_step(i + 1, self.after_step(i, here, batch), keep)
        shared, independent = self.slots(i)
        back = child
        if spec.correction and replayed is None and batch is not None:
            back = back.plus(*self.score_term(here, batch, child.value))
        for derivative in shared:
            back = back.plus(*self.linear(derivative, here, batch)(child.cotangent))
        back, arriving = back.mean(weights), weighted_means(child.cotangent, weights)
        for derivative in independent:
            back = back.plus(*self._with_own_batches(derivative, theta, arriving))
        return back

    def slots(self, i: int) -> tuple[list[Derivative], list[Derivative]]:
        """Step i's derivatives: first those that share the value's batch, then the others."""
        spec, reuse = self.spec, self.spec.reuse
        shared: list[Derivative] = []
        others: list[Derivative] = []
        if spec.jacobian is not None:
            into = shared if reuse in (Reuse.INNER, Reuse.REPLAY) else others
            into.append(Derivative(spec.jacobian, in_meta=True))
        # Step 0 needs no Hessian where theta^0 is fixed: nothing differentiates in theta^0.
        needed = i > 0 or spec.loop.starts_at_meta
        if needed and not isinstance(spec.hessian, FirstOrder):
            into = others if reuse is Reuse.NONE else shared
            into.append(Derivative(spec.hessian, in_meta=False))
        return shared, others

    def value_batch(
        self, theta: FloatArray, replayed: Trajectories | None
    ) -> tuple[FloatArray, Trajectories | None, FloatArray]:
        """For each theta: M copies of it, the batches that the step takes its value from (None
        where the value is exact) and their weights ``[B, M]``.
        """
        slot = self.spec.value
        if isinstance(slot, Given) or replayed is not None:
            return theta, replayed, np.ones((len(theta), 1))
        batch, weights = self.draw(theta, slot.batch_size)
        return np.repeat(theta, weights.shape[1], axis=0), batch, weights

    def draw(self, theta: FloatArray, batch_size: int) -> tuple[Trajectories, FloatArray]:
        """Batches at ``theta [B, *shape]``, ``[B * M, N, H]``, and their weights ``[B, M]``."""
        drawn, weights = self.source.draw(self.spec.loop.log_policy(self.phi, theta), batch_size)
        at = np.repeat(theta, weights.shape[1], axis=0)
        return self.spec.loop.read(drawn, self.phi, at), weights

    def after_step(self, i: int, theta: FloatArray, batch: Trajectories | None) -> FloatArray:
        """The parameters after step i. Raises ValueError where they diverge."""
        slot = self.spec.value
        if batch is None or isinstance(slot, Given):
            update = _exact_step(slot, self.phi, theta).update
        else:
            update = self.spec.loop.inner(slot.surrogate, self.phi, theta, batch).gradient()
        after: FloatArray = theta + self.spec.step_size * update
        if not np.abs(after).max(initial=0.0) <= MAX_PARAMETER:
            raise ValueError(
                f"step_size: expected parameters that stay below {MAX_PARAMETER:g}, got larger "
                f"ones after inner step {i + 1} with step size {self.spec.step_size:g}"
            )
        return after

    def outer_outcomes(
        self, theta: FloatArray, batch_size: int | None = None
    ) -> tuple[Back, FloatArray]:
        """The outer gradients and return for each batch drawn at theta, and the batches' weights;
        ``batch_size`` replaces the slot's.
        """
        slot, loop = self.spec.outer, self.spec.loop
        if isinstance(slot, Given):
            exact = slot.problem.outer(self.phi, theta)
            meta = np.zeros((len(theta), *self.phi.shape))
            if exact.meta_gradient is not None:
                meta = meta + exact.meta_gradient
            return Back(exact.theta_gradient, meta, exact.value), np.ones((len(theta), 1))
        batch, weights = self.draw(theta, slot.batch_size if batch_size is None else batch_size)
        at = np.repeat(theta, weights.shape[1], axis=0)
        estimates = loop.outer(slot.surrogate, self.phi, at, batch)
        gradient, meta = loop.outer_gradients(estimates)
        powers = estimates.discount ** np.arange(batch.shape[-1], dtype=np.float64)
        value = (powers * estimates.batch.rewards).sum(axis=-1).mean(axis=-1)
        return Back(gradient, meta, value), weights

    def score_term(
        self, theta: FloatArray, batch: Trajectories, value: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """The correction times ``value [B]`` times the score of each batch, in theta and in phi."""
        loop, size = self.spec.loop, self.spec.correction * value
        likelihood = loop.inner(_log_likelihood, self.phi, theta, batch)
        meta = np.zeros((len(theta), *self.phi.shape))
        if not loop.starts_at_meta:
            meta = _times(size, loop.inner_in_meta(likelihood))
        return _times(size, likelihood.gradient()), meta

    def linear(
        self, derivative: Derivative, theta: FloatArray, batch: Trajectories | None
    ) -> Callable[[FloatArray], tuple[FloatArray, FloatArray]]:
        """The vector-Jacobian product with an inner step's derivative, estimated from each batch.

        Args:
            derivative: which of the step's derivatives.
            theta: the parameters at which each batch was drawn, ``[B, *shape]``.
            batch: the batches; None where the slot's values are exact.

        Returns:
            A function of the cotangent ``[B, *shape]`` that gives the step size times the product,
            as a part in theta and a part in phi. The surrogate is differentiated once for all
            cotangents.
        """
        loop, slot = self.spec.loop, derivative.slot
        if batch is None or isinstance(slot, Given):
            step, estimate = _exact_step(slot, self.phi, theta), None
        else:
            step, estimate = None, loop.inner(slot.surrogate, self.phi, theta, batch)

        def vjp(cotangent: FloatArray) -> tuple[FloatArray, FloatArray]:
            if estimate is None:
                exact = step.pull_back(cotangent)
                product = exact.meta() if derivative.in_meta else exact.state()
            else:
                pulled = estimate.pull_back(cotangent)
                product = loop.pulled_to_meta(pulled) if derivative.in_meta else pulled.own
            product = self.spec.step_size * product
            if derivative.in_meta:
                return np.zeros_like(theta), product
            return product, np.zeros((len(theta), *self.phi.shape))

        return vjp

    def _with_own_batches(
        self, derivative: Derivative, theta: FloatArray, cotangent: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """The mean of `linear`'s products over batches that are drawn for this derivative alone."""
        slot = derivative.slot
        if isinstance(slot, Given):
            return self.linear(derivative, theta, None)(cotangent)
        batch, weights = self.draw(theta, slot.batch_size)
        here, arriving = (np.repeat(part, weights.shape[1], axis=0) for part in (theta, cotangent))
        in_theta, in_phi = self.linear(derivative, here, batch)(arriving)
        return weighted_means(in_theta, weights), weighted_means(in_phi, weights)


def _exact_step(slot: Slot, phi: FloatArray, theta: FloatArray) -> Any:
    if not isinstance(slot, Given):
        raise ValueError(f"slot: expected exact values where no batch is drawn, got {slot}")
    return slot.problem.inner_step(phi, theta)


def _log_likelihood(record: Record) -> Tensor:
    """The log-probability of all the batch's actions; its gradient is the batch's score."""
    return (log_probabilities(record) * record.alive).sum()


def _times(size: FloatArray, parts: FloatArray) -> FloatArray:
    """``[B] x [B, ...]``."""
    product: FloatArray = size.reshape(-1, *(1,) * (parts.ndim - 1)) * parts
    return product
