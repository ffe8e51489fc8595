"""Moments of sums over a trajectory's steps of a credit times a vector, for many parameters.

Gradient estimates, and Hessian estimates without pairs of steps, are ``X_0`` of the recursion

    X_t = w_t e_t y(s_t, a_t) + c X_{t+1},    e_t = x(s_t, a_t, s_{t+1}) + decay e_{t+1},

with y the vector of a step, e_t its credit, x the signal that credits are sums of (rewards or TD
errors), w_t weights and c a carry. So, with m_t the distribution of s_t times c^2t,

    E[X_0 X_0^T] = sum_t,s,a m_t(s) pi(a|s) (w_t^2 E[e_t^2|s,a] y y^T + w_t c (y z^T + z y^T)),

where ``z = E[e_t X_{t+1}|s,a]``. Only each state's E[e], E[e^2], E[X] and E[e X] are carried
backwards, in ``O(S A p (S + p))`` a step for p parameters; second moments of X in each state would
take ``O(S A p^2 (S + p))``. Over the infinite horizon the four solve one Bellman system each.
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
    """Means given the current state: E[e] and E[e^2] ``[S]``, E[X] and E[e X] ``[S, p]``."""

    credit: FloatArray
    square: FloatArray
    total: FloatArray
    product: FloatArray


@dataclass(frozen=True, eq=False)
class CreditedSums:
    """The sum X_0, for a trajectory of T steps (T = 1 for the infinite horizon)."""

    mdp: TabularMDP
    policy: FloatArray  # action probabilities, [S, A]
    signal: FloatArray  # x, [T, S, A, S]
    vectors: FloatArray  # y, [S, A, p]
    weights: FloatArray  # w, [T]
    decay: float  # of the credits
    carry: float  # c

    @property
    def moments(self) -> tuple[FloatArray, FloatArray]:
        """E[X_0] ``[p]`` and E[X_0 X_0^T] ``[p, p]`` from the initial distribution."""
        p = self.vectors.shape[-1]
        later = _Later(*(np.zeros((self.mdp.n_states, *more)) for more in ((), (), (p,), (p,))))
        second = np.zeros((p, p))
        if self.mdp.horizon is None:
            factors = (self.decay, self.decay**2, self.carry, self.decay * self.carry)

            def step_back(moments: Sequence[FloatArray]) -> _Later:
                return self._step_back(0, _Later(*moments))[0]

            later = _Later(*fixed_point(self.mdp, self.policy, step_back, later, factors))
        for t, states in reversed(list(enumerate(self._visits()))):
            later, half = self._step_back(t, later)
            visits = states[:, None] * self.policy
            vectors = self.weights[t] * visits[..., None] * self.vectors
            # Adding a matrix and its transpose keeps E[X X^T] symmetric to the last bit.
            flat = vectors.reshape(-1, p).T @ half.reshape(-1, p)
            second += flat + flat.T
        return self.mdp.start @ later.total, second

    def _visits(self) -> FloatArray:
        """The distributions of s_t times c^2t, ``[T, S]``; over the infinite horizon their sum."""
        if self.mdp.horizon is None:
            system = bellman_system(self.mdp.tables, self.policy, np.asarray(self.carry**2))
            return system.solve_adjoint(self.mdp.start[None])
        kernel = self.carry**2 * np.einsum("sa,sax->sx", self.policy, self.mdp.transition)
        visits = [self.mdp.start]
        for _ in self.weights[1:]:
            visits.append(visits[-1] @ kernel)
        return np.array(visits)

    def _step_back(self, t: int, later: _Later) -> tuple[_Later, FloatArray]:
        """Step t's means from those of step t + 1; and ``w E[e^2] y / 2 + c z [S, A, p]``, half of
        what the step adds to E[X_0 X_0^T]: the other half is the transpose.
        """
        joint, decay, carry = self.mdp.transition, self.decay, self.carry
        once, vectors = joint * self.signal[t], self.weights[t] * self.vectors
        credit = once.sum(axis=-1) + decay * (joint @ later.credit)
        square = (once * self.signal[t]).sum(axis=-1) + 2.0 * decay * (once @ later.credit)
        square += decay**2 * (joint @ later.square)
        product = carry * (once @ later.total + decay * (joint @ later.product))
        by_action = (
            credit,
            square,
            credit[..., None] * vectors + carry * (joint @ later.total),
            square[..., None] * vectors + product,
        )
        half = 0.5 * square[..., None] * vectors + product
        return _Later(*(np.einsum("sa,sa...->s...", self.policy, x) for x in by_action)), half
