"""The one form of a decision problem that the exact side computes with.

Public classes (`TabularMDP`, `SparseMDP`, `MDPBatch`) and the problems derived from them (another
reward, another horizon, final values) all give `Tables`, so that each formula is written once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from gradbias.analytic.problems.transitions import Kernel
from gradbias.analytic.utils.validation import BoolArray, FloatArray


@dataclass(frozen=True, eq=False)
class Tables:
    """A decision problem's arrays; leading axes ``...`` are problems of one size."""

    kernel: Kernel  # P(s'|s,a)
    reward: FloatArray  # mean, [..., T, S, A]; T = H, or 1 if it does not depend on time
    discount: FloatArray  # gamma, [...]
    start: FloatArray  # the initial distribution, [..., S]
    terminal: BoolArray  # which states are terminal, [..., S]
    horizon: int | None  # H, in steps, or None
    final_values: FloatArray | None = None  # added at s_H of a finite horizon, [..., S]
    timed: bool = False  # whether rewards were given for each step of the horizon, even if H is 1

    @property
    def leading(self) -> tuple[int, ...]:
        """The shape of the leading axes; () for a single problem."""
        return self.start.shape[:-1]

    @property
    def steps(self) -> int:
        """T, the length of the time axis: the horizon, or 1 for the infinite one."""
        return 1 if self.horizon is None else self.horizon

    def with_reward(self, reward: FloatArray) -> Tables:
        """The same problem with mean rewards ``[..., T, S, A]``, T = H or 1, and no final values.
        A terminal state in which the new reward is not 0 is terminal no more.
        """
        zero = (reward == 0.0).all(axis=(-3, -1))
        return replace(self, reward=reward, terminal=self.terminal & zero, final_values=None)

    def per_step(self, factor: FloatArray | None = None) -> FloatArray:
        """The discount (or ``factor [...]``) shaped to multiply ``[..., T, S]``."""
        return np.asarray(self.discount if factor is None else factor)[..., None, None]


class Problem(Protocol):
    """A decision problem that the exact side can solve.

    Values and derivatives are computed from `Tables` alone, so any object that can give them is a
    problem: `TabularMDP`, `SparseMDP` (whose kernel is sparse), `MDPBatch` (whose tables have a
    leading axis), or an object of yours. Estimators do not take this protocol: they sample, and
    need a `TabularMDP`.
    """

    @property
    def tables(self) -> Tables:
        """The problem's tables, from which the exact side computes."""

    @property
    def n_states(self) -> int:
        """The number of states S."""

    @property
    def n_actions(self) -> int:
        """The number of actions A."""

    @property
    def horizon(self) -> int | None:
        """The horizon H in steps, or None for the infinite discounted problem."""
