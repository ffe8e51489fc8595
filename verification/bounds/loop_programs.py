"""The bias of one sampled LOLA or MGRL loop: by enumeration of the batches, or by sampling.

DiCE's Hessians and mixed derivatives of a game are unbiased, MGRL's are exact ones here, so the
bias is what sampled steps add: they alone are drawn, and what follows has its mean.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA, MGRL) and eq. (4).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gradbias.analytic.meta.bilevel import Lola, Mgrl
from gradbias.verification.bounds.loop_bias import LoopAsked, SweptBias

_PATHS = 50_000
"""Sampled inner loops up to which they are enumerated: each costs memory."""

_ROUNDING = 1e-13


def swept_program_bias(
    problem: Lola | Mgrl, phi: npt.ArrayLike, theta: npt.ArrayLike | None, asked: LoopAsked
) -> SweptBias:
    """The bias; its leading term is not known but for expected steps, which have none. Raises
    ValueError for parameters that do not fit.
    """
    if asked.samples is None:
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
    given, value = Given(problem), Sampled(surrogate, asked.samples)
    steps = (asked.steps, asked.step_size)
    estimator = MetaGradient(loop, *steps, value, given, given, jacobian=given)
    limit = max(1, min(asked.outcomes, _PATHS))
    try:
        if asked.outcomes == 0:
            raise EnumerationSizeError("none is to be enumerated")
        report = measure_meta_gradient(
            estimator, phi, theta, exact=problem, evidence="enumeration", enumeration_limit=limit
        )
    except EnumerationSizeError:
        if not asked.runs:
            return SweptBias(None, None)
        report = measure_meta_gradient(
            estimator, phi, theta, exact=problem, evidence="sampling", samples=asked.runs
        )
        return SweptBias(report.bias_norm, None, report.interval)
    floor = _ROUNDING * report.target_norm
    return SweptBias(report.bias_norm if report.bias_norm > floor else 0.0, None)
