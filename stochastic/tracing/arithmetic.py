"""Operations that compute: sums, products, powers, exponentials, and what selects by a condition.

A handler takes the trace and an ATen operation's arguments. One that needs the value of a symbol
raises InexactError or asks the trace for a refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from gradbias.stochastic.tracing.polynomials import (
    InexactError,
    Number,
    exponential,
    inverse,
    is_plain,
    logarithm,
    power,
    value,
)
from gradbias.stochastic.tracing.results import Result, axes_of, computed
from gradbias.stochastic.tracing.tensors import ExactTensor, exact, objects_of

_SEPARATED = Fraction(1, 1000)
"""A comparison of what cancels to a constant has to be decided by at least this much."""


def _each(function: Callable[..., Number], *arrays: Any) -> Any:
    """A function of numbers, applied to each entry."""
    return np.asarray(np.frompyfunc(function, len(arrays), 1)(*arrays), dtype=object)


def _add(trace: Any, x: Any, y: Any, alpha: Any = 1) -> Result:
    return computed(objects_of(x) + objects_of(y) * exact(alpha), x, y)


def _sub(trace: Any, x: Any, y: Any, alpha: Any = 1) -> Result:
    return computed(objects_of(x) - objects_of(y) * exact(alpha), x, y)


def _rsub(trace: Any, x: Any, y: Any, alpha: Any = 1) -> Result:
    return computed(objects_of(y) - objects_of(x) * exact(alpha), x, y)


def _mul(trace: Any, x: Any, y: Any) -> Result:
    return computed(objects_of(x) * objects_of(y), x, y)


def _reciprocals(trace: Any, array: Any) -> Any:
    invertible = frozenset(trace.invertible)
    return _each(lambda number: inverse(number, invertible), array)


def _div(trace: Any, x: Any, y: Any, rounding_mode: Any = None) -> Result:
    if rounding_mode is not None:
        raise InexactError("a rounded division")
    return computed(objects_of(x) * _reciprocals(trace, objects_of(y)), x, y)


def _neg(trace: Any, x: Any) -> Result:
    return computed(-x.objects, x)


def _reciprocal(trace: Any, x: Any) -> Result:
    return computed(_reciprocals(trace, x.objects), x)


def _square(trace: Any, x: Any) -> Result:
    return computed(x.objects * x.objects, x)


def _pow(trace: Any, x: Any, exponent: Any) -> Result:
    invertible = frozenset(trace.invertible)

    def raised(base: Number, number: Number) -> Number:
        if is_plain(number) and Fraction(number).denominator == 1:
            return power(base, int(number), invertible)
        if is_plain(number) and is_plain(base):
            root = exact(float(base) ** float(number))
            if is_plain(root):
                return root
        raise InexactError("a power whose exponent is no integer")

    return computed(_each(raised, objects_of(x), objects_of(exponent)), x, exponent)


def _exp(trace: Any, x: Any) -> Result:
    of = trace.exponential_of
    return computed(_each(lambda number: exponential(number, of), x.objects), x)


def _expm1(trace: Any, x: Any) -> Result:
    of = trace.exponential_of
    return computed(_each(lambda number: exponential(number, of) - 1, x.objects), x)


def _log(trace: Any, x: Any) -> Result:
    of = trace.logarithm_of
    return computed(_each(lambda number: logarithm(number, of), x.objects), x)


def _log1p(trace: Any, x: Any) -> Result:
    of = trace.logarithm_of
    return computed(_each(lambda number: logarithm(number + 1, of), x.objects), x)


def _addcmul(trace: Any, x: Any, y: Any, z: Any, value: Any = 1) -> Result:
    return computed(x.objects + objects_of(y) * objects_of(z) * exact(value), x, y, z)


def _addcdiv(trace: Any, x: Any, y: Any, z: Any, value: Any = 1) -> Result:
    quotients = objects_of(y) * _reciprocals(trace, objects_of(z))
    return computed(x.objects + quotients * exact(value), x, y, z)


def _lerp(trace: Any, x: Any, y: Any, weight: Any) -> Result:
    start, end = objects_of(x), objects_of(y)
    return computed(start + objects_of(weight) * (end - start), x, y)


def _where(trace: Any, condition: Any, x: Any, y: Any) -> Result:
    mask = _known(condition)
    return computed(np.where(mask, objects_of(x), objects_of(y)), x, y)


def _masked_fill(trace: Any, x: Any, mask: Any, value: Any) -> Result:
    return computed(np.where(_known(mask), objects_of(value), x.objects), x)


def _known(condition: ExactTensor) -> Any:
    """The entries of a condition, which is concrete: a comparison of symbols was refused."""
    if condition.dtype != torch.bool:
        raise InexactError("a condition that is no truth value")
    return condition.array


def _sum(
    trace: Any, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Result:
    total = x.objects.sum(axis=axes_of(dim, x.ndim), keepdims=keepdim)
    return computed(total, x, dtype=dtype)


def _mean(
    trace: Any, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Result:
    axes = axes_of(dim, x.ndim)
    count = int(np.prod([x.shape[a] for a in axes], dtype=np.int64)) if x.ndim else 1
    if not count:
        raise InexactError("a mean of nothing")
    share = Fraction(1, count)
    return computed(x.objects.sum(axis=axes, keepdims=keepdim) * share, x, dtype=dtype)


def _prod(
    trace: Any, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Result:
    if dim is None:
        return computed(np.prod(x.objects.ravel()), x, dtype=dtype)
    axis = axes_of(dim, x.ndim)[0]
    return computed(x.objects.prod(axis=axis, keepdims=keepdim), x, dtype=dtype)


def _cumsum(trace: Any, x: Any, dim: int, *, dtype: Any = None) -> Result:
    array = x.objects if not x.ndim else np.add.accumulate(x.objects, axis=dim)
    return computed(array, x, dtype=dtype)


def _cumprod(trace: Any, x: Any, dim: int, *, dtype: Any = None) -> Result:
    array = x.objects if not x.ndim else np.multiply.accumulate(x.objects, axis=dim)
    return computed(array, x, dtype=dtype)


def _matmul(trace: Any, x: Any, y: Any) -> Result:
    if not x.array.size or not y.array.size:
        raise InexactError("a product of empty matrices")
    return computed(np.matmul(x.objects, y.objects), x, y)


def _addmm(trace: Any, added: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> Result:
    product = np.matmul(x.objects, y.objects) * exact(alpha)
    return computed(added.objects * exact(beta) + product, added, x, y)


def _clamp(trace: Any, x: Any, low: Any = None, high: Any = None) -> Result:
    _only_ratios(trace, "clamp", x, low, high)

    def clamped(number: Number, least: Number, most: Number) -> Number:
        if least is not None and _less(number, least):
            return least
        return most if most is not None and _less(most, number) else number

    bounds = [np.asarray(None) if b is None else objects_of(b) for b in (low, high)]
    return computed(_each(clamped, x.objects, *bounds), x)


def _clamp_max(trace: Any, x: Any, high: Any) -> Result:
    return _clamp(trace, x, None, high)


def _extremum(name: str) -> Callable[..., Result]:
    def handler(trace: Any, x: Any, y: Any) -> Result:
        first, second = objects_of(x), objects_of(y)
        if first.shape == second.shape and all(map(_same, first.flat, second.flat)):
            return computed(first.copy(), x, y)
        _only_ratios(trace, name, x, y)

        def chosen(one: Number, other: Number) -> Number:
            return one if _less(one, other) == (name == "minimum") else other

        return computed(_each(chosen, first, second), x, y)

    return handler


def _same(one: Number, other: Number) -> bool:
    return is_plain(one) == is_plain(other) and bool(one == other)


def _only_ratios(trace: Any, name: str, *operands: Any) -> None:
    """Raises the trace's refusal unless the operands are constants, or computed from
    log-probabilities alone: of them, ratios that cancel to constants can be compared.
    """
    tensors = [t for t in operands if isinstance(t, ExactTensor)]
    sources = set().union(*(t.sources for t in tensors))
    if not sources.isdisjoint(("rewards", "values", "discount")):
        raise trace.refusal(name, sources)
    if any(value(n) is None for t in tensors for n in t.objects.flat):
        raise trace.refusal(name, sources)


def _less(one: Number, other: Number) -> bool:
    """Whether one constant is below another, by more than rounding could change."""
    first, second = value(one), value(other)
    if is_plain(one) and is_plain(other):
        return bool(first < second)
    if abs(first - second) < _SEPARATED:
        raise InexactError("a comparison that rounding can decide")
    return bool(first < second)


ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": _add,
    "sub": _sub,
    "subtract": _sub,
    "rsub": _rsub,
    "mul": _mul,
    "multiply": _mul,
    "div": _div,
    "divide": _div,
    "true_divide": _div,
    "neg": _neg,
    "reciprocal": _reciprocal,
    "square": _square,
    "pow": _pow,
    "exp": _exp,
    "expm1": _expm1,
    "log": _log,
    "log1p": _log1p,
    "addcmul": _addcmul,
    "addcdiv": _addcdiv,
    "lerp": _lerp,
    "where": _where,
    "masked_fill": _masked_fill,
    "sum": _sum,
    "mean": _mean,
    "prod": _prod,
    "cumsum": _cumsum,
    "cumprod": _cumprod,
    "mm": _matmul,
    "bmm": _matmul,
    "mv": _matmul,
    "dot": _matmul,
    "matmul": _matmul,
    "addmm": _addmm,
    "baddbmm": _addmm,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp_max,
    "minimum": _extremum("minimum"),
    "maximum": _extremum("maximum"),
}
"""Handlers by the names of ATen's operations."""
