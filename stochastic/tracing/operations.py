"""The tensor operations that a program executes, each with the line of the program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gradbias.stochastic.tracing.results import tensors_of
from gradbias.stochastic.tracing.source_lines import program_line


@dataclass(frozen=True)
class Operation:
    """One call of an ATen operation.

    Attributes:
        name: the operation's name in ATen, without its overload; ``add_`` is in place.
        dtypes: those of its tensor arguments and of its results.
        file: the file of the program that called it.
        line: the line in that file.
    """

    name: str
    dtypes: tuple[torch.dtype, ...]
    file: str
    line: int


class OperationMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which `__torch_dispatch__` sees all operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keeps torch's compiler, which takes seconds to import, out of this."""
        return False


class OperationLog(OperationMode):
    """Notes each operation that is executed under it, in ``operations``."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Executes one operation and notes it."""
        result = func(*args, **(kwargs or {}))
        dtypes = tuple(tensor.dtype for tensor in tensors_of((args, kwargs, result)))
        name, place = func.overloadpacket.__name__, program_line()
        self.operations.append(Operation(name, dtypes, *place))
        return result
