"""A bound, by second derivatives, of the bias that sampled inner steps add to a meta-gradient.

Let xi_i be the noise of step i, with variance sigma^2 / N at most. Replace the noises by 0 one at a
time, the last first. Each has mean 0 given those before, so only the second derivative of the
meta-gradient M in it counts, for every N:

    |E M(path) - M(expected path)| <= sigma^2 / (2N) sum_i L_i,    L_i >= |d^2 M / d xi_i^2|.

L_i is computed by propagating bounds of a value and of its first two derivatives along one unit of
noise through the loop: sums add, products obey Leibniz's rule. The bounds depend only on the number
of steps since the noise, so all i are propagated at once.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. (4) and Sec. 4.1; Lindeberg's
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
    """Bounds of the norms of K values and of their first two derivatives along the noise; each
    ``[K]``.
    """

    value: FloatArray
    first: FloatArray
    second: FloatArray

    @classmethod
    def of(cls, value: float, first: float, second: float) -> Bounded:
        """The same three bounds for every value."""
        return cls(*(np.asarray(each, dtype=np.float64) for each in (value, first, second)))

    def plus(self, other: Bounded, factor: float) -> Bounded:
        """Bounds of the sum of these values and ``factor`` times the others."""
        return Bounded(
            self.value + factor * other.value,
            self.first + factor * other.first,
            self.second + factor * other.second,
        )

    def times(self, other: Bounded) -> Bounded:
        """Bounds of the product with the others."""
        return Bounded(
            self.value * other.value,
            self.first * other.value + self.value * other.first,
            self.second * other.value + 2.0 * self.first * other.first + self.value * other.second,
        )

    def at(self, argument: Bounded) -> Bounded:
        """Bounds of a function of ``argument``; here ``first`` and ``second`` bound the function's
        own derivatives.
        """
        return Bounded(
            self.value,
            self.first * argument.first,
            self.second * argument.first**2 + self.first * argument.second,
        )

    def select(self, where: npt.NDArray[np.intp]) -> Bounded:
        """The bounds at the indices ``where``."""
        return Bounded(self.value[where], self.first[where], self.second[where])


def second_order_bound(
    constants: LoopConstants, steps: int, step_size: float, variance: float
) -> float:
    """The bound of this module's text; ``variance`` is that of a step's gradient, sigma^2 / N."""
    if variance == 0.0:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        total = float(_meta_gradient(constants, steps, step_size).second.sum())
    # NaN can only come from 0 times infinity.
    return 0.5 * saturating_product(variance, math.inf if math.isnan(total) else total)


def _path(c: LoopConstants, steps: int, alpha: float) -> Bounded:
    """The iterate before the noise, which does not depend on it, and the K iterates after it,
    ``[K + 1]``.
    """
    step = Bounded.of(0.0, c.c2, c.rho2)  # the inner gradient, whose value does not matter
    point = Bounded.of(0.0, alpha, 0.0)
    firsts, seconds = [0.0], [0.0]
    for _ in range(steps):
        firsts.append(float(point.first))
        seconds.append(float(point.second))
        point = point.plus(step.at(point), alpha)
    return Bounded(np.zeros(steps + 1), np.array(firsts), np.array(seconds))


def _meta_gradient(c: LoopConstants, steps: int, alpha: float) -> Bounded:
    """The meta-gradient along a unit of noise in step i, for i = K - 1 down to 0, ``[K]``."""
    path, after = _path(c, steps, alpha), np.arange(1, steps + 1)
    last = path.select(after)
    cotangent = Bounded.of(c.m2, c.mu2, c.nu2).at(last)
    meta = Bounded.of(c.m1, c.mu12, c.nu12).at(last)
    hessian, mixed = Bounded.of(c.c2, c.rho2, c.chi2), Bounded.of(c.c1, c.rho1, c.chi1)
    for back in range(1, steps + 1):
        iterate = path.select(np.maximum(after - back, 0))
        meta = meta.plus(mixed.at(iterate).times(cotangent), alpha)
        cotangent = cotangent.plus(hessian.at(iterate).times(cotangent), alpha)
    return cotangent if c.starts_at_meta else meta
