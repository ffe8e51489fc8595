"""Surrogates on records of another dtype, or on another device.

A surrogate that is trained with sees whatever its network runs in; what it makes itself (weights,
discounts) has to follow its record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.derivatives.coefficients import located
from gradbias.stochastic.derivatives.process_state import put_back
from gradbias.stochastic.estimators.contexts import Context, player_tables
from gradbias.stochastic.estimators.kinds import SurrogateEstimator
from gradbias.stochastic.rollouts.records import LEAVES, Tensors, build_record, record_tensors
from gradbias.stochastic.rollouts.trajectories import Trajectories

META_DEVICE = torch.device("meta")
"""Has shapes and no values: what is left to run on where there is no accelerator."""

_NO_VALUES = ("meta tensor", "meta device", "register_meta", "FakeTensor", "'meta' device")


class HardCodedError(Exception):
    """A surrogate that insists on a dtype or a device; says how."""


class NoValuesError(Exception):
    """A surrogate that looks at values, where there are only shapes."""


@dataclass(frozen=True)
class Place:
    """Where a record's tensors are, and what the floating ones are made of."""

    device: torch.device
    dtype: torch.dtype

    @property
    def has_values(self) -> bool:
        """Whether there are numbers, not shapes alone."""
        return self.device != META_DEVICE

    @property
    def single(self) -> bool:
        """Whether numbers are in single precision."""
        return self.dtype == torch.float32

    def __str__(self) -> str:
        return f"{self.dtype} on {self.device}"


USUAL = Place(torch.device("cpu"), torch.float64)
SINGLE = Place(torch.device("cpu"), torch.float32)


def elsewhere() -> Place:
    """On this machine's accelerator or, where there is none, on torch's meta device."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        return Place(META_DEVICE, torch.float64)
    return Place(found, torch.float32 if found.type == "mps" else torch.float64)


def gradients_at(
    estimator: SurrogateEstimator, batch: Trajectories, context: Context, place: Place
) -> FloatArray:
    """``[B, M]``: the first derivatives of B surrogates in their leaves, with records in ``place``;
    no columns on the meta device, where there are no numbers.

    Raises:
        HardCodedError: it raises, or its value is of another dtype or on another device.
        NoValuesError: it looks at values on the meta device.
    """
    own, other = player_tables(context, batch.shape[-1])
    tensors = record_tensors(batch, own, other)
    rows = []
    for b in range(len(batch.actions)):
        moved = {name: _moved(tensor[b], name, place) for name, tensor in tensors.items()}
        with put_back():
            torch.set_default_dtype(place.dtype)
            rows.append(_gradient(_asked(estimator, context, place), moved, place))
    return np.array(rows)


def _asked(
    estimator: SurrogateEstimator, context: Context, place: Place
) -> Callable[[Tensors], Tensor]:
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
        found = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    except HardCodedError:
        raise
    except Exception as error:
        raise _told(error, place) from None
    if not place.has_values:
        return np.zeros(0)
    whole: FloatArray = torch.cat([part.flatten() for part in found]).cpu().double().numpy()
    return whole


def _told(error: Exception, place: Place) -> HardCodedError | NoValuesError:
    no_values = isinstance(error, NotImplementedError) or _is_about_values(error)
    if no_values and not place.has_values:
        return NoValuesError(str(error).splitlines()[0])
    return HardCodedError(f"a record of {place}: {located(error)}")


def _is_about_values(error: Exception) -> bool:
    return any(part in str(error) for part in _NO_VALUES)


def _moved(tensor: Tensor, name: str, place: Place) -> Tensor:
    dtype = place.dtype if tensor.is_floating_point() else tensor.dtype
    moved = tensor.detach().to(device=place.device, dtype=dtype)
    return moved.requires_grad_() if name in LEAVES else moved
