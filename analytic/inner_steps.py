"""Inner updates at one point, with the products that an adjoint recursion needs.

Each update g(phi, theta) is linearised where it is taken: ``dg/dtheta`` times a vector, and the
transposes of ``dg/dtheta`` and ``dg/dphi`` times a cotangent. No Jacobian is formed; all products
at one point share the factorisation of its Bellman equations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from analytic.arrays import FloatArray
from analytic.derivatives import logit_gradient, summed_over_time
from analytic.expansions import Expansion
from analytic.game_derivatives import GameAt, GameTangent
from analytic.lambda_returns import LambdaUpdate
from analytic.logits import PolicyAt
from analytic.values import Evaluation


class PulledBack(Protocol):
    """A cotangent of the inner update, carried back; each part computed when asked for."""

    @property
    def state(self) -> FloatArray:
        """``(dg/dtheta)^T cotangent``, shaped like theta."""
        ...

    @property
    def meta(self) -> FloatArray | None:
        """``(dg/dphi)^T cotangent``, shaped like phi; None where g does not depend on phi."""
        ...


class InnerStep(Protocol):
    """The inner update g at one (phi, theta), linearised; no Jacobian is formed."""

    @property
    def update(self) -> FloatArray:
        """The update g, shaped like theta."""
        ...

    def jvp(self, v: FloatArray) -> FloatArray:
        """``(dg/dtheta) v``, shaped like theta."""
        ...

    def pull_back(self, cotangent: FloatArray) -> PulledBack:
        """``cotangent`` (shaped like theta) carried back to theta and to phi."""
        ...


@dataclass(frozen=True, eq=False)
class ReturnStep:
    """A step up a return; ``intrinsic`` where phi is a reward that is added."""

    exact: Evaluation
    at: PolicyAt
    intrinsic: bool = False

    @cached_property
    def update(self) -> FloatArray:
        """The gradient."""
        return self.at.pulled(logit_gradient(self.exact))

    def jvp(self, v: FloatArray) -> FloatArray:
        """The Hessian, which is symmetric, times v."""
        return self.pull_back(v).state

    def pull_back(self, cotangent: FloatArray) -> PulledBack:
        """Along the cotangent."""
        return ReturnTangent(self, cotangent)


@dataclass(frozen=True, eq=False)
class ReturnTangent:
    """How a return's gradient and visits move along a direction."""

    step: ReturnStep
    direction: FloatArray

    @cached_property
    def _moved(self) -> Expansion:
        return Expansion(self.step.exact, self.step.at.jet([self.direction]))

    @property
    def state(self) -> FloatArray:
        """The Hessian-vector product."""
        return self.step.at.pulled_jet(self._moved.gradient, [self.direction])

    @property
    def meta(self) -> FloatArray | None:
        """The change of the state-action occupancy."""
        return summed_over_time(self._moved.visits[1]) if self.step.intrinsic else None


@dataclass(frozen=True, eq=False)
class OpponentStep:
    """The opponent's step up its own return."""

    at: GameAt
    opponent: int

    @cached_property
    def update(self) -> FloatArray:
        """The opponent's gradient."""
        return self.at.gradient(of=self.opponent, wrt=self.opponent)

    def jvp(self, v: FloatArray) -> FloatArray:
        """The opponent's Hessian, which is symmetric, times v."""
        return self.pull_back(v).state

    def pull_back(self, cotangent: FloatArray) -> PulledBack:
        """Along the cotangent."""
        tangent = self.at.tangent(of=self.opponent, along=self.opponent, v=cotangent)
        return OpponentTangent(tangent, self.opponent)


@dataclass(frozen=True, eq=False)
class OpponentTangent:
    """How the gradients of the opponent's return move with its parameters."""

    tangent: GameTangent
    opponent: int

    @property
    def state(self) -> FloatArray:
        """The opponent's Hessian-vector product."""
        return self.tangent.gradient(self.opponent)

    @property
    def meta(self) -> FloatArray | None:
        """The product with the derivative across players."""
        return self.tangent.gradient(3 - self.opponent)


@dataclass(frozen=True, eq=False)
class LambdaStep:
    """A step along the lambda-return update."""

    linear: LambdaUpdate

    @property
    def update(self) -> FloatArray:
        """The expected update."""
        return self.linear.update

    def jvp(self, v: FloatArray) -> FloatArray:
        """The Jacobian times v."""
        return self.linear.jvp(v)

    def pull_back(self, cotangent: FloatArray) -> PulledBack:
        """By the Jacobian's transpose."""
        return LambdaPulledBack(self.linear, cotangent)


@dataclass(frozen=True, eq=False)
class LambdaPulledBack:
    """A cotangent of the lambda-return update, carried back."""

    linear: LambdaUpdate
    cotangent: FloatArray

    @property
    def state(self) -> FloatArray:
        """By the Jacobian's transpose."""
        return self.linear.vjp(self.cotangent)

    @property
    def meta(self) -> FloatArray | None:
        """Its products with the update's derivatives in discount and lambda ``[..., 2]``."""
        axes = tuple(range(-len(self.linear.at.shape), 0))
        moved = (self.linear.discount_derivative, self.linear.trace_decay_derivative)
        return np.stack([(self.cotangent * part).sum(axis=axes) for part in moved], axis=-1)
