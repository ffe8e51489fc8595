"""What sampled inner steps add to a meta-gradient to second order, for every N.

Replace the steps' noises by 0 one at a time, the last first. Each is of mean 0 given those before,
so only the second derivative of the meta-gradient M in it counts:

    |E M(path) - M(expected path)| <= sigma^2 / (2N) sum_i L_i,    L_i >= |d^2 M / d xi_i^2|.

L_i is computed by carrying bounds of a value, its first and its second derivative along one unit of
noise through the loop: sums add, products obey Leibniz's rule.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. (4) and Sec. 4.2; Lindeberg's
replacement argument.
"""

from __future__ import annotations

from dataclasses import dataclass

from analytic.scoped_constants import LoopConstants


@dataclass(frozen=True)
class Bounded:
    """Bounds of a value's norm, and of its first and second derivative's."""

    value: float
    first: float
    second: float

    def plus(self, other: Bounded, times: float = 1.0) -> Bounded:
        """With ``times`` the other added."""
        return Bounded(
            self.value + times * other.value,
            self.first + times * other.first,
            self.second + times * other.second,
        )

    def of_product(self, other: Bounded) -> Bounded:
        """Of the product."""
        return Bounded(
            self.value * other.value,
            self.first * other.value + self.value * other.first,
            self.second * other.value + 2.0 * self.first * other.first + self.value * other.second,
        )

    def at(self, moved: Bounded) -> Bounded:
        """Of a function with these bounds where its argument moves."""
        return Bounded(
            self.value,
            self.first * moved.first,
            self.second * moved.first**2 + self.first * moved.second,
        )


def second_order_bound(
    constants: LoopConstants, steps: int, step_size: float, variance: float
) -> float:
    """The bound above, with ``variance`` that of a step's gradient (sigma^2 / N)."""
    if variance == 0.0:
        return 0.0
    curved = (_carried_back(constants, steps, step_size, i).second for i in range(steps))
    return 0.5 * variance * sum(curved)


def _carried_back(c: LoopConstants, steps: int, alpha: float, i: int) -> Bounded:
    """The meta-gradient along a unit of noise in step i."""
    nothing = Bounded(0.0, 0.0, 0.0)
    path = [nothing] * (i + 1) + [Bounded(0.0, alpha, 0.0)]
    step = Bounded(0.0, c.c2, c.rho2)  # the inner gradient, whose value does not count
    while len(path) <= steps:
        path.append(path[-1].plus(step.at(path[-1]), alpha))
    cotangent = Bounded(c.m2, c.mu2, c.nu2).at(path[steps])
    meta = Bounded(c.m1, c.mu12, c.nu12).at(path[steps])
    hessian, mixed = Bounded(c.c2, c.rho2, c.chi2), Bounded(c.c1, c.rho1, c.chi1)
    for moved in reversed(path[:steps]):
        meta = meta.plus(mixed.at(moved).of_product(cotangent), alpha)
        cotangent = cotangent.plus(hessian.at(moved).of_product(cotangent), alpha)
    return cotangent if c.starts_at_meta else meta
