"""Measuring a bias by sampling until it is decided: intervals that hold at any stopping time."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import AnyTarget, return_derivative
from gradbias.analytic.returns.evaluation import Evaluation
from gradbias.analytic.utils.validation import FloatArray, whole_number
from gradbias.stochastic.estimators.kinds import Estimator
from gradbias.verification.confidence.scaled_sequences import Method
from gradbias.verification.evidence.accumulated_moments import Progress
from gradbias.verification.evidence.reports import BiasReport, Verdict
from gradbias.verification.evidence.request import (
    Request,
    checked_values,
    off_policy_notes,
    request_of,
    target_value,
)
from gradbias.verification.evidence.verdicts import ErrorRates, judge, subject_of
from gradbias.verification.sequential.checkpoints import save_checkpoint
from gradbias.verification.sequential.draws import Draws
from gradbias.verification.sequential.functionals import ControlVariate
from gradbias.verification.sequential.normality import off_policy_doubt
from gradbias.verification.sequential.plan import (
    Bounds,
    MethodChoice,
    Plan,
    chosen_method,
    fresh_plan,
    resumed_plan,
)
from gradbias.verification.sequential.stream import Run, Stream
from gradbias.verification.sequential.verdict import (
    SequentialReport,
    SequentialVerdict,
    sequential_report,
)

_FEWEST = 400


def measure_bias_sequentially(
    estimator: Estimator,
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    target: AnyTarget | None = None,
    method: str | Method = "auto",
    bounds: Bounds | None = None,
    second_moment: npt.ArrayLike | None = None,
    control: ControlVariate | None = None,
    projections: int | None = None,
    tolerance: float = 0.01,
    false_alarm: float = 1e-3,
    missed_bias: float = 1e-2,
    batch_size: int | None = None,
    budget: int = 1_000_000,
    checkpoint: str | Path | None = None,
    rng: np.random.Generator | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> SequentialReport:
    """`measure_bias` by sampling, for as long as it takes: until the bias norm is found to be above
    or within the relative ``tolerance``, or ``budget`` trajectories are drawn (and up to 1,000
    more, by a pilot that chooses where to look, and is not counted).

    The interval holds at all times at once at the rate ``false_alarm``. Methods: "betting" and
    "empirical Bernstein" need a range of every component, which is known of AD, LVC, DiCE and
    Loaded-DiCE on policy (`component_range`) and else given as ``bounds=(low, high)``; "truncated"
    needs ``second_moment``, at least E[x^2] of every component of an estimate (of one trajectory's,
    where N batch_size' is the mean of their own); "asymptotic" needs nothing and is
    approximate: the verdict is UNDECIDED where the sample, or importance weights, show heavy
    tails. "auto" takes the first of truncated, betting, asymptotic that has what it needs.

    ``control`` takes a control variate off (``bounds`` and ``second_moment`` are of what is left);
    ``projections`` reads that many random projections in
    place of the components, for large estimates. ``checkpoint`` names a file that the run is saved
    to and goes on from, if it is there: whatever ``progress(done, limit)`` reported is in it.
    An interruption (Ctrl-C) returns the report so far. ``options`` are `measure_bias`'s critic,
    policy, behaviour, reference, meta and length.

    Raises:
        ValueError: an argument that does not fit, an estimate outside its range, or a checkpoint of
            another measurement.

    >>> from gradbias.stochastic import from_surrogate, lvc
    >>> mdp = TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.9, horizon=2)
    >>> report = measure_bias_sequentially(from_surrogate(lvc, order=2), mdp, np.zeros((2, 2)))
    >>> report.verdict.value, report.stopped
    ('BIASED', 'decided')
    """
    began = time.perf_counter()
    rates = ErrorRates(tolerance, false_alarm, missed_bias)
    asked = request_of(estimator, mdp, theta, budget=budget, rng=rng, **options)
    visited = checked_values(asked)
    wanted = return_derivative(estimator.order, horizon=mdp.horizon) if target is None else target
    exact = target_value(wanted, asked)
    draws = Draws.of(asked, control, batch_size)
    limit = whole_number("budget", budget, at_least=_FEWEST * draws.n) // draws.n
    given = MethodChoice(method, bounds, second_moment, projections)
    file = _checked_path(checkpoint)
    identity = identity_of(draws, given, rates, exact, limit)
    if file is not None and file.exists():
        plan = resumed_plan(file, draws, given, rates, limit, identity)
    else:
        plan = fresh_plan(draws, given, rates, exact, limit)
    claim = _Claim(
        asked, draws, plan, wanted, exact, visited, rates, off_policy_doubt(asked, limit), limit
    )

    def save(stream: Stream) -> None:
        header = {"identity": identity, "generator": stream.generator}
        save_checkpoint(str(file), stream.arrays() | plan.arrays(), header)

    run = Run(
        lambda count: plan.block(draws, count),
        asked.rng,
        limit,
        draws.block,
        claim.is_decided,
        None if file is None else save,
        progress,
    )
    stream, stopped = run.advanced(plan.stream)
    report = claim.report(stream, stopped, _resumption(file, plan.stream.count))
    return replace(report, seconds=time.perf_counter() - began)


@dataclass(frozen=True, eq=False)
class _Claim:
    """What is claimed of an estimator, to be judged on a stream."""

    asked: Request
    draws: Draws
    plan: Plan
    target: AnyTarget
    exact: FloatArray
    visited: Evaluation
    rates: ErrorRates
    doubt: str | None
    limit: int

    def is_decided(self, stream: Stream) -> bool:
        """Whether more samples would not change the verdict."""
        return self._judged(stream)[1].verdict in (Verdict.BIASED, Verdict.UNBIASED)

    def report(self, stream: Stream, stopped: str, remarks: tuple[str, ...]) -> SequentialReport:
        """The report on the stream as it is."""
        verdict, report = self._judged(stream)
        notes = (*report.notes, *off_policy_notes(self.asked, 0.0), *remarks)
        return sequential_report(replace(report, notes=notes), verdict, stopped, self.rates)

    def _judged(self, stream: Stream) -> tuple[SequentialVerdict, BiasReport]:
        plan, asked = self.plan, self.asked
        verdict = SequentialVerdict(
            stream, plan.reading, plan.method, plan.assumption, self.limit, self.doubt
        )
        found = self.draws.found(stream, asked.shape)
        subject = subject_of(asked, self.visited, self.target, self.exact, found)
        return verdict, judge(subject, self.target, self.exact, found, self.rates, verdict)


def _resumption(file: Path | None, count: int) -> tuple[str, ...]:
    """Says of which run the first estimates are: its samples, its generator."""
    if file is None or count == 0:
        return ()
    return (f"went on from {file.name}, with its {count:,} estimates and its generator",)


def _checked_path(checkpoint: str | Path | None) -> Path | None:
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, str | Path):
        raise ValueError(f"checkpoint: expected a path, got {checkpoint!r}")
    if not Path(checkpoint).resolve().parent.is_dir():
        raise ValueError(f"checkpoint: {checkpoint} is in no folder that exists")
    return Path(checkpoint)


def identity_of(
    draws: Draws, given: MethodChoice, rates: ErrorRates, exact: FloatArray, limit: int
) -> dict[str, Any]:
    """By which a checkpoint is known to be this measurement's."""
    asked = draws.asked
    method, _ = chosen_method(draws, given)
    mdp = asked.mdp
    problem = hashlib.sha256()
    arrays = [mdp.transition, mdp.reward, mdp.start, asked.context.theta, asked.behaviour, exact]
    for given_array in (asked.context.critic, asked.context.reference):
        arrays += [] if given_array is None else [np.asarray(given_array)]
    for array in arrays:
        problem.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    problem.update(repr((mdp.discount, mdp.horizon, asked.length)).encode())
    bounds = None if given.bounds is None else [np.asarray(b).tolist() for b in given.bounds]
    moment = None if given.second_moment is None else np.asarray(given.second_moment).tolist()
    control = draws.control
    mean = None if control is None else np.asarray(control.mean).tolist()
    estimates, others = draws.probe()
    # The first two are tuned for the budget, and cannot go on with another.
    tuned = method in (Method.ASYMPTOTIC, Method.TRUNCATED)
    return {
        "estimator": asked.estimator.name,
        "order": asked.estimator.order,
        "estimates": estimates,
        "problem": problem.hexdigest(),
        "method": method.value,
        "bounds": bounds,
        "second_moment": moment,
        "projections": None if given.projections is None else int(given.projections),
        "control": None if control is None else [control.estimator.name, mean, *others],
        "trajectories": draws.n,
        "rates": [float(rates.tolerance), float(rates.false_alarm)],
        "samples": limit if tuned else None,
    }
