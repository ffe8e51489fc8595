"""What the handlers of operations return, and the dtypes of their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gradbias.stochastic.tracing.tensors import ExactTensor


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
