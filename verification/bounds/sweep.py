"""Each bound beside the bias that it bounds, as one setting of the loop is varied.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Lemma 4.4, Theorem 4.5 and
Sec. 5.1, Fig. 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.constants.loops import Scope, loop_constants
from gradbias.analytic.meta.bilevel import BilevelProblem
from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.utils.validation import FloatArray, choice, real_number, whole_number
from gradbias.verification.bounds.loop_bias import OUTCOMES, SweptLoop, swept_bias
from gradbias.verification.bounds.meta_gradient_bias import meta_gradient_bias_bound


class Sweep(Enum):
    """The setting of the loop that a sweep varies, by the name of its argument."""

    STEPS = "steps"
    STEP_SIZE = "step_size"
    BATCH_SIZE = "batch_size"
    HESSIAN_ERROR = "hessian_error"

    @property
    def label(self) -> str:
        """The quantity in words, with its symbol."""
        return _LABELS[self]


_LABELS = {
    Sweep.STEPS: "inner steps K",
    Sweep.STEP_SIZE: "step size alpha",
    Sweep.BATCH_SIZE: "trajectories N",
    Sweep.HESSIAN_ERROR: "multiple of the Hessian's error",
}


@dataclass(frozen=True)
class BoundRow:
    """One loop: its settings, the norm of its ``bias`` (exact or sampled; None where neither was
    possible) and of the ``leading`` term (None for LOLA and MGRL), both 0 where they are rounding,
    and bounds (see `BiasBound`; infinite where floats overflow): ``second_order`` and ``corrected``
    with local constants, ``everywhere`` (corrected) and ``printed`` with global ones. A sampled
    bias has an approximate confidence ``interval``.
    """

    steps: int
    step_size: float
    batch_size: int | None
    hessian_error: float
    bias: float | None
    leading: float | None
    second_order: float
    corrected: float
    everywhere: float
    printed: float
    interval: tuple[float, float] | None = None

    @property
    def positive_interval(self) -> tuple[float, float] | None:
        """The bias's interval (a point, if exact); None where it contains 0."""
        if not self.bias:
            return None
        low, high = (self.bias, self.bias) if self.interval is None else self.interval
        return (low, high) if low > 0.0 else None

    @property
    def looseness(self) -> float | None:
        """The smallest bound over the bias; None where the bias may be 0."""
        if self.bias is None or self.positive_interval is None:
            return None
        return min(self.second_order, self.corrected) / self.bias


MEASURES = ("bias", "leading", "second_order", "corrected", "everywhere", "printed")


@dataclass(frozen=True)
class Slope:
    """The slope of a curve on log-log axes: ``value`` by least squares over all points; ``low`` and
    ``high`` are the smallest and the largest slope between neighbouring points, where a sampled
    point may lie anywhere in its interval. For exact measures, which have no noise, a wide range
    means that the curve bends.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BoundSweep:
    """A sweep: the setting that is varied (``sweep``), a `BoundRow` for each of its values, and by
    name the `Slope` of each measure that has two positive points.
    """

    sweep: Sweep
    rows: tuple[BoundRow, ...]
    slopes: dict[str, Slope]

    def swept(self, row: BoundRow) -> float:
        """The value of the varied setting in a row."""
        return float(getattr(row, self.sweep.value))


def bound_versus_empirical(
    problem: BilevelProblem,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None = None,
    *,
    sweep: Sweep | str,
    values: Sequence[float],
    steps: int = 1,
    step_size: float = 0.1,
    batch_size: int | None = 4,
    curvature: Curvature | str | None = None,
    hessian_error: float = 1.0,
    max_outcomes: int = OUTCOMES,
    replications: int = 0,
) -> BoundSweep:
    """The bias of a sampled meta-gradient and its bounds, as one setting of the loop is varied.

    Sample sets are independent, and gradients are estimated with rewards-to-go.

    Args:
        problem: a `Maml`, `Lirpg`, `Lola` or `Mgrl`.
        meta_parameters: phi, as for `meta_gradient`.
        theta: the parameters that the inner loop starts from; None for MAML.
        sweep: the varied setting: "steps", "step_size", "batch_size" or "hessian_error".
        values: its values, in place of the argument of that name.
        steps: K, the number of inner steps.
        step_size: alpha, at least 0.
        batch_size: N, the number of trajectories in a batch; None takes expected inner steps.
        curvature: the Hessian estimator whose mean replaces the exact Hessian: "ad", "lvc" or
            "dice" (default: the exact Hessian).
        hessian_error: multiplies the error of that mean.
        max_outcomes: the largest number of outcomes of a loop that is enumerated (exact biases).
        replications: the number of loops sampled where there are more outcomes (0: none).

    Returns:
        A row for each value, and the slopes on log-log axes.

    Raises:
        ValueError: as `loop_constants`; no values, or values that do not fit the swept setting; a
            sweep of the Hessian's error without a curvature.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 5.1, Fig. 2.

    >>> from gradbias.analytic import Maml, TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> options = {"sweep": "batch_size", "values": [4, 8, 16], "step_size": 0.1}
    >>> slopes = bound_versus_empirical(Maml(bandit), [[0.5, 0.0]], **options).slopes
    >>> round(slopes["bias"].value, 2), round(slopes["corrected"].value, 2)
    (-1.0, -0.5)
    """
    kind = choice("sweep", sweep, Sweep)
    means = None if curvature is None else choice("curvature", curvature, Curvature)
    if np.ndim(values) != 1 or len(values) == 0:
        raise ValueError(f"values: expected at least one number in a sequence, got {values!r}")
    if kind is Sweep.HESSIAN_ERROR and means is None:
        raise ValueError(
            "curvature: expected the estimator whose error is swept (DiCE, LVC or AD), got None"
        )
    largest = whole_number("max_outcomes", max_outcomes, at_least=0)
    drawn = whole_number("replications", replications, at_least=0)
    loop = SweptLoop(steps, step_size, batch_size, hessian_error, means, largest, drawn)
    loops = [_with_swept(loop, kind, value) for value in values]
    rows = [_measured(problem, meta_parameters, theta, each) for each in loops]
    result = BoundSweep(kind, tuple(rows), {})
    x = np.array([result.swept(row) for row in rows])
    slopes = {name: slope_of(x, [_interval(row, name) for row in rows]) for name in MEASURES}
    return replace(result, slopes={name: s for name, s in slopes.items() if s is not None})


def _interval(row: BoundRow, name: str) -> tuple[float, float, float] | None:
    """A measure's value and the ends of its interval; None where it may be 0."""
    value = float(getattr(row, name) or 0.0)
    ends = row.positive_interval if name == "bias" else (value, value)
    return None if ends is None or value <= 0.0 else (value, *ends)


def slope_of(x: FloatArray, y: Sequence[tuple[float, float, float] | None]) -> Slope | None:
    """The log-log `Slope` of y over x, at the points where both are positive and finite; None with
    fewer than two. Each y is (value, low, high), with the ends of its interval.
    """
    points = [
        (math.log(place), *(math.log(number) for number in numbers))
        for place, numbers in zip(x.tolist(), y, strict=True)
        if numbers is not None and place > 0.0 and math.isfinite(numbers[2])
    ]
    log_x, log_y, low, high = np.array(sorted(points, key=lambda point: point[0])).reshape(-1, 4).T
    centred = log_x - log_x.mean() if len(log_x) else log_x
    if not (centred != 0.0).any():
        return None
    value = float(centred @ log_y / (centred @ centred))
    distinct = np.diff(log_x) > 0.0
    gaps = np.diff(log_x)[distinct]
    lows, highs = low[1:] - high[:-1], high[1:] - low[:-1]
    return Slope(value, float((lows[distinct] / gaps).min()), float((highs[distinct] / gaps).max()))


def _with_swept(loop: SweptLoop, sweep: Sweep, value: float) -> SweptLoop:
    number: float
    if sweep in (Sweep.STEPS, Sweep.BATCH_SIZE):
        number = whole_number("values", value, at_least=1)
    else:
        number = real_number("values", value, low=0.0, high=1e12)
    changed: dict[str, Any] = {sweep.value: number}
    return replace(loop, **changed)


def _measured(
    problem: BilevelProblem, phi: npt.ArrayLike, theta: npt.ArrayLike | None, loop: SweptLoop
) -> BoundRow:
    bounds = {}
    steps: dict[str, Any] = {"steps": loop.steps, "step_size": loop.step_size}
    means: dict[str, Any] = {"curvature": loop.curvature, "hessian_error": loop.hessian_error}
    for scope in Scope:
        constants = loop_constants(problem, phi, theta, **steps, **means, scope=scope)
        bounds[scope] = meta_gradient_bias_bound(constants, **steps, batch_size=loop.batch_size)
    local = bounds[Scope.LOCAL]
    measured = swept_bias(problem, phi, theta, loop)
    return BoundRow(
        **steps,
        batch_size=loop.batch_size,
        hessian_error=loop.hessian_error,
        bias=measured.bias,
        leading=measured.leading,
        second_order=local.second_order,
        corrected=local.corrected,
        everywhere=bounds[Scope.GLOBAL].corrected,
        printed=bounds[Scope.GLOBAL].printed,
        interval=measured.interval,
    )
