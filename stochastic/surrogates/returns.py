"""The parts of surrogates: returns and advantages along a record, and the probabilities' factors
that carry the derivative.

A step's probability is that of all actions chosen in it: in a game, both players', so that a
surrogate of one player's return is differentiable in both players' parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradbias.stochastic.rollouts.records import Record


def discounts(record: Record) -> Tensor:
    """``[H]``: gamma^t."""
    steps = torch.arange(record.rewards.shape[-1], device=record.rewards.device)
    return as_made_for(record.rewards, record.discount) ** steps


def as_made_for(like: Tensor, value: Any) -> Tensor:
    """``value`` as a tensor of the dtype and on the device of ``like``."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def rewards_to_go(record: Record) -> Tensor:
    """``[N, H]``: G_t = sum_{k >= t} gamma^(k-t) r_k."""
    return _discounted_suffix_sums(record.rewards, record.discount)


def generalised_advantages(
    record: Record, gae_lambda: float | Tensor, discount: float | Tensor | None = None
) -> Tensor:
    """``[N, H]``: GAE(lambda) with the record's values (Schulman et al. 2016, eq. 16).

    The record's discount is used unless another is given; the value after the last step is the
    bootstrap ``values[:, H]``.
    """
    gamma = record.discount if discount is None else discount
    targets = record.rewards + gamma * record.values[..., 1:]
    errors = (targets - record.values[..., :-1]) * record.alive
    return _discounted_suffix_sums(errors, gamma * gae_lambda)


def log_probabilities(record: Record) -> Tensor:
    """``[N, H]``: the log-probability of each step's action, in a game of both players'."""
    if record.other is None:
        return record.log_probs
    return record.log_probs + record.other.log_probs


def probability_ratios(record: Record) -> Tensor:
    """``[N, H]``: pi / stop(pi) of each step: its value is 1 and its gradient the score."""
    logarithms = log_probabilities(record)
    return torch.exp(logarithms - logarithms.detach())


def path_ratios(record: Record) -> Tensor:
    """``[N, H]``: W_t, the product of the probability ratios up to t."""
    logarithms = log_probabilities(record)
    return torch.exp(torch.cumsum(logarithms - logarithms.detach(), dim=-1))


def before_each(ratios: Tensor) -> Tensor:
    """``[N, H]``: W_{t-1} from W_t; 1 before the first step."""
    return torch.cat([torch.ones_like(ratios[..., :1]), ratios[..., :-1]], dim=-1)


def path_ratio_steps(record: Record) -> Tensor:
    """``[N, H]``: W_t - W_{t-1}."""
    ratios = path_ratios(record)
    return ratios - before_each(ratios)


def _discounted_suffix_sums(terms: Tensor, factor: float | Tensor) -> Tensor:
    """``[N, H]``: sum_{k >= t} factor^(k-t) terms_k."""
    # A triangular matrix, because a division by factor^t would fail at factor 0.
    steps = torch.arange(terms.shape[-1], device=terms.device)
    gaps = steps[:, None] - steps[None, :]
    powers = as_made_for(terms, factor) ** gaps.clamp(min=0)
    return terms @ torch.where(gaps >= 0, powers, torch.zeros_like(powers))
