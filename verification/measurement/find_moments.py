"""Which evidence a measurement uses, and the estimator's moments by that evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradbias.analytic.utils.validation import choice
from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.stochastic.estimators.kinds import Evaluator, inexactness
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.confidence.control_variates import control_coefficients
from gradbias.verification.evidence.accumulated_moments import (
    Control,
    Moments,
    enumerated_moments,
    sampled_moments,
)
from gradbias.verification.evidence.coupling import (
    ORDERS,
    OrderFree,
    OrderMattersError,
    detect_coupling,
)
from gradbias.verification.evidence.draw_trees import explored_moments
from gradbias.verification.evidence.enumeration import EnumerationSizeError, check_outcomes
from gradbias.verification.evidence.known_moments import (
    MAX_WORK,
    KnownRecursion,
    known_control,
    known_kurtosis,
    rare_doubt,
    recursion_moments,
    recursion_of,
    recursion_work,
)
from gradbias.verification.evidence.reports import Evidence
from gradbias.verification.evidence.request import Request
from gradbias.verification.evidence.subjects import MeasuredMoments

CONTROLLED = (
    "DiCE's estimate on the same trajectories, whose mean is known, is a control variate; variance "
    "and deviation are those without it"
)
"""The note on sampled moments with a control variate."""

_MIN_REPLICATIONS = 100
_PILOT = 1000
_PILOT_SEED = 6_283_185
_LOOPED_A_BLOCK = 256


def numeric_evidence(evidence: str | Evidence) -> Evidence | None:
    """The evidence that is named; None stands for "auto".

    Raises:
        ValueError: it is unknown, or symbolic.
    """
    if evidence == "auto":
        return None
    kind = choice("evidence", evidence, Evidence, also=["auto"])
    if kind is Evidence.SYMBOLIC:
        raise ValueError(
            "evidence: symbolic is for estimators of the return's derivatives alone; use "
            "enumeration, moments or sampling"
        )
    return kind


def find_moments(
    request: Request, evidence: Evidence | None, batch_size: int | None
) -> MeasuredMoments:
    """The estimator's moments, by ``evidence`` or (None) by the strongest evidence that fits.

    Raises:
        ValueError: the evidence is not possible for this estimator or problem; the estimator
            misbehaves, or couples trajectories and ``batch_size`` is None.
    """
    if (known := _known(request, evidence)) is not None:
        moments = recursion_moments(request, known)
        return _of_mean(moments, Evidence.MOMENTS, batch_size or 1, ())
    request.block(1)  # refuses what does not fit into memory, before anything is tried
    coupling = detect_coupling(request, batch_size)
    evaluator, n = coupling.evaluator, coupling.n
    moments, kind, remarks = _enumerated_or_sampled(request, evaluator, n, evidence)
    notes = (*evaluator.notes, *remarks, *_capped(request, evaluator, n, kind))
    if coupling.coupled:
        measured = MeasuredMoments(moments, kind, n, True, notes)
    else:
        measured = _of_mean(moments, kind, batch_size or 1, (*notes, coupling.note))
    measured = replace(measured, imprecision=inexactness(evaluator))
    if kind is not Evidence.SAMPLING:
        return measured
    return replace(measured, doubt=rare_doubt(known_kurtosis(request), moments.outcomes * n))


def _of_mean(
    moments: Moments, evidence: Evidence, n: int, notes: tuple[str, ...]
) -> MeasuredMoments:
    """The moments of the mean of ``n`` independent estimates, given those of one: the mean is the
    same, variance and covariance are divided by ``n``.
    """
    covariance = None if moments.covariance is None else moments.covariance / n
    of_mean = replace(moments, variance=moments.variance / n, covariance=covariance)
    return MeasuredMoments(of_mean, evidence, n, False, notes)


def _known(request: Request, evidence: Evidence | None) -> KnownRecursion | None:
    """The recursion to use, if ``evidence`` is MOMENTS, or if it is None and enumeration does not
    fit; otherwise None. Recursions are known only for estimators that do not couple trajectories,
    so that these need not be tested for coupling. Raises ValueError if MOMENTS are not known.
    """
    if evidence not in (None, Evidence.MOMENTS):
        return None
    known = recursion_of(request)
    if known is None and evidence is Evidence.MOMENTS:
        raise ValueError(
            f"evidence: moments are known of AD, LVC, DiCE and Loaded-DiCE, summed over steps and "
            f"on policy, at orders 1 and 2; got {request.estimator.name} of order "
            f"{request.estimator.order}; use enumeration or sampling"
        )
    if known is None or evidence is Evidence.MOMENTS:
        return known
    fits = request.enumeration.count_batches(1, ordered=False) <= request.max_outcomes
    return None if fits or recursion_work(request, known) > MAX_WORK else known


def _enumerated_or_sampled(
    request: Request, evaluator: Evaluator, n: int, evidence: Evidence | None
) -> tuple[Moments, Evidence, tuple[str, ...]]:
    """Moments by enumeration, if ``evidence`` is ENUMERATION, or if it is None and enumeration
    fits; otherwise by sampling. If the estimator draws its own batches, the number of outcomes is
    known only once they have been enumerated.
    """
    limit, draws_itself = request.max_outcomes, request.estimator.draws_itself
    if evaluator.most is not None and not (draws_itself and evidence is Evidence.ENUMERATION):
        limit = min(limit, evaluator.most)
    fits = draws_itself or request.enumeration.count_batches(n, ordered=False) <= limit
    if evidence is Evidence.ENUMERATION or (evidence is None and fits):
        try:
            moments, notes = _enumerated(request, evaluator, n, limit)
            return moments, Evidence.ENUMERATION, notes
        except EnumerationSizeError:
            if evidence is Evidence.ENUMERATION:
                raise  # the order matters, and there are too many tuples
    replications = _replications(request, n, evaluator.most)
    block = _block(request, evaluator, n)
    control = _control(request, evaluator, n, min(block, replications))
    if control is not None:
        block = max(1, min(block, 2**22 // int(np.prod(request.shape))))
    sums, progress = request.accumulator(), request.progress
    moments = sampled_moments(
        evaluator,
        lambda count: request.draw(count, n),
        sums,
        replications,
        block,
        progress,
        control,
    )
    return moments, Evidence.SAMPLING, () if control is None else (CONTROLLED,)


def _control(request: Request, evaluator: Evaluator, n: int, block: int) -> Control | None:
    """What `known_control` takes off estimates from batches of n. Its coefficients are those of a
    pilot run of at most one block, which nothing else uses.
    """
    known = known_control(request)
    if known is None:
        return None
    pilot = request.seeded(_PILOT_SEED)
    first = pilot.draw(min(_PILOT, block), n)
    beside = known.estimator.prepare(first, request.context)
    x, y = evaluator.rows(first).dense(), beside.rows(first).dense()
    flat = (len(x), known.mean.size)
    coefficients = control_coefficients(x.reshape(flat), y.reshape(flat)).reshape(known.mean.shape)
    shift = x.mean(axis=0) - coefficients * y.mean(axis=0)

    def rest(batch: Trajectories, rows: Rows) -> Rows:
        return Rows.of_dense(rows.dense() - coefficients * beside.rows(batch).dense() - shift)

    return Control(rest, shift + coefficients * known.mean)


def _block(request: Request, evaluator: Evaluator, n: int) -> int:
    """The number of outcomes that are evaluated at once, fewer where each is slow: progress is
    reported after each block.
    """
    block = request.block(n)
    return block if evaluator.most is None else min(block, _LOOPED_A_BLOCK)


def _capped(request: Request, evaluator: Evaluator, n: int, evidence: Evidence) -> tuple[str, ...]:
    most = evaluator.most
    if evidence is not Evidence.SAMPLING or most is None or request.budget // n <= most:
        return ()
    return (f"only {most:,} estimates were sampled: more would take too long in a loop",)


def _enumerated(
    request: Request, evaluator: Evaluator, n: int, limit: int
) -> tuple[Moments, tuple[str, ...]]:
    """Exact moments over ordered tuples of n trajectories if they fit, which assumes nothing;
    otherwise over multisets, unless the estimate of some batch turns out to depend on the order.
    """
    if request.estimator.draws_itself:
        return explored_moments(request, request.estimator, limit), ()
    if request.enumeration.count_batches(n, ordered=True) <= limit or n == 1:
        return _enumerated_batches(request, evaluator, n, ordered=True), ()
    free = OrderFree(evaluator, np.random.default_rng(0))
    try:
        moments = _enumerated_batches(request, free, n, ordered=False)
    except OrderMattersError:
        return _enumerated_batches(request, evaluator, n, ordered=True), ()
    return moments, (f"batches of {n} as multisets: {ORDERS} random orders of each agreed",)


def _enumerated_batches(
    request: Request, evaluator: Evaluator, n: int, *, ordered: bool
) -> Moments:
    every = request.enumeration
    total = every.count_batches(n, ordered=ordered)
    check_outcomes(total, request.max_outcomes, "trajectories" if n == 1 else f"batches of {n}")
    blocks = every.batches(n, ordered=ordered, block=_block(request, evaluator, n))
    return enumerated_moments(evaluator, blocks, request.accumulator(), total, request.progress)


def _replications(request: Request, n: int, most: int | None) -> int:
    replications = request.budget // n
    if most is not None:
        replications = min(replications, most)
    if replications < _MIN_REPLICATIONS:
        raise ValueError(
            f"budget: expected at least {_MIN_REPLICATIONS * n} trajectories for an interval "
            f"with N = {n}, got {request.budget}"
        )
    return replications
