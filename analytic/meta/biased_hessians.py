"""Jets of what a Hessian estimate is on average, times what is carried back.

With g the policy gradient, as a field ``[S, A]`` in the logits, and v what is carried back, LVC's
mean takes v to ``g v - g (pi . v) - pi (g . v)`` in each state; AD's to ``-weight pi (v - pi . v)``
with ``weight = sum_t m_t V_t`` (rewards-to-go, no critic). All of these are products of jets.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 4.3 (`analytic.
estimate_means` has them at a point).
"""

from __future__ import annotations

import numpy as np

from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.policies.jets import Part, Parts, leibniz, product
from gradbias.analytic.returns.value_jets import Expansion
from gradbias.analytic.utils.validation import FloatArray


def mean_products(moved: Expansion, carried: Parts, curvature: Curvature) -> list[Part]:
    """The jet of ``E[AD's or LVC's Hessian] v`` in the logits, ``[..., S, A]``, from the jets of
    the policy and its values (as many parts as ``carried`` has, or more) and of v.
    """
    parts = len(carried)
    policy = moved.policy[:parts]
    if curvature is Curvature.AD:
        each = product(moved.occupancy[:parts], moved.values[:parts])
        weight = [None if part is None else -part.sum(axis=-2)[..., None] for part in each]
        return product(weight, _centred(policy, policy, carried))
    slope = moved.gradient[:parts]
    first, second = _centred(slope, policy, carried), product(policy, _means(slope, carried))
    return [_less(one, two) for one, two in zip(first, second, strict=True)]


def _centred(weights: Parts, policy: Parts, carried: Parts) -> list[Part]:
    """``weights (v - pi . v)``."""
    means = _means(policy, carried)
    return product(weights, [_less(one, two) for one, two in zip(carried, means, strict=True)])


def _means(weights: Parts, carried: Parts) -> list[Part]:
    """``weights . v`` in each state, ``[..., S, 1]``."""

    def mean(one: FloatArray, other: FloatArray) -> FloatArray:
        return np.asarray((one * other).sum(axis=-1, keepdims=True))

    return [leibniz(mean, weights, carried, mask) for mask in range(len(carried))]


def _less(one: Part, other: Part) -> Part:
    if other is None:
        return one
    return -other if one is None else one - other
