"""The bias of one sampled loop: by enumeration of its batches, its leading term, or by sampling.

The bias splits exactly into what the Hessians' error does along the expected path, and what sampled
steps add to that. Where all batches can be enumerated both are exact; the leading term keeps the
first and the 1/N part of the second (with the same Hessians). When sampled, the inner steps alone
are: what follows has its mean, which leaves the bias as it is.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. (4) and Sec. 5.1.

The bias of one sampled LOLA or MGRL loop: by enumeration of the batches, or by sampling.

DiCE's Hessians and mixed derivatives of a game are unbiased, MGRL's are exact ones here, so the
bias is what sampled steps add: they alone are drawn, and what follows has its mean.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA, MGRL) and eq. (4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.constants.returns import largest_estimate, mixed_constants
from gradbias.analytic.meta.bilevel import BilevelProblem, Lirpg, Lola, Maml, Mgrl
from gradbias.analytic.meta.compositional_bias import (
    ExpectedPath,
    compositional_bias,
    expected_path,
)
from gradbias.analytic.meta.compositional_expansion import leading_compositional_bias
from gradbias.analytic.meta.meta_gradients import meta_gradient
from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.moments.trajectory_classes import Credit, TrajectoryClasses
from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.bounds.biased_hessians import with_hessian_error

OUTCOMES = 1_000_000
"""Of the inner loop, up to which they are enumerated unless said."""

_INNER_OUTCOMES = 4_000
"""Before the last step: each costs a call."""

_ROUNDING = 1e-14


@dataclass(frozen=True)
class LoopAsked:
    """A loop whose bias is asked for; ``replications`` of it are drawn where it cannot be
    enumerated.
    """

    steps: int
    step_size: float
    batch_size: int | None
    hessian_error: float
    curvature: Curvature | None
    max_outcomes: int
    replications: int


@dataclass(frozen=True)
class SweptBias:
    """Norms of the ``bias`` (None where it was neither enumerated nor sampled) and of its
    ``leading`` term (None where that is not known), 0 where they are rounding; a sampled one has an
    ``interval``, by a normal mean.
    """

    bias: float | None
    leading: float | None
    interval: tuple[float, float] | None = None


def swept_bias(
    problem: BilevelProblem, phi: npt.ArrayLike, theta: npt.ArrayLike | None, asked: LoopAsked
) -> SweptBias:
    """The bias of a `Maml` or `Lirpg` loop. Raises ValueError as `compositional_bias`, for what is
    too large.
    """
    k, alpha, n = asked.steps, asked.step_size, asked.batch_size
    loop = expected_path(problem, phi, theta, k, alpha, Credit.REWARD_TO_GO, None)
    erring = with_hessian_error(loop.problem, loop.inner, asked.curvature, asked.hessian_error)
    exact = meta_gradient(problem, phi, theta, steps=k, step_size=alpha)
    expected = meta_gradient(erring, phi, theta, steps=k, step_size=alpha) - exact
    floor = _rounding(loop, exact, k)
    if n is None:
        return SweptBias(*(_norm(expected, floor),) * 2)
    first = leading_compositional_bias(
        problem,
        phi,
        theta,
        steps=k,
        step_size=alpha,
        curvature=asked.curvature,
        hessian_error=asked.hessian_error,
    )
    leading = _norm(expected + first.meta_gradient / n, floor)
    if _fits(loop, asked, n):
        every = compositional_bias(erring, phi, theta, steps=k, step_size=alpha, batch_size=n)
        return SweptBias(_norm(expected + every.meta_gradient, floor), leading)
    if not asked.replications:
        return SweptBias(None, leading)
    bias, interval = _sampled(loop, erring, asked, n)
    return SweptBias(bias, leading, interval)


def _rounding(loop: ExpectedPath, exact: FloatArray, steps: int) -> float:
    """Below this a bias is rounding: of the meta-gradient, or of what it would be if nothing in the
    outer gradient cancelled (equal rewards).
    """
    uncancelled = largest_estimate(loop.outer)
    if not loop.problem.starts_at_meta:
        uncancelled *= steps * loop.step_size * mixed_constants(loop.inner).slope
    return _ROUNDING * (float(np.linalg.norm(exact)) + uncancelled)


def _norm(bias: FloatArray, floor: float) -> float:
    found = float(np.linalg.norm(bias))
    return found if found > floor else 0.0


def _fits(loop: ExpectedPath, asked: LoopAsked, n: int) -> bool:
    try:
        classes = TrajectoryClasses.of(loop.inner, to_go=True)
        count = classes.counted(n, asked.steps)
    except ValueError:  # too many even for that
        return False
    before = count ** ((asked.steps - 1) / asked.steps)
    return count <= asked.max_outcomes and before <= _INNER_OUTCOMES


def _sampled(
    loop: ExpectedPath, erring: Maml | Lirpg, asked: LoopAsked, n: int
) -> tuple[float, tuple[float, float] | None]:
    # Here, as drawing needs torch, whose import takes longer than most sweeps.
    from gradbias.stochastic.meta.inner_loops import SampledLoop
    from gradbias.stochastic.meta.meta_gradients import MetaGradient
    from gradbias.stochastic.meta.slots import Given, Sampled
    from gradbias.stochastic.surrogates.catalogue import CATALOGUE
    from gradbias.stochastic.surrogates.meta_losses import IntrinsicReward
    from gradbias.verification.measurement.meta_gradients import measure_meta_gradient

    from_phi, surrogate = loop.problem.starts_at_meta, CATALOGUE["ad"]
    if not from_phi:
        _check_ends(loop)
        surrogate = IntrinsicReward(surrogate)
    estimator = MetaGradient(
        SampledLoop(loop.outer, starts_at_meta=from_phi),
        asked.steps,
        asked.step_size,
        value=Sampled(surrogate, n),
        hessian=Given(erring),
        outer=Given(erring),
        jacobian=None if from_phi else Given(erring),
    )
    report = measure_meta_gradient(
        estimator,
        loop.phi,
        None if from_phi else loop.path[0],
        exact=loop.problem,
        evidence="sampling",
        replications=asked.replications,
    )
    return report.bias_norm, report.interval


def _check_ends(loop: ExpectedPath) -> None:
    """Sampled trajectories are paid until they end, the exact side's phi for ever."""
    paid: FloatArray = loop.phi[loop.outer.terminal]
    if paid.any():
        raise ValueError("meta_parameters: expected 0 at terminal states to sample trajectories")


_PATHS = 50_000
"""Sampled inner loops up to which they are enumerated: each costs memory."""

_ROUNDING = 1e-13


def swept_program_bias(
    problem: Lola | Mgrl, phi: npt.ArrayLike, theta: npt.ArrayLike | None, asked: LoopAsked
) -> SweptBias:
    """The bias; its leading term is not known but for expected steps, which have none. Raises
    ValueError for parameters that do not fit.
    """
    if asked.batch_size is None:
        return SweptBias(0.0, 0.0)
    # Here, as drawing needs torch, whose import takes longer than most sweeps.
    from gradbias.stochastic.meta.game_loops import SampledGame
    from gradbias.stochastic.meta.inner_loops import SampledLoop
    from gradbias.stochastic.meta.meta_gradients import MetaGradient
    from gradbias.stochastic.meta.slots import Given, Sampled
    from gradbias.stochastic.surrogates.catalogue import CATALOGUE
    from gradbias.stochastic.surrogates.meta_losses import LambdaReturn
    from gradbias.verification.evidence.enumeration import EnumerationSizeError
    from gradbias.verification.measurement.meta_gradients import measure_meta_gradient

    loop: SampledGame | SampledLoop
    if isinstance(problem, Lola):
        loop, surrogate = SampledGame(problem.game, problem.player), CATALOGUE["ad"]
    else:
        loop = SampledLoop(problem.mdp, critic=np.asarray(problem.critic))  # type: ignore[arg-type]
        surrogate = LambdaReturn(weighting=problem.weighting)
    given, value = Given(problem), Sampled(surrogate, asked.batch_size)
    steps = (asked.steps, asked.step_size)
    estimator = MetaGradient(loop, *steps, value, given, given, jacobian=given)
    limit = max(1, min(asked.max_outcomes, _PATHS))
    try:
        if asked.max_outcomes == 0:
            raise EnumerationSizeError("none is to be enumerated")
        report = measure_meta_gradient(
            estimator, phi, theta, exact=problem, evidence="enumeration", max_outcomes=limit
        )
    except EnumerationSizeError:
        if not asked.replications:
            return SweptBias(None, None)
        report = measure_meta_gradient(
            estimator,
            phi,
            theta,
            exact=problem,
            evidence="sampling",
            replications=asked.replications,
        )
        return SweptBias(report.bias_norm, None, report.interval)
    floor = _ROUNDING * report.target_norm
    return SweptBias(report.bias_norm if report.bias_norm > floor else 0.0, None)
