"""Directional derivatives of ``E[Hessian estimate] v`` for AD and LVC, whose Hessians are biased.

The expansion in 1/N needs them to carry such a Hessian through the adjoint recursion. With g the
policy gradient ``[S, A]`` in the logits and v the cotangent, LVC's mean takes v to ``g v - g (pi .
v) - pi (g . v)`` in each state; AD's to ``-weight pi (v - pi . v)`` with ``weight = sum_t m_t V_t``
(rewards-to-go, no critic; m_t is the discounted occupancy). Both are products of jets.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 4.2
(`analytic.moments.hessian_means` has these means at a point).
"""

from __future__ import annotations

import numpy as np

from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.policies.jets import Part, Parts, leibniz, product
from gradbias.analytic.returns.value_jets import Expansion
from gradbias.analytic.utils.validation import FloatArray


def mean_products(expansion: Expansion, cotangent: Parts, curvature: Curvature) -> list[Part]:
    """The jet of ``E[Hessian estimate] v`` in the logits, each part ``[..., S, A]``.

    Args:
        expansion: the jets of the policy and its values; as many parts as v has, or more.
        cotangent: the jet of v.
        curvature: AD or LVC.
    """
    parts = len(cotangent)
    policy = expansion.policy[:parts]
    if curvature is Curvature.AD:
        by_step = product(expansion.occupancy[:parts], expansion.values[:parts])
        weight = [None if part is None else -part.sum(axis=-2)[..., None] for part in by_step]
        return product(weight, _centred(policy, policy, cotangent))
    gradient = expansion.gradient[:parts]
    second = product(policy, _means(gradient, cotangent))
    pairs = zip(_centred(gradient, policy, cotangent), second, strict=True)
    return [_difference(left, right) for left, right in pairs]


def _centred(weights: Parts, policy: Parts, values: Parts) -> list[Part]:
    """The jet of ``weights (v - pi . v)``."""
    pairs = zip(values, _means(policy, values), strict=True)
    return product(weights, [_difference(value, mean) for value, mean in pairs])


def _means(weights: Parts, values: Parts) -> list[Part]:
    """The jet of ``weights . v`` in each state, ``[..., S, 1]``."""

    def mean(left: FloatArray, right: FloatArray) -> FloatArray:
        return np.asarray((left * right).sum(axis=-1, keepdims=True))

    return [leibniz(mean, weights, values, mask) for mask in range(len(values))]


def _difference(left: Part, right: Part) -> Part:
    """The difference of two parts, where None stands for zero."""
    if right is None:
        return left
    return -right if left is None else left - right
