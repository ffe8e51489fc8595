"""Solving the Bellman equations of one policy, forwards and backwards.

With ``M = gamma P_pi`` every exact quantity is a solution of one of two linear systems:

- backwards, ``x_t = b_t + M x_{t+1}``: values, and derivatives of values;
- forwards, ``y_{t+1} = b_{t+1} + M^T y_t``: occupancies, and derivatives of occupancies.

With H steps these are recursions. Over the infinite horizon both are solved with one factorisation
of ``I - M``, a row diagonally dominant M-matrix: inverted where it is small (or there are many), LU
factors where it is large, sparse LU or Krylov iteration where it is sparse.

``I - M`` is badly conditioned when the discount is close to 1. As ``(I - M)^-1`` has no negative
entry, its norm is the largest expected discounted time before a terminal state, so the condition
number is exact and cheap; where it spoils the tenth digit, `IllConditionedWarning` names it.
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
"""States up to which a sparse system is factorised whatever its pattern."""
LOCALITY = 4.0
"""A larger sparse system is factorised if its bandwidth is at most this many times the root of its
size (chains, grids); the factors of a random graph are nearly dense.
"""
PROMISED_ACCURACY = 1e-10
"""Relative accuracy below which a result comes with a warning."""

_EPSILON = float(np.finfo(np.float64).eps)
_BACKWARD_STABLE = 64 * _EPSILON
_REFINEMENTS = 12
_KRYLOV_DIMENSION = 60
_KRYLOV_RESTARTS = 20


class IllConditionedWarning(RuntimeWarning):
    """A linear system whose result may be off by more than `PROMISED_ACCURACY`."""


class System(Protocol):
    """Both systems of one policy; time is the axis before the last."""

    def solve(self, own: FloatArray) -> FloatArray:
        """The x ``[..., T, S]`` with ``x_t = own_t + M x_{t+1}``."""
        ...

    def solve_adjoint(self, own: FloatArray) -> FloatArray:
        """The y ``[..., T, S]`` with ``y_{t+1} = own_{t+1} + M^T y_t``."""
        ...

    def later(self, values: FloatArray) -> FloatArray:
        """``x_{t+1}`` at t: the values that a step leads to."""
        ...

    def earlier(self, visits: FloatArray) -> FloatArray:
        """``y_{t-1}`` at t: the visits that a step comes from."""
        ...


def bellman_system(tables: Tables, policy: FloatArray, discount: FloatArray) -> System:
    """The systems of action probabilities ``policy [..., S, A]`` with ``discount [...]``.

    Warns:
        IllConditionedWarning: where a solution may be off by more than 1e-10 relative.
    """
    matrix = tables.kernel.under(policy).scaled(discount)
    if tables.horizon is not None:
        return Recursion(matrix, tables.horizon)
    if isinstance(matrix, SparseMatrix):
        found: Stationary = SparseFactors(matrix) if _is_local(matrix) else Krylov(matrix)
    elif isinstance(matrix, DenseMatrix):
        one = matrix.entries.ndim == 2
        large = one and tables.kernel.n_states > MAX_INVERSE
        found = DenseFactors(matrix) if large else Inverse(matrix)
    else:
        raise TypeError(f"transition: expected dense or sparse, got {type(matrix).__name__}")
    _check_condition(found, tables, discount)
    return found


def _is_local(matrix: SparseMatrix) -> bool:
    """Whether factors of ``I - M`` stay sparse, judged by the bandwidth (reverse Cuthill-McKee) of
    its pattern. Edges into absorbing states do not count: such a state is eliminated last.
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
    """``[...]``: the condition number of ``I - M`` in the maximum norm, of what happens before
    terminal states.
    """
    alive = (~tables.terminal).astype(np.float64)[..., None, :]
    lifetimes = system.solve(alive)
    rows = 1.0 - 2.0 * system.matrix.diagonal() + system.matrix.apply(alive)
    found: FloatArray = (alive * rows).max(axis=(-2, -1)) * lifetimes.max(axis=(-2, -1))
    return found


def _check_condition(system: Stationary, tables: Tables, factor: FloatArray) -> None:
    """Warns of an ill-conditioned system."""
    limit, discount = PROMISED_ACCURACY / _EPSILON, float(np.max(factor))
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
    """H steps: substitution, backwards and forwards."""

    matrix: Matrix
    steps: int

    def solve(self, own: FloatArray) -> FloatArray:
        """As `System.solve`, with ``x_H = 0``."""
        return self._swept(own, range(self.steps - 1, 0, -1), -1, self.matrix.apply)

    def solve_adjoint(self, own: FloatArray) -> FloatArray:
        """As `System.solve_adjoint`, with ``y_0 = own_0``."""
        return self._swept(own, range(self.steps - 1), 1, self.matrix.apply_transposed)

    def _swept(
        self,
        own: FloatArray,
        steps: Iterable[int],
        direction: int,
        product: Callable[[FloatArray], FloatArray],
    ) -> FloatArray:
        """Adds to each step, in place, the product of the one before it."""
        leading = np.broadcast_shapes(own.shape[:-2], self.matrix.leading)
        found = np.array(np.broadcast_to(own, (*leading, *own.shape[-2:])))
        for t in steps:
            found[..., t + direction, :] += product(found[..., t : t + 1, :])[..., 0, :]
        return found

    def later(self, values: FloatArray) -> FloatArray:
        """The next step's; 0 at the end."""
        return np.concatenate([values[..., 1:, :], np.zeros_like(values[..., :1, :])], axis=-2)

    def earlier(self, visits: FloatArray) -> FloatArray:
        """The previous step's; 0 at the start."""
        return np.concatenate([np.zeros_like(visits[..., :1, :]), visits[..., :-1, :]], axis=-2)


class Stationary:
    """The infinite horizon: one step that leads to itself.

    Solutions are checked by their residuals, and refined where those are more than rounding. Of a
    factorisation the first solution is, in either direction; after that it is trusted.
    """

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        self._trusted: set[bool] = set()

    def later(self, values: FloatArray) -> FloatArray:
        """The same values."""
        return values

    def earlier(self, visits: FloatArray) -> FloatArray:
        """The same visits."""
        return visits

    def solve(self, own: FloatArray) -> FloatArray:
        """``(I - M)^-1 b``."""
        return self._refined(own, transposed=False)

    def solve_adjoint(self, own: FloatArray) -> FloatArray:
        """``(I - M)^-T b``."""
        return self._refined(own, transposed=True)

    def _correction(self, residual: FloatArray, *, transposed: bool) -> FloatArray:
        """An approximate solution."""
        raise NotImplementedError

    def _trust(self, *, transposed: bool) -> None:
        """Takes further solutions in this direction without a check."""
        self._trusted.add(transposed)

    def _refined(self, own: FloatArray, *, transposed: bool) -> FloatArray:
        """Solves, and solves again for the residual, until that is rounding."""
        found = self._correction(own, transposed=transposed)
        if transposed in self._trusted:
            return found
        product = self.matrix.apply_transposed if transposed else self.matrix.apply
        for refinements in range(_REFINEMENTS + 1):
            residual = own - (found - product(found))
            scale = _largest(own) + 2.0 * _largest(found)
            unsolved = _largest(residual) > _BACKWARD_STABLE * scale
            if not unsolved.any():
                if refinements == 0 and found.any():
                    self._trust(transposed=transposed)
                return found
            if refinements < _REFINEMENTS:
                found = found + self._correction(residual, transposed=transposed)
        worst = float((_largest(residual)[unsolved] / scale[unsolved]).max())
        _warn(f"a Bellman system was not solved to rounding: relative residual {worst:.1e}")
        return found


def _warn(message: str) -> None:
    """Warns where the package was called from."""
    frame, depth = sys._getframe(), 1
    inside = ("gradbias.analytic.", "functools")
    while frame.f_back is not None and frame.f_globals["__name__"].startswith(inside):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, IllConditionedWarning, stacklevel=depth)


def _largest(vectors: FloatArray) -> FloatArray:
    """``[...]``: the largest entry in size of each vector."""
    sizes: FloatArray = np.abs(vectors).max(axis=-1)
    return sizes


class Inverse(Stationary):
    """``(I - M)^-1 [..., S, S]`` itself."""

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
    """LU factors of ``I - M [S, S]``."""

    matrix: DenseMatrix

    @cached_property
    def _factors(self) -> Any:
        from scipy.linalg import lu_factor  # here: it costs the command line a fifth of a second

        entries = self.matrix.entries
        return lu_factor(np.eye(len(entries)) - entries, overwrite_a=True, check_finite=False)

    def _correction(self, residual: FloatArray, *, transposed: bool) -> FloatArray:
        from scipy.linalg import lu_solve

        columns = residual.reshape(-1, residual.shape[-1]).T
        found = lu_solve(self._factors, columns, trans=int(transposed), check_finite=False)
        return np.asarray(found).T.reshape(residual.shape)


class SparseFactors(Stationary):
    """Sparse LU factors of ``I - M``."""

    matrix: SparseMatrix

    @cached_property
    def _factors(self) -> Any:
        from scipy import sparse
        from scipy.sparse.linalg import splu

        entries = self.matrix.entries
        system = sparse.csc_array(sparse.eye_array(entries.shape[0]) - entries)
        # Diagonally dominant: no pivoting is needed, and the ordering may keep to the pattern.
        return splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0)

    @property
    def n_stored(self) -> int:
        """The number of entries of both factors."""
        return int(self._factors.L.nnz + self._factors.U.nnz)

    def _correction(self, residual: FloatArray, *, transposed: bool) -> FloatArray:
        columns = np.ascontiguousarray(residual.reshape(-1, residual.shape[-1]).T)
        found = self._factors.solve(columns, "T" if transposed else "N")
        return np.asarray(found).T.reshape(residual.shape)


class Krylov(SparseFactors):
    """GMRES, which needs no factors; those of a sparse LU where it does not converge."""

    def __init__(self, matrix: SparseMatrix) -> None:
        super().__init__(matrix)
        self._stalled = False

    def _trust(self, *, transposed: bool) -> None:
        """Every iteration is checked."""

    def _correction(self, residual: FloatArray, *, transposed: bool) -> FloatArray:
        rows = residual.reshape(-1, residual.shape[-1])
        found = np.zeros_like(rows)
        for row, own in enumerate(rows):
            if not self._stalled:
                found[row] = self._iterated(own, transposed=transposed)
        if self._stalled:
            return super()._correction(residual, transposed=transposed)
        return found.reshape(residual.shape)

    def _iterated(self, own: FloatArray, *, transposed: bool) -> FloatArray:
        from scipy.sparse.linalg import LinearOperator, gmres

        product = self.matrix.apply_transposed if transposed else self.matrix.apply
        operator = LinearOperator((len(own), len(own)), lambda x: x - product(x), dtype=np.float64)
        found, status = gmres(
            operator, own, rtol=1e-8, restart=_KRYLOV_DIMENSION, maxiter=_KRYLOV_RESTARTS
        )
        self._stalled = status != 0
        return np.asarray(found)
