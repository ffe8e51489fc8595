"""Multi-step meta-gradients of any pair of losses: n-step, mixed, traced and monte_carlo_average.

The inner loop is ``theta_{j+1} = theta_j - alpha grad L(theta_j, eta, batch_j)``. The gradient in
eta of ``sum_i c_i L'(theta_i, batch'_i)`` comes from one unroll and one sweep back,

    lambda_i = c_i T_i + (I + H_i) lambda_{i+1},    gradient = sum_i N_{i-1}^T lambda_i,
    T_i = dL'/dtheta_i,    H_i = -alpha L_{theta theta},    N_i = -alpha L_{theta eta},

with Hessian-vector products alone. A mix so costs no more sweeps than its n-step meta-gradient. The
accumulative trace puts ``mu lambda_{i+1}`` for the second term, and needs no Hessian.

Batches are data: that their law moves with theta (and so with eta) is not differentiated, as in the
source. Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, eqs. (5), (9),
(10), (11), App. D.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradbias.analytic.problems.mixing import mixing_weights
from gradbias.analytic.utils.validation import frozen_array, real_number, whole_number

Batch = TypeVar("Batch")
_ANY = 1e300


def replayed(batches: Iterable[Batch]) -> Callable[[Tensor], Batch]:
    """A draw that hands out given ``batches`` in their order, wherever the parameters are.

    Raises:
        ValueError: (when called) no batch is left.
    """
    left = iter(batches)

    def draw(_: Tensor) -> Batch:
        for batch in left:
            return batch
        raise ValueError("batches: expected one for each draw, got fewer")

    return draw


@dataclass(frozen=True, eq=False)
class Unroll(Generic[Batch]):
    """An inner loop of gradient steps on ``inner_loss(theta, eta, batch)``, judged by
    ``outer_loss(theta, batch)``; both return scalar tensors, theta and eta have any shape.

    ``trace_decay`` is mu of the accumulative trace; None differentiates the inner steps exactly.
    All gradients are of the outer *loss*. The draws given to the methods are called with the
    (detached) parameters at which a batch is needed: ``draw_inner`` at theta_0, ..., theta_{n-1},
    ``draw_outer`` at each iterate that is judged.

    Raises:
        ValueError: a step size that is not finite, or mu outside [0, 1].
    """

    inner_loss: Callable[[Tensor, Tensor, Batch], Tensor]
    outer_loss: Callable[[Tensor, Batch], Tensor]
    step_size: float
    trace_decay: float | None = None

    def __post_init__(self) -> None:
        size = real_number("step_size", self.step_size, low=-_ANY, high=_ANY)
        object.__setattr__(self, "step_size", size)
        if self.trace_decay is not None:
            real_number("trace_decay", self.trace_decay, low=0.0, high=1.0)

    def n_step(
        self,
        theta: Tensor,
        meta_parameters: Tensor,
        draw_inner: Callable[[Tensor], Batch],
        draw_outer: Callable[[Tensor], Batch],
        *,
        steps: int,
    ) -> Tensor:
        """The n-step meta-gradient, shaped like the meta-parameters (eq. 5). Raises ValueError as
        `weighted`.
        """
        last = np.eye(whole_number("steps", steps, at_least=1))[-1]
        return self.weighted(theta, meta_parameters, draw_inner, draw_outer, weights=last)

    def mixed(
        self,
        theta: Tensor,
        meta_parameters: Tensor,
        draw_inner: Callable[[Tensor], Batch],
        draw_outer: Callable[[Tensor], Batch],
        *,
        steps: int,
        kappa: float | None = None,
    ) -> Tensor:
        """The kappa-mix (eq. 10; None is 1 - 1/n), shaped like the meta-parameters, from one
        unroll. Raises ValueError as `weighted`, or if kappa lies outside [0, 1].
        """
        weights = mixing_weights(steps, kappa)
        return self.weighted(theta, meta_parameters, draw_inner, draw_outer, weights=weights)

    def weighted(
        self,
        theta: Tensor,
        meta_parameters: Tensor,
        draw_inner: Callable[[Tensor], Batch],
        draw_outer: Callable[[Tensor], Batch],
        *,
        weights: npt.ArrayLike,
    ) -> Tensor:
        """The sum of the i-step meta-gradients times ``weights [n]``, shaped like the
        meta-parameters. An iterate of weight 0 is not judged.

        Raises:
            ValueError: weights are not ``[n]``; a loss is no finite scalar, or does not depend on
                theta; at no step does the inner gradient depend on them.
        """
        shares = frozen_array("weights", weights, (None,))
        if shares.size == 0:
            raise ValueError("weights: expected one for each step, got none")
        inner, outer = [], []
        with torch.enable_grad():
            here = theta.detach()
            for share in shares.tolist():
                step = self._inner_step(here, meta_parameters, draw_inner(here))
                inner.append(step)
                here = here - self.step_size * step.slope.detach()
                judged = share != 0.0
                outer.append(share * self._outer_slope(here, draw_outer(here)) if judged else None)
        return self._sweep_back(inner, outer)

    def _inner_step(self, theta: Tensor, eta: Tensor, batch: Batch) -> _InnerStep:
        leaf = theta.detach().clone().requires_grad_()
        meta = eta.detach().clone().requires_grad_()
        loss = _scalar("inner_loss", self.inner_loss(leaf, meta, batch))
        return _InnerStep(leaf, meta, _slope("inner_loss", loss, leaf, create_graph=True))

    def _outer_slope(self, theta: Tensor, batch: Batch) -> Tensor:
        leaf = theta.detach().clone().requires_grad_()
        return _slope("outer_loss", _scalar("outer_loss", self.outer_loss(leaf, batch)), leaf)

    def _sweep_back(self, inner: list[_InnerStep], outer: list[Tensor | None]) -> Tensor:
        adjoint = torch.zeros_like(inner[0].theta)
        total: Tensor | None = None
        for step, judged in zip(reversed(inner), reversed(outer), strict=True):
            if judged is not None:
                adjoint = adjoint + judged
            through, meta = step.products(adjoint, with_hessian=self.trace_decay is None)
            if meta is not None:
                total = (0.0 if total is None else total) - self.step_size * meta
            if self.trace_decay is not None:
                adjoint = self.trace_decay * adjoint
            elif through is not None:
                adjoint = adjoint - self.step_size * through
        if total is None:
            raise ValueError(
                "inner_loss: expected its gradient in theta to depend on eta, got none that does"
            )
        return total


@dataclass(frozen=True, eq=False)
class _InnerStep:
    """Where a step was taken, and the inner loss's slope there, with its graph."""

    theta: Tensor
    meta: Tensor
    slope: Tensor

    def products(
        self, cotangent: Tensor, *, with_hessian: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """``L_{theta theta} cotangent`` and ``L_{eta theta} cotangent``; None for those that are
        identically 0 or not asked for.
        """
        if not self.slope.requires_grad:
            return None, None
        asked = [self.meta, self.theta] if with_hessian else [self.meta]
        found = torch.autograd.grad(self.slope, asked, cotangent, allow_unused=True)
        return (found[1] if with_hessian else None), found[0]


def _scalar(name: str, loss: object) -> Tensor:
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"{name}: expected a scalar tensor, got {got}")
    if not torch.isfinite(loss):
        raise ValueError(f"{name}: expected a finite number, got {loss.item()}")
    return loss


def _slope(name: str, loss: Tensor, leaf: Tensor, *, create_graph: bool = False) -> Tensor:
    if loss.requires_grad:
        (slope,) = torch.autograd.grad(loss, leaf, create_graph=create_graph, allow_unused=True)
        if slope is not None:
            found: Tensor = slope
            return found
    raise ValueError(f"{name}: expected a function of theta, got one that does not depend on it")


@dataclass(frozen=True, eq=False)
class Average:
    """Of R independent replications: their ``mean``, and the ``variance`` of one of them."""

    mean: Tensor
    variance: Tensor
    replications: int

    @property
    def standard_error(self) -> Tensor:
        """Of the mean, by component."""
        return (self.variance / self.replications).sqrt()


def monte_carlo_average(estimate: Callable[[], Tensor], *, replications: int) -> Average:
    """The Monte Carlo meta-gradient (eq. 9): the mean of so many independent calls.

    Raises:
        ValueError: fewer than two replications, which have no variance.
    """
    count = whole_number("replications", replications, at_least=2)
    found = torch.stack([estimate() for _ in range(count)])
    return Average(found.mean(dim=0), found.var(dim=0), count)
