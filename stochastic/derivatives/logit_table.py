"""A surrogate's derivatives in the table of logits, for batches with more visits than the table has
rows.

The k-th derivative of a batch of N trajectories has (N H A)^k entries in its log-probabilities, and
takes (N H A)^(k - 1) reverse passes. In a table of R rows it has (R A)^k entries. Along k - 1
directions it takes k passes, and no more memory than the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.derivatives.assembly import Rows, Visits
from gradbias.stochastic.derivatives.coefficients import SurrogateCall, evaluated, jacobian
from gradbias.stochastic.rollouts.records import LEAVES, Tensors


@dataclass(frozen=True, eq=False)
class TableDerivatives:
    """The derivatives of B surrogates in the table of logits ``[R, A]`` (with two players, the rows
    of the second player's table come last).

    Attributes:
        values: the surrogates, ``[B]``.
        table: a copy of the table for each of them, ``[B, R, A]``.
        leaves: the records' log-probabilities, as functions of the table.
    """

    values: Tensor
    table: Tensor
    leaves: Tensors

    @classmethod
    def of(
        cls,
        call: SurrogateCall,
        tensors: Tensors,
        visits: Visits,
        logits: FloatArray,
        *,
        vmapped: bool,
    ) -> TableDerivatives:
        """The surrogates of the records ``tensors``, evaluated with log-probabilities of the table.

        Raises:
            SurrogateError: as `stochastic.derivatives.coefficients.probe`.
        """
        table = torch.from_numpy(np.array(logits)).expand(len(visits.rows), -1, -1).contiguous()
        table.requires_grad_()
        leaves = _leaves(tensors, visits, table)
        values, _ = evaluated(call, tensors | leaves, vmapped=vmapped)
        return cls(values, table, leaves)

    def rows(self, order: int, shape: tuple[int, ...]) -> Rows:
        """The derivatives of an order, of ``shape``."""
        gradients = [self._gradient(leaf).detach() for leaf in self.leaves.values()]
        largest = max(float(gradient.abs().max()) for gradient in gradients)
        latest = self._gradient(self.table).flatten(1)
        for k in range(2, order + 1):
            latest = jacobian(latest, [self.table], create_graph=k < order)
        values = latest.detach().flatten(1).numpy()
        return Rows(values, None, shape, max(largest, float(np.abs(values).max(initial=0.0))))

    def along(self, directions: FloatArray) -> FloatArray:
        """The derivatives ``[B, R A]`` of order k + 1, along ``directions [k, R, A]``."""
        latest = self._gradient(self.table)
        for direction in torch.from_numpy(directions):
            latest = _gradient((latest * direction).sum(), self.table)
        gradients: FloatArray = latest.detach().flatten(1).numpy()
        return gradients

    def _gradient(self, inputs: Tensor) -> Tensor:
        return _gradient(self.values.sum(), inputs)


def _gradient(value: Tensor, inputs: Tensor) -> Tensor:
    """The gradient, which can be differentiated again; 0 where the value does not depend on it."""
    if not value.requires_grad:
        return torch.zeros_like(inputs)
    (gradient,) = torch.autograd.grad(
        value, [inputs], create_graph=True, allow_unused=True, materialize_grads=True
    )
    return gradient


def _leaves(tensors: Tensors, visits: Visits, table: Tensor) -> Tensors:
    """The records' log-probabilities as functions of ``table [B, R, A]``."""
    rows, actions = (torch.from_numpy(np.array(a)) for a in (visits.rows, visits.actions))
    log_policy = torch.log_softmax(table, dim=-1)[torch.arange(len(rows))[:, None], rows]
    log_policy = log_policy * torch.from_numpy(np.array(visits.alive))[..., None]
    chosen = log_policy.gather(-1, actions[..., None])[..., 0]
    leaves = {}
    for name in LEAVES:
        if name in tensors:
            of_player = slice(visits.own, None) if "." in name else slice(0, visits.own)
            visited = chosen if name.endswith("log_probs") else log_policy
            leaves[name] = visited[:, of_player].reshape(tensors[name].shape)
    return leaves
