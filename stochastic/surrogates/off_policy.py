"""Surrogates for trajectories that another policy drew, by importance sampling.

pi is the policy and mu the one that drew the actions. The ratios ``pi / mu`` are differentiable in
pi, so that an estimate of the return that is unbiased for every pi has unbiased derivatives of
every order. It is unbiased if each reward is multiplied by all ratios up to it; it is not if only
one step's ratio is used, as Sec. 4.4 prints it (Sec. 5.2: all ratios), or if ratios are clipped.

Source: off-policy DiCE and the per-step form: *A Theoretical Understanding of Gradient Bias in
Meta-RL*, Secs. 4.4 and 5.2; per-decision importance sampling: Precup et al. 2000.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from gradbias.analytic.utils.validation import choice, positive_number
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.surrogates.returns import discounts


class Ratio(Enum):
    """The steps whose ratios multiply the reward of step t: all, those up to t, or t alone."""

    TRAJECTORY = "trajectory"
    PER_DECISION = "per_decision"
    PER_STEP = "per_step"


@dataclass(frozen=True)
class OffPolicyDice:
    """sum_t gamma^t r_t rho_t: the reweighted return, as a function of the policy.

    In games rho_t has both players' ratios. Derivatives of every order are unbiased with
    ``Ratio.TRAJECTORY`` and ``Ratio.PER_DECISION``. They are biased in general with
    ``Ratio.PER_STEP`` (over more than one step), and with ``max_ratio``, which trades bias for
    variance.

    Attributes:
        ratio: the steps whose ratios rho_t is the product of (a `Ratio` or its value).
        max_ratio: the largest value of rho_t, which is clipped there; None does not clip.

    Raises:
        ValueError: an unknown ratio, or a max_ratio that is not positive.
    """

    ratio: Ratio | str = Ratio.PER_DECISION
    max_ratio: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", choice("ratio", self.ratio, Ratio))
        if self.max_ratio is not None:
            positive_number("max_ratio", self.max_ratio)

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        steps = log_ratios(record)
        if self.ratio is Ratio.TRAJECTORY:
            exponents = steps.sum(dim=-1, keepdim=True)
        elif self.ratio is Ratio.PER_DECISION:
            exponents = torch.cumsum(steps, dim=-1)
        else:
            exponents = steps
        ratios = torch.exp(exponents)
        if self.max_ratio is not None:
            ratios = ratios.clamp(max=self.max_ratio)
        return (discounts(record) * record.rewards * ratios).sum(dim=-1).mean()


def log_ratios(record: Record) -> Tensor:
    """``[N, H]``: log pi(a_t|s_t) - log mu(a_t|s_t), summed over the players; 0 after the end."""
    logarithms = record.log_probs - record.behaviour_log_probs
    if record.other is None:
        return logarithms
    return logarithms + record.other.log_probs - record.other.behaviour_log_probs


def effective_sample_size(record: Record) -> Tensor:
    """The number of on-policy trajectories that the N of a record are worth.

    It is ``(sum w)^2 / sum w^2`` of the trajectories' ratios w. Use it to decide when to draw new
    trajectories: once it falls below a share of N.

    Args:
        record: one replication of N trajectories.

    Returns:
        A scalar tensor between 1 and N.

    Raises:
        Nothing: any record has one.

    Source: Kong 1992.
    """
    logarithms = log_ratios(record).sum(dim=-1)
    return torch.exp(2 * torch.logsumexp(logarithms, 0) - torch.logsumexp(2 * logarithms, 0))


off_policy_dice = OffPolicyDice()
