"""The exact execution of a program: each tensor operation on numbers without rounding.

A `Trace` runs the operations of `arithmetic` and `shapes` on tensors of polynomials. An operation
that would read the value of a symbol, or that has no exact result, is refused: the refusal is noted
with the program's line before it is raised, so that a program that catches it gains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from gradbias.stochastic.tracing.arithmetic import ARITHMETIC
from gradbias.stochastic.tracing.functions import Functions
from gradbias.stochastic.tracing.operations import OperationMode
from gradbias.stochastic.tracing.polynomials import (
    InexactError,
    Number,
    fixed,
    inverse,
    is_fixed,
    is_plain,
    power,
)
from gradbias.stochastic.tracing.reachable_state import (
    Unwatched,
    Watched,
    errors_raised,
    outside_calls,
)
from gradbias.stochastic.tracing.results import (
    BRANCHING,
    READING,
    SPOKEN,
    UNREAD,
    has_floats,
    mapped,
    tensors_of,
    unwritten,
)
from gradbias.stochastic.tracing.shapes import SHAPES
from gradbias.stochastic.tracing.source_lines import program_line
from gradbias.stochastic.tracing.tensors import (
    ACTIVE,
    SYMBOLIC,
    ExactScalar,
    ExactTensor,
    exact,
    wrapped,
)


@dataclass(frozen=True)
class Refusal:
    """What was refused: the operation, the reason, and the program's line."""

    operation: str
    reason: str
    file: str
    line: int

    def __str__(self) -> str:
        where = f" ({self.file}, line {self.line})" if self.file else ""
        return f"{self.operation} {self.reason}{where}"


class RefusedError(ValueError):
    """An operation of the program was refused."""


_FIXED = np.frompyfunc(fixed, 1, 1)


@dataclass(eq=False)
class Trace:
    """One exact execution.

    Attributes:
        symbols: the names of the symbols, by index.
        invertible: the symbols that are probabilities, which are not 0.
        exponential_of: for a log-probability's symbol that of its exponential.
        refusals: what was refused, in order.
        control: the concrete inputs whose values the program read outside of tensors.
        operations: name, file and line of every operation, and whether it has floats.
        casts: the lines of casts to fewer digits.
        errors: name, file and line of every error that was raised, caught or not.
        outside: what the program asked of the world outside.
    """

    symbols: list[str] = field(default_factory=list)
    invertible: set[int] = field(default_factory=set)
    exponential_of: dict[int, int] = field(default_factory=dict)
    logarithm_of: dict[int, int] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    control: set[str] = field(default_factory=set)
    operations: list[tuple[str, str, int, bool]] = field(default_factory=list)
    casts: list[tuple[str, int]] = field(default_factory=list)
    errors: list[tuple[str, str, int]] = field(default_factory=list)
    outside: Watched = field(default_factory=Watched)

    def refusal(self, operation: str, sources: set[str], reason: str = "") -> RefusedError:
        """An error for an operation on what was computed from ``sources``; it is noted first."""
        operation = SPOKEN.get(operation, operation)
        names = ", ".join(f"record.{name}" for name in sorted(sources & SYMBOLIC))
        text = reason or "depends on the values of its input"
        if names:
            text += f", computed from {names}"
        noted = Refusal(operation, text, *program_line())
        self.refusals.append(noted)
        return RefusedError(str(noted))

    @contextmanager
    def running(self) -> Iterator[None]:
        """A context in which torch's operations are executed by this trace."""
        ACTIVE.append(self)
        try:
            with (
                _Operations(self),
                Functions(self),
                errors_raised() as self.errors,
                outside_calls() as self.outside,
            ):
                yield
        finally:
            ACTIVE.pop()

    def computed(self, name: str, scalar: ExactScalar, other: Any) -> ExactScalar:
        """The result of one of Python's operators on an `ExactScalar`."""
        try:
            number = _python(name.strip("_"), exact(scalar), exact(other), self)
        except InexactError as error:
            raise self.refusal(name.strip("_"), {"discount"}, f"is {error}") from None
        return ExactScalar(np.asarray(number, dtype=object), torch.float64, {"discount"}, "a float")

    def execute(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The result of one ATen operation."""
        with Unwatched():
            name, place = func.overloadpacket.__name__, program_line()
            if not all(isinstance(t, ExactTensor) for t in tensors_of((args, kwargs))):
                args, kwargs = _converted(args), _converted(kwargs)
            tensors: Any = tensors_of((args, kwargs))
            sources: set[str] = set()
            if name not in UNREAD:
                sources = sources.union(*(tensor.sources for tensor in tensors))
            if any(tensor.owner is not self and tensor.is_symbolic for tensor in tensors):
                raise self.refusal(name, sources, "uses a tensor that was kept from another call")
            try:
                with torch._C.DisableTorchFunction():
                    result = self._execute(func, name, args, kwargs, sources)
            except RefusedError:
                raise
            except InexactError as error:
                raise self.refusal(name, sources, f"is {error}") from None
            except Exception as error:
                text = f"raised {type(error).__name__} on symbols: {str(error)[:100]}"
                raise self.refusal(name, sources, text) from error
            floats = has_floats(tensors) or has_floats(tensors_of(result))
            self.operations.append((name, *place, floats))
            return result

    def _execute(
        self, func: Any, name: str, args: Any, kwargs: dict[str, Any], sources: set[str]
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise self.refusal(name, sources, "draws random numbers")
        symbolic = not SYMBOLIC.isdisjoint(sources)
        if any(tag in func.tags for tag in READING):
            self.control |= sources
        if func._schema.is_mutable:
            return self._in_place(func, name, args, kwargs, sources)
        if name in ("empty", "empty_strided", "empty_permuted"):
            return unwritten(args[0], kwargs)
        handler = SHAPES.get(name) or ARITHMETIC.get(name)
        if handler is None or not has_floats(tensors_of((args, kwargs))):
            if symbolic:
                return self._decomposed(func, name, args, kwargs, sources)
            plain = self._plain(func, args, kwargs, sources)
            if handler is None or not has_floats(tensors_of(plain)) or not tensors_of(args):
                return plain
        try:
            result = handler(self, *args, **kwargs)
        except InexactError:
            if symbolic:
                raise
            return self._plain(func, args, kwargs, sources)  # a constant, as floats compute it
        return self._finished(result, name, sources, args)

    def _decomposed(
        self, func: Any, name: str, args: Any, kwargs: dict[str, Any], sources: set[str]
    ) -> Any:
        """The operation as others that it consists of; refused if it consists of none."""
        result = func.decompose(*args, **kwargs)
        if result is NotImplemented:
            known = "" if name in BRANCHING else "is no operation that is read exactly"
            raise self.refusal(name, sources, known)
        return result

    def _plain(self, func: Any, args: Any, kwargs: dict[str, Any], sources: set[str]) -> Any:
        """The operation on ordinary tensors: on what is known, all operations are allowed."""

        def lowered(value: Any) -> Any:
            return value.plain() if isinstance(value, ExactTensor) else value

        with torch.no_grad():
            result = func(*mapped(lowered, args), **mapped(lowered, kwargs))

        def raised(value: Any) -> Any:
            return wrapped(value, set(sources)) if isinstance(value, torch.Tensor) else value

        return mapped(raised, result)

    def _in_place(
        self, func: Any, name: str, args: Any, kwargs: dict[str, Any], sources: set[str]
    ) -> Any:
        """An operation that changes its first argument."""
        target = args[0]
        if name == "detach_":
            target.array[...] = _FIXED(target.array)
            return target
        if "out" in kwargs or not isinstance(target, ExactTensor) or not name.endswith("_"):
            raise self.refusal(name, sources, "has an output argument")
        if target.frozen:
            raise self.refusal(name, sources, f"changes {target.frozen} in place")
        if not torch.is_grad_enabled() and not all(map(is_fixed, target.objects.flat)):
            raise self.refusal(name, sources, "changes what has a derivative, under no_grad")
        handler = SHAPES.get(name[:-1]) or ARITHMETIC.get(name[:-1])
        if target.dtype.is_floating_point and handler is not None:
            result = handler(self, *args, **kwargs)
            array = np.broadcast_to(result.array, target.array.shape)
            target.array[...] = array if torch.is_grad_enabled() else _FIXED(array)
        elif not SYMBOLIC.isdisjoint(sources):
            raise self.refusal(name, sources)
        else:
            changed = self._plain(func, (_copy(target), *args[1:]), kwargs, sources)
            target.array[...] = changed.array
        target.sources.update(sources)
        return target

    def _finished(self, result: Any, name: str, sources: set[str], args: Any) -> Any:
        """A handler's result as tensors: without infinitesimals if gradients are disabled."""
        if isinstance(result, list):
            return [self._finished(part, name, sources, args) for part in result]
        if isinstance(result, ExactTensor):
            return result
        array, dtype = result.array, result.dtype
        owner = args[0] if result.is_view else None
        shared = owner.sources if owner is not None else set(sources)
        frozen = owner.frozen if owner is not None else ""
        detached = not torch.is_grad_enabled() and array.dtype == object
        if detached and not all(map(is_fixed, array.flat)):
            array = np.asarray(_FIXED(array), dtype=object)
            frozen = frozen or "a tensor whose memory others share"
        return ExactTensor(array, dtype, shared, frozen)

    def check_cast(self, tensor: ExactTensor, target: torch.dtype) -> None:
        """Notes a cast of constants to fewer digits. Raises RefusedError for one of symbols."""
        source = tensor.dtype
        if not (source.is_floating_point and target.is_floating_point):
            return
        if torch.finfo(target).eps > torch.finfo(source).eps:
            if tensor.is_symbolic:
                raise self.refusal("to", tensor.sources, f"rounds to {target}")
            self.casts.append(program_line())


class _Operations(OperationMode):
    """Hands all operations to a trace, those without exact tensors too."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Executes one operation."""
        return self._trace.execute(func, args, kwargs or {})


def _python(name: str, one: Number, other: Number, trace: Trace) -> Number:
    """One of Python's arithmetic operators."""
    if name.startswith("r") and name != "r":
        one, other, name = other, one, name[1:]
    if name == "pow":
        if not is_plain(other) or Fraction(other).denominator != 1:
            raise InexactError("a power whose exponent is no integer")
        return power(one, int(other), frozenset(trace.invertible))
    if name == "truediv":
        return one * inverse(other, frozenset(trace.invertible))
    results = {"add": lambda: one + other, "sub": lambda: one - other, "mul": lambda: one * other}
    results |= {"neg": lambda: -one, "pos": lambda: one}
    return results[name]()


def _converted(value: Any) -> Any:
    """The arguments with ordinary tensors replaced by exact ones."""

    def convert(part: Any) -> Any:
        if isinstance(part, torch.Tensor) and not isinstance(part, ExactTensor):
            tensor = wrapped(part, set())
            tensor.frozen = "a tensor that is not the program's own"
            return tensor
        return part

    return mapped(convert, value)


def _copy(tensor: ExactTensor) -> ExactTensor:
    return ExactTensor(tensor.array.copy(), tensor.dtype, tensor.sources)
