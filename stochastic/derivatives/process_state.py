"""The global state of a process, which no estimate may draw from or change: random number
generators, torch's and numpy's settings.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SEED = 20_250_801


@contextmanager
def double_by_default() -> Iterator[None]:
    """A context in which a program's tensors are float64 unless it says otherwise."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


@dataclass(frozen=True, eq=False)
class Generators:
    """The states of the global generators of torch (on the CPU), numpy and Python."""

    torch: Tensor
    numpy: dict[str, Any]
    python: object

    @classmethod
    def now(cls) -> Generators:
        """The current states."""
        numpy_state: dict[str, Any] = np.random.get_state(legacy=False)
        return cls(torch.get_rng_state(), numpy_state, random.getstate())

    def restore(self) -> None:
        """Sets the generators to these states."""
        torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)
        random.setstate(self.python)  # type: ignore[arg-type]

    def changed(self, other: Generators) -> str:
        """The name of a generator whose state differs from ``other``'s; "" if none does."""
        if not torch.equal(self.torch, other.torch):
            return "torch's global generator"
        here, there = self.numpy, other.numpy
        if not (
            np.array_equal(here["state"]["key"], there["state"]["key"])
            and here["state"]["pos"] == there["state"]["pos"]
            and (here["has_gauss"], here["gauss"]) == (there["has_gauss"], there["gauss"])
        ):
            return "numpy's global generator"
        return "" if self.python == other.python else "Python's global generator"


@dataclass(frozen=True, eq=False)
class Settings:
    """Global switches that change what other code computes."""

    default_dtype: torch.dtype
    gradients: bool
    numpy_errors: dict[str, Any]

    @classmethod
    def now(cls) -> Settings:
        """The current settings."""
        return cls(torch.get_default_dtype(), torch.is_grad_enabled(), dict(np.geterr()))

    def restore(self) -> None:
        """Sets torch and numpy to these settings."""
        torch.set_default_dtype(self.default_dtype)
        torch.set_grad_enabled(self.gradients)
        np.seterr(**self.numpy_errors)

    def changed(self, other: Settings) -> str:
        """The name of a setting that differs from ``other``'s; "" if none does."""
        named = {
            "default_dtype": "torch's default dtype",
            "gradients": "torch's gradient mode",
            "numpy_errors": "numpy's error handling",
        }
        for field in fields(self):
            if getattr(self, field.name) != getattr(other, field.name):
                return named[field.name]
        return ""


@contextmanager
def put_back() -> Iterator[None]:
    """A context after which generators and settings are what they were before."""
    generators, settings = Generators.now(), Settings.now()
    try:
        yield
    finally:
        generators.restore()
        settings.restore()


class Watch:
    """Finds out whether code that runs after its creation changes the process's global state.

    Creating it sets all generators and settings to fixed states, so that seeding a generator is
    noticed too, and torch's default dtype to single or ``double`` precision.
    """

    def __init__(self, *, double: bool) -> None:
        torch.default_generator.manual_seed(_SEED)
        np.random.seed(_SEED)
        random.seed(_SEED)
        torch.set_default_dtype(torch.float64 if double else torch.float32)
        torch.set_grad_enabled(True)
        np.seterr(divide="warn", over="warn", under="ignore", invalid="warn")
        self._generators, self._settings = Generators.now(), Settings.now()

    def disturbed(self) -> str:
        """What was disturbed, in words; "" if nothing was."""
        generator = self._generators.changed(Generators.now())
        if generator:
            return f"drew from or seeded {generator}"
        setting = self._settings.changed(Settings.now())
        return f"changed {setting}" if setting else ""
