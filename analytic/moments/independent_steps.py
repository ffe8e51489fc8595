"""Moments of sums over a trajectory's steps of a credit times a vector, for many parameters.

Gradients, and the Hessian estimators that take each step by itself, are ``X_0`` of

    X_t = w_t e_t y(s_t, a_t) + c X_{t+1},    e_t = x(s_t, a_t, s_{t+1}) + decay e_{t+1},

so that with the law m_t of s_t, times c^2t,

    E[X_0 X_0^T] = sum_t,s,a m_t(s) pi(a|s) (w_t^2 E[e_t^2|s,a] y y^T + w_t c (y z^T + z y^T)),

``z = E[e_t X_{t+1}|s,a]``: each state's E[e], E[e^2], E[X] and E[e X] are all that is carried back,
in ``O(S A p (S + p))`` a step for p parameters, where second moments of X in each state would take
``O(S A p^2 (S + p))``. Over the infinite horizon the four solve one Bellman system each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradbias.analytic.moments.suffix_sums import fixed_point
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.bellman import bellman_system
from gradbias.analytic.utils.validation import FloatArray


class _Later(NamedTuple):
    """By the state they follow from: E[e] and E[e^2] ``[S]``, E[X] and E[e X] ``[S, p]``."""

    credit: FloatArray
    square: FloatArray
    total: FloatArray
    product: FloatArray


@dataclass(frozen=True, eq=False)
class CreditedSums:
    """X_0 under action probabilities ``policy [S, A]``: x is ``signal [T, S, A, S]``, y ``vectors
    [S, A, p]``, w ``weights [T]``, c ``carry``; T is 1 over the infinite horizon.
    """

    mdp: TabularMDP
    policy: FloatArray
    signal: FloatArray
    vectors: FloatArray
    weights: FloatArray
    decay: float
    carry: float

    @property
    def moments(self) -> tuple[FloatArray, FloatArray]:
        """E[X_0] ``[p]`` and E[X_0 X_0^T] ``[p, p]`` from the start law."""
        p = self.vectors.shape[-1]
        later = _Later(*(np.zeros((self.mdp.n_states, *own)) for own in ((), (), (p,), (p,))))
        second = np.zeros((p, p))
        if self.mdp.horizon is None:
            factors = (self.decay, self.decay**2, self.carry, self.decay * self.carry)

            def step_back(known: Sequence[FloatArray]) -> _Later:
                return self._step_back(0, _Later(*known))[0]

            later = _Later(*fixed_point(self.mdp, self.policy, step_back, later, factors))
        for t, law in reversed(list(enumerate(self._laws()))):
            later, half = self._step_back(t, later)
            visits = law[:, None] * self.policy
            own = self.weights[t] * visits[..., None] * self.vectors
            flat = own.reshape(-1, p).T @ half.reshape(-1, p)
            second += flat + flat.T
        return self.mdp.start @ later.total, second

    def _laws(self) -> FloatArray:
        """``[T, S]``: of s_t, times c^2t; over the infinite horizon their sum."""
        if self.mdp.horizon is None:
            system = bellman_system(self.mdp.tables, self.policy, np.asarray(self.carry**2))
            return system.solve_adjoint(self.mdp.start[None])
        kernel = self.carry**2 * np.einsum("sa,sax->sx", self.policy, self.mdp.transition)
        found = [self.mdp.start]
        for _ in self.weights[1:]:
            found.append(found[-1] @ kernel)
        return np.array(found)

    def _step_back(self, t: int, later: _Later) -> tuple[_Later, FloatArray]:
        """Step t's moments from those of step t + 1; and z ``[S, A, p]``, for which ``w (y z^T + z
        y^T)`` is what the step adds to E[X_0 X_0^T] at each state and action.
        """
        joint, decay, carry = self.mdp.transition, self.decay, self.carry
        once, own = joint * self.signal[t], self.weights[t] * self.vectors
        credit = once.sum(axis=-1) + decay * (joint @ later.credit)
        square = (once * self.signal[t]).sum(axis=-1) + 2.0 * decay * (once @ later.credit)
        square += decay**2 * (joint @ later.square)
        crossed = carry * (once @ later.total + decay * (joint @ later.product))
        new = (
            credit,
            square,
            credit[..., None] * own + carry * (joint @ later.total),
            square[..., None] * own + crossed,
        )
        half = 0.5 * square[..., None] * own + crossed
        return _Later(*(np.einsum("sa,sa...->s...", self.policy, each) for each in new)), half
