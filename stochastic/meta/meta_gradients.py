"""K-step meta-gradients from samples: each step has four sample sets, sampled or exact.

With parameters theta, meta-parameters phi and step size alpha, an inner step is
``theta + alpha g(tau_0)``. Going back through the steps from ``lambda = dJ_out/dtheta (tau_3)``,

    out    += alpha (dg/dphi)^T(tau_1) lambda
    lambda += alpha (dg/dtheta)^T(tau_2) lambda.

So a step's value, Jacobian and Hessian come from separate sample sets tau_0, tau_1, tau_2, and each
slot has its own surrogate or the exact values of a problem. The result is the gradient of the
program in which each step takes its value from one estimate and its derivative from another.

Sampling and enumeration are the same recursion: a `Source` answers each draw with one batch, or
with every batch and its probability. Given the path of parameters, the output is linear in the
estimate from each other batch, so that its exact mean branches over the steps' values alone.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. (4) and appendix I.1.2; the
correction for sampling: E-MAML (Stadie et al. 2018; Al-Shedivat et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, choice, real_number, whole_number
from gradbias.stochastic.derivatives.known_surrogates import is_known
from gradbias.stochastic.meta.backward_pass import Pass
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

MAX_STEPS = 200
"""The most inner steps."""

_PROBED = 4
"""The number of batches that a slot's surrogate is tried on."""


@dataclass(frozen=True, eq=False)
class MetaGradient:
    """The estimator of a K-step meta-gradient.

    A slot is `Sampled` (a surrogate's derivative on a batch) or `Given` (exact values).

    Attributes:
        loop: the problem that the inner steps are taken in: `SampledLoop`, `SampledGame`, or any
            other `Loop`.
        steps: K, the number of inner steps, at most 200.
        step_size: alpha.
        value: the slot of an inner step's update.
        hessian: the slot of its derivative in theta; `FIRST_ORDER` leaves it out.
        outer: the slot of the outer gradients.
        jacobian: the slot of an inner step's derivative in phi; None where theta^0 is phi.
        reuse: which slots share a batch, as practice does (a `Reuse` or its value).
        correction: a factor in [0, 1] of (return after the steps) x (score of the drawn batches),
            which is added because the batches' distribution depends on the parameters. 1 is E-MAML:
            with `AD` of the drawn batch as Hessian, its mean is the gradient of the sampled-step
            objective.

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
    reuse: Reuse | str = Reuse.NONE
    correction: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "reuse", choice("reuse", self.reuse, Reuse))
        self._check_kinds()
        whole_number("steps", self.steps, at_least=1)
        if self.steps > MAX_STEPS:
            raise ValueError(f"steps: expected at most {MAX_STEPS}, got {self.steps}")
        real_number("step_size", self.step_size, low=-1e12, high=1e12)
        real_number("correction", self.correction, low=0.0, high=1.0)
        if (self.jacobian is None) != self.loop.starts_at_meta:
            wanted = "none where theta^0 is phi" if self.loop.starts_at_meta else "a slot"
            raise ValueError(f"jacobian: expected {wanted}, got {self.jacobian}")
        if self.correction and not isinstance(self.value, Sampled):
            raise ValueError("correction: expected a sampled value slot, got an exact one")
        shared: tuple[object, ...] = (self.hessian, self.jacobian)
        if self.reuse in (Reuse.NONE, Reuse.HESSIAN):
            shared = () if self.reuse is Reuse.NONE else (self.hessian,)
        for slot in shared:
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

    def _same_batch(self, slot: Sampled) -> bool:
        return isinstance(self.value, Sampled) and self.value.batch_size == slot.batch_size

    @property
    def name(self) -> str:
        """The name that reports use: the slots, and whatever is not at its default."""
        jacobian = "" if self.jacobian is None else f", Jacobian {self.jacobian}"
        text = f"value {self.value}{jacobian}, Hessian {self.hessian}, outer {self.outer}"
        if self.reuse is not Reuse.NONE:
            text += f", reuse: {Reuse(self.reuse).value}"
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
        """Independent estimates of the gradient of the outer return in the meta-parameters.

        Args:
            meta_parameters: phi.
            theta: where the inner loop starts; None for MAML, which starts at phi.
            replications: R, the number of estimates.
            rng: the generator of all draws.

        Returns:
            The estimates, ``[R, *phi]``.

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
        """The estimates' means over the batches of a source.

        Args:
            source: gives the batches of each draw: one, or all of them with their probabilities.
            meta_parameters: phi.
            theta: where the inner loop starts; None for MAML, which starts at phi.
            replications: R, the number of passes, each with separate batches.

        Returns:
            The means, ``[R, *phi]``.

        Raises:
            ValueError: as `estimates`.
        """
        phi, start = self.loop.start(meta_parameters, theta)
        probe_slots(self, phi, start)
        copies = np.array(np.broadcast_to(start, (replications, *start.shape)))
        back = Pass(self, source, phi).from_step(0, copies, None)
        return back.meta + back.cotangent if self.loop.starts_at_meta else back.meta


def probe_slots(estimator: MetaGradient, phi: FloatArray, theta: FloatArray) -> None:
    """Checks each sampled slot's surrogate once, on a few batches that are drawn for it.

    Raises:
        SurrogateError: as `stochastic.derivatives.coefficients.probe`.
    """
    loop = estimator.loop
    slots = [(estimator.outer, loop.outer)]
    slots += [(slot, loop.inner) for slot in (estimator.value, estimator.jacobian) if slot]
    if not isinstance(estimator.hessian, FirstOrder):
        slots.append((estimator.hessian, loop.inner))
    copies = np.array(np.broadcast_to(theta, (_PROBED, *theta.shape)))
    for slot, estimate in slots:
        if isinstance(slot, Given) or is_known(slot.surrogate):
            continue
        source = Sampling(loop, np.random.default_rng(0))
        drawn, _ = source.draw(loop.log_policy(phi, copies), slot.batch_size)
        estimate(slot.surrogate, phi, copies, loop.read(drawn, phi, copies)).probe()
