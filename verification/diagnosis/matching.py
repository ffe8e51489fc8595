"""Measured means of one estimator, on one problem or on several, against those of mistakes.

On a small problem many mistakes have one mean. What explains an estimator has to explain it on
every problem that it was measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.confidence.norm_intervals import Spread
from gradbias.verification.diagnosis.known_errors import ExactQuantities, Family, Mistake
from gradbias.verification.evidence.reports import BiasReport, Direction, Evidence

EXACT = 1e-9
"""Relative distance that rounding may leave."""


@dataclass(frozen=True, eq=False)
class Case:
    """One measurement, with the exact quantities of its setting."""

    report: BiasReport
    quantities: ExactQuantities

    @classmethod
    def of(cls, report: BiasReport, action_baseline: npt.ArrayLike | None = None) -> Case:
        """The case of a report. Raises ValueError for one that has no setting."""
        if report.setting is None:
            raise ValueError(
                f"report: expected one of measure_bias, which says where it was measured, got one "
                f"of {report.estimator} without a setting"
            )
        return cls(report, ExactQuantities.of(report.setting, action_baseline))

    @property
    def unit(self) -> float:
        """What distances are relative to."""
        return self.report.normaliser or 1.0

    def residual(self, value: FloatArray) -> float:
        """How far the mean is from that, relative."""
        return float(np.linalg.norm(self.report.mean - value)) / self.unit

    def explained_by(self, value: FloatArray) -> bool:
        """Whether the mean is that: to rounding, or as far as was sampled."""
        report = self.report
        if report.evidence is not Evidence.SAMPLING:
            return self.residual(value) <= max(report.tolerance, EXACT)
        per_estimate = 1 if report.coupled else report.batch_size
        trace = float(report.variance.sum()) * per_estimate
        # The trace bounds the covariance's other norms: the region is wider than need be.
        spread, rate = Spread(trace, trace), report.false_alarm or 1e-3
        distance = self.residual(value) * self.unit
        return spread.interval(distance, report.samples, rate).low == 0.0


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a mistake makes of the mean in each case (None: there it cannot be made)."""

    name: str
    what: str
    values: tuple[FloatArray | None, ...]
    fitted: float | None = None


@dataclass(frozen=True, eq=False)
class Cases:
    """All measurements that are to be explained by one mistake; the first is what is printed."""

    all: tuple[Case, ...]

    @property
    def target(self) -> Explanation:
        """What the means should have been."""
        return Explanation("target", "the target", tuple(case.report.exact for case in self.all))

    def explained_by(self, one: Explanation) -> bool:
        """Whether it gives every mean."""
        return all(case.explained_by(value) for case, value in self._pairs(one))

    def residual(self, one: Explanation) -> float:
        """The largest distance that it leaves, relative."""
        return max(case.residual(value) for case, value in self._pairs(one))

    def told_from_target(self, one: Explanation) -> bool:
        """Whether the mistake moves any of the means at all."""
        return any(
            float(np.linalg.norm(value - case.report.exact)) > EXACT * case.unit
            for case, value in self._pairs(one)
        )

    def stacked(self, one: Explanation) -> FloatArray:
        """Its values end to end, each in units of its case; the mean stands where there is none."""
        filled = [
            (case.report.mean if value is None else value).ravel() / case.unit
            for case, value in zip(self.all, one.values, strict=True)
        ]
        return np.concatenate(filled)

    @property
    def means(self) -> FloatArray:
        """The means, stacked."""
        return np.concatenate([case.report.mean.ravel() / case.unit for case in self.all])

    def collected(
        self, mistakes: Callable[[ExactQuantities, BiasReport], Iterable[Mistake]]
    ) -> list[Explanation]:
        """The mistakes of all cases, those of one kind together, if they move any mean."""
        found = [{m.kind: m for m in mistakes(c.quantities, c.report)} for c in self.all]
        kinds = dict.fromkeys(kind for each in found for kind in each)
        joined = [self._joined(kind, [each.get(kind) for each in found]) for kind in kinds]
        return [one for one in joined if self.told_from_target(one)]

    def families(self, of: Callable[[ExactQuantities], Iterable[Family]]) -> list[Family]:
        """Those that every case has, stacked."""
        found = [{family.name: family for family in of(case.quantities)} for case in self.all]
        shared = [name for name in found[0] if all(name in each for each in found)]
        return [self._family([each[name] for each in found]) for name in shared]

    def at_number(self, name: str, what: str, stack: FloatArray, number: float) -> Explanation:
        """An explanation from stacked values."""
        sizes = np.cumsum([case.report.mean.size for case in self.all])[:-1]
        values = tuple(
            part.reshape(case.report.mean.shape) * case.unit
            for part, case in zip(np.split(stack, sizes), self.all, strict=True)
        )
        return Explanation(name, what, values, number)

    def scaled(self, one: Explanation) -> Explanation:
        """It, times the number that fits the means best."""
        there = [(case, value) for case, value in self._pairs(one)]
        means = np.concatenate([case.report.mean.ravel() / case.unit for case, _ in there])
        values = np.concatenate([value.ravel() / case.unit for case, value in there])
        scale = Direction.of(means, values).scale if np.any(values) else 0.0
        moved = tuple(None if value is None else scale * value for value in one.values)
        return Explanation(one.name, f"{scale:.6g} times {one.what}", moved, scale)

    def _pairs(self, one: Explanation) -> list[tuple[Case, FloatArray]]:
        pairs = zip(self.all, one.values, strict=True)
        return [(case, value) for case, value in pairs if value is not None]

    def _joined(self, kind: str, of_cases: list[Mistake | None]) -> Explanation:
        made = [one for one in of_cases if one is not None]
        values = tuple(None if one is None else one.value for one in of_cases)
        what = made[0].what if len(self.all) == 1 else made[0].general or made[0].what
        name = made[0].name if len({one.name for one in made}) == 1 else kind
        return Explanation(name, what, values)

    def _family(self, of_cases: list[Family]) -> Family:
        def value(x: float) -> FloatArray:
            parts = zip(of_cases, self.all, strict=True)
            return np.concatenate([one.value(x).ravel() / case.unit for one, case in parts])

        return Family(of_cases[0].name, of_cases[0].what, value)
