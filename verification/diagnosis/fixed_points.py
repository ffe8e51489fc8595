"""The stationary points of an update field and of the policy gradient, both with weight decay, and
the distance between the two policies.

Without weight decay the logits of a softmax policy grow without bound. With it, ``u(theta) - decay
theta``, the gradient climbs ``J - decay |theta|^2 / 2``, which has a maximum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.returns.derivatives import gradient
from gradbias.analytic.returns.evaluation import expected_return
from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.diagnosis.known_errors import ExactQuantities

Field = Callable[[FloatArray], FloatArray]
"""A function from theta to an update, shaped like theta."""

ASCENT_STEPS, ROUNDS = 60, 6
"""The number of steps of plain ascent before the root finder is called, and the number of rounds of
both, each from where the ascent has led."""

_STATIONARY = 1e-8
_MAX_LOGIT = 1e3


@dataclass(frozen=True, eq=False)
class StationaryPoint:
    """A point ``theta`` where a field with weight decay vanishes, or nearly: ``residual`` is the
    field's norm there divided by that at the start.
    """

    theta: FloatArray
    residual: float

    @property
    def settled(self) -> bool:
        """Whether the field is 0 there, to rounding."""
        return self.residual <= _STATIONARY


@dataclass(frozen=True, eq=False)
class Displacement:
    """How far the stationary points of a field and of the gradient lie apart.

    Attributes:
        decay: the weight decay.
        field, gradient: the two stationary points.
        policy_distance: the largest total variation distance of a state's action probabilities.
        return_lost: the return at the gradient's point minus that at the field's (below 0 where
            the decay restrains the field less).
        objective_lost: the same difference of the penalised return, which the gradient climbs.
    """

    decay: float
    field: StationaryPoint
    gradient: StationaryPoint
    policy_distance: float
    return_lost: float
    objective_lost: float

    @property
    def settled(self) -> bool:
        """Whether both points were found."""
        return self.field.settled and self.gradient.settled

    def __str__(self) -> str:
        if not self.settled:
            worst = max(self.field.residual, self.gradient.residual)
            return (
                f"no stationary point found with weight decay {self.decay:g} (residual {worst:.3g})"
            )
        return (
            f"policies {self.policy_distance:.3g} apart in total variation, return lost "
            f"{self.return_lost:.3g} (with weight decay {self.decay:.3g} in both)"
        )


def displacement(
    field: Field, quantities: ExactQuantities, decay: float, steepness: float
) -> Displacement:
    """The stationary points of the field and of the gradient, both followed from the setting's
    theta; ``steepness`` bounds their Lipschitz constants.
    """
    mdp, policy = quantities.mdp, quantities.at.policy

    def climbing(theta: FloatArray) -> FloatArray:
        return gradient(mdp, theta, policy=policy)

    of_field = stationary_point(field, quantities.at.theta, decay, steepness)
    of_gradient = stationary_point(climbing, quantities.at.theta, decay, steepness)
    points = (of_field, of_gradient)
    policies = [softmax(policy.logits(point.theta)) for point in points]
    returns = [float(expected_return(mdp, point.theta, policy=policy)) for point in points]
    penalties = [decay * float((point.theta**2).sum()) / 2 for point in points]
    return Displacement(
        decay,
        of_field,
        of_gradient,
        float(np.abs(policies[0] - policies[1]).sum(axis=1).max()) / 2,
        returns[1] - returns[0],
        returns[1] - penalties[1] - returns[0] + penalties[0],
    )


def stationary_point(
    field: Field, start: FloatArray, decay: float, steepness: float
) -> StationaryPoint:
    """The stationary point of ``field(theta) - decay theta``, by ascent and a root finder."""
    from scipy.optimize import root

    def decayed(flat: FloatArray) -> FloatArray:
        theta = flat.reshape(start.shape)
        update: FloatArray = (field(theta) - decay * theta).ravel()
        return update

    first = np.array(start, dtype=np.float64).ravel()
    here, step = first, 1.0 / (steepness + decay)
    size = float(np.linalg.norm(decayed(first))) or 1.0
    ends: dict[float, FloatArray] = {}
    for _ in range(ROUNDS):
        for _ in range(ASCENT_STEPS):
            if np.abs(here).max() > _MAX_LOGIT:
                break  # such logits are as good as infinite
            here = here + step * decayed(here)
        solved = root(decayed, here, method="hybr", options={"xtol": 1e-13})
        ends |= {float(np.linalg.norm(decayed(end))): end for end in (here, solved.x)}
        if min(ends) <= _STATIONARY * size:
            break
    smallest = min(ends)
    return StationaryPoint(ends[smallest].reshape(start.shape), smallest / size)
