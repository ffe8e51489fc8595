"""Estimators: pure functions from batches of trajectories to estimates.

Three kinds, one for each way of writing one:

- `from_surrogate`: a surrogate objective, differentiated here to any of the orders 1, 2, 3;
- `from_callable`: a direct estimate ``(batch, theta) -> array``;
- `from_draws`: an estimate ``(draw, theta) -> array`` that asks for batches itself, at parameters
  that it computes (a meta-gradient through sampled inner steps).

Each kind answers ``prepare(batch, context)`` with an `Evaluator`, which is evaluated on sampled
batches and on enumerated ones alike. ``draws_itself`` says that an estimator takes no batch: it
looks only at how many estimates are wanted, and asks ``context.draw`` for its batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from torch import Tensor

from gradbias.analytic.utils.validation import FloatArray, frozen_array, whole_number
from gradbias.stochastic.derivatives.assembly import Rows, assemble
from gradbias.stochastic.derivatives.coefficients import (
    MAX_LOOPED,
    SurrogateCall,
    coefficients,
    located,
    name_of,
    probe,
)
from gradbias.stochastic.estimators.contexts import Context, Draw, batch_visits, player_tables
from gradbias.stochastic.rollouts.records import Surrogate, record_tensors
from gradbias.stochastic.rollouts.trajectories import Trajectories


class Evaluator(Protocol):
    """An estimator that was looked at once: it maps batches ``[B, N, H]`` to B estimates."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know about how it was computed."""
        ...

    @property
    def most(self) -> int | None:
        """How many estimates it can be asked for in reasonable time; None is no limit."""
        ...

    def rows(self, batch: Trajectories) -> Rows:
        """One estimate a replication."""
        ...


@dataclass(frozen=True, eq=False)
class SurrogateEvaluator:
    """Differentiates a surrogate, through vmap or in a loop."""

    call: SurrogateCall
    context: Context
    order: int
    vmapped: bool
    notes: tuple[str, ...]

    @property
    def most(self) -> int | None:
        """See `Evaluator`."""
        return None if self.vmapped else MAX_LOOPED

    def rows(self, batch: Trajectories) -> Rows:
        """One estimate a replication of ``batch [B, N, H]``."""
        own, other = player_tables(self.context, batch.shape[-1])
        tensors = record_tensors(batch, own, other)
        found = coefficients(self.call, tensors, self.order, vmapped=self.vmapped)
        shape = self.context.estimate_axes * self.order
        visits = batch_visits(batch, own, other)
        return assemble(found, visits, self.context.policy, self.context.theta, shape)


@dataclass(frozen=True)
class SurrogateEstimator:
    """The derivative of a surrogate objective; see `from_surrogate`."""

    function: Surrogate
    order: int
    name: str
    draws_itself: ClassVar[Literal[False]] = False

    def prepare(self, batch: Trajectories, context: Context) -> SurrogateEvaluator:
        """Checks the surrogate on some replications of ``batch [B, N, H]`` and chooses vmap or
        the loop. Raises SurrogateError; see `stochastic.derivatives.coefficients.probe`.
        """
        call = SurrogateCall(self.function, self.name, context.discount, context.meta)
        own, other = player_tables(context, batch.shape[-1])
        tensors = record_tensors(_probed(batch), own, other)
        reason = probe(call, tensors, self.order)
        notes = () if reason is None else (f"looped over trajectories: vmap says: {reason}",)
        return SurrogateEvaluator(call, context, self.order, reason is None, notes)


@dataclass(frozen=True)
class CallableEstimator:
    """A direct estimate; see `from_callable`."""

    function: Callable[[Trajectories, FloatArray], Any]
    order: int
    name: str
    draws_itself: ClassVar[Literal[False]] = False

    def prepare(self, batch: Trajectories, context: Context) -> CallableEvaluator:
        """Calls the function twice on some replications, to see that it is one."""
        evaluator = CallableEvaluator(self, context)
        tried = _probed(batch)
        if not np.array_equal(evaluator.rows(tried).values, evaluator.rows(tried).values):
            raise ValueError(f"{self.name}: returned two values for one batch; expected one")
        return evaluator


@dataclass(frozen=True, eq=False)
class CallableEvaluator:
    """Calls a direct estimate once a replication."""

    estimator: CallableEstimator
    context: Context
    notes: tuple[str, ...] = ("called once for each batch",)
    most: int | None = MAX_LOOPED

    def rows(self, batch: Trajectories) -> Rows:
        """One estimate a replication of ``batch [B, N, H]``."""
        shape = self.context.theta.shape * self.estimator.order
        name, function = self.estimator.name, self.estimator.function
        values = [
            checked_estimate(name, partial(function, batch[b], self.context.theta), shape)
            for b in range(len(batch.actions))
        ]
        return Rows.of_dense(np.stack(values))


class UnansweredDrawError(ValueError):
    """A draw that cannot be answered, through no fault of the estimate."""


@dataclass(frozen=True)
class DrawEstimator:
    """An estimate that asks for its own batches; see `from_draws`."""

    function: Callable[[Draw, FloatArray], Any]
    order: int
    name: str
    draws_itself: ClassVar[Literal[True]] = True

    def prepare(self, batch: Trajectories, context: Context) -> DrawEvaluator:
        """Runs the function with ``context.draw``; of the batch nothing is used.

        Raises:
            ValueError: the context has no ``draw``.
        """
        if context.draw is None:
            raise ValueError(f"{self.name}: draws its own batches; call its function with a draw")
        return DrawEvaluator(self, context, context.draw)

    def run(self, draw: Draw, context: Context) -> FloatArray:
        """One estimate."""
        shape = context.theta.shape * self.order
        return checked_estimate(self.name, lambda: self.function(draw, context.theta), shape)


@dataclass(frozen=True, eq=False)
class DrawEvaluator:
    """Runs an estimate that draws its own batches, once a replication."""

    estimator: DrawEstimator
    context: Context
    draw: Draw
    notes: tuple[str, ...] = ()
    most: int | None = MAX_LOOPED

    def rows(self, batch: Trajectories) -> Rows:
        """As many estimates as ``batch`` has replications; see `empty_batches`."""
        runs = [self.estimator.run(self.draw, self.context) for _ in range(len(batch.actions))]
        return Rows.of_dense(np.stack(runs))


def empty_batches(replications: int) -> Trajectories:
    """As many batches without a step: what an estimate that draws itself is evaluated on."""
    actions = np.zeros((replications, 1, 0), dtype=np.int64)
    states = np.zeros((replications, 1, 1), dtype=np.int64)
    rewards = np.zeros((replications, 1, 0))
    return Trajectories(states, actions, rewards, actions.astype(bool), rewards)


Estimator = SurrogateEstimator | CallableEstimator | DrawEstimator


def from_surrogate(function: Surrogate, *, order: int, name: str | None = None) -> Estimator:
    """The estimator that differentiates a surrogate objective ``order`` times (1, 2 or 3).

    ``function`` maps a `stochastic.rollouts.records.Record` to a scalar float64 tensor. It must not
    draw random numbers or change its record.

    Raises:
        ValueError: an order that is not 1, 2 or 3.

    >>> from gradbias.stochastic import dice
    >>> from_surrogate(dice, order=2).name
    'Dice()'
    """
    return SurrogateEstimator(function, _order(order), name or name_of(function))


def from_callable(
    function: Callable[[Trajectories, FloatArray], Any], *, order: int, name: str | None = None
) -> Estimator:
    """The estimator that a function ``(batch [N, H], theta) -> array`` is.

    It may be written in numpy, torch or anything that returns arrays; the result has theta's axes
    ``order`` times.

    Raises:
        ValueError: an order that is not 1, 2 or 3.
    """
    return CallableEstimator(function, _order(order), name or name_of(function))


def from_draws(
    function: Callable[[Draw, FloatArray], Any], *, order: int, name: str | None = None
) -> Estimator:
    """The estimator ``(draw, theta) -> array``, where ``draw(theta, n)`` gives a fresh batch
    ``[n, H]`` at whatever parameters the function has computed by then.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. 4, draws like this.

    Raises:
        ValueError: an order that is not 1, 2 or 3.
    """
    return DrawEstimator(function, _order(order), name or name_of(function))


def estimate(estimator: Estimator, batch: Trajectories, context: Context) -> FloatArray:
    """The estimates of ``batch [..., N, H]``, one a replication: ``[..., *theta's axes x order]``.

    Raises:
        ValueError: the estimator draws its own batches and the context has no ``draw``, or it
            misbehaves (see `prepare`).
    """
    leading = batch.shape[:-2]
    flat = batch.reshape(-1, batch.shape[-2])
    dense = estimator.prepare(flat, context).rows(flat).dense()
    return dense.reshape(*leading, *dense.shape[1:])


def checked_estimate(name: str, compute: Callable[[], Any], shape: tuple[int, ...]) -> FloatArray:
    """The array that a user's function gives. Raises ValueError if it raises, or gives a wrong
    shape, NaN or infinity; an `UnansweredDrawError` passes through.
    """
    try:
        result = compute()
    except UnansweredDrawError:
        raise
    except Exception as error:
        raise ValueError(f"{name}: {located(error)}") from None
    if isinstance(result, Tensor):
        result = result.detach().cpu().numpy()
    return frozen_array(f"{name}: its estimate", result, shape)


def _probed(batch: Trajectories) -> Trajectories:
    """Some replications that are unlike: the first, the last, one between, the liveliest."""
    count = len(batch.actions)
    liveliest = int(np.argmax(batch.alive.reshape(count, -1).sum(axis=1)))
    return batch[sorted({0, count - 1, count // 2, liveliest})]


def _order(order: int) -> int:
    if whole_number("order", order, at_least=1) > 3:
        raise ValueError(f"order: expected 1, 2 or 3, got {order}")
    return int(order)
