"""Each bound beside what it bounds, as one number of the loop is swept.

The bias splits exactly into what the Hessians' error does along the expected path, and what sampled
steps add to that. Where all batches can be enumerated both are exact; the leading term keeps the
first and the 1/N part of the second (with exact Hessians: a term of both orders is left out).

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Lemma 4.4, Theorem 4.5 and
Sec. 5.1, Fig. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray, real_number, whole_number
from analytic.bilevel import BilevelProblem, Lirpg, Maml
from analytic.compositional import SampledLoop, compositional_bias, sampled_loop
from analytic.metagradients import meta_gradient
from analytic.moments import Curvature
from analytic.sampling_expansion import leading_compositional_bias
from analytic.scoped_constants import Scope, loop_constants
from analytic.trajectory_classes import Credit, TrajectoryClasses
from verification.bounds import meta_gradient_bias_bound
from verification.erring_hessians import with_hessian_error

OUTCOMES = 1_000_000
"""Of the inner loop, up to which they are enumerated unless said."""

_INNER_OUTCOMES = 4_000
"""Before the last step: each costs a call."""


class Sweep(Enum):
    """What is varied."""

    STEPS = "inner steps K"
    STEP_SIZE = "step size alpha"
    SAMPLES = "trajectories N"
    HESSIAN_ERROR = "multiple of the Hessian's error"


@dataclass(frozen=True)
class BoundRow:
    """One loop: norms of the exact ``bias`` (None where batches are too many) and its ``leading``
    term, and bounds: ``second_order``, ``corrected`` and ``compact`` with local constants,
    ``everywhere`` (corrected, with global ones), and eq. (9) as ``printed`` (see `BiasBound`).
    """

    steps: int
    step_size: float
    samples: int | None
    hessian_error: float
    bias: float | None
    leading: float
    second_order: float
    corrected: float
    compact: float
    everywhere: float
    printed: float

    @property
    def looseness(self) -> float | None:
        """The smallest bound over the bias."""
        if not self.bias:
            return None
        return min(self.second_order, self.corrected, self.compact) / self.bias


MEASURES = ("bias", "leading", "second_order", "corrected", "compact", "everywhere", "printed")


@dataclass(frozen=True)
class Slope:
    """On log-log axes: ``value`` by least squares over all points; ``low`` and ``high`` are the
    smallest and largest slope between neighbours. Nothing is random: a wide interval is a curve.
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
    samples: int | None = 4,
    curvature: Curvature | None = None,
    hessian_error: float = 1.0,
    outcomes: int = OUTCOMES,
) -> BoundSweep:
    """The bias of a sampled meta-gradient (independent sample sets, rewards-to-go) and its bounds,
    for each of ``values`` in place of the argument that ``sweep`` names.

    ``samples=None`` takes expected inner steps. ``curvature`` says whose mean the Hessians have
    (None: exact), ``hessian_error`` multiplies its error.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 5.1, Fig. 2.

    Raises:
        ValueError: as `loop_constants`; no values, or values that do not fit what is swept; a sweep
            of the Hessian's error without a curvature.

    >>> from analytic import Maml, TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> asked = {"sweep": Sweep.SAMPLES, "values": [4, 8, 16], "step_size": 0.1}
    >>> found = bound_versus_empirical(Maml(bandit), [[0.5, 0.0]], **asked)
    >>> round(found.slopes["bias"].value, 2), round(found.slopes["corrected"].value, 2)
    (-1.0, -0.5)
    """
    if not isinstance(sweep, Sweep):
        raise ValueError(f"sweep: expected a Sweep, got {sweep!r}")
    if len(values) == 0:
        raise ValueError("values: expected at least one, got none")
    if sweep is Sweep.HESSIAN_ERROR and curvature is None:
        raise ValueError("curvature: expected whose error is swept, got None")
    start = _Row(steps, step_size, samples, hessian_error, curvature, outcomes)
    rows = []
    for value in values:
        asked = start.with_swept(sweep, value)
        rows.append(asked.measured(problem, meta_parameters, theta))
    found = BoundSweep(sweep, tuple(rows), {})
    x = np.array([found.swept(row) for row in rows])
    slopes = {name: slope_of(x, [getattr(row, name) for row in rows]) for name in MEASURES}
    return replace(found, slopes={name: s for name, s in slopes.items() if s is not None})


def slope_of(x: FloatArray, y: Sequence[float | None]) -> Slope | None:
    """The `Slope` of y in x, over the points where both are positive; None without two."""
    known = np.array([np.nan if value is None else value for value in y])
    kept = (known > 0.0) & (x > 0.0) & np.isfinite(known)
    if len(set(x[kept])) < 2:
        return None
    order = np.argsort(x[kept], kind="stable")
    across, up = np.log(x[kept][order]), np.log(known[kept][order])
    centred = across - across.mean()
    value = float(centred @ up / (centred @ centred))
    apart = np.diff(across) > 0.0
    between = np.diff(up)[apart] / np.diff(across)[apart]
    return Slope(value, float(between.min()), float(between.max()))


@dataclass(frozen=True)
class _Row:
    """One loop that is asked for."""

    steps: int
    step_size: float
    samples: int | None
    hessian_error: float
    curvature: Curvature | None
    outcomes: int

    def with_swept(self, sweep: Sweep, value: float) -> _Row:
        if sweep is Sweep.STEPS:
            return replace(self, steps=whole_number("values", value, at_least=1))
        if sweep is Sweep.SAMPLES:
            return replace(self, samples=whole_number("values", value, at_least=1))
        number = real_number("values", value, low=0.0, high=1e12)
        if sweep is Sweep.STEP_SIZE:
            return replace(self, step_size=number)
        return replace(self, hessian_error=number)

    def measured(
        self, problem: BilevelProblem, phi: npt.ArrayLike, theta: npt.ArrayLike | None
    ) -> BoundRow:
        k, alpha = self.steps, self.step_size
        options = {"curvature": self.curvature, "hessian_error": self.hessian_error}
        asked = {"steps": k, "step_size": alpha}
        bounds = {}
        for scope in (Scope.GLOBAL, Scope.LOCAL):
            constants = loop_constants(problem, phi, theta, **asked, scope=scope, **options)  # type: ignore[arg-type]
            bounds[scope] = meta_gradient_bias_bound(constants, **asked, samples=self.samples)  # type: ignore[arg-type]
        local = bounds[Scope.LOCAL]
        exact, leading = self._biases(problem, phi, theta)
        return BoundRow(
            steps=k,
            step_size=alpha,
            samples=self.samples,
            hessian_error=self.hessian_error,
            bias=exact,
            leading=leading,
            second_order=local.second_order,
            corrected=local.corrected,
            compact=local.compact,
            everywhere=bounds[Scope.GLOBAL].corrected,
            printed=bounds[Scope.GLOBAL].printed,
        )

    def _biases(
        self, problem: BilevelProblem, phi: npt.ArrayLike, theta: npt.ArrayLike | None
    ) -> tuple[float | None, float]:
        """Norms of the exact bias, if it can be had, and of its leading term."""
        loop = _loop(problem, phi, theta, self.steps, self.step_size)
        erring = with_hessian_error(loop.problem, loop.inner, self.curvature, self.hessian_error)
        asked = {"steps": self.steps, "step_size": self.step_size}
        expected = _carried(erring, phi, theta, asked) - _carried(problem, phi, theta, asked)
        if self.samples is None:
            return (float(np.linalg.norm(expected)),) * 2
        first = leading_compositional_bias(problem, phi, theta, **asked).meta_gradient  # type: ignore[arg-type]
        leading = float(np.linalg.norm(expected + first / self.samples))
        if not self._fits(loop, self.samples):
            return None, leading
        every = compositional_bias(erring, phi, theta, **asked, samples=self.samples)  # type: ignore[arg-type]
        return float(np.linalg.norm(expected + every.meta_gradient)), leading

    def _fits(self, loop: SampledLoop, n: int) -> bool:
        try:
            classes = TrajectoryClasses.of(loop.inner, to_go=True)
            count = classes.counted(n, self.steps)
        except ValueError:  # too many even for that
            return False
        before = count ** ((self.steps - 1) / self.steps)
        return count <= self.outcomes and before <= _INNER_OUTCOMES


def _loop(
    problem: BilevelProblem,
    phi: npt.ArrayLike,
    theta: npt.ArrayLike | None,
    steps: int,
    step_size: float,
) -> SampledLoop:
    return sampled_loop(problem, phi, theta, steps, step_size, Credit.REWARD_TO_GO, None)


def _carried(
    problem: BilevelProblem | Maml | Lirpg,
    phi: npt.ArrayLike,
    theta: npt.ArrayLike | None,
    asked: dict[str, float],
) -> FloatArray:
    return meta_gradient(problem, phi, theta, **asked)  # type: ignore[arg-type]
