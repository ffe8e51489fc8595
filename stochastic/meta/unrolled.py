"""Multi-step meta-gradients of any pair of losses: n-step, mixed, traced and averaged.

The inner loop is ``theta_{j+1} = theta_j - alpha grad L(theta_j, eta, batch_j)``, with meta-
parameters eta and inner loss L; L' is the outer loss. One unroll and one sweep back give the
gradient in eta of ``sum_i c_i L'(theta_i, batch'_i)``:

    lambda_i = c_i T_i + (I + H_i) lambda_{i+1},    gradient = sum_i N_{i-1}^T lambda_i,
    T_i = dL'/dtheta_i,    H_i = -alpha L_{theta theta},    N_i = -alpha L_{theta eta},

They take Hessian-vector products alone, so that a mix costs no more sweeps than its n-step
meta-gradient. The accumulative trace replaces the second term of lambda_i by ``mu lambda_{i+1}``,
and needs no Hessian.

Batches are data: as in the source, it is not differentiated that their distribution depends on
theta (and so on eta).

Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, eqs. (5), (9), (10),
(11), App. D.1.
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
_MAX_STEP_SIZE = 1e300


def replayed(batches: Iterable[Batch]) -> Callable[[Tensor], Batch]:
    """A draw that hands out recorded batches in their order, whatever the parameters are.

    Args:
        batches: the batches.

    Returns:
        A function of theta, for the methods of `Unroll`.

    Raises:
        ValueError: (when called) no batch is left.

    >>> draw = replayed(["first", "second"])
    >>> draw(torch.zeros(1)), draw(torch.ones(1))
    ('first', 'second')
    """
    left = iter(batches)

    def draw(_: Tensor) -> Batch:
        for batch in left:
            return batch
        raise ValueError("batches: expected one for each draw, got fewer")

    return draw


@dataclass(frozen=True, eq=False)
class Unroll(Generic[Batch]):
    """An inner loop of gradient steps, and the meta-gradients of an outer *loss* after it.

    Attributes:
        inner_loss: ``inner_loss(theta, eta, batch)``, a scalar tensor (any shapes of theta, eta).
        outer_loss: ``outer_loss(theta, batch)``, a scalar tensor.
        step_size: alpha.
        trace_decay: mu of the accumulative trace; None differentiates the inner steps exactly.

    Raises:
        ValueError: a step size that is not finite, or mu outside [0, 1].
    """

    inner_loss: Callable[[Tensor, Tensor, Batch], Tensor]
    outer_loss: Callable[[Tensor, Batch], Tensor]
    step_size: float
    trace_decay: float | None = None

    def __post_init__(self) -> None:
        size = real_number("step_size", self.step_size, low=-_MAX_STEP_SIZE, high=_MAX_STEP_SIZE)
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
        """The n-step meta-gradient (eq. 5).

        Args:
            theta: theta_0, where the unroll starts.
            meta_parameters: eta.
            draw_inner: gives the batch of an inner step at the (detached) theta_0 .. theta_{n-1}.
            draw_outer: gives the batch of an outer loss at the iterates whose loss counts.
            steps: n, the number of inner steps.

        Returns:
            The meta-gradient, shaped like eta.

        Raises:
            ValueError: as `weighted`.
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
        """The kappa-mix of the i-step meta-gradients, i = 1..n (eq. 10), from one unroll.

        Args:
            theta: theta_0, where the unroll starts.
            meta_parameters: eta.
            draw_inner: gives the batch of an inner step at the (detached) theta_0 .. theta_{n-1}.
            draw_outer: gives the batch of an outer loss at the iterates whose loss counts.
            steps: n, the number of inner steps.
            kappa: in [0, 1]; None is 1 - 1/n.

        Returns:
            The mix, shaped like eta.

        Raises:
            ValueError: as `weighted`, or kappa outside [0, 1].
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
        """The weighted sum of the i-step meta-gradients, i = 1..n.

        Args:
            theta: theta_0, where the unroll starts.
            meta_parameters: eta.
            draw_inner: gives the batch of an inner step at the (detached) theta_0 .. theta_{n-1}.
            draw_outer: gives the batch of an outer loss at the iterates whose loss counts.
            weights: one for each of the n steps, ``[n]``; no outer batch is drawn where it is 0.

        Returns:
            The sum, shaped like eta.

        Raises:
            ValueError: weights are not ``[n]``; a loss is no finite scalar, or does not depend on
                theta; at no step does the inner gradient depend on eta.
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
                counts = share != 0.0
                outer.append(share * self._outer_slope(here, draw_outer(here)) if counts else None)
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
        for step, slope in zip(reversed(inner), reversed(outer), strict=True):
            if slope is not None:
                adjoint = adjoint + slope
            in_theta, meta = step.products(adjoint, with_hessian=self.trace_decay is None)
            if meta is not None:
                total = (0.0 if total is None else total) - self.step_size * meta
            if self.trace_decay is not None:
                adjoint = self.trace_decay * adjoint
            elif in_theta is not None:
                adjoint = adjoint - self.step_size * in_theta
        if total is None:
            raise ValueError(
                "inner_loss: expected its gradient in theta to depend on eta, got none that does"
            )
        return total


@dataclass(frozen=True, eq=False)
class _InnerStep:
    """The parameters before a step, and the gradient of the inner loss there, with its graph."""

    theta: Tensor
    meta: Tensor
    slope: Tensor

    def products(
        self, cotangent: Tensor, *, with_hessian: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """``L_{theta theta} cotangent`` (None without ``with_hessian``) and ``L_{eta theta}
        cotangent``; None for a product that is identically 0.
        """
        if not self.slope.requires_grad:
            return None, None
        leaves = [self.meta, self.theta] if with_hessian else [self.meta]
        products = torch.autograd.grad(self.slope, leaves, cotangent, allow_unused=True)
        return (products[1] if with_hessian else None), products[0]


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
            gradient: Tensor = slope
            return gradient
    raise ValueError(f"{name}: expected a function of theta, got one that does not depend on it")


@dataclass(frozen=True, eq=False)
class Average:
    """The average of R independent replications.

    Attributes:
        mean: of the replications, shaped like one of them.
        variance: the sample variance of one replication, by component.
        replications: R.
    """

    mean: Tensor
    variance: Tensor
    replications: int

    @property
    def standard_error(self) -> Tensor:
        """The standard error of the mean, by component."""
        return (self.variance / self.replications).sqrt()


def monte_carlo_average(estimate: Callable[[], Tensor], *, replications: int) -> Average:
    """The Monte Carlo meta-gradient (eq. 9): the mean of independent estimates.

    Args:
        estimate: gives a new estimate when called, such as ``lambda: unroll.n_step(...)``.
        replications: R, the number of calls.

    Returns:
        Mean, variance and R.

    Raises:
        ValueError: fewer than two replications, which have no variance.

    Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, eq. (9).
    """
    count = whole_number("replications", replications, at_least=2)
    estimates = torch.stack([estimate() for _ in range(count)])
    return Average(estimates.mean(dim=0), estimates.var(dim=0), count)
