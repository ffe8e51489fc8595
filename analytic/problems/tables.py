"""A decision problem as the exact side computes with it, whatever its public record looks like."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from gradbias.analytic.problems.transitions import Kernel
from gradbias.analytic.utils.validation import BoolArray, FloatArray


@dataclass(frozen=True, eq=False)
class Tables:
    """Mean rewards, kernel and start law; leading axes are problems of one size.

    ``reward [..., T, S, A]`` with T = H, or 1 where rewards do not depend on time; ``discount
    [...]``; ``start [..., S]``; ``terminal [..., S]``; ``final_values [..., S]`` are collected at
    the end of a finite horizon (None: nothing is). ``timed`` says that rewards are given for each
    of the horizon's steps, even if that is only one.
    """

    kernel: Kernel
    reward: FloatArray
    discount: FloatArray
    start: FloatArray
    terminal: BoolArray
    horizon: int | None
    final_values: FloatArray | None = None
    timed: bool = False

    @property
    def leading(self) -> tuple[int, ...]:
        """The axes of many problems; () for one."""
        return self.start.shape[:-1]

    @property
    def steps(self) -> int:
        """T: the horizon, or 1 for the infinite one."""
        return 1 if self.horizon is None else self.horizon

    def paying(self, reward: FloatArray) -> Tables:
        """The same problem with mean rewards ``[..., T, S, A]``, T = H or 1, and no final values.

        A state that is paid for ever is not terminal any more.
        """
        unpaid = (reward == 0.0).all(axis=(-3, -1))
        return replace(self, reward=reward, terminal=self.terminal & unpaid, final_values=None)

    def per_step(self, factor: FloatArray | None = None) -> FloatArray:
        """The discount (or ``factor [...]``) shaped to multiply ``[..., T, S]``."""
        return np.asarray(self.discount if factor is None else factor)[..., None, None]


class Problem(Protocol):
    """Anything with tables: one problem, one with sparse transitions, or many of one size."""

    @property
    def tables(self) -> Tables:
        """What the exact side computes with."""
        ...

    @property
    def n_states(self) -> int:
        """S."""
        ...

    @property
    def n_actions(self) -> int:
        """A."""
        ...

    @property
    def horizon(self) -> int | None:
        """H, or None for the infinite discounted problem."""
        ...
