"""The exact bias of T-step samples for infinite-horizon derivatives, in closed form.

Samples of T steps, bootstrapped with values v held fixed, are at best unbiased for the derivatives
of ``J_T + gamma^T E[v(s_T)]``; wanted are those of ``J = J_T + gamma^T E[V(s_T)]``, where J_T is
the T-step return and V the policy's values. With m_T, gamma^T times the distribution of s_T, the
difference is ``sum_s m_T(s) (V - v)(s)``, in which m_T and V depend on the parameters:

- its gradient is ``m_T^T DV + (V - v)^T Dm_T``;
- its Hessian ``sum_s m_T(s) D^2 V(s) + Dm_T^T DV + DV^T Dm_T + sum_s (V - v)(s) D^2 m_T(s)``.

So exact values (v = V) do not remove the bias, as they are exact at these parameters only. A
difference of two derivatives of J would drown in rounding where gamma^T is small; these terms do
not. The mean of a particular estimator from T steps is that on ``replace(mdp, horizon=T)`` with v
as its critic: see `gradient_moments` and `hessian_estimate_mean`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.critics import check_ends, critic_rows
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import logit_gradient
from gradbias.analytic.returns.evaluation import Evaluation, single_policy
from gradbias.analytic.returns.hessians import logit_hessian
from gradbias.analytic.utils.validation import FloatArray, frozen_array, whole_number


def truncation_bias(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    steps: int,
    *,
    order: int = 1,
    critic: npt.ArrayLike | None = None,
    policy: Policy = TABULAR,
) -> FloatArray:
    """The derivative of the bootstrapped T-step return minus that of the infinite-horizon return.

    It is accurate relative to itself, however many steps there are.

    Args:
        mdp: the problem, with an infinite horizon.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        steps: T, the number of sampled steps.
        order: 1 for the gradient, 2 for the Hessian.
        critic: the bootstrap values v ``[S]``, held fixed and 0 at terminal states (default: 0).
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        Theta's axes, ``order`` times.

    Raises:
        ValueError: theta or the critic does not fit, a critic that is not 0 at terminal states, a
            finite horizon, or an order other than 1 and 2.

    Source: the policy gradient theorem applied to what follows step T; for exact values the order-1
    case is minus ``gamma^T E[grad V(s_T)]``.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.5, [1.0])
    >>> truncation_bias(bandit, [[0.0, 0.0]], 3).tolist()  # 2^-3 of the gradient
    [[-0.0625, 0.0625]]
    >>> truncation_bias(bandit, [[0.0, 0.0]], 3, critic=[1.0]).tolist()
    [[-0.0625, 0.0625]]
    """
    if mdp.horizon is not None:
        raise ValueError(f"horizon: expected None, got {mdp.horizon}")
    length = whole_number("steps", steps, at_least=1)
    if whole_number("order", order, at_least=1) > 2:
        raise ValueError(f"order: expected 1 or 2, got {order}")
    at = single_policy(mdp, theta, policy)
    values = frozen_array("critic", np.zeros(mdp.n_states) if critic is None else critic)
    check_ends(critic_rows(values, None, mdp.n_states), mdp.terminal)
    first, second = _missing(mdp, at.probabilities, length, values, order)
    if order == 1:
        return at.vjp(-first.reshape(at.size))
    return at.hessian(-first, -second)


def _missing(
    mdp: TabularMDP, policy: FloatArray, steps: int, values: FloatArray, order: int
) -> tuple[FloatArray, FloatArray]:
    """The gradient ``[n]`` and the Hessian ``[n, n]`` (empty for order 1) in the logits of
    ``sum_s m_T(s) (V - v)(s)``.
    """
    tables = mdp.tables
    gap = Evaluation(tables, policy).step_values[0] - values
    visits, visits_jacobian = _final_visits(mdp, policy, steps)
    # A batch of problems, one starting in each state, has the rows of DV as its gradients.
    from_each = Evaluation(replace(tables, start=np.eye(mdp.n_states)), policy)
    value_jacobian = logit_gradient(from_each).reshape(mdp.n_states, -1)
    gradient = visits @ value_jacobian + visits_jacobian @ gap
    if order == 1:
        return gradient, np.zeros((0, 0))
    # sum m_T D^2 V is the Hessian of the problem that starts from m_T with V; sum (V - v) D^2 m_T
    # that of the T-step problem whose only reward is V - v, held fixed, at its end.
    from_visits = Evaluation(replace(tables, start=visits), policy)
    unrewarded = replace(tables.with_reward(np.zeros_like(tables.reward)), horizon=steps)
    gap_at_end = Evaluation(replace(unrewarded, final_values=gap), policy)
    cross = visits_jacobian @ value_jacobian
    return gradient, logit_hessian(from_visits) + logit_hessian(gap_at_end) + cross + cross.T


def _final_visits(mdp: TabularMDP, policy: FloatArray, steps: int) -> tuple[FloatArray, FloatArray]:
    """``m_T [S]`` and its derivative in the logits ``[n, S]``."""
    kernel = np.einsum("sa,sax->sx", policy, mdp.transition)
    kernel_jacobian = policy[:, :, None] * (mdp.transition - kernel[:, None, :])
    visits, jacobian = mdp.start, np.zeros((policy.size, mdp.n_states))
    for _ in range(steps):
        new = (visits[:, None, None] * kernel_jacobian).reshape(jacobian.shape)
        visits, jacobian = mdp.discount * visits @ kernel, mdp.discount * (jacobian @ kernel + new)
    return visits, jacobian
