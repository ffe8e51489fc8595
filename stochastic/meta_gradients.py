"""K-step meta-gradients from samples: four sample sets a step, each sampled or given.

An inner step is ``theta + alpha g(tau_0)``. Going back through the steps from
``lambda = dJ_out/dtheta (tau_3)``,

    out    += alpha (dg/dphi)^T(tau_1) lambda
    lambda += alpha (dg/dtheta)^T(tau_2) lambda,

so a step's value, Jacobian and Hessian come from trajectories of their own, and each slot has its
own surrogate or, given a `BilevelProblem`, its exact values. That has the gradient of the program
in which each step takes its value from one estimate and its derivative from another.

Drawing and enumerating are the same recursion: a `Source` answers each draw with one batch, or with
every batch and its probability. Given the path, the output is linear in each of the other batches,
so its exact mean branches over the steps' values alone.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. (4), with the step size, and
appendix I.1.2; the correction for sampling: E-MAML (Stadie et al. 2018; Al-Shedivat et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from analytic.arrays import FloatArray, real_number, whole_number
from analytic.policies import LARGEST_PARAMETER
from stochastic.coefficients import Surrogate, name_of
from stochastic.inner_loops import Loop
from stochastic.records import Record
from stochastic.surrogates.returns import log_probabilities
from stochastic.trajectories import Trajectories, draw_trajectories

LONGEST_LOOP = 200


@dataclass(frozen=True)
class Sampled:
    """A slot filled by a surrogate's derivative on ``n`` trajectories.

    Raises:
        ValueError: n below 1.
    """

    surrogate: Surrogate
    n: int

    def __post_init__(self) -> None:
        whole_number("n", self.n, at_least=1)

    def __str__(self) -> str:
        return f"{name_of(self.surrogate)} x {self.n}"


class ExactProblem(Protocol):
    """The exact inner steps and outer return: `analytic.Maml` and the like."""

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> Any:
        """The inner update at (phi, theta), with its products."""
        ...

    def outer(self, meta_parameters: FloatArray, theta: FloatArray) -> Any:
        """The outer return at (phi, theta), with its gradients."""
        ...


@dataclass(frozen=True, eq=False)
class Given:
    """A slot filled with the values of a problem that the caller gives."""

    problem: ExactProblem

    def __str__(self) -> str:
        return "exact"


@dataclass(frozen=True)
class FirstOrder:
    """The Hessian slot of first-order MAML: an inner step's derivative in theta is left out.

    Source: Finn et al. 2017, Sec. 5.2.
    """

    def __str__(self) -> str:
        return "first order"


Slot = Sampled | Given
FIRST_ORDER = FirstOrder()


class Reuse(Enum):
    """Which of a step's slots share the batch that its value is taken from."""

    NONE = "independent sets"
    HESSIAN = "tau_2 = tau_0"
    INNER = "tau_1 = tau_2 = tau_0"
    REPLAY = "all steps' sets are the first step's tau_0"


class Source(Protocol):
    """Answers draws."""

    def draw(self, log_policy: FloatArray, n: int) -> tuple[Trajectories, FloatArray]:
        """For each of B policies ``[B, S, A]``, M batches ``[B * M, n, H]`` and their weights
        ``[B, M]``.
        """
        ...


@dataclass(frozen=True, eq=False)
class MetaGradient:
    """The estimator of a K-step meta-gradient; its slots are `Sampled`, or `Given` exact values.

    ``jacobian`` is left out where theta^0 is phi. `Reuse` shares batches between slots, as practice
    does; ``correction`` times (return after the steps) times (score of the batches that were
    drawn) is added, which makes up for their law's dependence on the parameters: 1 is E-MAML, whose
    mean, with `AD` of the drawn batch as Hessian, is the sampled-step objective's gradient.

    Raises:
        ValueError: a slot, step count, step size or correction that does not fit.
    """

    loop: Loop
    steps: int
    step_size: float
    value: Slot
    hessian: Slot | FirstOrder
    outer: Slot
    jacobian: Slot | None = None
    reuse: Reuse = Reuse.NONE
    correction: float = 0.0

    def __post_init__(self) -> None:
        whole_number("steps", self.steps, at_least=1)
        if self.steps > LONGEST_LOOP:
            raise ValueError(f"steps: expected at most {LONGEST_LOOP}, got {self.steps}")
        real_number("step_size", self.step_size, low=-1e12, high=1e12)
        real_number("correction", self.correction, low=0.0, high=1.0)
        if (self.jacobian is None) != self.loop.starts_at_meta:
            wanted = "none where theta^0 is phi" if self.loop.starts_at_meta else "a slot"
            raise ValueError(f"jacobian: expected {wanted}, got {self.jacobian}")
        if self.correction and not isinstance(self.value, Sampled):
            raise ValueError("correction: expected a sampled value slot, got an exact one")
        shared = {Reuse.NONE: (), Reuse.HESSIAN: (self.hessian,)}
        for slot in shared.get(self.reuse, (self.hessian, self.jacobian)):
            if isinstance(slot, Sampled) and not self._same_batch(slot):
                raise ValueError(
                    f"reuse: expected slots of as many trajectories as {self.value}, got {slot}"
                )

    def _same_batch(self, slot: Sampled) -> bool:
        return isinstance(self.value, Sampled) and self.value.n == slot.n

    @property
    def name(self) -> str:
        """What it is called in reports."""
        jacobian = "" if self.jacobian is None else f", Jacobian {self.jacobian}"
        text = f"value {self.value}{jacobian}, Hessian {self.hessian}, outer {self.outer}"
        if self.reuse is not Reuse.NONE:
            text += f", {self.reuse.value}"
        if self.correction:
            text += f", sampling corrected by {self.correction:g}"
        return f"meta-gradient ({text})"

    def estimates(
        self,
        meta_parameters: npt.ArrayLike,
        theta: npt.ArrayLike | None = None,
        *,
        replications: int,
        rng: np.random.Generator,
    ) -> FloatArray:
        """``replications`` independent estimates of the gradient of the outer return in the
        meta-parameters phi, ``[R, *phi]``; theta is where the inner loop starts (MAML: at phi).

        Raises:
            ValueError: parameters that do not fit, or inner steps that diverge.
        """
        count = whole_number("replications", replications, at_least=1)
        return self.mean_over(Sampling(self.loop, rng), meta_parameters, theta, count)

    def mean_over(
        self,
        source: Source,
        meta_parameters: npt.ArrayLike,
        theta: npt.ArrayLike | None,
        replications: int = 1,
    ) -> FloatArray:
        """The estimates' means over what ``source`` answers, ``[R, *phi]``. Raises ValueError as
        `estimates`.
        """
        phi, here = self.loop.start(meta_parameters, theta)
        several = np.array(np.broadcast_to(here, (replications, *here.shape)))
        found = Pass(self, source, phi).from_step(0, several, None)
        return found.meta + found.cotangent if self.loop.starts_at_meta else found.meta


@dataclass(frozen=True, eq=False)
class Sampling:
    """Answers each draw with one batch."""

    loop: Loop
    rng: np.random.Generator

    def draw(self, log_policy: FloatArray, n: int) -> tuple[Trajectories, FloatArray]:
        """See `Source`."""
        count = len(log_policy)
        shape, problem = (count, n), self.loop.problem
        batch = draw_trajectories(problem, log_policy, shape, self.loop.steps, self.rng)
        return batch, np.ones((count, 1))


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
        return Back(*(averaged(part, weights) for part in (self.cotangent, self.meta, self.value)))


def averaged(parts: FloatArray, weights: FloatArray) -> FloatArray:
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
        back, arriving = back.mean(weights), averaged(child.cotangent, weights)
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
        batch, weights = self.draw(theta, slot.n)
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
        if not np.abs(after).max(initial=0.0) <= LARGEST_PARAMETER:
            raise ValueError(
                f"step_size: expected parameters that stay below {LARGEST_PARAMETER:g}, got larger "
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
        batch, weights = self.draw(theta, slot.n if n is None else n)
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
        loop, slot = self.asked.loop, derivative.slot
        if batch is None or isinstance(slot, Given):
            exact = _exact_step(slot, self.phi, theta).pull_back(cotangent)
            found = exact.meta() if derivative.in_meta else exact.state()
        else:
            estimate = loop.inner(slot.surrogate, self.phi, theta, batch).pull_back(cotangent)
            found = loop.pulled_to_meta(estimate) if derivative.in_meta else estimate.own
        moved = self.asked.step_size * found
        if derivative.in_meta:
            return np.zeros_like(theta), moved
        return moved, np.zeros((len(theta), *self.phi.shape))

    def _drawn_and_pulled(
        self, derivative: Derivative, theta: FloatArray, cotangent: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """`pulled` through batches of the slot's own, averaged over them."""
        slot = derivative.slot
        if isinstance(slot, Given):
            return self.pulled(derivative, theta, None, cotangent)
        batch, weights = self.draw(theta, slot.n)
        here, arriving = (np.repeat(part, weights.shape[1], axis=0) for part in (theta, cotangent))
        for_lambda, for_phi = self.pulled(derivative, here, batch, arriving)
        return averaged(for_lambda, weights), averaged(for_phi, weights)


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
