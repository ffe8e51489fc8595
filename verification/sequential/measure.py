"""Measuring a bias by sampling until it is decided; intervals hold at any stopping time."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import AnyTarget, return_derivative
from gradbias.analytic.utils.validation import FloatArray, whole_number
from gradbias.stochastic.estimators.kinds import Estimator
from gradbias.verification.confidence.scaled_sequences import Method
from gradbias.verification.evidence.accumulated_moments import Progress
from gradbias.verification.evidence.reasons import Doubt
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.evidence.request import (
    Request,
    generator_or_default,
    off_policy_notes,
)
from gradbias.verification.evidence.setting import Setting, SettingOptions
from gradbias.verification.evidence.subjects import MeasuredMoments, Subject, subject_of
from gradbias.verification.evidence.verdicts import ErrorRates, Judgement, judge
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
from gradbias.verification.sequential.stream import Run, Stopped, Stream
from gradbias.verification.sequential.verdict import (
    SequentialReport,
    StreamJudge,
    sequential_report,
)

_MIN_ESTIMATES = 400


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
    **setting: Unpack[SettingOptions],
) -> SequentialReport:
    """A report by sampling for as long as it takes: until the bias norm is found to be above or
    within the relative tolerance, or the budget is spent.

    The interval holds at all times at once. An interruption (Ctrl-C) returns the report so far.

    Args:
        estimator: from `from_surrogate`, `from_callable` or `from_draws`.
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        target: what it should estimate (default: the derivative, of the estimator's order, of the
            problem's own return).
        method: "betting" or "empirical Bernstein", which need a range of every component (known of
            AD, LVC, DiCE and Loaded-DiCE on policy, see `component_range`, else given as
            ``bounds``); "truncated", which needs ``second_moment``; "asymptotic", which needs
            nothing and is approximate: its verdict is UNDECIDED where the sample, or importance
            weights, show heavy tails; or "auto": the first of truncated, betting and asymptotic
            that has what it needs.
        bounds: (low, high), numbers or arrays shaped like an estimate.
        second_moment: at least E[x^2] of every component of an estimate (of a single trajectory's,
            where a batch's estimate is their mean).
        control: a control variate, which is subtracted; bounds and second moment are of what is
            left (default: DiCE where nothing is known of the estimates, at orders 1 and 2).
        projections: the number of random projections that take the place of the components, for
            large estimates (default: all components).
        tolerance: the largest relative bias that is called UNBIASED.
        false_alarm: the type I error rate, whenever sampling stops.
        missed_bias: the type II error rate that ``smallest_detectable`` is stated for.
        batch_size: N, the number of trajectories in a batch; needed if the estimator couples them.
        budget: the largest number of trajectories; up to 1,000 more are drawn by a pilot run that
            chooses the direction, and are not counted.
        checkpoint: a file that the run is saved to, and resumed from if it exists; it holds
            whatever ``progress`` has reported.
        rng: the generator (default: one seeded 0).
        progress: called as ``progress(done, limit)``.
        **setting: policy, critic, behaviour, reference, meta and length, as for `measure_bias`.

    Returns:
        A `SequentialReport`.

    Raises:
        ValueError: an argument that does not fit, an estimate outside its range, or a checkpoint of
            another measurement.

    >>> from gradbias.stochastic import from_surrogate, lvc
    >>> mdp = TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.9, horizon=2)
    >>> report = measure_bias_sequentially(from_surrogate(lvc, order=2), mdp, np.zeros((2, 2)))
    >>> report.verdict.value, report.stopped.value
    ('BIASED', 'decided')
    """
    began = time.perf_counter()
    rates = ErrorRates.of(tolerance, false_alarm, missed_bias)
    request = Request(
        estimator,
        Setting.of(mdp, theta, **setting),
        budget=budget,
        rng=generator_or_default(rng),
    )
    request.setting.check_scale()
    wanted = return_derivative(estimator.order, horizon=mdp.horizon) if target is None else target
    exact = request.target_value(wanted)
    draws = Draws.of(request, control, batch_size)
    limit = whole_number("budget", budget, at_least=_MIN_ESTIMATES * draws.n) // draws.n
    chosen = MethodChoice(method, bounds, second_moment, projections)
    if control is None and chosen_method(draws, chosen)[0] is Method.ASYMPTOTIC:
        draws = draws.with_known_control()
    file = _checked_path(checkpoint)
    identity = identity_of(draws, chosen, rates, exact, limit)
    if file is not None and file.exists():
        plan = resumed_plan(file, draws, chosen, rates, limit, identity)
    else:
        plan = fresh_plan(draws, chosen, rates, exact, limit)
    doubt = off_policy_doubt(request.setting, limit)
    claim = _Claim(draws, plan, wanted, exact, rates, doubt, limit)

    def save(stream: Stream) -> None:
        header = {"identity": identity, "generator": stream.generator}
        save_checkpoint(str(file), stream.arrays() | plan.arrays(), header)

    run = Run(
        lambda count: plan.block(draws, count),
        request.rng,
        limit,
        draws.block,
        claim.is_decided,
        None if file is None else save,
        progress,
    )
    stream, stopped = run.advanced(plan.stream)
    return claim.report(stream, stopped, _resumption(file, plan.stream.count), began)


@dataclass(frozen=True, eq=False)
class _Claim:
    """What a sequential measurement claims of an estimator, to be judged on a stream."""

    draws: Draws
    plan: Plan
    target: AnyTarget
    exact: FloatArray
    rates: ErrorRates
    doubt: Doubt | None
    limit: int

    def is_decided(self, stream: Stream) -> bool:
        """Whether more samples would not change the verdict."""
        judgement = self._judged(self._judge(stream))[-1]
        return judgement.verdict in (Verdict.BIASED, Verdict.UNBIASED)

    def report(
        self, stream: Stream, stopped: Stopped, notes: tuple[str, ...], began: float
    ) -> SequentialReport:
        """The report on the stream as it is."""
        judge = self._judge(stream)
        subject, measured, judgement = self._judged(judge)
        more = (*judgement.notes, *off_policy_notes(self.draws.request.setting), *notes)
        judgement = replace(judgement, notes=more)
        return sequential_report(subject, measured, judgement, judge, stopped, began)

    def _judge(self, stream: Stream) -> StreamJudge:
        plan = self.plan
        fixed = (plan.functionals, plan.method, plan.assumption, self.limit)
        return StreamJudge(stream, *fixed, self.draws.rare_doubt, self.doubt)

    def _judged(self, stream_judge: StreamJudge) -> tuple[Subject, MeasuredMoments, Judgement]:
        measured = self.draws.measured(stream_judge.stream)
        subject = subject_of(self.draws.request, measured, self.target, self.exact)
        return subject, measured, judge(subject, measured, self.rates, stream_judge)


def _resumption(file: Path | None, count: int) -> tuple[str, ...]:
    """The note of a resumed run: how many estimates are the checkpoint's, and that its generator
    was continued.
    """
    if file is None or count == 0:
        return ()
    return (f"resumed from {file.name}, with its {count:,} estimates and its generator",)


def _checked_path(checkpoint: str | Path | None) -> Path | None:
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, str | Path):
        raise ValueError(f"checkpoint: expected a path, got {checkpoint!r}")
    if not Path(checkpoint).resolve().parent.is_dir():
        raise ValueError(f"checkpoint: {checkpoint} is in no folder that exists")
    return Path(checkpoint)


def identity_of(
    draws: Draws, options: MethodChoice, rates: ErrorRates, exact: FloatArray, limit: int
) -> dict[str, Any]:
    """What a checkpoint must share with a measurement that is resumed from it."""
    estimator, setting = draws.request.estimator, draws.request.setting
    method, _ = chosen_method(draws, options)
    mdp = setting.mdp
    problem = hashlib.sha256()
    arrays = [mdp.transition, mdp.reward, mdp.start, setting.theta, setting.behaviour, exact]
    arrays += [a for a in (setting.critic, setting.reference) if a is not None]
    for array in arrays:
        problem.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    problem.update(repr((mdp.discount, mdp.horizon, setting.steps)).encode())
    bounds = None if options.bounds is None else [np.asarray(b).tolist() for b in options.bounds]
    moment = None if options.second_moment is None else np.asarray(options.second_moment).tolist()
    control = draws.control
    mean = None if control is None else np.asarray(control.mean).tolist()
    estimates, others = draws.probe()
    # These two are tuned for the budget, and cannot be resumed with another.
    tuned = method in (Method.ASYMPTOTIC, Method.TRUNCATED)
    return {
        "estimator": estimator.name,
        "order": estimator.order,
        "estimates": estimates,
        "problem": problem.hexdigest(),
        "method": method.value,
        "bounds": bounds,
        "second_moment": moment,
        "projections": None if options.projections is None else int(options.projections),
        "control": None if control is None else [control.estimator.name, mean, *others],
        "trajectories": draws.n,
        "rates": [float(rates.tolerance), float(rates.false_alarm)],
        "samples": limit if tuned else None,
    }
