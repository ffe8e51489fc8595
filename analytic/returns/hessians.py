"""The Hessian of the return in the logits, as a matrix.

With ``m_t`` the discounted occupancy, ``A_t`` the advantage and ``w_t = pi A_t`` it is ``sum_t D_t
+ X_t + X_t^T``. D_t is block diagonal with blocks ``m_t(s) [diag(w_t) - w_t pi^T - pi w_t^T]``;
``X_t = sum_{s,a} m_t(s) grad pi(a|s) (grad Q_t(s,a))^T`` has the derivatives of later values.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradbias.analytic.policies.jets import pivoted, required
from gradbias.analytic.returns.bellman import Recursion
from gradbias.analytic.returns.evaluation import Evaluation
from gradbias.analytic.returns.value_jets import field_over_time
from gradbias.analytic.utils.validation import FloatArray


def logit_hessian(exact: Evaluation) -> FloatArray:
    """The Hessian in the logits, ``[..., n, n]`` with n = S * A."""
    pi, tables = exact.policy, exact.tables
    n_states, n_actions = pi.shape[-2:]
    n = n_states * n_actions
    leading = exact.occupancy.shape[:-2]
    ahead = np.zeros((n, *leading, n_states, n_actions))
    for t, jacobian in _later_value_jacobians(exact):
        mean_jacobian = tables.kernel.expect(jacobian)[..., 0, :, :]
        ahead += exact.occupancy[..., t, :, None] * mean_jacobian
    ahead = required(pivoted(pi, [tables.per_step() * ahead])[0])
    cross: FloatArray = pi * (ahead - (pi * ahead).sum(axis=-1, keepdims=True))
    half = np.moveaxis(cross.reshape(n, *leading, n), 0, -1)
    full = half + np.swapaxes(half, -1, -2)
    shaped = full.reshape(*leading, n_states, n_actions, n_states, n_actions)
    states = np.arange(n_states)
    # numpy puts the axes of index arrays first, so the blocks are added as [S, ..., A, A].
    blocks = block_term(field_over_time(exact.occupancy, exact), pi)
    shaped[..., states, :, states, :] += np.moveaxis(blocks, -3, 0)
    return full


def block_term(weighted: FloatArray, policy: FloatArray) -> FloatArray:
    """``sum_{t,a} m_t(s) Q_t(s,a) d2 pi(a|s)``, ``[..., S, A, A]``, from ``sum_t m_t pi A_t [...,
    S, A]``. This is the part of the Hessian that LVC keeps.
    """
    outer = weighted[..., :, None] * policy[..., None, :]
    diagonal = np.eye(policy.shape[-1]) * weighted[..., :, None]
    return np.asarray(diagonal - outer - np.swapaxes(outer, -1, -2))


def _later_value_jacobians(exact: Evaluation) -> Iterator[tuple[int, FloatArray]]:
    """Pairs of t and dV_{t+1}/dtheta ``[n, ..., 1, S]``, the last t first, made one by one."""
    weighted = exact.policy[..., None, :, :] * exact.advantages
    *leading, steps, n_states, n_actions = weighted.shape
    system, states = exact.system, np.arange(n_states)

    def right_side(t: int) -> FloatArray:
        entries = np.zeros((n_states, n_actions, *leading, 1, n_states))
        entries[states, ..., 0, states] = np.moveaxis(weighted[..., t, :, :], (-2, -1), (0, 1))
        return entries.reshape(-1, *entries.shape[2:])

    if not isinstance(system, Recursion):
        yield 0, system.solve(right_side(0))
        return
    jacobian = np.zeros((n_states * n_actions, *leading, 1, n_states))
    for t in reversed(range(steps)):
        yield t, jacobian
        jacobian = right_side(t) + system.matrix.apply(jacobian)
