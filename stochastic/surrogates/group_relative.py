"""Policy-gradient losses of language-model fine-tuning: a batch is a group of answers.

Each trajectory has one advantage, computed from its total return and those of the others. This
couples the batch, so that the mean of a gradient estimate depends on the size N of the group. On
policy and at order 1 (no Hessian of these losses is the return's):

- with a leave-one-out baseline the gradient is unbiased;
- with the group's mean as a baseline it is scaled by (N - 1) / N;
- division by the group's standard deviation scales it by a factor that depends on the policy if
  returns take two values (right and wrong); with three or more it changes the direction as well;
- division by each trajectory's own length biases it if lengths vary.

Off policy, one ratio a step, clipped or not, is biased over more than one step.

Source: RLOO: Kool et al. 2019, Ahmadian et al. 2024; GRPO: Shao et al. 2024 (DeepSeekMath), eq. 3;
without deviation and length: Liu et al. 2025 (Dr. GRPO); the clipped ratio: Schulman et al. 2017
(PPO), eq. 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from gradbias.analytic.utils.validation import choice, positive_number
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.surrogates.off_policy import log_ratios
from gradbias.stochastic.surrogates.penalties import StepPenalty
from gradbias.stochastic.surrogates.returns import discounts


class Baseline(Enum):
    """The baseline of a trajectory's return: none, or the mean return of the group or of the
    others.
    """

    NONE = "none"
    GROUP_MEAN = "group_mean"
    LEAVE_ONE_OUT = "leave_one_out"


class Length(Enum):
    """The divisor of a trajectory's sum over steps: none, its own length, or the group's mean
    length.
    """

    NONE = "none"
    TRAJECTORY = "trajectory"
    GROUP = "group"


@dataclass(frozen=True)
class Penalty:
    """A penalty on a trajectory's steps, which are summed without discount.

    Attributes:
        step: the penalty of each step, ``[N, H]`` of a record, such as `penalties.k1`.
        coefficient: its factor.
        as_loss: False subtracts the penalty from the return, as data; True subtracts it from the
            objective, which is differentiated (and divided by lengths).
    """

    step: StepPenalty
    coefficient: float
    as_loss: bool = False


@dataclass(frozen=True)
class GroupRelative:
    """mean_i sum_t min(rho A_i, clip(rho) A_i), rho = pi / pi_behaviour, A_i from total returns.

    The module's docstring says which choices are unbiased; the defaults are RLOO's.

    Attributes:
        baseline: what is subtracted from a trajectory's return (a `Baseline` or its value).
        normalise: whether advantages are divided by the group's (sample) standard deviation.
        length: what a trajectory's sum over steps is divided by (a `Length` or its value).
        clip: c clips the ratio to [1 - c, 1 + c], which changes no gradient on policy; None leaves
            it as it is.
        penalty: a penalty for leaving a reference policy, or None.
        epsilon: a number that is added to the standard deviation.

    Raises:
        ValueError: a clip that is not positive, an unknown choice; when called, one trajectory with
            a baseline that needs others.
    """

    baseline: Baseline | str = Baseline.LEAVE_ONE_OUT
    normalise: bool = False
    length: Length | str = Length.NONE
    clip: float | None = None
    penalty: Penalty | None = None
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        object.__setattr__(self, "baseline", choice("baseline", self.baseline, Baseline))
        object.__setattr__(self, "length", choice("length", self.length, Length))
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
        """The trajectories' advantages ``[N]``, which are data."""
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
        """The divisor of each trajectory, ``[N]`` or one number."""
        lengths = record.alive.sum(dim=-1).clamp(min=1).to(record.rewards.dtype)
        if self.length is Length.NONE:
            return torch.ones_like(lengths)
        return lengths if self.length is Length.TRAJECTORY else lengths.mean()


rloo = GroupRelative()
grpo = GroupRelative(Baseline.GROUP_MEAN, normalise=True, length=Length.TRAJECTORY, clip=0.2)
dr_grpo = GroupRelative(Baseline.GROUP_MEAN, clip=0.2)
