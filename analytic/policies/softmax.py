"""Policies ``pi(a|s) = softmax(logits(theta)[s, :])[a]``, given by their logits and derivatives.

All exact derivatives are taken in the logits ``[S, A]``. A policy with other parameters enters by
the chain rule, so it only has to say how its logits depend on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, frozen_array, set_fields


class Policy(Protocol):
    """A parametrisation of softmax policies.

    Gradients, Hessians and estimators are all derived in the logits, where softmax's derivatives
    are known in closed form; the chain rule does the rest. So a new parametrisation needs no
    formula but its logits and their derivatives: exact functions and estimators take it as
    ``policy=``.
    """

    def parameter_shape(self, n_states: int, n_actions: int) -> tuple[int, ...]:
        """The shape of theta.

        Args:
            n_states: S, of the problem.
            n_actions: A, of the problem.

        Raises:
            ValueError: the policy does not fit the problem.
        """

    def logits(self, theta: FloatArray) -> FloatArray:
        """The logits ``[S, A]`` at theta."""

    def logit_derivatives(self, theta: FloatArray, order: int) -> tuple[FloatArray, ...]:
        """Derivatives 1..order of the logits in theta.

        Args:
            theta: the parameters.
            order: the highest order, at least 1.

        Returns:
            The k-th is ``[S * A, p, ..., p]``, with k axes of length p = theta.size.
        """


@dataclass(frozen=True)
class TabularSoftmax:
    """The default policy: theta ``[S, A]`` are the logits themselves."""

    def parameter_shape(self, n_states: int, n_actions: int) -> tuple[int, ...]:
        """The shape ``(S, A)``."""
        return (n_states, n_actions)

    def logits(self, theta: FloatArray) -> FloatArray:
        """The parameters themselves."""
        return theta

    def logit_derivatives(self, theta: FloatArray, order: int) -> tuple[FloatArray, ...]:
        """The identity, then zeros, as dense arrays; code that knows this type skips them."""
        p = theta.size
        return (np.eye(p), *(np.zeros((p,) * (k + 1)) for k in range(2, order + 1)))


@dataclass(frozen=True, eq=False)
class LinearSoftmax:
    """Logits that are linear in the parameters: ``features [S, A, p]`` times theta ``[p]``.

    Raises:
        ValueError: features without three axes, or not finite.

    >>> shared = LinearSoftmax(np.ones((3, 2, 1)))
    >>> shared.logits(np.array([0.5])).tolist()
    [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
    """

    features: FloatArray

    def __post_init__(self) -> None:
        set_fields(self, features=frozen_array("features", self.features, (None, None, None)))

    def parameter_shape(self, n_states: int, n_actions: int) -> tuple[int, ...]:
        """The shape ``(p,)``. Raises ValueError if the features are those of another problem."""
        *size, p = self.features.shape
        if size != [n_states, n_actions]:
            raise ValueError(
                f"features: expected shape ({n_states}, {n_actions}, p), got {self.features.shape}"
            )
        return (p,)

    def logits(self, theta: FloatArray) -> FloatArray:
        """The logits ``[..., S, A]`` at theta ``[..., p]``."""
        return np.tensordot(theta, self.features, axes=(-1, -1))

    def logit_derivatives(self, theta: FloatArray, order: int) -> tuple[FloatArray, ...]:
        """The features ``[S * A, p]``, then zeros."""
        p = self.features.shape[-1]
        flat = self.features.reshape(-1, p)
        return (flat, *(np.zeros((len(flat), *(p,) * k)) for k in range(2, order + 1)))


TABULAR = TabularSoftmax()
MAX_PARAMETER = 1e100
"""Size up to which parameters are accepted: differences and products of them stay finite."""


def softmax(theta: npt.ArrayLike) -> FloatArray:
    """The action probabilities of given logits, computed without overflow.

    Args:
        theta: logits ``[..., A]``.

    Returns:
        ``[..., A]``, with sum 1 over the last axis.

    Raises:
        ValueError: theta is not real or not finite.

    Source: Bridle 1990.

    >>> softmax([[0.0, 0.0], [1000.0, 0.0]]).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    logits = frozen_array("theta", theta)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def log_softmax(theta: npt.ArrayLike) -> FloatArray:
    """The log-probabilities ``[..., A]`` of logits ``[..., A]``, finite wherever the logits are."""
    logits = frozen_array("theta", theta)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def checked_parameters(
    policy: Policy, theta: npt.ArrayLike, n_states: int, n_actions: int, name: str = "theta"
) -> FloatArray:
    """The parameters as a read-only array. Raises ValueError on a wrong shape or infinite entry."""
    array = frozen_array(name, theta, policy.parameter_shape(n_states, n_actions))
    check_magnitude(name, array)
    return array


def check_magnitude(name: str, parameters: FloatArray) -> None:
    """Raises ValueError for parameters above `MAX_PARAMETER` in size."""
    if np.abs(parameters).max(initial=0.0) > MAX_PARAMETER:
        raise ValueError(f"{name}: expected entries up to {MAX_PARAMETER:g} in size, got more")


def chain_rule(outer: Sequence[FloatArray], inner: Sequence[FloatArray]) -> tuple[FloatArray, ...]:
    """Derivatives 1..k of ``f(logits(theta))`` in theta, for k = len(outer) <= 3 (Faa di Bruno).

    ``outer[j]`` is the (j+1)-th derivative of f in the logits, ``[..., L, ..., L]``; ``inner[j]``
    that of the logits in theta, ``[..., L, p, ..., p]``. Leading axes broadcast.
    """
    first = inner[0]
    results = [np.einsum("...i,...ip->...p", outer[0], first)]
    if len(outer) > 1:
        second = np.einsum("...ij,...ip,...jq->...pq", outer[1], first, first, optimize=True)
        results.append(second + np.einsum("...i,...ipq->...pq", outer[0], inner[1]))
    if len(outer) > 2:
        cubic = np.einsum(
            "...ijk,...ip,...jq,...kr->...pqr", outer[2], first, first, first, optimize=True
        )
        mixed = np.einsum("...ij,...ipq,...jr->...pqr", outer[1], inner[1], first, optimize=True)
        cubic = cubic + mixed + np.swapaxes(mixed, -1, -2) + np.moveaxis(mixed, -1, -3)
        results.append(cubic + np.einsum("...i,...ipqr->...pqr", outer[0], inner[2]))
    return tuple(results)
