"""Moments of DiCE's Hessian times a vector, which pairs the scores of different steps.

With score u and the local part l of step t (the Hessian of pi over pi, times v), ``alpha = u.v``,
credit ``e_t = x + decay e_{t+1}``, baseline b, weight w and carry c, it is ``h_0`` of

    X_t = w u e_t + c X_{t+1},
    h_t = w l (e_t - b) + c (alpha X_{t+1} + u (v.X_{t+1})) + c h_{t+1}.

E[h h^T] at one step takes E[X X^T], E[X h^T] and E[h h^T] at the next only times numbers; what
those numbers add up to at each step and state (`_Flows`) is carried forwards, so that no matrix is
kept for a state. What is carried backwards are vectors: the means of X and h, alone and times e,
and times v.X. That is ``O(S A p (S + p))`` a step for p parameters.
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
    """By the state that they follow from, ``[S]`` or ``[S, p]``: the means of e, e^2, X, e X, h, e
    h, (v.X) X and (v.X) h. Each is made of those before it.
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
    """How often, ``[S]``, the estimate's second moment takes a step's E[h h^T], its E[X h^T] and
    transpose, and its E[X X^T].
    """

    second: FloatArray
    cross: FloatArray
    first: FloatArray


@dataclass(frozen=True, eq=False)
class PairedSums:
    """h_0 under action probabilities ``policy [S, A]``: x is ``signal [T, S, A, S]``, u and l are
    ``scores`` and ``local [S, A, p]``, v ``direction [p]``, b ``baseline [T + 1, S]``, w ``weights
    [T]``; T is 1 over the infinite horizon.
    """

    mdp: TabularMDP
    policy: FloatArray
    signal: FloatArray
    scores: FloatArray
    local: FloatArray
    direction: FloatArray
    baseline: FloatArray
    weights: FloatArray
    decay: float
    carry: float

    @property
    def moments(self) -> tuple[FloatArray, FloatArray]:
        """E[h_0] ``[p]`` and E[h_0 h_0^T] ``[p, p]`` from the start law."""
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

    def _stationary(self, nothing: _Later) -> _Later:
        decay, carry = self.decay, self.carry
        factors = (decay, decay**2, carry, decay * carry, carry, decay * carry, carry**2, carry**2)

        def step_back(known: Sequence[FloatArray]) -> _Later:
            return _Step.of(self, 0, _Later(*known)).means

        return _Later(*fixed_point(self.mdp, self.policy, step_back, nothing, factors))

    def _flows(self) -> list[_Flows]:
        """Each step's; over the infinite horizon all steps' together, one of them after the other,
        as each is made of those before it.
        """
        nothing = np.zeros(self.mdp.n_states)
        found = _Flows(self.mdp.start, nothing, nothing)
        if self.mdp.horizon is None:
            system = bellman_system(self.mdp.tables, self.policy, np.asarray(self.carry**2))
            for i in range(len(found)):
                own = found[0] if i == 0 else self._next(found)[i]
                solved = system.solve_adjoint(own[None])[0]
                found = _Flows(*(solved if k == i else each for k, each in enumerate(found)))
            return [found]
        every = [found]
        for _ in self.weights[1:]:
            every.append(self._next(every[-1]))
        return every

    def _next(self, flows: _Flows) -> _Flows:
        """What a step's flows lead to at the next."""
        along = self.scores @ self.direction
        second, cross, first = (each[:, None] * self.policy for each in flows)
        taken = (second, along * second + cross, along**2 * second + 2.0 * along * cross + first)
        table = self.carry**2 * self.mdp.transition
        return _Flows(*(np.tensordot(each, table, axes=2) for each in taken))


@dataclass(frozen=True, eq=False)
class _Step:
    """One step's means by state and action, ``[S, A, 1]`` or ``[S, A, p]``: of its own credit, and
    of the next step's X and h, as `_Later` names them.
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

    def _ahead(self, means: FloatArray) -> FloatArray:
        """``v.X`` of X, with what it is multiplied by."""
        ahead: FloatArray = (means @ self.sums.direction)[..., None]
        return ahead

    def _sum(self, total: FloatArray, paired: FloatArray) -> FloatArray:
        along: FloatArray = self.along * total + self.sums.scores * self._ahead(total) + paired
        return along

    @cached_property
    def turned(self) -> FloatArray:
        """The mean of ``alpha X + u (v.X) + h``."""
        return self._sum(self.total, self.paired)

    @cached_property
    def credit_turned(self) -> FloatArray:
        """That times e."""
        return self._sum(self.credit_total, self.credit_paired)

    @cached_property
    def along_turned(self) -> FloatArray:
        """That times v.X."""
        return self._sum(self.along_total, self.along_paired)

    @property
    def _based(self) -> FloatArray:
        """E[e (e - b)]."""
        return self.square - self.base * self.credit

    @property
    def means(self) -> _Later:
        """By state, of this step's own X and h."""
        u, local, weight, carry = self.sums.scores, self.sums.local, self.weight, self.sums.carry
        over_base = self._ahead(self.credit_total) - self.base * self._ahead(self.total)
        pairs = self.along * self.credit_total + u * self._ahead(self.credit_total)
        new = (
            self.credit[..., 0],
            self.square[..., 0],
            weight * u * self.credit + carry * self.total,
            weight * u * self.square + carry * self.credit_total,
            weight * local * (self.credit - self.base) + carry * self.turned,
            weight * local * self._based + carry * self.credit_turned,
            weight * (weight * self.along * u * self.square + carry * pairs)
            + carry**2 * self.along_total,
            weight * (weight * self.along * local * self._based + carry * local * over_base)
            + carry * (weight * self.along * self.credit_turned + carry * self.along_turned),
        )
        return _Later(*(np.einsum("sa,sa...->s...", self.sums.policy, each) for each in new))

    def half_of_second(self, flows: _Flows) -> FloatArray:
        """``[p, p]``, which with its transpose is the step's part of E[h_0 h_0^T]."""
        u, local, weight, carry = self.sums.scores, self.sums.local, self.weight, self.sums.carry
        twice, cross, first = (each[:, None, None] * self.sums.policy[..., None] for each in flows)
        with_scores = (
            twice * carry**2 * (self.along_turned - 0.5 * u * self._ahead(self.along_total))
        )
        with_scores += cross * weight * (weight * self._based * local + carry * self.credit_turned)
        with_scores += cross * carry**2 * self.along_total
        with_scores += first * weight * (0.5 * weight * self.square * u + carry * self.credit_total)
        squared = self._based - self.base * (self.credit - self.base)
        with_local = 0.5 * weight * squared * local + carry * (
            self.credit_turned - self.base * self.turned
        )
        with_local = twice * weight * with_local
        with_local += cross * weight * carry * (self.credit_total - self.base * self.total)
        return _outer(u, with_scores) + _outer(local, with_local)


def _outer(left: FloatArray, right: FloatArray) -> FloatArray:
    """``sum_s,a left right^T [p, p]``."""
    p = left.shape[-1]
    found: FloatArray = left.reshape(-1, p).T @ right.reshape(-1, p)
    return found
