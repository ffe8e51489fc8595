"""The way of a meta-gradient forward through its inner steps, and back.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. (4); the correction: E-MAML
(Stadie et al. 2018; Al-Shedivat et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from gradbias.analytic.policies.softmax import MAX_PARAMETER
from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.derivatives.known_surrogates import is_known
from gradbias.stochastic.meta.slots import FirstOrder, Given, Reuse, Sampling, Slot, Source
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.stochastic.surrogates.returns import log_probabilities

if TYPE_CHECKING:
    from gradbias.stochastic.meta.meta_gradients import MetaGradient


@dataclass(frozen=True, eq=False)
class Derivative:
    """A slot of an inner step's derivative: in theta, or in the meta-parameters."""

    slot: Slot
    in_meta: bool


@dataclass(frozen=True, eq=False)
class Back:
    """What goes back from a step: ``cotangent [B, *shape]`` is lambda, ``meta [B, *phi]`` is what
    has been collected for phi, ``value [B]`` the outer return.
    """

    cotangent: FloatArray
    meta: FloatArray
    value: FloatArray

    def plus(self, cotangent: FloatArray | float, meta: FloatArray | float) -> Back:
        """With more of lambda, and for phi."""
        return Back(self.cotangent + cotangent, self.meta + meta, self.value)

    def mean(self, weights: FloatArray) -> Back:
        """Over the M outcomes of each of B draws, ``weights [B, M]``."""
        return Back(
            *(weighted_means(part, weights) for part in (self.cotangent, self.meta, self.value))
        )


def weighted_means(parts: FloatArray, weights: FloatArray) -> FloatArray:
    """``[B, ...]``: the weighted sums of ``parts [B * M, ...]`` with ``weights [B, M]``."""
    split = parts.reshape(*weights.shape, *parts.shape[1:])
    found: FloatArray = np.einsum("bm,bm...->b...", weights, split)
    return found


@dataclass(frozen=True, eq=False)
class Pass:
    """One evaluation of ``asked`` at phi: forward through the steps, and back."""

    asked: MetaGradient
    source: Source
    phi: FloatArray

    def from_step(self, i: int, theta: FloatArray, replayed: Trajectories | None) -> Back:
        """What comes back to ``theta [B, *shape]`` before step i."""
        asked = self.asked
        if i == asked.steps:
            found, weights = self.outer_outcomes(theta)
            return found.mean(weights)
        here, batch, weights = self.value_batch(theta, replayed)
        keep = batch if asked.reuse is Reuse.REPLAY else None
        child = self.from_step(i + 1, self.moved(i, here, batch), keep)
        shared, independent = self.slots(i)
        back = child
        if asked.correction and replayed is None and batch is not None:
            back = back.plus(*self.scored(here, batch, child.value))
        for derivative in shared:
            back = back.plus(*self.pulled(derivative, here, batch, child.cotangent))
        back, arriving = back.mean(weights), weighted_means(child.cotangent, weights)
        for derivative in independent:
            back = back.plus(*self._drawn_and_pulled(derivative, theta, arriving))
        return back

    def slots(self, i: int) -> tuple[list[Derivative], list[Derivative]]:
        """Step i's derivatives: those that share the value's batch, and the others."""
        asked, reuse = self.asked, self.asked.reuse
        shared: list[Derivative] = []
        others: list[Derivative] = []
        if asked.jacobian is not None:
            into = shared if reuse in (Reuse.INNER, Reuse.REPLAY) else others
            into.append(Derivative(asked.jacobian, in_meta=True))
        needed = i > 0 or asked.loop.starts_at_meta
        if needed and not isinstance(asked.hessian, FirstOrder):
            into = others if reuse is Reuse.NONE else shared
            into.append(Derivative(asked.hessian, in_meta=False))
        return shared, others

    def value_batch(
        self, theta: FloatArray, replayed: Trajectories | None
    ) -> tuple[FloatArray, Trajectories | None, FloatArray]:
        """For each theta, M copies of it, the batches that step takes its value from (None where it
        is exact) and their weights ``[B, M]``.
        """
        slot = self.asked.value
        if isinstance(slot, Given) or replayed is not None:
            return theta, replayed, np.ones((len(theta), 1))
        batch, weights = self.draw(theta, slot.batch_size)
        return np.repeat(theta, weights.shape[1], axis=0), batch, weights

    def draw(self, theta: FloatArray, n: int) -> tuple[Trajectories, FloatArray]:
        """Batches of n at ``theta [B, *shape]``, ``[B * M, n, H]``, and their weights."""
        drawn, weights = self.source.draw(self.asked.loop.log_policy(self.phi, theta), n)
        at = np.repeat(theta, weights.shape[1], axis=0)
        return self.asked.loop.read(drawn, self.phi, at), weights

    def moved(self, i: int, theta: FloatArray, batch: Trajectories | None) -> FloatArray:
        """The parameters after step i. Raises ValueError where they diverge."""
        slot = self.asked.value
        if batch is None or isinstance(slot, Given):
            update = _exact_step(slot, self.phi, theta).update
        else:
            update = self.asked.loop.inner(slot.surrogate, self.phi, theta, batch).gradient()
        after: FloatArray = theta + self.asked.step_size * update
        if not np.abs(after).max(initial=0.0) <= MAX_PARAMETER:
            raise ValueError(
                f"step_size: expected parameters that stay below {MAX_PARAMETER:g}, got larger "
                f"ones after inner step {i + 1} with step size {self.asked.step_size:g}"
            )
        return after

    def outer_outcomes(self, theta: FloatArray, n: int | None = None) -> tuple[Back, FloatArray]:
        """The outer gradients and return for each batch drawn at theta, and the batches' weights;
        of n trajectories, where that is said.
        """
        slot, loop = self.asked.outer, self.asked.loop
        if isinstance(slot, Given):
            exact = slot.problem.outer(self.phi, theta)
            meta = np.zeros((len(theta), *self.phi.shape))
            if exact.meta_gradient is not None:
                meta = meta + exact.meta_gradient
            return Back(exact.theta_gradient, meta, exact.value), np.ones((len(theta), 1))
        batch, weights = self.draw(theta, slot.batch_size if n is None else n)
        at = np.repeat(theta, weights.shape[1], axis=0)
        found = loop.outer(slot.surrogate, self.phi, at, batch)
        gradient, meta = loop.outer_gradients(found)
        powers = found.discount ** np.arange(batch.shape[-1], dtype=np.float64)
        value = (powers * found.batch.rewards).sum(axis=-1).mean(axis=-1)
        return Back(gradient, meta, value), weights

    def scored(
        self, theta: FloatArray, batch: Trajectories, value: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """The correction times ``value [B]`` times the score of each batch: for lambda, and for
        phi.
        """
        loop, size = self.asked.loop, self.asked.correction * value
        found = loop.inner(_log_likelihood, self.phi, theta, batch)
        meta = np.zeros((len(theta), *self.phi.shape))
        if not loop.starts_at_meta:
            meta = _times(size, loop.inner_in_meta(found))
        return _times(size, found.gradient()), meta

    def pulled(
        self,
        derivative: Derivative,
        theta: FloatArray,
        batch: Trajectories | None,
        cotangent: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        """The step size times the transposed derivative times ``cotangent``, from each batch: for
        lambda, and for phi.
        """
        return self.linear(derivative, theta, batch)(cotangent)

    def linear(
        self, derivative: Derivative, theta: FloatArray, batch: Trajectories | None
    ) -> Callable[[FloatArray], tuple[FloatArray, FloatArray]]:
        """`pulled` as a function of the cotangent: the surrogate is differentiated once."""
        loop, slot = self.asked.loop, derivative.slot
        if batch is None or isinstance(slot, Given):
            step, estimate = _exact_step(slot, self.phi, theta), None
        else:
            step, estimate = None, loop.inner(slot.surrogate, self.phi, theta, batch)

        def pulled(cotangent: FloatArray) -> tuple[FloatArray, FloatArray]:
            if estimate is None:
                exact = step.pull_back(cotangent)
                found = exact.meta() if derivative.in_meta else exact.state()
            else:
                back = estimate.pull_back(cotangent)
                found = loop.pulled_to_meta(back) if derivative.in_meta else back.own
            moved = self.asked.step_size * found
            if derivative.in_meta:
                return np.zeros_like(theta), moved
            return moved, np.zeros((len(theta), *self.phi.shape))

        return pulled

    def _drawn_and_pulled(
        self, derivative: Derivative, theta: FloatArray, cotangent: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """`pulled` through batches of the slot's own, weighted_means over them."""
        slot = derivative.slot
        if isinstance(slot, Given):
            return self.pulled(derivative, theta, None, cotangent)
        batch, weights = self.draw(theta, slot.batch_size)
        here, arriving = (np.repeat(part, weights.shape[1], axis=0) for part in (theta, cotangent))
        for_lambda, for_phi = self.pulled(derivative, here, batch, arriving)
        return weighted_means(for_lambda, weights), weighted_means(for_phi, weights)


def probe_slots(asked: MetaGradient, phi: FloatArray, theta: FloatArray) -> None:
    """Looks at each sampled slot's surrogate once, on a few batches that it draws itself.

    Raises:
        SurrogateError: as `stochastic.derivatives.coefficients.probe`.
    """
    slots = [(asked.outer, asked.loop.outer)]
    slots += [(slot, asked.loop.inner) for slot in (asked.value, asked.jacobian) if slot]
    if not isinstance(asked.hessian, FirstOrder):
        slots.append((asked.hessian, asked.loop.inner))
    several = np.array(np.broadcast_to(theta, (_PROBED, *theta.shape)))
    for slot, seen in slots:
        if isinstance(slot, Given) or is_known(slot.surrogate):
            continue
        source = Sampling(asked.loop, np.random.default_rng(0))
        drawn, _ = source.draw(asked.loop.log_policy(phi, several), slot.batch_size)
        seen(slot.surrogate, phi, several, asked.loop.read(drawn, phi, several)).probe()


_PROBED = 4


def _exact_step(slot: Slot, phi: FloatArray, theta: FloatArray) -> Any:
    if not isinstance(slot, Given):
        raise ValueError(f"slot: expected exact values where no batch is drawn, got {slot}")
    return slot.problem.inner_step(phi, theta)


def _log_likelihood(record: Record) -> Tensor:
    return (log_probabilities(record) * record.alive).sum()


def _times(size: FloatArray, parts: FloatArray) -> FloatArray:
    """``[B] x [B, ...]``."""
    product: FloatArray = size.reshape(-1, *(1,) * (parts.ndim - 1)) * parts
    return product
