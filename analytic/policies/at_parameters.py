"""A policy at given parameters, and the chain rule between its parameters and its logits.

All exact derivatives are taken in the logits ``z(theta)``. A direction v in the parameters is the
direction ``z'(theta) v`` in the logits (with the second derivative ``z''(theta)[v, w]`` along v and
w), and a gradient g in the logits is the vector-Jacobian product ``z'(theta)^T g`` in the
parameters.
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
    chain_rule,
    check_magnitude,
    softmax,
)
from gradbias.analytic.utils.validation import FloatArray, check_leading, frozen_array


@dataclass(frozen=True, eq=False)
class PolicyAt:
    """A policy with parameters theta."""

    policy: Policy  # maps theta to logits
    theta: FloatArray  # the parameters, [..., *shape]
    shape: tuple[int, ...]  # of one policy's parameters
    size: tuple[int, int]  # (S, A)
    leading: tuple[int, ...]  # theta's leading axes, or the problem's if those are more
    _cache: dict[int, tuple[FloatArray, ...]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def logits(self) -> FloatArray:
        """The logits ``[..., S, A]``. Raises ValueError on another shape or infinite numbers."""
        if isinstance(self.policy, TabularSoftmax | LinearSoftmax):
            return self.policy.logits(self.theta)
        rows = [
            frozen_array("policy: its logits", self.policy.logits(theta), self.size)
            for theta in self.theta.reshape(-1, *self.shape)
        ]
        return np.reshape(rows, (*self._theta_leading, *self.size))

    @cached_property
    def probabilities(self) -> FloatArray:
        """The action probabilities, ``[..., S, A]``."""
        return softmax(self.logits)

    @property
    def _theta_leading(self) -> tuple[int, ...]:
        """The leading axes of theta."""
        return self.theta.shape[: self.theta.ndim - len(self.shape)]

    def direction(self, v: npt.ArrayLike, name: str = "v") -> FloatArray:
        """The direction ``v`` as an array ``[..., *shape]``; ValueError if it does not fit."""
        array = frozen_array(name, v)
        check_leading(name, array, self.shape, self.leading)
        check_magnitude(name, array)
        return array

    def _derivatives(self, order: int) -> tuple[FloatArray, ...]:
        """Derivatives 1..order of the logits, the k-th ``[..., n, p, .., p]`` with n = S * A."""
        derivatives = self._cache.get(order)
        if derivatives is None:
            flat = self.theta.reshape(-1, *self.shape)
            each_theta = [self.policy.logit_derivatives(theta, order) for theta in flat]
            stacked = [np.stack(parts) for parts in zip(*each_theta, strict=True)]
            derivatives = tuple(
                part.reshape(self._theta_leading + part.shape[1:]) for part in stacked
            )
            self._cache[order] = derivatives
        return derivatives

    def _along(self, order: int, directions: Sequence[FloatArray]) -> FloatArray:
        """The logits' derivative of that order, contracted with directions from the last axis on:
        ``[..., n]``, or ``[..., n, p]`` if there is one direction less than the order.
        """
        if isinstance(self.policy, LinearSoftmax) and order == 1:
            tensor = self.policy.features.reshape(-1, *self.shape)
        else:
            tensor = self._derivatives(order)[order - 1]
        for axes, v in zip(range(order, 0, -1), directions, strict=False):
            leading = v.shape[: v.ndim - len(self.shape)]
            tensor = (tensor * v.reshape(leading + (1,) * axes + (-1,))).sum(axis=-1)
        return tensor

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
        """The jet of the action probabilities ``[..., S, A]`` along directions."""
        return softmax_jet(self.logit_jet(directions))

    def vjp(self, field: FloatArray) -> FloatArray:
        """The product ``z'(theta)^T g`` for ``g [..., S, A]``, shaped ``[..., *shape]``."""
        return self.vjp_jet([field], [])

    def vjp_jet(self, fields: Parts, directions: Sequence[FloatArray]) -> FloatArray:
        """The mixed derivative of ``z'(theta)^T g(theta)`` along all directions.

        Args:
            fields: the jet of g ``[..., S, A]`` along the directions.
            directions: each ``[..., *shape]``.

        Returns:
            ``[..., *shape]``.
        """
        last = len(fields) - 1
        if isinstance(self.policy, TabularSoftmax):
            return required(fields[last])
        jacobians: list[Part] = []
        for mask in range(len(fields)):
            chosen = [v for i, v in enumerate(directions) if mask >> i & 1]
            constant = chosen and isinstance(self.policy, LinearSoftmax)
            jacobians.append(None if constant else self._along(len(chosen) + 1, chosen))
        flat = required(leibniz(_transposed_product, jacobians, fields, last))
        return flat.reshape(flat.shape[:-1] + self.shape)

    def hessian(self, gradient: FloatArray, hessian: FloatArray) -> FloatArray:
        """The Hessian in the parameters, ``[..., *shape, *shape]``.

        Args:
            gradient: in the logits, ``[..., n]`` with n = S * A.
            hessian: in the logits, ``[..., n, n]``.
        """
        if isinstance(self.policy, TabularSoftmax):
            flat = hessian
        elif isinstance(self.policy, LinearSoftmax):
            first = self.policy.features.reshape(-1, *self.shape)
            flat = np.matmul(first.T, np.matmul(hessian, first))
        else:
            flat = chain_rule([gradient, hessian], self._derivatives(2))[1]
        return flat.reshape(flat.shape[:-2] + self.shape * 2)


def _transposed_product(jacobian: FloatArray, field: FloatArray) -> FloatArray:
    """``z'^T g`` for ``z' [..., n, p]`` and ``g [..., S, A]``: ``[..., p]``."""
    flat = field.reshape(*field.shape[:-2], 1, -1)
    return np.asarray(np.matmul(flat, jacobian)[..., 0, :])


def policy_at(
    policy: Policy,
    theta: npt.ArrayLike,
    n_states: int,
    n_actions: int,
    leading: tuple[int, ...] = (),
    name: str = "theta",
) -> PolicyAt:
    """The policy at ``theta [..., *shape]``, where ``leading`` are the problems' leading axes.
    Raises ValueError on a wrong shape, an infinite entry, or leading axes that do not match.
    """
    shape = policy.parameter_shape(n_states, n_actions)
    array = frozen_array(name, theta)
    check_leading(name, array, shape, leading)
    check_magnitude(name, array)
    theta_leading = array.shape[: array.ndim - len(shape)]
    longest = theta_leading if len(theta_leading) > len(leading) else leading
    return PolicyAt(policy, array, shape, (n_states, n_actions), longest)
