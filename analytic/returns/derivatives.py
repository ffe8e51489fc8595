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
    """dJ/dtheta, shaped like theta (``[S, A]`` for the tabular softmax).

    Source: the policy gradient theorem, Sutton et al. 2000.

    Raises:
        ValueError: theta does not fit the policy and the problem, or is not finite.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> gradient(bandit, [[0.0, 0.0]]).tolist()
    [[0.25, -0.25]]
    """
    at = policy_of(mdp, theta, policy)
    return at.vjp(logit_gradient(Evaluation(mdp.tables, at.probabilities)))


def hessian(mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR) -> FloatArray:
    """d2J/dtheta2, theta's axes twice (``[S, A, S, A]`` for the tabular softmax).

    Dense: a few times 8 (SA)^2 bytes. `hvp` needs no matrix.

    Source: the policy Hessian theorem, Furmston et al. 2016; `analytic.returns.hessians`.

    Raises:
        ValueError: theta does not fit the policy and the problem, or is not finite.

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
    """The Hessian of the expected return times ``v``, shaped like theta; no Hessian is formed.

    Many directions at once are leading axes of ``v``.

    Source: the derivative of the policy gradient theorem; `analytic.returns.value_jets`.

    Raises:
        ValueError: theta or v does not fit the policy and the problem, or is not finite.

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
    """``D^3 J[v, w, .]``, the Hessian's change along ``w`` times ``v``, shaped like theta.

    Leading axes of v and w are directions: ``D^3 J[C]`` for ``C = sum_k q_k q_k^T`` is the sum over
    ``third_derivative(mdp, theta, q, q)``.

    Source: the second derivative of the policy gradient theorem; `analytic.returns.value_jets`.

    Raises:
        ValueError: theta, v or w does not fit the policy and the problem, or is not finite.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> third_derivative(bandit, [[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]]).tolist()
    [[-0.125, 0.125]]
    """
    at = policy_of(mdp, theta, policy)
    first, second = at.direction(v), at.direction(w, "w")
    shortest = first.ndim - len(at.shape)
    check_leading("w", second, at.shape, first.shape[:shortest])
    return gradient_along(mdp.tables, at, [first, second])


def state_action_occupancy(
    mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """Discounted visits to each state and action ``[S, A]``, summed over time: dJ/dr, the gradient
    of the return in a reward added at every step (an intrinsic reward).

    Source: Puterman 1994, sec. 6.9.

    Raises:
        ValueError: theta does not fit the policy and the problem, or is not finite.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> state_action_occupancy(bandit, [[0.0, 0.0]]).tolist()
    [[0.5, 0.5]]
    """
    exact = evaluate_parameters(mdp, theta, policy)
    visits: FloatArray = exact.occupancy.sum(axis=-2)[..., None] * exact.policy
    return visits


def reward_jvp(
    mdp: Problem, theta: npt.ArrayLike, w: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """How dJ/dtheta changes along a reward change ``w [S, A]`` at every step, shaped like theta.

    The return is linear in the reward, so this is the gradient where w alone is paid (at terminal
    states too, for ever, if it is not 0 there).

    Source: LIRPG, Zheng et al. 2018; *A Theoretical Understanding of Gradient Bias in Meta-RL*,
    Sec. 3.

    Raises:
        ValueError: theta or w does not fit, or is not finite.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> reward_jvp(bandit, [[0.0, 0.0]], [[0.0, 4.0]]).tolist()
    [[-1.0, 1.0]]
    """
    at = policy_of(mdp, theta, policy)
    change = checked_reward("w", w, mdp, at.leading)
    paid = mdp.tables.with_reward(change[..., None, :, :])
    return at.vjp(logit_gradient(Evaluation(paid, at.probabilities)))


def reward_vjp(
    mdp: Problem, theta: npt.ArrayLike, v: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """``(d/dr) (v^T dJ/dtheta)``, ``[S, A]``: the change of the state-action occupancy along ``v``.

    The transpose of `reward_jvp`; it does not depend on the reward. Source: the mixed derivative of
    LIRPG in *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3.

    Raises:
        ValueError: theta or v does not fit, or is not finite.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> reward_vjp(bandit, [[0.0, 0.0]], [[1.0, 0.0]]).tolist()
    [[0.25, -0.25]]
    """
    at = policy_of(mdp, theta, policy)
    base = Evaluation(mdp.tables, at.probabilities)
    moved = Expansion(base, at.jet([at.direction(v)]))
    visits: FloatArray = required(moved.visits[1]).sum(axis=-3)
    return visits


def discount_derivative(
    mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """``d/dgamma dJ/dtheta``, shaped like theta: the gradient's change with the discount, which
    both the values and the state weighting use.

    Source: the derivative of the policy gradient theorem; `analytic.returns.value_jets`.

    Raises:
        ValueError: theta does not fit the policy and the problem, or is not finite.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.5, [1.0])
    >>> discount_derivative(bandit, [[0.0, 0.0]]).tolist()  # J = pi_0 / (1 - gamma)
    [[1.0, -1.0]]
    """
    at = policy_of(mdp, theta, policy)
    discount = mdp.tables.discount
    moved = Expansion(
        Evaluation(mdp.tables, at.probabilities),
        policy=[at.probabilities, None],
        discount=[discount, np.ones_like(discount)],
    )
    return at.vjp(required(moved.gradient[1]))


def logit_gradient(exact: Evaluation) -> FloatArray:
    """dJ/dlogits ``[..., S, A]``."""
    return field_over_time(exact.occupancy, exact)


def gradient_along(tables: Tables, at: PolicyAt, directions: list[FloatArray]) -> FloatArray:
    """The gradient's mixed derivative along all directions, in the parameters."""
    moved = Expansion(Evaluation(tables, at.probabilities), at.jet(directions))
    return at.vjp_jet(moved.gradient, directions)


def hessian_at(at: PolicyAt, exact: Evaluation) -> FloatArray:
    """The Hessian in the parameters, their axes twice."""
    gradient = logit_gradient(exact)
    flat = gradient.reshape(*gradient.shape[:-2], -1)
    return at.hessian(flat, logit_hessian(exact))


def checked_reward(
    name: str, reward: npt.ArrayLike, mdp: Problem, leading: tuple[int, ...]
) -> FloatArray:
    """``[..., S, A]``. Raises ValueError on a wrong shape or entry."""
    array = frozen_array(name, reward)
    check_leading(name, array, (mdp.n_states, mdp.n_actions), leading)
    check_one_policy(name, mdp, array.shape[:-2])
    return array
