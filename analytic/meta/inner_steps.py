"""Inner updates at one point, linearised for the adjoint recursion.

Each update g(phi, theta) gives products of ``dg/dtheta`` with a vector, and of the transposes of
``dg/dtheta`` and ``dg/dphi`` with a cotangent. No Jacobian is formed; all products at one point
share the factorisation of its Bellman equations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from gradbias.analytic.policies.at_parameters import PolicyAt
from gradbias.analytic.policies.jets import required
from gradbias.analytic.returns.derivatives import logit_gradient
from gradbias.analytic.returns.evaluation import Evaluation
from gradbias.analytic.returns.game_derivatives import GameAt
from gradbias.analytic.returns.lambda_returns import LambdaUpdate
from gradbias.analytic.returns.value_jets import Expansion
from gradbias.analytic.utils.validation import BoolArray, FloatArray


@dataclass(frozen=True, eq=False)
class PulledBack:
    """The vector-Jacobian products of an inner update g, each computed when it is called.

    Attributes:
        state: ``state()`` is ``(dg/dtheta)^T cotangent``, shaped like theta.
        meta: ``meta()`` is ``(dg/dphi)^T cotangent``, shaped like phi (None: g does not depend on
            phi).
    """

    state: Callable[[], FloatArray]
    meta: Callable[[], FloatArray] | None = None


class InnerStep(Protocol):
    """The inner update g at one (phi, theta), linearised.

    The adjoint recursion needs g's transposed Jacobians times a cotangent, never the matrices. A
    lazy pair (`PulledBack`) lets it skip the product with theta at the first step, where theta^0
    does not depend on phi; `jvp` is for forward recursions and for checks against the transpose.
    """

    @property
    def update(self) -> FloatArray:
        """The update g, shaped like theta."""

    def jvp(self, v: FloatArray) -> FloatArray:
        """``(dg/dtheta) v``, shaped like theta."""

    def pull_back(self, cotangent: FloatArray) -> PulledBack:
        """The vector-Jacobian products of ``cotangent`` (shaped like theta) with both Jacobians."""


@dataclass(frozen=True, eq=False)
class ReturnStep:
    """A step along the gradient of a return."""

    exact: Evaluation
    at: PolicyAt
    intrinsic: BoolArray | None = None  # where phi is added to the reward, [..., S]

    @cached_property
    def update(self) -> FloatArray:
        """The return's gradient, shaped like theta."""
        return self.at.vjp(logit_gradient(self.exact))

    def jvp(self, v: FloatArray) -> FloatArray:
        """The Hessian, which is symmetric, times v."""
        return self.pull_back(v).state()

    def pull_back(self, cotangent: FloatArray) -> PulledBack:
        """The Hessian-vector product, and the derivative of the state-action occupancy."""
        tangent = Expansion(self.exact, self.at.jet([cotangent]))
        return PulledBack(
            state=lambda: self.at.vjp_jet(tangent.gradient, [cotangent]),
            meta=None if self.intrinsic is None else lambda: self._visits(tangent),
        )

    def _visits(self, tangent: Expansion) -> FloatArray:
        """The occupancy's derivative, in the states in which phi is added to the reward."""
        where = 1.0 if self.intrinsic is None else self.intrinsic[..., None]
        return np.asarray(required(tangent.visits[1]).sum(axis=-3) * where)


@dataclass(frozen=True, eq=False)
class OpponentStep:
    """The opponent's step along the gradient of its return."""

    at: GameAt
    opponent: int

    @cached_property
    def update(self) -> FloatArray:
        """The opponent's gradient, shaped like its parameters."""
        return self.at.gradient(of=self.opponent, wrt=self.opponent)

    def jvp(self, v: FloatArray) -> FloatArray:
        """The opponent's Hessian, which is symmetric, times v."""
        return self.pull_back(v).state()

    def pull_back(self, cotangent: FloatArray) -> PulledBack:
        """The opponent's Hessian-vector product, and the derivative across players."""
        tangent = self.at.tangent(of=self.opponent, along=self.opponent, v=cotangent)
        return PulledBack(
            state=lambda: tangent.gradient(self.opponent),
            meta=lambda: tangent.gradient(3 - self.opponent),
        )


@dataclass(frozen=True, eq=False)
class LambdaStep:
    """A step along the expected lambda-return update; phi are its discount and lambda."""

    linear: LambdaUpdate

    @property
    def update(self) -> FloatArray:
        """The expected update, shaped like theta."""
        return self.linear.update

    def jvp(self, v: FloatArray) -> FloatArray:
        """The update's Jacobian times v."""
        return self.linear.jvp(v)

    def pull_back(self, cotangent: FloatArray) -> PulledBack:
        """The transposed Jacobian's product, and the derivatives in (discount, lambda)."""
        return PulledBack(
            state=lambda: self.linear.vjp(cotangent), meta=lambda: self._meta(cotangent)
        )

    def _meta(self, cotangent: FloatArray) -> FloatArray:
        axes = tuple(range(-len(self.linear.at.shape), 0))
        derivatives = (self.linear.discount_derivative, self.linear.lambda_derivative)
        return np.stack([(cotangent * part).sum(axis=axes) for part in derivatives], axis=-1)
