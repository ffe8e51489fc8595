"""What makes a surrogate's numbers inexact: dtypes of few digits, and small constants that guard a
division, such as 1e-8 in ``ratio / (spread + 1e-8)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradbias.stochastic.derivatives.coefficients import SurrogateCall
from gradbias.stochastic.rollouts.records import Tensors
from gradbias.stochastic.tracing.operations import OperationLog, OperationMode
from gradbias.stochastic.tracing.source_lines import program_line

MAX_GUARD = 1e-4
"""The largest constant that is taken for a guard."""

_GUARDED = ("add", "add_", "sub", "sub_", "rsub", "clamp", "clamp_", "clamp_min", "clamp_min_")


@dataclass(frozen=True)
class Imprecision:
    """How exact a program's numbers are.

    Attributes:
        rounding: the relative rounding error of its coarsest floating-point numbers.
        coarsest: their dtype and the line where they first appear; empty for float64.
        guards: the small constants that it adds or clamps to, each with its line.
    """

    rounding: float = torch.finfo(torch.float64).eps
    coarsest: str = ""
    guards: tuple[str, ...] = ()


PRECISE = Imprecision()


def imprecision_of(call: SurrogateCall, tensors: Tensors) -> Imprecision:
    """The imprecision that shows when a surrogate is executed on records ``tensors [B, ...]``."""
    found: dict[torch.dtype, str] = {}
    with GuardScaling(1.0) as guards, OperationLog() as log:
        for b in range(len(tensors["log_probs"])):
            # Copies, since a surrogate that changes its record is not refused before `probe`.
            call({name: tensor[b].detach().clone() for name, tensor in tensors.items()})
    for operation in log.operations:
        for dtype in operation.dtypes:
            if dtype.is_floating_point:
                found.setdefault(dtype, _place(operation.file, operation.line))
    if not found:
        return PRECISE
    coarsest = max(found, key=lambda dtype: torch.finfo(dtype).eps)
    rounding = torch.finfo(coarsest).eps
    if rounding <= PRECISE.rounding:
        return Imprecision(guards=tuple(guards.places))
    name = str(coarsest).removeprefix("torch.")
    return Imprecision(rounding, f"{name}, {found[coarsest]}", tuple(guards.places))


class GuardScaling(OperationMode):
    """Multiplies each guard of the programs that are executed under it by ``factor``.

    A bias that a guard causes grows in proportion; any other stays as it is.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor
        self.places: dict[str, None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Executes one operation, with its guard scaled if it has one."""
        if func.overloadpacket.__name__ in _GUARDED and len(args) > 1 and _is_guard(*args[:2]):
            self.places[f"{args[1]:g}, {_place(*program_line())}"] = None
            args = (args[0], self._factor * args[1], *args[2:])
        return func(*args, **(kwargs or {}))


def _is_guard(tensor: Any, constant: Any) -> bool:
    if not isinstance(constant, float) or not 0.0 < abs(constant) <= MAX_GUARD:
        return False
    return isinstance(tensor, Tensor) and tensor.dtype.is_floating_point


def _place(file: str, line: int) -> str:
    return f"{Path(file).name} line {line}"
