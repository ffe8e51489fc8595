"""What fills a sample slot of a meta-gradient, and what answers its draws.

The sample sets of an inner step are tau_0 (its value), tau_1 (its Jacobian in the meta-parameters
phi) and tau_2 (its Hessian in theta).

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
    """A slot filled by a surrogate's derivative on sampled trajectories.

    Attributes:
        surrogate: maps a `Record` to a scalar tensor.
        batch_size: N, the number of trajectories in a batch.

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
    """A problem whose inner steps and outer return are exact: `analytic.Maml` and the like.

    A meta-gradient with some slots exact and others sampled shows which slot causes a bias.
    Estimators may not import exact answers, so a user hands them in as an object with these two
    methods; parameters are ``theta [B, *shape]``.
    """

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> Any:
        """The exact inner update at (phi, theta): ``update [B, *shape]``, and ``pull_back(v)`` with
        the vector-Jacobian products ``state()`` in theta and ``meta()`` in phi.
        """
        ...

    def outer(self, meta_parameters: FloatArray, theta: FloatArray) -> Any:
        """The outer return at (phi, theta): ``value [B]``, ``theta_gradient [B, *shape]``, and
        ``meta_gradient [B, *phi]`` or None.
        """
        ...


@dataclass(frozen=True, eq=False)
class Given:
    """A slot filled with the exact values of ``problem``: `analytic.Maml` and the like.

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
    """Which sample sets of an inner step are one batch.

    NONE: none, each slot has its own. HESSIAN: tau_2 = tau_0. INNER: tau_1 = tau_2 = tau_0.
    REPLAY: as INNER, and all steps use the first step's batch.
    """

    NONE = "none"
    HESSIAN = "hessian"
    INNER = "inner"
    REPLAY = "replay"


class Source(Protocol):
    """Where a meta-gradient's batches come from.

    The estimator never samples by itself: it asks a source for batches under B policies. `Sampling`
    answers with one random batch for each; `Enumerating` (in `verification.measurement`) answers
    with every batch and its probability, which turns the same code into an exact expectation. A
    source of your own can replay recorded batches.
    """

    def draw(self, log_policy: FloatArray, n: int) -> tuple[Trajectories, FloatArray]:
        """M batches for each of B policies, and the weights of the mean over them.

        Args:
            log_policy: log-probabilities of the B policies' actions, ``[B, S, A]``.
            n: N, the number of trajectories in a batch.

        Returns:
            Batches ``[B * M, N, H]``, those of one policy after each other; weights ``[B, M]``.
        """
        ...


@dataclass(frozen=True, eq=False)
class Sampling:
    """A source that answers each draw with one batch, sampled with ``rng`` from ``loop``."""

    loop: Loop
    rng: np.random.Generator

    def draw(self, log_policy: FloatArray, n: int) -> tuple[Trajectories, FloatArray]:
        """One batch ``[B, N, H]`` for each of the policies ``[B, S, A]``, and weights of 1."""
        count = len(log_policy)
        shape, problem = (count, n), self.loop.problem
        batch = draw_trajectories(problem, log_policy, shape, self.loop.steps, self.rng)
        return batch, np.ones((count, 1))
