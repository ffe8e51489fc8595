"""What fills a sample slot of a meta-gradient, and what answers its draws.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. (4).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np

from gradbias.analytic.utils.validation import FloatArray, whole_number
from gradbias.stochastic.derivatives.coefficients import name_of
from gradbias.stochastic.meta.inner_loops import Loop
from gradbias.stochastic.rollouts.records import Surrogate
from gradbias.stochastic.rollouts.trajectories import Trajectories, draw_trajectories


@dataclass(frozen=True)
class Sampled:
    """A slot filled by a surrogate's derivative on ``batch_size`` trajectories.

    Raises:
        ValueError: a surrogate that cannot be called, or batch_size below 1.
    """

    surrogate: Surrogate
    batch_size: int

    def __post_init__(self) -> None:
        whole_number("batch_size", self.batch_size, at_least=1)
        if not callable(self.surrogate):
            raise ValueError(f"surrogate: expected a function of a record, got {self.surrogate!r}")

    def __str__(self) -> str:
        return f"{name_of(self.surrogate)} x {self.batch_size}"


class ExactSteps(Protocol):
    """The exact inner steps and outer return: `analytic.Maml` and the like."""

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> Any:
        """The inner update at (phi, theta), with its products."""
        ...

    def outer(self, meta_parameters: FloatArray, theta: FloatArray) -> Any:
        """The outer return at (phi, theta), with its gradients."""
        ...


@dataclass(frozen=True, eq=False)
class Given:
    """A slot filled with the values of a problem that the caller gives.

    Raises:
        ValueError: a problem without inner steps.
    """

    problem: ExactSteps

    def __post_init__(self) -> None:
        if not hasattr(self.problem, "inner_step"):
            kind = type(self.problem).__name__
            raise ValueError(f"problem: expected one with exact inner steps, got a {kind}")

    def __str__(self) -> str:
        return "exact"


@dataclass(frozen=True)
class FirstOrder:
    """The Hessian slot of first-order MAML: an inner step's derivative in theta is left out.

    Source: Finn et al. 2017, Sec. 5.2.
    """

    def __str__(self) -> str:
        return "first order"


Slot = Sampled | Given
FIRST_ORDER = FirstOrder()


class Reuse(Enum):
    """Which of a step's slots share the batch that its value is taken from."""

    NONE = "independent sets"
    HESSIAN = "tau_2 = tau_0"
    INNER = "tau_1 = tau_2 = tau_0"
    REPLAY = "all steps' sets are the first step's tau_0"


class Source(Protocol):
    """Answers draws."""

    def draw(self, log_policy: FloatArray, n: int) -> tuple[Trajectories, FloatArray]:
        """For each of B policies ``[B, S, A]``, M batches ``[B * M, n, H]`` and their weights
        ``[B, M]``.
        """
        ...


@dataclass(frozen=True, eq=False)
class Sampling:
    """Answers each draw with one batch."""

    loop: Loop
    rng: np.random.Generator

    def draw(self, log_policy: FloatArray, n: int) -> tuple[Trajectories, FloatArray]:
        """See `Source`."""
        count = len(log_policy)
        shape, problem = (count, n), self.loop.problem
        batch = draw_trajectories(problem, log_policy, shape, self.loop.steps, self.rng)
        return batch, np.ones((count, 1))
