"""Checks of an estimator's precision, and of whether it works in float32 and on other devices."""

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
"""Relative changes of an input. Those of a smooth estimate are proportional to the first two."""

_ROUNDING = 1e-12
"""The largest relative change of an estimate that is taken for rounding."""

_FACTOR = 30.0
"""The factor by which the estimate's changes may be off from proportional. In single precision the
small change of the input has no effect, or one that is a thousand times too large."""

_DIRECTIONS = {"rewards": 3}
"""The number of directions in which an input is changed; 1 for an input that is not named. A change
in one direction can make two rewards change places."""

_MOVED = 3
"""The number of replications that are computed in another dtype or on another device."""

_SINGLE_TOLERANCE = 1e-3
"""The largest difference, relative to the largest entry, that rounding at 6e-8 may cause."""


@dataclass(frozen=True, eq=False)
class _Input:
    """An array that estimates may depend on, with directions ``[n, *shape]`` to change it in, the
    function from the array to ``estimates``, and those ``before`` any change.
    """

    array: FloatArray
    directions: FloatArray
    estimates: Callable[[FloatArray], FloatArray]
    before: FloatArray

    def effects(self, change: float) -> FloatArray:
        """``[n]``: the estimates' change by a relative ``change`` of the array in each direction,
        relative to the largest estimate.
        """
        after = [self.estimates(self.array * (1.0 + change * way)) for way in self.directions]
        size = float(np.abs(self.before).max()) or 1.0
        return np.array([float(np.abs(each - self.before).max()) / size for each in after])


def precision(trial: EstimatorTrial) -> str | None:
    """The estimates change in proportion to a tiny change of an array that they depend on."""
    steps, before = [], trial.comparisons
    for name, source in _inputs(trial).items():
        large = float(np.median(source.effects(_LARGE)))
        if large >= _ROUNDING:
            small = float(np.median(source.effects(_SMALL)))
            _check_proportional(name, small, large)
            trial.comparisons += len(source.directions)
        elif source.effects(_COARSE)[0] > _ROUNDING:
            steps.append(name)
    remark = f"a step function of {', '.join(steps)} (or half precision?)" if steps else None
    if trial.comparisons == before:
        raise NotApplicable(remark or "the estimates depend on no number, as far as was seen")
    return remark


def _check_proportional(name: str, small: float, large: float) -> None:
    """Raises NotSatisfied unless the effects of the two changes are in proportion to them."""
    wanted = large * _SMALL / _LARGE
    if not wanted / _FACTOR < small < wanted * _FACTOR:
        raise NotSatisfied(
            f"a relative change of the {name} by {_SMALL:g} changes estimates by {small:.3g}, one "
            f"by {_LARGE:g} by {large:.3g}: single precision inside?"
        )


def _inputs(trial: EstimatorTrial) -> dict[str, _Input]:
    """The arrays that estimates may depend on, by name."""
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
    """A surrogate runs on a float32 record, and its derivatives are right to that precision."""
    _check_same_at(trial, SINGLE)


def another_device(trial: EstimatorTrial) -> str:
    """A surrogate runs with its record on another device, and its derivatives are the same."""
    place = elsewhere()
    try:
        _check_same_at(trial, place)
    except NoValuesError as error:
        raise NotApplicable(
            f"there is no accelerator, and it looks at values, not shapes alone ({error})"
        ) from None
    return f"on {place}" if place.has_values else "by shapes alone: there is no accelerator"


def _check_same_at(trial: EstimatorTrial, place: Place) -> None:
    """Raises NotSatisfied unless a surrogate's derivatives in ``place`` are those in float64 on the
    CPU.
    """
    estimator, batch, context = trial.estimator, trial.batch[:_MOVED], trial.setup.context
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
