"""Exact mixed directional derivatives of any order, by the product rule.

A *jet* of order k holds a quantity and its derivatives along k directions: a list of 2^k parts.
Part ``mask`` is the derivative along each direction whose bit is set in ``mask``, taken once (part
0 is the value itself). This is arithmetic with k infinitesimals whose squares are 0. A part that is
identically zero is None, so that derivatives along directions without effect cost nothing.

Every exact derivative of this package is a jet of the Bellman equations: a Hessian-vector product
is a jet of order 1 of the gradient, a third derivative along two directions is one of order 2.
"""

from collections.abc import Callable, Sequence

import numpy as np

from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.utils.validation import FloatArray

Part = FloatArray | None
Parts = Sequence[Part]
Combine = Callable[[FloatArray, FloatArray], FloatArray]


def submasks(mask: int) -> list[int]:
    """All subsets of the directions in ``mask``, 0 first and ``mask`` last."""
    return [part for part in range(mask + 1) if part & mask == part]


def add(first: Part, second: Part) -> Part:
    """The sum of two parts, where None stands for zero."""
    if first is None or second is None:
        return second if first is None else first
    return first + second


def required(part: Part) -> FloatArray:
    """The part as an array. Raises ValueError if it is None (identically zero)."""
    if part is None:
        raise ValueError("expected a part of a jet that is not identically 0, got None")
    return part


def leibniz(
    combine: Combine, left: Parts, right: Parts, mask: int, *, value_on_left: bool = True
) -> Part:
    """Part ``mask`` of the bilinear ``combine`` of two jets, by the product rule.

    ``value_on_left=False`` leaves out the term in which the left factor is not differentiated. That
    term holds the unknown when a differentiated linear equation is solved.
    """
    total: Part = None
    for part in submasks(mask)[0 if value_on_left else 1 :]:
        first, second = left[part], right[mask ^ part]
        if first is not None and second is not None:
            total = add(total, combine(first, second))
    return total


def product(left: Parts, right: Parts) -> list[Part]:
    """The jet of the entrywise product."""
    return [leibniz(np.multiply, left, right, mask) for mask in range(len(left))]


def softmax_jet(logits: Parts) -> list[Part]:
    """The jet of ``softmax(logits)`` over the last axis, from that of the logits.

    ``d pi = pi (dz - sum_a pi dz)`` is differentiated once more for every further direction.
    """
    policy: list[Part] = [softmax(required(logits[0]))]
    shifted = pivoted(policy[0], logits)
    for mask in range(1, len(logits)):
        top = 1 << (mask.bit_length() - 1)
        rest = mask ^ top
        centred: list[Part] = [None] * (rest + 1)
        for part in submasks(rest):
            slopes = [shifted[other | top] for other in range(top)]
            mean = leibniz(_mean, policy, slopes, part)
            centred[part] = add(slopes[part], None if mean is None else -mean)
        policy.append(leibniz(np.multiply, policy, centred, rest))
    return policy


def pivoted(policy: Part, values: Parts) -> list[Part]:
    """Each part minus its value at the most probable action, so that values there are exactly 0.

    Advantages and means under a policy's derivatives do not change if a constant is added to all
    actions' values. Where the policy is peaked, they are tiny differences of large values; taken
    from the most probable action, those differences keep their relative accuracy.
    """
    probabilities = required(policy)
    # Selecting by a one-hot row keeps leading axes of the policy and of the values broadcastable.
    likeliest = np.eye(probabilities.shape[-1])[probabilities.argmax(axis=-1)]
    return [
        None if part is None else part - (part * likeliest).sum(axis=-1, keepdims=True)
        for part in values
    ]


def _mean(weights: FloatArray, values: FloatArray) -> FloatArray:
    """``sum_a weights values`` in each state, ``[..., S, 1]``."""
    return np.asarray((weights * values).sum(axis=-1, keepdims=True))
