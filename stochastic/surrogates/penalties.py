"""Sampled penalties for leaving a reference policy, and sampled entropy, one number a step.

With ``x = log pi(a|s) - log pi_ref(a|s)`` at the sampled action, three estimates of the divergence
``KL(pi || pi_ref)`` are in use: ``k1 = x``, ``k2 = x^2 / 2`` and ``k3 = exp(-x) - 1 + x``. k1 and
k3 have its value as their mean; what *gradient* they make is another matter, and depends on where
they are put. Differentiated as a loss, on policy and undivided by lengths, k1 has mean gradient 0
at each visited state, k2 that of ``KL(pi || pi_ref)``, and k3 that of ``KL(pi_ref || pi)``. Taken
off the return, as data, k1 makes the gradient of the penalised return; k2 and k3 do not.

Source: J. Schulman, *Approximating KL Divergence*, 2020 (the names and values).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradbias.stochastic.rollouts.records import Record

StepPenalty = Callable[[Record], Tensor]
"""``[N, H]`` of a record."""


def _log_ratio(record: Record) -> Tensor:
    if record.reference_log_policy is None:
        raise ValueError("reference: expected a reference policy for a KL penalty, got none")
    chosen = record.reference_log_policy.gather(-1, record.actions[..., None])[..., 0]
    return record.log_probs - chosen


def k1(record: Record) -> Tensor:
    """``[N, H]``: log pi - log pi_ref. Its mean is KL(pi || pi_ref)."""
    return _log_ratio(record)


def k2(record: Record) -> Tensor:
    """``[N, H]``: half the square of log pi - log pi_ref."""
    return _log_ratio(record) ** 2 / 2


def k3(record: Record) -> Tensor:
    """``[N, H]``: pi_ref / pi - 1 + log pi - log pi_ref, never negative. Its mean is KL(pi ||
    pi_ref).
    """
    ratio = _log_ratio(record)
    return torch.exp(-ratio) - 1 + ratio


def negative_entropy(record: Record) -> Tensor:
    """``[N, H]``: log pi, whose mean is minus the entropy; as a penalty it is an entropy bonus."""
    return record.log_probs
