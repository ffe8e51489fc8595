"""Coefficients of the built-in surrogates in closed form, for many batches at once (numpy).

A surrogate that depends on the probabilities of what was chosen has first derivatives c_t in their
logarithms, and second derivatives C. Of the built-in ones, at the sampling point,

    (C x)_t = q_t x_t + p_t sum_{i < t} x_i + sum_{i > t} p_i x_i

within each trajectory, so that a product with C takes two cumulative sums: AD has p = q = 0, LVC
p = 0 and q = c, DiCE and Loaded-DiCE the weights that the later of two steps shares with the other.
Importance sampling and V-trace, where no ratio is cut off, have the weights times the ratios.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.problems.targets import DISCOUNTED, StateWeighting
from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.stochastic.surrogates.dice import Dice, LoadedDice, Tmaml
from gradbias.stochastic.surrogates.off_policy import OffPolicyDice, Ratio
from gradbias.stochastic.surrogates.score_function import AD, LVC, Reduction, ScoreWeights
from gradbias.stochastic.surrogates.taylor import Taylor, VTrace


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """``first [B, N, H]`` is c; ``pairs`` is p and ``own`` is q (None: 0)."""

    first: FloatArray
    pairs: FloatArray | None = None
    own: FloatArray | None = None

    def along(self, x: FloatArray) -> FloatArray:
        """C times ``x [B, N, H]``."""
        found = np.zeros_like(x) if self.own is None else self.own * x
        if self.pairs is not None:
            weighted = self.pairs * x
            found = found + self.pairs * (np.cumsum(x, axis=-1) - x)
            found += _suffix_sums(weighted) - weighted
        return found


def closed_form(
    surrogate: object,
    batch: Trajectories,
    values: FloatArray,
    log_ratios: FloatArray,
    discount: float,
) -> ClosedForm | None:
    """The coefficients of a built-in surrogate on batches ``[B, N, H]`` with the critic's
    ``values [B, N, H + 1]``, where the steps' probabilities are ``exp(log_ratios)`` times those
    that they were drawn with; None if they are not known here.
    """
    if not is_known(surrogate):
        return None
    steps = _Steps(batch, values, log_ratios, discount)
    return _KNOWN[type(surrogate)](surrogate, steps)


def is_known(surrogate: object) -> bool:
    """Whether `closed_form` knows it; then its trajectories do not interact."""
    if isinstance(surrogate, OffPolicyDice):
        exact = surrogate.max_ratio is None
    elif isinstance(surrogate, VTrace):
        exact = surrogate.largest_rho is None and surrogate.largest_c is None
    elif isinstance(surrogate, Taylor):
        exact = surrogate.order == 1
    else:
        exact = getattr(surrogate, "reduction", None) is not Reduction.MEAN_OVER_STEPS
    return type(surrogate) in _KNOWN and exact


@dataclass(frozen=True, eq=False)
class _Steps:
    """What coefficients are made of, each divided by N."""

    batch: Trajectories
    values: FloatArray
    log_ratios: FloatArray
    discount: float

    @property
    def _share(self) -> FloatArray:
        return self.batch.alive / self.batch.shape[-2]

    @property
    def powers(self) -> FloatArray:
        """``[H]``: gamma^t."""
        return self.weights(DISCOUNTED)

    def weights(self, weighting: StateWeighting) -> FloatArray:
        """``[H]``. Raises ValueError if as many are not given."""
        return weighting.step_weights(self.discount, self.batch.shape[-1])

    def discounted_to_go(self) -> FloatArray:
        """gamma^t G_t."""
        return _suffix_sums(self.powers * self.batch.rewards) * self._share

    def baselines(self, weights: FloatArray) -> FloatArray:
        """w_t v(s_t)."""
        return weights * self.values[..., :-1] * self._share

    def scores(self, how: ScoreWeights) -> FloatArray:
        """What multiplies the derivative of each step's log-probability."""
        weights = self.weights(how.weighting)
        if how.gae_lambda is not None:
            return weights * self.advantages(how.gae_lambda)
        if how.reward_to_go:
            to_go = _carried_back(self.batch.rewards, self.discount) * self._share
            return weights * to_go - self.baselines(weights)
        whole = self.powers * self.batch.rewards
        returns: FloatArray = whole.sum(axis=-1, keepdims=True) * self._share
        return returns - self.baselines(weights)

    def advantages(self, gae_lambda: float) -> FloatArray:
        """GAE(lambda)."""
        following = self.batch.rewards + self.discount * self.values[..., 1:]
        differences = (following - self.values[..., :-1]) * self.batch.alive
        return _carried_back(differences, self.discount * gae_lambda) * self._share

    def path_ratios(self) -> FloatArray:
        """The products of the ratios up to each step."""
        ratios: FloatArray = np.exp(np.cumsum(self.log_ratios, axis=-1))
        return ratios


def _ad(surrogate: AD, steps: _Steps) -> ClosedForm:
    return ClosedForm(steps.scores(surrogate))


def _lvc(surrogate: LVC, steps: _Steps) -> ClosedForm:
    scores = steps.scores(surrogate)
    return ClosedForm(scores, own=scores)


def _dice(_: Dice, steps: _Steps) -> ClosedForm:
    later = steps.discounted_to_go()
    first = later - steps.baselines(steps.powers)
    return ClosedForm(first, pairs=later, own=first)


def _tmaml(surrogate: Tmaml, steps: _Steps) -> ClosedForm:
    plain = _dice(surrogate, steps)
    pairs = steps.discounted_to_go() - surrogate.coefficient * steps.baselines(steps.powers)
    return ClosedForm(plain.first, pairs=pairs, own=plain.own)


def _loaded_dice(surrogate: LoadedDice, steps: _Steps) -> ClosedForm:
    later = steps.weights(surrogate.weighting) * steps.advantages(surrogate.gae_lambda)
    return ClosedForm(later, pairs=later, own=later)


def _off_policy_dice(surrogate: OffPolicyDice, steps: _Steps) -> ClosedForm:
    paid = steps.powers * steps.batch.rewards / steps.batch.shape[-2]
    if surrogate.ratio is Ratio.PER_STEP:
        each = paid * np.exp(steps.log_ratios)
        return ClosedForm(each, own=each)
    reached = steps.path_ratios()
    if surrogate.ratio is Ratio.TRAJECTORY:
        whole = (paid * reached[..., -1:]).sum(axis=-1, keepdims=True)
        shared = np.broadcast_to(whole, paid.shape)
    else:
        shared = _suffix_sums(paid * reached)
    return ClosedForm(shared, pairs=shared, own=shared)


def _v_trace(_: VTrace, steps: _Steps) -> ClosedForm:
    shared = _suffix_sums(steps.powers * steps.advantages(0.0) * steps.path_ratios())
    return ClosedForm(shared, pairs=shared, own=shared)


def _first_expansion(surrogate: Taylor, steps: _Steps) -> ClosedForm:
    each = steps.powers * steps.advantages(surrogate.gae_lambda) * np.exp(steps.log_ratios)
    return ClosedForm(each, own=each)


_KNOWN: dict[type, Callable[..., ClosedForm]] = {
    AD: _ad,
    LVC: _lvc,
    Dice: _dice,
    Tmaml: _tmaml,
    LoadedDice: _loaded_dice,
    OffPolicyDice: _off_policy_dice,
    VTrace: _v_trace,
    Taylor: _first_expansion,
}


def _suffix_sums(terms: FloatArray) -> FloatArray:
    return np.cumsum(terms[..., ::-1], axis=-1)[..., ::-1]


def _carried_back(terms: FloatArray, factor: float) -> FloatArray:
    """``x_t + factor x_{t+1} + ...``, without a division by powers that may be 0."""
    found = np.array(terms)
    for t in reversed(range(terms.shape[-1] - 1)):
        found[..., t] += factor * found[..., t + 1]
    return found
