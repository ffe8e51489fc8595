"""DiCE and Loaded-DiCE: surrogates that are right to every order of differentiation.

Both build on ``W_t = prod_{u <= t} pi(a_u|s_u) / stop(pi(a_u|s_u))``, which is 1 in value and whose
derivatives put back what sampling forgets.
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

    It is the return itself, made differentiable, so it has no other state weighting or reduction.
    The second term is the baseline of the critic's values: it has mean 0 to every order, and is 0
    without a critic. Source: Foerster et al. 2018 (DiCE), eqs. 5 and 10.
    """

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        baseline = (1.0 - probability_ratios(record)) * record.values[..., :-1] * record.alive
        terms = record.rewards * path_ratios(record) + baseline
        return (discounts(record) * terms).sum(dim=-1).mean()


@dataclass(frozen=True)
class LoadedDice:
    """sum_t gamma^t A_t (W_t - W_{t-1}) with GAE(lambda) advantages of the critic's values.

    All derivatives are unbiased for lambda = 1 and v_H = 0 with any values, and for any lambda with
    the exact ones; with wrong values (zero ones included) and lambda < 1 they are not.
    Source: Farquhar et al. 2019 (Loaded DiCE), eq. 9.

    Raises:
        ValueError: gae_lambda outside [0, 1].
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
    """DiCE less ``coefficient`` times sum_t gamma^t (1 - W_{t-1}) (1 - pi/stop(pi)) v(s_t).

    The control variate of TMAML: its value and first derivative are 0, and its mean is 0 to every
    order whatever the values, so derivatives stay unbiased; it takes the baseline off the products
    of different steps' scores in the Hessian, as DiCE's own term does off their squares. (W up to
    t - 1: with step t's own ratio in it the term would have the mean of v F.) With coefficient 1
    and v_H = 0 it is Loaded-DiCE(1). Source: Liu et al. 2019 (Taming MAML).

    Raises:
        ValueError: a coefficient that is not a number.
    """

    coefficient: float = 1.0

    def __post_init__(self) -> None:
        finite_number("coefficient", self.coefficient)

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        crossed = (1.0 - before_each(path_ratios(record))) * (1.0 - probability_ratios(record))
        variate = crossed * record.values[..., :-1] * record.alive
        taken_off = (discounts(record) * variate).sum(dim=-1).mean()
        return super().__call__(record) - self.coefficient * taken_off


dice = Dice()
loaded_dice = LoadedDice()
tmaml = Tmaml()
