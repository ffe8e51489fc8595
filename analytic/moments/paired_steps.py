"""Moments of DiCE's Hessian times a vector v, which pairs the scores of different steps.

Step t has the score u, its local part l (the Hessian of pi over pi, times v), ``alpha = u.v``, the
credit ``e_t = x + decay e_{t+1}`` (x is the reward or TD error), the baseline b, the weight w and
the carry c. DiCE's Hessian times v is ``h_0`` of the recursion

    X_t = w u e_t + c X_{t+1},
    h_t = w l (e_t - b) + c (alpha X_{t+1} + u (v.X_{t+1})) + c h_{t+1}.

E[h_t h_t^T] depends on E[X X^T], E[X h^T] and E[h h^T] of the next step only by scalar factors. The
sums of those factors for each step and state (`_Flows`) are carried forwards, so that no matrix is
kept for a state. Carried backwards are vectors only: the means of X and h, alone, times e, and
times v.X. That is ``O(S A p (S + p))`` a step for p parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from gradbias.analytic.moments.suffix_sums import fixed_point
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.bellman import bellman_system
from gradbias.analytic.utils.validation import FloatArray


class _Later(NamedTuple):
    """Means given the current state, ``[S]`` or ``[S, p]``: of e, e^2, X, e X, h, e h, (v.X) X and
    (v.X) h. Each depends only on those before it.
    """

    credit: FloatArray
    square: FloatArray
    total: FloatArray
    credit_total: FloatArray
    paired: FloatArray
    credit_paired: FloatArray
    along_total: FloatArray
    along_paired: FloatArray


class _Flows(NamedTuple):
    """The factors ``[S]`` with which E[h_0 h_0^T] depends on a step's E[h h^T], on its E[X h^T]
    plus transpose, and on its E[X X^T].
    """

    second: FloatArray
    cross: FloatArray
    first: FloatArray


@dataclass(frozen=True, eq=False)
class PairedSums:
    """The sum h_0, for a trajectory of T steps (T = 1 for the infinite horizon)."""

    mdp: TabularMDP
    policy: FloatArray  # action probabilities, [S, A]
    signal: FloatArray  # x, [T, S, A, S]
    scores: FloatArray  # u, [S, A, p]
    local: FloatArray  # l, [S, A, p]
    direction: FloatArray  # v, [p]
    baseline: FloatArray  # b, [T + 1, S]
    weights: FloatArray  # w, [T]
    decay: float  # of the credits
    carry: float  # c

    @property
    def moments(self) -> tuple[FloatArray, FloatArray]:
        """E[h_0] ``[p]`` and E[h_0 h_0^T] ``[p, p]`` from the initial distribution."""
        p, n_states = len(self.direction), self.mdp.n_states
        later = _Later(*np.zeros((2, n_states)), *np.zeros((6, n_states, p)))
        second = np.zeros((p, p))
        if self.mdp.horizon is None:
            later = self._stationary(later)
        for t, flows in reversed(list(enumerate(self._flows()))):
            step = _Step.of(self, t, later)
            half = step.half_of_second(flows)
            second += half + half.T
            later = step.means
        return self.mdp.start @ later.paired, second

    def _stationary(self, zeros: _Later) -> _Later:
        """The means over the infinite horizon."""
        decay, carry = self.decay, self.carry
        factors = (decay, decay**2, carry, decay * carry, carry, decay * carry, carry**2, carry**2)

        def step_back(moments: Sequence[FloatArray]) -> _Later:
            return _Step.of(self, 0, _Later(*moments)).means

        return _Later(*fixed_point(self.mdp, self.policy, step_back, zeros, factors))

    def _flows(self) -> list[_Flows]:
        """The factors of each step. Over the infinite horizon they are those of all steps together;
        each kind depends on those before it, so they are solved for one after the other.
        """
        zero = np.zeros(self.mdp.n_states)
        flows = _Flows(self.mdp.start, zero, zero)
        if self.mdp.horizon is None:
            system = bellman_system(self.mdp.tables, self.policy, np.asarray(self.carry**2))
            for i in range(len(flows)):
                right = flows[0] if i == 0 else self._next(flows)[i]
                solved = system.solve_adjoint(right[None])[0]
                flows = _Flows(*(solved if k == i else flow for k, flow in enumerate(flows)))
            return [flows]
        by_step = [flows]
        for _ in self.weights[1:]:
            by_step.append(self._next(by_step[-1]))
        return by_step

    def _next(self, flows: _Flows) -> _Flows:
        """The factors of the next step."""
        along = self.scores @ self.direction
        second, cross, first = (flow[:, None] * self.policy for flow in flows)
        onward = (second, along * second + cross, along**2 * second + 2.0 * along * cross + first)
        table = self.carry**2 * self.mdp.transition
        return _Flows(*(np.tensordot(flow, table, axes=2) for flow in onward))


@dataclass(frozen=True, eq=False)
class _Step:
    """One step's means by state and action, ``[S, A, 1]`` or ``[S, A, p]``: of its credit, and of
    the next step's X and h, named as in `_Later`.
    """

    sums: PairedSums
    weight: float
    base: FloatArray
    along: FloatArray
    credit: FloatArray
    square: FloatArray
    total: FloatArray
    credit_total: FloatArray
    paired: FloatArray
    credit_paired: FloatArray
    along_total: FloatArray
    along_paired: FloatArray

    @classmethod
    def of(cls, sums: PairedSums, t: int, later: _Later) -> _Step:
        joint, decay = sums.mdp.transition, sums.decay
        once = joint * sums.signal[t]
        square = (once * sums.signal[t]).sum(axis=-1) + 2.0 * decay * (once @ later.credit)
        return cls(
            sums=sums,
            weight=float(sums.weights[t]),
            base=sums.baseline[t][:, None, None],
            along=(sums.scores @ sums.direction)[..., None],
            credit=(once.sum(axis=-1) + decay * (joint @ later.credit))[..., None],
            square=(square + decay**2 * (joint @ later.square))[..., None],
            total=joint @ later.total,
            credit_total=once @ later.total + decay * (joint @ later.credit_total),
            paired=joint @ later.paired,
            credit_paired=once @ later.paired + decay * (joint @ later.credit_paired),
            along_total=joint @ later.along_total,
            along_paired=joint @ later.along_paired,
        )

    def _along(self, means: FloatArray) -> FloatArray:
        """The mean of ``v.X``, ``[S, A, 1]``, from that of X (alone or times something)."""
        return np.asarray((means @ self.sums.direction)[..., None])

    def _carried(self, total: FloatArray, paired: FloatArray) -> FloatArray:
        """``alpha X + u (v.X) + h`` from means of X and of h."""
        return np.asarray(self.along * total + self.sums.scores * self._along(total) + paired)

    @cached_property
    def later(self) -> FloatArray:
        """The mean of ``alpha X + u (v.X) + h``."""
        return self._carried(self.total, self.paired)

    @cached_property
    def credit_later(self) -> FloatArray:
        """The mean of ``e (alpha X + u (v.X) + h)``."""
        return self._carried(self.credit_total, self.credit_paired)

    @cached_property
    def along_later(self) -> FloatArray:
        """The mean of ``(v.X) (alpha X + u (v.X) + h)``."""
        return self._carried(self.along_total, self.along_paired)

    @property
    def _credit_square(self) -> FloatArray:
        """E[e (e - b)]."""
        return self.square - self.base * self.credit

    @property
    def means(self) -> _Later:
        """The means of this step's X and h, by state."""
        u, local, weight, carry = self.sums.scores, self.sums.local, self.weight, self.sums.carry
        above_base = self._along(self.credit_total) - self.base * self._along(self.total)
        pairs = self.along * self.credit_total + u * self._along(self.credit_total)
        by_action = (
            self.credit[..., 0],
            self.square[..., 0],
            weight * u * self.credit + carry * self.total,
            weight * u * self.square + carry * self.credit_total,
            weight * local * (self.credit - self.base) + carry * self.later,
            weight * local * self._credit_square + carry * self.credit_later,
            weight * (weight * self.along * u * self.square + carry * pairs)
            + carry**2 * self.along_total,
            weight
            * (weight * self.along * local * self._credit_square + carry * local * above_base)
            + carry * (weight * self.along * self.credit_later + carry * self.along_later),
        )
        return _Later(*(np.einsum("sa,sa...->s...", self.sums.policy, x) for x in by_action))

    def half_of_second(self, flows: _Flows) -> FloatArray:
        """A matrix ``[p, p]`` which with its transpose is the step's part of E[h_0 h_0^T]."""
        u, local, weight, carry = self.sums.scores, self.sums.local, self.weight, self.sums.carry
        twice, cross, first = (flow[:, None, None] * self.sums.policy[..., None] for flow in flows)
        with_scores = (
            twice * carry**2 * (self.along_later - 0.5 * u * self._along(self.along_total))
        )
        with_scores += (
            cross * weight * (weight * self._credit_square * local + carry * self.credit_later)
        )
        with_scores += cross * carry**2 * self.along_total
        with_scores += first * weight * (0.5 * weight * self.square * u + carry * self.credit_total)
        squared = self._credit_square - self.base * (self.credit - self.base)
        with_local = 0.5 * weight * squared * local + carry * (
            self.credit_later - self.base * self.later
        )
        with_local = twice * weight * with_local
        with_local += cross * weight * carry * (self.credit_total - self.base * self.total)
        return _outer(u, with_scores) + _outer(local, with_local)


def _outer(left: FloatArray, right: FloatArray) -> FloatArray:
    """``sum_s,a left right^T``, ``[p, p]``."""
    p = left.shape[-1]
    return np.asarray(left.reshape(-1, p).T @ right.reshape(-1, p))
