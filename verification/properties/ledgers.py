"""Ledgers of what the tests of a suite claimed, on what evidence, at what false-alarm rate.

A suite has one false-alarm rate (`DEFAULT_BUDGET`): the probability that it calls any unbiased
estimator biased. It is shared equally among its tests, and a test's share among its claims by
sampling, of which there may be any number (`ErrorBudget`). Exact evidence takes nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Unpack

from gradbias.verification.confidence.error_budgets import ErrorBudget, check_rate

if TYPE_CHECKING:
    import numpy.typing as npt

    from gradbias.analytic.problems.mdp import TabularMDP
    from gradbias.stochastic.estimators.kinds import Estimator
    from gradbias.verification.evidence.reports import BiasReport
    from gradbias.verification.measurement.measure import MeasureOptions

DEFAULT_BUDGET = 1e-4
"""The default of the suite's false-alarm rate (a budget of error, not one of trajectories)."""

SAMPLING = "sampling"


@dataclass(frozen=True)
class LedgerEntry:
    """One claim of a test, on one problem or on all problems that a property measured.

    ``held`` says whether the claim did. ``evidence`` counts the problems by kind of evidence; the
    ``vacuous`` and ``undecided`` ones among them are no evidence. ``spent`` is the false-alarm rate
    that the claim took, and ``smallest_detectable`` the relative bias that the weakest sampled
    problem would have shown (None: nothing was sampled).
    """

    held: bool
    evidence: Mapping[str, int]
    vacuous: int = 0
    undecided: int = 0
    spent: float = 0.0
    smallest_detectable: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, to be sent to the process that adds claims up."""
        return asdict(self) | {"evidence": dict(self.evidence)}


@dataclass
class Ledger:
    """The ``claims`` of one test, which may take ``share`` of the suite's false-alarm rate."""

    share: float = DEFAULT_BUDGET
    claims: list[LedgerEntry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._budget = ErrorBudget(check_rate("share", self.share))

    @property
    def spent(self) -> float:
        """The rate taken so far; never more than the share."""
        return math.fsum(claim.spent for claim in self.claims)

    def next_rate(self) -> float:
        """The false-alarm rate that the next claim may take."""
        return self._budget.share(sum(claim.spent > 0.0 for claim in self.claims))

    def record(self, claim: LedgerEntry) -> None:
        """Adds a claim. Raises ValueError for one that took more than it may."""
        rate = self.next_rate()
        if claim.spent > rate * (1 + 1e-9):
            raise ValueError(
                f"spent: expected at most {rate:.3g} of the false-alarm rate, got {claim.spent:.3g}"
            )
        self.claims.append(claim)

    def assert_unbiased(
        self,
        estimator: Estimator,
        mdp: TabularMDP,
        theta: npt.ArrayLike,
        *,
        measure: Callable[..., BiasReport] | None = None,
        **options: Unpack[MeasureOptions],
    ) -> BiasReport:
        """The report of `verification.assert_unbiased`, at the next rate of this ledger.

        Args:
            estimator: from `from_surrogate`, `from_callable` or `from_draws`.
            mdp: the problem.
            theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
            measure: `measure_bias` (default), or `measure_bias_sequentially`, which has
                non-asymptotic intervals and draws no more samples than it needs.
            options: the other arguments of ``measure``.

        Returns:
            The report, whose verdict is UNBIASED.

        Raises:
            AssertionError: any other verdict; the message is the report's text.
            ValueError: as ``measure``, or for a ``false_alarm``.
        """
        from gradbias.verification.measurement.measure import measure_bias

        if "false_alarm" in options:
            raise ValueError("false_alarm: the suite's budget sets it (--gradbias-budget)")
        chosen = measure_bias if measure is None else measure
        options["false_alarm"] = self.next_rate()
        report = chosen(estimator, mdp, theta, **options)
        claim = claim_of(report)
        self.record(claim)
        report.raise_unless_unbiased()
        return report


def claim_of(report: BiasReport) -> LedgerEntry:
    """The claim that one measurement is."""
    from gradbias.verification.evidence.reports import Verdict

    sampled = report.interval is not None
    return LedgerEntry(
        held=report.verdict is Verdict.UNBIASED,
        evidence={report.evidence.value: 1},
        vacuous=int(report.verdict is Verdict.VACUOUS),
        undecided=int(report.verdict is Verdict.UNDECIDED),
        spent=(report.false_alarm or 0.0) if sampled else 0.0,
        smallest_detectable=report.smallest_detectable if sampled else None,
    )


def summary_lines(claims: Sequence[LedgerEntry], budget: float) -> list[str]:
    """The summary of a suite's claims in a few lines; none where nothing was claimed.

    >>> for line in summary_lines([LedgerEntry(True, {"enumeration": 3}, vacuous=1)], 1e-4):
    ...     print(line)
    1 claim, 1 held; problems measured: 3
    evidence: 3 enumeration; of these 1 vacuous (nothing was tested)
    false-alarm rate: 0 spent of 0.0001
    """
    if not claims:
        return []
    kinds: Counter[str] = Counter()
    for claim in claims:
        kinds.update(claim.evidence)
    held = sum(claim.held for claim in claims)
    plural = "" if len(claims) == 1 else "s"
    parts = [", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))]
    vacuous = sum(claim.vacuous for claim in claims)
    undecided = sum(claim.undecided for claim in claims)
    if vacuous:
        parts.append(f"of these {vacuous:,} vacuous (nothing was tested)")
    if undecided:
        parts.append(f"{undecided:,} undecided")
    spent = math.fsum(claim.spent for claim in claims)
    lines = [
        f"{len(claims):,} claim{plural}, {held:,} held; problems measured: {kinds.total():,}",
        f"evidence: {'; '.join(parts)}",
        f"false-alarm rate: {spent:.3g} spent of {budget:g}",
    ]
    detectable = [c.smallest_detectable for c in claims if c.smallest_detectable is not None]
    if detectable:
        weakest = max(detectable)
        lines.append(
            f"smallest detectable relative bias, of the weakest sampled claim: {weakest:.3g}"
        )
    return lines
