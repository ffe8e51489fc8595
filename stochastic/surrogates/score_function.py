"""Score-function surrogates: the policy-gradient loss as it is usually written (AD), and LVC.

The gradient of both is an unbiased policy gradient. Their Hessians differ, and both are biased.
G_t is the reward-to-go, v the critic, pi the policy, m_t the distribution of s_t times gamma^t,
V_t the value and F_s the Fisher information of pi(.|s).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from gradbias.analytic.problems.targets import DISCOUNTED, StateWeighting
from gradbias.analytic.utils.validation import choice, real_number
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.surrogates.returns import (
    as_made_for,
    generalised_advantages,
    log_probabilities,
    probability_ratios,
    rewards_to_go,
)


class Reduction(Enum):
    """How steps are reduced to a scalar: summed along trajectories, which are then averaged, or
    averaged over all live steps of the batch (which couples trajectories if episodes end early).
    """

    SUM_OVER_STEPS = "sum_over_steps"
    MEAN_OVER_STEPS = "mean_over_steps"


def step_weights(record: Record, weighting: StateWeighting) -> Tensor:
    """``[H]``: the state weights w_t. Raises ValueError where there is another number of them."""
    weights = weighting.step_weights(record.discount, record.rewards.shape[-1])
    return as_made_for(record.rewards, torch.tensor(weights))


def reduce_steps(terms: Tensor, record: Record, reduction: Reduction | str) -> Tensor:
    """A scalar from ``terms [N, H]``; steps after the end do not count."""
    live = terms * record.alive
    if reduction is Reduction.MEAN_OVER_STEPS:
        return live.sum() / record.alive.sum().clamp(min=1)
    return live.sum(dim=-1).mean()


@dataclass(frozen=True)
class ScoreWeights:
    """The factors of the steps' scores: what AD and LVC have in common.

    Attributes:
        reward_to_go: True: a step's reward-to-go; False: the trajectory's total return. The value
            of the step's state is subtracted.
        weighting: the state weighting w_t (default: gamma^t). `Undiscounted` is what most code
            uses; the estimate is then that of an update field, not of a gradient.
        reduction: how steps are reduced to a scalar (a `Reduction` or its value).
        gae_lambda: GAE(lambda) of the critic in place of the return, bootstrapped at the horizon: 0
            is the one-step actor-critic, 1 the reward-to-go with the last state's value.

    Raises:
        ValueError: an unknown reduction; gae_lambda outside [0, 1], or with total returns.
    """

    reward_to_go: bool = True
    weighting: StateWeighting = DISCOUNTED
    reduction: Reduction | str = Reduction.SUM_OVER_STEPS
    gae_lambda: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reduction", choice("reduction", self.reduction, Reduction))
        if self.gae_lambda is None:
            return
        real_number("gae_lambda", self.gae_lambda, low=0.0, high=1.0)
        if not self.reward_to_go:
            raise ValueError("reward_to_go: expected True with gae_lambda, got total returns")

    def step_scores(self, record: Record) -> Tensor:
        """The factor of each step's score, ``[N, H]``."""
        weights = step_weights(record, self.weighting)
        if self.gae_lambda is not None:
            return weights * generalised_advantages(record, self.gae_lambda)
        baselines = record.values[..., :-1]
        to_go = rewards_to_go(record)
        if self.reward_to_go:
            return weights * (to_go - baselines)
        return to_go[..., :1] - weights * baselines


@dataclass(frozen=True)
class AD(ScoreWeights):
    """sum_t gamma^t (G_t - v(s_t)) log pi(a_t|s_t): what original MAML differentiates twice.

    Gradient: unbiased. Hessian: biased, because automatic differentiation leaves out that the
    sampling distribution depends on the parameters. For tabular softmax its mean is
    ``-blockdiag(sum_t m_t (V_t - v) F_s)``, which is 0 with the exact values as the critic.

    Source: Finn et al. 2017; *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 4.2.
    """

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        terms = self.step_scores(record) * log_probabilities(record)
        return reduce_steps(terms, record, self.reduction)


@dataclass(frozen=True)
class LVC(ScoreWeights):
    """sum_t gamma^t (G_t - v(s_t)) pi(a_t|s_t) / stop(pi(a_t|s_t)): low-variance curvature.

    Gradient: unbiased. Hessian: only the terms of single steps, so that its bias is minus the cross
    terms between different steps' scores.

    Source: Rothfuss et al. 2019 (ProMP), eq. 8.
    """

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        terms = self.step_scores(record) * probability_ratios(record)
        return reduce_steps(terms, record, self.reduction)


ad = AD()
"""Rewards-to-go (GPOMDP). Gradient: unbiased. Source: Baxter and Bartlett 2001."""
lvc = LVC()
reinforce = AD(reward_to_go=False)
"""Total returns. Gradient: unbiased. Source: Williams 1992."""
actor_critic = AD(gae_lambda=0.0)
"""One-step temporal differences. Gradient: unbiased with exact values only. Source: Sutton et al.
2000."""
