"""Score-function surrogates: the policy-gradient loss as it is usually written, and LVC.

Both have the policy gradient as their first derivative. Their second derivatives differ, and
neither is the Hessian of the return.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from gradbias.analytic.problems.targets import DISCOUNTED, StateWeighting
from gradbias.analytic.utils.validation import real_number
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.surrogates.returns import (
    as_made_for,
    generalised_advantages,
    log_probabilities,
    probability_ratios,
    rewards_to_go,
)


class Reduction(Enum):
    """How a surrogate's steps are put together: summed over each trajectory and averaged over
    trajectories, or averaged over all the batch's live steps (which couples its trajectories
    where episodes end early).
    """

    SUM_OVER_STEPS = "sum over steps"
    MEAN_OVER_STEPS = "mean over steps"


def step_weights(record: Record, weighting: StateWeighting) -> Tensor:
    """``[H]``: gamma^t, ones, or the given weights. Raises ValueError if as many are not given."""
    weights = weighting.step_weights(record.discount, record.rewards.shape[-1])
    return as_made_for(record.rewards, torch.tensor(weights))


def reduce_steps(terms: Tensor, record: Record, reduction: Reduction) -> Tensor:
    """A scalar from ``terms [N, H]`` (dead steps do not count)."""
    live = terms * record.alive
    if reduction is Reduction.MEAN_OVER_STEPS:
        return live.sum() / record.alive.sum().clamp(min=1)
    return live.sum(dim=-1).mean()


@dataclass(frozen=True)
class ScoreWeights:
    """How each step's log-probability is weighted: by its reward-to-go (or, with
    ``reward_to_go=False``, the trajectory's total return) less the critic's value of its state.

    With ``gae_lambda`` it is GAE(lambda) of the critic, bootstrapped at the horizon: 1 is the
    return to the end with the last state's value, less the first's; 0 the one-step actor-critic.
    The state weighting is gamma^t unless said; `Undiscounted` is what most code does, and makes the
    estimate that of an update field, not of a gradient.

    Raises:
        ValueError: gae_lambda outside [0, 1], or with total returns.
    """

    reward_to_go: bool = True
    weighting: StateWeighting = DISCOUNTED
    reduction: Reduction = Reduction.SUM_OVER_STEPS
    gae_lambda: float | None = None

    def __post_init__(self) -> None:
        if self.gae_lambda is None:
            return
        real_number("gae_lambda", self.gae_lambda, low=0.0, high=1.0)
        if not self.reward_to_go:
            raise ValueError("reward_to_go: expected True with gae_lambda, got total returns")

    def step_scores(self, record: Record) -> Tensor:
        """``[N, H]``: what multiplies the derivative of each step's log-probability."""
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

    Gradient: unbiased for the return's. Hessian: biased; autodiff forgets that the sampling
    distribution moves. For tabular softmax its mean is ``-blockdiag(sum_t m_t (V_t - v) F_s)``,
    0 under the exact value baseline. Source: Finn et al. 2017; *A Theoretical Understanding of
    Gradient Bias in Meta-RL*, Sec. 4.3.
    """

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        terms = self.step_scores(record) * log_probabilities(record)
        return reduce_steps(terms, record, self.reduction)


@dataclass(frozen=True)
class LVC(ScoreWeights):
    """sum_t gamma^t (G_t - v(s_t)) pi(a_t|s_t) / stop(pi(a_t|s_t)): low-variance curvature.

    Gradient: unbiased. Hessian: keeps the block term alone, so its bias is minus the cross terms
    between policy change and later values. Source: Rothfuss et al. 2019 (ProMP), eq. 8.
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
"""One-step differences of the critic. Gradient: unbiased with exact values alone. Source: Sutton et
al. 2000."""
