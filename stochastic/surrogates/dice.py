"""DiCE and Loaded-DiCE: surrogates whose derivatives of every order are unbiased.

Both use the path ratio ``W_t = prod_{u <= t} pi(a_u|s_u) / stop(pi(a_u|s_u))``. Its value is 1, and
its derivatives are those of the trajectory's probability, which sampling leaves out. v is the
critic, H the horizon.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gradbias.analytic.problems.targets import DISCOUNTED, StateWeighting
from gradbias.analytic.utils.validation import finite_number, real_number
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.surrogates.returns import (
    before_each,
    discounts,
    generalised_advantages,
    path_ratio_steps,
    path_ratios,
    probability_ratios,
)
from gradbias.stochastic.surrogates.score_function import step_weights


@dataclass(frozen=True)
class Dice:
    """sum_t gamma^t [r_t W_t + (1 - pi/stop(pi)) v(s_t)]: unbiased derivatives of every order.

    It is the return itself, made differentiable, so that its state weighting and reduction are
    fixed. The second term is the critic's baseline: its derivatives of every order have mean 0, and
    it is 0 without a critic.

    Source: Foerster et al. 2018 (DiCE), eqs. 5 and 10.
    """

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        baseline = (1.0 - probability_ratios(record)) * record.values[..., :-1] * record.alive
        terms = record.rewards * path_ratios(record) + baseline
        return (discounts(record) * terms).sum(dim=-1).mean()


@dataclass(frozen=True)
class LoadedDice:
    """sum_t w_t A_t (W_t - W_{t-1}) with GAE(lambda) advantages A_t of the critic.

    With lambda = 1 and v_H = 0 all derivatives are unbiased for any critic; with the exact values
    they are for any lambda. With another critic (zero included) and lambda < 1 they are biased.

    Attributes:
        gae_lambda: lambda, in [0, 1].
        weighting: the state weighting w_t (default: gamma^t).

    Raises:
        ValueError: gae_lambda outside [0, 1].

    Source: Farquhar et al. 2019 (Loaded DiCE), eq. 9.
    """

    gae_lambda: float = 1.0
    weighting: StateWeighting = DISCOUNTED

    def __post_init__(self) -> None:
        real_number("gae_lambda", self.gae_lambda, low=0.0, high=1.0)

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        advantages = generalised_advantages(record, self.gae_lambda)
        weights = step_weights(record, self.weighting)
        return (weights * advantages * path_ratio_steps(record)).sum(dim=-1).mean()


@dataclass(frozen=True)
class Tmaml(Dice):
    """DiCE minus ``coefficient`` times sum_t gamma^t (1 - W_{t-1}) (1 - pi/stop(pi)) v(s_t).

    The term is TMAML's control variate. Its value and gradient are 0, and its derivatives of every
    order have mean 0 for any critic, so that DiCE's stay unbiased. In the Hessian it subtracts the
    baseline from the products of different steps' scores; DiCE's own term does so for their
    squares. (With step t's own ratio in W, the mean Hessian of step t's term would be gamma^t times
    2 v F, with F the Fisher information of pi(.|s_t).) With coefficient 1 and v_H = 0 it is
    Loaded-DiCE(1).

    Attributes:
        coefficient: a finite number.

    Raises:
        ValueError: a coefficient that is not finite.

    Source: Liu et al. 2019 (Taming MAML).
    """

    coefficient: float = 1.0

    def __post_init__(self) -> None:
        finite_number("coefficient", self.coefficient)

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        crossed = (1.0 - before_each(path_ratios(record))) * (1.0 - probability_ratios(record))
        variate = crossed * record.values[..., :-1] * record.alive
        control = (discounts(record) * variate).sum(dim=-1).mean()
        return super().__call__(record) - self.coefficient * control


dice = Dice()
loaded_dice = LoadedDice()
tmaml = Tmaml()
