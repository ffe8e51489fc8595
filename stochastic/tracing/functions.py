"""Calls of torch's Python interface that no ATen operation shows: numbers that leave a tensor,
tensors that are made of numbers, and derivatives that a program takes itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from gradbias.stochastic.tracing.polynomials import is_fixed
from gradbias.stochastic.tracing.tensors import (
    ExactScalar,
    ExactTensor,
    exact_array,
    objects_of,
)

_NUMBERS = ("tolist", "numpy", "__array__", "__repr__", "__format__", "__str__", "__deepcopy__")
_MEMORY = (
    *("data_ptr", "storage", "untyped_storage", "_typed_storage", "__dlpack__", "__reduce_ex__"),
    *("share_memory_", "set_", "resize_", "numpy", "_make_subclass", "as_subclass"),
)
_DERIVATIVES = (
    *("grad", "backward", "register_hook", "register_post_accumulate_grad_hook", "retain_grad"),
    *("requires_grad_", "checkpoint"),
)
_MAKERS = ("tensor", "as_tensor", "asarray", "scalar_tensor")
_FILLERS = ("full", "full_like", "new_full")
_ATTRIBUTES = {
    torch.Tensor.grad_fn: "grad_fn",
    torch.Tensor.grad: "grad",
    torch.Tensor.requires_grad: "requires_grad",
    torch.Tensor.is_leaf: "is_leaf",
    torch.Tensor._version: "_version",
}


class Functions(TorchFunctionMode):
    """Watches torch's functions and methods on behalf of a trace."""

    def __init__(self, trace: Any) -> None:
        super().__init__()
        self._trace = trace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls one function."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self._attribute(func, args)
        first = args[0] if args else None
        if name in _MAKERS and not isinstance(func, torch._ops.OpOverload):
            made = self._made(args, kwargs)
            if made is not None:
                return made
        if name in _FILLERS and type(args[-1]) is ExactScalar:
            return self._filled(name, args, kwargs)
        if name in _DERIVATIVES:
            raise self._trace.refusal(f"torch.{name}", _sources(first), "is taken by the program")
        if isinstance(first, ExactTensor):
            if name in ("__set__", "__delete__"):
                raise self._trace.refusal("assignment to an attribute", first.sources)
            if name in _NUMBERS and not first.is_symbolic:
                self._trace.control |= first.sources
                with _disable_current_modes():
                    return func(first.plain(), *args[1:], **kwargs)
            if name in _NUMBERS or name in _MEMORY:
                raise self._trace.refusal(name, first.sources)
        return func(*args, **kwargs)

    def _attribute(self, func: Any, args: Any) -> Any:
        """An attribute of a tensor."""
        name = next((n for d, n in _ATTRIBUTES.items() if func.__self__ is d), "")
        tensor = args[0]
        if name == "requires_grad" and isinstance(tensor, ExactTensor):
            return not all(map(is_fixed, tensor.objects.flat))
        if name and isinstance(tensor, ExactTensor):
            raise self._trace.refusal(f"Tensor.{name}", tensor.sources)
        return func(*args)

    def _made(self, args: Any, kwargs: dict[str, Any]) -> Any:
        """A tensor made of numbers of which some are exact; None if none is."""
        data = args[0] if args else kwargs.get("data", kwargs.get("obj"))
        if isinstance(data, ExactTensor) and type(data) is not ExactScalar:
            return None
        entries = _nested(data)
        if not any(isinstance(entry, ExactTensor) for entry in entries.flat):
            return None
        sources = _sources(list(entries.flat))
        array = np.empty(entries.shape, dtype=object)
        for index, entry in np.ndenumerate(entries):
            if isinstance(entry, ExactTensor) and type(entry) is not ExactScalar:
                raise self._trace.refusal("torch.tensor", sources, "reads tensors as numbers")
            array[index] = objects_of(entry)[()]
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        if not dtype.is_floating_point:
            raise self._trace.refusal("torch.tensor", sources, "rounds")
        return ExactTensor(array, dtype, sources)

    def _filled(self, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        """A tensor filled with an exact number."""
        shape = args[0].shape if name == "full_like" else args[name == "new_full"]
        like = args[0] if isinstance(args[0], torch.Tensor) else None
        dtype = kwargs.get("dtype") or (like.dtype if like is not None else None)
        array = np.full(tuple(shape), None, dtype=object)
        array[...] = objects_of(args[-1])
        return ExactTensor(array, dtype or torch.get_default_dtype(), {"discount"})


def _nested(data: Any) -> Any:
    """Nested lists of numbers as an array of objects; tensors in them are entries."""
    if isinstance(data, np.ndarray):
        return data if data.dtype == object else exact_array(data)
    if isinstance(data, list | tuple):
        parts = [_nested(part) for part in data]
        if not parts or any(part.shape != parts[0].shape for part in parts):
            return np.empty(0, dtype=object)
        array = np.empty((len(parts), *parts[0].shape), dtype=object)
        for i, part in enumerate(parts):
            array[i] = part if part.ndim else part[()]
        return array
    array = np.empty((), dtype=object)
    array[()] = data
    return array


def _sources(value: Any) -> set[str]:
    values = value if isinstance(value, list | tuple) else [value]
    return set().union(*(v.sources for v in values if isinstance(v, ExactTensor)))
