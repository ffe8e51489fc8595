"""Gradient, Hessian and Hessian-vector products of the expected return, in closed form.

In the logits, with ``m_t`` the discounted occupancy, ``A_t`` the advantage and ``w_t = pi A_t``:

- gradient: ``sum_t m_t(s) w_t(s, a)`` (policy gradient theorem);
- Hessian: ``sum_t D_t + X_t + X_t^T``, where ``D_t`` is block diagonal with blocks
  ``m_t(s) [diag(w) - w pi^T - pi w^T]`` and ``X_t``, the sum over s and a of
  ``m_t(s) grad pi(a|s) (grad Q_t(s,a))^T``, carries how later values depend on the parameters;
- product ``H v``: a tangent recursion for values and one for occupancies, without the matrix.

The infinite horizon is the same with one stationary step and linear solves in ``I - gamma P_pi``
(LU: the matrix is row diagonally dominant, hence well behaved). Another policy's derivatives follow
by the chain rule on its logits.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3; the closed forms follow
by differentiating the Bellman equation twice.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray, frozen_array
from analytic.policies import TABULAR, Policy, TabularSoftmax, checked_parameters, pull_back
from analytic.problems import TabularMDP
from analytic.targets import (
    POLICY_PARAMETERS,
    AnyTarget,
    BootstrappedHorizon,
    Discounted,
    FiniteHorizon,
    GivenTarget,
    GivenWeights,
    Target,
)
from analytic.values import (
    Evaluation,
    evaluate,
    evaluate_parameters,
    expect_next,
    policy_probabilities,
    state_transition,
)


def gradient(mdp: TabularMDP, theta: npt.ArrayLike, *, policy: Policy = TABULAR) -> FloatArray:
    """dJ/dtheta, shaped like theta (``[S, A]`` for the tabular softmax).

    Raises:
        ValueError: theta does not fit the policy and the problem, or is not finite.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> gradient(bandit, [[0.0, 0.0]]).tolist()
    [[0.25, -0.25]]
    """
    exact = evaluate_parameters(mdp, theta, policy)
    return _in_parameters([_logit_gradient(exact)], theta, policy)[0]


def hessian(mdp: TabularMDP, theta: npt.ArrayLike, *, policy: Policy = TABULAR) -> FloatArray:
    """d2J/dtheta2, theta's axes twice (``[S, A, S, A]`` for the tabular softmax).

    Dense: 8 (SA)^2 bytes. `hvp` needs no matrix.

    Raises:
        ValueError: theta does not fit the policy and the problem, or is not finite.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> hessian(bandit, [[1.0, 0.0]])[0, 0].round(4).tolist()
    [[-0.0909, 0.0909]]
    """
    exact = evaluate_parameters(mdp, theta, policy)
    logit_derivatives = [_logit_gradient(exact), _logit_hessian(mdp, exact)]
    return _in_parameters(logit_derivatives, theta, policy)[1]


def hvp(
    mdp: TabularMDP, theta: npt.ArrayLike, v: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """The Hessian of the expected return times ``v``, shaped like theta; no Hessian is formed.

    Raises:
        ValueError: theta or v does not fit the policy and the problem, or is not finite.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> hvp(bandit, [[1.0, 0.0]], [[1.0, 0.0]]).round(4).tolist()
    [[-0.0909, 0.0909]]
    """
    exact = evaluate_parameters(mdp, theta, policy)
    direction = checked_parameters(policy, v, mdp.n_states, mdp.n_actions, "v")
    if isinstance(policy, TabularSoftmax):
        return _logit_hvp(mdp, exact, direction)
    parameters = np.asarray(theta, dtype=np.float64)
    first, second = policy.logit_derivatives(parameters, 2)
    logit_direction = (first @ direction.ravel()).reshape(mdp.n_states, mdp.n_actions)
    product = first.T @ _logit_hvp(mdp, exact, logit_direction).ravel()
    curvature = np.einsum("i,ipq,q->p", _logit_gradient(exact).ravel(), second, direction.ravel())
    total: FloatArray = (product + curvature).reshape(parameters.shape)
    return total


def evaluate_target(
    target: AnyTarget, mdp: TabularMDP, theta: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """The target's exact value, theta's axes ``order`` times. The target's horizon is used, not
    the problem's.

    Raises:
        ValueError: a target without a closed form here; derive it and pass a `GivenTarget`.

    >>> from analytic.targets import return_derivative
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0])
    >>> evaluate_target(return_derivative(1, horizon=1), bandit, [[0.0, 0.0]]).tolist()
    [[0.25, -0.25]]
    """
    if isinstance(target, GivenTarget):
        return target.value
    elsewhere = target.with_respect_to != POLICY_PARAMETERS
    if elsewhere or target.inner or target.regulariser or target.order > 2:
        raise ValueError(f"no closed form for {target}: derive it and pass a GivenTarget")
    problem, terminal_values = _with_horizon(mdp, target)
    exact = evaluate(problem, policy_probabilities(mdp, theta, policy), terminal_values)
    if not isinstance(target.weighting, Discounted):
        exact = _reweighted(problem, exact, target)
    derivatives = [_logit_gradient(exact)]
    if target.order == 2:
        derivatives.append(_logit_hessian(problem, exact))
    return _in_parameters(derivatives, theta, policy)[-1]


def _with_horizon(mdp: TabularMDP, target: Target) -> tuple[TabularMDP, FloatArray | None]:
    if isinstance(target.horizon, BootstrappedHorizon):
        values = frozen_array("bootstrap values", target.horizon.values, (mdp.n_states,))
        return replace(mdp, horizon=target.horizon.steps), values
    steps = target.horizon.steps if isinstance(target.horizon, FiniteHorizon) else None
    return replace(mdp, horizon=steps), None


def _reweighted(mdp: TabularMDP, exact: Evaluation, target: Target) -> Evaluation:
    """The evaluation with gamma^t in its occupancy replaced by the target's own weights."""
    if mdp.horizon is None or target.order != 1:
        raise ValueError(f"no closed form for {target}: derive it and pass a GivenTarget")
    weights = np.ones(mdp.horizon)
    if isinstance(target.weighting, GivenWeights):
        weights = frozen_array("state weighting", target.weighting.weights, (mdp.horizon,))
    law = np.empty_like(exact.occupancy)
    law[0] = mdp.start
    kernel = state_transition(mdp, exact.policy)
    for t in range(1, mdp.horizon):
        law[t] = law[t - 1] @ kernel
    return replace(exact, occupancy=weights[:, None] * law)


def _in_parameters(
    logit_derivatives: list[FloatArray], theta: npt.ArrayLike, policy: Policy
) -> tuple[FloatArray, ...]:
    if isinstance(policy, TabularSoftmax):
        return tuple(logit_derivatives)
    parameters = np.asarray(theta, dtype=np.float64)
    n = logit_derivatives[0].size
    flat = [d.reshape((n,) * (k + 1)) for k, d in enumerate(logit_derivatives)]
    pulled = pull_back(flat, policy.logit_derivatives(parameters, len(flat)))
    return tuple(d.reshape(parameters.shape * (k + 1)) for k, d in enumerate(pulled))


def _logit_gradient(exact: Evaluation) -> FloatArray:
    weighted = exact.policy * exact.advantages
    result: FloatArray = np.einsum("ts,tsa->sa", exact.occupancy, weighted)
    return result


def _logit_hessian(mdp: TabularMDP, exact: Evaluation) -> FloatArray:
    n = mdp.n_states * mdp.n_actions
    block = _block_term(exact)
    cross = np.zeros((n, n))
    value_jacobians = _value_jacobians(mdp, exact)
    for occupied, jacobian in zip(exact.occupancy, value_jacobians, strict=True):
        moved = mdp.discount * expect_next(mdp, jacobian)
        centred = moved - np.einsum("sa,san->sn", exact.policy, moved)[:, None, :]
        weight = occupied[:, None] * exact.policy
        cross += (weight[:, :, None] * centred).reshape(n, n)
    full = cross + cross.T
    shaped = full.reshape(mdp.n_states, mdp.n_actions, mdp.n_states, mdp.n_actions)
    states = np.arange(mdp.n_states)
    shaped[states, :, states, :] += block
    return shaped


def _block_term(exact: Evaluation) -> FloatArray:
    """``[S, A, A]``: sum_{t,a} m_t(s) Q_t(s,a) d2 pi(a|s), the part that LVC keeps."""
    weighted = np.einsum("ts,tsa->sa", exact.occupancy, exact.policy * exact.advantages)
    outer = weighted[:, :, None] * exact.policy[:, None, :]
    diagonal = np.eye(exact.policy.shape[1]) * weighted[:, :, None]
    block: FloatArray = diagonal - outer - np.swapaxes(outer, 1, 2)
    return block


def _value_jacobians(mdp: TabularMDP, exact: Evaluation) -> list[FloatArray]:
    """dV_{t+1}/dtheta ``[S, S * A]`` for t = 0..T-1."""
    n_states, n_actions = exact.policy.shape
    states = np.arange(n_states)
    own = np.zeros((len(exact.occupancy), n_states, n_states, n_actions))
    own[:, states, states, :] = exact.policy * exact.advantages
    flat = own.reshape(len(own), n_states, n_states * n_actions)
    kernel = mdp.discount * state_transition(mdp, exact.policy)
    if mdp.horizon is None:
        return [np.linalg.solve(np.eye(n_states) - kernel, flat[0])]
    return _backwards(kernel, flat)


def _backwards(kernel: FloatArray, own: FloatArray) -> list[FloatArray]:
    """x_{t+1} for t = 0..T-1, where ``x_t = own_t + kernel x_{t+1}`` and x_T = 0."""
    later = [np.zeros_like(own[0])]
    for step in own[:0:-1]:
        later.append(step + kernel @ later[-1])
    return later[::-1]


def _logit_hvp(mdp: TabularMDP, exact: Evaluation, v: FloatArray) -> FloatArray:
    pi, advantages = exact.policy, exact.advantages
    turned = pi * (v - (pi * v).sum(axis=1, keepdims=True))
    value_tangents, occupancy_tangents = _tangents(mdp, exact, turned)
    product = np.zeros_like(pi)
    for t, advantage in enumerate(advantages):
        q_tangent = mdp.discount * expect_next(mdp, value_tangents[t])
        centred = q_tangent - (pi * q_tangent).sum(axis=1, keepdims=True)
        own = (turned * exact.action_values[t]).sum(axis=1, keepdims=True)
        product += occupancy_tangents[t][:, None] * pi * advantage
        product += exact.occupancy[t][:, None] * (turned * advantage + pi * (centred - own))
    return product


def _tangents(
    mdp: TabularMDP, exact: Evaluation, turned: FloatArray
) -> tuple[list[FloatArray], list[FloatArray]]:
    """Directional derivatives of V_{t+1} and m_t ``[S]`` along the policy change ``turned``."""
    kernel = mdp.discount * state_transition(mdp, exact.policy)
    kernel_tangent = mdp.discount * state_transition(mdp, turned)
    own = (turned * exact.action_values).sum(axis=2)
    if mdp.horizon is None:
        from scipy.linalg import lu_factor, lu_solve  # here: it costs the command line 0.2 s

        factors = lu_factor(np.eye(mdp.n_states) - kernel)
        moved = exact.occupancy[0] @ kernel_tangent
        return [lu_solve(factors, own[0])], [lu_solve(factors, moved, trans=1)]
    visits = [np.zeros(mdp.n_states)]
    for occupied in exact.occupancy[:-1]:
        visits.append(visits[-1] @ kernel + occupied @ kernel_tangent)
    return _backwards(kernel, own), visits
