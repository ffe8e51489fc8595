"""Policies that are torch functions, in place of the tabular softmax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradbias.analytic.utils.validation import FloatArray


@dataclass(frozen=True)
class TorchPolicy:
    """A policy whose logits are any torch function of flat parameters.

    It implements `analytic.policies.softmax.Policy`, so that exact and sampled derivatives are in
    the parameters. The k-th derivative of the logits has S * A * p^k entries.

    Attributes:
        forward: maps parameters ``[p]``, a float64 tensor, to logits ``[S, A]``.
        n_parameters: p.
    """

    forward: Callable[[Tensor], Tensor]
    n_parameters: int

    def parameter_shape(self, n_states: int, n_actions: int) -> tuple[int, ...]:
        """The parameters' shape ``(p,)``, after a check of the logits' shape.

        Args:
            n_states: S, the number of states.
            n_actions: A, the number of actions.

        Returns:
            ``(p,)``.

        Raises:
            ValueError: the logits do not have shape (S, A).
        """
        shape = tuple(self.forward(torch.zeros(self.n_parameters, dtype=torch.float64)).shape)
        if shape != (n_states, n_actions):
            raise ValueError(f"policy: expected logits ({n_states}, {n_actions}), got {shape}")
        return (self.n_parameters,)

    def logits(self, theta: FloatArray) -> FloatArray:
        """The logits ``[S, A]`` at theta ``[p]``."""
        logits: FloatArray = self.forward(torch.tensor(np.array(theta))).detach().numpy()
        return logits

    def logit_derivatives(self, theta: FloatArray, order: int) -> tuple[FloatArray, ...]:
        """Derivatives of the logits in theta, by reverse mode.

        Args:
            theta: the parameters, ``[p]``.
            order: the highest order.

        Returns:
            Derivatives 1..order, the k-th ``[S * A, p, ..., p]``.
        """

        def flat(parameters: Tensor) -> Tensor:
            return self.forward(parameters).flatten()

        derivatives, function = [], flat
        for _ in range(order):
            function = torch.func.jacrev(function)
            derivatives.append(function(torch.tensor(np.array(theta))).detach().numpy())
        return tuple(derivatives)
