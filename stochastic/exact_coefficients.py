"""Coefficients of a surrogate as exact polynomials, found by evaluating it at whole numbers.

On one trajectory the derivatives of most surrogates in their log-probabilities do not depend on the
policy: they are affine in the rewards and the critic's values, and polynomials in the discount.
Floating point is exact on small whole numbers, so such a polynomial follows from values at unit
rewards, unit critics and whole discounts. Evaluations at random rewards, critics and policies, and
at discounts between 0 and 1, then have to agree with it: what is not of this kind is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from analytic.arrays import FloatArray, IntArray
from stochastic.coefficients import probe
from stochastic.estimators import SurrogateEstimator
from stochastic.exact_evaluations import Evaluations, Paths
from stochastic.exact_polynomials import Polynomial, interpolated

DISCOUNTS = (0.0, 0.4375, 0.8125, 1.0)
"""At which the polynomials are tried on every trajectory."""

LARGEST_FIT = 400_000
"""Evaluations at most, where each trajectory has polynomials of its own."""

_TOLERANCE = 1e-10
_LARGEST_NUMBER = 2.0**46

Term = tuple[tuple[tuple[int, int], ...], int, Polynomial]
"""(visits, x, polynomial): the derivative in the log-probabilities of ``visits``, each a time and
an action (-1: the one taken), has ``polynomial`` in the discount times x: 1, then the rewards of
steps 0..H-1, then the critic's values at times 0..H."""


class UnfitError(ValueError):
    """A surrogate whose coefficients are not of the kind that can be found exactly."""


@dataclass(frozen=True, eq=False)
class ExactCoefficients:
    """What was found: ``terms`` of every order up to the estimator's, the same on every trajectory
    (``shared``), or by the trajectory's states and actions (``of_path``).
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
        """What a proof from these rests on."""
        kind = "rounded to fractions" if self.rounded else "exact in floating point"
        return (
            "on every trajectory the surrogate's derivatives are affine in rewards and critic "
            f"values, polynomials in the discount of degree at most {self.degree}, and the same at "
            f"every policy: found from {self.evaluations:,} evaluations ({kind}), and "
            f"{self.checks:,} more at random points agree to 1e-10"
        )


def exact_coefficients(
    estimator: SurrogateEstimator, paths: Paths, n_states: int, n_actions: int
) -> ExactCoefficients:
    """The coefficients of a surrogate on the given trajectories, a batch of one each.

    Raises:
        UnfitError: they depend on the policy, couple trajectories, or are no such polynomials.
        SurrogateError: as `stochastic.coefficients.probe`.
    """
    fit = _Fit(estimator, n_states, n_actions, paths.actions.shape[1], vmapped=False)
    fit = replace(fit, vmapped=fit.can_be_mapped(paths))
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
        checks=len(DISCOUNTS) * len(paths.actions),
        rounded=tables.rounded,
    )


@dataclass(frozen=True, eq=False)
class _Tables:
    """Of each order k ``numbers[k - 1] [B or 1, X, M, ..., M]``: which of ``polynomials``."""

    leaves: tuple[str, ...]
    numbers: tuple[IntArray, ...]
    polynomials: tuple[Polynomial, ...]
    rounded: bool

    def predicted(self, k: int, inputs: FloatArray, discount: float) -> tuple[FloatArray, float]:
        """``[B, M, ...]`` of order k at ``inputs [B, X]``, and the size of what it sums."""
        powers = [
            float(sum(c * Fraction(discount) ** d for d, c in enumerate(p)))
            for p in self.polynomials
        ]
        values = np.array(powers)[self.numbers[k - 1]]
        flat = values.reshape(*values.shape[:2], -1)
        one = len(flat) == 1
        found = inputs @ flat[0] if one else np.einsum("bx,bxm->bm", inputs, flat)
        size = float(np.abs(inputs).sum(axis=1).max() * np.abs(flat).max(initial=0.0))
        return found.reshape(len(inputs), *values.shape[2:]), size

    def terms(self, fit: _Fit) -> list[tuple[Term, ...]]:
        """Of each path, those that are not 0."""
        visits = fit.visits(self.leaves)
        zero = [not any(polynomial) for polynomial in self.polynomials]
        found = []
        for b in range(len(self.numbers[0])):
            own: list[Term] = []
            for table in self.numbers:
                for (x, *entries), number in np.ndenumerate(table[b]):
                    if not zero[number]:
                        at = tuple(visits[j] for j in entries)
                        own.append((at, int(x), self.polynomials[number]))
            found.append(tuple(own))
        return found


@dataclass(frozen=True, eq=False)
class _Fit(Evaluations):
    """Finds the polynomials, and tries them."""

    @property
    def degree(self) -> int:
        """In the discount, at most."""
        return self.steps + 1

    @property
    def points(self) -> int:
        """Evaluations that a path's polynomials are found from."""
        return (self.degree + 1) * (2 * self.steps + 2)

    def can_be_mapped(self, paths: Paths) -> bool:
        """Whether vmap may be used. Raises SurrogateError as `stochastic.coefficients.probe`."""
        few = paths[np.array([0, -1])]
        tensors = self.tensors(few, self.random_inputs(few, 0), 1)
        return probe(self.call(0.5), tensors, self.estimator.order) is None

    def check_policy(self, paths: Paths) -> None:
        """Raises UnfitError where some path's coefficients differ between two policies."""
        some = paths[np.linspace(0, len(paths.actions) - 1, 16).astype(np.int64)]
        inputs = self.random_inputs(some, 0)
        one, other = (self.derivatives(self.tensors(some, inputs, s), 0.5) for s in (1, 2))
        for a, b in zip(one.derivatives, other.derivatives, strict=True):
            if not np.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE):
                raise UnfitError(
                    f"{self.estimator.name}: its coefficients depend on the policy at which the "
                    "actions are drawn"
                )

    def tables(self, paths: Paths) -> _Tables:
        """The polynomials of each path, from whole discounts 2, 3, ... and unit inputs."""
        count, width = len(paths.actions), 2 * self.steps + 2
        units = np.eye(width)
        units[:, 0] = 1.0
        repeated = paths[np.repeat(np.arange(count), width)]
        inputs = np.tile(units, (count, 1)) * repeated.inputs
        tensors = self.tensors(repeated, inputs, None)
        found = [self.derivatives(tensors, 2.0 + d) for d in range(self.degree + 1)]
        numbers, rounded = [], False
        polynomials: dict[Polynomial, int] = {}
        for k in range(self.estimator.order):
            values = np.stack([f.derivatives[k] for f in found], axis=-1)
            values = values.reshape(count, width, *values.shape[1:])
            if np.abs(values).max(initial=0.0) > _LARGEST_NUMBER:
                raise UnfitError(f"{self.estimator.name}: its numbers are too large to be exact")
            values[:, 1:] -= values[:, :1]
            rounded |= bool((np.abs(values - np.rint(values)) > 1e-9).any())
            columns, which = np.unique(
                values.reshape(-1, values.shape[-1]), axis=0, return_inverse=True
            )
            own = [interpolated(column) for column in columns]
            ids = np.array([polynomials.setdefault(p, len(polynomials)) for p in own])
            numbers.append(ids[which.reshape(values.shape[:-1])])
        return _Tables(found[0].leaves, tuple(numbers), tuple(polynomials), rounded)

    def tables_of_each(self, paths: Paths) -> _Tables:
        """Where paths differ. Raises UnfitError if they are too many, or still do not agree."""
        name, count = self.estimator.name, self.points * len(paths.actions)
        if count > LARGEST_FIT:
            raise UnfitError(
                f"{name}: its coefficients differ between trajectories, and {count:,} evaluations "
                f"to find them are more than {LARGEST_FIT:,}"
            )
        tables = self.tables(paths)
        if not self.agrees(paths, tables):
            raise UnfitError(
                f"{name}: its coefficients are not affine in rewards and critic values and "
                f"polynomials of degree {self.degree} in the discount"
            )
        return tables

    def agrees(self, paths: Paths, tables: _Tables) -> bool:
        """Whether the polynomials say what random evaluations do, on every path."""
        for seed, discount in enumerate(DISCOUNTS):
            inputs = self.random_inputs(paths, seed)
            found = self.derivatives(self.tensors(paths, inputs, seed), discount)
            if found.leaves != tables.leaves:
                return False
            for k, derivative in enumerate(found.derivatives, start=1):
                said, size = tables.predicted(k, inputs, discount)
                gaps = (derivative - said) * self.alive(paths, found.leaves, k)
                if np.abs(gaps).max(initial=0.0) > _TOLERANCE * max(size, 1.0):
                    return False
        return True

    def check_coupling(self, paths: Paths) -> None:
        """Raises UnfitError where a batch of two's coefficients are not half of each one's own."""
        rng = np.random.default_rng(0)
        pairs = paths[rng.integers(len(paths.actions), size=32)]
        inputs = self.random_inputs(pairs, 1)
        alone = self.derivatives(self.tensors(pairs, inputs, None), 0.5)
        together = self.derivatives(self.tensors(pairs, inputs, None, n=2), 0.5)
        for k, (own, both) in enumerate(
            zip(alone.derivatives, together.derivatives, strict=True), start=1
        ):
            wanted = np.zeros_like(both)
            for n, at in enumerate(self.members(alone.leaves)):
                block: tuple[Any, ...] = (slice(None), *np.ix_(*[at] * k))
                wanted[block] = own[n::2] / 2
            if not np.allclose(both, wanted, rtol=_TOLERANCE, atol=_TOLERANCE):
                raise UnfitError(f"{self.estimator.name}: couples the trajectories of a batch")
