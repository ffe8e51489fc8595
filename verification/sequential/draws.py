"""How a sequential measurement draws: blocks of estimates, with those of a control variate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gradbias.analytic.utils.validation import FloatArray, whole_number
from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.stochastic.estimators.kinds import DrawEstimator, Evaluator
from gradbias.verification.evidence.coupling import Coupling, prepared
from gradbias.verification.evidence.draw_trees import RepeatedRuns, placeholders
from gradbias.verification.evidence.reports import Evidence
from gradbias.verification.evidence.request import Request
from gradbias.verification.evidence.verdicts import Found
from gradbias.verification.sequential.functionals import ControlVariate
from gradbias.verification.sequential.stream import Stream

_LARGEST_BLOCK = 2**11
_LOOPED_BLOCK = 64
_PROBED = 64
_PROBED_RUNS = 4


@dataclass(frozen=True, eq=False)
class Draws:
    """How estimates (and their control's) are drawn: from batches of n trajectories."""

    asked: Request
    evaluator: Evaluator
    control: ControlVariate | None
    control_evaluator: Evaluator | None
    n: int
    trajectories: int
    coupled: bool
    notes: tuple[str, ...]

    @classmethod
    def of(cls, asked: Request, control: ControlVariate | None, given: int | None) -> Draws:
        """Raises ValueError as `prepared`, and for a control that does not fit."""
        estimator = asked.estimator
        if not isinstance(asked.rng, np.random.Generator):
            raise ValueError(f"rng: expected a numpy Generator, got {asked.rng!r}")
        if control is not None:
            control = _checked_control(control, asked.shape)
        if given is not None:
            whole_number("trajectories", given, at_least=1)
        if isinstance(estimator, DrawEstimator):
            if control is not None or given is not None:
                raise ValueError(f"{estimator.name} draws its own batches: no N, no control")
            return cls(asked, RepeatedRuns(asked, estimator), None, None, 1, 1, True, ())
        coupling = prepared(asked, estimator, given)
        notes = coupling.evaluator.notes
        if not coupling.coupled:
            notes = (*notes, coupling.note)
        coupled, other = coupling.coupled, None
        if control is not None:
            beside = _prepared_beside(asked, control, given)
            coupled, other = coupled or beside.coupled, beside.evaluator
        n = given if given is not None and coupled else 1
        return cls(asked, coupling.evaluator, control, other, n, given or 1, coupled, notes)

    @property
    def block(self) -> int:
        """Estimates at a time."""
        size = int(np.prod(self.asked.shape))
        fits = 1 if isinstance(self.evaluator, RepeatedRuns) else self.asked.block(self.n)
        few = _LOOPED_BLOCK if self.evaluator.most is not None else _LARGEST_BLOCK
        return max(1, min(max(fits, 1), few, 2**22 // size))

    def take(self, count: int) -> tuple[FloatArray, FloatArray | None, float]:
        """Estimates ``[B, D]``, their control's, and see `Rows.largest`."""
        if isinstance(self.evaluator, RepeatedRuns):
            rows = self.evaluator.rows(placeholders(count))
            return rows.dense().reshape(count, -1), None, rows.largest
        batch = self.asked.draw(count, self.n)
        rows = self.evaluator.rows(batch)
        values = rows.dense().reshape(count, -1)
        if self.control_evaluator is None:
            return values, None, rows.largest
        return values, self.control_evaluator.rows(batch).dense().reshape(count, -1), rows.largest

    def take_all(self, count: int) -> tuple[FloatArray, FloatArray | None]:
        """As many, in blocks."""
        values, controls = [], []
        while count > 0:
            some, beside, _ = self.take(min(self.block, count))
            values.append(some)
            if beside is not None:
                controls.append(beside)
            count -= len(some)
        return np.concatenate(values), np.concatenate(controls) if controls else None

    def probe(self) -> tuple[list[str], list[str]]:
        """Random projections of estimates from batches of a seed of their own, and of the
        control's: by these estimators are known again.
        """
        asked, control = self.asked.seeded(0), self.control_evaluator
        if isinstance(self.evaluator, RepeatedRuns):
            rows = replace(self.evaluator, asked=asked).rows(placeholders(_PROBED_RUNS))
            return _projected(rows), []
        batch = asked.draw(min(_PROBED, self.block), self.n)
        other = [] if control is None else _projected(control.rows(batch))
        return _projected(self.evaluator.rows(batch)), other

    def found(self, stream: Stream, shape: tuple[int, ...]) -> Found:
        """What a verdict is made from: of the mean of N, if estimates do not interact."""
        moments = stream.moments(shape)
        if self.coupled:
            return Found(moments, Evidence.SAMPLING, self.n, True, self.notes)
        of_mean = replace(moments, variance=moments.variance / self.trajectories)
        return Found(of_mean, Evidence.SAMPLING, self.trajectories, False, self.notes)


def _checked_control(control: object, shape: tuple[int, ...]) -> ControlVariate:
    if not isinstance(control, ControlVariate):
        raise ValueError(f"control: expected a ControlVariate, got {control!r}")
    return control.checked(shape)


def _projected(rows: Rows) -> list[str]:
    values = rows.dense().reshape(len(rows.values), -1)
    vector = np.random.default_rng(1).normal(size=values.shape[1])
    return [f"{x:.9e}" for x in values @ vector]


def _prepared_beside(asked: Request, control: ControlVariate, given: int | None) -> Coupling:
    """A second estimator, from the same batches."""
    estimator, order = control.estimator, asked.estimator.order
    if isinstance(estimator, DrawEstimator):
        raise ValueError(f"control: expected an estimate from given batches, got {estimator.name}")
    if estimator.order != order:
        raise ValueError(f"control: expected order {order}, got {estimator.order}")
    return prepared(replace(asked, estimator=estimator), estimator, given)
