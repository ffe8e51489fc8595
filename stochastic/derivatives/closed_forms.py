"""Coefficients in closed form, for many batches at once (numpy).

A surrogate that depends on the probabilities of the chosen actions has first derivatives c_t in
their logarithms, and second derivatives C. At the sampling point the built-in ones have

    (C x)_t = q_t x_t + p_t sum_{i < t} x_i + sum_{i > t} p_i x_i

within each trajectory, so that a product with C takes two cumulative sums. `known_surrogates` says
what c, p and q are for each surrogate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradbias.analytic.problems.targets import DISCOUNTED, StateWeighting
from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.rollouts.trajectories import Trajectories


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """The coefficients of a surrogate on batches ``[B, N, H]``.

    Attributes:
        first: c ``[B, N, H]``.
        pairs: p ``[B, N, H]``, the weight of two different steps at the later one; None: 0.
        own: q ``[B, N, H]``, the weight of a step with itself; None: 0.
    """

    first: FloatArray
    pairs: FloatArray | None = None
    own: FloatArray | None = None

    def along(self, x: FloatArray) -> FloatArray:
        """C times ``x [B, N, H]``."""
        product = np.zeros_like(x) if self.own is None else self.own * x
        if self.pairs is not None:
            weighted = self.pairs * x
            product = product + self.pairs * (np.cumsum(x, axis=-1) - x)
            product += suffix_sums(weighted) - weighted
        return product


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of batches ``[B, N, H]`` and the quantities that coefficients are made of.

    Attributes:
        batch: the trajectories.
        values: the critic's values of their states, ``[B, N, H + 1]``.
        log_ratios: logarithms of the steps' probabilities over those that drew them, ``[B, N, H]``.
        discount: gamma.
    """

    batch: Trajectories
    values: FloatArray
    log_ratios: FloatArray
    discount: float

    @property
    def share(self) -> FloatArray:
        """``[B, N, H]``: 1 / N for a step before the end of its episode, else 0."""
        return self.batch.alive / self.batch.shape[-2]

    @property
    def powers(self) -> FloatArray:
        """``[H]``: gamma^t."""
        return self.weights(DISCOUNTED)

    def weights(self, weighting: StateWeighting) -> FloatArray:
        """``[H]``: w_t. Raises ValueError where a weighting has another number of weights."""
        return weighting.step_weights(self.discount, self.batch.shape[-1])

    def discounted_returns(self) -> FloatArray:
        """``[B, N, H]``: gamma^t G_t / N, G_t the reward-to-go."""
        return suffix_sums(self.powers * self.batch.rewards) * self.share

    def rewards_to_go(self) -> FloatArray:
        """``[B, N, H]``: G_t / N."""
        return _discounted_suffix_sums(self.batch.rewards, self.discount) * self.share

    def total_returns(self) -> FloatArray:
        """``[B, N, H]``: the trajectory's return divided by N, at each of its steps."""
        returns: FloatArray = (self.powers * self.batch.rewards).sum(axis=-1, keepdims=True)
        return returns * self.share

    def baselines(self, weights: FloatArray) -> FloatArray:
        """``[B, N, H]``: w_t v(s_t) / N."""
        return weights * self.values[..., :-1] * self.share

    def advantages(self, gae_lambda: float) -> FloatArray:
        """``[B, N, H]``: GAE(lambda) / N."""
        after = self.batch.rewards + self.discount * self.values[..., 1:]
        differences = (after - self.values[..., :-1]) * self.batch.alive
        return _discounted_suffix_sums(differences, self.discount * gae_lambda) * self.share

    def ratios(self) -> FloatArray:
        """``[B, N, H]``: each step's probability over the one that drew it."""
        ratios: FloatArray = np.exp(self.log_ratios)
        return ratios

    def path_ratios(self) -> FloatArray:
        """``[B, N, H]``: the products of the ratios up to each step."""
        ratios: FloatArray = np.exp(np.cumsum(self.log_ratios, axis=-1))
        return ratios


def suffix_sums(terms: FloatArray) -> FloatArray:
    """``x_t + x_{t+1} + ...`` along the last axis."""
    return np.cumsum(terms[..., ::-1], axis=-1)[..., ::-1]


def _discounted_suffix_sums(terms: FloatArray, factor: float) -> FloatArray:
    """``x_t + factor x_{t+1} + ...``, without a division by powers that may be 0."""
    sums = np.array(terms)
    for t in reversed(range(terms.shape[-1] - 1)):
        sums[..., t] += factor * sums[..., t + 1]
    return sums
