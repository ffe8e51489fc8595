"""Bounds of the bias that sampled inner steps and biased Hessians cause in a K-step meta-gradient.

The symbols: alpha is the step size; c_2 bounds the inner Hessian and rho_2 is its Lipschitz
constant; Delta_H bounds the error of the Hessian estimate's mean; N is the batch size; sigma is the
standard deviation of one trajectory's gradient; e_i is the error of the i-th iterate. Let
``B = 1 + alpha c_2``, ``Bb = B + alpha Delta_H`` and ``S_n(x) = 1 + x + .. + x^{n-1}``. Then
``|e_{i+1}| <= B |e_i| + alpha |noise|``, where the noise has mean 0 given what came before, so

    E|e_K|             <= alpha sigma / sqrt(N) S_K(B)            (Lemma 4.4, eq. 6),
    sqrt(E|e_K|^2)     <= alpha sigma / sqrt(N) sqrt(S_K(B^2))    (orthogonality: never larger),
    |E e_K|            <= alpha rho_2 / 2 sum_i B^{K-1-i} E|e_i|^2 = O(1/N).

The first two are errors; a bias is of the third kind. ``sigma`` must hold wherever iterates may go:
the standard deviation on the expected path alone, as printed, bounds nothing.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Lemma 4.4 and Theorem 4.5,
with their constants, and with the assumptions that they lack (docs/errata.md).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from gradbias.analytic.constants.loops import LoopConstants
from gradbias.analytic.utils.validation import real_number, whole_number
from gradbias.verification.bounds.saturating_arithmetic import (
    power,
    power_difference,
    powers,
    saturating_product,
)
from gradbias.verification.bounds.second_order import second_order_bound


@dataclass(frozen=True)
class CompositionalErrorBound:
    """Bounds for a function f of theta^K, with Lipschitz constant C_0 and f its exact value.

    Attributes:
        printed: bounds ``E|f(theta^K) - f|``, by eq. (6).
        root_mean_square: bounds the root of ``E|f(theta^K) - f|^2``, and so what ``printed`` does.
        iterate_bias: bounds ``|E theta^K - theta^K|`` (whatever f is).
        bias: bounds ``|E f(theta^K) - f|``; of order 1/N if f's derivative is Lipschitz.
    """

    printed: float
    root_mean_square: float
    iterate_bias: float
    bias: float


@dataclass(frozen=True)
class BiasBound:
    """Bounds of the norm of a meta-gradient's bias.

    Attributes:
        printed: eq. (9) with 1 for the constant that it leaves out, with which it is no bound. For
            K > 1 it holds with a larger constant, but does not vanish with the errors.
        corrected: Theorem 4.5 with its constants, of order ``1/sqrt(N)``.
        second_order: ``estimates`` plus a bound, by second derivatives, of what sampled steps add:
            of order 1/N.
        estimates: the part of ``corrected`` that comes from the errors of J's and H's means.
    """

    printed: float
    corrected: float
    second_order: float
    estimates: float

    @property
    def smallest(self) -> float:
        """The smaller of ``corrected`` and ``second_order``, the two that hold."""
        return min(self.corrected, self.second_order)


LARGEST = sys.float_info.max
"""The largest constant that is accepted. A bound that overflows is returned as ``inf``."""


def compositional_error_bound(
    constants: LoopConstants,
    *,
    steps: int,
    step_size: float,
    batch_size: int | None,
    lipschitz: float = 1.0,
    slope_lipschitz: float | None = None,
) -> CompositionalErrorBound:
    """Bounds of the error that sampled inner steps cause in a function f of theta^K.

    Args:
        constants: the loop's constants, such as those of `loop_constants`.
        steps: K, the number of inner steps.
        step_size: alpha, at least 0.
        batch_size: N, the number of trajectories in a batch; None takes expected steps.
        lipschitz: f's Lipschitz constant.
        slope_lipschitz: the Lipschitz constant of f's derivative, if it has one.

    Returns:
        Bounds of four different errors.

    Raises:
        ValueError: steps or batch_size below 1, or a negative number.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Lemma 4.4.

    >>> constants = LoopConstants(c2=0.5, m2=1.0, sigma=1.0, rho2=0.2)
    >>> bound = compositional_error_bound(constants, steps=2, step_size=1.0, batch_size=100)
    >>> round(bound.printed, 4), round(bound.root_mean_square, 4), round(bound.iterate_bias, 4)
    (0.25, 0.1803, 0.001)
    """
    loop = LoopSettings.of(constants, steps, step_size, batch_size)
    first = real_number("lipschitz", lipschitz, low=0.0, high=LARGEST)
    errors = loop.errors()
    shift = loop.iterate_bias(errors)
    square = saturating_product(first, errors[-1])
    bias = square
    if slope_lipschitz is not None:
        second = real_number("slope_lipschitz", slope_lipschitz, low=0.0, high=LARGEST)
        by_curvature = 0.5 * saturating_product(second, errors[-1], errors[-1])
        bias = min(bias, saturating_product(first, shift) + by_curvature)
    return CompositionalErrorBound(saturating_product(first, loop.printed()), square, shift, bias)


def meta_gradient_bias_bound(
    constants: LoopConstants, *, steps: int, step_size: float, batch_size: int | None
) -> BiasBound:
    """Bounds of the bias of a meta-gradient whose four sample sets in a step are independent.

    Args:
        constants: the loop's constants, such as those of `loop_constants`.
        steps: K, the number of inner steps.
        step_size: alpha, at least 0.
        batch_size: N, the number of trajectories in a batch; None takes expected steps.

    Returns:
        The paper's expression, and two bounds that hold.

    Raises:
        ValueError: steps or batch_size below 1, or a negative number.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Theorem 4.5, eq. (9).

    >>> exact = LoopConstants(c2=0.1, m2=1.0, c1=1.0)  # no noise, no error anywhere
    >>> bound = meta_gradient_bias_bound(exact, steps=3, step_size=1.0, batch_size=None)
    >>> round(bound.printed, 4), bound.corrected, bound.second_order
    (2.42, 0.0, 0.0)
    """
    loop = LoopSettings.of(constants, steps, step_size, batch_size)
    errors = loop.errors()
    sampled, estimates = (_from_phi if constants.starts_at_meta else _general)(loop, errors)
    variance = saturating_product(loop.noise, loop.noise)
    by_steps = second_order_bound(constants, loop.steps, loop.step_size, variance)
    return BiasBound(_printed(loop, errors), sampled + estimates, estimates + by_steps, estimates)


@dataclass(frozen=True)
class LoopSettings:
    """A loop whose bounds are computed: its constants, the number K of steps, the step size alpha,
    and the standard deviation of a batch's inner gradient (``noise``, sigma over the root of N).
    """

    constants: LoopConstants
    steps: int
    step_size: float
    noise: float

    @classmethod
    def of(
        cls, constants: LoopConstants, steps: int, step_size: float, batch_size: int | None
    ) -> LoopSettings:
        """The settings, checked. Raises ValueError where something does not fit."""
        if not isinstance(constants, LoopConstants):
            raise ValueError(f"constants: expected LoopConstants, got {type(constants).__name__}")
        k = whole_number("steps", steps, at_least=1)
        size = real_number("step_size", step_size, low=0.0, high=1e12)
        if batch_size is None:
            return cls(constants, k, size, 0.0)
        n = whole_number("batch_size", batch_size, at_least=1)
        return cls(constants, k, size, constants.sigma / math.sqrt(n))

    @property
    def growth(self) -> float:
        """B = 1 + alpha c_2, by which an error can grow in one step."""
        return 1.0 + self.step_size * self.constants.c2

    @property
    def estimated_growth(self) -> float:
        """Bb = B + alpha Delta_H, the same with the Hessian's error."""
        return self.growth + self.step_size * self.constants.delta_h

    def errors(self) -> list[float]:
        """Bounds of ``sqrt(E|e_i|^2)`` for i = 0 .. K."""
        scale, square = self.step_size * self.noise, self.growth * self.growth
        return [
            saturating_product(scale, math.sqrt(powers(square, i))) for i in range(self.steps + 1)
        ]

    def printed(self) -> float:
        """The right-hand side of eq. (6), for C_0 = 1."""
        return saturating_product(self.step_size, self.noise, powers(self.growth, self.steps))

    def iterate_bias(self, errors: list[float]) -> float:
        """The bound of ``|E e_K|``, given those of `errors`."""
        squares = 0.0
        for error in errors[1 : self.steps]:
            squares = saturating_product(self.growth, squares) + error * error
        return 0.5 * saturating_product(self.step_size, self.constants.rho2, squares)


def _general(loop: LoopSettings, errors: list[float]) -> tuple[float, float]:
    """Theorem 4.5 for theta^0 that does not depend on phi: the part of the iterates' errors, and
    the part of the estimates' errors.
    """
    c, k, alpha = loop.constants, loop.steps, loop.step_size
    b, bb = loop.growth, loop.estimated_growth
    by_hessians = sum(power_difference(b, alpha * c.delta_h, i) for i in range(1, k))
    estimates = saturating_product(alpha, c.m2, c.delta_j, powers(bb, k)) + saturating_product(
        alpha, c.m2, c.c1, by_hessians
    )
    sampled = saturating_product(c.mu12, errors[k]) + saturating_product(
        alpha, c.c1, c.mu2, powers(b, k), errors[k]
    )
    for i in range(1, k):
        sampled += saturating_product(alpha, c.m2, c.rho1, power(bb, k - 1 - i), errors[i])
        inside = power(b, k - 1 - i) * powers(b, i)
        sampled += saturating_product(alpha, alpha, c.m2, c.c1, c.rho2, errors[i], inside)
    return sampled, estimates


def _from_phi(loop: LoopSettings, errors: list[float]) -> tuple[float, float]:
    """The two parts of `_general` for MAML, which the printed theorem does not cover."""
    c, k, alpha = loop.constants, loop.steps, loop.step_size
    b = loop.growth
    estimates = saturating_product(c.m2, power_difference(b, alpha * c.delta_h, k))
    by_hessian = saturating_product(alpha, c.m2, c.rho2, power(b, k - 1))
    sampled = saturating_product(saturating_product(c.mu2, power(b, k)), errors[k])
    sampled += sum(saturating_product(by_hessian, error) for error in errors[1:k])
    return sampled, estimates


def _printed(loop: LoopSettings, errors: list[float]) -> float:
    """Eq. (9) with 1 for its constant; MAML's Jacobian is its Hessian."""
    c, k = loop.constants, loop.steps
    delta_j = c.delta_h if c.starts_at_meta else c.delta_j
    inside = errors[k] + delta_j + (k - 1)
    return saturating_product(power(loop.growth + c.delta_h, k - 1), inside)
