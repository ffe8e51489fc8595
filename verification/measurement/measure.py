"""Measuring an estimator's bias for a named target, exactly where that is possible."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Unpack

import numpy as np
import numpy.typing as npt

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import AnyTarget, return_derivative
from gradbias.analytic.utils.validation import real_number, whole_number
from gradbias.stochastic.estimators.kinds import Estimator
from gradbias.stochastic.tracing.imprecision import GuardScaling
from gradbias.verification.evidence.accumulated_moments import Progress
from gradbias.verification.evidence.reports import BiasReport, Evidence
from gradbias.verification.evidence.request import (
    MAX_OUTCOMES,
    Request,
    generator_or_default,
    off_policy_notes,
)
from gradbias.verification.evidence.setting import Setting, SettingOptions
from gradbias.verification.evidence.subjects import MeasuredMoments, subject_of
from gradbias.verification.evidence.verdicts import ErrorRates, judge, report_of, small_bias
from gradbias.verification.measurement.find_moments import find_moments, numeric_evidence
from gradbias.verification.proofs.evidence import with_proof


class MeasureOptions(SettingOptions, total=False):
    """The keywords of `measure_bias`, for functions that pass them on."""

    target: AnyTarget | None
    evidence: str | Evidence
    tolerance: float | None
    false_alarm: float
    missed_bias: float
    batch_size: int | None
    min_effective_share: float
    budget: int
    max_outcomes: int
    rng: np.random.Generator | None
    progress: Progress | None
    covariance: bool


def measure_bias(
    estimator: Estimator,
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    target: AnyTarget | None = None,
    evidence: str | Evidence = "auto",
    tolerance: float | None = None,
    false_alarm: float = 1e-3,
    missed_bias: float = 1e-2,
    batch_size: int | None = None,
    min_effective_share: float = 0.0,
    budget: int = 200_000,
    max_outcomes: int = MAX_OUTCOMES,
    rng: np.random.Generator | None = None,
    progress: Progress | None = None,
    covariance: bool = False,
    **setting: Unpack[SettingOptions],
) -> BiasReport:
    """A report: is the estimator's expectation the target, at this MDP and policy?

    Args:
        estimator: from `from_surrogate`, `from_callable` or `from_draws`, or any object with
            ``order``, ``name``, ``prepare(batch, context)`` and ``draws_itself = False``.
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        target: what it should estimate (default: the derivative of the problem's return, of the
            estimator's order).
        evidence: "symbolic" (exact, for every policy), "enumeration" (exact), "moments" (exact: the
            recursions of the built-in estimators), "sampling" (an interval), or "auto":
            enumeration where it fits, else moments where they are known, else sampling.
        tolerance: the largest relative bias that is called UNBIASED. By default sampling allows
            0.01, and exact evidence 1e-9; or more, if that is the rounding of the coarsest dtype in
            the estimator, or vanishes with a small constant in it (the reason names them).
        false_alarm: the type I error rate of a sampled verdict.
        missed_bias: the type II error rate that ``smallest_detectable`` is stated for.
        batch_size: N, the number of trajectories in a batch; needed if the estimator couples them.
        min_effective_share: the smallest relative effective sample size, off policy, that is
            accepted; in [0, 1].
        budget: the number of trajectories that sampling draws (of runs, for `from_draws`).
        max_outcomes: the largest number of outcomes that is enumerated.
        rng: the generator of what is sampled (default: one seeded 0).
        progress: called as ``progress(done, total)``.
        covariance: whether the report has the full covariance of a gradient estimate.
        **setting: what else an estimate depends on, as for `Setting.of`: ``policy`` maps theta to
            logits (default: the tabular softmax); ``critic`` is ``[S]`` or ``[H + 1, S]``, 0 at
            terminal states; ``behaviour`` are the parameters that trajectories are drawn at;
            ``reference`` those of a reference policy; ``meta`` are meta-parameter tensors by name;
            ``length`` cuts trajectories of an infinite horizon (the report names the truncation).

    Returns:
        A `BiasReport`: verdict, reason, bias, interval, assumption, scope.

    Raises:
        ValueError: an argument that does not fit, an estimator that misbehaves, an enumeration that
            is too large.
        TypeError: an unknown keyword.

    >>> from gradbias.stochastic import from_surrogate, lvc
    >>> mdp = TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.9, horizon=2)
    >>> measure_bias(from_surrogate(lvc, order=1), mdp, np.zeros((2, 2))).verdict.value
    'UNBIASED'
    """
    began = time.perf_counter()
    rates = ErrorRates.of(tolerance, false_alarm, missed_bias)
    if batch_size is not None:
        whole_number("batch_size", batch_size, at_least=1)
    request = Request(
        estimator,
        Setting.of(mdp, theta, **setting),
        max_outcomes,
        budget,
        generator_or_default(rng),
        progress,
        covariance,
    )
    _check_effective_share(request.setting, min_effective_share)
    wanted = return_derivative(estimator.order, horizon=mdp.horizon) if target is None else target
    request.setting.check_scale()
    exact = request.target_value(wanted)
    if evidence in (Evidence.SYMBOLIC, Evidence.SYMBOLIC.value):
        enumerated = find_moments(request, Evidence.ENUMERATION, batch_size)
        measured = with_proof(request, wanted, exact, enumerated)
    else:
        measured = find_moments(request, numeric_evidence(evidence), batch_size)
    measured = replace(measured, notes=(*measured.notes, *off_policy_notes(request.setting)))
    subject = subject_of(request, measured, wanted, exact)
    if measured.imprecision.guards and small_bias(subject, measured.moments):
        measured = _with_guards_extrapolated(request, measured, batch_size)
    return report_of(BiasReport, subject, measured, judge(subject, measured, rates), began)


def assert_unbiased(
    estimator: Estimator,
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    **options: Unpack[MeasureOptions],
) -> BiasReport:
    """The report of `measure_bias`, if its verdict is UNBIASED.

    Args:
        estimator: as for `measure_bias`.
        mdp: the problem.
        theta: the policy's parameters.
        **options: all other keywords of `measure_bias`.

    Returns:
        The report.

    Raises:
        AssertionError: any other verdict, VACUOUS included, with the report's text.
        ValueError: as `measure_bias`.

    >>> from gradbias.stochastic import ad, from_surrogate
    >>> mdp = TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.9, horizon=2)
    >>> assert_unbiased(from_surrogate(ad, order=1), mdp, np.zeros((2, 2))).evidence.value
    'enumeration'
    """
    report = measure_bias(estimator, mdp, theta, **options)
    report.raise_unless_unbiased()
    return report


def _with_guards_extrapolated(
    request: Request, measured: MeasuredMoments, batch_size: int | None
) -> MeasuredMoments:
    """The exact moments, with ``unguarded``, the mean that they would have without the small
    constants that guard against division by 0: to first order, constants of twice the size have
    twice the effect. Sampled moments are returned as they are.
    """
    if measured.evidence is Evidence.SAMPLING:
        return measured
    with GuardScaling(2.0):
        doubled = find_moments(request, Evidence.ENUMERATION, batch_size).moments.mean
    return replace(measured, unguarded=2 * measured.moments.mean - doubled)


def _check_effective_share(setting: Setting, smallest: float) -> None:
    real_number("min_effective_share", smallest, low=0.0, high=1.0)
    if setting.effective_share < smallest:
        raise ValueError(
            f"behaviour: expected an effective sample size of at least {smallest:g} of the "
            f"trajectories, got {setting.effective_share:.3g}; draw them nearer to the policy"
        )
