"""Measuring the bias of sampled K-step meta-gradients."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.meta.bilevel import BilevelProblem
from gradbias.analytic.meta.meta_gradients import meta_gradient
from gradbias.analytic.policies.at_parameters import policy_at
from gradbias.analytic.policies.softmax import TABULAR, LinearSoftmax
from gradbias.analytic.problems.targets import (
    AnyTarget,
    FiniteHorizon,
    GivenTarget,
    InfiniteHorizon,
    InnerLoop,
    Target,
)
from gradbias.analytic.returns.evaluation import evaluate
from gradbias.analytic.utils.validation import FloatArray, whole_number
from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.stochastic.derivatives.known_surrogates import is_known
from gradbias.stochastic.meta.backward_pass import Pass
from gradbias.stochastic.meta.meta_gradients import MetaGradient, probe_slots
from gradbias.stochastic.meta.slots import Sampled
from gradbias.stochastic.rollouts.trajectories import Trajectories, empty_batches
from gradbias.verification.evidence.accumulated_moments import (
    Accumulator,
    Moments,
    Progress,
    sampled_moments,
)
from gradbias.verification.evidence.enumeration import EnumerationSizeError
from gradbias.verification.evidence.known_moments import affordable_kurtosis, rare_doubt
from gradbias.verification.evidence.reasons import Doubt
from gradbias.verification.evidence.reports import BiasReport, Evidence
from gradbias.verification.evidence.request import generator_or_default
from gradbias.verification.evidence.subjects import MeasuredMoments, Subject
from gradbias.verification.evidence.verdicts import ErrorRates, judge, report_of
from gradbias.verification.measurement.find_moments import numeric_evidence
from gradbias.verification.measurement.meta_enumeration import MAX_STEP, Enumerating
from gradbias.verification.measurement.meta_moments import MomentPass

META_PARAMETERS = "the meta-parameters"
MAX_NUMBERS = 30_000_000
"""The largest number of floats in the second moments of all paths together."""

_RUNS_A_BLOCK = 256


def measure_meta_gradient(
    estimator: MetaGradient,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None = None,
    *,
    exact: BilevelProblem | None = None,
    target: GivenTarget | None = None,
    evidence: str | Evidence = "auto",
    tolerance: float | None = None,
    false_alarm: float = 1e-3,
    missed_bias: float = 1e-2,
    replications: int = 20_000,
    max_outcomes: int = MAX_STEP,
    rng: np.random.Generator | None = None,
    progress: Progress | None = None,
) -> BiasReport:
    """A report: is the expectation of a sampled meta-gradient the target, at these parameters?

    Args:
        estimator: a `stochastic.MetaGradient`.
        meta_parameters: phi, as for `analytic.meta_gradient`.
        theta: the parameters before the first inner step; None if these are the meta-parameters.
        exact: the estimator's problem with *expected* inner steps (`analytic.Maml` and the like),
            whose gradient is the target. Its horizon may be longer: a note names the truncation.
        target: another target, in place of ``exact``: after sampled steps, for example.
        evidence: "enumeration" (exact mean and covariance), "sampling", or "auto": the first where
            it fits.
        tolerance: the largest relative bias that is called UNBIASED (default: 0.01 by sampling,
            1e-9 by enumeration).
        false_alarm: the type I error rate of a sampled verdict.
        missed_bias: the type II error rate that ``smallest_detectable`` is stated for.
        replications: the number of runs that sampling makes, at least 100.
        max_outcomes: the largest number of batches at one step, of all paths together.
        rng: the generator of what is sampled (default: one seeded 0).
        progress: called as ``progress(done, total)``.

    Returns:
        A `BiasReport`; its ``setting`` is None.

    Raises:
        ValueError: an argument that does not fit, no target, an enumeration that is too large.

    >>> from gradbias.analytic import Maml, TabularMDP
    >>> from gradbias.stochastic import MetaGradient, Sampled, SampledLoop, ad, dice
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> loop = SampledLoop(bandit, starts_at_meta=True)
    >>> sampled = MetaGradient(loop, 1, 1.0, Sampled(ad, 4), Sampled(dice, 4), Sampled(ad, 4))
    >>> report = measure_meta_gradient(sampled, [[0.5, 0.0]], exact=Maml(bandit))
    >>> report.verdict.value, round(report.relative_bias, 4)  # the sampled step's own bias
    ('BIASED', 0.0035)
    """
    began = time.perf_counter()
    rates = ErrorRates.of(tolerance, false_alarm, missed_bias)
    kind = numeric_evidence(evidence)
    if kind is Evidence.MOMENTS:
        raise ValueError("evidence: expected enumeration or sampling of a meta-gradient's draws")
    phi, start = estimator.loop.start(meta_parameters, theta)
    probe_slots(estimator, phi, start)
    wanted, value = _target(estimator, phi, start, exact, target)
    limit = whole_number("max_outcomes", max_outcomes, at_least=1)
    measured = None
    if kind is not Evidence.SAMPLING:
        try:
            moments = _enumerated(estimator, phi, start, limit)
            measured = MeasuredMoments(moments, Evidence.ENUMERATION, 1, True, ())
        except EnumerationSizeError:
            if kind is Evidence.ENUMERATION:
                raise
    if measured is None:
        count = whole_number("replications", replications, at_least=100)
        runs = _Runs(estimator, phi, theta, generator_or_default(rng))
        sums = Accumulator(phi.shape)
        moments = sampled_moments(runs, empty_batches, sums, count, _RUNS_A_BLOCK, progress)
        doubt = _rare_doubt(estimator, phi, start, count)
        measured = MeasuredMoments(moments, Evidence.SAMPLING, 1, True, (), doubt=doubt)
    policy = np.exp(estimator.loop.log_policy(phi, start[None])[0])
    evaluation = evaluate(estimator.loop.problem, policy)
    subject = Subject(
        estimator.name,
        wanted,
        value,
        "with its own draws, at this problem and these parameters",
        evaluation.scale,
        evaluation.rounding_scale,
        notes=_truncation(estimator, exact) if target is None else (),
    )
    return report_of(BiasReport, subject, measured, judge(subject, measured, rates), began)


def _rare_doubt(
    estimator: MetaGradient, phi: FloatArray, start: FloatArray, runs: int
) -> Doubt | None:
    """The reason, if any, why the mean of that many runs is not assumed to be normal. It is judged
    by gradient estimates at the policy before the first inner step.
    """
    problem, log_policy = estimator.loop.problem, estimator.loop.log_policy(phi, start[None])[0]
    at = policy_at(TABULAR, log_policy, problem.n_states, problem.n_actions)
    kurtosis = affordable_kurtosis(problem, at, np.exp(log_policy), 1, estimator.loop.steps)
    slots = (estimator.value, estimator.jacobian, estimator.hessian, estimator.outer)
    sizes = [slot.batch_size for slot in slots if isinstance(slot, Sampled)]
    return rare_doubt(kurtosis, runs * min(sizes, default=1))


def _target(
    estimator: MetaGradient,
    phi: FloatArray,
    theta: FloatArray,
    exact: BilevelProblem | None,
    target: GivenTarget | None,
) -> tuple[AnyTarget, FloatArray]:
    if target is not None:
        if target.value.shape != phi.shape:
            raise ValueError(f"target value: expected shape {phi.shape}, got {target.value.shape}")
        return target, target.value
    if exact is None:
        raise ValueError("exact: expected the problem with exact inner steps, or a target")
    _check_same(estimator, exact)
    horizon = _problem(exact, estimator.loop).horizon
    expected = Target(
        1,
        InfiniteHorizon() if horizon is None else FiniteHorizon(horizon),
        with_respect_to=META_PARAMETERS,
        inner=InnerLoop(estimator.steps),
    )
    value = meta_gradient(exact, phi, theta, steps=estimator.steps, step_size=estimator.step_size)
    return expected, value


def _problem(owner: object, otherwise: object = None) -> Any:
    """The decision problem or game of ``owner``, a loop or an exact problem; that of ``otherwise``
    if it has neither, as a user's class may.
    """
    problem = getattr(owner, "mdp", None) or getattr(owner, "game", None)
    return problem if problem is not None or otherwise is None else _problem(otherwise)


def _check_same(estimator: MetaGradient, exact: BilevelProblem) -> None:
    """Raises ValueError where ``exact`` is not the problem that the estimator draws from."""
    loop = estimator.loop
    for name in ("starts_at_meta", "policy", "player"):
        wanted, got = getattr(loop, name, None), getattr(exact, name, None)
        if wanted is not None and got is not None and not _equal(wanted, got):
            raise ValueError(f"exact: expected {name} {wanted!r}, as the estimator's, got {got!r}")
    sampled_problem, exact_problem = _problem(loop), _problem(exact)
    if exact_problem is None or exact_problem is sampled_problem:
        return
    for name in ("transition", "reward", "rewards", "start", "discount"):
        wanted, got = getattr(sampled_problem, name, None), getattr(exact_problem, name, None)
        if not np.array_equal(wanted, got):  # type: ignore[arg-type]
            raise ValueError(f"exact: expected the {name} of the estimator's problem, got another")


def _equal(first: object, second: object) -> bool:
    if isinstance(first, LinearSoftmax) and isinstance(second, LinearSoftmax):
        return np.array_equal(first.features, second.features)
    return first is second or first == second


def _truncation(estimator: MetaGradient, exact: BilevelProblem | None) -> tuple[str, ...]:
    steps = estimator.loop.steps
    problem = None if exact is None else _problem(exact, estimator.loop)
    if problem is None or problem.horizon == steps:
        return ()
    end = "an infinite horizon" if problem.horizon is None else f"{problem.horizon} steps"
    note = f"trajectories are cut at {steps} steps, the target has {end}: some bias is truncation"
    return (note,)


def _enumerated(estimator: MetaGradient, phi: FloatArray, theta: FloatArray, limit: int) -> Moments:
    """Exact moments; batches are multisets where all surrogates are known to ignore their order."""
    slots = (estimator.value, estimator.jacobian, estimator.hessian, estimator.outer)
    ordered = any(isinstance(s, Sampled) and not is_known(s.surrogate) for s in slots)
    fitting = MAX_NUMBERS // (theta.size + phi.size + 1) ** 2
    source = Enumerating(estimator.loop, ordered=ordered, limit=min(limit, fitting))
    moments = MomentPass(Pass(estimator, source, phi)).from_step(0, theta[None], None)
    mean, second = moments.mean[0], moments.second[0]
    covariance = second - np.outer(mean, mean)
    d, p = theta.size, phi.size
    pick = np.zeros((p, len(mean)))
    pick[:, d : d + p] = np.eye(p)
    if estimator.loop.starts_at_meta:
        pick[:, :d] += np.eye(p)
    estimate = pick @ mean
    spread = pick @ covariance @ pick.T
    absolute = float(np.sqrt(np.trace(pick @ second @ pick.T)))
    variance = np.maximum(np.diagonal(spread), 0.0)  # below 0 by rounding alone
    return Moments(
        estimate.reshape(phi.shape),
        variance.reshape(phi.shape),
        absolute,
        outcomes=source.answered,
        largest=absolute,
        covariance=spread.reshape(phi.shape * 2),
    )


@dataclass(frozen=True, eq=False)
class _Runs:
    """An `Evaluator` that makes independent runs; of a batch it uses only the number."""

    estimator: MetaGradient
    phi: FloatArray
    theta: npt.ArrayLike | None
    rng: np.random.Generator
    notes: tuple[str, ...] = ()
    most: int | None = None

    def rows(self, batch: Trajectories) -> Rows:
        """One estimate for each replication of ``batch``, which holds nothing else."""
        count = len(batch.actions)
        return Rows.of_dense(
            self.estimator.estimates(self.phi, self.theta, replications=count, rng=self.rng)
        )
