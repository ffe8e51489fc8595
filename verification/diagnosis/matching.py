"""The measured means of an estimator, on one problem or several, beside the means of known errors.

On a small problem many errors have the same mean. An error explains an estimator only if it gives
the measured mean on every problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.tracing.imprecision import MAX_GUARD
from gradbias.verification.confidence.norm_intervals import Spread
from gradbias.verification.diagnosis.known_errors import ErrorFamily, ExactQuantities, KnownError
from gradbias.verification.evidence.reports import BiasReport, Direction, Evidence

EXACT = 1e-9
"""The relative distance that rounding may leave."""


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
        """The unit of relative distances."""
        return self.report.normaliser or 1.0

    def residual(self, value: FloatArray) -> float:
        """The relative distance of the mean from ``value``."""
        return float(np.linalg.norm(self.report.mean - value)) / self.unit

    def explained_by(self, value: FloatArray) -> bool:
        """Whether the mean is ``value``, to rounding or within the confidence region."""
        report = self.report
        if report.evidence is not Evidence.SAMPLING:
            return self.residual(value) <= max(min(report.tolerance, MAX_GUARD), EXACT)
        per_estimate = 1 if report.coupled else report.batch_size
        trace = float(report.variance.sum()) * per_estimate
        # The trace bounds the covariance's other norms: the region is wider than need be.
        spread, rate = Spread(trace, trace), report.false_alarm or 1e-3
        distance = self.residual(value) * self.unit
        return spread.interval(distance, report.samples, rate).low == 0.0


@dataclass(frozen=True, eq=False)
class Explanation:
    """The means ``values`` that an error gives in each case (None where it is impossible)."""

    name: str
    what: str
    values: tuple[FloatArray | None, ...]
    fitted: float | None = None


@dataclass(frozen=True, eq=False)
class Cases:
    """All measurements that the same error must explain. The first decides whether there is a bias
    to explain, and the order of the errors.
    """

    all: tuple[Case, ...]

    @property
    def target(self) -> Explanation:
        """The explanation that all means are their targets."""
        return Explanation("target", "the target", tuple(case.report.exact for case in self.all))

    def explained_by(self, explanation: Explanation) -> bool:
        """Whether the explanation gives every mean."""
        return all(case.explained_by(value) for case, value in self._pairs(explanation))

    def residual(self, explanation: Explanation) -> float:
        """The largest relative distance that the explanation leaves."""
        return max(case.residual(value) for case, value in self._pairs(explanation))

    def told_from_target(self, explanation: Explanation) -> bool:
        """Whether the explanation gives any mean that is not the target."""
        return any(
            float(np.linalg.norm(value - case.report.exact)) > EXACT * case.unit
            for case, value in self._pairs(explanation)
        )

    def stacked(self, explanation: Explanation) -> FloatArray:
        """The explanation's values end to end, relative; the mean where there is none."""
        filled = [
            (case.report.mean if value is None else value).ravel() / case.unit
            for case, value in zip(self.all, explanation.values, strict=True)
        ]
        return np.concatenate(filled)

    @property
    def means(self) -> FloatArray:
        """The relative means of all cases, end to end."""
        return np.concatenate([case.report.mean.ravel() / case.unit for case in self.all])

    def collected(
        self, errors: Callable[[ExactQuantities, BiasReport], Iterable[KnownError]]
    ) -> list[Explanation]:
        """One explanation for each kind of error, over all cases, if it differs from the target."""
        by_kind = [{e.kind: e for e in errors(c.quantities, c.report)} for c in self.all]
        kinds = dict.fromkeys(kind for case in by_kind for kind in case)
        joined = [self._joined(kind, [case.get(kind) for case in by_kind]) for kind in kinds]
        return [explanation for explanation in joined if self.told_from_target(explanation)]

    def families(self, of: Callable[[ExactQuantities], Iterable[ErrorFamily]]) -> list[ErrorFamily]:
        """The families that every case has, with the values of all cases end to end."""
        by_name = [{family.name: family for family in of(case.quantities)} for case in self.all]
        shared = [name for name in by_name[0] if all(name in case for case in by_name)]
        return [self._family([case[name] for case in by_name]) for name in shared]

    def at_number(self, name: str, what: str, stack: FloatArray, number: float) -> Explanation:
        """An explanation from the values of all cases end to end."""
        sizes = np.cumsum([case.report.mean.size for case in self.all])[:-1]
        values = tuple(
            part.reshape(case.report.mean.shape) * case.unit
            for part, case in zip(np.split(stack, sizes), self.all, strict=True)
        )
        return Explanation(name, what, values, number)

    def scaled(self, explanation: Explanation) -> Explanation:
        """The explanation times the number that fits the means best."""
        pairs = self._pairs(explanation)
        means = np.concatenate([case.report.mean.ravel() / case.unit for case, _ in pairs])
        values = np.concatenate([value.ravel() / case.unit for case, value in pairs])
        scale = Direction.of(means, values).scale if np.any(values) else 0.0
        scaled = tuple(None if v is None else scale * v for v in explanation.values)
        what = f"{scale:.6g} times {explanation.what}"
        return Explanation(explanation.name, what, scaled, scale)

    def _pairs(self, explanation: Explanation) -> list[tuple[Case, FloatArray]]:
        pairs = zip(self.all, explanation.values, strict=True)
        return [(case, value) for case, value in pairs if value is not None]

    def _joined(self, kind: str, of_cases: list[KnownError | None]) -> Explanation:
        made = [error for error in of_cases if error is not None]
        values = tuple(None if error is None else error.value for error in of_cases)
        what = made[0].what if len(self.all) == 1 else made[0].general or made[0].what
        name = made[0].name if len({error.name for error in made}) == 1 else kind
        return Explanation(name, what, values)

    def _family(self, of_cases: list[ErrorFamily]) -> ErrorFamily:
        def value(x: float) -> FloatArray:
            parts = zip(of_cases, self.all, strict=True)
            return np.concatenate([family.value(x).ravel() / case.unit for family, case in parts])

        return ErrorFamily(of_cases[0].name, of_cases[0].what, value)
