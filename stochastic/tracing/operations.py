"""The tensor operations that a program executes, each with the line of the program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.tracing.source_lines import program_line

_SUMS = ("add", "add_", "sub", "sub_", "rsub")


@dataclass(frozen=True)
class Operation:
    """One call of an ATen operation.

    Attributes:
        name: the operation's name in ATen, without its overload; ``add_`` is in place.
        inputs: the dtypes of its tensor arguments.
        outputs: the dtypes of its results.
        scalars: its arguments that are numbers, in their order (dimensions and sizes are among
            them).
        file: the file of the program that called it.
        line: the line in that file.
    """

    name: str
    inputs: tuple[torch.dtype, ...]
    outputs: tuple[torch.dtype, ...]
    scalars: tuple[float, ...]
    file: str
    line: int

    @property
    def lowers_precision(self) -> bool:
        """Whether it turns floating-point numbers into ones with fewer digits, or into integers."""
        floats = [d for d in self.inputs if d.is_floating_point]
        if not floats or self.name not in ("_to_copy", "to", "copy_"):
            return False
        most = max(floats, key=_digits)
        return any(_digits(d) < _digits(most) for d in self.outputs if d != torch.bool)

    @property
    def added_constants(self) -> tuple[float, ...]:
        """The numbers that it adds or subtracts, such as 1e-8 in ``x + 1e-8``."""
        if self.name not in _SUMS or not any(d.is_floating_point for d in self.inputs):
            return ()
        return self.scalars[:1]


def _digits(dtype: torch.dtype) -> float:
    """The precision of a dtype, larger for more digits; 0 for integers."""
    return 1.0 / torch.finfo(dtype).eps if dtype.is_floating_point else 0.0


class OperationLog(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation that is executed under it, in ``operations``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keeps torch's compiler, which takes seconds to import, out of this."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Executes one operation and notes it."""
        result = func(*args, **(kwargs or {}))
        file, line = program_line()
        inputs = _leaves((args, kwargs or {}))
        operation = Operation(
            name=func.overloadpacket.__name__,
            inputs=tuple(x.dtype for x in inputs if isinstance(x, Tensor)),
            outputs=tuple(x.dtype for x in _leaves(result) if isinstance(x, Tensor)),
            scalars=tuple(x for x in inputs if _is_number(x)),
            file=file,
            line=line,
        )
        self.operations.append(operation)
        return result


def _leaves(value: Any) -> list[Any]:
    """All that stands in nested tuples, lists and dictionaries, in their order."""
    return list(_walk(value))


def _walk(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        for part in value:
            yield from _walk(part)
    else:
        yield value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def traced_operations(function: Callable[[Record], Any], record: Record) -> list[Operation]:
    """The tensor operations that a function executes on a record.

    A number that a Python expression computes from the record's discount is no tensor operation and
    stands in the list as a scalar only where it meets a tensor.

    Args:
        function: a surrogate, or any other function of a record.
        record: one replication, with float tensors.

    Returns:
        The operations, in the order of their calls.

    Raises:
        Exception: whatever the function raises.
    """
    log = OperationLog()
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with log:
            function(record)
    finally:
        torch.set_default_dtype(default)
    return log.operations
