"""Values, occupancies and the expected return of a policy.

With ``P_pi(s'|s) = sum_a pi(a|s) P(s'|s,a)``, the policy's mean reward ``r_pi`` and the initial
distribution ``rho``:

- infinite horizon: ``V = (I - gamma P_pi)^-1 r_pi``, ``Q = r + gamma P V``, and the unnormalised
  discounted occupancy ``d = rho^T (I - gamma P_pi)^-1``, which sums to 1 / (1 - gamma);
- H steps: ``V_H = 0``, ``Q_t = r_t + gamma P V_{t+1}``, ``V_t = sum_a pi Q_t``, and ``m_t``,
  gamma^t times the distribution of s_t, forwards from ``m_0 = rho``.

The expected return is ``J = rho^T V_0``. Every function takes the parameters ``theta`` of
``policy`` (default: the tabular softmax, theta ``[S, A]``). Leading axes of theta, of an
`MDPBatch`, or of both (then equal, or the shorter is the end of the longer) lead the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.at_parameters import PolicyAt, policy_at
from gradbias.analytic.policies.jets import pivoted, required
from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.tables import Problem, Tables
from gradbias.analytic.problems.transitions import SparseKernel
from gradbias.analytic.returns.bellman import Stationary, System, bellman_system, condition_of
from gradbias.analytic.utils.validation import FloatArray


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A policy's values and occupancy at each step, each computed when it is first read."""

    tables: Tables  # the problem; an infinite horizon is one stationary step (T = 1)
    policy: FloatArray  # action probabilities, [..., S, A]

    @cached_property
    def system(self) -> System:
        """The policy's Bellman systems, factorised once."""
        return bellman_system(self.tables, self.policy, self.tables.discount)

    @cached_property
    def reward(self) -> FloatArray:
        """Mean rewards ``[..., T, S, A]``; final values are part of the last step's."""
        tables = self.tables
        leading = np.broadcast_shapes(self.policy.shape[:-2], tables.reward.shape[:-3])
        shape = (*leading, tables.steps, *self.policy.shape[-2:])
        reward: FloatArray = tables.reward
        if reward.shape != shape:
            reward = np.broadcast_to(reward, shape)
        if tables.final_values is None:
            return reward
        reward = np.array(reward)
        final = tables.kernel.expect(tables.final_values[..., None, :])
        reward[..., -1:, :, :] += tables.per_step()[..., None] * final
        return reward

    @cached_property
    def step_values(self) -> FloatArray:
        """The values V_t, ``[..., T, S]``."""
        return self.system.solve((self.policy[..., None, :, :] * self.reward).sum(axis=-1))

    @cached_property
    def action_values(self) -> FloatArray:
        """The action values Q_t, ``[..., T, S, A]``."""
        later = self.system.later(self.step_values)
        return self.reward + self.tables.per_step()[..., None] * self.tables.kernel.expect(later)

    @cached_property
    def advantages(self) -> FloatArray:
        """The advantages ``[..., T, S, A]``: Q minus its mean, both taken from the likeliest
        action's Q, because Q - V would lose all digits where pi is peaked.
        """
        policy = self.policy[..., None, :, :]
        gaps = required(pivoted(policy, [self.action_values])[0])
        return np.asarray(gaps - (policy * gaps).sum(axis=-1, keepdims=True))

    @cached_property
    def occupancy(self) -> FloatArray:
        """The discounted occupancy m_t, ``[..., T, S]``."""
        return occupancy_of(self.tables, self.policy, self.system)

    @property
    def values(self) -> FloatArray:
        """``[..., T + 1, S]``: V_t, then the final values; for an infinite horizon V, twice."""
        values = self.step_values
        if self.tables.horizon is None:
            return np.concatenate([values, values], axis=-2)
        final = np.zeros_like(values[..., :1, :])
        if self.tables.final_values is not None:
            final = final + self.tables.final_values[..., None, :]
        return np.concatenate([values, final], axis=-2)

    @property
    def expected_return(self) -> FloatArray:
        """The expected return J, ``[...]``."""
        value: FloatArray = (self.tables.start * self.step_values[..., 0, :]).sum(axis=-1)
        return value

    @property
    def scale(self) -> float:
        """The scale of the return's derivatives: max|Q| in visited states times all visits."""
        visited = self.occupancy > 0
        return float(np.abs(self.action_values[visited]).max() * self.occupancy.sum())

    @property
    def rounding_scale(self) -> float:
        """The sum of occupancy times max_a|Q|; roundings of derivatives are proportional to it."""
        return float((self.occupancy * np.abs(self.action_values).max(axis=-1)).sum())

    def with_reward(self, reward: FloatArray) -> Evaluation:
        """The same policy in the same problem with other mean rewards ``[..., T, S, A]`` and no
        final values; it shares the factorised system and the occupancy.
        """
        other = replace(self, tables=self.tables.with_reward(reward))
        other.__dict__.update(system=self.system, occupancy=self.occupancy)
        return other


def occupancy_of(tables: Tables, policy: FloatArray, system: System) -> FloatArray:
    """Visits ``[..., T, S]`` that start from the initial distribution and follow ``system``."""
    leading = np.broadcast_shapes(policy.shape[:-2], tables.leading)
    first = np.zeros((*leading, tables.steps, tables.start.shape[-1]))
    first[..., 0, :] = tables.start
    return system.solve_adjoint(first)


def evaluate(
    mdp: Problem, policy: FloatArray, terminal_values: FloatArray | None = None
) -> Evaluation:
    """The evaluation of action probabilities ``policy [..., S, A]``, with V_H = ``terminal_values
    [S]`` (default 0). Raises ValueError for terminal values with an infinite horizon.
    """
    if terminal_values is None:
        return Evaluation(mdp.tables, policy)
    if mdp.horizon is None:
        raise ValueError("terminal values: expected a finite horizon, got horizon None")
    return Evaluation(replace(mdp.tables, final_values=terminal_values), policy)


def policy_of(mdp: Problem, theta: npt.ArrayLike, policy: Policy, name: str = "theta") -> PolicyAt:
    """The policy at theta. Raises ValueError if theta does not fit the policy and the problem."""
    at = policy_at(policy, theta, mdp.n_states, mdp.n_actions, mdp.tables.leading, name)
    check_one_policy(name, mdp, at.leading)
    return at


def single_policy(mdp: Problem, theta: npt.ArrayLike, policy: Policy) -> PolicyAt:
    """The policy at theta. Raises ValueError if it does not fit, or has leading axes."""
    at = policy_of(mdp, theta, policy)
    if at.leading:
        raise ValueError(f"theta: expected one policy, got leading axes {at.leading}")
    return at


def check_one_policy(name: str, mdp: Problem, leading: tuple[int, ...]) -> None:
    """Raises ValueError for leading axes with sparse transitions."""
    if leading and isinstance(mdp.tables.kernel, SparseKernel):
        raise ValueError(f"{name}: expected no leading axes with sparse transitions, got {leading}")


def evaluate_parameters(mdp: Problem, theta: npt.ArrayLike, policy: Policy) -> Evaluation:
    """The evaluation of the policy at theta. Raises ValueError if theta does not fit."""
    return Evaluation(mdp.tables, policy_of(mdp, theta, policy).probabilities)


def condition_number(
    mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR
) -> float | FloatArray:
    """The condition number, in the maximum norm, of the policy's Bellman system ``I - gamma P_pi``.

    Values are right to about 2e-16 times it, relative. Terminal states are left out.

    Args:
        mdp: the problem, with an infinite horizon.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        A number, or an array ``[...]`` if theta or the problem has leading axes.

    Raises:
        ValueError: theta does not fit, or a finite horizon, whose recursion is no such system.

    Source: as ``(I - M)^-1`` has no negative entry, its norm is that of its row sums.

    >>> from gradbias.analytic import TabularMDP
    >>> there_and_back = TabularMDP([[[0, 1]], [[1, 0]]], [[1.0], [0.0]], 0.75, [1.0, 0.0])
    >>> condition_number(there_and_back, [[0.0], [0.0]])
    7.0
    """
    exact = evaluate_parameters(mdp, theta, policy)
    if not isinstance(exact.system, Stationary):
        raise ValueError(f"horizon: expected None, got {mdp.horizon}")
    condition = condition_of(exact.system, exact.tables)
    return condition if condition.ndim else float(condition)


def state_values(mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR) -> FloatArray:
    """The policy's state values V.

    Args:
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        ``[S]`` for the infinite horizon, ``[H + 1, S]`` (row t: from step t on) for a finite one.

    Raises:
        ValueError: theta does not fit or is not finite.

    Warns:
        IllConditionedWarning: the discount is so close to 1 that the tenth digit is uncertain.

    Source: the Bellman equation; Puterman 1994, chs. 4 and 6.

    >>> from gradbias.analytic import TabularMDP
    >>> mdp = TabularMDP([[[1.0]]], [[1.0]], 0.5, [1.0])
    >>> state_values(mdp, [[0.0]]).tolist()
    [2.0]
    """
    exact = evaluate_parameters(mdp, theta, policy)
    return exact.step_values[..., 0, :] if mdp.horizon is None else exact.values


def action_values(mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR) -> FloatArray:
    """The policy's action values Q.

    Args:
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        ``[S, A]`` for the infinite horizon, ``[H, S, A]`` for a finite one.

    Raises:
        ValueError: theta does not fit or is not finite.

    Source: the Bellman equation; Puterman 1994, chs. 4 and 6.

    >>> from gradbias.analytic import TabularMDP
    >>> mdp = TabularMDP([[[1.0]]], [[1.0]], 0.5, [1.0], horizon=2)
    >>> action_values(mdp, [[0.0]]).ravel().tolist()
    [1.5, 1.0]
    """
    values = evaluate_parameters(mdp, theta, policy).action_values
    return values[..., 0, :, :] if mdp.horizon is None else values


def occupancy(mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR) -> FloatArray:
    """The policy's discounted occupancy (expected visits to each state).

    Args:
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        ``[S]``, with sum 1 / (1 - gamma), or ``[H, S]`` with gamma^t included.

    Raises:
        ValueError: theta does not fit or is not finite.

    Source: the adjoint of the Bellman equation; Puterman 1994, sec. 6.9.

    >>> from gradbias.analytic import TabularMDP
    >>> mdp = TabularMDP([[[1.0]]], [[1.0]], 0.5, [1.0])
    >>> occupancy(mdp, [[0.0]]).tolist()
    [2.0]
    """
    visits = evaluate_parameters(mdp, theta, policy).occupancy
    return visits[..., 0, :] if mdp.horizon is None else visits


def expected_return(
    mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR
) -> float | FloatArray:
    """The expected return ``J = E[sum_t gamma^t r_t]`` from the initial distribution.

    Args:
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        A number, or an array ``[...]`` if theta or the problem has leading axes.

    Raises:
        ValueError: theta does not fit or is not finite.

    Source: Puterman 1994, chs. 4 and 6.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> expected_return(bandit, [[0.0, 0.0]])
    0.5
    """
    value = evaluate_parameters(mdp, theta, policy).expected_return
    return value if value.ndim else float(value)
