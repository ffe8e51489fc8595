"""Each bound beside what it bounds, as one number of the loop is swept.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Lemma 4.4, Theorem 4.5 and
Sec. 5.1, Fig. 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt

from gradbias.analytic.constants.loops import Scope, loop_constants
from gradbias.analytic.meta.bilevel import BilevelProblem, Lola, Mgrl
from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.utils.validation import FloatArray, real_number, whole_number
from gradbias.verification.bounds.loop_bias import (
    OUTCOMES,
    LoopAsked,
    swept_bias,
    swept_program_bias,
)
from gradbias.verification.bounds.meta_gradient_bias import meta_gradient_bias_bound


class Sweep(Enum):
    """What is varied."""

    STEPS = "inner steps K"
    STEP_SIZE = "step size alpha"
    BATCH_SIZE = "trajectories N"
    HESSIAN_ERROR = "multiple of the Hessian's error"


@dataclass(frozen=True)
class BoundRow:
    """One loop: norms of the ``bias`` (exact, or sampled with an approximate ``interval``, or None)
    and its ``leading`` term (None for LOLA and MGRL), both 0 where they are rounding, and bounds:
    ``second_order``, ``corrected`` and ``compact`` with local constants, ``everywhere`` (corrected,
    with global ones), and eq. (9) as ``printed`` (see `BiasBound`). A bound is infinite where
    floats do not reach.
    """

    steps: int
    step_size: float
    batch_size: int | None
    hessian_error: float
    bias: float | None
    leading: float | None
    second_order: float
    corrected: float
    compact: float
    everywhere: float
    printed: float
    interval: tuple[float, float] | None = None

    @property
    def told(self) -> tuple[float, float] | None:
        """An interval of the bias (a point, if exact); None where it is 0, or reaches 0."""
        if not self.bias:
            return None
        low, high = (self.bias, self.bias) if self.interval is None else self.interval
        return (low, high) if low > 0.0 else None

    @property
    def looseness(self) -> float | None:
        """The smallest bound over the bias, if that is told from 0."""
        if self.bias is None or self.told is None:
            return None
        return min(self.second_order, self.corrected, self.compact) / self.bias


MEASURES = ("bias", "leading", "second_order", "corrected", "compact", "everywhere", "printed")


@dataclass(frozen=True)
class Slope:
    """On log-log axes: ``value`` by least squares over all points; ``low`` and ``high`` are the
    smallest and largest slope between neighbours, over the intervals of sampled ones. Without those
    nothing is random: a wide interval is a curve.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BoundSweep:
    """The rows of a sweep, and the slope of each measure that has two positive points."""

    sweep: Sweep
    rows: tuple[BoundRow, ...]
    slopes: dict[str, Slope]

    def swept(self, row: BoundRow) -> float:
        """The swept number of a row."""
        return float(getattr(row, self.sweep.name.lower()))


def bound_versus_empirical(
    problem: BilevelProblem,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None = None,
    *,
    sweep: Sweep,
    values: Sequence[float],
    steps: int = 1,
    step_size: float = 0.1,
    batch_size: int | None = 4,
    curvature: Curvature | None = None,
    hessian_error: float = 1.0,
    max_outcomes: int = OUTCOMES,
    replications: int = 0,
) -> BoundSweep:
    """The bias of a sampled meta-gradient (of a `Maml`, `Lirpg`, `Lola` or `Mgrl`; independent
    sample sets, rewards-to-go) and its bounds, for each of ``values`` in place of the argument that
    ``sweep`` names.

    ``batch_size=None`` takes expected inner steps. ``curvature`` says whose mean the Hessians have
    (None: exact), ``hessian_error`` multiplies its error. Biases are exact where a loop has at most
    ``max_outcomes``; beyond, the mean of ``replications`` sampled loops is compared (by default,
    none).

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 5.1, Fig. 2.

    Raises:
        ValueError: as `loop_constants`; no values, or values that do not fit what is swept; a sweep
            of the Hessian's error without a curvature.

    >>> from gradbias.analytic import Maml, TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> asked = {"sweep": Sweep.BATCH_SIZE, "values": [4, 8, 16], "step_size": 0.1}
    >>> found = bound_versus_empirical(Maml(bandit), [[0.5, 0.0]], **asked)
    >>> round(found.slopes["bias"].value, 2), round(found.slopes["corrected"].value, 2)
    (-1.0, -0.5)
    """
    if not isinstance(sweep, Sweep):
        raise ValueError(f"sweep: expected a Sweep, got {sweep!r}")
    if np.ndim(values) != 1 or len(values) == 0:
        raise ValueError(f"values: expected at least one number in a sequence, got {values!r}")
    if sweep is Sweep.HESSIAN_ERROR and curvature is None:
        raise ValueError("curvature: expected whose error is swept, got None")
    largest = whole_number("max_outcomes", max_outcomes, at_least=0)
    drawn = whole_number("replications", replications, at_least=0)
    asked = LoopAsked(steps, step_size, batch_size, hessian_error, curvature, largest, drawn)
    each = [_with_swept(asked, sweep, value) for value in values]
    rows = [_measured(problem, meta_parameters, theta, loop) for loop in each]
    found = BoundSweep(sweep, tuple(rows), {})
    x = np.array([found.swept(row) for row in rows])
    slopes = {name: slope_of(x, [_interval(row, name) for row in rows]) for name in MEASURES}
    return replace(found, slopes={name: s for name, s in slopes.items() if s is not None})


def _interval(row: BoundRow, name: str) -> tuple[float, float, float] | None:
    """A measure and the ends of its interval."""
    value = float(getattr(row, name) or 0.0)
    ends = row.told if name == "bias" else (value, value)
    return None if ends is None or value <= 0.0 else (value, *ends)


def slope_of(x: FloatArray, y: Sequence[tuple[float, float, float] | None]) -> Slope | None:
    """The `Slope` in x of y, each with the ends of its interval (itself, if exact), over the points
    where both are positive and finite; None without two.
    """
    points = [
        (math.log(place), *(math.log(one) for one in each))
        for place, each in zip(x.tolist(), y, strict=True)
        if each is not None and place > 0.0 and math.isfinite(each[2])
    ]
    across, up, low, high = np.array(sorted(points, key=lambda each: each[0])).reshape(-1, 4).T
    centred = across - across.mean() if len(across) else across
    if not (centred != 0.0).any():
        return None
    value = float(centred @ up / (centred @ centred))
    apart = np.diff(across) > 0.0
    gaps = np.diff(across)[apart]
    lows, highs = low[1:] - high[:-1], high[1:] - low[:-1]
    return Slope(value, float((lows[apart] / gaps).min()), float((highs[apart] / gaps).max()))


def _with_swept(asked: LoopAsked, sweep: Sweep, value: float) -> LoopAsked:
    if sweep is Sweep.STEPS:
        return replace(asked, steps=whole_number("values", value, at_least=1))
    if sweep is Sweep.BATCH_SIZE:
        return replace(asked, batch_size=whole_number("values", value, at_least=1))
    number = real_number("values", value, low=0.0, high=1e12)
    if sweep is Sweep.STEP_SIZE:
        return replace(asked, step_size=number)
    return replace(asked, hessian_error=number)


def _measured(
    problem: BilevelProblem, phi: npt.ArrayLike, theta: npt.ArrayLike | None, asked: LoopAsked
) -> BoundRow:
    bounds = {}
    for scope in (Scope.GLOBAL, Scope.LOCAL):
        constants = loop_constants(
            problem,
            phi,
            theta,
            steps=asked.steps,
            step_size=asked.step_size,
            scope=scope,
            curvature=asked.curvature,
            hessian_error=asked.hessian_error,
        )
        bounds[scope] = meta_gradient_bias_bound(
            constants, steps=asked.steps, step_size=asked.step_size, batch_size=asked.batch_size
        )
    local = bounds[Scope.LOCAL]
    if isinstance(problem, Lola | Mgrl):
        found = swept_program_bias(problem, phi, theta, asked)
    else:
        found = swept_bias(problem, phi, theta, asked)
    return BoundRow(
        steps=asked.steps,
        step_size=asked.step_size,
        batch_size=asked.batch_size,
        hessian_error=asked.hessian_error,
        bias=found.bias,
        leading=found.leading,
        second_order=local.second_order,
        corrected=local.corrected,
        compact=local.compact,
        everywhere=bounds[Scope.GLOBAL].corrected,
        printed=bounds[Scope.GLOBAL].printed,
        interval=found.interval,
    )
