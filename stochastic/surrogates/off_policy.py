"""Surrogates for trajectories that another policy drew, by importance sampling.

The ratios ``pi / mu`` of the actions' probabilities are differentiable in pi, so an estimate of the
return that is unbiased for every pi has unbiased derivatives of every order: DiCE, off policy.
Where all ratios up to a reward multiply it, that is so; where only the reward's own step does, as
the paper prints it, it is not, and where ratios are cut off, it is not either.

Source: off-policy DiCE and the per-step form: *A Theoretical Understanding of Gradient Bias in
Meta-RL*, Secs. 4.4 and 5.2; per-decision importance sampling: Precup et al. 2000.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from gradbias.analytic.utils.validation import positive_number
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.surrogates.returns import discounts


class Ratio(Enum):
    """Which steps' ratios multiply the reward of step t."""

    TRAJECTORY = "all steps"
    PER_DECISION = "the steps up to t"
    PER_STEP = "step t alone"


@dataclass(frozen=True)
class OffPolicyDice:
    """sum_t gamma^t r_t rho_t: the return, reweighted, as a function of the policy.

    ``ratio`` says what rho_t is a product of; in games both players' ratios are in it. Derivatives
    of every order are unbiased with the first two; in general not with ``Ratio.PER_STEP`` (over
    more than one step), nor with a ``max_ratio`` that cuts rho_t off, which trades bias for
    variance.

    Raises:
        ValueError: ``max_ratio`` that is not positive.
    """

    ratio: Ratio = Ratio.PER_DECISION
    max_ratio: float | None = None

    def __post_init__(self) -> None:
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
    """``[N, H]``: log pi(a_t|s_t) - log mu(a_t|s_t), of both players in a game; 0 after the end."""
    own = record.log_probs - record.behaviour_log_probs
    if record.other is None:
        return own
    return own + record.other.log_probs - record.other.behaviour_log_probs


def effective_sample_size(record: Record) -> Tensor:
    """How many on-policy trajectories the N of a record are worth: ``(sum w)^2 / sum w^2`` of the
    trajectories' ratios w, between 1 and N. Source: Kong 1992.

    A control on how far off policy samples may be: draw anew where it falls below a share of N.
    """
    logarithms = log_ratios(record).sum(dim=-1)
    return torch.exp(2 * torch.logsumexp(logarithms, 0) - torch.logsumexp(2 * logarithms, 0))


off_policy_dice = OffPolicyDice()
