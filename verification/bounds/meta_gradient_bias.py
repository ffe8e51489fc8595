"""Bounds of what sampled inner steps and biased Hessians do to a K-step meta-gradient.

With ``B = 1 + alpha c_2``, ``Bb = B + alpha Delta_H`` and ``S_n(x) = 1 + x + .. + x^{n-1}``, the
iterates' errors ``e_i`` obey ``|e_{i+1}| <= B |e_i| + alpha |noise|``, where the noise has mean 0
given what came before. So, with sigma the deviation of one trajectory's gradient,

    E|e_K|             <= alpha sigma / sqrt(N) S_K(B)            (Lemma 4.4, eq. 6),
    sqrt(E|e_K|^2)     <= alpha sigma / sqrt(N) sqrt(S_K(B^2))    (orthogonality: never larger),
    |E e_K|            <= alpha rho_2 / 2 sum_i B^{K-1-i} E|e_i|^2 = O(1/N).

The first two are errors; a bias is of the third kind. ``sigma`` must bound the deviation wherever
iterates may go: on the expected path alone, as printed, it bounds nothing.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Lemma 4.4 and Theorem 4.5,
corrected where they do not hold (docs/errata.md).
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
    """Of a function f of theta^K, with Lipschitz constant C_0; each bounds what it says.

    - ``printed``: ``E|f(theta^K) - f|``, by eq. (6);
    - ``root_mean_square``: the root of ``E|f(theta^K) - f|^2``, and so ``printed``'s too;
    - ``iterate_bias``: ``|E theta^K - theta^K|`` (whatever f);
    - ``bias``: ``|E f(theta^K) - f|``; of order 1/N where f's derivative has a Lipschitz constant.
    """

    printed: float
    root_mean_square: float
    iterate_bias: float
    bias: float


@dataclass(frozen=True)
class BiasBound:
    """Of the norm of a meta-gradient's bias.

    - ``printed``: eq. (9) with 1 for the constant that it leaves out. No bound: for K > 1 it does
      not vanish with the errors, and lacks step sizes;
    - ``corrected``: Theorem 4.5 with its constants; ``compact`` is the same simplified;
    - ``second_order``: the same for the Hessian's and the Jacobian's errors, and what sampled steps
      add by second derivatives: of order 1/N, where ``corrected`` is of order ``1/sqrt(N)``;
    - ``estimates``: the part of ``corrected`` that the errors of J's and H's means have.
    """

    printed: float
    corrected: float
    compact: float
    second_order: float
    estimates: float

    @property
    def smallest(self) -> float:
        """The smallest of those that hold."""
        return min(self.corrected, self.compact, self.second_order)


LARGEST = sys.float_info.max
"""Of what is given; what comes of it is infinite where floats do not reach."""


def compositional_error_bound(
    constants: LoopConstants,
    *,
    steps: int,
    step_size: float,
    batch_size: int | None,
    lipschitz: float = 1.0,
    slope_lipschitz: float | None = None,
) -> CompositionalErrorBound:
    """Bounds of what ``steps`` inner steps from ``batch_size`` trajectories each do to f(theta^K).

    ``lipschitz`` is f's constant, ``slope_lipschitz`` that of its derivative, if it has one;
    without samples (None) the steps are expected ones.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Lemma 4.4.

    Raises:
        ValueError: steps or batch_size below 1, or a negative number.

    >>> constants = LoopConstants(c2=0.5, m2=1.0, sigma=1.0, rho2=0.2)
    >>> found = compositional_error_bound(constants, steps=2, step_size=1.0, batch_size=100)
    >>> round(found.printed, 4), round(found.root_mean_square, 4), round(found.iterate_bias, 4)
    (0.25, 0.1803, 0.001)
    """
    loop = Asked.of(constants, steps, step_size, batch_size)
    first = real_number("lipschitz", lipschitz, low=0.0, high=LARGEST)
    errors = loop.errors()
    shift = loop.iterate_bias(errors)
    bias = saturating_product(first, errors[-1])
    if slope_lipschitz is not None:
        second = real_number("slope_lipschitz", slope_lipschitz, low=0.0, high=LARGEST)
        bent = saturating_product(first, shift) + 0.5 * saturating_product(
            second, errors[-1], errors[-1]
        )
        bias = min(bias, bent)
    square = saturating_product(first, errors[-1])
    return CompositionalErrorBound(saturating_product(first, loop.printed()), square, shift, bias)


def meta_gradient_bias_bound(
    constants: LoopConstants, *, steps: int, step_size: float, batch_size: int | None
) -> BiasBound:
    """Bounds of the bias of a meta-gradient whose four sample sets a step are independent.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Theorem 4.5, eq. (9).

    Raises:
        ValueError: steps or batch_size below 1, or a negative number.

    >>> exact = LoopConstants(c2=0.1, m2=1.0, c1=1.0)  # no noise, no error anywhere
    >>> found = meta_gradient_bias_bound(exact, steps=3, step_size=1.0, batch_size=None)
    >>> round(found.printed, 4), found.corrected, found.second_order
    (2.42, 0.0, 0.0)
    """
    loop = Asked.of(constants, steps, step_size, batch_size)
    errors = loop.errors()
    sampled, estimates, compact = (_from_phi if constants.starts_at_meta else _general)(
        loop, errors
    )
    variance = saturating_product(loop.noise, loop.noise)
    bent = estimates + second_order_bound(constants, loop.steps, loop.step_size, variance)
    return BiasBound(_printed(loop, errors), sampled + estimates, compact, bent, estimates)


@dataclass(frozen=True)
class Asked:
    """Constants and a loop: ``noise`` is sigma over the root of N."""

    constants: LoopConstants
    steps: int
    step_size: float
    noise: float

    @classmethod
    def of(
        cls, constants: LoopConstants, steps: int, step_size: float, batch_size: int | None
    ) -> Asked:
        """Checked. Raises ValueError where something does not fit."""
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
        """B."""
        return 1.0 + self.step_size * self.constants.c2

    @property
    def estimated_growth(self) -> float:
        """B with the Hessian's error: Bb."""
        return self.growth + self.step_size * self.constants.delta_h

    def errors(self) -> list[float]:
        """What bounds ``sqrt(E|e_i|^2)`` for i = 0 .. K."""
        scale, square = self.step_size * self.noise, self.growth * self.growth
        return [
            saturating_product(scale, math.sqrt(powers(square, i))) for i in range(self.steps + 1)
        ]

    def printed(self) -> float:
        """Eq. (6), for C_0 = 1."""
        return saturating_product(self.step_size, self.noise, powers(self.growth, self.steps))

    def iterate_bias(self, errors: list[float]) -> float:
        """What bounds ``|E e_K|``."""
        bent = 0.0
        for error in errors[1 : self.steps]:
            bent = saturating_product(self.growth, bent) + error * error
        return 0.5 * saturating_product(self.step_size, self.constants.rho2, bent)


def _general(loop: Asked, errors: list[float]) -> tuple[float, float, float]:
    """Theorem 4.5 for theta^0 that does not depend on phi: the iterates' part, the estimates'
    part, and both in compact form.
    """
    c, k, alpha = loop.constants, loop.steps, loop.step_size
    b, bb = loop.growth, loop.estimated_growth
    plain, erring = powers(b, k), powers(bb, k)
    turned_off = sum(power_difference(b, alpha * c.delta_h, i) for i in range(1, k))
    estimates = saturating_product(alpha, c.m2, c.delta_j, erring) + saturating_product(
        alpha, c.m2, c.c1, turned_off
    )
    sampled = saturating_product(c.mu12, errors[k]) + saturating_product(
        alpha, c.c1, c.mu2, plain, errors[k]
    )
    for i in range(1, k):
        sampled += saturating_product(alpha, c.m2, c.rho1, power(bb, k - 1 - i), errors[i])
        inside = power(b, k - 1 - i) * powers(b, i)
        sampled += saturating_product(alpha, alpha, c.m2, c.c1, c.rho2, errors[i], inside)
    whole, largest = k * power(bb, k - 1), max(errors)
    twice = (0.5 * k * (k - 1), alpha, alpha, power(bb, max(k - 2, 0)), c.m2, c.c1)
    compact = saturating_product(power(bb, k - 1), c.mu12, largest)
    compact += saturating_product(whole, alpha, c.c1, c.mu2, largest)
    compact += saturating_product(whole, alpha, c.m2, c.rho1, largest) + saturating_product(
        whole, alpha, c.m2, c.delta_j
    )
    compact += saturating_product(*twice, c.rho2, largest) + saturating_product(*twice, c.delta_h)
    return sampled, estimates, compact


def _from_phi(loop: Asked, errors: list[float]) -> tuple[float, float, float]:
    """Theorem 4.5 for MAML, which the printed one does not cover: as `_general`."""
    c, k, alpha = loop.constants, loop.steps, loop.step_size
    b, bb, largest = loop.growth, loop.estimated_growth, max(errors)
    estimates = saturating_product(c.m2, power_difference(b, alpha * c.delta_h, k))
    moved = saturating_product(alpha, c.m2, c.rho2, power(b, k - 1))
    turned = saturating_product(c.mu2, power(b, k))
    sampled = saturating_product(turned, errors[k]) + sum(
        saturating_product(moved, error) for error in errors[1:k]
    )
    compact = saturating_product(turned, largest) + saturating_product(k - 1, moved, largest)
    compact += saturating_product(k, power(bb, k - 1), alpha, c.m2, c.delta_h)
    return sampled, estimates, compact


def _printed(loop: Asked, errors: list[float]) -> float:
    """Eq. (9) with 1 for its constant; MAML's Jacobian is its Hessian."""
    c, k = loop.constants, loop.steps
    delta_j = c.delta_h if c.starts_at_meta else c.delta_j
    inside = errors[k] + delta_j + (k - 1)
    return saturating_product(power(loop.growth + c.delta_h, k - 1), inside)
