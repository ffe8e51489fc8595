"""Sampled penalties for leaving a reference policy, and sampled entropy, one number a step.

With ``x = log pi(a|s) - log pi_ref(a|s)`` at the sampled action, three estimates of the divergence
``KL(pi || pi_ref)`` are in use: ``k1 = x``, ``k2 = x^2 / 2`` and ``k3 = exp(-x) - 1 + x``. The mean
of k1 and of k3 is the divergence, but their *gradients* depend on how they are used. Differentiated
as a loss, on policy and not divided by lengths, k1 has mean gradient 0 at each visited state, k2
that of ``KL(pi || pi_ref)``, and k3 that of ``KL(pi_ref || pi)``. Subtracted from the return, as
data, k1 gives the gradient of the penalised return; k2 and k3 do not.

Source: J. Schulman, *Approximating KL Divergence*, 2020 (the names and values).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradbias.stochastic.rollouts.records import Record

StepPenalty = Callable[[Record], Tensor]
"""A function of a record that gives the penalty of each step, ``[N, H]``."""


def _log_ratio(record: Record) -> Tensor:
    """``[N, H]``: log pi - log pi_ref of the actions taken."""
    if record.reference_log_policy is None:
        raise ValueError("reference: expected a reference policy for a KL penalty, got none")
    chosen = record.reference_log_policy.gather(-1, record.actions[..., None])[..., 0]
    return record.log_probs - chosen


def k1(record: Record) -> Tensor:
    """The log-ratio log pi - log pi_ref, whose mean is KL(pi || pi_ref).

    Args:
        record: one replication, with a reference policy.

    Returns:
        The penalty of each step, ``[N, H]``.

    Raises:
        ValueError: the record has no reference policy.

    Source: Schulman 2020.
    """
    return _log_ratio(record)


def k2(record: Record) -> Tensor:
    """Half the square of log pi - log pi_ref; as a loss its gradient is KL(pi || pi_ref)'s.

    Args:
        record: one replication, with a reference policy.

    Returns:
        The penalty of each step, ``[N, H]``.

    Raises:
        ValueError: the record has no reference policy.

    Source: Schulman 2020.
    """
    return _log_ratio(record) ** 2 / 2


def k3(record: Record) -> Tensor:
    """pi_ref / pi - 1 + log pi - log pi_ref, never negative, whose mean is KL(pi || pi_ref).

    Args:
        record: one replication, with a reference policy.

    Returns:
        The penalty of each step, ``[N, H]``.

    Raises:
        ValueError: the record has no reference policy.

    Source: Schulman 2020.
    """
    ratio = _log_ratio(record)
    return torch.exp(-ratio) - 1 + ratio


def negative_entropy(record: Record) -> Tensor:
    """The log-probability log pi, whose mean is minus the entropy: as a penalty, an entropy bonus.

    Args:
        record: one replication.

    Returns:
        The penalty of each step, ``[N, H]``.

    Raises:
        Nothing: no reference policy is needed.
    """
    return record.log_probs
