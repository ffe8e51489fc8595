"""How a sequential measurement draws blocks of estimates, and of their control variate's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from gradbias.analytic.moments.kurtosis import Kurtosis
from gradbias.analytic.utils.validation import FloatArray, whole_number
from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.stochastic.estimators.kinds import Evaluator
from gradbias.verification.evidence.coupling import Coupling, detect_coupling
from gradbias.verification.evidence.known_moments import (
    known_control,
    known_kurtosis,
    rare_doubt,
)
from gradbias.verification.evidence.reasons import Doubt
from gradbias.verification.evidence.reports import Evidence
from gradbias.verification.evidence.request import Request
from gradbias.verification.evidence.subjects import MeasuredMoments
from gradbias.verification.sequential.functionals import ControlVariate
from gradbias.verification.sequential.stream import Stream

_CONTROLLED = (
    "DiCE's estimate on the same trajectories, whose mean is known, is subtracted as a control "
    "variate; variance and deviation are those of what is left"
)
_LARGEST_BLOCK = 2**11
_LOOPED_BLOCK = 64
_PROBED = 64
_PROBED_RUNS = 4


@dataclass(frozen=True, eq=False)
class Draws:
    """How estimates, and those of a control variate, are drawn: both on the same batches of ``n``
    trajectories. ``batch_size`` is the N that the report is for, and ``coupled`` says whether one
    of both estimators couples trajectories.
    """

    request: Request
    evaluator: Evaluator
    control: ControlVariate | None
    control_evaluator: Evaluator | None
    n: int
    batch_size: int
    coupled: bool
    notes: tuple[str, ...]

    @classmethod
    def of(cls, request: Request, control: ControlVariate | None, batch_size: int | None) -> Draws:
        """Raises ValueError as `detect_coupling`, and for a control that does not fit."""
        if control is not None:
            control = _checked_control(control, request)
        if batch_size is not None:
            whole_number("batch_size", batch_size, at_least=1)
        coupling = detect_coupling(request, batch_size)
        notes = coupling.evaluator.notes
        if not coupling.coupled:
            notes = (*notes, coupling.note)
        coupled, other = coupling.coupled, None
        if control is not None:
            beside = _detect_beside(request, control, batch_size)
            coupled, other = coupled or beside.coupled, beside.evaluator
        n = batch_size if batch_size is not None and coupled else 1
        return cls(request, coupling.evaluator, control, other, n, batch_size or 1, coupled, notes)

    @property
    def block(self) -> int:
        """The number of estimates that are drawn at a time."""
        if self.request.estimator.draws_itself:
            return 1
        size = int(np.prod(self.request.shape))
        most = _LOOPED_BLOCK if self.evaluator.most is not None else _LARGEST_BLOCK
        return max(1, min(self.request.block(self.n), most, 2**22 // size))

    def take(self, count: int) -> tuple[FloatArray, FloatArray | None, float]:
        """``count`` estimates ``[B, D]``, their control's, and the largest number in them."""
        batch = self.request.draw(count, self.n)
        rows = self.evaluator.rows(batch)
        values = rows.dense().reshape(count, -1)
        if self.control_evaluator is None:
            return values, None, rows.largest
        return values, self.control_evaluator.rows(batch).dense().reshape(count, -1), rows.largest

    def take_all(self, count: int) -> tuple[FloatArray, FloatArray | None]:
        """``count`` estimates and their control's, drawn in blocks."""
        values, controls = [], []
        while count > 0:
            block, beside, _ = self.take(min(self.block, count))
            values.append(block)
            if beside is not None:
                controls.append(beside)
            count -= len(block)
        return np.concatenate(values), np.concatenate(controls) if controls else None

    def with_known_control(self) -> Draws:
        """The same draws with `known_control`, where there is one."""
        known = known_control(self.request)
        if known is None:
            return self
        control = ControlVariate(known.estimator, known.mean)
        some = self.request.seeded(0).draw(min(_PROBED, self.block), self.n)
        evaluator = known.estimator.prepare(some, self.request.context)
        notes = (*self.notes, _CONTROLLED)
        return replace(self, control=control, control_evaluator=evaluator, notes=notes)

    @cached_property
    def kurtosis(self) -> Kurtosis | None:
        """The kurtosis of the problem's known estimates; None where it takes too long."""
        return known_kurtosis(self.request)

    def rare_doubt(self, count: int) -> Doubt | None:
        """Why the mean of ``count`` estimates is not taken for normal, by exact moments."""
        return rare_doubt(self.kurtosis, count * self.n)

    def probe(self) -> tuple[list[str], list[str]]:
        """Random projections of some estimates, and of the control's, from a generator of their
        own: a checkpoint recognises estimators by them.
        """
        seeded, control = self.request.seeded(0), self.control_evaluator
        evaluator, count = self.evaluator, min(_PROBED, self.block)
        if seeded.estimator.draws_itself:  # then the context holds the generator
            evaluator = seeded.estimator.prepare(seeded.draw(1, 1), seeded.context)
            count = _PROBED_RUNS
        batch = seeded.draw(count, self.n)
        other = [] if control is None else _projected(control.rows(batch))
        return _projected(evaluator.rows(batch)), other

    def measured(self, stream: Stream) -> MeasuredMoments:
        """The moments of one estimate from N trajectories, given the stream's estimates."""
        moments = stream.moments(self.request.shape)
        if self.coupled:
            return MeasuredMoments(moments, Evidence.SAMPLING, self.n, True, self.notes)
        of_mean = replace(moments, variance=moments.variance / self.batch_size)
        return MeasuredMoments(of_mean, Evidence.SAMPLING, self.batch_size, False, self.notes)


def _checked_control(control: object, request: Request) -> ControlVariate:
    if not isinstance(control, ControlVariate):
        raise ValueError(f"control: expected a ControlVariate, got {control!r}")
    if request.estimator.draws_itself:
        raise ValueError(f"control: {request.estimator.name} draws its own batches, give none")
    return control.checked(request.shape)


def _projected(rows: Rows) -> list[str]:
    values = rows.dense().reshape(len(rows.values), -1)
    vector = np.random.default_rng(1).normal(size=values.shape[1])
    return [f"{x:.9e}" for x in values @ vector]


def _detect_beside(request: Request, control: ControlVariate, batch_size: int | None) -> Coupling:
    """The coupling of the control's estimator, which is evaluated on the same batches."""
    estimator, order = control.estimator, request.estimator.order
    if estimator.draws_itself:
        raise ValueError(f"control: expected an estimate from given batches, got {estimator.name}")
    if estimator.order != order:
        raise ValueError(f"control: expected order {order}, got {estimator.order}")
    return detect_coupling(replace(request, estimator=estimator), batch_size)
