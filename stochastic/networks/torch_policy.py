"""Torch policies in place of the tabular one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradbias.analytic.utils.validation import FloatArray


@dataclass(frozen=True)
class TorchPolicy:
    """A policy whose logits ``[S, A]`` are any torch function of flat parameters ``[p]``.

    Implements `analytic.policies.softmax.Policy`, so both the exact and the sampled derivatives are
    in p. Cost: the k-th derivative of the logits has S * A * p^k entries.
    """

    forward: Callable[[Tensor], Tensor]
    n_parameters: int

    def parameter_shape(self, n_states: int, n_actions: int) -> tuple[int, ...]:
        """``(p,)``. Raises ValueError if the logits do not have shape (S, A)."""
        shape = tuple(self.forward(torch.zeros(self.n_parameters, dtype=torch.float64)).shape)
        if shape != (n_states, n_actions):
            raise ValueError(f"policy: expected logits ({n_states}, {n_actions}), got {shape}")
        return (self.n_parameters,)

    def logits(self, theta: FloatArray) -> FloatArray:
        """``[S, A]``."""
        logits: FloatArray = self.forward(torch.tensor(np.array(theta))).detach().numpy()
        return logits

    def logit_derivatives(self, theta: FloatArray, order: int) -> tuple[FloatArray, ...]:
        """Derivatives 1..order, the k-th ``[S * A, p, ..., p]``, by reverse mode."""

        def flat(parameters: Tensor) -> Tensor:
            return self.forward(parameters).flatten()

        derivatives, function = [], flat
        for _ in range(order):
            function = torch.func.jacrev(function)
            derivatives.append(function(torch.tensor(np.array(theta))).detach().numpy())
        return tuple(derivatives)
