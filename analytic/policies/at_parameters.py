"""A policy at given parameters: its probabilities along directions, and derivatives pulled back.

Everything exact is derived in the logits; these are the two halves of the chain rule. For a
direction v in the parameters, the logits move along ``z'(theta) v`` and, to second order, along
``z''(theta)[v, w]``; a derivative g in the logits is ``z'(theta)^T g`` in the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.jets import Part, Parts, leibniz, required, softmax_jet
from gradbias.analytic.policies.softmax import (
    LinearSoftmax,
    Policy,
    TabularSoftmax,
    check_magnitude,
    pull_back,
    softmax,
)
from gradbias.analytic.utils.validation import FloatArray, check_leading, frozen_array


@dataclass(frozen=True, eq=False)
class PolicyAt:
    """``policy`` with parameters ``theta [..., *shape]``; ``leading`` are theta's leading axes, or
    the problem's where those are more.
    """

    policy: Policy
    theta: FloatArray
    shape: tuple[int, ...]
    size: tuple[int, int]
    leading: tuple[int, ...]
    _kept: dict[int, tuple[FloatArray, ...]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def logits(self) -> FloatArray:
        """``[..., S, A]``. Raises ValueError if the policy's are not that, or not finite."""
        if isinstance(self.policy, TabularSoftmax | LinearSoftmax):
            return self.policy.logits(self.theta)
        flat = self.theta.reshape(-1, *self.shape)
        rows = [
            frozen_array("policy: its logits", self.policy.logits(one), self.size) for one in flat
        ]
        return np.reshape(rows, (*self._own, *self.size))

    @cached_property
    def probabilities(self) -> FloatArray:
        """``[..., S, A]``."""
        return softmax(self.logits)

    @property
    def _own(self) -> tuple[int, ...]:
        """The leading axes of theta."""
        return self.theta.shape[: self.theta.ndim - len(self.shape)]

    def direction(self, v: npt.ArrayLike, name: str = "v") -> FloatArray:
        """``v`` as an array ``[..., *shape]``. Raises ValueError on a wrong shape or entry."""
        array = frozen_array(name, v)
        check_leading(name, array, self.shape, self.leading)
        check_magnitude(name, array)
        return array

    def _derivatives(self, order: int) -> tuple[FloatArray, ...]:
        """Those of the logits, ``[..., n, p, ...]`` (n = S * A), to at least that order."""
        known = self._kept.get(order)
        if known is None:
            flat = self.theta.reshape(-1, *self.shape)
            every = [self.policy.logit_derivatives(one, order) for one in flat]
            parts = [np.stack(one) for one in zip(*every, strict=True)]
            known = tuple(part.reshape(self._own + part.shape[1:]) for part in parts)
            self._kept[order] = known
        return known

    def _along(self, order: int, directions: Sequence[FloatArray]) -> FloatArray:
        """The derivative of that order of the logits, contracted with directions from the last
        axis on: ``[..., n]``, or ``[..., n, p]`` where one axis is left.
        """
        if isinstance(self.policy, LinearSoftmax) and order == 1:
            found = self.policy.features.reshape(-1, *self.shape)
        else:
            found = self._derivatives(order)[order - 1]
        for left, v in zip(range(order, 0, -1), directions, strict=False):
            leading = v.shape[: v.ndim - len(self.shape)]
            found = (found * v.reshape(leading + (1,) * left + (-1,))).sum(axis=-1)
        return found

    def logit_jet(self, directions: Sequence[FloatArray]) -> list[Part]:
        """The jet of the logits ``[..., S, A]`` along directions ``[..., *shape]``."""
        parts: list[Part] = [self.logits]
        for mask in range(1, 1 << len(directions)):
            chosen = [v for i, v in enumerate(directions) if mask >> i & 1]
            if isinstance(self.policy, TabularSoftmax | LinearSoftmax):
                parts.append(self.policy.logits(chosen[0]) if len(chosen) == 1 else None)
            else:
                along = self._along(len(chosen), chosen)
                parts.append(along.reshape(along.shape[:-1] + self.size))
        return parts

    def jet(self, directions: Sequence[FloatArray]) -> list[Part]:
        """The jet of the action probabilities ``[..., S, A]``."""
        return softmax_jet(self.logit_jet(directions))

    def vjp(self, field: FloatArray) -> FloatArray:
        """``z'(theta)^T g`` of ``g [..., S, A]``, shaped ``[..., *shape]``."""
        return self.vjp_jet([field], [])

    def vjp_jet(self, fields: Parts, directions: Sequence[FloatArray]) -> FloatArray:
        """The last part of the jet of ``z'(theta)^T g``, from the jet of g ``[..., S, A]``."""
        last = len(fields) - 1
        if isinstance(self.policy, TabularSoftmax):
            return required(fields[last])
        jacobians: list[Part] = []
        for mask in range(len(fields)):
            chosen = [v for i, v in enumerate(directions) if mask >> i & 1]
            constant = chosen and isinstance(self.policy, LinearSoftmax)
            jacobians.append(None if constant else self._along(len(chosen) + 1, chosen))
        found = required(leibniz(_transposed_product, jacobians, fields, last))
        return found.reshape(found.shape[:-1] + self.shape)

    def hessian(self, gradient: FloatArray, hessian: FloatArray) -> FloatArray:
        """The Hessian in the parameters from gradient ``[..., n]`` and Hessian ``[..., n, n]`` in
        the logits: ``[..., *shape, *shape]``.
        """
        if isinstance(self.policy, TabularSoftmax):
            flat = hessian
        elif isinstance(self.policy, LinearSoftmax):
            first = self.policy.features.reshape(-1, *self.shape)
            flat = np.matmul(first.T, np.matmul(hessian, first))
        else:
            flat = pull_back([gradient, hessian], self._derivatives(2))[1]
        return flat.reshape(flat.shape[:-2] + self.shape * 2)


def _transposed_product(jacobian: FloatArray, field: FloatArray) -> FloatArray:
    flat = field.reshape(*field.shape[:-2], 1, -1)
    found: FloatArray = np.matmul(flat, jacobian)[..., 0, :]
    return found


def policy_at(
    policy: Policy,
    theta: npt.ArrayLike,
    n_states: int,
    n_actions: int,
    leading: tuple[int, ...] = (),
    name: str = "theta",
) -> PolicyAt:
    """The policy at ``theta [..., *shape]``; ``leading`` are the axes of many problems.

    Raises:
        ValueError: a wrong shape, an entry that is not finite, or leading axes that do not match.
    """
    shape = policy.parameter_shape(n_states, n_actions)
    array = frozen_array(name, theta)
    check_leading(name, array, shape, leading)
    check_magnitude(name, array)
    own = array.shape[: array.ndim - len(shape)]
    longest = own if len(own) > len(leading) else leading
    return PolicyAt(policy, array, shape, (n_states, n_actions), longest)
