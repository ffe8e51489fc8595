"""Transition kernels ``P(s'|s,a)``, dense or sparse, and the matrices ``P_pi`` of policies.

Arrays have a time axis of length T (1 for the infinite horizon) before the states, and any leading
axes before that: many policies, many directions, or (dense kernels only) many problems at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gradbias.analytic.utils.validation import FloatArray


class Matrix(Protocol):
    """A square matrix M on states, possibly one for each leading index.

    The Bellman solvers need products with M and its transpose, but never M's entries one by one.
    So a sparse matrix can be used without being filled in, and a dense one can be many at once.
    """

    @property
    def leading(self) -> tuple[int, ...]:
        """The shape of the leading axes; () for a single matrix."""

    def apply(self, values: FloatArray) -> FloatArray:
        """The product ``M x`` for ``values [..., T, S]``."""

    def apply_transposed(self, weights: FloatArray) -> FloatArray:
        """The product ``M^T y`` for ``weights [..., T, S]``."""

    def diagonal(self) -> FloatArray:
        """The diagonal, ``[..., 1, S]``."""

    def scaled(self, factor: FloatArray) -> Matrix:
        """The matrix times a number for each leading index."""


class Kernel(Protocol):
    """A transition kernel ``P(s'|s,a)``.

    Everything exact uses it in three ways only: expectations at the next state (backwards in time),
    visits pushed one step ahead (forwards), and its matrix under a policy. So formulas do not know
    whether it is dense or sparse. A kernel with another structure needs these three, and a solver
    for its matrices in `analytic.returns.bellman`.
    """

    @property
    def n_states(self) -> int:
        """The number of states S."""

    @property
    def n_actions(self) -> int:
        """The number of actions A."""

    def expect(self, values: FloatArray) -> FloatArray:
        """``sum_s' P(s'|s,a) x(s')`` for ``values [..., T, S]``: ``[..., T, S, A]``."""

    def push(self, visits: FloatArray) -> FloatArray:
        """``sum_{s,a} x(s,a) P(s'|s,a)`` for ``visits [..., T, S, A]``: ``[..., T, S]``."""

    def under(self, policy: FloatArray) -> Matrix:
        """``P_pi(s'|s) = sum_a pi(a|s) P(s'|s,a)`` for action probabilities ``[..., S, A]``."""


@dataclass(frozen=True, eq=False)
class DenseMatrix:
    """A matrix as an array ``entries [..., S, S]``."""

    entries: FloatArray

    @property
    def leading(self) -> tuple[int, ...]:
        """The shape of the leading axes; () for a single matrix."""
        return self.entries.shape[:-2]

    def apply(self, values: FloatArray) -> FloatArray:
        """The product ``M x`` for ``values [..., T, S]``."""
        return _rows_times(values, np.swapaxes(self.entries, -1, -2))

    def apply_transposed(self, weights: FloatArray) -> FloatArray:
        """The product ``M^T y`` for ``weights [..., T, S]``."""
        return _rows_times(weights, self.entries)

    def diagonal(self) -> FloatArray:
        """The diagonal, ``[..., 1, S]``."""
        return np.diagonal(self.entries, axis1=-2, axis2=-1)[..., None, :]

    def scaled(self, factor: FloatArray) -> DenseMatrix:
        """The matrix times ``factor [...]``."""
        return DenseMatrix(np.asarray(factor)[..., None, None] * self.entries)


def _rows_times(rows: FloatArray, matrices: FloatArray) -> FloatArray:
    """The product of ``rows [..., T, S]`` and ``matrices [..., S, S]``."""
    if matrices.ndim == 2:  # a single matrix: one large product is faster than many small ones
        flat = rows.reshape(-1, matrices.shape[0]) @ matrices
        return flat.reshape(*rows.shape[:-1], matrices.shape[1])
    return np.asarray(np.matmul(rows, matrices))


@dataclass(frozen=True, eq=False)
class DenseKernel:
    """A kernel as an array ``transition [..., S, A, S]``."""

    transition: FloatArray

    @property
    def n_states(self) -> int:
        """The number of states S."""
        return int(self.transition.shape[-1])

    @property
    def n_actions(self) -> int:
        """The number of actions A."""
        return int(self.transition.shape[-2])

    @property
    def _table(self) -> FloatArray:
        """The kernel with row ``s * A + a`` for (s, a), ``[..., S * A, S]``."""
        shape = self.transition.shape
        return self.transition.reshape(*shape[:-3], -1, shape[-1])

    def expect(self, values: FloatArray) -> FloatArray:
        """``sum_s' P(s'|s,a) x(s')`` for ``values [..., T, S]``: ``[..., T, S, A]``."""
        table = self._table
        if table.ndim == 2:
            flat = values.reshape(-1, self.n_states) @ table.T
        else:
            flat = np.matmul(values, np.swapaxes(table, -1, -2))
        leading = flat.shape[:-2] if flat.ndim > 2 else values.shape[:-2]
        return flat.reshape(*leading, values.shape[-2], *self.transition.shape[-3:-1])

    def push(self, visits: FloatArray) -> FloatArray:
        """``sum_{s,a} x(s,a) P(s'|s,a)`` for ``visits [..., T, S, A]``: ``[..., T, S]``."""
        return _rows_times(visits.reshape(*visits.shape[:-2], -1), self._table)

    def under(self, policy: FloatArray) -> DenseMatrix:
        """``P_pi(s'|s) = sum_a pi(a|s) P(s'|s,a)`` for action probabilities ``[..., S, A]``."""
        return DenseMatrix(np.matmul(policy[..., None, :], self.transition)[..., 0, :])


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """A single ``scipy.sparse`` array ``entries [S, S]``."""

    entries: Any

    @property
    def leading(self) -> tuple[int, ...]:
        """The empty shape (): there is a single matrix."""
        return ()

    def apply(self, values: FloatArray) -> FloatArray:
        """The product ``M x`` for ``values [..., T, S]``."""
        return _sparse_times(self.entries, values)

    def apply_transposed(self, weights: FloatArray) -> FloatArray:
        """The product ``M^T y`` for ``weights [..., T, S]``."""
        return _sparse_times(self.entries.T, weights)

    def diagonal(self) -> FloatArray:
        """The diagonal, ``[1, S]``."""
        return np.asarray(self.entries.diagonal())[None]

    def scaled(self, factor: FloatArray) -> SparseMatrix:
        """The matrix times a number."""
        return SparseMatrix(float(factor) * self.entries)


def _sparse_times(matrix: Any, rows: FloatArray) -> FloatArray:
    """The product of a sparse matrix with each of ``rows [..., T, S]``."""
    flat: FloatArray = np.asarray((matrix @ rows.reshape(-1, matrix.shape[1]).T).T)
    return flat.reshape(*rows.shape[:-1], matrix.shape[0])


@dataclass(frozen=True, eq=False)
class SparseKernel:
    """A kernel as a ``scipy.sparse`` CSR ``table [S * A, S]`` with row ``s * A + a`` for (s, a)."""

    table: Any
    n_actions: int

    @property
    def n_states(self) -> int:
        """The number of states S."""
        return int(self.table.shape[1])

    def expect(self, values: FloatArray) -> FloatArray:
        """``sum_s' P(s'|s,a) x(s')`` for ``values [..., T, S]``: ``[..., T, S, A]``."""
        flat = _sparse_times(self.table, values)
        return flat.reshape(*values.shape[:-1], self.n_states, self.n_actions)

    def push(self, visits: FloatArray) -> FloatArray:
        """``sum_{s,a} x(s,a) P(s'|s,a)`` for ``visits [..., T, S, A]``: ``[..., T, S]``."""
        return _sparse_times(self.table.T, visits.reshape(*visits.shape[:-2], -1))

    def under(self, policy: FloatArray) -> SparseMatrix:
        """``P_pi(s'|s)`` for the action probabilities ``[S, A]`` of a single policy."""
        # Imported here because scipy.sparse would cost every command 0.2 s at start-up.
        from scipy import sparse

        n = policy.size
        rows = np.repeat(np.arange(self.n_states), self.n_actions)
        chosen = sparse.csr_array((policy.ravel(), (rows, np.arange(n))), shape=(self.n_states, n))
        return SparseMatrix((chosen @ self.table).tocsr())
