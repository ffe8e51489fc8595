"""Problems for the exact side alone: sparse transitions, and many problems of one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from analytic.arrays import (
    ROW_SUM_TOLERANCE,
    BoolArray,
    FloatArray,
    frozen_array,
    probability_rows,
)
from analytic.kernels import DenseKernel, SparseKernel
from analytic.problems import TabularMDP, checked_discount
from analytic.tables import Tables


@dataclass(frozen=True, eq=False)
class SparseMDP:
    """A finite MDP with one ``scipy.sparse`` matrix ``[S, S]`` for each action.

    ``reward [S, A]``, or ``[H, S, A]`` over time: means over the next state. Discount, start and
    horizon as in `TabularMDP`. Rows of probabilities are renormalised by rounding only. One policy
    at a time: parameters have no leading axes here.

    Raises:
        ValueError: naming the argument, what was expected and what came.

    >>> from scipy import sparse
    >>> swap, stay = sparse.csr_array([[0.0, 1.0], [1.0, 0.0]]), sparse.eye_array(2)
    >>> mdp = SparseMDP([swap, stay], [[1.0, 0.0], [0.0, 0.0]], 0.9, [1.0, 0.0])
    >>> mdp.n_states, mdp.n_actions
    (2, 2)
    """

    transition: Sequence[Any]
    reward: FloatArray
    discount: float
    start: FloatArray
    horizon: int | None = None
    _table: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        discount, horizon = checked_discount(self.discount, self.horizon)
        table = _stacked_rows(self.transition)
        n_actions, n_states = len(self.transition), int(table.shape[1])
        reward = frozen_array("reward", self.reward)
        shapes: list[tuple[int, ...]] = [(n_states, n_actions)]
        if horizon is not None:
            shapes.append((horizon, n_states, n_actions))
        if reward.shape not in shapes:
            wanted = " or ".join(str(shape) for shape in shapes)
            raise ValueError(f"reward: expected shape {wanted}, got {reward.shape}")
        fields = {
            "transition": tuple(self.transition),
            "reward": reward,
            "discount": discount,
            "horizon": horizon,
            "start": probability_rows("start", self.start, (n_states,)),
            "_table": table,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def n_states(self) -> int:
        """S."""
        return int(self.start.shape[0])

    @property
    def n_actions(self) -> int:
        """A."""
        return len(self.transition)

    @cached_property
    def terminal(self) -> BoolArray:
        """``[S]``: True where every action leads back with reward 0."""
        matrices = [self._table[a :: self.n_actions] for a in range(self.n_actions)]
        stays = np.stack([matrix.diagonal() == 1.0 for matrix in matrices])
        unpaid = (self.reward == 0.0).reshape(-1, self.n_states, self.n_actions).all(axis=(0, 2))
        return np.asarray(stays.all(axis=0) & unpaid)

    @cached_property
    def tables(self) -> Tables:
        """What the exact side computes with."""
        return Tables(
            kernel=SparseKernel(self._table, self.n_actions),
            reward=self.reward if self.reward.ndim == 3 else self.reward[None],
            discount=np.asarray(self.discount),
            start=self.start,
            terminal=self.terminal,
            horizon=self.horizon,
        )


def _stacked_rows(transition: Sequence[Any]) -> Any:
    """One CSR array ``[S * A, S]``, row ``s * A + a``, of the matrices of all actions."""
    from scipy import sparse

    wanted = "expected one scipy.sparse matrix [S, S] for each action"
    if len(transition) == 0 or not all(sparse.issparse(matrix) for matrix in transition):
        raise ValueError(f"transition: {wanted}, got {type(transition).__name__}")
    shape = transition[0].shape
    if shape[0] != shape[1] or any(matrix.shape != shape for matrix in transition):
        got = [matrix.shape for matrix in transition]
        raise ValueError(f"transition: {wanted}, got shapes {got}")
    n_actions = len(transition)
    stacked = sparse.vstack(list(transition), format="csr", dtype=np.float64)
    stacked.sum_duplicates()
    order = np.arange(n_actions * shape[0]).reshape(n_actions, shape[0]).T.ravel()
    table = sparse.csr_array(stacked)[order]
    if not np.isfinite(table.data).all() or (table.data < 0).any():
        raise ValueError("transition: expected probabilities, got a negative or infinite entry")
    sums = np.asarray(table.sum(axis=1)).ravel()
    off = np.abs(sums - 1.0)
    if off.max() > ROW_SUM_TOLERANCE:
        state, action = divmod(int(off.argmax()), n_actions)
        raise ValueError(
            f"transition: expected rows that sum to one (within {ROW_SUM_TOLERANCE:g}), got a sum "
            f"of {sums[off.argmax()]:.12g} for state {state}, action {action}"
        )
    table.data /= np.repeat(sums, np.diff(table.indptr))
    return table


@dataclass(frozen=True, eq=False)
class MDPBatch:
    """B problems of one size and horizon, for one call: results have a leading axis B.

    Parameters are ``[B, ...]`` (one policy a problem) or without the axis (one for all).

    Raises:
        ValueError: no problem, or problems that differ in size or horizon.

    >>> from analytic import expected_return
    >>> rng = np.random.default_rng(0)
    >>> batch = MDPBatch([TabularMDP.random(3, 2, rng=rng, discount=0.9) for _ in range(4)])
    >>> expected_return(batch, np.zeros((3, 2))).shape
    (4,)
    """

    problems: Sequence[TabularMDP]

    def __post_init__(self) -> None:
        problems = tuple(self.problems)
        if not problems:
            raise ValueError("problems: expected at least one, got none")
        sizes = sorted({(p.n_states, p.n_actions, str(p.horizon)) for p in problems})
        if len(sizes) > 1:
            raise ValueError(f"problems: expected one size (S, A, horizon), got {sizes}")
        object.__setattr__(self, "problems", problems)

    @property
    def n_states(self) -> int:
        """S."""
        return self.problems[0].n_states

    @property
    def n_actions(self) -> int:
        """A."""
        return self.problems[0].n_actions

    @property
    def horizon(self) -> int | None:
        """H, or None for infinite discounted problems."""
        return self.problems[0].horizon

    @cached_property
    def tables(self) -> Tables:
        """What the exact side computes with."""
        every = [problem.tables for problem in self.problems]
        steps = max(tables.reward.shape[0] for tables in every)
        shape = (steps, self.n_states, self.n_actions)
        return Tables(
            kernel=DenseKernel(np.stack([p.transition for p in self.problems])),
            reward=np.stack([np.broadcast_to(tables.reward, shape) for tables in every]),
            discount=np.stack([tables.discount for tables in every]),
            start=np.stack([tables.start for tables in every]),
            terminal=np.stack([tables.terminal for tables in every]),
            horizon=self.horizon,
        )
