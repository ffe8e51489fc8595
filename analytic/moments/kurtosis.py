"""How few trajectories carry the second moment of a gradient estimate: its exact kurtosis.

A sample's mean is nearly normal if many of its outcomes matter. If an estimate is 0 except for an
outcome of probability p, its kurtosis ``E (x - E x)^4 / (Var x)^2`` is about 1 / p, so that n over
the kurtosis is the expected number of outcomes that matter among n estimates.

The estimate is the return's derivative of order k along a vector v, by the score function and from
one trajectory. With the policy's ratio ``q(e) = pi(theta + e v) / pi(theta)`` of a step, its
importance weight rho (1 on policy) and its reward r, the reward-to-go G_0 and its derivatives G_1
to G_k follow from those of the next step, G'_0 to G'_k, by

    G_j = rho sum_i C(j, i) q_i (r [i = j] + gamma G'_{j-i}),

q_i being the i-th derivative of q at e = 0. So ``x = (1, G_0, ..., G_k)`` is a matrix times the
next step's x, and the fourth moments of x by state, a tensor with four axes, follow backwards in
time. With the exact values V as a baseline, r is ``r + gamma V(s') - V(s)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradbias.analytic.policies.at_parameters import PolicyAt
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import BoolArray, FloatArray, IntArray

DIRECTIONS = 3
"""The number of random directions v; the same ones at every call."""

_BLOCK = 2**14
"""The number of steps that are computed at once."""

_NEGLIGIBLE = 1e-6
"""A variance that is a smaller share of the second moment is ignored as rounding."""


@dataclass(frozen=True)
class Kurtosis:
    """The kurtosis of a gradient estimate, and the step that contributes most to it.

    Attributes:
        value: the larger of the kurtoses with and without the exact baseline, each a weighted mean
            over some directions; 0 if the estimate varies in none of them.
        step: the state, action and next state with the largest sum of fourth powers of TD errors.
        probability: the expected number of such steps in a trajectory.
    """

    value: float
    step: tuple[int, int, int]
    probability: float


def kurtosis_work(mdp: TabularMDP, order: int, steps: int) -> float:
    """The approximate number of operations that `derivative_kurtosis` takes."""
    k, edges = order + 2, int(np.count_nonzero(mdp.transition))
    by_successor = mdp.next_state_reward.shape[-1] > 1
    mapped = edges if by_successor else mdp.n_states * mdp.n_actions
    each = (mapped + mdp.n_states) * 8.0 * k**5 + 2.0 * edges * k**4
    return steps * 2.0 * DIRECTIONS * each


def derivative_kurtosis(
    mdp: TabularMDP, at: PolicyAt, behaviour: FloatArray, order: int, steps: int
) -> Kurtosis:
    """The kurtosis of estimates of the return's derivative, from trajectories of ``steps`` steps.

    Args:
        mdp: the problem.
        at: the policy at its parameters.
        behaviour: the action probabilities that trajectories are drawn with, ``[S, A]``.
        order: the derivative's order.
        steps: the number of steps of a trajectory.
    """
    values = _values(mdp, at.probabilities, steps)
    fourth, second = np.zeros(2), np.zeros(2)
    plain = 0.0
    rng = np.random.default_rng(0)
    for _ in range(DIRECTIONS):
        ratios = _weighted_ratios(mdp, at, behaviour, order, rng.normal(size=at.shape))
        for b, baseline in enumerate((np.zeros_like(values), values)):
            tensor = _fourth_moments(mdp, behaviour, ratios, baseline, steps)
            raw, variance, power = _central(tensor)
            plain = max(plain, raw)
            if variance > _NEGLIGIBLE * plain:
                fourth[b] += power
                second[b] += variance**2
    value = float(np.max(fourth / np.where(second > 0, second, 1.0)))
    return Kurtosis(value, *_heaviest_step(mdp, behaviour, values, steps))


def _values(mdp: TabularMDP, policy: FloatArray, steps: int) -> FloatArray:
    """The expected rewards-to-go, ``[steps + 1, S]``, 0 at the end."""
    values = np.zeros((steps + 1, mdp.n_states))
    reward = mdp.tables.reward
    for t in reversed(range(steps)):
        ahead = reward[min(t, len(reward) - 1)] + mdp.discount * (mdp.transition @ values[t + 1])
        values[t] = (policy * ahead).sum(axis=1)
    return values


def _weighted_ratios(
    mdp: TabularMDP, at: PolicyAt, behaviour: FloatArray, order: int, v: FloatArray
) -> FloatArray:
    """``rho q_i``, i from 0 to the order, ``[order + 1, S, A]``; at terminal states 1, 0, ..."""
    jet = at.jet([v] * order)
    taken = behaviour > 0
    ratios = np.zeros((order + 1, *behaviour.shape))
    for i in range(order + 1):
        part = jet[2**i - 1]  # along the first i of the directions, which are all v
        if part is not None:
            np.divide(part, behaviour, out=ratios[i], where=taken)
    ratios[:, mdp.terminal] = 0.0
    ratios[0, mdp.terminal] = 1.0
    return ratios


def _fourth_moments(
    mdp: TabularMDP, behaviour: FloatArray, ratios: FloatArray, baseline: FloatArray, steps: int
) -> FloatArray:
    """``E[x x x x]`` from the start, with four axes of the length of x."""
    n_states, k = mdp.n_states, len(ratios) + 1
    weights = np.moveaxis(ratios, 0, -1).reshape(-1, k - 1)
    maps = np.zeros((len(weights), k, k))
    maps[:, 0, 0] = 1.0
    for j in range(k - 1):
        for i in range(j + 1):
            maps[:, 1 + j, 1 + j - i] = math.comb(j, i) * mdp.discount * weights[:, i]
    moves = _Moves.of(mdp, maps, weights)
    shift = np.broadcast_to(np.eye(k), (n_states, k, k)).copy()
    tensor = np.zeros((n_states, k, k, k, k))
    tensor[:, 0, 0, 0, 0] = 1.0
    for t in reversed(range(steps)):
        shift[:, 1, 0] = baseline[t + 1]
        by_action = moves.back(t, baseline[t], _mapped(shift, tensor))
        by_action = by_action.reshape(*behaviour.shape, -1)
        tensor = np.einsum("sa,sax->sx", behaviour, by_action).reshape(tensor.shape)
    return np.asarray(np.einsum("s,s...->...", mdp.start, tensor))


@dataclass(frozen=True, eq=False)
class _Moves:
    """The possible steps: one for each state and action, or, where rewards depend on the next
    state, for each next state too. The matrix of a step lacks its reward.
    """

    mdp: TabularMDP
    kernel: Any  # transition probabilities, [S A, S], sparse
    pairs: IntArray  # the state and action of each step, as s A + a
    after: IntArray | None  # its next state, where rewards depend on it
    maps: FloatArray  # by state and action, [S A, k, k]
    weights: FloatArray  # rho q_i, [S A, k - 1]

    @classmethod
    def of(cls, mdp: TabularMDP, maps: FloatArray, weights: FloatArray) -> _Moves:
        from scipy.sparse import csr_array

        kernel = csr_array(mdp.transition.reshape(-1, mdp.n_states))
        pairs: IntArray = np.arange(len(weights), dtype=np.int64)
        if mdp.next_state_reward.shape[-1] == 1:
            return cls(mdp, kernel, pairs, None, maps, weights)
        pairs = np.repeat(pairs, np.diff(kernel.indptr))
        return cls(mdp, kernel, pairs, kernel.indices, maps, weights)

    def back(self, t: int, baseline: FloatArray, later: FloatArray) -> FloatArray:
        """The moments ``[S A, k^4]`` before step t by state and action, given those after it."""
        table, ended = self.mdp.next_state_reward, self.mdp.terminal
        reward = table[min(t, len(table) - 1)].reshape(len(self.weights), -1)
        flat = later.reshape(len(later), -1)
        if self.after is None:
            return self._stepped(slice(None), reward[:, 0], baseline, ended, self.kernel @ flat)
        result = np.zeros((len(self.weights), flat.shape[1]))
        for begin in range(0, len(self.pairs), _BLOCK):
            some = slice(begin, begin + _BLOCK)
            rows, after = self.pairs[some], self.after[some]
            ahead = self._stepped(some, reward[rows, after], baseline, ended, flat[after])
            ends = np.flatnonzero(np.diff(rows, prepend=-1))
            chances = self.kernel.data[some][:, None]
            result[rows[ends]] += np.add.reduceat(chances * ahead, ends)
        return result

    def _stepped(
        self,
        some: slice,
        reward: FloatArray,
        baseline: FloatArray,
        ended: BoolArray,
        ahead: FloatArray,
    ) -> FloatArray:
        rows = self.pairs[some]
        states = rows // self.mdp.n_actions
        signal = np.where(ended[states], 0.0, reward - baseline[states])
        step = self.maps[rows]
        step[:, 1:, 0] += signal[:, None] * self.weights[rows]
        k = step.shape[-1]
        return _mapped(step, ahead.reshape(-1, k, k, k, k)).reshape(len(step), -1)


def _mapped(matrices: FloatArray, tensors: FloatArray) -> FloatArray:
    """The moments ``[B, k, k, k, k]`` of matrix times x, given those of x."""
    count, k = matrices.shape[:2]
    for _ in range(4):  # each time the first axis is mapped and becomes the last
        tensors = np.matmul(matrices, tensors.reshape(count, k, k**3))
        tensors = np.moveaxis(tensors.reshape(count, k, k, k, k), 1, -1)
    return tensors


def _central(tensor: FloatArray) -> tuple[float, float, float]:
    """The second moment, the variance and the fourth central moment of x's last entry."""
    centred = np.zeros(len(tensor))
    centred[0], centred[-1] = -tensor[-1, 0, 0, 0], 1.0
    variance = np.einsum("i,j,ij->", centred, centred, tensor[:, :, 0, 0])
    power = np.einsum("i,j,k,l,ijkl->", *[centred] * 4, tensor)
    return float(tensor[-1, -1, 0, 0]), float(variance), float(power)


def _heaviest_step(
    mdp: TabularMDP, behaviour: FloatArray, values: FloatArray, steps: int
) -> tuple[tuple[int, int, int], float]:
    """The step ``(s, a, s')`` of the largest fourth powers, and its expected number."""
    joint = behaviour[:, :, None] * mdp.transition
    table = mdp.next_state_reward
    reached, powers, counts = mdp.start, np.zeros_like(joint), np.zeros_like(joint)
    for t in range(steps):
        errors = table[min(t, len(table) - 1)] - values[t][:, None, None]
        errors = errors + mdp.discount * values[t + 1]
        number = np.where(mdp.terminal, 0.0, reached)[:, None, None] * joint
        counts += number
        powers += number * (mdp.discount**t * errors) ** 4
        reached = np.einsum("s,sat->t", reached, joint)
    s, a, after = np.unravel_index(int(powers.argmax()), powers.shape)
    return (int(s), int(a), int(after)), float(counts[s, a, after])
