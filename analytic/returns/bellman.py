"""Solvers of the Bellman equations of one policy, backwards and forwards in time.

With ``M = gamma P_pi`` every exact quantity is the solution of one of two linear systems:

- backwards, ``x_t = b_t + M x_{t+1}``: values, and derivatives of values;
- forwards, ``y_{t+1} = b_{t+1} + M^T y_t``: occupancies, and derivatives of occupancies.

Over H steps these are recursions. Over the infinite horizon one factorisation of ``I - M``, a row
diagonally dominant M-matrix, solves both: the inverse if it is small (or there are many), LU
factors if it is large, sparse LU or Krylov iteration if it is sparse.

``I - M`` is badly conditioned when the discount is close to 1. As ``(I - M)^-1`` has no negative
entry, its norm is the largest expected discounted time before a terminal state, so the condition
number is exact and cheap; if it spoils the tenth digit, there is an `IllConditionedWarning`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from gradbias.analytic.problems.tables import Tables
from gradbias.analytic.problems.transitions import DenseMatrix, Matrix, SparseMatrix
from gradbias.analytic.utils.validation import FloatArray

MAX_INVERSE = 64
"""States up to which the inverse itself is kept: a product costs less than a solver's call."""
MAX_FILLED = 500
"""States up to which a sparse system is factorised whatever its pattern of entries."""
LOCALITY = 4.0
"""A larger sparse system is factorised if its bandwidth is at most this many times the root of its
size (chains, grids); the factors of a random graph are nearly dense.
"""
PROMISED_ACCURACY = 1e-10
"""Relative accuracy below which a result comes with a warning."""

_EPSILON = float(np.finfo(np.float64).eps)
_BACKWARD_STABLE = 64 * _EPSILON  # relative residual up to which a solution is rounding
_REFINEMENTS = 12
_KRYLOV_DIMENSION = 60
_KRYLOV_RESTARTS = 20


class IllConditionedWarning(RuntimeWarning):
    """A linear system whose result may be off by more than `PROMISED_ACCURACY`."""


class System(Protocol):
    """Both Bellman systems of one policy, solved for any right-hand side.

    Values, occupancies and all their derivatives solve the same two systems with other right-hand
    sides, so whoever holds a `System` differentiates at the price of a substitution. Finite
    horizons (`Recursion`) and each factorisation of the infinite one (`Stationary`) offer it, and
    no formula has to know which. The time axis is the one before the last.
    """

    def solve(self, right: FloatArray) -> FloatArray:
        """The x ``[..., T, S]`` with ``x_t = right_t + M x_{t+1}``."""

    def solve_adjoint(self, right: FloatArray) -> FloatArray:
        """The y ``[..., T, S]`` with ``y_{t+1} = right_{t+1} + M^T y_t``."""

    def later(self, values: FloatArray) -> FloatArray:
        """``x_{t+1}`` in row t: the values at the next step."""

    def earlier(self, visits: FloatArray) -> FloatArray:
        """``y_{t-1}`` in row t: the visits at the previous step."""


def bellman_system(tables: Tables, policy: FloatArray, discount: FloatArray) -> System:
    """The systems of action probabilities ``policy [..., S, A]`` with ``discount [...]``.

    Warns:
        IllConditionedWarning: if a solution may be off by more than 1e-10 relative.
    """
    matrix = tables.kernel.under(policy).scaled(discount)
    if tables.horizon is not None:
        return Recursion(matrix, tables.horizon)
    if isinstance(matrix, SparseMatrix):
        system: Stationary = SparseFactors(matrix) if _is_local(matrix) else Krylov(matrix)
    elif isinstance(matrix, DenseMatrix):
        large = matrix.entries.ndim == 2 and tables.kernel.n_states > MAX_INVERSE
        system = DenseFactors(matrix) if large else Inverse(matrix)
    else:
        raise TypeError(f"transition: expected dense or sparse, got {type(matrix).__name__}")
    _check_condition(system, tables, discount)
    return system


def _is_local(matrix: SparseMatrix) -> bool:
    """Whether factors of ``I - M`` stay sparse, judged by the bandwidth of its pattern in the
    reverse Cuthill-McKee order. Edges into absorbing states do not count: such a state is
    eliminated last.
    """
    from scipy import sparse
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    size = matrix.entries.shape[0]
    if size <= MAX_FILLED:
        return True
    edges = sparse.coo_array(matrix.entries)
    leaving = np.bincount(edges.row[edges.row != edges.col], minlength=size)
    kept = leaving[edges.col] > 0
    rows, columns = edges.row[kept], edges.col[kept]
    pattern = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    order = reverse_cuthill_mckee(pattern + pattern.T, symmetric_mode=True)
    place = np.empty(size, dtype=np.int64)
    place[order] = np.arange(size)
    bandwidth = np.abs(place[rows] - place[columns]).max(initial=0)
    return bool(bandwidth <= LOCALITY * np.sqrt(size))


def condition_of(system: Stationary, tables: Tables) -> FloatArray:
    """The condition number ``[...]`` of ``I - M`` in the maximum norm, without terminal states."""
    alive = (~tables.terminal).astype(np.float64)[..., None, :]
    lifetimes = system.solve(alive)
    rows = 1.0 - 2.0 * system.matrix.diagonal() + system.matrix.apply(alive)
    condition: FloatArray = (alive * rows).max(axis=(-2, -1)) * lifetimes.max(axis=(-2, -1))
    return condition


def _check_condition(system: Stationary, tables: Tables, factor: FloatArray) -> None:
    """Warns of an ill-conditioned system."""
    limit, discount = PROMISED_ACCURACY / _EPSILON, float(np.max(factor))
    # (1 + gamma) / (1 - gamma) bounds the condition number, and costs nothing.
    if (1.0 + discount) <= limit * (1.0 - discount):
        return
    condition = float(np.max(condition_of(system, tables)))
    if not condition <= limit:
        _warn(
            f"the Bellman system has condition number {condition:.2g} (discount {discount:.12g}): "
            f"results may be off by {_EPSILON * condition:.0e} relative; use a smaller discount or "
            "a finite horizon"
        )


@dataclass(frozen=True, eq=False)
class Recursion:
    """The systems of a horizon of H steps, solved by substitution."""

    matrix: Matrix
    steps: int

    def solve(self, right: FloatArray) -> FloatArray:
        """The x ``[..., T, S]`` with ``x_t = right_t + M x_{t+1}`` and ``x_H = 0``."""
        return self._swept(right, range(self.steps - 1, 0, -1), -1, self.matrix.apply)

    def solve_adjoint(self, right: FloatArray) -> FloatArray:
        """The y ``[..., T, S]`` with ``y_{t+1} = right_{t+1} + M^T y_t`` and ``y_0 = right_0``."""
        return self._swept(right, range(self.steps - 1), 1, self.matrix.apply_transposed)

    def _swept(
        self,
        right: FloatArray,
        steps: Iterable[int],
        direction: int,
        product: Callable[[FloatArray], FloatArray],
    ) -> FloatArray:
        """``right`` with, step after step, M times the row just computed added to the next one."""
        leading = np.broadcast_shapes(right.shape[:-2], self.matrix.leading)
        rows = np.array(np.broadcast_to(right, (*leading, *right.shape[-2:])))
        for t in steps:
            rows[..., t + direction, :] += product(rows[..., t : t + 1, :])[..., 0, :]
        return rows

    def later(self, values: FloatArray) -> FloatArray:
        """The values at the next step, 0 after the last."""
        return np.concatenate([values[..., 1:, :], np.zeros_like(values[..., :1, :])], axis=-2)

    def earlier(self, visits: FloatArray) -> FloatArray:
        """The visits at the previous step, 0 before the first."""
        return np.concatenate([np.zeros_like(visits[..., :1, :]), visits[..., :-1, :]], axis=-2)


class Stationary:
    """The systems of the infinite horizon, in which one step leads to itself.

    A solution is checked by its residual and refined until that is rounding. After the first
    solution in a direction (plain or transposed) needed no refinement, the factorisation is trusted
    there.
    """

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        self._trusted: set[bool] = set()

    def later(self, values: FloatArray) -> FloatArray:
        """The same values: every step is alike."""
        return values

    def earlier(self, visits: FloatArray) -> FloatArray:
        """The same visits: every step is alike."""
        return visits

    def solve(self, right: FloatArray) -> FloatArray:
        """The solution of ``(I - M) x = right``."""
        return self._refined(right, transposed=False)

    def solve_adjoint(self, right: FloatArray) -> FloatArray:
        """The solution of ``(I - M)^T y = right``."""
        return self._refined(right, transposed=True)

    def _correction(self, residual: FloatArray, *, transposed: bool) -> FloatArray:
        """An approximate solution for the right-hand side ``residual``."""
        raise NotImplementedError

    def _trust(self, *, transposed: bool) -> None:
        """Marks a direction whose further solutions need no check."""
        self._trusted.add(transposed)

    def _refined(self, right: FloatArray, *, transposed: bool) -> FloatArray:
        """The solution, improved by solving again for its residual until that is rounding."""
        solution = self._correction(right, transposed=transposed)
        if transposed in self._trusted:
            return solution
        product = self.matrix.apply_transposed if transposed else self.matrix.apply
        for refinements in range(_REFINEMENTS + 1):
            residual = right - (solution - product(solution))
            scale = _largest(right) + 2.0 * _largest(solution)
            unsolved = _largest(residual) > _BACKWARD_STABLE * scale
            if not unsolved.any():
                if refinements == 0 and solution.any():
                    self._trust(transposed=transposed)
                return solution
            if refinements < _REFINEMENTS:
                solution = solution + self._correction(residual, transposed=transposed)
        worst = float((_largest(residual)[unsolved] / scale[unsolved]).max())
        _warn(f"a Bellman system was not solved to rounding: relative residual {worst:.1e}")
        return solution


def _warn(message: str) -> None:
    """Warns at the line outside the package from which it was called."""
    frame, depth = sys._getframe(), 1
    inside = ("gradbias.analytic.", "functools")
    while frame.f_back is not None and frame.f_globals["__name__"].startswith(inside):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, IllConditionedWarning, stacklevel=depth)


def _largest(vectors: FloatArray) -> FloatArray:
    """The largest entry in size of each vector, ``[...]``."""
    sizes: FloatArray = np.abs(vectors).max(axis=-1)
    return sizes


class Inverse(Stationary):
    """Solutions by the inverse ``(I - M)^-1 [..., S, S]`` itself."""

    matrix: DenseMatrix

    @cached_property
    def _inverse(self) -> DenseMatrix:
        entries = self.matrix.entries
        inverse = np.linalg.inv(np.eye(entries.shape[-1]) - entries)
        return DenseMatrix(np.asarray(inverse, dtype=np.float64))

    def _correction(self, residual: FloatArray, *, transposed: bool) -> FloatArray:
        inverse = self._inverse
        return inverse.apply_transposed(residual) if transposed else inverse.apply(residual)


class DenseFactors(Stationary):
    """Solutions by LU factors of ``I - M [S, S]``."""

    matrix: DenseMatrix

    @cached_property
    def _factors(self) -> Any:
        # Imported here because scipy.linalg would cost every command 0.2 s at start-up.
        from scipy.linalg import lu_factor

        entries = self.matrix.entries
        return lu_factor(np.eye(len(entries)) - entries, overwrite_a=True, check_finite=False)

    def _correction(self, residual: FloatArray, *, transposed: bool) -> FloatArray:
        from scipy.linalg import lu_solve

        columns = residual.reshape(-1, residual.shape[-1]).T
        solution = lu_solve(self._factors, columns, trans=int(transposed), check_finite=False)
        return np.asarray(solution).T.reshape(residual.shape)


class SparseFactors(Stationary):
    """Solutions by sparse LU factors of ``I - M``."""

    matrix: SparseMatrix

    @cached_property
    def _factors(self) -> Any:
        from scipy import sparse
        from scipy.sparse.linalg import splu

        entries = self.matrix.entries
        system = sparse.csc_array(sparse.eye_array(entries.shape[0]) - entries)
        # I - M is diagonally dominant, so elimination is stable without pivoting. Pivots on the
        # diagonal keep the fill-reducing order that was chosen for the pattern.
        return splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0)

    @property
    def n_stored(self) -> int:
        """The number of entries of both factors."""
        return int(self._factors.L.nnz + self._factors.U.nnz)

    def _correction(self, residual: FloatArray, *, transposed: bool) -> FloatArray:
        columns = np.ascontiguousarray(residual.reshape(-1, residual.shape[-1]).T)
        solution = self._factors.solve(columns, "T" if transposed else "N")
        return np.asarray(solution).T.reshape(residual.shape)


class Krylov(SparseFactors):
    """Solutions by GMRES, which needs no factors; by sparse LU if it does not converge."""

    def __init__(self, matrix: SparseMatrix) -> None:
        super().__init__(matrix)
        self._stalled = False

    def _trust(self, *, transposed: bool) -> None:
        """Does nothing: every iterative solution is checked."""

    def _correction(self, residual: FloatArray, *, transposed: bool) -> FloatArray:
        rows = residual.reshape(-1, residual.shape[-1])
        solutions = np.zeros_like(rows)
        for row, right in enumerate(rows):
            if not self._stalled:
                solutions[row] = self._iterated(right, transposed=transposed)
        if self._stalled:
            return super()._correction(residual, transposed=transposed)
        return solutions.reshape(residual.shape)

    def _iterated(self, right: FloatArray, *, transposed: bool) -> FloatArray:
        from scipy.sparse.linalg import LinearOperator, gmres

        product = self.matrix.apply_transposed if transposed else self.matrix.apply
        operator = LinearOperator(
            (len(right), len(right)), lambda x: x - product(x), dtype=np.float64
        )
        # A rough solution is enough: `_refined` solves again for its residual.
        solution, status = gmres(
            operator, right, rtol=1e-8, restart=_KRYLOV_DIMENSION, maxiter=_KRYLOV_RESTARTS
        )
        self._stalled = status != 0
        return np.asarray(solution)
