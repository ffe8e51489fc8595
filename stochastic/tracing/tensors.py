"""Tensors whose entries are exact numbers.

To a program an `ExactTensor` is a torch tensor: it has a shape, a dtype and a device, but no
storage. Its entries stand in a numpy array, and `trace.Trace` executes operations on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from gradbias.stochastic.tracing.polynomials import InexactError, Number, is_plain

SYMBOLIC = frozenset(
    ("rewards", "values", "discount", "log_probs", "log_policy", "behaviour_log_probs")
)
"""The inputs of a record that are symbols; the others (states, actions, alive) are concrete."""

ACTIVE: list[Any] = []
"""The trace that is running, last."""


class ExactTensor(torch.Tensor):
    """A tensor of exact numbers.

    Attributes:
        array: the entries; Python numbers and polynomials where the dtype is a floating-point one.
        sources: the names of the record's fields that the entries were computed from; views share
            the set.
        frozen: the reason why it may not be changed in place; "" if it may.
        owner: the trace whose symbols the entries are polynomials in.
    """

    array: Any
    sources: set[str]
    frozen: str
    owner: Any

    @staticmethod
    def __new__(
        cls: type[ExactTensor],
        array: Any,
        dtype: torch.dtype,
        sources: set[str],
        frozen: str = "",
    ) -> ExactTensor:
        """A tensor on the CPU."""
        strides = tuple(s // array.itemsize for s in array.strides)
        tensor: ExactTensor = torch.Tensor._make_wrapper_subclass(
            cls, array.shape, strides=strides, dtype=dtype, device=torch.device("cpu")
        )
        tensor.array, tensor.sources, tensor.frozen = array, sources, frozen
        tensor.owner = ACTIVE[-1] if ACTIVE else None
        return tensor

    def __init__(self, *_: Any) -> None:
        super().__init__()

    @property
    def is_symbolic(self) -> bool:
        """Whether it was computed from inputs that are symbols."""
        return not SYMBOLIC.isdisjoint(self.sources)

    @property
    def objects(self) -> Any:
        """The entries as Python objects."""
        return self.array if self.array.dtype == object else self.array.astype(object)

    def plain(self) -> torch.Tensor:
        """The same numbers in an ordinary tensor, which shares memory where it can."""
        if self.array.dtype != object:
            return torch.from_numpy(self.array)
        if not all(map(is_plain, self.array.flat)):
            raise InexactError("a symbol where a number is needed")
        return torch.tensor(self.array.astype(np.float64), dtype=self.dtype)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Executes an operation through the trace that is running."""
        if not ACTIVE:
            raise RuntimeError("a tensor of symbols was used after its trace had ended")
        return ACTIVE[-1].execute(func, args, kwargs or {})


def exact(number: Any) -> Number:
    """A Python number as the rational that it is. Raises InexactError for NaN and infinity."""
    if isinstance(number, ExactTensor):
        return number.array[()]
    if isinstance(number, bool | int | np.bool_ | np.integer):
        return int(number)
    if isinstance(number, float | np.floating):
        if not math.isfinite(number):
            raise InexactError("a number that is not finite")
        return int(number) if float(number).is_integer() else Fraction(float(number))
    return number


_EXACT = np.frompyfunc(exact, 1, 1)


def exact_array(array: Any) -> Any:
    """An array of floats as one of exact numbers."""
    return np.asarray(_EXACT(array), dtype=object).reshape(array.shape)


def objects_of(value: Any) -> Any:
    """A tensor's entries or a number as an array of objects, for numpy's arithmetic."""
    if isinstance(value, ExactTensor):
        return value.objects
    return np.asarray(exact(value), dtype=object)


def wrapped(tensor: torch.Tensor, sources: set[str]) -> ExactTensor:
    """An ordinary tensor as an exact one."""
    values = tensor.detach().numpy()
    array = exact_array(values) if tensor.dtype.is_floating_point else values
    return ExactTensor(array, tensor.dtype, sources)


class ExactScalar(ExactTensor):
    """The record's discount, or what Python computes from it: a float to the program, whose value
    nobody can read.
    """

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return float

    def __array__(self, *_: Any, **__: Any) -> Any:
        """An array of one object, so that numpy's arithmetic stays exact."""
        return objects_array([self]).reshape(())

    def _refused(self, name: str) -> Exception:
        error: Exception = ACTIVE[-1].refusal(name, {"discount"})
        return error

    def __hash__(self) -> int:
        raise self._refused("hash")

    def __format__(self, specification: str) -> str:
        raise self._refused("format")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        raise self._refused("repr")

    __str__ = __repr__

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise self._refused("pickle")

    def is_integer(self) -> bool:
        """Refused, as all that reads the value is."""
        raise self._refused("is_integer")

    def as_integer_ratio(self) -> tuple[int, int]:
        """Refused, as all that reads the value is."""
        raise self._refused("as_integer_ratio")

    def hex(self) -> str:
        """Refused, as all that reads the value is."""
        raise self._refused("hex")


def objects_array(objects: list[Any]) -> Any:
    """An array of objects, which numpy would otherwise look into."""
    array = np.empty(len(objects), dtype=object)
    for i, item in enumerate(objects):
        array[i] = item
    return array


def _method(name: str) -> Callable[..., Any]:
    """An operator of `ExactScalar`: Python's on numbers, numpy's on arrays, torch's on tensors."""
    inherited = getattr(torch.Tensor, name)

    def method(self: ExactScalar, *others: Any) -> Any:
        other = others[0] if others else 0
        if isinstance(other, np.ndarray):
            parts = [method(self, item) for item in other.ravel().tolist()]
            return objects_array(parts).reshape(other.shape)
        if type(other) is ExactScalar or isinstance(other, int | float | np.number):
            return ACTIVE[-1].computed(name, self, other)
        return inherited(self, *others)

    return method


OPERATORS = ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "rpow")
for _name in (*OPERATORS, "neg", "pos"):
    setattr(ExactScalar, f"__{_name}__", _method(f"__{_name}__"))
