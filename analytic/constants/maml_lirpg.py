"""The constants of a MAML or LIRPG loop, whose inner steps ascend a return: for all theta, or on a
ball around theta^0.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumptions 4.1-4.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradbias.analytic.constants.at_point import Point, variance_slope
from gradbias.analytic.constants.returns import (
    gradient_deviation,
    hessian_constants,
    largest_estimate,
    mixed_constants,
    mixed_deviation,
    return_constants,
)
from gradbias.analytic.meta.compositional_bias import ExpectedPath
from gradbias.analytic.moments.estimators import Curvature


@dataclass(frozen=True, eq=False)
class ReturnLoop:
    """The `LoopSource` of a `Maml` or `Lirpg` loop. Its Hessians have the mean of ``curvature``
    (None: exact), whose error is multiplied by ``hessian_error``.
    """

    loop: ExpectedPath
    curvature: Curvature | None
    hessian_error: float

    def largest_estimate(self) -> float:
        """The largest norm of an estimate of the inner gradient, from any trajectories."""
        return largest_estimate(self.loop.inner)

    def everywhere(self) -> dict[str, float]:
        """Constants that hold for all theta, by name."""
        loop, curvature, times = self.loop, self.curvature, self.hessian_error
        inner, outer = return_constants(loop.inner), return_constants(loop.outer)
        found = {
            "c2": inner.curvature,
            "rho2": inner.third,
            "chi2": inner.fourth,
            "m2": outer.slope,
            "mu2": outer.curvature,
            "nu2": outer.third,
            "sigma": gradient_deviation(loop.inner),
            "sigma_2": gradient_deviation(loop.outer),
            "change_h": inner.third,
        }
        if curvature is not None:
            own = hessian_constants(loop.inner, curvature)
            found["delta_h"] = times * own.error
            found["change_h"] = abs(1.0 - times) * inner.third + times * own.change
            found["sigma_h"] = own.deviation
        if not loop.problem.starts_at_meta:
            mixed = mixed_constants(loop.inner)
            found |= {"c1": mixed.slope, "rho1": mixed.curvature, "chi1": mixed.third}
            found |= {"change_j": mixed.curvature, "sigma_j": mixed_deviation(loop.inner)}
        return found

    def in_ball(self, everywhere: dict[str, float], radius: float) -> dict[str, float]:
        """Constants on the ball: the values at theta^0, and how far they can change, from the
        highest derivative down.
        """
        loop = self.loop
        at = Point(loop, loop.path[0], self.curvature, self.hessian_error)
        found = at.inner() | at.outer()
        inner, outer = return_constants(loop.inner), return_constants(loop.outer)

        def spread(name: str, change: float) -> float:
            found[name] = min(everywhere[name], found[name] + change * radius)
            return found[name]

        spread("c2", spread("rho2", inner.fourth))
        spread("m2", spread("mu2", spread("nu2", outer.fourth)))
        if "c1" in found:
            found["change_j"] = spread("rho1", everywhere["chi1"])
            spread("c1", found["rho1"])
        if at.curvature is None:
            found["change_h"] = found["rho2"]
        else:
            own = hessian_constants(loop.inner, at.curvature)
            spread("delta_h", at.hessian_error * (own.change + found["rho2"]))
        for name, mdp, bounds in (("sigma", loop.inner, inner), ("sigma_2", loop.outer, outer)):
            rise = radius * variance_slope(mdp, bounds.slope, bounds.curvature)
            found[name] = math.sqrt(found[name] ** 2 + rise)
        return found
