"""A bound of the variance of a sampled K-step meta-gradient.

The law of total variance: what the sampled path does to the mean (its Lipschitz constants in the
iterates' errors), what the outer gradients' noise is multiplied by, and the variance ``w_K`` of the
saturating_product of Jacobians, which grows by ``q = Bb^2 + alpha^2 sigma_H^2`` a step.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Theorem 4.5, eq. (10), corrected:
printed, it is 0 for one step of exact Jacobians whatever the outer gradient's noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradbias.analytic.constants.loops import LoopConstants
from gradbias.analytic.utils.validation import whole_number
from gradbias.verification.bounds.meta_gradient_bias import Asked
from gradbias.verification.bounds.saturating_arithmetic import (
    power,
    power_difference,
    powers,
    saturating_product,
)


@dataclass(frozen=True)
class VarianceBound:
    """Of ``E|estimate - mean|^2``: by eq. (10) with 1 for the constant that it leaves out
    (``printed``, no bound), and with all constants (``corrected``).
    """

    printed: float
    corrected: float


def meta_gradient_variance_bound(
    constants: LoopConstants, *, steps: int, step_size: float, batch_size: int
) -> VarianceBound:
    """Bounds of the total variance of a meta-gradient from ``batch_size`` trajectories in each of
    its independent sets; one set serves both outer gradients.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Theorem 4.5, eq. (10).

    Raises:
        ValueError: steps or batch_size below 1, or a negative number.

    >>> outer_noise = LoopConstants(c2=0.0, m2=0.0, c1=1.0, sigma_2=1.0)
    >>> meta_gradient_variance_bound(outer_noise, steps=1, step_size=1.0, batch_size=1)
    VarianceBound(printed=0.0, corrected=1.0)
    """
    n = whole_number("batch_size", batch_size, at_least=1)
    loop = Asked.of(constants, steps, step_size, n)
    errors = loop.errors()
    noise = _Noise.of(constants, n)
    slopes, reach, spread = (_from_phi if constants.starts_at_meta else _general)(loop, noise)
    by_path = sum(saturating_product(*pair) for pair in zip(slopes, errors[1:], strict=True))
    outer = noise.sigma_1 + saturating_product(reach, noise.sigma_2)
    carried = constants.m2 * constants.m2 + noise.sigma_2 * noise.sigma_2
    corrected = by_path * by_path + outer * outer + saturating_product(carried, spread)
    return VarianceBound(_printed(loop, errors, noise), corrected)


@dataclass(frozen=True)
class _Noise:
    """Deviations of the batches' estimates."""

    sigma_1: float
    sigma_2: float
    sigma_j: float
    sigma_h: float

    @classmethod
    def of(cls, c: LoopConstants, batch_size: int) -> _Noise:
        each = (c.sigma_1, c.sigma_2, c.sigma_j, c.sigma_h)
        return cls(*(sigma / math.sqrt(batch_size) for sigma in each))


def _general(loop: Asked, noise: _Noise) -> tuple[list[float], float, float]:
    """How the mean depends on e_1 .. e_K, the norm of the mean Jacobian, and its variance w_K."""
    c, k, alpha, bb = loop.constants, loop.steps, loop.step_size, loop.estimated_growth
    mixed = c.c1 + c.delta_j
    slopes = []
    for j in range(1, k):
        rest = power(bb, k - 1 - j)
        moved = saturating_product(c.change_j, rest)
        moved += saturating_product(alpha, mixed, c.change_h, rest, powers(bb, j))
        slopes.append(saturating_product(alpha, c.m2, moved))
    slopes.append(c.mu12 + saturating_product(alpha, mixed, c.mu2, powers(bb, k)))
    turned = alpha * noise.sigma_h
    q, spread = bb * bb + turned * turned, 0.0
    for i in range(k):
        reached = saturating_product(alpha, mixed, powers(bb, i))
        own = alpha * alpha * noise.sigma_j * noise.sigma_j
        own += saturating_product(turned, turned, reached, reached)
        spread = saturating_product(q, spread) + own
    return slopes, saturating_product(alpha, mixed, powers(bb, k)), spread


def _from_phi(loop: Asked, noise: _Noise) -> tuple[list[float], float, float]:
    """As `_general`, for MAML."""
    c, k, alpha, bb = loop.constants, loop.steps, loop.step_size, loop.estimated_growth
    slopes = [saturating_product(alpha, c.m2, c.change_h, power(bb, k - 1))] * (k - 1)
    slopes.append(saturating_product(c.mu2, power(bb, k)))
    turned = alpha * noise.sigma_h
    return slopes, power(bb, k), power_difference(bb * bb, turned * turned, k)


def _printed(loop: Asked, errors: list[float], noise: _Noise) -> float:
    c, k = loop.constants, loop.steps
    first = loop.growth * loop.growth
    delta_j, sigma_j = c.delta_j, noise.sigma_j
    if c.starts_at_meta:
        delta_j, sigma_j = c.delta_h, noise.sigma_h
    second = 2.0 * loop.step_size * loop.step_size
    second *= c.m1 * c.m1 + 3.0 * noise.sigma_2 * noise.sigma_2
    base = first + c.delta_h * c.delta_h
    grown = power_difference(base, noise.sigma_h * noise.sigma_h, k - 1)
    by_path = saturating_product(power(base, k - 1), errors[k] * errors[k] + (k - 1))
    return by_path + saturating_product(second + grown, delta_j * delta_j + sigma_j * sigma_j)
