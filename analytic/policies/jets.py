"""Exact mixed directional derivatives of any order, by the product rule.

A *jet* of order k holds a quantity and its derivatives along k directions: a list of 2^k parts,
where part ``mask`` is the derivative along every direction whose bit is set in ``mask``, once each
(part 0 is the value itself). This is arithmetic with k infinitesimals whose squares are 0. A part
that is identically zero is None, so that what does not depend on a direction costs nothing.

Every exact derivative here is a jet of the Bellman equations: the Hessian-vector product is a jet
of order 1 of the gradient, the third derivative along two directions one of order 2.
"""

from collections.abc import Callable, Sequence

import numpy as np

from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.utils.validation import FloatArray

Part = FloatArray | None
Parts = Sequence[Part]
Combine = Callable[[FloatArray, FloatArray], FloatArray]


def submasks(mask: int) -> list[int]:
    """All sets of directions within ``mask``, 0 first and ``mask`` last."""
    return [part for part in range(mask + 1) if part & mask == part]


def add(first: Part, second: Part) -> Part:
    """The sum; None is zero."""
    if first is None or second is None:
        return second if first is None else first
    return first + second


def required(part: Part) -> FloatArray:
    """A part that cannot be identically zero. Raises ValueError if it is."""
    if part is None:
        raise ValueError("expected a part of a jet that moves, got one that is identically 0")
    return part


def leibniz(
    combine: Combine, left: Parts, right: Parts, mask: int, *, value_on_left: bool = True
) -> Part:
    """Part ``mask`` of the bilinear ``combine`` of two jets.

    ``value_on_left=False`` leaves out the term in which nothing on the left is differentiated:
    the one that a linear equation is solved for.
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
    moved = pivoted(policy[0], logits)
    for mask in range(1, len(logits)):
        top = 1 << (mask.bit_length() - 1)
        rest = mask ^ top
        centred: list[Part] = [None] * (rest + 1)
        for part in submasks(rest):
            shifted = [moved[other | top] for other in range(top)]
            mean = leibniz(_mean, policy, shifted, part)
            centred[part] = add(shifted[part], None if mean is None else -mean)
        policy.append(leibniz(np.multiply, policy, centred, rest))
    return policy


def pivoted(policy: Part, values: Parts) -> list[Part]:
    """Each part less its value at the most probable action.

    Means under a policy, or under a policy's derivatives, do not see a shift that is the same for
    all actions; but where the policy is peaked, its rounding would drown what is left of them.
    """
    probabilities = required(policy)
    first = np.eye(probabilities.shape[-1])[probabilities.argmax(axis=-1)]
    return [
        None if part is None else part - (part * first).sum(axis=-1, keepdims=True)
        for part in values
    ]


def _mean(weights: FloatArray, values: FloatArray) -> FloatArray:
    mean: FloatArray = (weights * values).sum(axis=-1, keepdims=True)
    return mean
