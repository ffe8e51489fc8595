"""Exact moments of estimators that are sums over steps, for any number of trajectories.

`stochastic.derivatives.known_surrogates` names the surrogates; `analytic.moments` has their
recursions over time. The exact kurtosis of the problem's gradient estimates says whether a sample
of an estimator of which nothing is known can be trusted (`rare_doubt`).
"""

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
from gradbias.analytic.moments.kurtosis import Kurtosis, derivative_kurtosis, kurtosis_work
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.at_parameters import PolicyAt, policy_at
from gradbias.analytic.policies.softmax import LinearSoftmax, TabularSoftmax, softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import return_derivative
from gradbias.analytic.returns.target_values import evaluate_target
from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.derivatives.known_surrogates import StepSum, known_of
from gradbias.stochastic.estimators.kinds import Estimator, SurrogateEstimator, from_surrogate
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.off_policy import OffPolicyDice
from gradbias.verification.evidence.accumulated_moments import Moments
from gradbias.verification.evidence.reasons import Doubt, Reason
from gradbias.verification.evidence.request import Request

MIN_OUTCOMES = 50
"""The smallest number of outcomes that carry the spread with which a mean is taken for normal."""

MAX_KURTOSIS_WORK = 1e10
"""The most operations that the kurtosis may take: some ten seconds."""

MAX_CONTROLLED = 4096
"""The largest number of components with which an estimate gets a control variate by default."""

MAX_WORK = 20e9
"""The most operations that a recursion may take: about half a minute."""


@dataclass(frozen=True, eq=False)
class KnownRecursion:
    """The recursion for one estimator's moments.

    Attributes:
        curvature: the kind of Hessian.
        options: keyword arguments of `gradient_moments` and `hvp_moments`.
        width: the length of its state for one parameter.
        squared: whether its state includes a matrix of second moments.
    """

    curvature: Curvature
    options: dict[str, Any]
    width: int
    squared: bool


def step_sum_of(request: Request) -> StepSum | None:
    """The estimator as a sum over steps: of a known surrogate, on policy, at order 1 or 2."""
    estimator = request.estimator
    if not isinstance(estimator, SurrogateEstimator) or estimator.order > 2:
        return None
    known = known_of(estimator.function)
    on_policy = np.array_equal(request.behaviour, request.context.theta)
    return known.step_sum if known is not None and on_policy else None


def recursion_of(request: Request) -> KnownRecursion | None:
    """The recursion of an estimator that is a sum over steps (`step_sum_of`); else None."""
    form = step_sum_of(request)
    if form is None:
        return None
    credit = Credit.TOTAL_RETURN if form.total_return else Credit.REWARD_TO_GO
    options = {"credit": credit, "weighting": form.weighting, "gae_lambda": form.gae_lambda}
    width = request.estimator.order if form.curvature == "DICE" else 1
    if form.total_return:
        width = 3
    return KnownRecursion(Curvature[form.curvature], options, width, form.total_return)


def recursion_work(request: Request, known: KnownRecursion) -> float:
    """The approximate number of operations that the recursion takes."""
    mdp, p = request.mdp, request.context.theta.size
    length = 2 + known.width * p
    runs = p ** (request.estimator.order - 1)
    pairs = mdp.n_states * mdp.n_actions
    kept = length**2 if known.squared else length
    return float(runs * request.length * pairs * kept * 4 * (length + mdp.n_states))


def recursion_moments(request: Request, known: KnownRecursion) -> Moments:
    """Mean and variance of the estimate from one trajectory.

    Raises:
        ValueError: the recursion takes more than `MAX_WORK` operations.
    """
    work = recursion_work(request, known)
    if work > MAX_WORK:
        raise ValueError(
            f"evidence: expected moments that take at most {MAX_WORK:.0e} operations, got "
            f"{work:.0e}; use sampling, a lower order, or fewer parameters"
        )
    context = request.context
    mdp = replace(request.mdp, horizon=request.length)
    options = known.options | {"critic": context.critic, "policy": context.policy}
    if request.estimator.order == 1:
        return _gradient(gradient_moments(mdp, context.theta, **options), request)

    def column(v: FloatArray) -> EstimateMoments:
        return hvp_moments(mdp, context.theta, v, known.curvature, **options)

    return _hessian(column, request)


def _gradient(moments: EstimateMoments, request: Request) -> Moments:
    """A gradient's moments, with its covariance where that is wanted."""
    covariance = None
    if request.covariance:
        covariance = np.array(moments.covariance)
        np.fill_diagonal(covariance, np.maximum(np.diagonal(covariance), 0.0))
        covariance = covariance.reshape(request.context.theta.shape * 2)
    return _as_moments(moments.mean, moments.variance, covariance)


def _hessian(column: Callable[[FloatArray], EstimateMoments], request: Request) -> Moments:
    """A Hessian's moments, column by column."""
    shape, size = request.context.theta.shape, request.context.theta.size
    means, variances = [], []
    for i, v in enumerate(np.eye(size).reshape(size, *shape)):
        moments = column(v)
        means.append(moments.mean.ravel())
        variances.append(moments.variance.ravel())
        if request.progress is not None:
            request.progress(i + 1, size)
    mean, variance = (np.stack(rows, axis=-1).reshape(shape * 2) for rows in (means, variances))
    return _as_moments(mean, variance, None)


def _as_moments(mean: FloatArray, variance: FloatArray, covariance: FloatArray | None) -> Moments:
    # A variance is a difference of squares here, so rounding can put it below 0.
    positive = np.maximum(variance, 0.0)
    size = float(np.sqrt((mean**2 + positive).sum()))
    return Moments(mean, positive, size, outcomes=0, largest=size, covariance=covariance)


def known_kurtosis(request: Request) -> Kurtosis | None:
    """The exact kurtosis of estimates of the return's derivative, of the estimator's order (1 for
    policies whose logits are not linear), from trajectories of the behaviour policy; as
    `affordable_kurtosis`.
    """
    mdp, context = request.mdp, request.context
    plain = isinstance(context.policy, TabularSoftmax | LinearSoftmax)
    order = request.estimator.order if plain else 1
    behaviour = softmax(context.policy.logits(request.behaviour))
    at = policy_at(context.policy, context.theta, mdp.n_states, mdp.n_actions)
    return affordable_kurtosis(mdp, at, behaviour, order, request.length)


def affordable_kurtosis(
    mdp: TabularMDP, at: PolicyAt, behaviour: FloatArray, order: int, steps: int
) -> Kurtosis | None:
    """`derivative_kurtosis` of that order; of order 1 where that takes too long; or else None."""
    for k in sorted({order, 1}, reverse=True):
        if kurtosis_work(mdp, k, steps) <= MAX_KURTOSIS_WORK:
            return derivative_kurtosis(mdp, at, behaviour, k, steps)
    return None


def rare_doubt(kurtosis: Kurtosis | None, trajectories: int) -> Doubt | None:
    """Why the mean of estimates from so many trajectories is not taken for normal."""
    if kurtosis is None:
        return Reason.UNKNOWN_TAILS, ""
    carried = trajectories / kurtosis.value if kurtosis.value > 0 else MIN_OUTCOMES
    if carried >= MIN_OUTCOMES:
        return None
    s, a, after = kurtosis.step
    step = f"from state {s} by action {a} to state {after}, {kurtosis.probability:.2g} a trajectory"
    detail = (
        f"{carried:.2g} of {trajectories:,} trajectories, less than {MIN_OUTCOMES}; mostly {step}"
    )
    return Reason.RARE_OUTCOMES, detail


@dataclass(frozen=True, eq=False)
class KnownControl:
    """An estimator of the return's derivative on the same trajectories, with its exact ``mean``."""

    estimator: Estimator
    mean: FloatArray


def known_control(request: Request) -> KnownControl | None:
    """DiCE's estimate of the derivative of the return of a trajectory's steps: a control variate
    for an estimator of which nothing is known. None where there is none: an order above 2, logits
    that are not linear, large estimates, or an estimator that draws its own batches.
    """
    setting, estimator = request.setting, request.estimator
    plain = isinstance(setting.policy, TabularSoftmax | LinearSoftmax)
    size = int(np.prod(request.shape))
    if estimator.draws_itself or estimator.order > 2 or not plain or size > MAX_CONTROLLED:
        return None
    surrogate = dice if setting.on_policy else OffPolicyDice()
    target = return_derivative(estimator.order, horizon=request.length)
    mean = evaluate_target(target, setting.finite_mdp, setting.theta, policy=setting.policy)
    return KnownControl(from_surrogate(surrogate, order=estimator.order), mean)
