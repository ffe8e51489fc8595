"""Surrogates on records of another dtype, or on another device.

In training a surrogate sees tensors of its network's dtype and device; the tensors that it makes
itself (weights, discounts) have to follow its record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.derivatives.coefficients import first_line, located
from gradbias.stochastic.derivatives.process_state import put_back
from gradbias.stochastic.estimators.contexts import Context, player_tables
from gradbias.stochastic.estimators.kinds import SurrogateEstimator
from gradbias.stochastic.rollouts.records import LEAVES, Tensors, build_record, record_tensors
from gradbias.stochastic.rollouts.trajectories import Trajectories

META_DEVICE = torch.device("meta")
"""A device that has shapes and no values, for machines without an accelerator."""

_NO_VALUES = ("meta tensor", "meta device", "register_meta", "FakeTensor", "'meta' device")


class HardCodedError(Exception):
    """A surrogate that hard-codes a dtype or a device; the message says how."""


class NoValuesError(Exception):
    """A surrogate that reads values on the meta device, which has only shapes."""


@dataclass(frozen=True)
class Place:
    """The device of a record's tensors, and the dtype of the floating-point ones."""

    device: torch.device
    dtype: torch.dtype

    @property
    def has_values(self) -> bool:
        """Whether tensors have values, and not only shapes."""
        return self.device != META_DEVICE

    @property
    def single(self) -> bool:
        """Whether floating-point numbers are in single precision."""
        return self.dtype == torch.float32

    def __str__(self) -> str:
        return f"{self.dtype} on {self.device}"


USUAL = Place(torch.device("cpu"), torch.float64)
SINGLE = Place(torch.device("cpu"), torch.float32)


def elsewhere() -> Place:
    """This machine's accelerator or, if there is none, torch's meta device."""
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return Place(META_DEVICE, torch.float64)
    return Place(device, torch.float32 if device.type == "mps" else torch.float64)


def gradients_at(
    estimator: SurrogateEstimator, batch: Trajectories, context: Context, place: Place
) -> FloatArray:
    """``[B, M]``: the gradients of B surrogates in their M leaf entries, with records in ``place``;
    M is 0 on the meta device, which has no numbers.

    Raises:
        HardCodedError: the surrogate raises, or its value has another dtype or device.
        NoValuesError: it reads values on the meta device.
    """
    own, other = player_tables(context, batch.shape[-1])
    tensors = record_tensors(batch, own, other)
    rows = []
    for b in range(len(batch.actions)):
        moved = {name: _moved(tensor[b], name, place) for name, tensor in tensors.items()}
        with put_back():
            torch.set_default_dtype(place.dtype)
            rows.append(_gradient(_objective(estimator, context, place), moved, place))
    return np.array(rows)


def _objective(
    estimator: SurrogateEstimator, context: Context, place: Place
) -> Callable[[Tensors], Tensor]:
    """The surrogate as a function of a record's tensors, with meta-parameters in ``place``."""
    meta = {name: _moved(tensor.detach(), "", place) for name, tensor in context.meta.items()}
    return lambda tensors: estimator.function(build_record(tensors, context.discount, meta))


def _gradient(function: Callable[[Tensors], Tensor], tensors: Tensors, place: Place) -> FloatArray:
    try:
        value = function(tensors)
        if (value.device.type, value.dtype) != (place.device.type, place.dtype):
            raise HardCodedError(
                f"a record of {place} gives {value.dtype} on {value.device}: hard-coded?"
            )
        leaves = [tensor for tensor in tensors.values() if tensor.requires_grad]
        parts = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    except HardCodedError:
        raise
    except Exception as error:
        raise _explained(error, place) from None
    if not place.has_values:
        return np.zeros(0)
    gradient: FloatArray = torch.cat([part.flatten() for part in parts]).cpu().double().numpy()
    return gradient


def _explained(error: Exception, place: Place) -> HardCodedError | NoValuesError:
    """The error as one about values on the meta device, or else about a hard-coded place."""
    about_values = any(part in str(error) for part in _NO_VALUES)
    if (about_values or isinstance(error, NotImplementedError)) and not place.has_values:
        return NoValuesError(first_line(error))
    return HardCodedError(f"a record of {place}: {located(error)}")


def _moved(tensor: Tensor, name: str, place: Place) -> Tensor:
    dtype = place.dtype if tensor.is_floating_point() else tensor.dtype
    moved = tensor.detach().to(device=place.device, dtype=dtype)
    return moved.requires_grad_() if name in LEAVES else moved
