"""Transition kernels ``P(s'|s,a)``, dense or sparse, as the two products that everything needs.

Arrays carry a step axis T (of length 1 for the infinite horizon) before states, and any leading
axes before that: many policies, many directions, or (dense kernels only) many problems at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gradbias.analytic.utils.validation import FloatArray


class Matrix(Protocol):
    """A square matrix on states, possibly one for each leading index."""

    @property
    def leading(self) -> tuple[int, ...]:
        """The axes of many matrices; () for one."""
        ...

    def apply(self, values: FloatArray) -> FloatArray:
        """``M x`` of ``values [..., T, S]``."""
        ...

    def apply_transposed(self, weights: FloatArray) -> FloatArray:
        """``M^T y`` of ``weights [..., T, S]``."""
        ...

    def diagonal(self) -> FloatArray:
        """``[..., 1, S]``."""
        ...

    def scaled(self, factor: FloatArray) -> Matrix:
        """The matrix times a number for each leading index."""
        ...


class Kernel(Protocol):
    """What the exact side needs of ``P(s'|s,a)``."""

    @property
    def n_states(self) -> int:
        """S."""
        ...

    @property
    def n_actions(self) -> int:
        """A."""
        ...

    def expect(self, values: FloatArray) -> FloatArray:
        """``[..., T, S, A]``: the mean of ``values [..., T, S]`` at the next state."""
        ...

    def push(self, visits: FloatArray) -> FloatArray:
        """``[..., T, S]``: where ``visits [..., T, S, A]`` lead."""
        ...

    def under(self, policy: FloatArray) -> Matrix:
        """``P_pi(s'|s)`` of action probabilities ``[..., S, A]``."""
        ...


@dataclass(frozen=True, eq=False)
class DenseMatrix:
    """``entries [..., S, S]``."""

    entries: FloatArray

    @property
    def leading(self) -> tuple[int, ...]:
        """The axes of many matrices."""
        return self.entries.shape[:-2]

    def apply(self, values: FloatArray) -> FloatArray:
        """``M x``."""
        return _rows_times(values, np.swapaxes(self.entries, -1, -2))

    def apply_transposed(self, weights: FloatArray) -> FloatArray:
        """``M^T y``."""
        return _rows_times(weights, self.entries)

    def diagonal(self) -> FloatArray:
        """``[..., 1, S]``."""
        return np.diagonal(self.entries, axis1=-2, axis2=-1)[..., None, :]

    def scaled(self, factor: FloatArray) -> DenseMatrix:
        """``factor [...] M``."""
        return DenseMatrix(np.asarray(factor)[..., None, None] * self.entries)


def _rows_times(rows: FloatArray, matrices: FloatArray) -> FloatArray:
    """``rows [..., T, S]`` times ``matrices [..., S, S]``, in one product where there is one."""
    if matrices.ndim == 2:
        flat = rows.reshape(-1, matrices.shape[0]) @ matrices
        return flat.reshape(*rows.shape[:-1], matrices.shape[1])
    found: FloatArray = np.matmul(rows, matrices)
    return found


@dataclass(frozen=True, eq=False)
class DenseKernel:
    """``transition [..., S, A, S]``."""

    transition: FloatArray

    @property
    def n_states(self) -> int:
        """S."""
        return int(self.transition.shape[-1])

    @property
    def n_actions(self) -> int:
        """A."""
        return int(self.transition.shape[-2])

    @property
    def _table(self) -> FloatArray:
        """``[..., S * A, S]``."""
        shape = self.transition.shape
        return self.transition.reshape(*shape[:-3], -1, shape[-1])

    def expect(self, values: FloatArray) -> FloatArray:
        """``sum_s' P(s'|s,a) x(s')``."""
        table = self._table
        if table.ndim == 2:
            flat = values.reshape(-1, self.n_states) @ table.T
        else:
            flat = np.matmul(values, np.swapaxes(table, -1, -2))
        return flat.reshape(
            *_leading(flat, values), values.shape[-2], *self.transition.shape[-3:-1]
        )

    def push(self, visits: FloatArray) -> FloatArray:
        """``sum_{s,a} x(s,a) P(s'|s,a)``."""
        flat = visits.reshape(*visits.shape[:-2], -1)
        table = self._table
        if table.ndim == 2:
            rows = flat.reshape(-1, table.shape[0]) @ table
            return rows.reshape(*flat.shape[:-1], self.n_states)
        moved: FloatArray = np.matmul(flat, table)
        return moved

    def under(self, policy: FloatArray) -> DenseMatrix:
        """``sum_a pi(a|s) P(s'|s,a)``."""
        return DenseMatrix(np.matmul(policy[..., None, :], self.transition)[..., 0, :])


def _leading(found: FloatArray, values: FloatArray) -> tuple[int, ...]:
    return found.shape[:-2] if found.ndim > 2 else values.shape[:-2]


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """``entries``: one ``scipy.sparse`` array ``[S, S]``; leading axes are other vectors."""

    entries: Any

    @property
    def leading(self) -> tuple[int, ...]:
        """(): there is one matrix."""
        return ()

    def apply(self, values: FloatArray) -> FloatArray:
        """``M x``."""
        return _sparse_times(self.entries, values)

    def apply_transposed(self, weights: FloatArray) -> FloatArray:
        """``M^T y``."""
        return _sparse_times(self.entries.T, weights)

    def diagonal(self) -> FloatArray:
        """``[1, S]``."""
        return np.asarray(self.entries.diagonal())[None]

    def scaled(self, factor: FloatArray) -> SparseMatrix:
        """``factor M``."""
        return SparseMatrix(float(factor) * self.entries)


def _sparse_times(matrix: Any, rows: FloatArray) -> FloatArray:
    flat: FloatArray = np.asarray((matrix @ rows.reshape(-1, matrix.shape[1]).T).T)
    return flat.reshape(*rows.shape[:-1], matrix.shape[0])


@dataclass(frozen=True, eq=False)
class SparseKernel:
    """``table``: a ``scipy.sparse`` CSR array ``[S * A, S]``, row ``s * A + a`` of ``(s, a)``."""

    table: Any
    n_actions: int

    @property
    def n_states(self) -> int:
        """S."""
        return int(self.table.shape[1])

    def expect(self, values: FloatArray) -> FloatArray:
        """``sum_s' P(s'|s,a) x(s')``."""
        flat = _sparse_times(self.table, values)
        return flat.reshape(*values.shape[:-1], self.n_states, self.n_actions)

    def push(self, visits: FloatArray) -> FloatArray:
        """``sum_{s,a} x(s,a) P(s'|s,a)``."""
        return _sparse_times(self.table.T, visits.reshape(*visits.shape[:-2], -1))

    def under(self, policy: FloatArray) -> SparseMatrix:
        """``sum_a pi(a|s) P(s'|s,a)`` of one policy ``[S, A]``."""
        from scipy import sparse  # here: it costs the command line a fifth of a second

        n = policy.size
        rows = np.repeat(np.arange(self.n_states), self.n_actions)
        chosen = sparse.csr_array((policy.ravel(), (rows, np.arange(n))), shape=(self.n_states, n))
        return SparseMatrix((chosen @ self.table).tocsr())
