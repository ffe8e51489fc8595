"""Checks of how precisely an estimator computes, and whether it insists on a dtype or a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

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
from gradbias.verification.conformance.runner import TOLERANCE, NotApplicable, NotSatisfied
from gradbias.verification.conformance.trial import EstimatorTrial

_SMALL, _LARGE, _COARSE = 1e-10, 1e-6, 1e-3
"""Relative changes of an input. A smooth estimate answers the first two in proportion."""

_ROUNDING = 1e-12
"""The largest relative change of an estimate that is taken for rounding."""

_FACTOR = 30.0
"""How far from proportional the answers to a small and a large change may be. Single precision
answers the small one by nothing, or by a thousand times too much."""

_DIRECTIONS = {"rewards": 3}
"""The number of directions that an input is changed in, 1 for others. A change in one direction can
make two rewards change places."""

_LOOKED_AT = 3
"""Replications that are computed in another dtype or on another device."""

_SINGLE_TOLERANCE = 1e-3
"""Relative to the largest entry: what rounding at 6e-8 may grow to."""


@dataclass(frozen=True, eq=False)
class _Input:
    """An array that estimates may depend on, with directions ``[n, *shape]`` to change it in, and
    the estimates ``before`` that.
    """

    array: FloatArray
    directions: FloatArray
    estimates: Callable[[FloatArray], FloatArray]
    before: FloatArray

    def answers(self, change: float) -> FloatArray:
        """``[n]``: by how much estimates change, relative to the largest, in each direction."""
        after = [self.estimates(self.array * (1.0 + change * way)) for way in self.directions]
        size = float(np.abs(self.before).max()) or 1.0
        return np.array([float(np.abs(each - self.before).max()) / size for each in after])


def precision(trial: EstimatorTrial) -> str | None:
    """A tiny change of what an estimate depends on changes it in proportion."""
    steps, before = [], trial.comparisons
    for name, source in _inputs(trial).items():
        large = float(np.median(source.answers(_LARGE)))
        if large >= _ROUNDING:
            small = float(np.median(source.answers(_SMALL)))
            _check_proportional(name, small, large)
            trial.comparisons += len(source.directions)
        elif source.answers(_COARSE)[0] > _ROUNDING:
            steps.append(name)
    remark = f"a step function of {', '.join(steps)} (or half precision?)" if steps else None
    if trial.comparisons == before:
        raise NotApplicable(remark or "the estimates depend on no number, as far as was seen")
    return remark


def _check_proportional(name: str, small: float, large: float) -> None:
    """Raises NotSatisfied unless the answers to the two changes are in proportion to these."""
    wanted = large * _SMALL / _LARGE
    if not wanted / _FACTOR < small < wanted * _FACTOR:
        raise NotSatisfied(
            f"a relative change of the {name} by {_SMALL:g} changes estimates by {small:.3g}, one "
            f"by {_LARGE:g} by {large:.3g}: single precision inside?"
        )


def _inputs(trial: EstimatorTrial) -> dict[str, _Input]:
    """What estimates may depend on, by name."""
    setup, batch, rng, run = trial.setup, trial.batch, trial.rng(5), trial.estimates
    assert setup.critic is not None
    inputs: dict[str, tuple[FloatArray, Callable[[FloatArray], FloatArray]]] = {
        "rewards": (batch.rewards, lambda x: run(replace(batch, rewards=x))),
        "behaviour_log_probs": (
            batch.behaviour_log_probs,
            lambda x: run(replace(batch, behaviour_log_probs=x)),
        ),
        "theta": (setup.theta, lambda x: run(batch, replace(setup, theta=x))),
        "critic": (setup.critic, lambda x: run(batch, replace(setup, critic=x))),
    }
    before, drawn = run(batch), {}
    for name, (array, estimates) in inputs.items():
        directions = rng.normal(size=(_DIRECTIONS.get(name, 1), *array.shape))
        drawn[name] = _Input(array, directions, estimates, before)
    return drawn


def single_precision(trial: EstimatorTrial) -> None:
    """On a float32 record a surrogate runs, and gives what it should to that precision."""
    _check_same_at(trial, SINGLE)


def another_device(trial: EstimatorTrial) -> str:
    """A surrogate runs with its record on another device, and gives the same."""
    place = elsewhere()
    try:
        _check_same_at(trial, place)
    except NoValuesError as error:
        raise NotApplicable(
            f"there is no accelerator, and it looks at values, not shapes alone ({error})"
        ) from None
    return f"on {place}" if place.has_values else "by shapes alone: there is no accelerator"


def _check_same_at(trial: EstimatorTrial, place: Place) -> None:
    """Raises NotSatisfied unless a surrogate's derivatives there are those of the usual place."""
    estimator, batch, context = trial.estimator, trial.batch[:_LOOKED_AT], trial.setup.context
    if not isinstance(estimator, SurrogateEstimator):
        raise NotApplicable("no surrogate: it is given numpy arrays, float64")
    try:
        there = gradients_at(estimator, batch, context, place)
    except HardCodedError as error:
        raise NotSatisfied(str(error)) from None
    trial.comparisons += len(there)
    if not place.has_values:
        return
    here = gradients_at(estimator, batch, context, USUAL)
    tolerance = _SINGLE_TOLERANCE if place.single else TOLERANCE
    size, gap = np.abs(here).max(initial=0.0), np.abs(there - here).max(initial=0.0)
    if not gap <= tolerance * size:
        raise NotSatisfied(
            f"a record of {place}: derivatives differ by {gap / (size or 1.0):.3g} of the largest"
        )
