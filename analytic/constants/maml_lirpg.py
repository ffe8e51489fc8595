"""The constants of a MAML or LIRPG loop: for all theta, on a ball, or along the expected path.

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
from gradbias.analytic.utils.validation import FloatArray


@dataclass(frozen=True, eq=False)
class ReturnLoop:
    """The loop, whose Hessians have the mean of ``curvature`` (None: exact), its error multiplied
    by ``hessian_error``.
    """

    loop: ExpectedPath
    curvature: Curvature | None
    hessian_error: float

    def largest_estimate(self) -> float:
        """What an estimate of the inner gradient from any trajectories does not exceed."""
        return largest_estimate(self.loop.inner)

    def everywhere(self) -> dict[str, float]:
        """What holds for all theta, by name."""
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
        """Bounds on the ball around theta^0: what is there, and how far it can change, from the
        highest derivative down.
        """
        loop, at = self.loop, self._point(self.loop.path[0])
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

    def along_path(self) -> dict[str, float]:
        """The largest values at the expected iterates: of the inner return at those that steps are
        taken from, of the outer one at the last.
        """
        points, curvature = [self._point(theta) for theta in self.loop.path], self.curvature
        each = [point.inner() for point in points[:-1]]
        if curvature is not None:
            each = [
                found | {"sigma_h": point.hessian_noise(curvature)}
                for found, point in zip(each, points, strict=False)
            ]
        found = {name: max(values[name] for values in each) for name in each[0]}
        if "rho1" in found:
            found["change_j"] = found["rho1"]
        if curvature is None:
            found["change_h"] = found["rho2"]
        return found | points[-1].outer()

    def _point(self, theta: FloatArray) -> Point:
        return Point(self.loop, theta, self.curvature, self.hessian_error)
