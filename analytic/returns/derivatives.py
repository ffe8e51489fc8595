"""Gradient, Hessian, third derivatives and mixed products of the expected return, in closed form.

In the logits:

- gradient: ``sum_t m_t(s) pi(a|s) A_t(s, a)`` with the discounted occupancy m_t and the advantage
  A_t (policy gradient theorem);
- Hessian: `analytic.returns.hessians`;
- products with vectors, of any order: jets of the policy gradient (`analytic.returns.value_jets`).

Another policy's derivatives follow by the chain rule on its logits. Shapes: theta's axes are
``[S, A]`` for the tabular softmax, ``[p]`` for a policy with p parameters; leading axes of theta,
of directions and of an `MDPBatch` lead the result.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3; the closed forms follow
by differentiating the Bellman equation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.at_parameters import PolicyAt
from gradbias.analytic.policies.jets import required
from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.tables import Problem, Tables
from gradbias.analytic.returns.evaluation import (
    Evaluation,
    check_one_policy,
    evaluate_parameters,
    policy_of,
)
from gradbias.analytic.returns.hessians import logit_hessian
from gradbias.analytic.returns.value_jets import Expansion, field_over_time
from gradbias.analytic.utils.validation import FloatArray, check_leading, frozen_array


def gradient(mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR) -> FloatArray:
    """The gradient ``dJ/dtheta`` of the expected return.

    Args:
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        Shaped like theta.

    Raises:
        ValueError: theta does not fit the policy and the problem, or is not finite.

    Source: the policy gradient theorem, Sutton et al. 2000.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> gradient(bandit, [[0.0, 0.0]]).tolist()
    [[0.25, -0.25]]
    """
    at = policy_of(mdp, theta, policy)
    return at.vjp(logit_gradient(Evaluation(mdp.tables, at.probabilities)))


def hessian(mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR) -> FloatArray:
    """The Hessian ``d2J/dtheta2`` of the expected return, as a dense matrix; `hvp` needs none.

    Args:
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        Theta's axes twice, ``[S, A, S, A]``; it takes a few times 8 (SA)^2 bytes.

    Raises:
        ValueError: theta does not fit the policy and the problem, or is not finite.

    Source: the policy Hessian theorem, Furmston et al. 2016; `analytic.returns.hessians`.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> hessian(bandit, [[1.0, 0.0]])[0, 0].round(4).tolist()
    [[-0.0909, 0.0909]]
    """
    at = policy_of(mdp, theta, policy)
    return hessian_at(at, Evaluation(mdp.tables, at.probabilities))


def hvp(
    mdp: Problem, theta: npt.ArrayLike, v: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """The Hessian of the expected return times ``v``; no Hessian is formed.

    Args:
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        v: the direction, shaped like theta; leading axes are many directions.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        Shaped like v.

    Raises:
        ValueError: theta or v does not fit the policy and the problem, or is not finite.

    Source: the derivative of the policy gradient theorem; `analytic.returns.value_jets`.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> hvp(bandit, [[1.0, 0.0]], [[1.0, 0.0]]).round(4).tolist()
    [[-0.0909, 0.0909]]
    """
    at = policy_of(mdp, theta, policy)
    return gradient_along(mdp.tables, at, [at.direction(v)])


def third_derivative(
    mdp: Problem,
    theta: npt.ArrayLike,
    v: npt.ArrayLike,
    w: npt.ArrayLike,
    *,
    policy: Policy = TABULAR,
) -> FloatArray:
    """The third derivative ``D^3 J[v, w, .]``: the derivative of ``hvp(v)`` along ``w``.

    Args:
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        v: the first direction, shaped like theta; leading axes are many directions.
        w: the second direction, likewise. ``D^3 J[C]`` for ``C = sum_k q_k q_k^T`` is the sum over
            k of the result for ``v = w = q_k``.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        Shaped like v and w.

    Raises:
        ValueError: theta, v or w does not fit the policy and the problem, or is not finite.

    Source: the second derivative of the policy gradient theorem; `analytic.returns.value_jets`.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> third_derivative(bandit, [[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]]).tolist()
    [[-0.125, 0.125]]
    """
    at = policy_of(mdp, theta, policy)
    first, second = at.direction(v), at.direction(w, "w")
    check_leading("w", second, at.shape, first.shape[: first.ndim - len(at.shape)])
    return gradient_along(mdp.tables, at, [first, second])


def state_action_occupancy(
    mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """The discounted visits to each state and action, summed over time.

    They are ``dJ/dr``, the gradient of the return in a reward that is added at every step.

    Args:
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        ``[S, A]``.

    Raises:
        ValueError: theta does not fit the policy and the problem, or is not finite.

    Source: Puterman 1994, sec. 6.9.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> state_action_occupancy(bandit, [[0.0, 0.0]]).tolist()
    [[0.5, 0.5]]
    """
    exact = evaluate_parameters(mdp, theta, policy)
    return np.asarray(exact.occupancy.sum(axis=-2)[..., None] * exact.policy)


def reward_jvp(
    mdp: Problem, theta: npt.ArrayLike, w: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """The derivative of ``dJ/dtheta`` along a change ``w`` of the reward at every step.

    The return is linear in the reward, so this is the policy gradient with w as the only reward.

    Args:
        mdp: the problem; its reward does not matter.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        w: ``[S, A]``; at a terminal state it is added at all later steps, too.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        Shaped like theta.

    Raises:
        ValueError: theta or w does not fit, or is not finite.

    Source: LIRPG, Zheng et al. 2018; *A Theoretical Understanding of Gradient Bias in Meta-RL*,
    Sec. 3.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> reward_jvp(bandit, [[0.0, 0.0]], [[0.0, 4.0]]).tolist()
    [[-1.0, 1.0]]
    """
    at = policy_of(mdp, theta, policy)
    change = checked_reward("w", w, mdp, at.leading)
    tables = mdp.tables.with_reward(change[..., None, :, :])
    return at.vjp(logit_gradient(Evaluation(tables, at.probabilities)))


def reward_vjp(
    mdp: Problem, theta: npt.ArrayLike, v: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """The transpose of `reward_jvp`: ``(d/dr) (v^T dJ/dtheta)``, the derivative of the state-action
    occupancy along ``v``.

    Args:
        mdp: the problem; its reward does not matter.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        v: the direction, shaped like theta.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        ``[S, A]``.

    Raises:
        ValueError: theta or v does not fit, or is not finite.

    Source: the mixed derivative of LIRPG in *A Theoretical Understanding of Gradient Bias in
    Meta-RL*, Sec. 3.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> reward_vjp(bandit, [[0.0, 0.0]], [[1.0, 0.0]]).tolist()
    [[0.25, -0.25]]
    """
    at = policy_of(mdp, theta, policy)
    base = Evaluation(mdp.tables, at.probabilities)
    tangent = Expansion(base, at.jet([at.direction(v)]))
    return np.asarray(required(tangent.visits[1]).sum(axis=-3))


def discount_derivative(
    mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """The derivative ``d/dgamma dJ/dtheta`` of the gradient in the discount.

    The discount enters the values and the weights gamma^t of the states; both are differentiated.

    Args:
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        Shaped like theta.

    Raises:
        ValueError: theta does not fit the policy and the problem, or is not finite.

    Source: the derivative of the policy gradient theorem; `analytic.returns.value_jets`.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.5, [1.0])
    >>> discount_derivative(bandit, [[0.0, 0.0]]).tolist()  # J = pi_0 / (1 - gamma)
    [[1.0, -1.0]]
    """
    at = policy_of(mdp, theta, policy)
    discount = mdp.tables.discount
    tangent = Expansion(
        Evaluation(mdp.tables, at.probabilities),
        policy=[at.probabilities, None],
        discount=[discount, np.ones_like(discount)],
    )
    return at.vjp(required(tangent.gradient[1]))


def logit_gradient(exact: Evaluation) -> FloatArray:
    """The gradient in the logits, ``[..., S, A]``."""
    return field_over_time(exact.occupancy, exact)


def gradient_along(tables: Tables, at: PolicyAt, directions: list[FloatArray]) -> FloatArray:
    """The gradient's mixed derivative along all directions, shaped like the parameters."""
    expansion = Expansion(Evaluation(tables, at.probabilities), at.jet(directions))
    return at.vjp_jet(expansion.gradient, directions)


def hessian_at(at: PolicyAt, exact: Evaluation) -> FloatArray:
    """The Hessian in the parameters, ``[..., *shape, *shape]``."""
    gradient = logit_gradient(exact)
    flat = gradient.reshape(*gradient.shape[:-2], -1)
    return at.hessian(flat, logit_hessian(exact))


def checked_reward(
    name: str, reward: npt.ArrayLike, mdp: Problem, leading: tuple[int, ...]
) -> FloatArray:
    """The reward as an array ``[..., S, A]``. Raises ValueError on a wrong shape or entry."""
    array = frozen_array(name, reward)
    check_leading(name, array, (mdp.n_states, mdp.n_actions), leading)
    check_one_policy(name, mdp, array.shape[:-2])
    return array
