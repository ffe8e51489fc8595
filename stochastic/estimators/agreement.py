"""A test of the exact interpretation: runs of the same program on ordinary numbers.

They prove nothing about what lies between the points. They would show a mistake of the
interpretation, numbers that floating point does not resolve, casts to fewer digits, and programs
that do other things with numbers than with symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, zip_longest
from typing import Any

import numpy as np
import torch

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.derivatives.coefficients import (
    Coefficients,
    SurrogateCall,
    coefficients,
)
from gradbias.stochastic.estimators.kinds import SurrogateEstimator
from gradbias.stochastic.rollouts.records import LEAVES, Tensors
from gradbias.stochastic.tracing.interpretation import Paths, Reading, UnfitError, unfit
from gradbias.stochastic.tracing.operations import OperationLog
from gradbias.stochastic.tracing.reachable_state import errors_raised

DISCOUNTS = (0.37, 0.93, 1.0, 0.0)
"""The discounts at which derivatives are compared."""

TRIED = 3
"""The number of trajectories that are tried at each discount, beside the longest."""

TOLERANCE = 1e-10

_SIZES = (-2.0, 4.0)
"""The powers of ten between which the sizes of rewards and critic values are."""

_SPREADS = (-1.0, 0.5)
"""The powers of ten between which the sizes of logits are."""

COMPARED = frozenset(
    (
        *("add", "sub", "rsub", "mul", "div", "neg", "reciprocal", "square", "pow", "exp", "expm1"),
        *("log", "log1p", "sum", "mean", "prod", "cumsum", "cumprod", "where", "masked_fill"),
        *("clamp", "clamp_min", "clamp_max", "minimum", "maximum", "flip", "roll", "cat", "stack"),
        *("eq", "ne", "lt", "le", "gt", "ge", "index", "gather", "abs", "sign", "round", "floor"),
        *("_local_scalar_dense", "equal", "tril", "triu", "sqrt"),
    )
)
"""The operations whose order is compared; products of matrices and views are taken apart in ways
that depend on whether a gradient is required."""


Place = tuple[str, str, int]
"""The name of an operation or an error, with file and line."""

Places = list[Place]


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of one surrogate on numbers."""

    estimator: SurrogateEstimator
    paths: Paths
    n_states: int
    n_actions: int
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def tensors(self, chosen: list[int]) -> tuple[Tensors, FloatArray]:
        """Records of the chosen paths, one a batch, and their inputs x ``[B, 2H + 2]``."""
        paths = self.paths[chosen]
        count, steps = paths.actions.shape
        alive = ~paths.ended[:, :-1]
        inputs = self.rng.normal(size=(count, 2 * steps + 2))
        inputs *= 10.0 ** self.rng.uniform(*_SIZES, size=(count, 1))
        inputs[:, 0] = 1.0
        inputs[:, 1 : steps + 1] *= alive
        inputs[:, steps + 1 :] *= ~paths.ended
        spread = 10.0 ** self.rng.uniform(*_SPREADS)
        logits = spread * self.rng.normal(size=(self.n_states, self.n_actions))
        table = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        policy = np.where(alive[..., None], table[paths.states[:, :-1]], 0.0)
        taken = np.take_along_axis(policy, paths.actions[..., None], axis=-1)[..., 0]
        arrays = {
            "log_probs": taken,
            "log_policy": policy,
            "behaviour_log_probs": taken,
            "rewards": inputs[:, 1 : steps + 1],
            "states": paths.states,
            "actions": paths.actions,
            "alive": alive,
            "values": inputs[:, steps + 1 :],
        }
        return {name: torch.from_numpy(np.array(a)[:, None]) for name, a in arrays.items()}, inputs

    def call(self, discount: float) -> SurrogateCall:
        """The surrogate at one discount."""
        return SurrogateCall(self.estimator.function, self.estimator.name, discount, {})

    def warm(self) -> None:
        """One run, so that what a program computes once and keeps is made of numbers.

        Raises:
            SurrogateError: as `stochastic.derivatives.coefficients.probe`.
        """
        tensors, _ = self.tensors([self.paths.longest])
        self.call(0.5).checked(_single(tensors))

    def run(self, chosen: int, discount: float) -> tuple[Places, Places]:
        """The operations and the errors of a run on one path."""
        tensors, _ = self.tensors([chosen])
        log = OperationLog()
        with log, errors_raised() as errors:
            self.call(discount)(_single(tensors))
        compared = [
            (o.name, o.file, o.line)
            for o in log.operations
            if o.name in COMPARED and any(dtype.is_floating_point for dtype in o.dtypes)
        ]
        return compared, errors


def _single(tensors: Tensors) -> Tensors:
    """The tensors of the first replication, the leaves with gradients."""
    return {n: t[0].requires_grad_() if n in LEAVES else t[0] for n, t in tensors.items()}


def check_interpretation(
    runs: Runs, terms: Sequence[Any], classes: Any, readings: Sequence[Reading]
) -> int:
    """Compares the interpretation with runs on numbers; returns their number.

    Raises:
        UnfitError: derivatives or operations differ.
        SurrogateError: as `stochastic.derivatives.coefficients.coefficients`.
    """
    estimator, paths = runs.estimator, runs.paths
    spaced = np.linspace(0, len(paths.actions) - 1, TRIED).astype(int).tolist()
    chosen = sorted({paths.longest, *spaced})
    kinds = [int(classes[1][b]) for b in chosen]
    in_floats = {
        kind: [(visits, x, list(map(float, powers))) for visits, x, powers in terms[kind]]
        for kind in set(kinds)
    }
    for discount in DISCOUNTS:
        tensors, inputs = runs.tensors(chosen)
        found = coefficients(runs.call(discount), tensors, estimator.order, vmapped=False)
        for row, b in enumerate(chosen):
            predicted = (in_floats[kinds[row]], inputs[row], discount)
            _compare(runs, found, row, predicted, ~paths.ended[b, :-1])
    # After the derivatives, which say more precisely what is wrong with a program.
    # An error that symbols alone raise may be caught on any trajectory.
    odd = [b for b, r in zip(classes[0].tolist(), readings, strict=True) if r.errors]
    for b, discount in zip([*chosen, *odd], cycle(DISCOUNTS), strict=False):
        operations, errors = runs.run(b, discount)
        reading = readings[int(classes[1][b])]
        exact = [o[:3] for o in reading.operations if o[3] and o[0] in COMPARED]
        for lists in ((reading.errors, errors), (exact, operations)):
            for one, other in zip_longest(*lists):
                if one != other:
                    raise _differs(estimator.name, one, other)
    return len(DISCOUNTS) * len(chosen) + len(chosen) + len(odd)


def _compare(
    runs: Runs, found: Coefficients, row: int, predicted: tuple[Any, FloatArray, float], alive: Any
) -> None:
    """Raises UnfitError unless one path's derivatives are those that the terms predict."""
    terms, inputs, discount = predicted
    n_actions, steps = runs.n_actions, len(alive)
    places: dict[tuple[int, int], int] = {}
    for leaf in found.leaves:
        actions = [-1] if leaf == "log_probs" else list(range(n_actions))
        for t in range(steps):
            for a in actions:
                places[t, a] = len(places)
    live = np.array([alive[t] for t, _ in places], dtype=bool)
    for k, derivative in enumerate(found.derivatives, start=1):
        wanted, size = np.zeros(derivative.shape[1:]), 1.0
        for visits, x, powers in terms:
            if len(visits) == k and all(alive[t] for t, _ in visits):
                factor = sum(c * discount**d for d, c in enumerate(powers))
                if any(v not in places for v in visits):
                    raise unfit(runs.estimator.name, "has other leaves on numbers than on symbols")
                wanted[tuple(places[v] for v in visits)] += factor * inputs[x]
                size = max(size, abs(factor) * float(np.abs(inputs).max()))
        actual = derivative[row]
        for axis in range(k):
            actual = np.compress(live, actual, axis=axis)
            wanted = np.compress(live, wanted, axis=axis)
        gap = float(np.abs(actual - wanted).max(initial=0.0))
        if not gap <= TOLERANCE * max(size, float(np.abs(wanted).max(initial=0.0))):
            raise unfit(
                runs.estimator.name,
                f"its derivatives of order {k} in floats differ from the exact ones by {gap:.1e} "
                f"of {size:.1e}",
            )


def _differs(name: str, one: Place | None, other: Place | None) -> UnfitError:
    """The error for a program that does other things with numbers than with symbols."""
    parts = [
        f"{place[0]} ({place[1]}, line {place[2]}) on {kind}"
        for place, kind in ((one, "symbols"), (other, "numbers"))
        if place is not None
    ]
    return unfit(name, f"gives two graphs for two calls: {' but '.join(parts)}")
