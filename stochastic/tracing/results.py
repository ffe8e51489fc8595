"""Operations' names, arguments and results: what `trace` and its handlers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gradbias.stochastic.tracing.tensors import ExactTensor, wrapped

BRANCHING = frozenset(
    (
        *("eq", "ne", "lt", "le", "gt", "ge", "equal", "isclose", "allclose", "isin", "isnan"),
        *("abs", "sign", "round", "floor", "ceil", "trunc", "frac", "fmod", "remainder", "relu"),
        *("max", "min", "amax", "amin", "argmax", "argmin", "sort", "argsort", "topk", "median"),
        *("any", "all", "nonzero", "count_nonzero", "_unique2", "unique_consecutive", "mode"),
        *("heaviside", "bucketize", "searchsorted", "histc", "nan_to_num", "copysign", "cummax"),
        *("clamp", "_local_scalar_dense", "is_nonzero", "hardtanh", "leaky_relu", "threshold"),
    )
)
"""Operations whose results jump or bend with the values of their inputs."""

SPOKEN = {"_local_scalar_dense": "item", "_to_copy": "to", "_unique2": "unique"}
"""The names by which programs know operations."""

READING = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
"""The tags of operations whose results show values outside of tensors, or as a shape."""

UNREAD = ("zeros_like", "ones_like", "empty_like", "new_zeros", "new_ones", "new_empty")
"""Operations that look at a tensor's shape alone."""


@dataclass(frozen=True, eq=False)
class Result:
    """The entries of a result, their dtype, and whether they are a view of the argument."""

    array: Any
    dtype: torch.dtype
    is_view: bool = False


def computed(array: Any, *operands: Any, dtype: torch.dtype | None = None) -> Result:
    """A new array of objects, with the dtype that torch gives to a result of these operands."""
    return Result(np.asarray(array, dtype=object), dtype or promoted(*operands))


def promoted(*operands: Any) -> torch.dtype:
    """The floating-point dtype of a result: that of tensors with axes, else of those without,
    else the default.
    """
    with_axes = [t.dtype for t in operands if isinstance(t, ExactTensor) and t.ndim]
    without = [t.dtype for t in operands if isinstance(t, ExactTensor) and not t.ndim]
    for group in (with_axes, without):
        floats = [d for d in group if d.is_floating_point]
        if floats:
            result = floats[0]
            for other in floats[1:]:
                result = torch.promote_types(result, other)
            return result
    return torch.get_default_dtype()


def axes_of(dim: Any, ndim: int) -> tuple[int, ...]:
    """The axes that a dimension argument of torch names; all of them for None or []."""
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return tuple(range(ndim))
    dims = dim if isinstance(dim, list | tuple) else [dim]
    return tuple(d % ndim if ndim else 0 for d in dims)


def unwritten(shape: Any, options: dict[str, Any]) -> ExactTensor:
    """A new tensor that nothing was written to: its entries are None, with which nothing can be
    computed.
    """
    dtype = options.get("dtype") or torch.get_default_dtype()
    if not dtype.is_floating_point:
        return wrapped(torch.zeros(shape, dtype=dtype), set())
    return ExactTensor(np.full(tuple(shape), None, dtype=object), dtype, set())


def mapped(function: Any, value: Any) -> Any:
    """Nested tuples, lists and dictionaries, with a function applied to what they hold."""
    if isinstance(value, tuple | list):
        return type(value)(mapped(function, part) for part in value)
    if isinstance(value, dict):
        return {key: mapped(function, part) for key, part in value.items()}
    return function(value)


def tensors_of(value: Any) -> list[torch.Tensor]:
    """The tensors in nested arguments."""
    found: list[torch.Tensor] = []
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, torch.Tensor):
            found.append(part)
        elif isinstance(part, tuple | list):
            pending.extend(part)
        elif isinstance(part, dict):
            pending.extend(part.values())
    return found


def has_floats(tensors: list[torch.Tensor]) -> bool:
    """Whether one of the tensors has a floating-point dtype."""
    return any(tensor.dtype.is_floating_point for tensor in tensors)
