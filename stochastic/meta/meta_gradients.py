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

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, real_number, whole_number
from gradbias.stochastic.meta.backward_pass import Pass, probe_slots
from gradbias.stochastic.meta.inner_loops import Loop
from gradbias.stochastic.meta.slots import (
    FirstOrder,
    Given,
    Reuse,
    Sampled,
    Sampling,
    Slot,
    Source,
)

LONGEST_LOOP = 200


@dataclass(frozen=True, eq=False)
class MetaGradient:
    """The estimator of a K-step meta-gradient; its slots are `Sampled`, or `Given` exact values.

    ``jacobian`` is left out where theta^0 is phi. `Reuse` shares batches between slots, as practice
    does; ``correction`` times (return after the steps) times (score of the batches that were
    drawn) is added, which makes up for their law's dependence on the parameters: 1 is E-MAML, whose
    mean, with `AD` of the drawn batch as Hessian, is the sampled-step objective's gradient.

    Raises:
        ValueError: a loop, slot, step count, step size, reuse or correction that does not fit.
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
        self._check_kinds()
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

    def _check_kinds(self) -> None:
        if not hasattr(self.loop, "starts_at_meta"):
            kind = type(self.loop).__name__
            raise ValueError(f"loop: expected a SampledLoop or SampledGame, got a {kind}")
        slots = {"value": self.value, "outer": self.outer}
        if not isinstance(self.hessian, FirstOrder):
            slots["hessian"] = self.hessian
        if self.jacobian is not None:
            slots["jacobian"] = self.jacobian
        for name, slot in slots.items():
            if not isinstance(slot, Sampled | Given):
                raise ValueError(f"{name}: expected Sampled(...) or Given(...), got {slot!r}")
        if not isinstance(self.reuse, Reuse):
            raise ValueError(f"reuse: expected a member of Reuse, got {self.reuse!r}")

    def _same_batch(self, slot: Sampled) -> bool:
        return isinstance(self.value, Sampled) and self.value.batch_size == slot.batch_size

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
        if not isinstance(rng, np.random.Generator):
            raise ValueError(f"rng: expected a numpy Generator, got a {type(rng).__name__}")
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
        probe_slots(self, phi, here)
        several = np.array(np.broadcast_to(here, (replications, *here.shape)))
        found = Pass(self, source, phi).from_step(0, several, None)
        return found.meta + found.cotangent if self.loop.starts_at_meta else found.meta
