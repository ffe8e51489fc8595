"""From coefficients to derivatives in the policy's parameters theta.

A visit is one step's state and action. With c, C, ... the surrogate's derivatives in the
log-probabilities of its visits, and u_i the score of visit i, the chain rule gives

    gradient = sum_i c_i u_i,     Hessian = sum_ij C_ij u_i u_j^T + sum_i c_i grad u_i,

and so on. It is applied in the logits of the visited states, where ``u = e_a - pi`` and
``grad u = -(diag(pi) - pi pi^T)`` depend on theta through pi alone. These logits are few, so that a
tabular estimate is a sparse row of theta; for any other policy the logits' own derivatives follow.
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

    Attributes:
        values: entries of the estimates, ``[B, K]``.
        indices: their places in the flattened estimate, ``[B, K]``; None: all entries, in order.
            If an estimate repeats an index, all of its values there but one are 0.
        shape: the shape of one estimate.
        largest: the largest absolute term of the estimates: 0 only if the estimator is identically
            0, not if its terms cancel at this policy.
    """

    values: FloatArray
    indices: IntArray | None
    shape: tuple[int, ...]
    largest: float

    @classmethod
    def of_dense(cls, values: FloatArray) -> Rows:
        """The rows of dense estimates ``[B, *shape]``."""
        largest = float(np.abs(values).max(initial=0.0))
        return cls(values.reshape(len(values), -1), None, values.shape[1:], largest)

    def first(self, count: int) -> Rows:
        """The first ``count`` estimates."""
        indices = None if self.indices is None else self.indices[:count]
        return Rows(self.values[:count], indices, self.shape, self.largest)

    @property
    def size(self) -> int:
        """The number of entries of one estimate."""
        return int(np.prod(self.shape))

    def dense(self) -> FloatArray:
        """The estimates as an array ``[B, *shape]``."""
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
    """The visits of B replications, V each, as rows of the table of logits.

    Attributes:
        rows: the row of each visit, ``[B, V]``.
        n_rows: the number of rows in the table.
        actions: the action of each visit, ``[B, V]``.
        alive: whether the visit is before the end of the episode, ``[B, V]``.
        policy: the probabilities at each visit, ``[B, V, A]``.
        own: the number of visits of the first player; the rest are the second's.
    """

    rows: IntArray
    n_rows: int
    actions: IntArray
    alive: BoolArray
    policy: FloatArray
    own: int

    @property
    def scores(self) -> FloatArray:
        """The derivative ``[B, V, A]`` of each visit's log-probability in its logits."""
        chosen = np.arange(self.policy.shape[-1]) == self.actions[..., None]
        # The chosen action's 1 - pi as the sum of the others: accurate where pi is nearly 1.
        others = np.where(chosen, 0.0, self.policy)
        scores = np.where(chosen, others.sum(axis=-1, keepdims=True), -others)
        return scores * self.alive[..., None]

    def spread(self, array: FloatArray, leaves: tuple[str, ...], *, totals: bool) -> FloatArray:
        """Maps the second axis of ``array [B, M, ...]`` from leaf entries to logits.

        Returns:
            ``[B, ..., V * A]``; with ``totals`` each visit's sum over its leaf entries instead,
            ``[B, ..., V]``.
        """
        n_actions = self.policy.shape[-1]
        rest = array.shape[2:]
        flat = array.reshape(*array.shape[:2], -1)
        out = np.zeros((len(array), flat.shape[2], self.rows.shape[1], n_actions))
        sums = np.zeros(out.shape[:3])
        begin = 0
        for leaf in leaves:
            other = leaf.startswith("other.")
            where = slice(self.own, None) if other else slice(0, self.own)
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


def logit_derivatives(coefficients: Coefficients, visits: Visits) -> tuple[FloatArray, ...]:
    """Derivatives 1..k ``[B, V * A, ...]`` of the surrogates in the logits of their visits."""
    results = []
    for k, derivative in enumerate(coefficients.derivatives, start=1):
        spread = derivative
        for _ in range(k):
            spread = visits.spread(spread, coefficients.leaves, totals=False)
        results.append(spread)
    if len(results) > 1:
        _add_score_derivatives(results[1], coefficients, visits)
    if len(results) > 2:
        _add_third_order_terms(results[2], coefficients, visits)
    return tuple(results)


def _add_score_derivatives(hessian: FloatArray, coefficients: Coefficients, visits: Visits) -> None:
    """Adds ``sum_i c_i grad u_i`` in place: one block for each visit."""
    count, n_actions = visits.policy.shape[1:]
    at = np.arange(count)
    weights = visits.spread(coefficients.derivatives[0], coefficients.leaves, totals=True)
    blocks = hessian.reshape(-1, count, n_actions, count, n_actions)
    curvature = weights[..., None, None] * _covariance(visits.policy)
    blocks[:, at, :, at, :] -= np.moveaxis(curvature, 1, 0)


def _add_third_order_terms(third: FloatArray, coefficients: Coefficients, visits: Visits) -> None:
    """Adds ``sum_ij C_ij grad u_i u_j``, in the three orders of its axes, and
    ``sum_i c_i grad^2 u_i``, in place.
    """
    count, n_actions = visits.policy.shape[1:]
    at = np.arange(count)
    # partial [B, V, V * A] is C with one index summed over its visit, the other in logits.
    partial = visits.spread(coefficients.derivatives[1], coefficients.leaves, totals=True)
    partial = visits.spread(partial, coefficients.leaves, totals=False)
    partial = partial.reshape(-1, count, count * n_actions)
    pairs = _covariance(visits.policy)[..., None] * partial[:, :, None, None, :]
    mixed = np.zeros((len(third), count, n_actions, count, n_actions, count * n_actions))
    mixed[:, at, :, at] -= np.moveaxis(pairs, 1, 0)
    mixed = mixed.reshape(third.shape)
    third += mixed + np.swapaxes(mixed, 2, 3) + np.moveaxis(mixed, 3, 1)
    weights = visits.spread(coefficients.derivatives[0], coefficients.leaves, totals=True)
    cubes = third.reshape(-1, *(count, n_actions) * 3)
    curvature = weights[..., None, None, None] * _third_cumulant(visits.policy)
    cubes[:, at, :, at, :, at, :] -= np.moveaxis(curvature, 1, 0)


def _covariance(policy: FloatArray) -> FloatArray:
    """``[..., A, A]``: diag(pi) - pi pi^T, the second derivative of log-sum-exp in the logits."""
    covariance = -policy[..., :, None] * policy[..., None, :]
    n = np.arange(policy.shape[-1])
    covariance[..., n, n] = 0.0
    # pi (1 - pi) as minus the sum of the others: accurate where pi is nearly 1.
    covariance[..., n, n] = -covariance.sum(axis=-1)
    return covariance


def _third_cumulant(policy: FloatArray) -> FloatArray:
    """``[..., A, A, A]``: the third derivative of log-sum-exp in the logits."""
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
    coefficients: Coefficients,
    visits: Visits,
    policy: Policy,
    theta: FloatArray,
    shape: tuple[int, ...],
) -> Rows:
    """The estimates of the coefficients' highest order, of ``shape``, one for each replication."""
    derivatives = logit_derivatives(coefficients, visits)
    order = len(derivatives)
    largest = max(float(np.abs(d).max(initial=0.0)) for d in coefficients.derivatives)
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
) -> tuple[FloatArray, IntArray | None]:
    """Values and their indices in the flattened estimate, visit by visit; where there are more
    visits than rows of the table, the values of all entries, and None.
    """
    count, n_actions = visits.policy.shape[1:]
    batch = len(derivative)
    if count > visits.n_rows:
        every_row = np.arange(visits.n_rows)
        dense = _added_up(derivative, visits.rows[:, :, None] == every_row, order, n_actions)
        return dense.reshape(batch, -1), None
    first = np.argmax(visits.rows[:, :, None] == visits.rows[:, None, :], axis=2)
    if (first != np.arange(count)).any():
        at_first = first[:, :, None] == np.arange(count)
        derivative = _added_up(derivative, at_first, order, n_actions)
    width = count * n_actions
    entries = (visits.rows[..., None] * n_actions + np.arange(n_actions)).reshape(batch, width)
    indices = entries
    for _ in range(order - 1):
        indices = indices[..., None] * (visits.n_rows * n_actions)
        indices = (indices + entries[:, None, :]).reshape(batch, -1)
    return derivative.reshape(batch, -1), indices


def _added_up(derivative: FloatArray, onto: BoolArray, order: int, n_actions: int) -> FloatArray:
    """The derivative with visits added up: visit t goes to the place u where ``onto [B, V, U]``.

    Variances are computed from squared entries, so that an entry must be in one place.
    """
    batch, count, places = onto.shape
    weights = onto.astype(np.float64)
    for _ in range(order):
        rest = derivative.shape[2:]
        split = derivative.reshape(batch, count, n_actions, -1)
        added = np.einsum("btu,btar->buar", weights, split, optimize=True)
        derivative = np.moveaxis(added.reshape(batch, places * n_actions, *rest), 1, -1)
    return derivative
