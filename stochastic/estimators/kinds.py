"""Estimators: pure functions from batches of trajectories to estimates.

There are three kinds, one for each way to write an estimator:

- `from_surrogate`: a surrogate objective, differentiated here to any of the orders 1, 2, 3;
- `from_callable`: a direct estimate ``(batch, theta) -> array``;
- `from_draws`: an estimate ``(draw, theta) -> array`` that asks for batches itself, at parameters
  that it computes (a meta-gradient through sampled inner steps).

Each kind has ``prepare(batch, context)``, which returns an `Evaluator` for sampled batches and
enumerated ones alike. ``draws_itself`` says that an estimator uses only the number of replications
of a batch, and gets its trajectories from ``context.draw``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from torch import Tensor

from gradbias.analytic.policies.softmax import TabularSoftmax
from gradbias.analytic.utils.validation import FloatArray, frozen_array, whole_number
from gradbias.stochastic.derivatives.assembly import Rows, Visits, assemble
from gradbias.stochastic.derivatives.coefficients import (
    MAX_LOOPED,
    SurrogateCall,
    coefficients,
    located,
    name_of,
    probe,
)
from gradbias.stochastic.derivatives.logit_table import TableDerivatives
from gradbias.stochastic.estimators.contexts import (
    Context,
    Draw,
    UnansweredDrawError,
    batch_visits,
    player_tables,
)
from gradbias.stochastic.rollouts.records import Surrogate, Tensors, record_tensors
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.stochastic.tracing.imprecision import PRECISE, Imprecision, imprecision_of

MAX_BY_VISIT = 2**20
"""A derivative in the log-probabilities with more entries than this is taken in the table of logits
instead, if that has fewer."""

ROUNDINGS = 16
"""An estimate may be off by this many rounding errors of the coarsest dtype in it, relative to its
size."""


class Evaluator(Protocol):
    """A prepared estimator: it maps batches ``[B, N, H]`` to B estimates.

    Preparing is a step of its own since it is slow and may fail: it tries the user's function, and
    chooses vmap or a loop. The evaluator is then called on many blocks, sampled or enumerated.
    """

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know about how it was computed."""
        ...

    @property
    def most(self) -> int | None:
        """The largest number of estimates that take reasonable time; None stands for no limit."""
        ...

    def rows(self, batch: Trajectories) -> Rows:
        """One estimate for each replication of ``batch [B, N, H]``."""
        ...


@dataclass(frozen=True, eq=False)
class SurrogateEvaluator:
    """Differentiates a surrogate, through vmap or in a loop."""

    call: SurrogateCall
    context: Context
    order: int
    vmapped: bool
    notes: tuple[str, ...]
    imprecision: Imprecision = PRECISE

    @property
    def most(self) -> int | None:
        """The largest number of estimates that take reasonable time; None stands for no limit."""
        return None if self.vmapped else MAX_LOOPED

    def rows(self, batch: Trajectories) -> Rows:
        """One estimate for each replication of ``batch [B, N, H]``."""
        player, other = player_tables(self.context, batch.shape[-1])
        shape = self.context.estimate_axes * self.order
        visits = batch_visits(batch, player, other)
        if self._is_smaller_in_table(visits):
            return self._in_table(batch).rows(self.order, shape)
        tensors = record_tensors(batch, player, other)
        derivatives = coefficients(self.call, tensors, self.order, vmapped=self.vmapped)
        return assemble(derivatives, visits, self.context.policy, self.context.theta, shape)

    def along_random_directions(self, batch: Trajectories) -> FloatArray:
        """The derivatives of the estimator's order k in the table of logits, ``[B, R A]``, along
        k - 1 random directions, the same in each call: for batches that are too large for `rows`.
        """
        derivatives = self._in_table(batch)
        size = (self.order - 1, *derivatives.table.shape[1:])
        return derivatives.along(np.random.default_rng(0).normal(size=size))

    def _is_smaller_in_table(self, visits: Visits) -> bool:
        """Whether there are too many derivatives by visit, and fewer in the table of logits."""
        count, n_actions = visits.policy.shape[1:]
        if not isinstance(self.context.policy, TabularSoftmax) or self.order == 1:
            return False
        is_large = int((count * n_actions) ** self.order) > MAX_BY_VISIT
        return is_large and visits.n_rows * n_actions < count

    def _in_table(self, batch: Trajectories) -> TableDerivatives:
        player, other = player_tables(self.context, batch.shape[-1])
        tables = [player.log_policy] if other is None else [player.log_policy, other.log_policy]
        return TableDerivatives.of(
            self.call,
            record_tensors(batch, player, other),
            batch_visits(batch, player, other),
            np.concatenate(tables),
            vmapped=self.vmapped,
        )


@dataclass(frozen=True)
class SurrogateEstimator:
    """The derivative of a surrogate objective; see `from_surrogate`."""

    function: Surrogate
    order: int
    name: str
    draws_itself: ClassVar[Literal[False]] = False

    def prepare(self, batch: Trajectories, context: Context) -> SurrogateEvaluator:
        """Checks the surrogate on some replications of ``batch [B, N, H]``, and chooses vmap or a
        loop. Raises SurrogateError as `stochastic.derivatives.coefficients.probe`.
        """
        call = SurrogateCall(self.function, self.name, context.discount, context.meta)
        player, other = player_tables(context, batch.shape[-1])
        tensors = record_tensors(_probed(batch), player, other)
        size = tensors["log_policy"][0].numel()
        # A large batch's higher derivatives would take far longer than the estimates themselves.
        probed_order = self.order if size**self.order <= MAX_BY_VISIT else 1
        imprecision = _imprecision(call, tensors)
        reason = probe(call, tensors, probed_order, rounding=ROUNDINGS * imprecision.rounding)
        notes = () if reason is None else (f"looped over trajectories: vmap says: {reason}",)
        return SurrogateEvaluator(call, context, self.order, reason is None, notes, imprecision)


@dataclass(frozen=True)
class CallableEstimator:
    """A direct estimate; see `from_callable`."""

    function: Callable[[Trajectories, FloatArray], Any]
    order: int
    name: str
    draws_itself: ClassVar[Literal[False]] = False

    def prepare(self, batch: Trajectories, context: Context) -> CallableEvaluator:
        """Calls the function twice on some replications, to see that its value is the same."""
        evaluator = CallableEvaluator(self, context)
        some = _probed(batch)
        if not np.array_equal(evaluator.rows(some).values, evaluator.rows(some).values):
            raise ValueError(f"{self.name}: returned two values for one batch; expected one")
        return evaluator


@dataclass(frozen=True, eq=False)
class CallableEvaluator:
    """Calls a direct estimate once for each replication."""

    estimator: CallableEstimator
    context: Context
    notes: tuple[str, ...] = ("called once for each batch",)
    most: int | None = MAX_LOOPED

    def rows(self, batch: Trajectories) -> Rows:
        """One estimate for each replication of ``batch [B, N, H]``."""
        shape = self.context.theta.shape * self.estimator.order
        name, function = self.estimator.name, self.estimator.function
        values = [
            checked_estimate(name, partial(function, batch[b], self.context.theta), shape)
            for b in range(len(batch.actions))
        ]
        return Rows.of_dense(np.stack(values))


@dataclass(frozen=True)
class DrawEstimator:
    """An estimate that asks for its own batches; see `from_draws`."""

    function: Callable[[Draw, FloatArray], Any]
    order: int
    name: str
    draws_itself: ClassVar[Literal[True]] = True

    def prepare(self, batch: Trajectories, context: Context) -> DrawEvaluator:
        """The evaluator of the function with ``context.draw``; the batch is not used.

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
    """Runs an estimate that draws its own batches, once for each replication."""

    estimator: DrawEstimator
    context: Context
    draw: Draw
    notes: tuple[str, ...] = ()
    most: int | None = MAX_LOOPED

    def rows(self, batch: Trajectories) -> Rows:
        """One estimate for each replication of ``batch``, which holds nothing else."""
        runs = [self.estimator.run(self.draw, self.context) for _ in range(len(batch.actions))]
        return Rows.of_dense(np.stack(runs))


Estimator = SurrogateEstimator | CallableEstimator | DrawEstimator


def from_surrogate(function: Surrogate, *, order: int, name: str | None = None) -> Estimator:
    """The estimator that differentiates a surrogate objective.

    Args:
        function: maps a `stochastic.Record` to a scalar tensor; it must not draw random numbers or
            change its record.
        order: how often it is differentiated: 1, 2 or 3.
        name: the name in reports (default: the function's).

    Returns:
        The estimator.

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
    """The estimator whose estimates a function computes directly.

    Args:
        function: maps a batch ``[N, H]`` of `Trajectories` and theta to an array with theta's axes
            ``order`` times; it may use numpy, torch or anything else.
        order: the order of the derivative that it estimates: 1, 2 or 3.
        name: the name in reports (default: the function's).

    Returns:
        The estimator.

    Raises:
        ValueError: an order that is not 1, 2 or 3.

    >>> from_callable(lambda batch, theta: 0 * theta, order=1, name="nothing").name
    'nothing'
    """
    return CallableEstimator(function, _order(order), name or name_of(function))


def from_draws(
    function: Callable[[Draw, FloatArray], Any], *, order: int, name: str | None = None
) -> Estimator:
    """The estimator whose function draws its own batches, at parameters that it computes: a
    meta-gradient through sampled inner steps, for example.

    Args:
        function: maps ``draw`` and theta to an array with theta's axes ``order`` times;
            ``draw(theta, n)`` gives a fresh batch ``[n, H]`` at any parameters.
        order: the order of the derivative that it estimates: 1, 2 or 3.
        name: the name in reports (default: the function's).

    Returns:
        The estimator.

    Raises:
        ValueError: an order that is not 1, 2 or 3.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. 4, is such an estimate.

    >>> from_draws(lambda draw, theta: draw(theta, 1).rewards.sum() * theta, order=1).draws_itself
    True
    """
    return DrawEstimator(function, _order(order), name or name_of(function))


def estimate(estimator: Estimator, batch: Trajectories, context: Context) -> FloatArray:
    """The estimates from a batch, one for each replication.

    Args:
        estimator: from `from_surrogate` or `from_callable`.
        batch: trajectories ``[..., N, H]``.
        context: what else the estimate depends on.

    Returns:
        An array ``[..., *theta's axes]``, with theta's axes once for each order.

    Raises:
        ValueError: the estimator draws its own batches and the context has no ``draw``, or it
            misbehaves (see `prepare`).
    """
    leading = batch.shape[:-2]
    flat = batch.reshape(int(np.prod(leading)), batch.shape[-2])
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


def inexactness(evaluator: Evaluator) -> Imprecision:
    """An evaluator's ``imprecision``; without this attribute, float64 throughout is assumed."""
    imprecision: object = getattr(evaluator, "imprecision", PRECISE)
    return imprecision if isinstance(imprecision, Imprecision) else PRECISE


def _imprecision(call: SurrogateCall, tensors: Tensors) -> Imprecision:
    try:
        return imprecision_of(call, tensors)
    except Exception:  # `probe` calls the function again, and says what is wrong
        return PRECISE


def _probed(batch: Trajectories) -> Trajectories:
    """Some replications that differ: the first, the middle, the last, and the longest."""
    count = len(batch.actions)
    longest = int(np.argmax(batch.alive.reshape(count, -1).sum(axis=1)))
    return batch[sorted({0, count - 1, count // 2, longest})]


def _order(order: int) -> int:
    if whole_number("order", order, at_least=1) > 3:
        raise ValueError(f"order: expected 1, 2 or 3, got {order}")
    return int(order)
