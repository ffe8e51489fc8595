"""From coefficients to derivatives in theta.

With c, C, ... the surrogate's derivatives in the log-probabilities of its visits, and u_i the score
of visit i, the chain rule gives

    gradient = sum_i c_i u_i,     Hessian = sum_ij C_ij u_i u_j^T + sum_i c_i grad u_i,

and so on. It is done in the logits of the visited states, where ``u = e_a - pi`` and
``grad u = -(diag(pi) - pi pi^T)`` do not depend on the policy's parameters; they are few, so a
tabular estimate is a sparse row of ``theta``, and any other policy's follows from its logits'
own derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradbias.analytic.policies.softmax import Policy, TabularSoftmax, chain_rule
from gradbias.analytic.utils.validation import BoolArray, FloatArray, IntArray
from gradbias.stochastic.derivatives.coefficients import Coefficients


@dataclass(frozen=True, eq=False)
class Rows:
    """B estimates of one shape, flattened; sparse if ``indices`` is given.

    ``values [B, K]`` stand at ``indices [B, K]`` of the flattened estimate (None: all of them, in
    order). Where an estimate repeats an index, all of its values there but one are 0. ``largest``
    is the largest absolute value of what the estimates were made of: 0 only if the estimator is
    silent, not if its terms cancel at this policy.
    """

    values: FloatArray
    indices: IntArray | None
    shape: tuple[int, ...]
    largest: float

    @classmethod
    def of_dense(cls, values: FloatArray) -> Rows:
        """Estimates ``[B, *shape]`` that are given whole."""
        largest = float(np.abs(values).max(initial=0.0))
        return cls(values.reshape(len(values), -1), None, values.shape[1:], largest)

    def first(self, count: int) -> Rows:
        """The first ``count`` estimates."""
        indices = None if self.indices is None else self.indices[:count]
        return Rows(self.values[:count], indices, self.shape, self.largest)

    @property
    def size(self) -> int:
        """Entries of one estimate."""
        return int(np.prod(self.shape))

    def dense(self) -> FloatArray:
        """``[B, *shape]``."""
        if self.indices is None:
            return self.values.reshape(-1, *self.shape)
        offsets = np.arange(len(self.values))[:, None] * self.size
        flat = np.bincount(
            (self.indices + offsets).ravel(),
            weights=self.values.ravel(),
            minlength=len(self.values) * self.size,
        )
        return flat.astype(np.float64).reshape(-1, *self.shape)


@dataclass(frozen=True, eq=False)
class Visits:
    """Where the leaves of B replications sit: V visits, each a row of the table of logits.

    ``rows [B, V]`` (of ``n_rows``), ``actions [B, V]``, ``alive [B, V]``, ``policy [B, V, A]``.
    ``own`` of the V visits are the first player's, the rest the second's.
    """

    rows: IntArray
    n_rows: int
    actions: IntArray
    alive: BoolArray
    policy: FloatArray
    own: int

    @property
    def scores(self) -> FloatArray:
        """``[B, V, A]``: derivative of each visit's log-probability in its logits."""
        chosen = np.arange(self.policy.shape[-1]) == self.actions[..., None]
        # The chosen action's 1 - pi as the sum of the others: accurate where pi is nearly 1.
        others = np.where(chosen, 0.0, self.policy)
        scores = np.where(chosen, others.sum(axis=-1, keepdims=True), -others)
        return scores * self.alive[..., None]

    def spread(self, array: FloatArray, leaves: tuple[str, ...], *, totals: bool) -> FloatArray:
        """The second axis of ``array [B, M, ...]``, an axis of leaf entries, becomes the last: one
        of logits (V * A), or with ``totals`` one of visits (V) holding each visit's sum.
        """
        n_actions = self.policy.shape[-1]
        rest = array.shape[2:]
        flat = array.reshape(*array.shape[:2], -1)
        out = np.zeros((len(array), flat.shape[2], self.rows.shape[1], n_actions))
        sums = np.zeros(out.shape[:3])
        begin = 0
        for leaf in leaves:
            ours = not leaf.startswith("other.")
            where = slice(0, self.own) if ours else slice(self.own, None)
            count = self.rows[:, where].shape[1]
            if leaf.endswith("log_probs"):
                part = np.moveaxis(flat[:, begin : begin + count], 1, 2)
                sums[:, :, where] += part
                out[:, :, where] += part[..., None] * self.scores[:, None, where]
                begin += count
            else:
                width = count * n_actions
                part = np.moveaxis(flat[:, begin : begin + width], 1, 2)
                part = part.reshape(*part.shape[:2], count, n_actions)
                total = part.sum(axis=-1)
                centred = part - total[..., None] * self.policy[:, None, where]
                sums[:, :, where] += total
                out[:, :, where] += centred * self.alive[:, None, where, None]
                begin += width
        result = sums * self.alive[:, None] if totals else out.reshape(*out.shape[:2], -1)
        return result.reshape(len(array), *rest, -1)


def logit_derivatives(found: Coefficients, visits: Visits) -> tuple[FloatArray, ...]:
    """Derivatives 1..k ``[B, V * A, ...]`` of the surrogates in the logits of their visits."""
    results = []
    for k, derivative in enumerate(found.derivatives, start=1):
        spread = derivative
        for _ in range(k):
            spread = visits.spread(spread, found.leaves, totals=False)
        results.append(spread)
    if len(results) > 1:
        _bend_second(results[1], found, visits)
    if len(results) > 2:
        _bend_third(results[2], found, visits)
    return tuple(results)


def _bend_second(hessian: FloatArray, found: Coefficients, visits: Visits) -> None:
    """Adds ``sum_i c_i grad u_i``: a block a visit."""
    count, n_actions = visits.policy.shape[1:]
    at = np.arange(count)
    weights = visits.spread(found.derivatives[0], found.leaves, totals=True)
    blocks = hessian.reshape(-1, count, n_actions, count, n_actions)
    curvature = weights[..., None, None] * _covariance(visits.policy)
    blocks[:, at, :, at, :] -= np.moveaxis(curvature, 1, 0)


def _bend_third(third: FloatArray, found: Coefficients, visits: Visits) -> None:
    """Adds ``sum_ij C_ij grad u_i u_j``, in its three placements, and ``sum_i c_i grad^2 u_i``."""
    count, n_actions = visits.policy.shape[1:]
    at = np.arange(count)
    # [B, V, V * A]: one index of C summed over its visit, the other spread over logits.
    partial = visits.spread(found.derivatives[1], found.leaves, totals=True)
    partial = visits.spread(partial, found.leaves, totals=False)
    partial = partial.reshape(-1, count, count * n_actions)
    pairs = _covariance(visits.policy)[..., None] * partial[:, :, None, None, :]
    bent = np.zeros((len(third), count, n_actions, count, n_actions, count * n_actions))
    bent[:, at, :, at] -= np.moveaxis(pairs, 1, 0)
    bent = bent.reshape(third.shape)
    third += bent + np.swapaxes(bent, 2, 3) + np.moveaxis(bent, 3, 1)
    weights = visits.spread(found.derivatives[0], found.leaves, totals=True)
    cubes = third.reshape(-1, *(count, n_actions) * 3)
    curvature = weights[..., None, None, None] * _third_cumulant(visits.policy)
    cubes[:, at, :, at, :, at, :] -= np.moveaxis(curvature, 1, 0)


def _covariance(policy: FloatArray) -> FloatArray:
    """``[..., A, A]``: diag(pi) - pi pi^T, the second derivative of log-sum-exp."""
    covariance = -policy[..., :, None] * policy[..., None, :]
    n = np.arange(policy.shape[-1])
    covariance[..., n, n] = 0.0
    # pi (1 - pi) as minus the sum of the others: accurate where pi is nearly 1.
    covariance[..., n, n] = -covariance.sum(axis=-1)
    return covariance


def _third_cumulant(policy: FloatArray) -> FloatArray:
    """``[..., A, A, A]``: the third derivative of log-sum-exp."""
    eye = np.eye(policy.shape[-1])
    pairs = policy[..., :, None] * policy[..., None, :]
    cumulant: FloatArray = 2.0 * pairs[..., None] * policy[..., None, None, :]
    cumulant -= eye[:, :, None] * pairs[..., :, None, :]
    cumulant -= eye[:, None, :] * pairs[..., :, :, None]
    cumulant -= eye[None, :, :] * pairs[..., :, :, None]
    n = np.arange(policy.shape[-1])
    cumulant[..., n, n, n] += policy
    return cumulant


def assemble(
    found: Coefficients, visits: Visits, policy: Policy, theta: FloatArray, shape: tuple[int, ...]
) -> Rows:
    """The estimates of the highest order in ``found``, one a replication; ``shape`` is theirs."""
    derivatives = logit_derivatives(found, visits)
    order = len(derivatives)
    largest = max(float(np.abs(d).max(initial=0.0)) for d in found.derivatives)
    if isinstance(policy, TabularSoftmax):
        return Rows(*_tabular_entries(derivatives[-1], visits, order), shape, largest)
    n = visits.n_rows * visits.policy.shape[-1]
    dense = [
        Rows(*_tabular_entries(derivative, visits, k), (n,) * k, largest).dense()
        for k, derivative in enumerate(derivatives, start=1)
    ]
    pulled = chain_rule(dense, policy.logit_derivatives(theta, order))[-1]
    return Rows(pulled.reshape(len(pulled), -1), None, shape, largest)


def _tabular_entries(
    derivative: FloatArray, visits: Visits, order: int
) -> tuple[FloatArray, IntArray]:
    """Values and where they stand in theta, one visit's after the other's."""
    count, n_actions = visits.policy.shape[1:]
    batch = len(derivative)
    first = np.argmax(visits.rows[:, :, None] == visits.rows[:, None, :], axis=2)
    if (first != np.arange(count)).any():
        derivative = _merged(derivative, first, order, n_actions)
    width = count * n_actions
    entries = (visits.rows[..., None] * n_actions + np.arange(n_actions)).reshape(batch, width)
    indices = entries
    for _ in range(order - 1):
        indices = indices[..., None] * (visits.n_rows * n_actions)
        indices = (indices + entries[:, None, :]).reshape(batch, -1)
    return derivative.reshape(batch, -1), indices


def _merged(derivative: FloatArray, first: IntArray, order: int, n_actions: int) -> FloatArray:
    """Adds up visits to one state at its first visit, so that squares of entries are right."""
    batch, count = first.shape
    onto = (first[:, :, None] == np.arange(count)).astype(np.float64)
    for _ in range(order):
        rest = derivative.shape[2:]
        split = derivative.reshape(batch, count, n_actions, -1)
        moved = np.einsum("btu,btar->buar", onto, split, optimize=True)
        derivative = np.moveaxis(moved.reshape(batch, count * n_actions, *rest), 1, -1)
    return derivative
