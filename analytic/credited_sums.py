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

from dataclasses import dataclass

import numpy as np

from analytic.arrays import FloatArray
from analytic.problems import TabularMDP
from analytic.systems import System, bellman_system


@dataclass(frozen=True, eq=False)
class _Later:
    """E[e] and E[e^2] ``[S]``, E[X] and E[e X] ``[S, p]``, by the state they follow from."""

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
        second = np.zeros((p, p))
        if self.mdp.horizon is None:
            later = self._stationary()
            law = self._system(self.carry**2).solve_adjoint(self.mdp.start[None])[0]
            self._add_step(second, 0, law, later)
            return self.mdp.start @ later.total, second
        later = _Later(*(np.zeros((self.mdp.n_states, *own)) for own in ((), (), (p,), (p,))))
        for t, law in reversed(list(enumerate(self._laws()))):
            later = self._add_step(second, t, law, later)
        return self.mdp.start @ later.total, second

    def _laws(self) -> FloatArray:
        """``[T, S]``: of s_t, times c^2t."""
        kernel = self.carry**2 * np.einsum("sa,sax->sx", self.policy, self.mdp.transition)
        found = [self.mdp.start]
        for _ in self.weights[1:]:
            found.append(found[-1] @ kernel)
        return np.array(found)

    def _add_step(self, second: FloatArray, t: int, law: FloatArray, later: _Later) -> _Later:
        """Step t's moments from those of step t + 1; its part of E[X_0 X_0^T] goes to ``second``,
        in place.
        """
        joint, weight = self.mdp.transition, self.weights[t]
        once = joint * self.signal[t]
        credit = once.sum(axis=-1) + self.decay * (joint @ later.credit)
        square = (once * self.signal[t]).sum(axis=-1) + 2.0 * self.decay * (once @ later.credit)
        square += self.decay**2 * (joint @ later.square)
        crossed = self.carry * (once @ later.total + self.decay * (joint @ later.product))
        own, visits = weight * self.vectors, law[:, None] * self.policy
        half = visits[..., None] * (0.5 * square[..., None] * own + crossed)
        flat = own.reshape(-1, own.shape[-1]).T @ half.reshape(-1, own.shape[-1])
        second += flat + flat.T
        return _Later(
            self._mean(credit),
            self._mean(square),
            self._mean(credit[..., None] * own + self.carry * (joint @ later.total)),
            self._mean(square[..., None] * own + crossed),
        )

    def _mean(self, values: FloatArray) -> FloatArray:
        """``[S, ...]``: over the actions of ``[S, A, ...]``."""
        found: FloatArray = np.einsum("sa,sa...->s...", self.policy, values)
        return found

    def _stationary(self) -> _Later:
        """What a step leaves as it is: one moment after the other, each from those before."""
        joint, signal, decay, carry = self.mdp.transition, self.signal[0], self.decay, self.carry
        once = joint * signal
        paid = once.sum(axis=-1)
        credit = self._solved(decay, self._mean(paid))
        square = (once * signal).sum(axis=-1) + 2.0 * decay * (once @ credit)
        squares = self._solved(decay**2, self._mean(square))
        mean = paid + decay * (joint @ credit)
        total = self._solved(carry, self._mean(mean[..., None] * self.vectors))
        square += decay**2 * (joint @ squares)
        own = square[..., None] * self.vectors + carry * (once @ total)
        return _Later(credit, squares, total, self._solved(decay * carry, self._mean(own)))

    def _solved(self, factor: float, own: FloatArray) -> FloatArray:
        """The x ``[S, ...]`` with ``x = own + factor P_pi x``."""
        rows = np.moveaxis(own, 0, -1)[..., None, :]
        return np.moveaxis(self._system(factor).solve(rows)[..., 0, :], -1, 0)

    def _system(self, factor: float) -> System:
        return bellman_system(self.mdp.tables, self.policy, np.asarray(factor))
