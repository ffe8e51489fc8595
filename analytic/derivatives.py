"""Gradient, Hessian, third derivatives and mixed products of the expected return, in closed form.

In the logits, with ``m_t`` the discounted occupancy, ``A_t`` the advantage and ``w_t = pi A_t``:

- gradient: ``sum_t m_t(s) w_t(s, a)`` (policy gradient theorem);
- Hessian: ``sum_t D_t + X_t + X_t^T``, where ``D_t`` is block diagonal with blocks
  ``m_t(s) [diag(w) - w pi^T - pi w^T]`` and ``X_t``, the sum over s and a of
  ``m_t(s) grad pi(a|s) (grad Q_t(s,a))^T``, carries how later values depend on the parameters;
- products with vectors, of any order: jets of the policy gradient (`analytic.expansions`).

Another policy's derivatives follow by the chain rule on its logits. Shapes: theta's axes are
``[S, A]`` for the tabular softmax, ``[p]`` for a policy with p parameters; leading axes of theta,
of directions and of an `MDPBatch` lead the result.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3; the closed forms follow
by differentiating the Bellman equation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray, check_leading, frozen_array
from analytic.expansions import Expansion, policy_gradient
from analytic.jets import Part
from analytic.lambda_returns import weighted_visits
from analytic.logits import PolicyAt
from analytic.policies import TABULAR, Policy
from analytic.tables import Problem, Tables
from analytic.targets import (
    POLICY_PARAMETERS,
    AnyTarget,
    BootstrappedHorizon,
    Discounted,
    FiniteHorizon,
    GivenTarget,
    Target,
)
from analytic.values import Evaluation, evaluate_parameters, policy_of

LARGEST_THIRD_DERIVATIVE = 10_000_000


def gradient(mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR) -> FloatArray:
    """dJ/dtheta, shaped like theta (``[S, A]`` for the tabular softmax).

    Raises:
        ValueError: theta does not fit the policy and the problem, or is not finite.

    >>> from analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> gradient(bandit, [[0.0, 0.0]]).tolist()
    [[0.25, -0.25]]
    """
    at = policy_of(mdp, theta, policy)
    return at.pulled(logit_gradient(Evaluation(mdp.tables, at.probabilities)))


def hessian(mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR) -> FloatArray:
    """d2J/dtheta2, theta's axes twice (``[S, A, S, A]`` for the tabular softmax).

    Dense: 8 (SA)^2 bytes. `hvp` needs no matrix.

    Raises:
        ValueError: theta does not fit the policy and the problem, or is not finite.

    >>> from analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> hessian(bandit, [[1.0, 0.0]])[0, 0].round(4).tolist()
    [[-0.0909, 0.0909]]
    """
    at = policy_of(mdp, theta, policy)
    return _hessian(at, Evaluation(mdp.tables, at.probabilities))


def hvp(
    mdp: Problem, theta: npt.ArrayLike, v: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """The Hessian of the expected return times ``v``, shaped like theta; no Hessian is formed.

    Many directions at once are leading axes of ``v``.

    Raises:
        ValueError: theta or v does not fit the policy and the problem, or is not finite.

    >>> from analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> hvp(bandit, [[1.0, 0.0]], [[1.0, 0.0]]).round(4).tolist()
    [[-0.0909, 0.0909]]
    """
    at = policy_of(mdp, theta, policy)
    return _gradient_along(mdp.tables, at, [at.direction(v)])


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

    Raises:
        ValueError: theta, v or w does not fit the policy and the problem, or is not finite.

    >>> from analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> third_derivative(bandit, [[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]]).tolist()
    [[-0.125, 0.125]]
    """
    at = policy_of(mdp, theta, policy)
    return _gradient_along(mdp.tables, at, [at.direction(v), at.direction(w, "w")])


def state_action_occupancy(
    mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """Discounted visits to each state and action ``[S, A]``, summed over time: dJ/dr, the gradient
    of the return in a reward added at every step (an intrinsic reward).

    Raises:
        ValueError: theta does not fit the policy and the problem, or is not finite.

    >>> from analytic import TabularMDP
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

    Raises:
        ValueError: theta or w does not fit, or is not finite.

    >>> from analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> reward_jvp(bandit, [[0.0, 0.0]], [[0.0, 4.0]]).tolist()
    [[-1.0, 1.0]]
    """
    at = policy_of(mdp, theta, policy)
    change = checked_reward("w", w, mdp)
    paid = mdp.tables.paying(change[..., None, :, :])
    return at.pulled(logit_gradient(Evaluation(paid, at.probabilities)))


def reward_vjp(
    mdp: Problem, theta: npt.ArrayLike, v: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """``(d/dr) (v^T dJ/dtheta)``, ``[S, A]``: the change of the state-action occupancy along ``v``.

    The transpose of `reward_jvp`; it does not depend on the reward. Source: the mixed derivative of
    LIRPG in *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3.

    Raises:
        ValueError: theta or v does not fit, or is not finite.

    >>> from analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> reward_vjp(bandit, [[0.0, 0.0]], [[1.0, 0.0]]).tolist()
    [[0.25, -0.25]]
    """
    at = policy_of(mdp, theta, policy)
    base = Evaluation(mdp.tables, at.probabilities)
    return summed_over_time(Expansion(base, at.jet([at.direction(v)])).visits[1])


def discount_derivative(
    mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """``d/dgamma dJ/dtheta``, shaped like theta: the gradient's change with the discount, which
    both the values and the state weighting use.

    Raises:
        ValueError: theta does not fit the policy and the problem, or is not finite.

    >>> from analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.5, [1.0])
    >>> discount_derivative(bandit, [[0.0, 0.0]]).tolist()  # J = pi_0 / (1 - gamma)
    [[1.0, -1.0]]
    """
    at = policy_of(mdp, theta, policy)
    base = Evaluation(mdp.tables, at.probabilities)
    bootstrapped = np.zeros_like(base.reward)
    bootstrapped[..., -1:, :, :] += base.final_mean
    one = np.ones_like(mdp.tables.discount)
    moved = Expansion(
        base,
        policy=[at.probabilities, None],
        reward=[base.reward, bootstrapped],
        discount=[mdp.tables.discount, one],
    )
    return at.pulled(or_zero(moved.gradient[1], at.probabilities))


def evaluate_target(
    target: AnyTarget, mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """The target's exact value, theta's axes ``order`` times. The target's horizon is used, not
    the problem's.

    Raises:
        ValueError: a target without a closed form here; derive it and pass a `GivenTarget`.

    >>> from analytic import TabularMDP, return_derivative
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0])
    >>> evaluate_target(return_derivative(1, horizon=1), bandit, [[0.0, 0.0]]).tolist()
    [[0.25, -0.25]]
    """
    if isinstance(target, GivenTarget):
        return target.value
    elsewhere = target.with_respect_to != POLICY_PARAMETERS
    if elsewhere or target.inner or target.regulariser or target.order > 3:
        raise ValueError(f"no closed form for {target}: derive it and pass a GivenTarget")
    tables = _with_horizon(mdp.tables, target)
    at = policy_of(mdp, theta, policy)
    exact = Evaluation(tables, at.probabilities)
    if not isinstance(target.weighting, Discounted):
        return at.pulled(_update_field(exact, target))
    if target.order == 1:
        return at.pulled(logit_gradient(exact))
    return _hessian(at, exact) if target.order == 2 else _third(tables, at)


def _with_horizon(tables: Tables, target: Target) -> Tables:
    horizon, values, steps = target.horizon, None, None
    if isinstance(horizon, BootstrappedHorizon):
        values = frozen_array("bootstrap values", horizon.values, tables.start.shape[-1:])
    if isinstance(horizon, FiniteHorizon | BootstrappedHorizon):
        steps = horizon.steps
    elif np.max(tables.discount) >= 1.0:
        raise ValueError("discount: 1 needs a finite horizon, got horizon None")
    if tables.reward.shape[-3] not in (1, steps):
        raise ValueError(
            f"target: expected the {tables.horizon} steps that rewards are given for, got {target}"
        )
    return replace(tables, horizon=steps, final_values=values)


def _update_field(exact: Evaluation, target: Target) -> FloatArray:
    """The policy gradient with the target's own weights in place of gamma^t."""
    if target.order != 1:
        raise ValueError(f"no closed form for {target}: derive it and pass a GivenTarget")
    base, weights = weighted_visits(exact.tables, exact.policy, target.weighting)
    return _over_steps(weights * base.occupancy, exact)


def _over_steps(occupancy: FloatArray, exact: Evaluation) -> FloatArray:
    found = policy_gradient([occupancy], [exact.policy[..., None, :, :]], [exact.advantages])[0]
    return or_zero(found, exact.policy)


def logit_gradient(exact: Evaluation) -> FloatArray:
    """dJ/dlogits ``[..., S, A]``."""
    return _over_steps(exact.occupancy, exact)


def _gradient_along(tables: Tables, at: PolicyAt, directions: list[FloatArray]) -> FloatArray:
    """The gradient's mixed derivative along all directions, in the parameters."""
    moved = Expansion(Evaluation(tables, at.probabilities), at.jet(directions))
    return at.pulled_jet(moved.gradient, directions)


def _hessian(at: PolicyAt, exact: Evaluation) -> FloatArray:
    gradient = logit_gradient(exact)
    flat = gradient.reshape(*gradient.shape[:-2], -1)
    return at.pulled_hessian(flat, _logit_hessian(exact))


def _third(tables: Tables, at: PolicyAt) -> FloatArray:
    """``D^3 J``, theta's axes three times, from all pairs of basis directions."""
    size = int(np.prod(at.shape))
    if size**3 > LARGEST_THIRD_DERIVATIVE:
        raise ValueError(
            f"target: expected at most {LARGEST_THIRD_DERIVATIVE:,} entries, got {size**3:,} in a "
            "third derivative; use third_derivative along directions"
        )
    if at.leading or tables.leading:
        raise ValueError("theta: expected one policy and one problem for a third derivative")
    basis = np.eye(size).reshape(size, *at.shape)
    found = _gradient_along(tables, at, [basis[:, None], basis[None]])
    return np.broadcast_to(found, (size, size, *at.shape)).reshape(*at.shape * 3)


def _logit_hessian(exact: Evaluation) -> FloatArray:
    """``[..., n, n]``, n = S * A."""
    pi, tables = exact.policy, exact.tables
    n_states, n_actions = pi.shape[-2:]
    n = n_states * n_actions
    leading = exact.occupancy.shape[:-2]
    ahead = np.zeros((n, *leading, n_states, n_actions))
    for t, jacobian in enumerate(_later_value_jacobians(exact)):
        moved = tables.kernel.expect(jacobian[..., None, :])[..., 0, :, :]
        ahead += exact.occupancy[..., t, :, None] * moved
    ahead *= tables.per_step()
    cross: FloatArray = pi * (ahead - (pi * ahead).sum(axis=-1, keepdims=True))
    half = np.moveaxis(cross.reshape(n, *leading, n), 0, -1)
    full = half + np.swapaxes(half, -1, -2)
    shaped = full.reshape(*leading, n_states, n_actions, n_states, n_actions)
    states = np.arange(n_states)
    # Indexed axes come first: [S, ..., A, A].
    shaped[..., states, :, states, :] += np.moveaxis(_block_term(exact), -3, 0)
    return full


def _block_term(exact: Evaluation) -> FloatArray:
    """``[..., S, A, A]``: sum_{t,a} m_t(s) Q_t(s,a) d2 pi(a|s), the part that LVC keeps."""
    weighted = logit_gradient(exact)
    outer = weighted[..., :, None] * exact.policy[..., None, :]
    diagonal = np.eye(exact.policy.shape[-1]) * weighted[..., :, None]
    block: FloatArray = diagonal - outer - np.swapaxes(outer, -1, -2)
    return block


def _later_value_jacobians(exact: Evaluation) -> list[FloatArray]:
    """dV_{t+1}/dtheta ``[n, ..., S]`` for t = 0..T-1."""
    weighted = exact.policy[..., None, :, :] * exact.advantages
    *leading, steps, n_states, n_actions = weighted.shape
    own = np.zeros((n_states, n_actions, *leading, steps, n_states))
    states = np.arange(n_states)
    own[states, ..., states] = np.moveaxis(weighted, (-2, -1), (0, 1))
    jacobians = exact.system.solve(own.reshape(-1, *own.shape[2:]))
    later = exact.system.later(jacobians)
    return [later[..., t, :] for t in range(steps)]


def checked_reward(name: str, reward: npt.ArrayLike, mdp: Problem) -> FloatArray:
    """``[..., S, A]``. Raises ValueError on a wrong shape or entry."""
    array = frozen_array(name, reward)
    check_leading(name, array, (mdp.n_states, mdp.n_actions), mdp.tables.leading)
    return array


def summed_over_time(part: Part) -> FloatArray:
    """``[..., S, A]`` of ``[..., T, S, A]``."""
    if part is None:
        raise ValueError("expected a part that moves, got one that is identically 0")
    total: FloatArray = part.sum(axis=-3)
    return total


def or_zero(part: Part, like: FloatArray) -> FloatArray:
    """The part, as zeros where it is identically zero."""
    return np.zeros_like(like) if part is None else part
