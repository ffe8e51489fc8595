"""Returns and advantages along a record, the weights that surrogates put on log-probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from stochastic.records import Record


def discounts(record: Record) -> Tensor:
    """``[H]``: gamma^t."""
    steps = torch.arange(record.rewards.shape[-1], dtype=torch.float64)
    return torch.as_tensor(record.discount, dtype=torch.float64) ** steps


def rewards_to_go(record: Record) -> Tensor:
    """``[N, H]``: G_t = sum_{k >= t} gamma^(k-t) r_k."""
    return _discounted_suffix_sums(record.rewards, record.discount)


def generalised_advantages(record: Record, lam: float) -> Tensor:
    """``[N, H]``: GAE(lambda) with the record's values (Schulman et al. 2016, eq. 16).

    The value after the last step is the bootstrap ``values[:, H]``.
    """
    following = record.rewards + record.discount * record.values[..., 1:]
    errors = (following - record.values[..., :-1]) * record.alive
    return _discounted_suffix_sums(errors, record.discount * lam)


def _discounted_suffix_sums(terms: Tensor, factor: float) -> Tensor:
    # A triangular matrix instead of a division by factor^t, which fails at factor 0.
    steps = torch.arange(terms.shape[-1])
    gaps = steps[:, None] - steps[None, :]
    powers = torch.as_tensor(factor, dtype=torch.float64) ** gaps.clamp(min=0)
    return terms @ torch.where(gaps >= 0, powers, torch.zeros_like(powers))
