"""Checks of the arguments of public classes and functions: arrays, numbers and choices."""

from collections.abc import Sequence
from enum import Enum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

E = TypeVar("E", bound=Enum)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

ROW_SUM_TOLERANCE = 1e-9
"""How far a row of probabilities may be from one and still be called rounding."""


_AS_GOOD_AS_ONE = 1e-14


def set_fields(record: object, **values: object) -> None:
    """Sets fields of a frozen dataclass; only its ``__post_init__`` may call this."""
    for name, value in values.items():
        object.__setattr__(record, name, value)


def frozen_array(
    name: str, value: npt.ArrayLike, shape: Sequence[int | None] | None = None
) -> FloatArray:
    """A read-only float64 copy of ``value``; ``None`` in ``shape`` stands for any length.

    Raises:
        ValueError: not real numbers, the wrong shape, or an entry that is NaN or infinite.
    """
    try:
        array = np.array(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected a rectangular array of numbers ({error})") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected real numbers, got dtype {array.dtype}")
    array = array.astype(np.float64)
    if shape is not None:
        fits = array.ndim == len(shape) and all(
            want is None or want == got for want, got in zip(shape, array.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if n is None else str(n) for n in shape)
            raise ValueError(f"{name}: expected shape ({wanted}), got {array.shape}")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name}: expected finite numbers, got {array[where]} at index {where}")
    array.setflags(write=False)
    return array


def check_leading(
    name: str, array: FloatArray, shape: tuple[int, ...], leading: tuple[int, ...]
) -> None:
    """Raises ValueError unless ``array`` has the shape ``[..., *shape]``, where its leading axes
    match ``leading``: either may be absent, or the end of the other.
    """
    extra = array.shape[: max(array.ndim - len(shape), 0)]
    if array.shape[len(extra) :] != shape:
        wanted = ", ".join(str(n) for n in shape) + ("," if len(shape) == 1 else "")
        any_leading = "..., " if extra else ""
        raise ValueError(f"{name}: expected shape ({any_leading}{wanted}), got {array.shape}")
    shared = min(len(extra), len(leading))
    if extra[len(extra) - shared :] != leading[len(leading) - shared :]:
        raise ValueError(f"{name}: expected leading axes {leading} (or none), got {extra}")


def probability_rows(
    name: str, value: npt.ArrayLike, shape: Sequence[int | None] | None = None
) -> FloatArray:
    """A read-only array whose last axis holds distributions, renormalised by rounding only.

    Raises:
        ValueError: as `frozen_array`, or an entry is negative, or a row's sum is further than
            `ROW_SUM_TOLERANCE` from one.
    """
    array = frozen_array(name, value, shape)
    if (array < 0).any():
        where = tuple(int(i) for i in np.argwhere(array < 0)[0])
        raise ValueError(f"{name}: expected probabilities, got {array[where]} at index {where}")
    sums = array.sum(axis=-1)
    off = np.abs(sums - 1.0)
    if (off > ROW_SUM_TOLERANCE).any():
        row = tuple(int(i) for i in np.argwhere(off > ROW_SUM_TOLERANCE)[0])
        at = f" in row {row}" if row else ""
        raise ValueError(
            f"{name}: expected probabilities that sum to one (within {ROW_SUM_TOLERANCE:g}), "
            f"got a sum of {sums[row]:.12g}{at}"
        )
    # Dividing a row whose sum is 1 + 1e-16 would change its last digits each time it is loaded.
    divisors = np.where(off > _AS_GOOD_AS_ONE, sums, 1.0)
    rows: FloatArray = array / divisors[..., None]
    rows.setflags(write=False)
    return rows


def whole_number(name: str, value: object, *, at_least: int) -> int:
    """``value`` as an int. Raises ValueError unless it is an integer >= ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
        raise ValueError(f"{name}: expected an integer >= {at_least}, got {value!r}")
    return int(value)


def finite_number(name: str, value: object) -> float:
    """``value`` as a float. Raises ValueError unless it is a finite real number."""
    largest = float(np.finfo(np.float64).max)
    return real_number(name, value, low=-largest, high=largest)


def positive_number(name: str, value: object) -> float:
    """``value`` as a float. Raises ValueError unless it is a real number above 0."""
    is_real = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not is_real or not 0.0 < float(value) < np.inf:  # type: ignore[arg-type]
        raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def real_number(name: str, value: object, *, low: float, high: float) -> float:
    """``value`` as a float. Raises ValueError unless it is a real number in [low, high]."""
    is_real = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not is_real or not low <= float(value) <= high:  # type: ignore[arg-type]
        raise ValueError(f"{name}: expected a number in [{low:g}, {high:g}], got {value!r}")
    return float(value)  # type: ignore[arg-type]


def required_theta(theta: npt.ArrayLike | None) -> npt.ArrayLike:
    """The parameters theta^0 of an inner loop. Raises ValueError for None."""
    if theta is None:
        raise ValueError("theta: expected the parameters that the inner loop starts from, got None")
    return theta


def choice(name: str, value: str | E, kind: type[E], *, also: Sequence[str] = ()) -> E:
    """The member of the Enum ``kind`` that ``value`` is, or whose value it is.

    Raises:
        ValueError: there is none; the message lists all values, and those ``also`` accepted by the
            caller.

    >>> class Fruit(Enum):
    ...     APPLE = "apple"
    >>> choice("fruit", "apple", Fruit)
    <Fruit.APPLE: 'apple'>
    """
    try:
        return kind(value)
    except ValueError:
        known = ", ".join([*also, *(str(member.value) for member in kind)])
        raise ValueError(f"{name}: expected one of {known}, got {value!r}") from None
