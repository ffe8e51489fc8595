"""What sampled inner steps add to a meta-gradient to second order, for every N.

Replace the steps' noises by 0 one at a time, the last first. Each is of mean 0 given those before,
so only the second derivative of the meta-gradient M in it counts:

    |E M(path) - M(expected path)| <= sigma^2 / (2N) sum_i L_i,    L_i >= |d^2 M / d xi_i^2|.

L_i is computed by carrying bounds of a value, its first and its second derivative along one unit of
noise through the loop: sums add, products obey Leibniz's rule. They are the same for every step,
counted from the one that the noise is in; all i are carried at once.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. (4) and Sec. 4.2; Lindeberg's
replacement argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.constants.loops import LoopConstants
from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.bounds.saturating_arithmetic import saturating_product


@dataclass(frozen=True, eq=False)
class Bounded:
    """Bounds of values' norms ``[K]``, and of their first and second derivatives'."""

    value: FloatArray
    first: FloatArray
    second: FloatArray

    @classmethod
    def of(cls, value: float, first: float, second: float) -> Bounded:
        """The same for all."""
        return cls(*(np.asarray(each, dtype=np.float64) for each in (value, first, second)))

    def plus(self, other: Bounded, times: float) -> Bounded:
        """With ``times`` the other added."""
        return Bounded(
            self.value + times * other.value,
            self.first + times * other.first,
            self.second + times * other.second,
        )

    def of_product(self, other: Bounded) -> Bounded:
        """Of the saturating_product."""
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

    def taken(self, where: npt.NDArray[np.intp]) -> Bounded:
        """Those of some places of the arrays."""
        return Bounded(self.value[where], self.first[where], self.second[where])


def second_order_bound(
    constants: LoopConstants, steps: int, step_size: float, variance: float
) -> float:
    """The bound above, with ``variance`` that of a step's gradient (sigma^2 / N)."""
    if variance == 0.0:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        total = float(_carried_back(constants, steps, step_size).second.sum())
    # What is no number is 0 times infinity.
    return 0.5 * saturating_product(variance, math.inf if math.isnan(total) else total)


def _path(c: LoopConstants, steps: int, alpha: float) -> Bounded:
    """A point before the noise, which does not move, and those 1 .. K steps after, ``[K + 1]``."""
    step = Bounded.of(0.0, c.c2, c.rho2)  # the inner gradient, whose value does not count
    point = Bounded.of(0.0, alpha, 0.0)
    firsts, seconds = [0.0], [0.0]
    for _ in range(steps):
        firsts.append(float(point.first))
        seconds.append(float(point.second))
        point = point.plus(step.at(point), alpha)
    return Bounded(np.zeros(steps + 1), np.array(firsts), np.array(seconds))


def _carried_back(c: LoopConstants, steps: int, alpha: float) -> Bounded:
    """The meta-gradient along a unit of noise in step i, for i = K - 1 down to 0, ``[K]``."""
    path, after = _path(c, steps, alpha), np.arange(1, steps + 1)
    last = path.taken(after)
    cotangent = Bounded.of(c.m2, c.mu2, c.nu2).at(last)
    meta = Bounded.of(c.m1, c.mu12, c.nu12).at(last)
    hessian, mixed = Bounded.of(c.c2, c.rho2, c.chi2), Bounded.of(c.c1, c.rho1, c.chi1)
    for back in range(1, steps + 1):
        moved = path.taken(np.maximum(after - back, 0))
        meta = meta.plus(mixed.at(moved).of_product(cotangent), alpha)
        cotangent = cotangent.plus(hessian.at(moved).of_product(cotangent), alpha)
    return cotangent if c.starts_at_meta else meta
