"""Coefficients of a surrogate: its derivatives in the log-probability leaves.

They come from reverse-mode differentiation of the user's own function, so that ``detach``,
``no_grad`` and everything else that stops a gradient has the effect that it has in training
(forward mode ignores ``no_grad``). The function is mapped over B replications with vmap if it
allows that, and called in a loop otherwise. What would make an exact expectation meaningless is
refused: randomness, mutation of the record, reduced precision, NaN.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import FrozenInstanceError, dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.derivatives.process_state import Generators, double_by_default
from gradbias.stochastic.rollouts.records import (
    LEAVES,
    META,
    Surrogate,
    Tensors,
    build_record,
)

MAX_LOOPED = 20_000
"""The most replications in a loop, for a surrogate that vmap rejects: some seconds if small."""

CHANGED_BY_VMAP = "vmap changes its value"


class SurrogateError(ValueError):
    """A surrogate that cannot be measured; the message says what it did and what was expected."""


@dataclass(frozen=True, eq=False)
class Coefficients:
    """The derivatives of B surrogates in the leaves that they depend on.

    Attributes:
        leaves: names of these leaves; their flattened entries, in this order, are M numbers.
        derivatives: the k-th one at index k - 1, ``[B, M, ..., M]`` (k axes M).
    """

    leaves: tuple[str, ...]
    derivatives: tuple[FloatArray, ...]


@dataclass(frozen=True, eq=False)
class SurrogateCall:
    """A surrogate with what all replications share, as a function of one replication's tensors."""

    function: Surrogate
    name: str
    discount: float
    meta: Mapping[str, Tensor]

    def __call__(self, tensors: Tensors) -> Tensor:
        """The surrogate of one replication. Raises SurrogateError if it changes ``meta``."""
        meta = {name: tensor.clone() for name, tensor in self.meta.items()}
        with double_by_default():
            value = self.function(build_record(tensors, self.discount, meta))
        for name, tensor in self.meta.items():
            if not torch.equal(meta[name].detach(), tensor.detach()):
                raise self.error(f"changed record.meta[{name!r}] in place; a record is read-only")
        return value

    def checked(self, tensors: Tensors) -> Tensor:
        """The surrogate of one replication. Raises SurrogateError for anything it does wrong."""
        with self.without_random_numbers(), self._read_only(tensors):
            try:
                value = self(tensors)
            except SurrogateError:
                raise
            except FrozenInstanceError as error:
                raise self.error(f"changed its record ({error}); a record is read-only") from None
            except Exception as error:
                if isinstance(error, RuntimeError) and "in-place" in str(error):
                    raise self.error(
                        f"changed its record in place ({first_line(error)}); a record is read-only"
                    ) from None
                raise self.error(located(error)) from None
        return self._checked_values(value, ())

    def mapped(self, tensors: Tensors) -> Tensor:
        """The surrogates ``[B]`` of B replications, through vmap.

        Raises:
            SurrogateError: as `checked`, as far as vmap shows it.
            Exception: whatever vmap raises for a function that it does not accept.
        """
        with self._read_only(tensors), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*performance drop.*")
            values: Tensor = torch.func.vmap(self, randomness="error")(tensors)
        return self._checked_values(values, (len(tensors["log_probs"]),))

    @contextmanager
    def without_random_numbers(self) -> Iterator[None]:
        """A context that raises SurrogateError at its end if random numbers were drawn in it."""
        generators = Generators.now()
        yield
        if generators.changed(Generators.now()):
            raise self.error("drew random numbers; it must be a function of its record alone")

    @contextmanager
    def _read_only(self, tensors: Tensors) -> Iterator[None]:
        """A context that raises SurrogateError at its end if a tensor was changed in it."""
        copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        yield
        for name, before in copies.items():
            if not torch.equal(before, tensors[name].detach()):
                raise self.error(f"changed record.{name} in place; a record is read-only")

    def _checked_values(self, values: object, leading: tuple[int, ...]) -> Tensor:
        """The values as float64. Raises SurrogateError unless they are finite floating-point
        scalars, ``[*leading]``.
        """
        if not isinstance(values, Tensor):
            raise self.error(f"returned a {type(values).__name__}; expected a scalar torch tensor")
        if values.shape != leading:
            shape = tuple(values.shape[len(leading) :])
            raise self.error(f"returned shape {shape}; expected a scalar, shape ()")
        if not values.dtype.is_floating_point:
            raise self.error(f"returned {values.dtype}; expected a floating-point number")
        wrong = values[~torch.isfinite(values)]
        if len(wrong):
            raise self.error(f"returned {wrong[0].item()}; expected a finite number")
        return values.double()

    def error(self, message: str) -> SurrogateError:
        """A SurrogateError that names this surrogate."""
        return SurrogateError(f"surrogate {self.name}: {message}")


def probe(
    call: SurrogateCall, tensors: Tensors, order: int, *, rounding: float = 0.0
) -> str | None:
    """Checks the surrogate on a few replications ``[B, ...]``, one by one.

    Args:
        call: the surrogate.
        tensors: the replications.
        order: the highest order of derivatives that is checked.
        rounding: by how much, relative to their size, vmap may change derivatives (1e-10 at least).

    Returns:
        None if vmap may be used, otherwise the reason why not.

    Raises:
        SurrogateError: the surrogate raises, is not a finite scalar that depends on its leaves,
            draws random numbers, or changes its record.
    """
    for b in range(len(tensors["log_probs"])):
        single = {name: _leaf(name, tensor[b]) for name, tensor in tensors.items()}
        if not torch.equal(call.checked(single), call.checked(single)):
            raise call.error("returned two values for one record; it must not draw random numbers")
    looped, again = (coefficients(call, tensors, order, vmapped=False) for _ in range(2))
    if not looped.leaves:
        raise call.error(
            "returned a tensor detached from record.log_probs and record.log_policy; expected one "
            "that depends on them"
        )
    if not _close(looped, again, 0.0):
        raise call.error("has two derivatives for one record; it must not draw random numbers")
    try:
        inputs = _with_leaves(tensors)
        mapped = _differentiate((call.mapped(inputs), _leaves(inputs)), order)
    except Exception as error:
        return first_line(error)
    return None if _close(looped, mapped, max(1e-10, rounding)) else CHANGED_BY_VMAP


def _close(first: Coefficients, second: Coefficients, tolerance: float) -> bool:
    return first.leaves == second.leaves and all(
        np.allclose(a, b, rtol=tolerance, atol=1e-3 * tolerance)
        for a, b in zip(first.derivatives, second.derivatives, strict=True)
    )


def coefficients(
    call: SurrogateCall, tensors: Tensors, order: int, *, vmapped: bool
) -> Coefficients:
    """The derivatives 1..order of B replications' surrogates, each in its own leaves.

    Raises:
        SurrogateError: as `probe`, or a derivative that is not finite.
    """
    with call.without_random_numbers():
        evaluation = evaluated(call, _with_leaves(tensors), vmapped=vmapped)
        try:
            result = _differentiate(evaluation, order)
        except Exception as error:
            raise call.error(f"could not be differentiated: {located(error)}") from None
    for k, derivative in enumerate(result.derivatives, start=1):
        if not np.isfinite(derivative).all():
            raise call.error(f"has a derivative of order {k} that is not finite; expected numbers")
    return result


Evaluation = tuple[Tensor, Tensors]
"""Values ``[B]`` and the leaves in which they are differentiated."""


def evaluated(call: SurrogateCall, tensors: Tensors, *, vmapped: bool) -> Evaluation:
    """B replications' surrogates: through vmap if that is wanted and works, else in a loop.

    Raises:
        SurrogateError: as `probe`.
    """
    with call.without_random_numbers():
        if vmapped:
            try:
                return call.mapped(tensors), _leaves(tensors)
            except SurrogateError:
                raise
            except Exception:
                # Whether vmap works can depend on N; if something is wrong, the loop says what.
                vmapped = False
        singles = ({n: t[b] for n, t in tensors.items()} for b in range(len(tensors["log_probs"])))
        return torch.stack([call.checked(single) for single in singles]), _leaves(tensors)


def _with_leaves(tensors: Tensors) -> Tensors:
    """The tensors, with gradients required of the leaves."""
    return {name: _leaf(name, tensor) for name, tensor in tensors.items()}


def _leaves(tensors: Tensors) -> Tensors:
    """The tensors in which surrogates are differentiated."""
    return {
        n: t for n, t in tensors.items() if n in LEAVES or (n.startswith(META) and t.requires_grad)
    }


def _differentiate(evaluation: Evaluation, order: int) -> Coefficients:
    values, leaves = evaluation
    gradients: list[Tensor | None] = [None] * len(leaves)
    if values.requires_grad:
        gradients = list(
            torch.autograd.grad(
                values.sum(), list(leaves.values()), create_graph=order > 1, allow_unused=True
            )
        )
    connected = {n: g for n, g in zip(leaves, gradients, strict=True) if g is not None}
    inputs = [leaves[name] for name in connected]
    no_columns = torch.zeros(len(values), 0, dtype=torch.float64)
    latest = torch.cat([no_columns, *(g.flatten(1) for g in connected.values())], dim=1)
    derivatives = [latest]
    for k in range(2, order + 1):
        latest = jacobian(latest, inputs, create_graph=k < order)
        derivatives.append(latest)
    return Coefficients(tuple(connected), tuple(d.detach().numpy() for d in derivatives))


def jacobian(outputs: Tensor, inputs: list[Tensor], *, create_graph: bool) -> Tensor:
    """``[B, ..., M]``: each entry of ``outputs [B, ...]``, differentiated in its own replication's
    inputs; one reverse pass for each entry, for all replications at once.
    """
    flat = outputs.flatten(1)
    width = sum(leaf[0].numel() for leaf in inputs)
    if not flat.requires_grad:
        return torch.zeros(*outputs.shape, width, dtype=torch.float64)
    columns = []
    for k in range(flat.shape[1]):
        parts = torch.autograd.grad(
            flat[:, k].sum(),
            inputs,
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
        columns.append(torch.cat([part.flatten(1) for part in parts], dim=1))
    return torch.stack(columns, dim=1).reshape(*outputs.shape, width)


def _leaf(name: str, tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_() if name in LEAVES else tensor


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or the error's name if it has none."""
    try:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    except Exception:
        return "an error that cannot be shown"


def located(error: BaseException) -> str:
    """One line that says what was raised, and where: the last line outside installed packages."""
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"raised {type(error).__name__}: {first_line(error)}" + (
        f" ({users[-1].filename}, line {users[-1].lineno})" if users else ""
    )


def name_of(function: Callable[..., Any]) -> str:
    """The name that reports use for a function, or for an object that is called like one."""
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else _short_repr(function)


def _short_repr(function: object) -> str:
    """The class's name, with the fields of a dataclass that are not at their defaults."""
    kind = type(function)
    fields_of = getattr(kind, "__dataclass_fields__", {})
    changed = [
        f"{key}={_shown(getattr(function, key))}"
        for key, item in fields_of.items()
        if getattr(function, key) != item.default
    ]
    return f"{kind.__name__}({', '.join(changed)})"


def _shown(value: object) -> str:
    """A field's value; for a function its name, because its address differs in every run."""
    if isinstance(value, Enum):
        return str(value)
    return name_of(value) if callable(value) and not isinstance(value, type) else repr(value)
