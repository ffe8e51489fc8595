"""Coefficients of a surrogate as exact polynomials, found by evaluating it at powers of two.

On one trajectory the derivatives of most surrogates in their log-probabilities do not depend on the
policy: they are affine in the rewards and the critic's values, and polynomials in the discount.
Such a polynomial follows from values at unit rewards, unit critics and discounts that are powers of
two, where floating point is exact. Evaluations at random rewards, critics and policies, small and
large, and at discounts between 0 and 1 then have to agree with it; otherwise the surrogate is
refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from gradbias.analytic.utils.validation import FloatArray, IntArray
from gradbias.stochastic.derivatives.coefficients import MAX_LOOPED, probe
from gradbias.stochastic.estimators.exact_evaluations import Evaluations, Paths
from gradbias.stochastic.estimators.exact_polynomials import Polynomial, interpolated, simplified
from gradbias.stochastic.estimators.kinds import SurrogateEstimator

DISCOUNTS = (0.0, 0.37, 0.93, 0.999, 1.0)
"""The discounts at which the polynomials are tried on every trajectory."""

MIN_TRIED = 1_024
"""The fewest evaluations at each of `DISCOUNTS`, if vmap accepts the surrogate."""

MAX_FIT = 400_000
"""The most evaluations, if each trajectory has polynomials of its own."""

_TOLERANCE = 1e-10
_FEW = 64
_BLOCK = 4096

Term = tuple[tuple[tuple[int, int], ...], int, Polynomial]
"""(visits, x, polynomial): the derivative in the log-probabilities of ``visits``, each a time and
an action (-1: the one taken), has ``polynomial`` in the discount times the input number x: of 1,
the rewards of steps 0..H-1, the critic's values at times 0..H."""


class UnfitError(ValueError):
    """A surrogate whose coefficients are no polynomials that can be found exactly."""


@dataclass(frozen=True, eq=False)
class ExactCoefficients:
    """The terms of all orders up to the estimator's, and how they were found.

    Attributes:
        order: the estimator's order.
        degree: the highest power of the discount.
        shared: the terms, if they are the same on every trajectory; else None.
        of_path: the terms by a trajectory's states and actions, if they are not.
        evaluations: the number of evaluations that the terms were found from.
        checks: the number of evaluations that they were compared with.
        rounded: whether coefficients were rounded to fractions.
    """

    order: int
    degree: int
    shared: tuple[Term, ...] | None
    of_path: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[Term, ...]]
    evaluations: int
    checks: int
    rounded: bool

    @property
    def assumption(self) -> str:
        """The assumption of a proof that uses these coefficients."""
        kind = "rounded to fractions" if self.rounded else "exact in floating point"
        return (
            "on every trajectory the surrogate's derivatives are affine in rewards and critic "
            f"values, polynomials in the discount of degree at most {self.degree}, and the same at "
            f"every policy: found from {self.evaluations:,} evaluations ({kind}), and "
            f"{self.checks:,} more agree to 1e-10 at random rewards and critic values up to 10^8, "
            "policies nearly uniform to nearly deterministic, and discounts from 0 to 1"
        )


def exact_coefficients(
    estimator: SurrogateEstimator, paths: Paths, n_states: int, n_actions: int
) -> ExactCoefficients:
    """The coefficients of a surrogate on given trajectories, each a batch of one.

    Raises:
        UnfitError: they depend on the policy, couple trajectories, or are no such polynomials.
        SurrogateError: as `stochastic.derivatives.coefficients.probe`.
    """
    fit = _Fit(estimator, n_states, n_actions, paths.actions.shape[1], vmapped=False)
    fit = fit.mapped_or_looped(paths)
    fit.check_policy(paths)
    longest = np.argmax((~paths.ended).sum(axis=1))
    tables = fit.tables(paths[np.array([longest])])
    shared = fit.agrees(paths, tables)
    if not shared:
        tables = fit.tables_of_each(paths)
    fit.check_coupling(paths)
    terms = tables.terms(fit)
    return ExactCoefficients(
        order=estimator.order,
        degree=fit.degree,
        shared=terms[0] if shared else None,
        of_path={} if shared else dict(zip(paths.keys(), terms, strict=True)),
        evaluations=fit.points * len(terms),
        checks=len(DISCOUNTS) * fit.tried(paths),
        rounded=tables.rounded,
    )


@dataclass(frozen=True, eq=False)
class _Tables:
    """Polynomials by path, input and leaf entries.

    ``numbers[k - 1] [B or 1, X, M, ..., M]`` (k axes M) are indices into ``polynomials``, for the
    derivatives of order k; X counts the inputs.
    """

    leaves: tuple[str, ...]
    numbers: tuple[IntArray, ...]
    polynomials: tuple[Polynomial, ...]
    rounded: bool

    def predicted(
        self, k: int, inputs: FloatArray, discount: float, index: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """The derivatives ``[B, M, ...]`` of order k at ``inputs [B, X]`` on the paths ``index
        [B]``, and the sum ``[B]`` of their absolute terms.
        """
        powers = [
            float(sum(c * Fraction(discount) ** d for d, c in enumerate(p)))
            for p in self.polynomials
        ]
        numbers = self.numbers[k - 1]
        values = np.array(powers)[numbers if len(numbers) == 1 else numbers[index]]
        flat = values.reshape(*values.shape[:2], -1)
        sums = (inputs[:, None] @ flat)[:, 0] if len(flat) > 1 else inputs @ flat[0]
        largest = np.abs(flat).max(axis=-1, initial=0.0)
        size: FloatArray = (np.abs(inputs) * largest).sum(axis=1)
        return sums.reshape(len(inputs), *values.shape[2:]), size

    def terms(self, fit: _Fit) -> list[tuple[Term, ...]]:
        """The terms of each path that are not 0."""
        visits = fit.visits(self.leaves)
        zero = [not any(polynomial) for polynomial in self.polynomials]
        by_path = []
        for b in range(len(self.numbers[0])):
            terms: list[Term] = []
            for table in self.numbers:
                for (x, *entries), number in np.ndenumerate(table[b]):
                    if not zero[number]:
                        at = tuple(visits[j] for j in entries)
                        terms.append((at, int(x), self.polynomials[number]))
            by_path.append(tuple(terms))
        return by_path


@dataclass(frozen=True, eq=False)
class _Fit(Evaluations):
    """Finds the polynomials, and compares them with further evaluations."""

    @property
    def degree(self) -> int:
        """The highest degree of the polynomials in the discount."""
        return self.steps + 1

    @property
    def points(self) -> int:
        """The number of evaluations that a path's polynomials are found from."""
        return (self.degree + 1) * (2 * self.steps + 2)

    def tried(self, paths: Paths) -> int:
        """The number of comparisons at each of `DISCOUNTS`: one a path, more if paths are few."""
        return max(len(paths.actions), MIN_TRIED if self.vmapped else _FEW)

    def mapped_or_looped(self, paths: Paths) -> _Fit:
        """The same fit, with vmap if that may be used.

        Raises:
            UnfitError: vmap may not be used, and there are too many paths for a loop.
            SurrogateError: as `stochastic.derivatives.coefficients.probe`.
        """
        few = paths[np.array([0, -1])]
        tensors = self.tensors(few, self.random_inputs(few, 0), self.random_logits(2, 1))
        reason = probe(self.call(0.5), tensors, self.estimator.order)
        if reason is None:
            return replace(self, vmapped=True)
        self.check_count(len(DISCOUNTS) * self.tried(paths), MAX_LOOPED, f"vmap says: {reason}")
        return self

    def check_count(self, count: int, largest: int, reason: str) -> None:
        """Raises UnfitError if there are too many evaluations."""
        if count > largest:
            raise UnfitError(
                f"{self.estimator.name}: expected at most {largest:,} evaluations, got {count:,} "
                f"({reason}); use a smaller shape"
            )

    def check_policy(self, paths: Paths) -> None:
        """Raises UnfitError if some path's coefficients differ between two policies."""
        count = _FEW if not self.vmapped else 4 * _FEW
        some = paths[np.linspace(0, len(paths.actions) - 1, count).astype(np.int64)]
        inputs = self.random_inputs(some, 0)
        first, second = (
            self.derivatives(self.tensors(some, inputs, self.random_logits(count, seed)), 0.5)
            for seed in (1, 2)
        )
        pairs = zip(first.derivatives, second.derivatives, strict=True)
        for k, (a, b) in enumerate(pairs, start=1):
            alive = self.alive(some, first.leaves, k)
            if not _close(a * alive, b * alive, np.abs(inputs).max(axis=1)):
                raise UnfitError(
                    f"{self.estimator.name}: its coefficients depend on the policy at which the "
                    "actions are drawn"
                )

    def tables(self, paths: Paths) -> _Tables:
        """The polynomials of each path, from discounts that are powers of two, and unit inputs."""
        count, width = len(paths.actions), 2 * self.steps + 2
        units = np.eye(width)
        units[:, 0] = 1.0
        repeated = paths[np.repeat(np.arange(count), width)]
        tensors = self.tensors(repeated, np.tile(units, (count, 1)) * repeated.inputs)
        nodes = [Fraction(2) ** (d - self.degree // 2) for d in range(self.degree + 1)]
        at_nodes = [self.derivatives(tensors, float(node)) for node in nodes]
        numbers = []
        columns: dict[tuple[float, ...], int] = {}
        for k in range(self.estimator.order):
            values = np.stack([at.derivatives[k] for at in at_nodes], axis=-1)
            values = values.reshape(count, width, *values.shape[1:])
            values[:, 1:] -= values[:, :1]
            distinct, inverse = np.unique(
                values.reshape(-1, values.shape[-1]), axis=0, return_inverse=True
            )
            ids = [columns.setdefault(tuple(column), len(columns)) for column in distinct.tolist()]
            numbers.append(np.array(ids)[inverse.reshape(values.shape[:-1])])
        polynomials, rounded = simplified([interpolated(column, nodes) for column in columns])
        return _Tables(at_nodes[0].leaves, tuple(numbers), tuple(polynomials), rounded)

    def tables_of_each(self, paths: Paths) -> _Tables:
        """The polynomials of each path, if these differ.

        Raises:
            UnfitError: there are too many paths, or their polynomials do not agree either.
        """
        count = self.points * len(paths.actions)
        largest = MAX_FIT if self.vmapped else MAX_LOOPED
        self.check_count(count, largest, "its coefficients differ between trajectories")
        tables = self.tables(paths)
        if not self.agrees(paths, tables):
            raise UnfitError(
                f"{self.estimator.name}: its coefficients are not affine in rewards and critic "
                f"values and polynomials of degree {self.degree} in the discount, of numbers that "
                "floating point distinguishes, the same at every policy"
            )
        return tables

    def agrees(self, paths: Paths, tables: _Tables) -> bool:
        """Whether the polynomials agree with random evaluations on every path."""
        index = np.arange(self.tried(paths)) % len(paths.actions)
        parts = [index[begin : begin + _BLOCK] for begin in range(0, len(index), _BLOCK)]
        return all(
            self.agrees_at(discount, paths, tables, part, 2 * (d * len(parts) + i))
            for d, discount in enumerate(DISCOUNTS)
            for i, part in enumerate(parts)
        )

    def agrees_at(
        self, discount: float, paths: Paths, tables: _Tables, index: IntArray, seed: int
    ) -> bool:
        """Whether they agree at one discount on the paths ``index``."""
        some = paths[index]
        inputs = self.random_inputs(some, seed)
        logits = self.random_logits(len(index), seed + 1)
        coefficients = self.derivatives(self.tensors(some, inputs, logits), discount)
        if coefficients.leaves != tables.leaves:
            return False
        for k, derivative in enumerate(coefficients.derivatives, start=1):
            predicted, size = tables.predicted(k, inputs, discount, index)
            alive = self.alive(some, coefficients.leaves, k)
            if not _close(derivative * alive, predicted * alive, size):
                return False
        return True

    def check_coupling(self, paths: Paths) -> None:
        """Raises UnfitError if the coefficients of a batch of two are not half of each one's."""
        rng = np.random.default_rng(0)
        pairs = paths[rng.integers(len(paths.actions), size=32)]
        inputs = self.random_inputs(pairs, 1)
        alone = self.derivatives(self.tensors(pairs, inputs), 0.5)
        together = self.derivatives(self.tensors(pairs, inputs, n=2), 0.5)
        orders = zip(alone.derivatives, together.derivatives, strict=True)
        for k, (single, both) in enumerate(orders, start=1):
            wanted = np.zeros_like(both)
            for n, at in enumerate(self.members(alone.leaves)):
                block: tuple[Any, ...] = (slice(None), *np.ix_(*[at] * k))
                wanted[block] = single[n::2] / 2
            if not _close(both, wanted, np.abs(inputs).reshape(len(both), -1).max(axis=1)):
                raise UnfitError(f"{self.estimator.name}: couples the trajectories of a batch")


def _close(first: FloatArray, second: FloatArray, size: FloatArray) -> bool:
    """Whether every row agrees up to rounding, relative to its entries and its ``size [B]``."""
    rows = len(first)
    gaps = np.abs(first - second).reshape(rows, -1).max(axis=1, initial=0.0)
    largest = np.abs(second).reshape(rows, -1).max(axis=1, initial=1.0)
    return bool((gaps <= _TOLERANCE * np.maximum(largest, size)).all())
