"""Derivatives of values, occupancies and policy gradients along any directions at once.

The Bellman equations ``V_t = sum_a pi Q_t``, ``Q_t = r_t + gamma P V_{t+1}`` and the occupancy's
``m_{t+1} = gamma P^T (m_t pi)`` are differentiated by the product rule. Every part of a jet solves
the *same* linear system as the values do, with lower parts on its right-hand side. So one
factorisation serves all derivatives of a policy, of any order; a Hessian-vector product takes one
solve for values (the tangent) and one for occupancies (the adjoint).

Directions may be in the policy, the rewards and the discount, all together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradbias.analytic.policies.jets import Part, Parts, add, leibniz, pivoted, product, required
from gradbias.analytic.returns.evaluation import Evaluation
from gradbias.analytic.utils.validation import FloatArray


@dataclass(frozen=True, eq=False)
class Expansion:
    """Jets of values, occupancies and the policy gradient around a point."""

    base: Evaluation  # the evaluation at that point
    policy: Parts  # the jet of the action probabilities, [..., S, A]
    reward: Parts | None = None  # the jet of mean rewards, [..., T, S, A] (None: constant)
    discount: Parts | None = None  # the jet of the discount, [...] (None: constant)

    @property
    def _timed_policy(self) -> list[Part]:
        return [None if part is None else part[..., None, :, :] for part in self.policy]

    @property
    def _timed_discount(self) -> list[Part]:
        if self.discount is None:
            constant: list[Part] = [None] * (len(self.policy) - 1)
            return [self.base.tables.per_step(), *constant]
        per_step = self.base.tables.per_step
        return [None if part is None else per_step(part) for part in self.discount]

    def _continued(self, discount: FloatArray, values: FloatArray) -> FloatArray:
        """``discount P V_{t+1}``, ``[..., T, S, A]``."""
        return discount[..., None] * self.base.tables.kernel.expect(self.base.system.later(values))

    def _arriving(self, discount: FloatArray, visits: FloatArray) -> FloatArray:
        """The visits ``[..., T, S]`` one step after discounted visits ``[..., T, S, A]``."""
        return self.base.system.earlier(discount * self.base.tables.kernel.push(visits))

    @cached_property
    def _both_values(self) -> tuple[list[Part], list[Part]]:
        policy, discount = self._timed_policy, self._timed_discount
        values: list[Part] = [self.base.step_values]
        action_values: list[Part] = [self.base.action_values]
        for mask in range(1, len(policy)):
            # What is known before this part of V: rewards, and lower parts at the next step.
            known = None if self.reward is None else self.reward[mask]
            by_discount = leibniz(self._continued, discount, values, mask, value_on_left=False)
            known = add(known, by_discount)
            right = None if known is None else leibniz(_mean, policy, [known], 0)
            shifted = pivoted(policy[0], action_values)
            right = add(right, leibniz(_mean, policy, shifted, mask, value_on_left=False))
            value = None if right is None else self.base.system.solve(right)
            values.append(value)
            ahead = None if value is None else leibniz(self._continued, discount, [value], 0)
            action_values.append(add(known, ahead))
        return values, action_values

    @property
    def values(self) -> list[Part]:
        """The jet of the values V_t, ``[..., T, S]``."""
        return self._both_values[0]

    @property
    def action_values(self) -> list[Part]:
        """The jet of the action values Q_t, ``[..., T, S, A]``."""
        return self._both_values[1]

    @cached_property
    def advantages(self) -> list[Part]:
        """The jet of the advantages ``Q_t - sum_a pi Q_t``, ``[..., T, S, A]``."""
        jet: list[Part] = [self.base.advantages]
        policy = self._timed_policy
        shifted = pivoted(policy[0], self.action_values)
        for mask in range(1, len(policy)):
            mean = leibniz(_mean, policy, shifted, mask)
            jet.append(add(shifted[mask], None if mean is None else -mean[..., None]))
        return jet

    @cached_property
    def _both_visits(self) -> tuple[list[Part], list[Part]]:
        policy, discount = self._timed_policy, self._timed_discount
        occupancy: list[Part] = [self.base.occupancy]
        visits: list[Part] = [leibniz(_by_action, policy, occupancy, 0)]
        for mask in range(1, len(policy)):
            by_policy = leibniz(_by_action, policy, occupancy, mask, value_on_left=False)
            right = None if by_policy is None else leibniz(self._arriving, discount, [by_policy], 0)
            right = add(right, leibniz(self._arriving, discount, visits, mask, value_on_left=False))
            occupied = None if right is None else self.base.system.solve_adjoint(right)
            occupancy.append(occupied)
            same_policy = None if occupied is None else leibniz(_by_action, policy, [occupied], 0)
            visits.append(add(by_policy, same_policy))
        return occupancy, visits

    @property
    def occupancy(self) -> list[Part]:
        """The jet of the occupancy m_t, ``[..., T, S]``."""
        return self._both_visits[0]

    @property
    def visits(self) -> list[Part]:
        """The jet of the state-action visits m_t pi, ``[..., T, S, A]``."""
        return self._both_visits[1]

    @cached_property
    def gradient(self) -> list[Part]:
        """The jet of the policy gradient in the logits, ``[..., S, A]``."""
        return policy_gradient(self.occupancy, self._timed_policy, self.advantages)


def policy_gradient(occupancy: Parts, timed_policy: Parts, advantages: Parts) -> list[Part]:
    """The jet of ``sum_t m_t pi A_t [..., S, A]``, from those of its factors."""
    weighted = product(timed_policy, advantages)
    return [leibniz(_over_time, occupancy, weighted, mask) for mask in range(len(weighted))]


def field_over_time(occupancy: FloatArray, exact: Evaluation) -> FloatArray:
    """``sum_t occupancy_t pi A_t [..., S, A]`` for any weights ``occupancy [..., T, S]``."""
    timed = exact.policy[..., None, :, :]
    return required(policy_gradient([occupancy], [timed], [exact.advantages])[0])


def _mean(policy: FloatArray, values: FloatArray) -> FloatArray:
    """``sum_a pi(a|s) x(s, a)``."""
    return np.asarray((policy * values).sum(axis=-1))


def _by_action(policy: FloatArray, occupancy: FloatArray) -> FloatArray:
    """``m(s) pi(a|s)``."""
    return policy * occupancy[..., None]


def _over_time(occupancy: FloatArray, weighted: FloatArray) -> FloatArray:
    """``sum_t m_t(s) x_t(s, a)``."""
    return np.asarray(np.sum(occupancy[..., None] * weighted, axis=-3))
