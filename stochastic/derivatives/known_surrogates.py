"""What is known of the built-in surrogates besides their code, in one table.

A `Known` gives the coefficients in closed form, so that estimates need no automatic
differentiation, and says whether the estimate is a sum over steps whose exact moments and range
`verification.evidence` can compute. All of it is derived apart from the surrogate's code; tests
compare it with reverse-mode differentiation and with enumeration.

A new surrogate takes one function here and one line in the table. An entry holds for exactly its
type: a subclass may override ``__call__``, so nothing is known of it. The coefficients c, p and q
are those of `stochastic.derivatives.closed_forms`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gradbias.analytic.problems.targets import DISCOUNTED, StateWeighting
from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.derivatives.closed_forms import ClosedForm, Steps, suffix_sums
from gradbias.stochastic.surrogates.dice import Dice, LoadedDice, Tmaml
from gradbias.stochastic.surrogates.off_policy import OffPolicyDice, Ratio
from gradbias.stochastic.surrogates.score_function import AD, LVC, Reduction, ScoreWeights
from gradbias.stochastic.surrogates.taylor import Taylor, VTrace


@dataclass(frozen=True)
class StepSum:
    """The surrogate ``sum_t w_t A_t f_t``, on policy: f_t carries the derivative.

    Attributes:
        curvature: which f_t: the step's log-probability (AD), its ratio pi / stop(pi) (LVC) or the
            product of the ratios up to t (DICE). Names of `analytic.moments.Curvature`.
        weighting: the state weighting w_t.
        gae_lambda: A_t is GAE(lambda) of the critic; None: the return less the critic's value.
        total_return: the return is the trajectory's, not the reward-to-go.
    """

    curvature: Literal["AD", "LVC", "DICE"]
    weighting: StateWeighting = DISCOUNTED
    gae_lambda: float | None = None
    total_return: bool = False


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of one surrogate; its trajectories do not interact.

    Attributes:
        closed_form: the coefficients on given steps.
        step_sum: the surrogate as a sum over steps, if its moments and range are known.
    """

    closed_form: Callable[[Steps], ClosedForm]
    step_sum: StepSum | None = None


def known_of(surrogate: object) -> Known | None:
    """What is known of a surrogate; None for one whose type, or choice of options, has no entry."""
    entry = _TABLE.get(type(surrogate))
    return None if entry is None else entry(surrogate)


def is_known(surrogate: object) -> bool:
    """Whether the coefficients are known in closed form; then trajectories do not interact."""
    return known_of(surrogate) is not None


def _ad(surrogate: AD) -> Known | None:
    if surrogate.reduction is not Reduction.SUM_OVER_STEPS:
        return None
    return Known(lambda steps: ClosedForm(_scores(surrogate, steps)), _step_sum("AD", surrogate))


def _lvc(surrogate: LVC) -> Known | None:
    if surrogate.reduction is not Reduction.SUM_OVER_STEPS:
        return None

    def closed_form(steps: Steps) -> ClosedForm:
        scores = _scores(surrogate, steps)
        return ClosedForm(scores, own=scores)

    return Known(closed_form, _step_sum("LVC", surrogate))


def _dice(_: Dice) -> Known:
    return Known(_dice_form, StepSum("DICE"))


def _tmaml(surrogate: Tmaml) -> Known:
    def closed_form(steps: Steps) -> ClosedForm:
        plain, baselines = _dice_form(steps), steps.baselines(steps.powers)
        pairs = steps.discounted_returns() - surrogate.coefficient * baselines
        return ClosedForm(plain.first, pairs=pairs, own=plain.own)

    return Known(closed_form)


def _loaded_dice(surrogate: LoadedDice) -> Known:
    def closed_form(steps: Steps) -> ClosedForm:
        weights = steps.weights(surrogate.weighting)
        return _all_equal(weights * steps.advantages(surrogate.gae_lambda))

    return Known(closed_form, StepSum("DICE", surrogate.weighting, surrogate.gae_lambda))


def _off_policy_dice(surrogate: OffPolicyDice) -> Known | None:
    def closed_form(steps: Steps) -> ClosedForm:
        rewards = steps.powers * steps.batch.rewards / steps.batch.shape[-2]
        if surrogate.ratio is Ratio.PER_STEP:
            each = rewards * steps.ratios()
            return ClosedForm(each, own=each)
        if surrogate.ratio is Ratio.PER_DECISION:
            return _all_equal(suffix_sums(rewards * steps.path_ratios()))
        total = (rewards * steps.path_ratios()[..., -1:]).sum(axis=-1, keepdims=True)
        return _all_equal(np.broadcast_to(total, rewards.shape))

    return Known(closed_form) if surrogate.max_ratio is None else None


def _v_trace(surrogate: VTrace) -> Known | None:
    def closed_form(steps: Steps) -> ClosedForm:
        return _all_equal(suffix_sums(steps.powers * steps.advantages(0.0) * steps.path_ratios()))

    clipped = surrogate.max_rho is not None or surrogate.max_c is not None
    return None if clipped else Known(closed_form)


def _taylor(surrogate: Taylor) -> Known | None:
    def closed_form(steps: Steps) -> ClosedForm:
        each = steps.powers * steps.advantages(surrogate.gae_lambda) * steps.ratios()
        return ClosedForm(each, own=each)

    return Known(closed_form) if surrogate.order == 1 else None


_TABLE: dict[type, Callable[[Any], Known | None]] = {
    AD: _ad,
    LVC: _lvc,
    Dice: _dice,
    Tmaml: _tmaml,
    LoadedDice: _loaded_dice,
    OffPolicyDice: _off_policy_dice,
    VTrace: _v_trace,
    Taylor: _taylor,
}


def _step_sum(curvature: Literal["AD", "LVC"], surrogate: ScoreWeights) -> StepSum:
    total_return = not surrogate.reward_to_go
    return StepSum(curvature, surrogate.weighting, surrogate.gae_lambda, total_return)


def _scores(surrogate: ScoreWeights, steps: Steps) -> FloatArray:
    """``[B, N, H]``: the factor of each step's score, divided by N."""
    weights = steps.weights(surrogate.weighting)
    if surrogate.gae_lambda is not None:
        return weights * steps.advantages(surrogate.gae_lambda)
    if surrogate.reward_to_go:
        return weights * steps.rewards_to_go() - steps.baselines(weights)
    return steps.total_returns() - steps.baselines(weights)


def _dice_form(steps: Steps) -> ClosedForm:
    returns = steps.discounted_returns()
    first = returns - steps.baselines(steps.powers)
    return ClosedForm(first, pairs=returns, own=first)


def _all_equal(weights: FloatArray) -> ClosedForm:
    """All three coefficients are ``weights``: the surrogate has products of ratios alone."""
    return ClosedForm(weights, pairs=weights, own=weights)
