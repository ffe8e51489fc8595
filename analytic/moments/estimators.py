"""Exact mean and covariance of the known estimators, whatever the number of trajectories.

A trajectory's estimate is a sum over its steps, so its moments follow by recursion over time, or
over the infinite horizon by linear solves: `analytic.moments.independent_steps` where each step
stands by itself, `analytic.moments.paired_steps` for DiCE's Hessian, `analytic.moments.suffix_sums`
for whole returns. Rewards that depend on the next state keep their variance.

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
    """The second derivative that a Hessian estimator keeps: that of log-probabilities (AD), of each
    step's probability (LVC), or of the whole trajectory's probability (DiCE).
    """

    AD = "ad"
    LVC = "lvc"
    DICE = "dice"


@dataclass(frozen=True, eq=False)
class EstimateMoments:
    """Of one estimate (here from one trajectory): ``mean``, shaped like what is estimated, and
    ``covariance [p, p]``.
    """

    mean: FloatArray
    covariance: FloatArray

    @property
    def variance(self) -> FloatArray:
        """Of each component, shaped like the mean."""
        return np.diagonal(self.covariance).reshape(self.mean.shape)

    def averaged(self, estimates: int) -> EstimateMoments:
        """Of the mean of so many independent estimates. Raises ValueError for fewer than one."""
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
    """Moments of ``sum_t w_t (G_t - v(s_t)) grad log pi(a_t|s_t)`` from one trajectory.

    ``G_t`` is the reward-to-go or, by ``credit``, the trajectory's whole return (then ``R - w_t
    v``); with ``gae_lambda`` the bracket is GAE(lambda) of ``critic [S]`` or ``[H + 1, S]``
    (default 0), bootstrapped at the horizon. This is the gradient of AD, LVC, DiCE, Loaded-DiCE.

    With ``mdp.horizon`` None the trajectory is infinitely long, the critic ``[S]``, the weighting
    discounted, and the moments are the solution of linear systems. T steps of such a problem are
    those of ``replace(mdp, horizon=T)``; what they miss is `truncation_bias`.

    Source: Finn et al. 2017, Schulman et al. 2016 (eq. 16), Foerster et al. 2018.

    Raises:
        ValueError: theta or the critic does not fit, GAE of whole returns, whole returns or other
            weightings over the infinite horizon, or a problem that is too large.

    Warns:
        IllConditionedWarning: a discount so close to 1 that the tenth digit is uncertain.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> found = gradient_moments(bandit, [[0.0, 0.0]])
    >>> found.mean.tolist(), found.variance.tolist()
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
    """Moments of a Hessian estimate from one trajectory times ``v``.

    ``Curvature.DICE`` with a critic is DiCE with its baseline term; with ``gae_lambda`` it is
    Loaded-DiCE(lambda). AD and LVC take ``credit`` and ``gae_lambda`` as `gradient_moments` does,
    and all take an infinite horizon as it does.

    Source: Finn et al. 2017, Rothfuss et al. 2019, Foerster et al. 2018, Farquhar et al. 2019.

    Raises:
        ValueError: as `gradient_moments`; v does not fit; DiCE with whole returns.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> ad = hvp_moments(bandit, [[0.0, 0.0]], [[1.0, 0.0]], Curvature.AD)
    >>> ad.mean.tolist()  # the truth is 0: log-probabilities forget that sampling moves
    [[-0.125, 0.125]]
    """
    check_credit(credit, gae_lambda, curvature)
    sums = StepSums.of(mdp, theta, policy, critic, gae_lambda, weighting)
    direction = sums.at.direction(v)
    if curvature is Curvature.DICE:
        return EstimateMoments(*sums.across_steps(direction))
    turned = sums.curved(direction, keep_scores=curvature is Curvature.LVC)
    return _of_steps(sums, turned, credit)


def check_credit(
    credit: Credit, gae_lambda: float | None, curvature: Curvature | None = None
) -> None:
    """Raises ValueError for whole returns with GAE or DiCE, which have none."""
    if credit is Credit.TOTAL_RETURN and gae_lambda is not None:
        raise ValueError("credit: expected rewards-to-go with gae_lambda, got whole returns")
    if credit is Credit.TOTAL_RETURN and curvature is Curvature.DICE:
        raise ValueError("credit: expected rewards-to-go with DiCE, got whole returns")


def _of_steps(sums: StepSums, vectors: FloatArray, credit: Credit) -> EstimateMoments:
    """Of the sum over steps of ``vectors [S, A, p]``, each times its step's credit."""
    whole = credit is Credit.TOTAL_RETURN
    return EstimateMoments(*(sums.whole_return(vectors) if whole else sums.to_go(vectors)))
