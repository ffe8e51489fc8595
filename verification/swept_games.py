"""The bias of one sampled LOLA loop: by enumeration of the opponent's batches, or by sampling.

DiCE's Hessians and mixed derivatives are unbiased, so the bias is what sampled steps add: the inner
steps alone are drawn, and what follows has its mean.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA) and eq. (4).
"""

from __future__ import annotations

import numpy.typing as npt

from analytic.bilevel import Lola
from verification.swept_biases import LoopAsked, SweptBias

_PATHS = 50_000
"""Sampled inner loops up to which they are enumerated: each costs memory."""

_ROUNDING = 1e-13


def swept_game_bias(
    problem: Lola, phi: npt.ArrayLike, theta: npt.ArrayLike | None, asked: LoopAsked
) -> SweptBias:
    """The bias; its leading term is not known but for expected steps, which have none. Raises
    ValueError for parameters that do not fit.
    """
    if asked.samples is None:
        return SweptBias(0.0, 0.0)
    # Here, as drawing needs torch, whose import takes longer than most sweeps.
    from stochastic.game_loops import SampledGame
    from stochastic.meta_gradients import MetaGradient
    from stochastic.sample_slots import Given, Sampled
    from stochastic.surrogates.catalogue import CATALOGUE
    from verification.enumeration import EnumerationSizeError
    from verification.meta_measurement import measure_meta_gradient

    given, value = Given(problem), Sampled(CATALOGUE["ad"], asked.samples)
    loop = SampledGame(problem.game, problem.player)
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
