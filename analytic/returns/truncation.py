"""What T-step samples miss of the infinite-horizon derivatives, in closed form.

Samples of T steps, bootstrapped with values v held fixed, are at best unbiased for the derivatives
of ``J_T + gamma^T E[v(s_T)]``, where those of ``J = J_T + gamma^T E[V(s_T)]`` are wanted. With the
discounted law m_T of s_T the missing part is ``sum_s m_T(s) (V - v)(s)``, in which m_T and V move
with the parameters and v does not:

- its gradient is ``m_T^T DV + (V - v)^T Dm_T``;
- its Hessian ``sum_s m_T(s) D^2 V(s) + Dm_T^T DV + DV^T Dm_T + sum_s (V - v)(s) D^2 m_T(s)``.

So exact values (v = V) do not undo the truncation: they are right at these parameters only. As a
difference of two derivatives of J this would drown in rounding where gamma^T is small.

What a particular estimator makes of T steps is its mean on ``replace(mdp, horizon=T)``, with the
values as its critic and ``gae_lambda``: see `gradient_moments` and `hessian_estimate_mean`.
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
    """The derivative of the ``steps``-step return, bootstrapped with ``critic [S]`` (default 0)
    held fixed, less that of the infinite-horizon return: theta's axes ``order`` (1 or 2) times,
    ``[S, A]`` for a tabular gradient.

    Accurate relative to itself, however many steps there are.

    Source: the policy gradient theorem applied to what follows step T; for exact values the order-1
    case is minus ``gamma^T E[grad V(s_T)]``.

    Raises:
        ValueError: theta or the critic does not fit, a critic that is not 0 at terminal states, a
            finite horizon, or an order other than 1 and 2.

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
    slope, curved = _missing(mdp, at.probabilities, length, values, order)
    if order == 1:
        return at.vjp(-slope.reshape(at.size))
    return at.hessian(-slope, -curved)


def _missing(
    mdp: TabularMDP, policy: FloatArray, steps: int, values: FloatArray, order: int
) -> tuple[FloatArray, FloatArray]:
    """Gradient ``[n]`` and Hessian ``[n, n]`` (``[0, 0]`` to order 1) of what is missing, in the
    logits.
    """
    tables = mdp.tables
    gap = Evaluation(tables, policy).step_values[0] - values
    law, law_jacobian = _law(mdp, policy, steps)
    from_each = Evaluation(replace(tables, start=np.eye(mdp.n_states)), policy)
    value_jacobian = logit_gradient(from_each).reshape(mdp.n_states, -1)
    slope = law @ value_jacobian + law_jacobian @ gap
    if order == 1:
        return slope, np.zeros((0, 0))
    from_law = Evaluation(replace(tables, start=law), policy)
    unpaid = replace(tables.with_reward(np.zeros_like(tables.reward)), horizon=steps)
    paid_last = Evaluation(replace(unpaid, final_values=gap), policy)
    cross = law_jacobian @ value_jacobian
    return slope, logit_hessian(from_law) + logit_hessian(paid_last) + cross + cross.T


def _law(mdp: TabularMDP, policy: FloatArray, steps: int) -> tuple[FloatArray, FloatArray]:
    """``m_T [S]``, gamma^T times the law of s_T, and its derivative in the logits ``[n, S]``."""
    kernel = np.einsum("sa,sax->sx", policy, mdp.transition)
    turned = policy[:, :, None] * (mdp.transition - kernel[:, None, :])
    law, jacobian = mdp.start, np.zeros((policy.size, mdp.n_states))
    for _ in range(steps):
        own = (law[:, None, None] * turned).reshape(jacobian.shape)
        law, jacobian = mdp.discount * law @ kernel, mdp.discount * (jacobian @ kernel + own)
    return law, jacobian
