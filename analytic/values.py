"""Values, occupancies and the expected return of a policy.

With ``P_pi(s'|s) = sum_a pi(a|s) P(s'|s,a)`` and the policy's mean reward ``r_pi``:

- infinite horizon: ``V = (I - gamma P_pi)^-1 r_pi``, ``Q = r + gamma P V``, and the unnormalised
  discounted occupancy ``d = rho^T (I - gamma P_pi)^-1``, which sums to 1 / (1 - gamma);
- H steps: ``V_H = 0``, ``Q_t = r + gamma P V_{t+1}``, ``V_t = sum_a pi Q_t``, and
  ``m_t = gamma^t * law of s_t`` forwards from ``m_0 = rho``.

The expected return is ``J = rho^T V_0``. Every function takes the parameters ``theta`` of
``policy`` (default: the tabular softmax, theta ``[S, A]``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray
from analytic.policies import TABULAR, Policy, checked_parameters, softmax
from analytic.problems import TabularMDP


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A policy's values and occupancy, step by step; the infinite problem is one stationary step.

    ``policy [S, A]``, ``values [T + 1, S]`` (for the infinite problem both rows are V),
    ``action_values [T, S, A]``, ``occupancy [T, S]``.
    """

    policy: FloatArray
    values: FloatArray
    action_values: FloatArray
    occupancy: FloatArray

    @property
    def advantages(self) -> FloatArray:
        """``[T, S, A]``, as sum_b pi_b (Q_a - Q_b): accurate componentwise where pi is peaked,
        which Q - V is not.
        """
        q = self.action_values
        gaps = q[..., :, None] - q[..., None, :]
        advantages: FloatArray = np.einsum("sb,tsab->tsa", self.policy, gaps)
        return advantages

    @property
    def scale(self) -> float:
        """max|Q| x total occupancy, over states that are visited: the natural scale of the return's
        derivatives.
        """
        visited = self.occupancy > 0
        return float(np.abs(self.action_values[visited]).max() * self.occupancy.sum())

    @property
    def rounding_scale(self) -> float:
        """Sum of occupancy x max_a|Q|: what the rounding of exact derivatives goes by."""
        return float((self.occupancy * np.abs(self.action_values).max(axis=2)).sum())


def state_transition(mdp: TabularMDP, policy: FloatArray) -> FloatArray:
    """``P_pi [S, S]``."""
    matrix: FloatArray = np.einsum("sa,sat->st", policy, mdp.transition)
    return matrix


def expect_next(mdp: TabularMDP, values: FloatArray) -> FloatArray:
    """``[S, A, ...]``: the mean of ``values [S, ...]`` at the next state."""
    rows = mdp.transition.reshape(-1, mdp.n_states) @ values.reshape(mdp.n_states, -1)
    return rows.reshape(mdp.n_states, mdp.n_actions, *values.shape[1:])


def evaluate(
    mdp: TabularMDP, policy: FloatArray, terminal_values: FloatArray | None = None
) -> Evaluation:
    """Values and occupancy of action probabilities ``policy [S, A]``.

    ``terminal_values [S]`` is V_H (default 0); only a finite horizon has it.
    """
    if mdp.horizon is None:
        return _evaluate_infinite(mdp, policy)
    steps = mdp.horizon
    values = np.zeros((steps + 1, mdp.n_states))
    if terminal_values is not None:
        values[steps] = terminal_values
    action_values = np.empty((steps, mdp.n_states, mdp.n_actions))
    for t in range(steps - 1, -1, -1):
        action_values[t] = mdp.expected_reward + mdp.discount * expect_next(mdp, values[t + 1])
        values[t] = (policy * action_values[t]).sum(axis=1)
    kernel = state_transition(mdp, policy)
    occupancy = np.empty((steps, mdp.n_states))
    occupancy[0] = mdp.start
    for t in range(1, steps):
        occupancy[t] = mdp.discount * (occupancy[t - 1] @ kernel)
    return Evaluation(policy, values, action_values, occupancy)


def _evaluate_infinite(mdp: TabularMDP, policy: FloatArray) -> Evaluation:
    system = np.eye(mdp.n_states) - mdp.discount * state_transition(mdp, policy)
    values: FloatArray = np.linalg.solve(system, (policy * mdp.expected_reward).sum(axis=1))
    values[mdp.terminal] = 0.0  # which the solve gives up to rounding
    occupancy = np.linalg.solve(system.T, mdp.start).astype(np.float64)
    action_values: FloatArray = mdp.expected_reward + mdp.discount * expect_next(mdp, values)
    return Evaluation(policy, np.stack([values, values]), action_values[None], occupancy[None])


def policy_probabilities(mdp: TabularMDP, theta: npt.ArrayLike, policy: Policy) -> FloatArray:
    """``[S, A]``. Raises ValueError if theta does not fit the policy and the problem."""
    parameters = checked_parameters(policy, theta, mdp.n_states, mdp.n_actions)
    return softmax(policy.logits(parameters))


def evaluate_parameters(mdp: TabularMDP, theta: npt.ArrayLike, policy: Policy) -> Evaluation:
    """`evaluate` of the policy with parameters theta."""
    return evaluate(mdp, policy_probabilities(mdp, theta, policy))


def state_values(mdp: TabularMDP, theta: npt.ArrayLike, *, policy: Policy = TABULAR) -> FloatArray:
    """V: ``[S]`` for the infinite horizon, ``[H + 1, S]`` (row t: from step t on) for a finite one.

    Raises:
        ValueError: theta does not fit or is not finite.

    >>> mdp = TabularMDP([[[1.0]]], [[1.0]], 0.5, [1.0])
    >>> state_values(mdp, [[0.0]]).tolist()
    [2.0]
    """
    values = evaluate_parameters(mdp, theta, policy).values
    return values[0] if mdp.horizon is None else values


def action_values(mdp: TabularMDP, theta: npt.ArrayLike, *, policy: Policy = TABULAR) -> FloatArray:
    """Q: ``[S, A]`` for the infinite horizon, ``[H, S, A]`` for a finite one.

    Raises:
        ValueError: theta does not fit or is not finite.

    >>> mdp = TabularMDP([[[1.0]]], [[1.0]], 0.5, [1.0], horizon=2)
    >>> action_values(mdp, [[0.0]]).ravel().tolist()
    [1.5, 1.0]
    """
    q = evaluate_parameters(mdp, theta, policy).action_values
    return q[0] if mdp.horizon is None else q


def occupancy(mdp: TabularMDP, theta: npt.ArrayLike, *, policy: Policy = TABULAR) -> FloatArray:
    """Discounted visits: ``[S]`` summing to 1 / (1 - gamma), or ``[H, S]`` with gamma^t inside.

    Raises:
        ValueError: theta does not fit or is not finite.

    >>> mdp = TabularMDP([[[1.0]]], [[1.0]], 0.5, [1.0])
    >>> occupancy(mdp, [[0.0]]).tolist()
    [2.0]
    """
    visits = evaluate_parameters(mdp, theta, policy).occupancy
    return visits[0] if mdp.horizon is None else visits


def expected_return(mdp: TabularMDP, theta: npt.ArrayLike, *, policy: Policy = TABULAR) -> float:
    """J = E[sum_t gamma^t r_t] from the start law.

    Raises:
        ValueError: theta does not fit or is not finite.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> expected_return(bandit, [[0.0, 0.0]])
    0.5
    """
    return float(mdp.start @ evaluate_parameters(mdp, theta, policy).values[0])
