"""Exact mean and covariance of the known estimators, for any number of trajectories.

A trajectory's estimate is a sum over its steps, so its moments follow by a recursion over time, or
by linear solves over the infinite horizon: `analytic.moments.independent_steps` if each step's
score counts by itself, `analytic.moments.paired_steps` for DiCE's Hessian,
`analytic.moments.suffix_sums` for total returns. Rewards that depend on the next state keep their
variance.

Source of the estimators: AD: Finn et al. 2017; LVC: Rothfuss et al. 2019; DiCE: Foerster et al.
2018; Loaded DiCE: Farquhar et al. 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from gradbias.analytic.moments.step_sums import StepSums
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import DISCOUNTED, StateWeighting
from gradbias.analytic.utils.validation import FloatArray, whole_number


class Curvature(Enum):
    """Which second derivative a Hessian estimator takes."""

    AD = "the second derivative of log-probabilities"
    LVC = "that of probabilities"
    DICE = "that of the trajectory's probability"


@dataclass(frozen=True, eq=False)
class EstimateMoments:
    """The mean and covariance of an estimate (from one trajectory, unless it says otherwise).

    Attributes:
        mean: shaped like what is estimated.
        covariance: of its p entries, ``[p, p]``.
    """

    mean: FloatArray
    covariance: FloatArray

    @property
    def variance(self) -> FloatArray:
        """The variance of each component, shaped like the mean."""
        return np.diagonal(self.covariance).reshape(self.mean.shape)

    def averaged(self, estimates: int) -> EstimateMoments:
        """The moments of the mean of ``estimates`` independent estimates: the mean is the same, the
        covariance is divided by their number. Raises ValueError for fewer than one.
        """
        n = whole_number("estimates", estimates, at_least=1)
        return EstimateMoments(self.mean, self.covariance / n)


def gradient_moments(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    credit: Credit = Credit.REWARD_TO_GO,
    critic: npt.ArrayLike | None = None,
    gae_lambda: float | None = None,
    weighting: StateWeighting = DISCOUNTED,
    policy: Policy = TABULAR,
) -> EstimateMoments:
    """The moments of the gradient estimate ``sum_t w_t (G_t - v(s_t)) grad log pi(a_t|s_t)`` from
    one trajectory, which is that of AD, LVC, DiCE and Loaded DiCE.

    Over the infinite horizon the trajectory is infinitely long. T steps of such a problem have the
    moments of ``replace(mdp, horizon=T)``, and the bias `truncation_bias`.

    Args:
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        credit: whether G_t is the reward-to-go or the trajectory's total return R (then the bracket
            is ``R - w_t v``); the latter for finite horizons only.
        critic: v, ``[S]`` or ``[H + 1, S]`` (infinite horizon: ``[S]``), 0 at terminal states.
        gae_lambda: lambda, if the bracket is GAE(lambda), bootstrapped at the horizon (None: no
            GAE).
        weighting: the weights w_t of the steps (infinite horizon: discounted).
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        The mean, shaped like theta, and the covariance ``[p, p]``.

    Raises:
        ValueError: theta or the critic does not fit, GAE of total returns, total returns or other
            weightings over the infinite horizon, or a problem that is too large.

    Warns:
        IllConditionedWarning: a discount so close to 1 that the tenth digit is uncertain.

    Source: Finn et al. 2017, Schulman et al. 2016 (eq. 16), Foerster et al. 2018.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> moments = gradient_moments(bandit, [[0.0, 0.0]])
    >>> moments.mean.tolist(), moments.variance.tolist()
    ([[0.25, -0.25]], [[0.0625, 0.0625]])
    """
    check_credit(credit, gae_lambda)
    sums = StepSums.of(mdp, theta, policy, critic, gae_lambda, weighting)
    return _of_steps(sums, sums.scores, credit)


def hvp_moments(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    v: npt.ArrayLike,
    curvature: Curvature,
    *,
    credit: Credit = Credit.REWARD_TO_GO,
    critic: npt.ArrayLike | None = None,
    gae_lambda: float | None = None,
    weighting: StateWeighting = DISCOUNTED,
    policy: Policy = TABULAR,
) -> EstimateMoments:
    """The moments of a Hessian estimate from one trajectory times ``v``.

    Args:
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        v: the direction, shaped like theta.
        curvature: the estimator: AD, LVC or DiCE (with its baseline term if there is a critic).
        credit: as in `gradient_moments`; DiCE has no total returns.
        critic: as in `gradient_moments`.
        gae_lambda: as in `gradient_moments`; DiCE with it is Loaded DiCE(lambda).
        weighting: as in `gradient_moments`.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        The mean, shaped like theta, and the covariance ``[p, p]``.

    Raises:
        ValueError: as `gradient_moments`; v does not fit; DiCE with total returns.

    Source: Finn et al. 2017, Rothfuss et al. 2019, Foerster et al. 2018, Farquhar et al. 2019.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> ad = hvp_moments(bandit, [[0.0, 0.0]], [[1.0, 0.0]], Curvature.AD)
    >>> ad.mean.tolist()  # the truth is 0: AD does not differentiate the trajectory's probability
    [[-0.125, 0.125]]
    """
    check_credit(credit, gae_lambda, curvature)
    sums = StepSums.of(mdp, theta, policy, critic, gae_lambda, weighting)
    direction = sums.at.direction(v)
    if curvature is Curvature.DICE:
        return EstimateMoments(*sums.across_steps(direction))
    vectors = sums.second_derivatives(direction, keep_scores=curvature is Curvature.LVC)
    return _of_steps(sums, vectors, credit)


def check_credit(
    credit: Credit, gae_lambda: float | None, curvature: Curvature | None = None
) -> None:
    """Raises ValueError for total returns with GAE or with DiCE, which are not defined."""
    if credit is Credit.TOTAL_RETURN and gae_lambda is not None:
        raise ValueError("credit: expected rewards-to-go with gae_lambda, got total returns")
    if credit is Credit.TOTAL_RETURN and curvature is Curvature.DICE:
        raise ValueError("credit: expected rewards-to-go with DiCE, got total returns")


def _of_steps(sums: StepSums, vectors: FloatArray, credit: Credit) -> EstimateMoments:
    """The moments of the sum over steps of the step's credit times ``vectors [S, A, p]``."""
    total = credit is Credit.TOTAL_RETURN
    return EstimateMoments(*(sums.total_return(vectors) if total else sums.to_go(vectors)))
