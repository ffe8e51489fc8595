"""Coefficients of a surrogate as exact polynomials, found by evaluating it at whole numbers.

On one trajectory the derivatives of most surrogates in their log-probabilities do not depend on the
policy: they are affine in the rewards and the critic's values, and polynomials in the discount.
Floating point is exact on small whole numbers, so such a polynomial follows from values at unit
rewards, unit critics and whole discounts. Evaluations at random rewards, critics and policies, and
at discounts between 0 and 1, then have to agree with it: what is not of this kind is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from analytic.arrays import BoolArray, FloatArray, IntArray
from stochastic.coefficients import Coefficients, SurrogateCall, coefficients, probe
from stochastic.estimators import SurrogateEstimator
from stochastic.records import Tensors

DISCOUNTS = (0.0, 0.4375, 0.8125, 1.0)
"""At which the polynomials are tried on every trajectory."""

LARGEST_FIT = 400_000
"""Evaluations at most, where each trajectory has polynomials of its own."""

_TOLERANCE = 1e-10
_LARGEST_NUMBER = 2.0**46
_DENOMINATORS = 1_000_000
_BLOCK = 4096

Term = tuple[tuple[tuple[int, int], ...], int, tuple[Fraction, ...]]
"""(visits, x, polynomial): the derivative in the log-probabilities of ``visits``, each a time and an
action (-1: the one taken), has ``polynomial`` in the discount, lowest power first, times x: 1, then
the rewards of steps 0..H-1, then the critic's values at times 0..H."""


class UnfitError(ValueError):
    """A surrogate whose coefficients are not of the kind that can be found exactly."""


@dataclass(frozen=True, eq=False)
class Paths:
    """B trajectories without their numbers: ``states [B, H + 1]``, ``actions [B, H]`` and
    ``ended [B, H + 1]``, whether the state is terminal.
    """

    states: IntArray
    actions: IntArray
    ended: BoolArray

    def __getitem__(self, index: IntArray | slice) -> Paths:
        """Some of them."""
        return Paths(self.states[index], self.actions[index], self.ended[index])

    @property
    def inputs(self) -> BoolArray:
        """``[B, 2H + 2]``: which of x (see `Term`) can differ from 0."""
        alive = ~self.ended
        first = np.ones((len(self.actions), 1), dtype=np.bool_)
        return np.concatenate([first, alive[:, :-1], alive], axis=1)


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
            f"{self.checks:,} more at random points agree"
        )


def exact_coefficients(
    estimator: SurrogateEstimator, paths: Paths, n_states: int, n_actions: int
) -> ExactCoefficients:
    """The coefficients of a surrogate on the given trajectories, a batch of one each.

    Raises:
        UnfitError: they depend on the policy, couple trajectories, or are no such polynomials.
        SurrogateError: as `stochastic.coefficients.probe`.
    """
    fit = _Fit(estimator, n_states, n_actions, paths.actions.shape[1])
    fit.check_policy(paths)
    longest = np.argmax((~paths.ended).sum(axis=1))
    tables = fit.tables(paths[np.array([longest])])
    shared = fit.agrees(paths, tables)
    count = fit.points
    if not shared:
        count *= len(paths.actions)
        if count > LARGEST_FIT:
            raise UnfitError(
                f"{estimator.name}: its coefficients differ between trajectories, and "
                f"{count:,} evaluations to find them are more than {LARGEST_FIT:,}"
            )
        tables = fit.tables(paths)
        if not fit.agrees(paths, tables):
            raise UnfitError(
                f"{estimator.name}: its coefficients are not affine in rewards and critic values "
                f"and polynomials of degree {fit.degree} in the discount"
            )
    fit.check_coupling(paths)
    terms = tables.terms(fit)
    keys = zip(paths.states.tolist(), paths.actions.tolist(), strict=True)
    of_path = {} if shared else {(tuple(s), tuple(a)): t for (s, a), t in zip(keys, terms)}  # noqa: B905
    return ExactCoefficients(
        order=estimator.order,
        degree=fit.degree,
        shared=terms[0] if shared else None,
        of_path=of_path,
        evaluations=count,
        checks=len(DISCOUNTS) * len(paths.actions),
        rounded=tables.rounded,
    )


@dataclass(frozen=True, eq=False)
class _Tables:
    """Of each order k ``numbers[k - 1] [B or 1, X, M, ..., M]``: which of ``polynomials``."""

    leaves: tuple[str, ...]
    numbers: tuple[IntArray, ...]
    polynomials: tuple[tuple[Fraction, ...], ...]
    rounded: bool

    def predicted(self, k: int, inputs: FloatArray, discount: float) -> tuple[FloatArray, float]:
        """``[B, M, ...]`` of order k at ``inputs [B, X]``, and the size of what it sums."""
        powers = [
            float(sum(c * Fraction(discount) ** d for d, c in enumerate(p)))
            for p in self.polynomials
        ]
        values = np.array(powers)[self.numbers[k - 1]]
        flat = values.reshape(*values.shape[:2], -1)
        if len(flat) == 1:
            found = inputs @ flat[0]
        else:
            found = np.einsum("bx,bxm->bm", inputs, flat)
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
class _Fit:
    estimator: SurrogateEstimator
    n_states: int
    n_actions: int
    steps: int

    @property
    def degree(self) -> int:
        """In the discount, at most."""
        return self.steps + 1

    @property
    def points(self) -> int:
        """Evaluations that a path's polynomials are found from."""
        return (self.degree + 1) * (2 * self.steps + 2)

    def visits(self, leaves: tuple[str, ...]) -> list[tuple[int, int]]:
        """Time and action of each leaf's entries."""
        found = []
        for leaf in leaves:
            actions = [-1] if leaf == "log_probs" else list(range(self.n_actions))
            found += [(t, a) for t in range(self.steps) for a in actions]
        return found

    def tensors(self, paths: Paths, inputs: FloatArray, seed: int | None, n: int = 1) -> Tensors:
        """Records of the paths, ``n`` a batch, with rewards and values from ``inputs [B, 2H + 2]``,
        at random policies, or (without a seed) at the uniform one.
        """
        count, steps = paths.actions.shape
        alive = ~paths.ended[:, :-1]
        logits = np.zeros((1, self.n_states, self.n_actions))
        if seed is not None:
            rng = np.random.default_rng(seed)
            logits = rng.normal(size=(count // n, self.n_states, self.n_actions))
        table = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        rows = np.minimum(np.arange(count) // n, len(table) - 1)
        policy = np.where(alive[..., None], table[rows[:, None], paths.states[:, :-1]], 0.0)
        own = np.take_along_axis(policy, paths.actions[..., None], axis=-1)[..., 0]
        arrays = {
            "log_probs": own,
            "log_policy": policy,
            "behaviour_log_probs": own,
            "rewards": inputs[:, 1 : steps + 1],
            "states": paths.states,
            "actions": paths.actions,
            "alive": alive,
            "values": inputs[:, steps + 1 :],
        }
        return {
            name: torch.from_numpy(np.array(a).reshape(count // n, n, *a.shape[1:]))
            for name, a in arrays.items()
        }

    def derivatives(self, tensors: Tensors, discount: float) -> Coefficients:
        """At one discount, all orders, through vmap where it can."""
        estimator = self.estimator
        call = SurrogateCall(estimator.function, estimator.name, discount, {})
        few = {name: tensor[:2] for name, tensor in tensors.items()}
        mapped = probe(call, few, estimator.order) is None
        parts = [
            coefficients(
                call,
                {name: tensor[begin : begin + _BLOCK] for name, tensor in tensors.items()},
                estimator.order,
                vmapped=mapped,
            )
            for begin in range(0, len(tensors["actions"]), _BLOCK)
        ]
        joined = [np.concatenate(group) for group in zip(*(p.derivatives for p in parts), strict=True)]
        return Coefficients(parts[0].leaves, tuple(joined))

    def random_inputs(self, paths: Paths, seed: int) -> FloatArray:
        """Whole numbers ``[B, 2H + 2]``, the first 1; 0 after the end."""
        rng = np.random.default_rng(seed)
        found = rng.integers(-9, 10, size=paths.inputs.shape).astype(np.float64)
        found[:, 0] = 1.0
        return np.where(paths.inputs, found, 0.0)

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
        polynomials: dict[tuple[Fraction, ...], int] = {}
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
            own = [_interpolated(column) for column in columns]
            ids = np.array([polynomials.setdefault(p, len(polynomials)) for p in own])
            numbers.append(ids[which.reshape(values.shape[:-1])])
        return _Tables(found[0].leaves, tuple(numbers), tuple(polynomials), rounded)

    def agrees(self, paths: Paths, tables: _Tables) -> bool:
        """Whether the polynomials say what random evaluations do, on every path."""
        for seed, discount in enumerate(DISCOUNTS):
            inputs = self.random_inputs(paths, seed)
            found = self.derivatives(self.tensors(paths, inputs, seed), discount)
            if found.leaves != tables.leaves:
                return False
            for k, derivative in enumerate(found.derivatives, start=1):
                said, size = tables.predicted(k, inputs, discount)
                gaps = (derivative - said) * self._alive(paths, found.leaves, k)
                if np.abs(gaps).max(initial=0.0) > _TOLERANCE * max(size, 1.0):
                    return False
        return True

    def _alive(self, paths: Paths, leaves: tuple[str, ...], k: int) -> FloatArray:
        """``[B, M, ...]``: 1 where all k visits are before the end."""
        times = [t for t, _ in self.visits(leaves)]
        alive = (~paths.ended[:, times]).astype(np.float64)
        found = alive
        for _ in range(k - 1):
            found = found[..., None] * alive.reshape(len(alive), *(1,) * (found.ndim - 1), -1)
        return found

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
            for n, at in enumerate(self._members(alone.leaves)):
                wanted[(slice(None), *np.ix_(*[at] * k))] = own[n::2] / 2
            if not np.allclose(both, wanted, rtol=_TOLERANCE, atol=_TOLERANCE):
                raise UnfitError(f"{self.estimator.name}: couples the trajectories of a batch")

    def _members(self, leaves: tuple[str, ...]) -> Iterator[IntArray]:
        """Where each of two trajectories' leaf entries stand."""
        for n in range(2):
            parts, begin = [], 0
            for leaf in leaves:
                size = self.steps * (1 if leaf == "log_probs" else self.n_actions)
                parts.append(begin + n * size + np.arange(size))
                begin += 2 * size
            yield np.concatenate(parts)


def _interpolated(column: FloatArray) -> tuple[Fraction, ...]:
    """The polynomial through values at 2, 3, ..., lowest power first, without leading zeros."""
    found: list[Fraction] = [Fraction(0)] * len(column)
    basis = [Fraction(1)]
    slopes = [_simple(value) for value in column.tolist()]
    for d in range(len(column)):  # Newton's divided differences
        for power, factor in enumerate(basis):
            found[power] += slopes[0] * factor
        basis = _times_root(basis, 2 + d)
        slopes = [(b - a) / (d + 1) for a, b in zip(slopes, slopes[1:], strict=False)]
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)


def _times_root(polynomial: list[Fraction], root: int) -> list[Fraction]:
    """Times ``(x - root)``."""
    shifted = [Fraction(0), *polynomial]
    return [a - root * b for a, b in zip(shifted, [*polynomial, Fraction(0)], strict=True)]


def _simple(value: float) -> Fraction:
    """The whole number nearby, or else the fraction of a moderate denominator."""
    whole = round(value)
    if abs(value - whole) <= 1e-9:
        return Fraction(whole)
    return Fraction(value).limit_denominator(_DENOMINATORS)
