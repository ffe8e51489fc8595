"""Measuring an estimator's bias for a named target, exactly where that is possible."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import AnyTarget, return_derivative
from gradbias.analytic.utils.validation import whole_number
from gradbias.stochastic.derivatives.coefficients import MAX_LOOPED
from gradbias.stochastic.estimators.kinds import DrawEstimator, Estimator, Evaluator
from gradbias.verification.evidence.accumulated_moments import (
    Moments,
    Progress,
    enumerated_moments,
    sampled_moments,
)
from gradbias.verification.evidence.coupling import ORDERS, OrderFree, OrderMattersError, prepared
from gradbias.verification.evidence.draw_trees import RepeatedRuns, explored_moments, placeholders
from gradbias.verification.evidence.enumeration import EnumerationSizeError, check_outcomes
from gradbias.verification.evidence.known_moments import (
    MAX_WORK,
    KnownRecursion,
    recursion_moments,
    recursion_of,
    recursion_work,
)
from gradbias.verification.evidence.reports import BiasReport, Evidence, Verdict
from gradbias.verification.evidence.request import (
    ENUMERATION_LIMIT,
    Request,
    checked_values,
    off_policy_notes,
    request_of,
    target_value,
)
from gradbias.verification.evidence.verdicts import ErrorRates, Found, judge, subject_of
from gradbias.verification.proofs.evidence import with_proof

_MIN_REPLICATIONS = 100
_LOOPED_A_BLOCK = 256


def measure_bias(
    estimator: Estimator,
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    target: AnyTarget | None = None,
    evidence: str | Evidence = "auto",
    tolerance: float = 0.01,
    false_alarm: float = 1e-3,
    missed_bias: float = 1e-2,
    batch_size: int | None = None,
    critic: npt.ArrayLike | None = None,
    policy: Policy = TABULAR,
    behaviour: npt.ArrayLike | None = None,
    min_effective_share: float = 0.0,
    reference: npt.ArrayLike | None = None,
    meta: Mapping[str, Any] | None = None,
    length: int | None = None,
    budget: int = 200_000,
    max_outcomes: int = ENUMERATION_LIMIT,
    rng: np.random.Generator | None = None,
    progress: Progress | None = None,
    covariance: bool = False,
) -> BiasReport:
    """Is the estimator's expectation the target, at this MDP and policy?

    ``target=None`` is the derivative, of the estimator's order, of the problem's own return.
    ``theta`` are the parameters of ``policy`` (tabular softmax: ``[S, A]``); trajectories are drawn
    at ``behaviour`` (default theta); off policy the report says what share of them the ratios of
    whole trajectories leave as effective sample size, and one below ``min_effective_share`` is
    refused. ``critic`` is ``[S]`` or ``[H + 1, S]``, 0 at terminal states. ``evidence`` is
    "symbolic" (exact, for every policy: see `verification.proofs.prove`), "enumeration" (exact),
    "moments" (exact: the built-in estimators' recursions), "sampling" (an interval at the
    ``false_alarm`` rate against the relative ``tolerance``, from ``budget`` trajectories drawn with
    ``rng``, by default seeded 0), or "auto": enumeration where at most ``max_outcomes`` outcomes
    are to be enumerated, else moments where there are, else sampling. ``batch_size`` is the batch
    size N, needed where the estimator couples a batch's trajectories; estimates that draw their own
    batches take ``budget`` as a number of runs. ``length`` cuts trajectories of an infinite
    horizon; the report then names the truncation. ``covariance`` asks for a gradient estimate's
    full covariance in the report.

    Raises:
        ValueError: an argument that does not fit (which, what was expected and what came), an
            estimator that misbehaves, an enumeration that is too large.

    >>> from gradbias.stochastic import from_surrogate, lvc
    >>> mdp = TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.9, horizon=2)
    >>> measure_bias(from_surrogate(lvc, order=1), mdp, np.zeros((2, 2))).verdict.value
    'UNBIASED'
    """
    began = time.perf_counter()
    rates = ErrorRates(tolerance, false_alarm, missed_bias)
    if batch_size is not None:
        whole_number("batch_size", batch_size, at_least=1)
    asked = request_of(
        estimator,
        mdp,
        theta,
        critic=critic,
        policy=policy,
        behaviour=behaviour,
        reference=reference,
        meta=meta,
        length=length,
        budget=budget,
        max_outcomes=max_outcomes,
        rng=rng,
        progress=progress,
        covariance=covariance,
    )
    visited = checked_values(asked)
    remarks = off_policy_notes(asked, min_effective_share)
    wanted = return_derivative(estimator.order, horizon=mdp.horizon) if target is None else target
    exact = target_value(wanted, asked)
    if evidence in (Evidence.SYMBOLIC, Evidence.SYMBOLIC.value):
        enumerated = _moments(asked, Evidence.ENUMERATION, batch_size)
        found = with_proof(asked, wanted, exact, enumerated)
    else:
        found = _moments(asked, wanted_evidence(evidence), batch_size)
    found = replace(found, notes=(*found.notes, *remarks))
    subject = subject_of(asked, visited, wanted, exact, found)
    report = judge(subject, wanted, exact, found, rates)
    return replace(report, seconds=time.perf_counter() - began)


def assert_unbiased(
    estimator: Estimator, mdp: TabularMDP, theta: npt.ArrayLike, **options: Any
) -> BiasReport:
    """`measure_bias`, insisting: its report if the verdict is UNBIASED.

    Raises:
        AssertionError: any other verdict, VACUOUS included, with the report's text.
        ValueError: as `measure_bias`.
    """
    report = measure_bias(estimator, mdp, theta, **options)
    if report.verdict is not Verdict.UNBIASED:
        raise AssertionError(str(report))
    return report


def wanted_evidence(wanted: str | Evidence) -> Evidence | None:
    """None stands for "auto". Raises ValueError for one that is unknown, or symbolic."""
    if wanted == "auto":
        return None
    try:
        evidence = Evidence(wanted)
    except ValueError:
        known = ", ".join(["auto", *(e.value for e in Evidence)])
        raise ValueError(f"evidence: expected one of {known}, got {wanted!r}") from None
    if evidence is Evidence.SYMBOLIC:
        raise ValueError(
            "evidence: symbolic is for estimators of the return's derivatives alone; use "
            "enumeration, moments or sampling"
        )
    return evidence


def _moments(asked: Request, wanted: Evidence | None, batch_size: int | None) -> Found:
    if isinstance(asked.estimator, DrawEstimator):
        return _draw_moments(asked, asked.estimator, wanted, batch_size)
    if (known := _known(asked, wanted)) is not None:
        return _found(recursion_moments(asked, known), Evidence.MOMENTS, batch_size or 1, ())
    asked.block(1)  # refuses what does not fit into memory, before anything is tried
    coupling = prepared(asked, asked.estimator, batch_size)
    evaluator = coupling.evaluator
    n = 1 if batch_size is None or not coupling.coupled else batch_size
    moments, evidence, remarks = _either_measure(asked, evaluator, n, wanted)
    notes = (*evaluator.notes, *remarks, *_capped(asked, evaluator, n, evidence))
    if coupling.coupled:
        return Found(moments, evidence, n, True, notes)
    return _found(moments, evidence, batch_size or 1, (*notes, coupling.note))


def _found(moments: Moments, evidence: Evidence, n: int, notes: tuple[str, ...]) -> Found:
    """Of the mean of n estimates that do not interact, from the moments of one."""
    covariance = None if moments.covariance is None else moments.covariance / n
    of_mean = replace(moments, variance=moments.variance / n, covariance=covariance)
    return Found(of_mean, evidence, n, False, notes)


def _known(asked: Request, wanted: Evidence | None) -> KnownRecursion | None:
    """The recursion to use: where it is wanted, or nothing is and enumeration does not fit. It is
    known of estimators that do not couple trajectories, so that these need not be looked at.
    """
    if wanted not in (None, Evidence.MOMENTS):
        return None
    known = recursion_of(asked)
    if known is None and wanted is Evidence.MOMENTS:
        raise ValueError(
            f"evidence: moments are known of AD, LVC, DiCE and Loaded-DiCE, summed over steps and "
            f"on policy, at orders 1 and 2; got {asked.estimator.name} of order "
            f"{asked.estimator.order}; use enumeration or sampling"
        )
    if known is None or wanted is Evidence.MOMENTS:
        return known
    fits = asked.enumeration.count_batches(1, ordered=False) <= asked.max_outcomes
    return None if fits or recursion_work(asked, known) > MAX_WORK else known


def _either_measure(
    asked: Request, evaluator: Evaluator, n: int, wanted: Evidence | None
) -> tuple[Moments, Evidence, tuple[str, ...]]:
    """Enumerated where that is wanted, or fits and nothing is; else sampled."""
    limit = (
        asked.max_outcomes if evaluator.most is None else min(asked.max_outcomes, evaluator.most)
    )
    fits = asked.enumeration.count_batches(n, ordered=False) <= limit
    if wanted is Evidence.ENUMERATION or (wanted is None and fits):
        try:
            moments, notes = _enumerated(asked, evaluator, n, limit)
            return moments, Evidence.ENUMERATION, notes
        except EnumerationSizeError:
            if wanted is Evidence.ENUMERATION:
                raise  # the order matters, and there are too many tuples
    moments = sampled_moments(
        evaluator,
        lambda count: asked.draw(count, n),
        asked.accumulator(),
        _replications(asked, n, evaluator.most),
        _block(asked, evaluator, n),
        asked.progress,
    )
    return moments, Evidence.SAMPLING, ()


def _block(asked: Request, evaluator: Evaluator, n: int) -> int:
    """Outcomes between signs of life: fewer where each is slow."""
    block = asked.block(n)
    return block if evaluator.most is None else min(block, _LOOPED_A_BLOCK)


def _capped(asked: Request, evaluator: Evaluator, n: int, evidence: Evidence) -> tuple[str, ...]:
    most = evaluator.most
    if evidence is not Evidence.SAMPLING or most is None or asked.budget // n <= most:
        return ()
    return (f"only {most:,} estimates were sampled: more would take too long in a loop",)


def _enumerated(
    asked: Request, evaluator: Evaluator, n: int, limit: int
) -> tuple[Moments, tuple[str, ...]]:
    """Over ordered tuples of n trajectories where they fit, which assumes nothing; else over
    multisets, as long as no batch is seen whose order matters.
    """
    if asked.enumeration.count_batches(n, ordered=True) <= limit or n == 1:
        return _enumerated_batches(asked, evaluator, n, ordered=True), ()
    free = OrderFree(evaluator, np.random.default_rng(0))
    try:
        moments = _enumerated_batches(asked, free, n, ordered=False)
    except OrderMattersError:
        return _enumerated_batches(asked, evaluator, n, ordered=True), ()
    return moments, (f"batches of {n} as multisets: {ORDERS} random orders of each agreed",)


def _enumerated_batches(asked: Request, evaluator: Evaluator, n: int, *, ordered: bool) -> Moments:
    measure = asked.enumeration
    total = measure.count_batches(n, ordered=ordered)
    check_outcomes(total, asked.max_outcomes, "trajectories" if n == 1 else f"batches of {n}")
    blocks = measure.batches(n, ordered=ordered, block=_block(asked, evaluator, n))
    return enumerated_moments(evaluator, blocks, asked.accumulator(), total, asked.progress)


def _replications(asked: Request, n: int, most: int | None) -> int:
    replications = asked.budget // n
    if most is not None:
        replications = min(replications, most)
    if replications < _MIN_REPLICATIONS:
        raise ValueError(
            f"budget: expected at least {_MIN_REPLICATIONS * n} trajectories for an interval "
            f"with N = {n}, got {asked.budget}"
        )
    return replications


def _draw_moments(
    asked: Request,
    estimator: DrawEstimator,
    wanted: Evidence | None,
    batch_size: int | None,
) -> Found:
    if batch_size is not None:
        raise ValueError(f"batch_size: {estimator.name} draws its own batches, got {batch_size}")
    if not np.array_equal(asked.behaviour, asked.context.theta):
        raise ValueError(f"behaviour: {estimator.name} draws at parameters of its own")
    if wanted is Evidence.MOMENTS:
        raise ValueError(f"evidence: no moments of {estimator.name} are known, which draws itself")
    if wanted is not Evidence.SAMPLING:
        try:
            limit = (
                asked.max_outcomes if wanted is not None else min(asked.max_outcomes, MAX_LOOPED)
            )
            moments = explored_moments(asked, estimator, limit)
            return Found(moments, Evidence.ENUMERATION, 1, True, ())
        except EnumerationSizeError:
            if wanted is Evidence.ENUMERATION:
                raise
    evaluator = RepeatedRuns(asked, estimator)
    moments = sampled_moments(
        evaluator,
        placeholders,
        asked.accumulator(),
        _replications(asked, 1, evaluator.most),
        _LOOPED_A_BLOCK,
        asked.progress,
    )
    notes = _capped(asked, evaluator, 1, Evidence.SAMPLING)
    return Found(moments, Evidence.SAMPLING, 1, True, notes)
