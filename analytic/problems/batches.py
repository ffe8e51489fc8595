"""Batches of problems of one size, which only the exact side takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.tables import Tables
from gradbias.analytic.problems.transitions import DenseKernel
from gradbias.analytic.utils.validation import set_fields


@dataclass(frozen=True, eq=False)
class MDPBatch:
    """B problems of one size and horizon, solved in one call: results have a leading axis B.

    Parameters are ``[B, ...]`` (one policy for each problem) or lack that axis (one for all).

    Raises:
        ValueError: no problem, or problems that differ in size or horizon.

    >>> from gradbias.analytic import expected_return
    >>> rng = np.random.default_rng(0)
    >>> batch = MDPBatch([TabularMDP.random(3, 2, rng=rng, discount=0.9) for _ in range(4)])
    >>> expected_return(batch, np.zeros((3, 2))).shape
    (4,)
    """

    problems: Sequence[TabularMDP]

    def __post_init__(self) -> None:
        members: object = self.problems
        if not isinstance(members, Sequence):
            kind = type(members).__name__
            raise ValueError(f"problems: expected TabularMDPs, got one {kind}, not a sequence")
        problems = tuple(member for member in members if isinstance(member, TabularMDP))
        if not problems or len(problems) < len(members):
            kinds = sorted({type(member).__name__ for member in members})
            raise ValueError(f"problems: expected TabularMDPs, got {kinds or 'none'}")
        sizes = sorted({(p.n_states, p.n_actions, str(p.horizon)) for p in problems})
        if len(sizes) > 1:
            raise ValueError(f"problems: expected one size (S, A, horizon), got {sizes}")
        set_fields(self, problems=problems)

    @property
    def n_states(self) -> int:
        """The number of states S."""
        return self.problems[0].n_states

    @property
    def n_actions(self) -> int:
        """The number of actions A."""
        return self.problems[0].n_actions

    @property
    def horizon(self) -> int | None:
        """The horizon H in steps, or None for infinite discounted problems."""
        return self.problems[0].horizon

    @cached_property
    def tables(self) -> Tables:
        """The problems' tables, with a leading axis B."""
        parts = [problem.tables for problem in self.problems]
        steps = max(tables.reward.shape[0] for tables in parts)
        shape = (steps, self.n_states, self.n_actions)
        return Tables(
            kernel=DenseKernel(np.stack([p.transition for p in self.problems])),
            reward=np.stack([np.broadcast_to(tables.reward, shape) for tables in parts]),
            discount=np.stack([tables.discount for tables in parts]),
            start=np.stack([tables.start for tables in parts]),
            terminal=np.stack([tables.terminal for tables in parts]),
            horizon=self.horizon,
            timed=any(tables.timed for tables in parts),
        )
