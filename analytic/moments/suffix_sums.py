"""Second moments of what a trajectory's steps sum to, backwards in time.

Let Z_t be linear in Z_{t+1}: ``Z_t = (L(s, a) + x(s, a, s') E(s, a)) Z_{t+1}``, with x the step's
reward. The second moments ``M_t(s) = E[Z_t Z_t^T | s_t = s]`` then follow backwards,

    M_t(s) = sum_a pi(a|s) sum_s' P(s'|s,a) (L + x E) M_{t+1}(s') (L + x E)^T,

in ``O(H S A (S k^2 + k^3))`` for Z of length k, where enumeration takes (S A)^H trajectories.
`analytic.moments.independent_steps` and `analytic.moments.paired_steps` do without a matrix in each
state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.bellman import bellman_system
from gradbias.analytic.utils.validation import FloatArray

Maps = tuple[FloatArray, FloatArray]
"""L and E ``[S, A, k, k]`` of one step."""
MAX_STATE = 200_000_000
"""Numbers, of a step's tables or of all rewards, up to which moments are computed."""


def check_moments_size(numbers: int) -> None:
    """Raises ValueError for more than `MAX_STATE`."""
    if numbers > MAX_STATE:
        raise ValueError(
            f"mdp: expected a recursion of at most {MAX_STATE:,} numbers, got {numbers:,}; "
            "use samples, or fewer parameters"
        )


def fixed_point(
    mdp: TabularMDP,
    policy: FloatArray,
    step_back: Callable[[Sequence[FloatArray]], Sequence[FloatArray]],
    nothing: Sequence[FloatArray],
    factors: Sequence[float],
) -> list[FloatArray]:
    """What ``step_back`` leaves as it is: moments ``[S, ...]`` over the infinite horizon.

    Each is its own mean at the next state times its factor, and what it gets from those before it:
    that solves a Bellman system each. ``nothing`` are zeros of their shapes.
    """
    known = list(nothing)
    for i, factor in enumerate(factors):
        own = np.moveaxis(step_back(known)[i], 0, -1)
        system = bellman_system(mdp.tables, policy, np.asarray(factor))
        known[i] = np.moveaxis(system.solve(own[..., None, :])[..., 0, :], -1, 0)
    return known


@dataclass(frozen=True, eq=False)
class SuffixSums:
    """Z of a finite horizon under action probabilities ``policy [S, A]``: x is ``signal [H, S, A,
    S]``, ``maps(t)`` are L and E; Z_H is (1, 0, ..), of that ``length``.
    """

    mdp: TabularMDP
    policy: FloatArray
    signal: FloatArray
    maps: Callable[[int], Maps]
    length: int

    @property
    def moments(self) -> FloatArray:
        """E[Z_0 Z_0^T] ``[k, k]`` from the start law."""
        found = np.zeros((self.mdp.n_states, self.length, self.length))
        found[:, 0, 0] = 1.0
        for t in reversed(range(len(self.signal))):
            found = self._step_back(self.signal[t], self.maps(t), found)
        total: FloatArray = np.tensordot(self.mdp.start, found, axes=1)
        return total

    def _step_back(self, signal: FloatArray, maps: Maps, later: FloatArray) -> FloatArray:
        """``M_t`` from M_{t+1} ``[S, k, k]``."""
        plain, once, twice = (
            np.tensordot(self.mdp.transition * signal**power, later, axes=1) for power in range(3)
        )
        fixed, moving = maps
        both = (fixed @ plain + moving @ once) @ np.swapaxes(fixed, -1, -2)
        both += (fixed @ once + moving @ twice) @ np.swapaxes(moving, -1, -2)
        found: FloatArray = (self.policy[..., None, None] * both).sum(axis=1)
        return found
