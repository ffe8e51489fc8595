"""Policy-gradient losses of language-model fine-tuning: a batch is a group of answers.

Every trajectory has one advantage, from its whole return and the others'. That couples the batch,
so the mean of such a gradient estimate depends on the size N of the group. On policy (and at order
1: no Hessian of these losses is the return's):

- a leave-one-out baseline is unbiased;
- the group's mean as a baseline scales the gradient by (N - 1) / N, and no more;
- division by the group's deviation is a scale that depends on the policy, where returns take two
  values (right and wrong); with three or more it changes the direction as well;
- division by each trajectory's own length biases it where lengths vary.

Off policy a ratio for each step, clipped or not, is biased over more than one step.

Source: RLOO: Kool et al. 2019, Ahmadian et al. 2024; GRPO: Shao et al. 2024 (DeepSeekMath), eq. 3;
without deviation and length: Liu et al. 2025 (Dr. GRPO); the clipped ratio: Schulman et al. 2017
(PPO), eq. 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from gradbias.analytic.utils.validation import positive_number
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.surrogates.off_policy import log_ratios
from gradbias.stochastic.surrogates.penalties import StepPenalty
from gradbias.stochastic.surrogates.returns import discounts


class Baseline(Enum):
    """What is taken off each trajectory's return."""

    NONE = "nothing"
    GROUP_MEAN = "the mean of the group's returns"
    LEAVE_ONE_OUT = "the mean of the others' returns"


class Length(Enum):
    """What the steps of a trajectory are divided by before the mean over trajectories."""

    NONE = "nothing"
    TRAJECTORY = "the trajectory's own length"
    GROUP = "the mean length of the group"


@dataclass(frozen=True)
class Penalty:
    """``coefficient`` times the sum over steps, not discounted, of ``step`` (such as
    `penalties.k1`): taken off the return, as data, or with ``as_loss`` off the objective,
    differentiated (then divided by lengths like the rest).
    """

    step: StepPenalty
    coefficient: float
    as_loss: bool = False


@dataclass(frozen=True)
class GroupRelative:
    """mean_i sum_t min(rho A_i, clip(rho) A_i), rho = pi / pi_behaviour, A_i from whole returns.

    ``normalise`` divides advantages by the group's (sample) deviation plus ``epsilon``.
    ``clip=None`` leaves the ratio as it is; on policy a clip does nothing to the gradient. See the
    module for what is unbiased; the defaults are RLOO's.

    Raises:
        ValueError: a clip that is not positive; when called, one trajectory with a baseline that
            needs others.
    """

    baseline: Baseline = Baseline.LEAVE_ONE_OUT
    normalise: bool = False
    length: Length = Length.NONE
    clip: float | None = None
    penalty: Penalty | None = None
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        if self.clip is not None:
            positive_number("clip", self.clip)

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one group."""
        advantages = self._advantages(record)[:, None]
        ratios = torch.exp(log_ratios(record))
        terms = ratios * advantages
        if self.clip is not None:
            clipped = ratios.clamp(1.0 - self.clip, 1.0 + self.clip)
            terms = torch.minimum(terms, clipped * advantages)
        if self.penalty is not None and self.penalty.as_loss:
            terms = terms - self.penalty.coefficient * self.penalty.step(record)
        return ((terms * record.alive).sum(dim=-1) / self._lengths(record)).mean()

    def _advantages(self, record: Record) -> Tensor:
        """``[N]``: data."""
        returns = (discounts(record) * record.rewards).sum(dim=-1)
        if self.penalty is not None and not self.penalty.as_loss:
            steps = self.penalty.step(record).detach() * record.alive
            returns = returns - self.penalty.coefficient * steps.sum(dim=-1)
        count = returns.shape[0]
        alone = count < 2 and (self.baseline is Baseline.LEAVE_ONE_OUT or self.normalise)
        if alone:
            raise ValueError(f"trajectories: expected a group of at least 2, got {count}")
        advantages = returns
        if self.baseline is Baseline.GROUP_MEAN:
            advantages = returns - returns.mean()
        if self.baseline is Baseline.LEAVE_ONE_OUT:
            advantages = returns - (returns.sum() - returns) / (count - 1)
        if self.normalise:
            advantages = advantages / (returns.std() + self.epsilon)
        return advantages

    def _lengths(self, record: Record) -> Tensor:
        """``[N]``, or a number."""
        lengths = record.alive.sum(dim=-1).clamp(min=1).to(record.rewards.dtype)
        if self.length is Length.NONE:
            return torch.ones_like(lengths)
        return lengths if self.length is Length.TRAJECTORY else lengths.mean()


rloo = GroupRelative()
grpo = GroupRelative(Baseline.GROUP_MEAN, normalise=True, length=Length.TRAJECTORY, clip=0.2)
dr_grpo = GroupRelative(Baseline.GROUP_MEAN, clip=0.2)
