"""Second moments of what a trajectory's steps sum to, backwards in time or at the fixed point.

Let Z_t be linear in Z_{t+1}: ``Z_t = (L(s, a) + x(s, a, s') E(s, a)) Z_{t+1}``, with x the step's
reward (or its temporal difference error). The second moments ``M_t(s) = E[Z_t Z_t^T | s_t = s]``
follow backwards,

    M_t(s) = sum_a pi(a|s) sum_s' P(s'|s,a) (L + x E) M_{t+1}(s') (L + x E)^T,

in ``O(H S A (S k^2 + k^3))`` for Z of length k, where enumeration takes (S A)^H trajectories.

Over the infinite horizon M is the fixed point, with the constant component held at 1. The parts of
Z come in an order in which each is made of itself, times a number c_i below 1, and of those before
it; so the block (i, j) of M solves ``(I - c_i c_j P_pi) M_ij =`` what the blocks before it give.
Block by block that is a Bellman system of S unknowns, where M at once has S k^2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analytic.arrays import FloatArray
from analytic.problems import TabularMDP
from analytic.systems import bellman_system

Maps = tuple[FloatArray, FloatArray]
"""L and E ``[S, A, k, k]`` of one step."""
LARGEST_STATE = 200_000_000
"""Numbers (states x actions x k^2) up to which the recursion is run."""
_ALL = slice(None)


def check_size(numbers: int) -> None:
    """Raises ValueError for a recursion of more than `LARGEST_STATE` numbers."""
    if numbers > LARGEST_STATE:
        raise ValueError(
            f"mdp: expected a recursion of at most {LARGEST_STATE:,} numbers, got {numbers:,}; "
            "use samples, or fewer parameters"
        )


@dataclass(frozen=True, eq=False)
class SuffixSums:
    """Z under action probabilities ``policy [S, A]``: x is ``signal [T, S, A, S]``, ``maps(t)`` are
    L and E, and ``parts`` the slices of Z, the constant first.
    """

    mdp: TabularMDP
    policy: FloatArray
    signal: FloatArray
    maps: Callable[[int], Maps]
    parts: Sequence[slice]

    @property
    def moments(self) -> FloatArray:
        """E[Z Z^T] ``[k, k]`` from the start law."""
        found = self._stationary() if self.mdp.horizon is None else self._recursed()
        total: FloatArray = np.tensordot(self.mdp.start, found, axes=1)
        return total

    def _first(self) -> FloatArray:
        """``[S, k, k]``: Z = (1, 0, ..)."""
        length = self.parts[-1].stop
        found = np.zeros((self.mdp.n_states, length, length))
        found[:, 0, 0] = 1.0
        return found

    def _recursed(self) -> FloatArray:
        found = self._first()
        for t in reversed(range(len(self.signal))):
            found = self._step_back(self.signal[t], self.maps(t), found)
        return found

    def _stationary(self) -> FloatArray:
        maps = self.maps(0)
        factors = np.diagonal(maps[0][0, 0])
        found = self._first()
        for j, columns in enumerate(self.parts[1:], start=1):
            for rows in self.parts[: j + 1]:
                own = self._step_back(self.signal[0], maps, found, rows, columns)
                factor = np.asarray(factors[rows.start] * factors[columns.start])
                system = bellman_system(self.mdp.tables, self.policy, factor)
                solved = system.solve(np.moveaxis(own, 0, -1)[..., None, :])
                block = np.moveaxis(solved[..., 0, :], -1, 0)
                found[:, rows, columns] = block
                found[:, columns, rows] = np.swapaxes(block, -1, -2)
        return found

    def _step_back(
        self,
        signal: FloatArray,
        maps: Maps,
        later: FloatArray,
        rows: slice = _ALL,
        columns: slice = _ALL,
    ) -> FloatArray:
        """``M_t`` of those rows and columns from M_{t+1} ``[S, k, k]``; none depends on what comes
        after it in Z.
        """
        until, across = slice(rows.stop), slice(columns.stop)
        needed = later[:, until, across]
        plain, once, twice = (
            np.tensordot(self.mdp.transition * signal**power, needed, axes=1) for power in range(3)
        )
        left, left_moving = (each[..., rows, until] for each in maps)
        right, right_moving = (np.swapaxes(each[..., columns, across], -1, -2) for each in maps)
        both = (left @ plain + left_moving @ once) @ right
        both += (left @ once + left_moving @ twice) @ right_moving
        found: FloatArray = (self.policy[..., None, None] * both).sum(axis=1)
        return found
