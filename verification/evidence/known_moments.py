"""Exact moments of the estimators that have a recursion, however many trajectories there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradbias.analytic.moments.estimators import (
    Curvature,
    EstimateMoments,
    gradient_moments,
    hvp_moments,
)
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.stochastic.estimators.kinds import SurrogateEstimator
from gradbias.stochastic.surrogates.dice import Dice, LoadedDice
from gradbias.stochastic.surrogates.score_function import AD, LVC, Reduction
from gradbias.verification.evidence.accumulated_moments import Moments
from gradbias.verification.evidence.request import Request

MAX_WORK = 20e9
"""Operations up to which a recursion is run: about half a minute."""


@dataclass(frozen=True, eq=False)
class KnownRecursion:
    """How the recursion names an estimator: its kind of Hessian, and the options of both orders;
    ``factor`` is the length of its state for one parameter, and ``squared`` says that a matrix of
    second moments of it is kept.
    """

    curvature: Curvature
    options: dict[str, Any]
    factor: int
    squared: bool = False


def recursion_of(asked: Request) -> KnownRecursion | None:
    """The recursion of a built-in estimator, drawn on policy, at orders 1 and 2; else None."""
    estimator = asked.estimator
    on_policy = np.array_equal(asked.behaviour, asked.context.theta)
    if not isinstance(estimator, SurrogateEstimator) or estimator.order > 2 or not on_policy:
        return None
    surrogate = estimator.function
    if type(surrogate) is Dice:
        return KnownRecursion(Curvature.DICE, {}, estimator.order)
    if type(surrogate) is LoadedDice:
        loaded = {"gae_lambda": surrogate.gae_lambda, "weighting": surrogate.weighting}
        return KnownRecursion(Curvature.DICE, loaded, estimator.order)
    if type(surrogate) is AD or type(surrogate) is LVC:
        if surrogate.reduction is not Reduction.SUM_OVER_STEPS:
            return None
        credit = Credit.REWARD_TO_GO if surrogate.reward_to_go else Credit.TOTAL_RETURN
        curvature = Curvature.AD if type(surrogate) is AD else Curvature.LVC
        options: dict[str, Any] = {"credit": credit, "weighting": surrogate.weighting}
        if surrogate.gae_lambda is not None:
            options["gae_lambda"] = surrogate.gae_lambda
        if surrogate.reward_to_go:
            return KnownRecursion(curvature, options, 1)
        return KnownRecursion(curvature, options, 3, squared=True)
    return None


def recursion_work(asked: Request, known: KnownRecursion) -> float:
    """About how many operations it takes."""
    mdp, p = asked.mdp, asked.context.theta.size
    length = 2 + known.factor * p
    runs = p ** (asked.estimator.order - 1)
    pairs = mdp.n_states * mdp.n_actions
    kept = length**2 if known.squared else length
    return float(runs * asked.length * pairs * kept * 4 * (length + mdp.n_states))


def recursion_moments(asked: Request, known: KnownRecursion) -> Moments:
    """Mean and variance of the estimate from one trajectory.

    Raises:
        ValueError: more work than `MAX_WORK`.
    """
    work = recursion_work(asked, known)
    if work > MAX_WORK:
        raise ValueError(
            f"evidence: expected moments that take at most {MAX_WORK:.0e} operations, got "
            f"{work:.0e}; use sampling, a lower order, or fewer parameters"
        )
    context = asked.context
    mdp = replace(asked.mdp, horizon=asked.length)
    options = known.options | {"critic": context.critic, "policy": context.policy}
    if asked.estimator.order == 1:
        return _moments(gradient_moments(mdp, context.theta, **options), asked)

    def column(v: Any) -> EstimateMoments:
        return hvp_moments(mdp, context.theta, v, known.curvature, **options)

    return _columns(column, asked)


def _columns(column: Callable[[Any], EstimateMoments], asked: Request) -> Moments:
    """A Hessian's moments, column by column."""
    shape = asked.context.theta.shape
    size = asked.context.theta.size
    means, variances = [], []
    for i, v in enumerate(np.eye(size).reshape(size, *shape)):
        found = column(v)
        means.append(found.mean.ravel())
        variances.append(found.variance.ravel())
        if asked.progress is not None:
            asked.progress(i + 1, size)
    mean, variance = (np.stack(rows, axis=-1).reshape(shape * 2) for rows in (means, variances))
    return _as_moments(mean, variance, None)


def _moments(found: EstimateMoments, asked: Request) -> Moments:
    shape = asked.context.theta.shape
    full = np.array(found.covariance)
    np.fill_diagonal(full, np.maximum(np.diagonal(full), 0.0))
    return _as_moments(
        found.mean, found.variance, full.reshape(shape * 2) if asked.covariance else None
    )


def _as_moments(mean: Any, variance: Any, covariance: Any) -> Moments:
    positive = np.maximum(variance, 0.0)  # a difference of squares, below 0 by rounding alone
    size = float(np.sqrt((mean**2 + positive).sum()))
    return Moments(mean, positive, size, outcomes=0, largest=size, covariance=covariance)
