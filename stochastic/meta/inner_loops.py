"""What a sampled inner loop draws, and how its surrogates depend on the meta-parameters phi.

theta are the parameters that the inner steps change. In a decision problem phi is theta^0, where
they start (MAML), or what the inner surrogate reads as ``record.meta["phi"]``: an intrinsic reward
(LIRPG), a discount and lambda (MGRL), or anything that a user's surrogate depends on. In a game phi
are the parameters of the player who looks ahead (LOLA).

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.at_parameters import PolicyAt, policy_at
from gradbias.analytic.policies.softmax import TABULAR, Policy, log_softmax
from gradbias.analytic.problems.critics import check_ends, critic_rows
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray, frozen_array, required_theta
from gradbias.stochastic.derivatives.jacobian_products import (
    PlayerState,
    PulledEstimate,
    SurrogateBatch,
)
from gradbias.stochastic.rollouts.records import Surrogate
from gradbias.stochastic.rollouts.trajectories import Trajectories, trajectory_length
from gradbias.stochastic.surrogates.meta_losses import PHI

Critic = FloatArray | Callable[[FloatArray], FloatArray] | None
"""Values ``[S]`` or ``[H + 1, S]``, or a function of theta ``[B, *shape]`` that gives
``[B, H + 1, S]``."""


class Loop(Protocol):
    """The problem that a meta-gradient's inner steps are taken in, as estimators see it.

    MAML, LIRPG, MGRL and LOLA differ in what is drawn and in what depends on phi, but not in how a
    gradient goes back through the steps. A loop answers the first two questions, so that
    `MetaGradient` is written once; a problem of your own needs only this class. Throughout, phi are
    the meta-parameters, ``theta [B, *shape]`` are B parameters, and ``batch [B, N, H]`` are the
    trajectories drawn at them.
    """

    @property
    def starts_at_meta(self) -> bool:
        """Whether theta^0 is phi; otherwise theta^0 does not depend on phi."""
        ...

    @property
    def problem(self) -> TabularMDP:
        """The decision problem that trajectories are drawn from."""
        ...

    @property
    def steps(self) -> int:
        """The length H of a trajectory."""
        ...

    def start(
        self, meta_parameters: npt.ArrayLike, theta: npt.ArrayLike | None
    ) -> tuple[FloatArray, FloatArray]:
        """The pair (phi, theta^0), checked and read-only. Raises ValueError if they do not fit."""
        ...

    def log_policy(self, phi: FloatArray, theta: FloatArray) -> FloatArray:
        """The log-probabilities ``[B, S, A]`` that trajectories of `problem` are drawn with."""
        ...

    def read(self, drawn: Trajectories, phi: FloatArray, theta: FloatArray) -> Trajectories:
        """The batch that estimators see, from trajectories ``[B, N, H]`` of `problem`."""
        ...

    def inner(
        self, surrogate: Surrogate, phi: FloatArray, theta: FloatArray, batch: Trajectories
    ) -> SurrogateBatch:
        """The inner surrogate on a batch, as a function of theta: its gradient is the update."""
        ...

    def outer(
        self, surrogate: Surrogate, phi: FloatArray, theta: FloatArray, batch: Trajectories
    ) -> SurrogateBatch:
        """The outer surrogate on a batch; its gradients are those of the outer return."""
        ...

    def pulled_to_meta(self, pulled: PulledEstimate) -> FloatArray:
        """The part in phi, ``[B, *phi]``, of an inner estimate's vector-Jacobian product."""
        ...

    def inner_in_meta(self, estimate: SurrogateBatch) -> FloatArray:
        """The gradient of an inner surrogate in phi, ``[B, *phi]``."""
        ...

    def outer_gradients(self, estimate: SurrogateBatch) -> tuple[FloatArray, FloatArray]:
        """The gradients of an outer surrogate in theta ``[B, *shape]`` and in phi ``[B, *phi]``."""
        ...


@dataclass(frozen=True, eq=False)
class SampledLoop:
    """An inner loop in a decision problem.

    An outer surrogate that reads phi must have the outer return as its value, as DiCE has (AD and
    Loaded-DiCE have not: only their derivatives in the policy are the return's).

    Attributes:
        mdp: the problem.
        starts_at_meta: True is MAML: phi is theta^0. Otherwise phi has any shape, and surrogates
            read it as ``record.meta["phi"]``.
        policy: maps theta to logits (default: the tabular softmax).
        critic: values that every surrogate sees, 0 at terminal states: ``[S]``, ``[H + 1, S]``, or
            a function of ``theta [B, *shape]`` that gives ``[B, H + 1, S]`` (default: zeros).
        length: the length of trajectories, for an infinite horizon alone.

    Raises:
        ValueError: no TabularMDP, a critic that does not fit; a length that is missing, or given
            with a finite horizon.
    """

    mdp: TabularMDP
    starts_at_meta: bool = False
    policy: Policy = TABULAR
    critic: Critic = None
    length: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.mdp, TabularMDP):
            raise ValueError(f"mdp: expected a TabularMDP, got a {type(self.mdp).__name__}")
        trajectory_length(self.mdp, self.length)
        if not callable(self.critic):
            checked = checked_critic("critic", self.critic, self.mdp, self.steps)
            object.__setattr__(self, "critic", checked)

    @property
    def problem(self) -> TabularMDP:
        """The decision problem that trajectories are drawn from."""
        return self.mdp

    @property
    def steps(self) -> int:
        """The length H of a trajectory."""
        return trajectory_length(self.mdp, self.length)

    def start(
        self, meta_parameters: npt.ArrayLike, theta: npt.ArrayLike | None
    ) -> tuple[FloatArray, FloatArray]:
        """The pair (phi, theta^0), checked; for MAML theta may be None, which stands for phi."""
        phi = frozen_array("meta_parameters", meta_parameters)
        if self.starts_at_meta and theta is None:
            theta = phi
        at = self._at(required_theta(theta))
        if at.theta.shape != at.shape:
            raise ValueError(f"theta: expected shape {at.shape}, got {at.theta.shape}")
        if self.starts_at_meta and not np.array_equal(at.theta, phi):
            raise ValueError(
                "theta: expected None or the meta-parameters, which the inner loop starts from"
            )
        return phi, at.theta

    def log_policy(self, phi: FloatArray, theta: FloatArray) -> FloatArray:
        """The log-probabilities ``[B, S, A]`` of the policies with ``theta [B, *shape]``."""
        return log_softmax(self._at(theta).logits)

    def read(self, drawn: Trajectories, phi: FloatArray, theta: FloatArray) -> Trajectories:
        """The trajectories as they were drawn: estimators see the problem itself."""
        return drawn

    def inner(
        self, surrogate: Surrogate, phi: FloatArray, theta: FloatArray, batch: Trajectories
    ) -> SurrogateBatch:
        """The surrogate on ``batch [B, N, H]``, as a function of ``theta [B, *shape]`` and phi."""
        critic = self._values(theta)
        meta = {} if self.starts_at_meta else {PHI: phi}
        player = PlayerState(self._at(theta), critic)
        return SurrogateBatch(surrogate, batch, player, self.mdp.discount, meta=meta)

    outer = inner

    def pulled_to_meta(self, pulled: PulledEstimate) -> FloatArray:
        """The part in phi, ``[B, *phi]``, of an inner estimate's vector-Jacobian product."""
        return pulled.meta[PHI]

    def inner_in_meta(self, estimate: SurrogateBatch) -> FloatArray:
        """The gradient of an inner surrogate in phi, ``[B, *phi]``."""
        return estimate.meta_gradient(PHI)

    def outer_gradients(self, estimate: SurrogateBatch) -> tuple[FloatArray, FloatArray]:
        """The gradients of an outer surrogate in theta ``[B, *shape]`` and in phi ``[B, *phi]``."""
        gradient = estimate.gradient()
        if self.starts_at_meta:
            return gradient, np.zeros_like(gradient)
        return gradient, estimate.meta_gradient(PHI)

    def _at(self, theta: npt.ArrayLike) -> PolicyAt:
        return policy_at(self.policy, theta, self.mdp.n_states, self.mdp.n_actions)

    def _values(self, theta: FloatArray) -> FloatArray | None:
        if not callable(self.critic):
            return self.critic
        values = frozen_array("critic: its values", self.critic(theta))
        wanted = (len(theta), self.steps + 1, self.mdp.n_states)
        if values.shape != wanted:
            raise ValueError(f"critic: expected values of shape {wanted}, got {values.shape}")
        check_ends(values.reshape(-1, self.mdp.n_states), self.mdp.terminal)
        return values


def checked_critic(
    name: str, critic: FloatArray | None, problem: TabularMDP, steps: int
) -> FloatArray | None:
    """The critic as ``[H + 1, S]``, or None. Raises ValueError where it does not fit."""
    if critic is None:
        return None
    rows = critic_rows(frozen_array(name, critic), steps, problem.n_states)
    check_ends(rows, problem.terminal)
    return rows
