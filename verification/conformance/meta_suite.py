"""Everything that a sampled K-step meta-gradient must satisfy, at given parameters.

It brings its own problem, so the checks are on that one. Bias is not a matter of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy.typing as npt

from gradbias.analytic.utils.validation import real_number, whole_number
from gradbias.stochastic.derivatives.process_state import put_back
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.verification.conformance import meta_checks as checks
from gradbias.verification.conformance.meta_checks import MetaTrial
from gradbias.verification.conformance.report import (
    ConformanceReport,
    Mode,
    Outcome,
    checked_mode,
    exemptions,
    results_of,
)

_SAMPLING = "sampling agrees with enumeration"
_GATES: Mapping[str, Callable[[MetaTrial], int]] = {
    "runs and shapes": checks.runs,
    "purity": checks.purity,
}
_CHECKS: Mapping[str, Callable[[MetaTrial], int]] = {
    **_GATES,
    "replications independent": checks.independence,
    "steps of size 0": checks.steps,
    "relabelling": checks.relabelling,
    _SAMPLING: checks.sampling,
}


def check_meta_gradient(
    estimator: MetaGradient,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None = None,
    *,
    mode: str | Mode = Mode.EXACT,
    seed: int = 0,
    exempt: Mapping[str, str] | None = None,
    replications: int = 10_000,
    false_alarm: float = 1e-4,
) -> ConformanceReport:
    """Whether a sampled meta-gradient satisfies what any must, on its own problem.

    ``meta_parameters`` and ``theta`` are those of `MetaGradient.estimates`; ``seed`` chooses the
    draws, which the checks compare with themselves. In mode "sampling" the mean of ``replications``
    estimates is compared with that over all draws, where these can be enumerated, by a bound that
    fails a conforming one with probability ``false_alarm`` at most, whatever the replications.

    Not checked: bias, dtypes, devices. Its surrogates can be put to `check_estimator`.

    Raises:
        ValueError: what is no MetaGradient, parameters that do not fit, an unknown mode or check, a
            number out of range.

    >>> from gradbias.analytic import TabularMDP
    >>> from gradbias.stochastic import MetaGradient, Sampled, SampledLoop, ad, dice
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> loop = SampledLoop(bandit, starts_at_meta=True)
    >>> sampled = MetaGradient(loop, 1, 1.0, Sampled(ad, 4), Sampled(dice, 4), Sampled(ad, 4))
    >>> report = check_meta_gradient(sampled, [[0.5, 0.0]], mode="sampling")
    >>> report.failed, report.ran
    ((), 6)
    """
    asked: object = estimator
    if not isinstance(asked, MetaGradient):
        kind = type(estimator).__name__
        raise ValueError(f"estimator: expected a MetaGradient, got a {kind} (see check_estimator)")
    phi, start = estimator.loop.start(meta_parameters, theta)
    trial = MetaTrial(
        estimator,
        phi,
        None if estimator.loop.starts_at_meta else start,
        seed=whole_number("seed", seed, at_least=0),
        replications=whole_number("replications", replications, at_least=1),
        false_alarm=real_number("false_alarm", false_alarm, low=1e-300, high=0.5),
    )
    asks = {name: partial(check, trial) for name, check in _CHECKS.items()}
    excused = exemptions(exempt, asks, set(_GATES))
    if checked_mode(mode) is Mode.EXACT:
        excused.setdefault(_SAMPLING, "nothing is sampled in mode exact")
    with put_back():
        results = results_of(asks, set(_GATES), excused)
    sampled = any(c.name == _SAMPLING and c.outcome is not Outcome.SKIPPED for c in results)
    rate = trial.false_alarm if sampled else 0.0
    problem, length = estimator.loop.problem, estimator.loop.steps
    where = (
        f"its own problem: {problem.n_states} states, {problem.n_actions} actions, {length} steps"
    )
    return ConformanceReport(estimator.name, results, rate, where if sampled else "")
