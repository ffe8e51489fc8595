"""Derivatives of values, occupancies and policy gradients along any directions at once.

The Bellman equations ``V_t = sum_a pi Q_t``, ``Q_t = r_t + gamma P V_{t+1}`` and the occupancy's
``m_{t+1} = gamma P^T (m_t pi)`` are differentiated by the product rule: every part of a jet solves
the *same* linear system as the values do, with what is already known on its right-hand side. So the
factorisation of a policy serves all its derivatives, of any order; a Hessian-vector product takes
one solve for values (the tangent) and one for occupancies (the adjoint).

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
    """Jets around ``base``: ``policy`` of the probabilities ``[..., S, A]``; ``reward [..., T, S,
    A]`` and ``discount [...]`` where they move (default: they do not).
    """

    base: Evaluation
    policy: Parts
    reward: Parts | None = None
    discount: Parts | None = None

    @property
    def _timed_policy(self) -> list[Part]:
        return [None if part is None else part[..., None, :, :] for part in self.policy]

    @property
    def _timed_discount(self) -> list[Part]:
        if self.discount is None:
            still: list[Part] = [None] * (len(self.policy) - 1)
            return [self.base.tables.per_step(), *still]
        per_step = self.base.tables.per_step
        return [None if part is None else per_step(part) for part in self.discount]

    def _continued(self, discount: FloatArray, values: FloatArray) -> FloatArray:
        """``discount P V_{t+1}``, ``[..., T, S, A]``."""
        following = self.base.tables.kernel.expect(self.base.system.later(values))
        return discount[..., None] * following

    def _arriving(self, discount: FloatArray, visits: FloatArray) -> FloatArray:
        """Where discounted visits ``[..., T, S, A]`` lead, at the step after."""
        return self.base.system.earlier(discount * self.base.tables.kernel.push(visits))

    @cached_property
    def _both_values(self) -> tuple[list[Part], list[Part]]:
        policy, discount = self._timed_policy, self._timed_discount
        values: list[Part] = [self.base.step_values]
        action_values: list[Part] = [self.base.action_values]
        for mask in range(1, len(policy)):
            known = None if self.reward is None else self.reward[mask]
            moved = leibniz(self._continued, discount, values, mask, value_on_left=False)
            known = add(known, moved)
            own = None if known is None else leibniz(_mean, policy, [known], 0)
            shifted = pivoted(policy[0], action_values)
            own = add(own, leibniz(_mean, policy, shifted, mask, value_on_left=False))
            value = None if own is None else self.base.system.solve(own)
            values.append(value)
            ahead = None if value is None else leibniz(self._continued, discount, [value], 0)
            action_values.append(add(known, ahead))
        return values, action_values

    @property
    def values(self) -> list[Part]:
        """The jet of V_t ``[..., T, S]``."""
        return self._both_values[0]

    @property
    def action_values(self) -> list[Part]:
        """The jet of Q_t ``[..., T, S, A]``."""
        return self._both_values[1]

    @cached_property
    def advantages(self) -> list[Part]:
        """The jet of ``Q_t - sum_a pi Q_t``, ``[..., T, S, A]``."""
        found: list[Part] = [self.base.advantages]
        policy = self._timed_policy
        shifted = pivoted(policy[0], self.action_values)
        for mask in range(1, len(policy)):
            mean = leibniz(_mean, policy, shifted, mask)
            found.append(add(shifted[mask], None if mean is None else -mean[..., None]))
        return found

    @cached_property
    def _both_visits(self) -> tuple[list[Part], list[Part]]:
        policy, discount = self._timed_policy, self._timed_discount
        occupancy: list[Part] = [self.base.occupancy]
        visits: list[Part] = [leibniz(_taken, policy, occupancy, 0)]
        for mask in range(1, len(policy)):
            turned = leibniz(_taken, policy, occupancy, mask, value_on_left=False)
            own = None if turned is None else leibniz(self._arriving, discount, [turned], 0)
            own = add(own, leibniz(self._arriving, discount, visits, mask, value_on_left=False))
            occupied = None if own is None else self.base.system.solve_adjoint(own)
            occupancy.append(occupied)
            stayed = None if occupied is None else leibniz(_taken, policy, [occupied], 0)
            visits.append(add(turned, stayed))
        return occupancy, visits

    @property
    def occupancy(self) -> list[Part]:
        """The jet of m_t ``[..., T, S]``."""
        return self._both_visits[0]

    @property
    def visits(self) -> list[Part]:
        """The jet of m_t pi ``[..., T, S, A]``."""
        return self._both_visits[1]

    @cached_property
    def gradient(self) -> list[Part]:
        """The jet of the policy gradient in the logits, ``[..., S, A]``."""
        return policy_gradient(self.occupancy, self._timed_policy, self.advantages)


def policy_gradient(occupancy: Parts, timed_policy: Parts, advantages: Parts) -> list[Part]:
    """The jet of ``sum_t m_t pi A_t [..., S, A]``, from those of its factors."""
    weighted = product(timed_policy, advantages)
    found: list[Part] = []
    for mask in range(len(weighted)):
        part = leibniz(_over_time, occupancy, weighted, mask)
        found.append(part)
    return found


def field_over_time(occupancy: FloatArray, exact: Evaluation) -> FloatArray:
    """``sum_t occupancy_t pi A_t [..., S, A]`` for any weights ``occupancy [..., T, S]``."""
    timed = exact.policy[..., None, :, :]
    return required(policy_gradient([occupancy], [timed], [exact.advantages])[0])


def _mean(policy: FloatArray, values: FloatArray) -> FloatArray:
    mean: FloatArray = (policy * values).sum(axis=-1)
    return mean


def _taken(policy: FloatArray, occupancy: FloatArray) -> FloatArray:
    return policy * occupancy[..., None]


def _over_time(occupancy: FloatArray, weighted: FloatArray) -> FloatArray:
    total: FloatArray = np.sum(occupancy[..., None] * weighted, axis=-3)
    return total
