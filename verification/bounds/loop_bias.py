"""The bias of one sampled loop: by enumeration of its batches, its leading term, or by sampling.

*MAML and LIRPG*: the bias splits exactly into what the Hessians' error does along the expected path
and what sampled steps add to that. Where all batches can be enumerated both are exact; the leading
term keeps the first and the 1/N part of the second (with the same Hessians).

*LOLA and MGRL*: DiCE's Hessians and mixed derivatives of a game are unbiased, and MGRL's are exact
here, so the bias is what sampled steps add.

Only the inner steps are ever sampled: Hessians, Jacobians and outer gradients are replaced by their
means, which leaves the bias as it is.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA, MGRL), eq. (4) and
Sec. 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any

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

# torch, which estimators need, is imported where they are made: its import takes longer than most
# sweeps.
if TYPE_CHECKING:
    from gradbias.stochastic.meta.meta_gradients import MetaGradient

OUTCOMES = 1_000_000
"""The largest number of outcomes of the inner loop that is enumerated by default."""

_MAX_INNER_OUTCOMES = 4_000
"""The largest number of outcomes before the last step: each costs a call."""

_MAX_PATHS = 50_000
"""The largest number of sampled LOLA or MGRL loops that is enumerated: each costs memory."""

_ROUNDING = 1e-14
"""The relative size below which the bias of a MAML or LIRPG loop is rounding."""

_MEASURED_ROUNDING = 1e-13
"""The same for LOLA and MGRL, whose biases `measure_meta_gradient` computes."""


@dataclass(frozen=True)
class SweptLoop:
    """One loop of a sweep: its settings, and the limits of enumeration and sampling. The fields are
    the arguments of `bound_versus_empirical`.
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
    """The norm of a loop's bias (None where it was neither enumerated nor sampled) and of its
    leading term (None where that is not known), both 0 where they are rounding; a sampled bias has
    an ``interval``, which relies on a normal mean.
    """

    bias: float | None
    leading: float | None
    interval: tuple[float, float] | None = None


@singledispatch
def swept_bias(
    problem: BilevelProblem, phi: npt.ArrayLike, theta: npt.ArrayLike | None, loop: SweptLoop
) -> SweptBias:
    """The bias of a loop, by the kind of its problem.

    This version is for `Maml` and `Lirpg`. Raises ValueError as `compositional_bias`, and for
    problems that are too large.
    """
    k, alpha, n = loop.steps, loop.step_size, loop.batch_size
    path = expected_path(problem, phi, theta, k, alpha, Credit.REWARD_TO_GO, None)
    biased = with_hessian_error(path.problem, path.inner, loop.curvature, loop.hessian_error)
    exact = meta_gradient(problem, phi, theta, steps=k, step_size=alpha)
    by_hessians = meta_gradient(biased, phi, theta, steps=k, step_size=alpha) - exact
    floor = _rounding(path, exact, k)
    if n is None:
        return SweptBias(*(_norm(by_hessians, floor),) * 2)
    means: dict[str, Any] = {"curvature": loop.curvature, "hessian_error": loop.hessian_error}
    first = leading_compositional_bias(problem, phi, theta, steps=k, step_size=alpha, **means)
    leading = _norm(by_hessians + first.meta_gradient / n, floor)
    if _can_be_enumerated(path, loop, n):
        by_steps = compositional_bias(biased, phi, theta, steps=k, step_size=alpha, batch_size=n)
        return SweptBias(_norm(by_hessians + by_steps.meta_gradient, floor), leading)
    if not loop.replications:
        return SweptBias(None, leading)
    start = (path.phi, None if path.problem.starts_at_meta else path.path[0])
    bias, interval = _sampled(_estimator(path, biased, loop, n), start, path.problem, loop)
    return SweptBias(bias, leading, interval)


def _rounding(path: ExpectedPath, exact: FloatArray, steps: int) -> float:
    """The size below which a bias is rounding: relative to the meta-gradient, and to what it would
    be if nothing in the outer gradient cancelled (as equal rewards do).
    """
    uncancelled = largest_estimate(path.outer)
    if not path.problem.starts_at_meta:
        uncancelled *= steps * path.step_size * mixed_constants(path.inner).slope
    return _ROUNDING * (float(np.linalg.norm(exact)) + uncancelled)


def _norm(bias: FloatArray, floor: float) -> float:
    norm = float(np.linalg.norm(bias))
    return norm if norm > floor else 0.0


def _can_be_enumerated(path: ExpectedPath, loop: SweptLoop, n: int) -> bool:
    try:
        classes = TrajectoryClasses.of(path.inner, to_go=True)
        count = classes.counted(n, loop.steps)
    except ValueError:  # there are too many to count
        return False
    before_last = count ** ((loop.steps - 1) / loop.steps)
    return count <= loop.max_outcomes and before_last <= _MAX_INNER_OUTCOMES


def _estimator(path: ExpectedPath, biased: Maml | Lirpg, loop: SweptLoop, n: int) -> MetaGradient:
    """The meta-gradient with sampled inner steps, and ``biased``'s exact derivatives."""
    from gradbias.stochastic.meta.inner_loops import SampledLoop
    from gradbias.stochastic.meta.meta_gradients import MetaGradient
    from gradbias.stochastic.meta.slots import Given, Sampled
    from gradbias.stochastic.surrogates.catalogue import CATALOGUE
    from gradbias.stochastic.surrogates.meta_losses import IntrinsicReward

    from_phi, surrogate = path.problem.starts_at_meta, CATALOGUE["ad"]
    if not from_phi:
        # Sampled trajectories are rewarded until they end; the exact side adds phi for ever.
        if path.phi[path.outer.terminal].any():
            raise ValueError(
                "meta_parameters: expected 0 at terminal states to sample trajectories"
            )
        surrogate = IntrinsicReward(surrogate)
    return MetaGradient(
        SampledLoop(path.outer, starts_at_meta=from_phi),
        loop.steps,
        loop.step_size,
        value=Sampled(surrogate, n),
        hessian=Given(biased),
        outer=Given(biased),
        jacobian=None if from_phi else Given(biased),
    )


def _sampled(
    estimator: MetaGradient,
    start: tuple[npt.ArrayLike, npt.ArrayLike | None],
    problem: BilevelProblem,
    loop: SweptLoop,
) -> tuple[float, tuple[float, float] | None]:
    """The norm of a sampled bias with its interval."""
    from gradbias.verification.measurement.meta_gradients import measure_meta_gradient

    report = measure_meta_gradient(
        estimator, *start, exact=problem, evidence="sampling", replications=loop.replications
    )
    return report.bias_norm, report.interval


@swept_bias.register
def _(problem: Lola, phi: npt.ArrayLike, theta: npt.ArrayLike | None, loop: SweptLoop) -> SweptBias:
    if loop.batch_size is None:
        return SweptBias(0.0, 0.0)
    from gradbias.stochastic.meta.game_loops import SampledGame
    from gradbias.stochastic.surrogates.catalogue import CATALOGUE

    game = SampledGame(problem.game, problem.player)
    return _measured_bias(problem, (phi, theta), loop, game, CATALOGUE["ad"])


@swept_bias.register
def _(problem: Mgrl, phi: npt.ArrayLike, theta: npt.ArrayLike | None, loop: SweptLoop) -> SweptBias:
    if loop.batch_size is None:
        return SweptBias(0.0, 0.0)
    from gradbias.stochastic.meta.inner_loops import SampledLoop
    from gradbias.stochastic.surrogates.meta_losses import LambdaReturn

    sampled = SampledLoop(problem.mdp, critic=np.asarray(problem.critic))  # type: ignore[arg-type]
    surrogate = LambdaReturn(weighting=problem.weighting)
    return _measured_bias(problem, (phi, theta), loop, sampled, surrogate)


def _measured_bias(
    problem: Lola | Mgrl,
    start: tuple[npt.ArrayLike, npt.ArrayLike | None],
    loop: SweptLoop,
    sampled: Any,
    surrogate: Any,
) -> SweptBias:
    """The bias of a LOLA or MGRL loop, in which ``surrogate`` estimates the inner updates. The
    leading term is not known. Raises ValueError for parameters that do not fit.
    """
    from gradbias.stochastic.meta.meta_gradients import MetaGradient
    from gradbias.stochastic.meta.slots import Given, Sampled
    from gradbias.verification.evidence.enumeration import EnumerationSizeError
    from gradbias.verification.measurement.meta_gradients import measure_meta_gradient

    exact, value = Given(problem), Sampled(surrogate, loop.batch_size or 1)
    settings = (loop.steps, loop.step_size)
    estimator = MetaGradient(sampled, *settings, value, exact, exact, jacobian=exact)
    limit = max(1, min(loop.max_outcomes, _MAX_PATHS))
    try:
        if loop.max_outcomes == 0:
            raise EnumerationSizeError("none is to be enumerated")
        report = measure_meta_gradient(
            estimator, *start, exact=problem, evidence="enumeration", max_outcomes=limit
        )
    except EnumerationSizeError:
        if not loop.replications:
            return SweptBias(None, None)
        bias, interval = _sampled(estimator, start, problem, loop)
        return SweptBias(bias, None, interval)
    floor = _MEASURED_ROUNDING * report.target_norm
    return SweptBias(report.bias_norm if report.bias_norm > floor else 0.0, None)
