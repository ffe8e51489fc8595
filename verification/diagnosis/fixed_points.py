"""How far apart two update rules end: a field followed to rest, and the gradient of the return.

Left alone, a softmax policy goes on to where its logits are infinite. So both are followed with
weight decay, ``u(theta) - decay theta``: the gradient then climbs ``J - decay |theta|^2 / 2`` and
comes to rest.
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
"""theta -> an update, shaped like theta."""

CLIMBED, ROUNDS = 60, 6
"""Steps of plain ascent, before the point where the field vanishes is solved for; and how often
that is tried, each time from farther on.
"""

_AT_REST = 1e-8
_FARTHEST = 1e3


@dataclass(frozen=True, eq=False)
class Rest:
    """Where a field with weight decay comes to rest: ``residual`` is its norm there, over that at
    the start; ``settled`` says that it is 0 to rounding.
    """

    theta: FloatArray
    residual: float

    @property
    def settled(self) -> bool:
        """See above."""
        return self.residual <= _AT_REST


@dataclass(frozen=True, eq=False)
class Displacement:
    """The two points of rest: ``policy_distance`` is the largest total variation of a state's
    action probabilities, ``return_lost`` what the field's point earns less (below 0 where the
    decay holds it back less), ``objective_lost`` the same with the decay's penalty in it, which is
    what the gradient climbs.
    """

    decay: float
    field: Rest
    gradient: Rest
    policy_distance: float
    return_lost: float
    objective_lost: float

    @property
    def settled(self) -> bool:
        """Whether both came to rest."""
        return self.field.settled and self.gradient.settled

    def __str__(self) -> str:
        if not self.settled:
            worst = max(self.field.residual, self.gradient.residual)
            return f"not found: no rest with weight decay {self.decay:g} (residual {worst:.3g})"
        return (
            f"policies {self.policy_distance:.3g} apart in total variation, return lost "
            f"{self.return_lost:.3g} (with weight decay {self.decay:.3g} in both)"
        )


def displacement(
    field: Field, quantities: ExactQuantities, decay: float, steepness: float
) -> Displacement:
    """The stationary points of both fields, followed from the setting's theta; ``steepness`` bounds
    how fast the fields change.
    """
    mdp, policy = quantities.mdp, quantities.at.policy

    def climbing(theta: FloatArray) -> FloatArray:
        return gradient(mdp, theta, policy=policy)

    own = at_rest(field, quantities.at.theta, decay, steepness)
    climbed = at_rest(climbing, quantities.at.theta, decay, steepness)
    rests = (own, climbed)
    policies = [softmax(policy.logits(rest.theta)) for rest in rests]
    returns = [float(expected_return(mdp, rest.theta, policy=policy)) for rest in rests]
    penalties = [decay * float((rest.theta**2).sum()) / 2 for rest in rests]
    return Displacement(
        decay,
        own,
        climbed,
        float(np.abs(policies[0] - policies[1]).sum(axis=1).max()) / 2,
        returns[1] - returns[0],
        returns[1] - penalties[1] - returns[0] + penalties[0],
    )


def at_rest(field: Field, start: FloatArray, decay: float, steepness: float) -> Rest:
    """Ascent along ``field(theta) - decay theta``, and a root finder from where that has led."""
    from scipy.optimize import root

    def decayed(flat: FloatArray) -> FloatArray:
        theta = flat.reshape(start.shape)
        found: FloatArray = (field(theta) - decay * theta).ravel()
        return found

    first = np.array(start, dtype=np.float64).ravel()
    here, step = first, 1.0 / (steepness + decay)
    size = float(np.linalg.norm(decayed(first))) or 1.0
    ends: dict[float, FloatArray] = {}
    for _ in range(ROUNDS):
        for _ in range(CLIMBED):
            if np.abs(here).max() > _FARTHEST:
                break  # as good as infinite, for logits
            here = here + step * decayed(here)
        solved = root(decayed, here, method="hybr", options={"xtol": 1e-13})
        ends |= {float(np.linalg.norm(decayed(one))): one for one in (here, solved.x)}
        if min(ends) <= _AT_REST * size:
            break
    smallest = min(ends)
    return Rest(ends[smallest].reshape(start.shape), smallest / size)
