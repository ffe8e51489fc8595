"""DiCE and Loaded-DiCE: surrogates that are right to every order of differentiation.

Both build on ``W_t = prod_{u <= t} pi(a_u|s_u) / stop(pi(a_u|s_u))``, which is 1 in value and whose
derivatives put back what sampling forgets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from analytic.targets import DISCOUNTED, StateWeighting
from stochastic.records import Record
from stochastic.surrogates.returns import discounts, generalised_advantages
from stochastic.surrogates.score_function import step_weights


def _likelihood_ratios(record: Record) -> Tensor:
    """``[N, H]``: W_t, the probability of the actions up to t over its own value."""
    gaps = record.log_probs - record.log_probs.detach()
    return torch.exp(torch.cumsum(gaps, dim=-1))


@dataclass(frozen=True)
class Dice:
    """sum_t gamma^t [r_t W_t + (1 - pi/stop(pi)) v(s_t)]: unbiased derivatives of every order.

    It is the return itself, made differentiable, so it has no other state weighting or reduction.
    The second term is the baseline of the critic's values: it has mean 0 to every order, and is 0
    without a critic. Source: Foerster et al. 2018 (DiCE), eqs. 5 and 10.
    """

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        step_ratios = torch.exp(record.log_probs - record.log_probs.detach())
        baseline = (1.0 - step_ratios) * record.values[..., :-1] * record.alive
        terms = record.rewards * _likelihood_ratios(record) + baseline
        return (discounts(record) * terms).sum(dim=-1).mean()


@dataclass(frozen=True)
class LoadedDice:
    """sum_t gamma^t A_t (W_t - W_{t-1}) with GAE(lambda) advantages of the critic's values.

    All derivatives are unbiased for lambda = 1 and v_H = 0 with any values, and for any lambda with
    the exact ones; with wrong values (zero ones included) and lambda < 1 they are not.
    Source: Farquhar et al. 2019 (Loaded DiCE), eq. 9.

    Raises:
        ValueError: lam outside [0, 1].
    """

    lam: float = 1.0
    weighting: StateWeighting = DISCOUNTED

    def __post_init__(self) -> None:
        if not 0.0 <= self.lam <= 1.0:
            raise ValueError(f"lam: expected a number in [0, 1], got {self.lam!r}")

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        ratios = _likelihood_ratios(record)
        before = torch.cat([torch.ones_like(ratios[..., :1]), ratios[..., :-1]], dim=-1)
        advantages = generalised_advantages(record, self.lam)
        weights = step_weights(record, self.weighting)
        return (weights * advantages * (ratios - before)).sum(dim=-1).mean()


dice = Dice()
loaded_dice = LoadedDice()
