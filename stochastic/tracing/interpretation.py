"""A surrogate's derivatives on one batch as exact polynomials, read from its program.

The program runs once, on a record of symbols (see `polynomials`): each leaf entry is a
log-probability plus an infinitesimal, so that the coefficients of the result's terms in
infinitesimals are the derivatives, with every ``detach`` and ``no_grad`` of the program in effect.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import permutations
from math import factorial, prod
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from gradbias.analytic.utils.validation import BoolArray, IntArray
from gradbias.stochastic.derivatives.coefficients import SurrogateError, located
from gradbias.stochastic.derivatives.process_state import double_by_default
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.tracing.polynomials import Polynomial, exponents, symbol
from gradbias.stochastic.tracing.reachable_state import OWN_DERIVATIVE
from gradbias.stochastic.tracing.tensors import ExactScalar, ExactTensor
from gradbias.stochastic.tracing.trace import Refusal, Trace

Visit = tuple[int, int, int]
"""Trajectory, time and action of a leaf's entry; action -1 is the one taken."""

Input = tuple[int, int]
"""Trajectory and number of an input: of 1 (0, of no trajectory), the rewards of steps 0..H-1, the
critic's values at times 0..H."""

Terms = dict[tuple[tuple[Visit, ...], Input], dict[int, Fraction]]
"""Coefficients by visits, input and power of the discount."""


@dataclass(frozen=True, eq=False)
class Paths:
    """B trajectories without rewards: ``states [B, H + 1]``, ``actions [B, H]``, and whether each
    state is terminal, ``ended [B, H + 1]``.
    """

    states: IntArray
    actions: IntArray
    ended: BoolArray

    def __getitem__(self, index: IntArray | slice | list[int]) -> Paths:
        """The trajectories that ``index`` selects."""
        return Paths(self.states[index], self.actions[index], self.ended[index])

    def keys(self) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The states and actions of each trajectory."""
        for states, actions in zip(self.states.tolist(), self.actions.tolist(), strict=True):
            yield tuple(states), tuple(actions)

    def classes(self, sources: set[str]) -> tuple[IntArray, IntArray]:
        """One trajectory of each class, and the class of each trajectory ``[B]``: two are of one
        class if they agree in what ``sources`` names of states, actions and alive.
        """
        columns = [self.ended[:, :-1].astype(np.int64)] if sources else []
        columns += [self.states, self.actions] if sources & {"states", "actions"} else []
        count = len(self.actions)
        table = np.concatenate([np.zeros((count, 1), dtype=np.int64), *columns], axis=1)
        _, first, inverse = np.unique(table, axis=0, return_index=True, return_inverse=True)
        return first, inverse.ravel()

    @property
    def longest(self) -> int:
        """The number of a trajectory that is alive for longest."""
        return int(np.argmax((~self.ended).sum(axis=1)))


class UnfitError(ValueError):
    """A surrogate whose derivatives cannot be read exactly; the message says why."""


def unfit(name: str, reason: object) -> UnfitError:
    """An UnfitError that says what can be done instead."""
    return UnfitError(f"{name}: {reason}; it can be tested at given points, not proved")


@dataclass(frozen=True, eq=False)
class Reading:
    """What one run of a program on symbols says.

    Attributes:
        terms: the derivatives of all orders.
        sources: the record's fields that the result was computed from, and those that the program
            branched on.
        operations: name, file and line of each tensor operation, and whether it has floats.
        casts: file and line of each cast to fewer digits.
        errors: name, file and line of each error that was raised, caught or not.
    """

    terms: Terms
    sources: set[str]
    operations: list[tuple[str, str, int, bool]]
    casts: list[tuple[str, int]]
    errors: list[tuple[str, str, int]]


@dataclass(eq=False)
class _Symbols:
    """The symbols of a record, and what each stands for."""

    trace: Trace
    order: int
    visits: dict[int, Visit] = field(default_factory=dict)
    inputs: dict[int, Input] = field(default_factory=dict)
    known: dict[Any, Polynomial] = field(default_factory=dict)

    def new(self, name: str) -> int:
        """The index of a new symbol."""
        self.trace.symbols.append(name)
        return len(self.trace.symbols) - 1

    def input(self, name: str, at: Input) -> Polynomial:
        """The symbol of a reward or of a critic's value."""
        index = self.new(name)
        self.inputs[index] = at
        return symbol(index, self.order)

    def logarithm(self, key: Any) -> Polynomial:
        """The symbol of a log-probability; the same one for the same key."""
        if key not in self.known:
            index, exponential = self.new("log pi"), self.new("pi")
            self.trace.exponential_of[index] = exponential
            self.trace.logarithm_of[exponential] = index
            self.trace.invertible.add(exponential)
            self.known[key] = symbol(index, self.order)
        return self.known[key]

    def leaf(self, visit: Visit) -> Polynomial:
        """The infinitesimal of a leaf's entry."""
        index = self.new("d log pi")
        self.visits[index] = visit
        return symbol(index, self.order, infinitesimal=True)


def _record(symbols: _Symbols, paths: Paths, n_actions: int, *, by_time: bool) -> Record:
    """A batch of the paths in symbols; those of the policy are by state and action or, for what
    reads neither, ``by_time``.
    """
    count, steps = paths.actions.shape
    shapes = {
        "log_probs": (count, steps),
        "log_policy": (count, steps, n_actions),
        "behaviour_log_probs": (count, steps),
        "rewards": (count, steps),
        "values": (count, steps + 1),
    }
    arrays = {name: np.zeros(shape, dtype=object) for name, shape in shapes.items()}
    for n, t in np.ndindex(count, steps + 1):
        arrays["values"][n, t] = symbols.input(f"values[{n}, {t}]", (n, 1 + steps + t))
        if t == steps or paths.ended[n, t]:
            continue
        arrays["rewards"][n, t] = symbols.input(f"rewards[{n}, {t}]", (n, 1 + t))
        s, a = int(paths.states[n, t]), int(paths.actions[n, t])
        taken = symbols.logarithm((n, t) if by_time else (s, a))
        arrays["behaviour_log_probs"][n, t] = taken
        arrays["log_probs"][n, t] = taken + symbols.leaf((n, t, -1))
        for b in range(n_actions):
            logarithm = symbols.logarithm((n, t, b) if by_time else (s, b))
            arrays["log_policy"][n, t, b] = logarithm + symbols.leaf((n, t, b))
    tensors: dict[str, Any] = {
        name: ExactTensor(array, torch.float64, {name}, f"record.{name}")
        for name, array in arrays.items()
    }
    whole = {"states": paths.states, "actions": paths.actions, "alive": ~paths.ended[:, :-1]}
    for name, array in whole.items():
        dtype = torch.bool if name == "alive" else torch.int64
        tensors[name] = ExactTensor(array.copy(), dtype, {name}, f"record.{name}")
    gamma = symbol(symbols.new("discount"), symbols.order)
    scalar = objects_scalar(gamma)
    return Record(**tensors, discount=scalar, meta=MappingProxyType({}))


def objects_scalar(number: Any) -> Any:
    """A number as the float that a program reads as its record's discount."""
    return ExactScalar(np.asarray(number, dtype=object), torch.float64, {"discount"}, "a float")


def interpret(
    function: Callable[[Record], Any],
    name: str,
    paths: Paths,
    n_actions: int,
    order: int,
    *,
    by_time: bool = False,
) -> Reading:
    """The derivatives of a surrogate on one batch of the paths.

    Raises:
        UnfitError: an operation was refused, or the derivatives depend on the policy or are not
            affine in rewards and critic.
        SurrogateError: the program raises an error of its own, or its result is no float64 scalar.
    """
    trace = Trace()
    symbols = _Symbols(trace, order)
    try:
        with double_by_default(), trace.running():
            result = function(_record(symbols, paths, n_actions, by_time=by_time))
    except Exception as error:
        if trace.refusals:
            raise unfit(name, trace.refusals[0]) from None
        raise SurrogateError(f"surrogate {name}: {located(error)}") from None
    _check(name, trace)
    if not isinstance(result, ExactTensor) or result.ndim or result.dtype != torch.float64:
        raise SurrogateError(
            f"surrogate {name}: expected a scalar float64 tensor that depends on its record"
        )
    terms = _terms(name, result.array[()], symbols)
    return Reading(
        terms, result.sources | trace.control, trace.operations, trace.casts, trace.errors
    )


def _check(name: str, trace: Trace) -> None:
    """Raises UnfitError for what a program did beside its result, even if it caught the errors."""
    if trace.refusals:
        raise unfit(name, trace.refusals[0])
    if trace.outside.calls:
        raise unfit(name, f"asks for more than its record: {trace.outside.calls}")
    for error, file, line in trace.errors:
        if error == OWN_DERIVATIVE:
            raise unfit(name, f"has a derivative of its own ({file}, line {line})")


def _terms(name: str, number: Any, symbols: _Symbols) -> Terms:
    """The derivatives in the leaves: coefficients of infinitesimals, times their factorials."""
    terms: Terms = defaultdict(dict)
    if not isinstance(number, Polynomial):
        return terms
    for part in number.parts[1:]:
        for monomial, coefficient in part.items():
            visits, at, degree = _split(name, monomial, symbols)
            scale = prod(factorial(c) for c in Counter(visits).values())
            for order in set(permutations(visits)):
                powers = terms[order, at]
                powers[degree] = powers.get(degree, Fraction(0)) + Fraction(coefficient) * scale
    return terms


def _split(name: str, monomial: int, symbols: _Symbols) -> tuple[tuple[Visit, ...], Input, int]:
    """A monomial's visits, its input and its power of the discount."""
    visits: list[Visit] = []
    inputs: list[tuple[Input, int]] = []
    degree = 0
    for index, exponent in exponents(monomial):
        if index in symbols.visits:
            visits += [symbols.visits[index]] * exponent
        elif index in symbols.inputs:
            inputs.append((symbols.inputs[index], exponent))
        elif symbols.trace.symbols[index] == "discount":
            degree = exponent
        else:
            raise unfit(name, "its derivatives depend on the policy at which the actions are drawn")
    if sum(exponent for _, exponent in inputs) > 1:
        term = " ".join(
            symbols.trace.symbols[i] + (f"^{e}" if e > 1 else "")
            for i, e in exponents(monomial)
            if i in symbols.inputs
        )
        raise unfit(name, f"its derivatives are not affine in rewards and critic ({term})")
    return tuple(visits), inputs[0][0] if inputs else (0, 0), degree


__all__ = ["Reading", "Refusal", "Terms", "UnfitError", "interpret", "unfit"]
