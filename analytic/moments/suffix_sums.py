"""Second moments of sums over a trajectory's steps, backwards in time.

Let the sums Z_t from step t on be linear in those from the next step on: ``Z_t = (L(s, a) + x(s, a,
s') E(s, a)) Z_{t+1}`` with x the step's reward and matrices L, E. Their second moments ``M_t(s) =
E[Z_t Z_t^T | s_t = s]`` follow backwards,

    M_t(s) = sum_a pi(a|s) sum_s' P(s'|s,a) (L + x E) M_{t+1}(s') (L + x E)^T,

in ``O(H S A (S k^2 + k^3))`` for Z of length k; enumeration would take (S A)^H trajectories.
`analytic.moments.independent_steps` and `analytic.moments.paired_steps` need no matrix in each
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
    zeros: Sequence[FloatArray],
    factors: Sequence[float],
) -> list[FloatArray]:
    """The stationary moments ``[S, ...]`` of an infinitely long trajectory: the solution of
    ``x = step_back(x)``, one Bellman system for each moment in turn.

    Moment i is ``factors[i]`` times its mean at the next state, plus a part that depends on the
    moments before it only. ``zeros`` have the moments' shapes.
    """
    moments = list(zeros)
    for i, factor in enumerate(factors):
        # Moment i is still 0 here, so what step_back gives is the part of the moments before it.
        right = np.moveaxis(step_back(moments)[i], 0, -1)
        system = bellman_system(mdp.tables, policy, np.asarray(factor))
        moments[i] = np.moveaxis(system.solve(right[..., None, :])[..., 0, :], -1, 0)
    return moments


@dataclass(frozen=True, eq=False)
class SuffixSums:
    """The sums Z_0 of a finite horizon, with Z_H = (1, 0, ..)."""

    mdp: TabularMDP
    policy: FloatArray  # action probabilities, [S, A]
    signal: FloatArray  # x, [H, S, A, S]
    maps: Callable[[int], Maps]  # gives the matrices L and E of step t
    length: int  # k, of Z

    @property
    def moments(self) -> FloatArray:
        """E[Z_0 Z_0^T] ``[k, k]`` from the initial distribution."""
        moments = np.zeros((self.mdp.n_states, self.length, self.length))
        moments[:, 0, 0] = 1.0
        for t in reversed(range(len(self.signal))):
            moments = self._step_back(self.signal[t], self.maps(t), moments)
        return np.asarray(np.tensordot(self.mdp.start, moments, axes=1))

    def _step_back(self, signal: FloatArray, maps: Maps, later: FloatArray) -> FloatArray:
        """M_t from M_{t+1} ``[S, k, k]``."""
        # E[M'], E[x M'] and E[x^2 M'] at each (s, a).
        plain, once, twice = (
            np.tensordot(self.mdp.transition * signal**power, later, axes=1) for power in range(3)
        )
        fixed, rewarded = maps
        both = (fixed @ plain + rewarded @ once) @ np.swapaxes(fixed, -1, -2)
        both += (fixed @ once + rewarded @ twice) @ np.swapaxes(rewarded, -1, -2)
        return np.asarray((self.policy[..., None, None] * both).sum(axis=1))
