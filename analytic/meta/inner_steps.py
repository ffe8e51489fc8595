"""Inner updates at one point, with the products that an adjoint recursion needs.

Each update g(phi, theta) is linearised where it is taken: ``dg/dtheta`` times a vector, and the
transposes of ``dg/dtheta`` and ``dg/dphi`` times a cotangent. No Jacobian is formed; all products
at one point share the factorisation of its Bellman equations.
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
    """A cotangent of the inner update carried back, each part computed when it is called.

    ``state()`` is ``(dg/dtheta)^T cotangent``, shaped like theta; ``meta()`` is ``(dg/dphi)^T
    cotangent``, shaped like phi, and None where g does not depend on phi.
    """

    state: Callable[[], FloatArray]
    meta: Callable[[], FloatArray] | None = None


class InnerStep(Protocol):
    """The inner update g at one (phi, theta), linearised; no Jacobian is formed."""

    @property
    def update(self) -> FloatArray:
        """The update g, shaped like theta."""

    def jvp(self, v: FloatArray) -> FloatArray:
        """``(dg/dtheta) v``, shaped like theta."""

    def pull_back(self, cotangent: FloatArray) -> PulledBack:
        """``cotangent`` (shaped like theta) carried back to theta and to phi."""


@dataclass(frozen=True, eq=False)
class ReturnStep:
    """A step up a return; ``intrinsic [..., S]`` says in which states phi is a reward that is added
    (None: phi is none).
    """

    exact: Evaluation
    at: PolicyAt
    intrinsic: BoolArray | None = None

    @cached_property
    def update(self) -> FloatArray:
        """The gradient."""
        return self.at.vjp(logit_gradient(self.exact))

    def jvp(self, v: FloatArray) -> FloatArray:
        """The Hessian, which is symmetric, times v."""
        return self.pull_back(v).state()

    def pull_back(self, cotangent: FloatArray) -> PulledBack:
        """The Hessian-vector product, and the change of the state-action occupancy."""
        moved = Expansion(self.exact, self.at.jet([cotangent]))
        return PulledBack(
            state=lambda: self.at.vjp_jet(moved.gradient, [cotangent]),
            meta=None if self.intrinsic is None else lambda: self._visits(moved),
        )

    def _visits(self, moved: Expansion) -> FloatArray:
        """How the occupancy of the states that phi is paid in changes."""
        visits = required(moved.visits[1]).sum(axis=-3)
        share = 1.0 if self.intrinsic is None else self.intrinsic[..., None]
        found: FloatArray = visits * share
        return found


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
    """A step along the lambda-return update; phi are its discount and lambda."""

    linear: LambdaUpdate

    @property
    def update(self) -> FloatArray:
        """The expected update."""
        return self.linear.update

    def jvp(self, v: FloatArray) -> FloatArray:
        """The Jacobian times v."""
        return self.linear.jvp(v)

    def pull_back(self, cotangent: FloatArray) -> PulledBack:
        """The Jacobian's transpose, and the derivatives in discount and lambda ``[..., 2]``."""
        return PulledBack(
            state=lambda: self.linear.vjp(cotangent), meta=lambda: self._meta(cotangent)
        )

    def _meta(self, cotangent: FloatArray) -> FloatArray:
        axes = tuple(range(-len(self.linear.at.shape), 0))
        moved = (self.linear.discount_derivative, self.linear.lambda_derivative)
        return np.stack([(cotangent * part).sum(axis=axes) for part in moved], axis=-1)
