"""The Hessian of the return in the logits, as a matrix.

With ``m_t`` the discounted occupancy, ``A_t`` the advantage and ``w_t = pi A_t`` it is ``sum_t D_t
+ X_t + X_t^T``: D_t is block diagonal with blocks ``m_t(s) [diag(w) - w pi^T - pi w^T]``; X_t, the
sum over s and a of ``m_t(s) grad pi(a|s) (grad Q_t(s,a))^T``, carries how later values depend on
the parameters.
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
    """``[..., n, n]``, n = S * A."""
    pi, tables = exact.policy, exact.tables
    n_states, n_actions = pi.shape[-2:]
    n = n_states * n_actions
    leading = exact.occupancy.shape[:-2]
    ahead = np.zeros((n, *leading, n_states, n_actions))
    for t, jacobian in _later_value_jacobians(exact):
        moved = tables.kernel.expect(jacobian)[..., 0, :, :]
        ahead += exact.occupancy[..., t, :, None] * moved
    ahead = required(pivoted(pi, [tables.per_step() * ahead])[0])
    cross: FloatArray = pi * (ahead - (pi * ahead).sum(axis=-1, keepdims=True))
    half = np.moveaxis(cross.reshape(n, *leading, n), 0, -1)
    full = half + np.swapaxes(half, -1, -2)
    shaped = full.reshape(*leading, n_states, n_actions, n_states, n_actions)
    states = np.arange(n_states)
    # Indexed axes come first: [S, ..., A, A].
    blocks = block_term(field_over_time(exact.occupancy, exact), pi)
    shaped[..., states, :, states, :] += np.moveaxis(blocks, -3, 0)
    return full


def block_term(weighted: FloatArray, policy: FloatArray) -> FloatArray:
    """``[..., S, A, A]``: sum_{t,a} m_t(s) Q_t(s,a) d2 pi(a|s), the part that LVC keeps, from
    ``sum_t m_t pi A_t [..., S, A]``.
    """
    outer = weighted[..., :, None] * policy[..., None, :]
    diagonal = np.eye(policy.shape[-1]) * weighted[..., :, None]
    block: FloatArray = diagonal - outer - np.swapaxes(outer, -1, -2)
    return block


def _later_value_jacobians(exact: Evaluation) -> Iterator[tuple[int, FloatArray]]:
    """Each t with dV_{t+1}/dtheta ``[n, ..., 1, S]``, the last first; one is held at a time."""
    weighted = exact.policy[..., None, :, :] * exact.advantages
    *leading, steps, n_states, n_actions = weighted.shape
    system, states = exact.system, np.arange(n_states)

    def own(t: int) -> FloatArray:
        found = np.zeros((n_states, n_actions, *leading, 1, n_states))
        found[states, ..., 0, states] = np.moveaxis(weighted[..., t, :, :], (-2, -1), (0, 1))
        return found.reshape(-1, *found.shape[2:])

    if not isinstance(system, Recursion):
        yield 0, system.solve(own(0))
        return
    jacobian = np.zeros((n_states * n_actions, *leading, 1, n_states))
    for t in reversed(range(steps)):
        yield t, jacobian
        jacobian = own(t) + system.matrix.apply(jacobian)
