"""How precisely an estimator computes, and whether it insists on a dtype or a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.estimators.dtype_device import (
    SINGLE,
    USUAL,
    HardCodedError,
    NoValuesError,
    Place,
    elsewhere,
    gradients_at,
)
from gradbias.stochastic.estimators.kinds import SurrogateEstimator
from gradbias.verification.conformance.report import (
    TOLERANCE,
    NotApplicable,
    NotSatisfied,
    Remarked,
)
from gradbias.verification.conformance.trial import Trial

_NUDGE = 1e-10
_LARGER = 1e-6
_COARSE = 1e-3
_MOST_NUDGES = 3
_NUDGES = {"rewards": _MOST_NUDGES}
"""One of which can make two rewards change places; else one nudge tells."""

_LOOKED_AT = 3
_ROUNDING = 1e-12
_FACTOR = 30.0
"""By how much the changes under the two nudges may differ from being proportional. Single precision
answers the small one by nothing, or by a thousand times too much."""

_OF_BATCH = ("rewards", "behaviour_log_probs")

_SINGLE_TOLERANCE = 1e-3
"""Relative to the largest entry: what rounding at 6e-8 may grow to."""


def precision(trial: Trial) -> int | Remarked:
    """A tiny change of what an estimate depends on changes it in proportion."""
    made, steps = 0, []
    for name, moved in _nudged(trial).items():
        answer = _answers(moved, name)
        made += answer
        if not answer and moved(_COARSE, 0) > _ROUNDING:
            steps.append(name)
    what = f"a step function of {', '.join(steps)} (or half precision?)" if steps else ""
    if not made:
        raise NotApplicable(what or "the estimates depend on no number, as far as was seen")
    return Remarked(made, what) if what else made


def _nudged(trial: Trial) -> dict[str, Callable[[float, int], float]]:
    """By name of what is nudged, by how much, and in which direction: how far estimates move,
    relative to the largest.
    """
    base, rng = trial.estimates(trial.batch), trial.rng(5)
    size = float(np.abs(base).max()) or 1.0
    theta, critic, batch = trial.setup.theta, trial.setup.critic, trial.batch
    assert critic is not None

    def told(
        array: FloatArray, change: Callable[[FloatArray], FloatArray]
    ) -> Callable[[float, int], float]:
        directions = rng.normal(size=(_MOST_NUDGES, *array.shape))

        def moved(by: float, which: int) -> float:
            found = change(array * (1.0 + by * directions[which]))
            return float(np.abs(found - base).max()) / size

        return moved

    def of_batch(name: str) -> Callable[[FloatArray], FloatArray]:
        def change(array: FloatArray) -> FloatArray:
            other: dict[str, Any] = {name: array}
            return trial.estimates(replace(batch, **other))

        return change

    found = {name: told(getattr(batch, name), of_batch(name)) for name in _OF_BATCH}
    setup = trial.setup
    found["theta"] = told(theta, lambda other: trial.estimates(batch, replace(setup, theta=other)))
    found["critic"] = told(critic, lambda v: trial.estimates(batch, replace(setup, critic=v)))
    return found


def _answers(moved: Callable[[float, int], float], name: str) -> int:
    """How many nudges it answered in proportion; 0 where it answers none. Raises NotSatisfied."""
    nudges = _NUDGES.get(name, 1)
    larger = [moved(_LARGER, which) for which in range(nudges)]
    if float(np.median(larger)) < _ROUNDING:
        return 0
    small = [moved(_NUDGE, which) for which in range(nudges)]
    scale = _LARGER / _NUDGE
    change, wanted = float(np.median(small)), float(np.median(larger)) / scale
    if not wanted / _FACTOR < change < wanted * _FACTOR:
        raise NotSatisfied(
            f"a relative change of the {name} by {_NUDGE:g} changes estimates by {change:.3g}, one "
            f"by {_LARGER:g} by {wanted * scale:.3g}: single precision inside?"
        )
    return nudges


def single_precision(trial: Trial) -> int:
    """On a float32 record a surrogate runs, and gives what it should to that precision."""
    return _same_at(trial, SINGLE)


def another_device(trial: Trial) -> int | Remarked:
    """With its record on another device a surrogate runs, and gives the same."""
    place = elsewhere()
    try:
        made = _same_at(trial, place)
    except NoValuesError as error:
        raise NotApplicable(
            f"there is no accelerator, and it looks at values, not shapes alone ({error})"
        ) from None
    if not place.has_values:
        return Remarked(made, "by shapes alone: there is no accelerator")
    return Remarked(made, f"on {place}")


def _same_at(trial: Trial, place: Place) -> int:
    estimator, batch, context = trial.estimator, trial.batch[:_LOOKED_AT], trial.setup.context
    if not isinstance(estimator, SurrogateEstimator):
        raise NotApplicable("no surrogate: it is given numpy arrays, float64")
    try:
        found = gradients_at(estimator, batch, context, place)
    except HardCodedError as error:
        raise NotSatisfied(str(error)) from None
    if not place.has_values:
        return len(found)
    wanted = gradients_at(estimator, batch, context, USUAL)
    tolerance = _SINGLE_TOLERANCE if place.single else TOLERANCE
    size, gap = np.abs(wanted).max(initial=0.0), np.abs(found - wanted).max(initial=0.0)
    if not gap <= tolerance * size:
        raise NotSatisfied(
            f"a record of {place}: derivatives differ by {gap / (size or 1.0):.3g} of the largest"
        )
    return len(found)
