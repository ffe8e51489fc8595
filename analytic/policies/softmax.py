"""Policies as logits with derivatives: pi(a|s) = softmax of logits(theta)[s, :].

Everything exact is derived in the logits ``[S, A]``; a policy with other parameters enters through
the chain rule, so it only has to say how its logits depend on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, frozen_array


class Policy(Protocol):
    """What the exact and the stochastic side need of a policy."""

    def parameter_shape(self, n_states: int, n_actions: int) -> tuple[int, ...]:
        """The shape of theta. Raises ValueError if the policy does not fit the problem."""
        ...

    def logits(self, theta: FloatArray) -> FloatArray:
        """``[S, A]``."""
        ...

    def logit_derivatives(self, theta: FloatArray, order: int) -> tuple[FloatArray, ...]:
        """Derivatives 1..order of the logits, the k-th ``[S * A, p, ..., p]`` with k axes of
        length p = theta.size.
        """
        ...


@dataclass(frozen=True)
class TabularSoftmax:
    """The default policy: theta ``[S, A]`` are the logits themselves."""

    def parameter_shape(self, n_states: int, n_actions: int) -> tuple[int, ...]:
        """``(S, A)``."""
        return (n_states, n_actions)

    def logits(self, theta: FloatArray) -> FloatArray:
        """Theta."""
        return theta

    def logit_derivatives(self, theta: FloatArray, order: int) -> tuple[FloatArray, ...]:
        """The identity, then zeros. Dense: callers that can, dispatch on the type instead."""
        p = theta.size
        return (np.eye(p), *(np.zeros((p,) * (k + 1)) for k in range(2, order + 1)))


@dataclass(frozen=True, eq=False)
class LinearSoftmax:
    """Logits linear in the parameters: ``features [S, A, p]`` times theta ``[p]``.

    Raises:
        ValueError: features without three axes, or not finite.

    >>> shared = LinearSoftmax(np.ones((3, 2, 1)))
    >>> shared.logits(np.array([0.5])).tolist()
    [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
    """

    features: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "features", frozen_array("features", self.features, (None, None, None))
        )

    def parameter_shape(self, n_states: int, n_actions: int) -> tuple[int, ...]:
        """``(p,)``. Raises ValueError if the features are those of another problem."""
        *size, p = self.features.shape
        if size != [n_states, n_actions]:
            raise ValueError(
                f"features: expected shape ({n_states}, {n_actions}, p), got {self.features.shape}"
            )
        return (p,)

    def logits(self, theta: FloatArray) -> FloatArray:
        """``[..., S, A]`` of theta ``[..., p]``."""
        return np.tensordot(theta, self.features, axes=(-1, -1))

    def logit_derivatives(self, theta: FloatArray, order: int) -> tuple[FloatArray, ...]:
        """The features ``[S * A, p]``, then zeros."""
        p = self.features.shape[-1]
        flat = self.features.reshape(-1, p)
        return (flat, *(np.zeros((len(flat), *(p,) * k)) for k in range(2, order + 1)))


TABULAR = TabularSoftmax()
MAX_PARAMETER = 1e100


def softmax(theta: npt.ArrayLike) -> FloatArray:
    """``[..., A]``: probabilities of logits ``[..., A]``; does not overflow.

    Source: Bridle 1990.

    Raises:
        ValueError: theta is not real or not finite.

    >>> softmax([[0.0, 0.0], [1000.0, 0.0]]).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    logits = frozen_array("theta", theta)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: FloatArray = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities


def log_softmax(theta: npt.ArrayLike) -> FloatArray:
    """``[..., A]``: log-probabilities of logits ``[..., A]``; finite wherever the logits are."""
    logits = frozen_array("theta", theta)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probabilities: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_probabilities


def checked_parameters(
    policy: Policy, theta: npt.ArrayLike, n_states: int, n_actions: int, name: str = "theta"
) -> FloatArray:
    """Theta as a read-only array. Raises ValueError on a wrong shape or an infinite entry."""
    array = frozen_array(name, theta, policy.parameter_shape(n_states, n_actions))
    check_magnitude(name, array)
    return array


def check_magnitude(name: str, parameters: FloatArray) -> None:
    """Raises ValueError for parameters so large that their differences overflow."""
    if np.abs(parameters).max(initial=0.0) > MAX_PARAMETER:
        raise ValueError(f"{name}: expected entries up to {MAX_PARAMETER:g} in size, got more")


def pull_back(outer: Sequence[FloatArray], inner: Sequence[FloatArray]) -> tuple[FloatArray, ...]:
    """Derivatives 1..k of ``f(logits(theta))`` in theta, for k = len(outer) <= 3 (Faa di Bruno).

    ``outer[j]`` are the derivatives of f in the logits, ``[..., L, ..., L]``; ``inner[j]`` those of
    the logits in theta, ``[..., L, p, ..., p]``. Leading axes are batches and broadcast.
    """
    first = inner[0]
    results = [np.einsum("...i,...ip->...p", outer[0], first)]
    if len(outer) > 1:
        curved = np.einsum("...ij,...ip,...jq->...pq", outer[1], first, first, optimize=True)
        results.append(curved + np.einsum("...i,...ipq->...pq", outer[0], inner[1]))
    if len(outer) > 2:
        cubic = np.einsum(
            "...ijk,...ip,...jq,...kr->...pqr", outer[2], first, first, first, optimize=True
        )
        mixed = np.einsum("...ij,...ipq,...jr->...pqr", outer[1], inner[1], first, optimize=True)
        cubic = cubic + mixed + np.swapaxes(mixed, -1, -2) + np.moveaxis(mixed, -1, -3)
        results.append(cubic + np.einsum("...i,...ipqr->...pqr", outer[0], inner[2]))
    return tuple(results)
