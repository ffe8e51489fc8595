"""A bound of the variance of a sampled K-step meta-gradient.

By the law of total variance it is the sum of three parts: the change of the mean with the sampled
path (its Lipschitz constants times the iterates' errors), the outer gradients' noise times the norm
of the mean Jacobian, and the variance ``w_K`` of the product of Jacobians. The last one grows by
``q = Bb^2 + alpha^2 sigma_H^2`` in a step (``Bb`` as in `verification.bounds.meta_gradient_bias`,
``sigma_H`` the standard deviation of the Hessian's estimate).

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Theorem 4.5, eq. (10), corrected:
printed, it is 0 for one step of exact Jacobians whatever the outer gradient's noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradbias.analytic.constants.loops import LoopConstants
from gradbias.analytic.utils.validation import whole_number
from gradbias.verification.bounds.meta_gradient_bias import LoopSettings
from gradbias.verification.bounds.saturating_arithmetic import (
    power,
    power_difference,
    powers,
    saturating_product,
)


@dataclass(frozen=True)
class VarianceBound:
    """Bounds of ``E|estimate - mean|^2``: ``printed`` is eq. (10) with 1 for the constant that it
    leaves out, and no bound; ``corrected`` has all constants.
    """

    printed: float
    corrected: float


def meta_gradient_variance_bound(
    constants: LoopConstants, *, steps: int, step_size: float, batch_size: int
) -> VarianceBound:
    """Bounds of the total variance of a meta-gradient with independent sample sets.

    Args:
        constants: the loop's constants, such as those of `loop_constants`.
        steps: K, the number of inner steps.
        step_size: alpha, at least 0.
        batch_size: N, the number of trajectories in each set; one serves both outer gradients.

    Returns:
        The paper's expression, and a bound that holds.

    Raises:
        ValueError: steps or batch_size below 1, or a negative number.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Theorem 4.5, eq. (10).

    >>> outer_noise = LoopConstants(c2=0.0, m2=0.0, c1=1.0, sigma_2=1.0)
    >>> meta_gradient_variance_bound(outer_noise, steps=1, step_size=1.0, batch_size=1)
    VarianceBound(printed=0.0, corrected=1.0)
    """
    n = whole_number("batch_size", batch_size, at_least=1)
    loop = LoopSettings.of(constants, steps, step_size, n)
    errors = loop.errors()
    noise = _Noise.of(constants, n)
    slopes, reach, spread = (_from_phi if constants.starts_at_meta else _general)(loop, noise)
    by_path = sum(saturating_product(*pair) for pair in zip(slopes, errors[1:], strict=True))
    outer = noise.sigma_1 + saturating_product(reach, noise.sigma_2)
    square = constants.m2 * constants.m2 + noise.sigma_2 * noise.sigma_2
    corrected = by_path * by_path + outer * outer + saturating_product(square, spread)
    return VarianceBound(_printed(loop, errors, noise), corrected)


@dataclass(frozen=True)
class _Noise:
    """Standard deviations of the batches' estimates."""

    sigma_1: float
    sigma_2: float
    sigma_j: float
    sigma_h: float

    @classmethod
    def of(cls, c: LoopConstants, batch_size: int) -> _Noise:
        each = (c.sigma_1, c.sigma_2, c.sigma_j, c.sigma_h)
        return cls(*(sigma / math.sqrt(batch_size) for sigma in each))


def _general(loop: LoopSettings, noise: _Noise) -> tuple[list[float], float, float]:
    """The Lipschitz constants of the mean in e_1 .. e_K, the norm of the mean Jacobian, and w_K."""
    c, k, alpha, bb = loop.constants, loop.steps, loop.step_size, loop.estimated_growth
    mixed = c.c1 + c.delta_j
    slopes = []
    for j in range(1, k):
        later = power(bb, k - 1 - j)
        change = saturating_product(c.change_j, later)
        change += saturating_product(alpha, mixed, c.change_h, later, powers(bb, j))
        slopes.append(saturating_product(alpha, c.m2, change))
    slopes.append(c.mu12 + saturating_product(alpha, mixed, c.mu2, powers(bb, k)))
    hessian_noise = alpha * noise.sigma_h
    q, variance = bb * bb + hessian_noise * hessian_noise, 0.0
    for i in range(k):
        mean = saturating_product(alpha, mixed, powers(bb, i))
        added = alpha * alpha * noise.sigma_j * noise.sigma_j
        added += saturating_product(hessian_noise, hessian_noise, mean, mean)
        variance = saturating_product(q, variance) + added
    return slopes, saturating_product(alpha, mixed, powers(bb, k)), variance


def _from_phi(loop: LoopSettings, noise: _Noise) -> tuple[list[float], float, float]:
    """The same as `_general`, for MAML."""
    c, k, alpha, bb = loop.constants, loop.steps, loop.step_size, loop.estimated_growth
    slopes = [saturating_product(alpha, c.m2, c.change_h, power(bb, k - 1))] * (k - 1)
    slopes.append(saturating_product(c.mu2, power(bb, k)))
    hessian_noise = alpha * noise.sigma_h
    return slopes, power(bb, k), power_difference(bb * bb, hessian_noise * hessian_noise, k)


def _printed(loop: LoopSettings, errors: list[float], noise: _Noise) -> float:
    """Eq. (10) with 1 for its constant; MAML's Jacobian is its Hessian."""
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
