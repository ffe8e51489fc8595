"""Problems with sparse transitions, which only the exact side takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gradbias.analytic.problems.mdp import checked_discount
from gradbias.analytic.problems.tables import Tables
from gradbias.analytic.problems.transitions import SparseKernel
from gradbias.analytic.utils.validation import (
    ROW_SUM_TOLERANCE,
    BoolArray,
    FloatArray,
    frozen_array,
    probability_rows,
    set_fields,
)


@dataclass(frozen=True, eq=False)
class SparseMDP:
    """A finite MDP with sparse transitions; parameters have no leading axes here.

    Attributes:
        transition: one ``scipy.sparse`` matrix ``[S, S]`` for each action; rows may be off from sum
            1 by rounding only.
        reward: its mean over the next state, ``[S, A]``, or ``[H, S, A]`` over time.
        discount, start, horizon: as in `TabularMDP`.

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
        try:
            matrices = list(self.transition)
        except TypeError:  # a single matrix, which `_stacked_rows` refuses with its message
            matrices = [None]
        table = _stacked_rows(matrices)
        n_actions, n_states = len(matrices), int(table.shape[1])
        reward = frozen_array("reward", self.reward)
        shapes: list[tuple[int, ...]] = [(n_states, n_actions)]
        if horizon is not None:
            shapes.append((horizon, n_states, n_actions))
        if reward.shape not in shapes:
            wanted = " or ".join(str(shape) for shape in shapes)
            raise ValueError(f"reward: expected shape {wanted}, got {reward.shape}")
        start = probability_rows("start", self.start, (n_states,))
        set_fields(self, transition=tuple(matrices), reward=reward, discount=discount, start=start)
        set_fields(self, horizon=horizon, _table=table)

    @property
    def n_states(self) -> int:
        """The number of states S."""
        return int(self.start.shape[0])

    @property
    def n_actions(self) -> int:
        """The number of actions A."""
        return len(self.transition)

    @cached_property
    def terminal(self) -> BoolArray:
        """``[S]``: True where every action leads back with reward 0."""
        edges = self._table.tocoo()
        states = edges.row // self.n_actions
        leaves = np.bincount(states[states != edges.col], minlength=self.n_states) > 0
        zero = (self.reward == 0.0).reshape(-1, self.n_states, self.n_actions).all(axis=(0, 2))
        return np.asarray(~leaves & zero)

    @cached_property
    def tables(self) -> Tables:
        """The problem's tables, from which the exact side computes."""
        return Tables(
            kernel=SparseKernel(self._table, self.n_actions),
            reward=self.reward if self.reward.ndim == 3 else self.reward[None],
            discount=np.asarray(self.discount),
            start=self.start,
            terminal=self.terminal,
            horizon=self.horizon,
            timed=self.reward.ndim == 3,
        )


def _stacked_rows(transition: list[Any]) -> Any:
    """One CSR array ``[S * A, S]``, row ``s * A + a``, of the matrices of all actions."""
    from scipy import sparse

    wanted = "expected one real scipy.sparse matrix [S, S] for each action"
    if not transition or not all(sparse.issparse(matrix) for matrix in transition):
        kinds = sorted({type(matrix).__name__ for matrix in transition})
        raise ValueError(f"transition: {wanted}, got {kinds or 'none'}")
    shape = transition[0].shape
    square = len(shape) == 2 and shape[0] == shape[1] and shape[0] > 0
    if not square or any(matrix.shape != shape for matrix in transition):
        got = [matrix.shape for matrix in transition]
        raise ValueError(f"transition: {wanted}, got shapes {got}")
    if any(matrix.dtype.kind not in "fiub" for matrix in transition):
        raise ValueError(f"transition: {wanted}, got {[str(m.dtype) for m in transition]}")
    n_actions = len(transition)
    stacked = sparse.vstack(transition, format="csr", dtype=np.float64)
    stacked.sum_duplicates()
    # vstack gives row a * S + s; a policy's probabilities, flattened, need row s * A + a.
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
