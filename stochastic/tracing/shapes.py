"""Operations that move entries: views, indexing, copies, and tensors that are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gradbias.stochastic.tracing.polynomials import InexactError, fixed, is_fixed, is_plain
from gradbias.stochastic.tracing.results import Result
from gradbias.stochastic.tracing.tensors import ExactTensor, exact, exact_array, objects_of

_FIXED = np.frompyfunc(fixed, 1, 1)


def _view(compute: Callable[..., Any]) -> Callable[..., Result]:
    """A handler of an operation whose result shares memory with its argument."""

    def handler(trace: Any, x: Any, *args: Any, **kwargs: Any) -> Result:
        array = compute(x.array, *args, **kwargs)
        return Result(array, x.dtype, is_view=bool(np.may_share_memory(array, x.array)))

    return handler


def _moved(compute: Callable[..., Any]) -> Callable[..., Result]:
    """A handler of an operation whose result is a copy."""

    def handler(trace: Any, x: Any, *args: Any, **kwargs: Any) -> Result:
        return Result(np.array(compute(x.objects, *args, **kwargs), dtype=object), x.dtype)

    return handler


def _axis(dim: int, ndim: int) -> int:
    return dim % ndim if ndim else 0


def _slice(a: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    index: list[Any] = [slice(None)] * a.ndim
    index[_axis(dim, a.ndim)] = slice(start, end, step)
    return a[tuple(index)]


def _select(a: Any, dim: int, index: int) -> Any:
    place: list[Any] = [slice(None)] * a.ndim
    place[_axis(dim, a.ndim)] = int(index)
    # The ellipsis keeps a view where all axes are selected.
    return a[(*place, ...)]


def _expand(a: Any, size: Any, implicit: bool = False) -> Any:
    extra = len(size) - a.ndim
    shape = [a.shape[i - extra] if s == -1 else s for i, s in enumerate(size)]
    return np.broadcast_to(a, shape)


def _permute(a: Any, dims: Any) -> Any:
    return np.transpose(a, [d % a.ndim for d in dims] if a.ndim else None)


def _transpose(a: Any, one: int = -2, other: int = -1) -> Any:
    return np.swapaxes(a, one, other) if a.ndim > 1 else a.view()


def _squeeze(a: Any, dim: Any = None) -> Any:
    dims = range(a.ndim) if dim is None else (dim if isinstance(dim, list | tuple) else [dim])
    axes = {_axis(d, a.ndim) for d in dims}
    shape = [s for i, s in enumerate(a.shape) if not (i in axes and s == 1)]
    return a.reshape(shape)


def _unsqueeze(a: Any, dim: int) -> Any:
    return np.expand_dims(a, dim)


def _diagonal(a: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    return np.diagonal(a, offset, dim1, dim2)


def _narrow(a: Any, dim: int, start: Any, length: int) -> Any:
    return _slice(a, dim, int(start), int(start) + length)


def _detach(trace: Any, x: Any) -> Result | ExactTensor:
    if all(map(is_fixed, x.objects.flat)):
        return Result(x.array.view(), x.dtype, is_view=True)
    array = np.asarray(_FIXED(x.array), dtype=object)
    return ExactTensor(array, x.dtype, set(x.sources), "a tensor that `detach` or `.data` gave")


def _fresh(trace: Any, x: Any) -> Result:
    return Result(x.array.copy(), x.dtype)


def _parts(trace: Any, x: Any, size: Any, dim: int = 0) -> list[Result]:
    length = x.shape[dim]
    sizes = size if isinstance(size, list | tuple) else [size] * (-(-length // size))
    ends = np.minimum(np.cumsum(sizes), length).tolist()
    starts = [0, *ends[:-1]]
    return [_VIEWS["slice"](trace, x, dim, b, e) for b, e in zip(starts, ends, strict=True)]


def _chunk(trace: Any, x: Any, chunks: int, dim: int = 0) -> list[Result]:
    return _parts(trace, x, -(-x.shape[dim] // chunks), dim)


def _unbind(trace: Any, x: Any, dim: int = 0) -> list[Result]:
    return [_VIEWS["select"](trace, x, dim, i) for i in range(x.shape[dim])]


def _joined(tensors: Any) -> torch.dtype:
    dtype: torch.dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _cat(trace: Any, tensors: Any, dim: int = 0) -> Result:
    # torch lets empty tensors of one axis stand beside any others.
    parts = [t.objects for t in tensors if t.shape != (0,)] or [tensors[0].objects]
    return Result(np.concatenate(parts, axis=dim), _joined(tensors))


def _stack(trace: Any, tensors: Any, dim: int = 0) -> Result:
    return Result(np.stack([t.objects for t in tensors], axis=dim), _joined(tensors))


def _places(indices: Any) -> tuple[Any, ...]:
    """The index that numpy needs for a list of index tensors, of which some are None.

    Where the tensors do not stand side by side, both put the indexed axes first.
    """
    if any(i is not None and i.array.dtype == object for i in indices):
        raise InexactError("an index that is no integer")
    return tuple(slice(None) if i is None else i.array for i in indices)


def _index(trace: Any, x: Any, indices: Any) -> Result:
    return Result(np.array(x.objects[_places(indices)], dtype=object), x.dtype)


def _index_put(trace: Any, x: Any, indices: Any, values: Any, accumulate: bool = False) -> Result:
    array = x.objects.copy()
    if accumulate:
        np.add.at(array, _places(indices), values.objects)
    else:
        array[_places(indices)] = values.objects
    return Result(array, x.dtype)


def _gather(trace: Any, x: Any, dim: int, index: Any, sparse_grad: bool = False) -> Result:
    return Result(x.objects[_grid(dim, index)], x.dtype)


def _grid(dim: int, index: Any) -> tuple[Any, ...]:
    """The index that numpy needs for torch's gather and scatter."""
    grid: list[Any] = list(np.indices(index.shape, sparse=True))
    grid[_axis(dim, index.ndim)] = index.array
    return tuple(grid)


def _scatter(trace: Any, x: Any, dim: int, index: Any, source: Any, **options: Any) -> Result:
    if options:
        raise InexactError("a reduction")
    array = x.objects.copy()
    array[_grid(dim, index)] = _part(source, index)
    return Result(array, x.dtype)


def _scatter_add(trace: Any, x: Any, dim: int, index: Any, source: Any) -> Result:
    array = x.objects.copy()
    np.add.at(array, _grid(dim, index), _part(source, index))
    return Result(array, x.dtype)


def _part(source: Any, index: Any) -> Any:
    """The entries that a scatter uses: as many as there are indices."""
    if not isinstance(source, ExactTensor) or not source.ndim:
        return objects_of(source)
    return source.objects[tuple(slice(s) for s in index.shape)]


def _index_select(trace: Any, x: Any, dim: int, index: Any) -> Result:
    return Result(np.take(x.objects, index.array, axis=dim), x.dtype)


def _take(trace: Any, x: Any, index: Any) -> Result:
    return Result(np.take(x.objects, index.array), x.dtype)


def _roll(a: Any, shifts: Any, dims: Any = ()) -> Any:
    if not dims:
        return np.roll(a.ravel(), shifts).reshape(a.shape)
    return np.roll(a, tuple(shifts), tuple(dims))


def _flip(a: Any, dims: Any) -> Any:
    return np.flip(a, tuple(dims))


def _triangle(keep: Callable[..., Any]) -> Callable[..., Any]:
    def compute(a: Any, diagonal: int = 0) -> Any:
        return np.where(keep(np.ones(a.shape[-2:], dtype=bool), diagonal), a, 0)

    return compute


def _pad(a: Any, pad: Any, value: Any = 0) -> Any:
    if min(pad) < 0:
        raise InexactError("a padding below 0")
    widths = [(0, 0)] * (a.ndim - len(pad) // 2)
    widths += [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    return np.pad(a, widths, constant_values=exact(value))


def _repeat(a: Any, repeats: Any) -> Any:
    return np.tile(a, tuple(repeats))


def _cast(trace: Any, x: Any, *args: Any, dtype: Any = None, copy: Any = None, **_: Any) -> Result:
    target = dtype or next((a for a in args if isinstance(a, torch.dtype)), x.dtype)
    if target.is_floating_point and (x.is_symbolic or not x.dtype.is_floating_point):
        trace.check_cast(x, target)
        return Result(x.objects.copy(), target)
    if target.is_floating_point:
        trace.check_cast(x, target)
        return Result(exact_array(x.plain().to(target).double().numpy()), target)
    if not all(map(is_plain, x.array.flat)) or x.is_symbolic:
        raise InexactError("a cast to integers")
    return Result(x.plain().to(target).numpy(), target)


def _copied(trace: Any, x: Any, source: Any, non_blocking: bool = False) -> Result:
    trace.check_cast(source, x.dtype)
    return Result(np.broadcast_to(source.objects, x.shape), x.dtype)


def _like(number: Any) -> Callable[..., Result]:
    """A handler of a tensor that has an argument's shape, or a given one."""

    def handler(trace: Any, x: Any, *args: Any, dtype: Any = None, **_: Any) -> Result:
        rest = list(args)
        shape = tuple(rest.pop(0)) if rest and isinstance(rest[0], list | tuple) else x.shape
        entry = rest[0] if number == "given" else number
        array = np.empty(shape, dtype=object)
        array[...] = exact(entry)
        kind = dtype or x.dtype
        if kind.is_floating_point:
            return Result(array, kind)
        return Result(torch.full(shape, int(entry or 0), dtype=kind).numpy(), kind)

    return handler


def _filled(trace: Any, x: Any, value: Any) -> Result:
    return Result(objects_of(value), x.dtype)


def _zeroed(trace: Any, x: Any) -> Result:
    return Result(np.asarray(0, dtype=object), x.dtype)


_VIEWS: dict[str, Callable[..., Result]] = {
    "slice": _view(_slice),
    "select": _view(_select),
    "view": _view(lambda a, size: a.reshape(size)),
    "_unsafe_view": _view(lambda a, size: a.reshape(size)),
    "reshape": _view(lambda a, size: a.reshape(size)),
    "permute": _view(_permute),
    "transpose": _view(_transpose),
    "t": _view(_transpose),
    "expand": _view(_expand),
    "squeeze": _view(_squeeze),
    "unsqueeze": _view(_unsqueeze),
    "diagonal": _view(_diagonal),
    "narrow": _view(_narrow),
    "alias": _view(lambda a: a.view()),
}

SHAPES: dict[str, Callable[..., Any]] = _VIEWS | {
    "detach": _detach,
    "lift_fresh": _fresh,
    "clone": lambda trace, x, **_: _fresh(trace, x),
    "contiguous": lambda trace, x, **_: _fresh(trace, x),
    "split": _parts,
    "split_with_sizes": _parts,
    "chunk": _chunk,
    "unbind": _unbind,
    "cat": _cat,
    "stack": _stack,
    "index": _index,
    "index_put": _index_put,
    "gather": _gather,
    "scatter": _scatter,
    "scatter_add": _scatter_add,
    "index_select": _index_select,
    "take": _take,
    "flip": _moved(_flip),
    "roll": _moved(_roll),
    "tril": _moved(_triangle(np.tril)),
    "triu": _moved(_triangle(np.triu)),
    "constant_pad_nd": _moved(_pad),
    "repeat": _moved(_repeat),
    "_to_copy": _cast,
    "to": _cast,
    "copy": _copied,
    "fill": _filled,
    "zero": _zeroed,
    "zeros_like": _like(0),
    "ones_like": _like(1),
    "full_like": _like("given"),
    "empty_like": _like(None),
    "new_zeros": _like(0),
    "new_ones": _like(1),
    "new_full": _like("given"),
    "new_empty": _like(None),
}
"""Handlers by the names of ATen's operations."""
