"""Which biases to report out of many reports, at a false-discovery rate.

A test suite spends a false-alarm budget (`ErrorBudget`), since any false alarm makes it fail. A
report on many estimators may instead bound the share of its findings that are false.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import BoolArray, FloatArray, real_number
from gradbias.verification.evidence.reports import BiasReport, Verdict
from gradbias.verification.sequential.verdict import SequentialReport


@dataclass(frozen=True, eq=False)
class Survey:
    """Reports, and which of their biases are findings.

    Attributes:
        reports: K reports.
        e_values: ``[K]``; infinite for a bias that exact evidence shows, 0 where it shows none.
        findings: ``[K]``, the biases to report: at most the share ``rate`` of them is below its
            report's tolerance, in expectation, however the reports depend on each other.
        rate: the false-discovery rate.
    """

    reports: tuple[BiasReport, ...]
    e_values: FloatArray
    findings: BoolArray
    rate: float

    @property
    def verdict(self) -> Verdict:
        """BIASED if there are findings, else the verdict that all reports share, else UNDECIDED."""
        if self.findings.any():
            return Verdict.BIASED
        verdicts = {report.verdict for report in self.reports}
        return verdicts.pop() if len(verdicts) == 1 else Verdict.UNDECIDED

    def as_dict(self) -> dict[str, Any]:
        """The survey in plain values, for JSON; an infinite e-value is None."""
        ends = [e if math.isfinite(e) else None for e in self.e_values.tolist()]
        rows = [
            report.as_dict() | {"survey_e_value": e, "finding": bool(finding)}
            for report, e, finding in zip(self.reports, ends, self.findings, strict=True)
        ]
        return {"false_discovery_rate": self.rate, "reports": rows}

    def __str__(self) -> str:
        targets = list(dict.fromkeys(str(report.target) for report in self.reports))
        count = int(self.findings.sum())
        plural = "" if count == 1 else "es"
        biases = f"{count} bias{plural} found in {len(self.reports)} reports"
        lines = [f"{biases} (false-discovery rate {self.rate:g}, over the sampled ones)"]
        table: list[tuple[str, ...]] = [
            ("estimator", "verdict", "relative bias", "evidence", "e-value", "")
        ]
        table += [self._row(k, targets) for k in range(len(self.reports))]
        widths = [max(len(row[c]) for row in table) for c in range(len(table[0]))]
        lines += [
            "  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        marks = [""] if len(targets) == 1 else [f"[{i}] " for i in range(1, len(targets) + 1)]
        lines += [f"  target {m}{target}" for m, target in zip(marks, targets, strict=True)]
        return "\n".join(lines)

    def _row(self, k: int, targets: list[str]) -> tuple[str, ...]:
        report, e = self.reports[k], float(self.e_values[k])
        mark = "" if len(targets) == 1 else f" [{targets.index(str(report.target)) + 1}]"
        bias = f"{report.relative_bias:.3g}"
        if report.interval is not None:
            low, high = report.relative_interval
            bias += f" in [{low:.3g}, {high:.3g}]"
        shown = "exact" if report.interval is None else f"{e:.3g}"
        finding = "finding" if self.findings[k] else ""
        name = report.estimator + mark
        return name, report.verdict.value, bias, report.evidence.value, shown, finding


def survey(reports: Sequence[BiasReport], rate: float = 0.05) -> Survey:
    """The biases to report, so that at most the share ``rate`` of them is false in expectation.

    Biases by exact evidence are findings. Among sampled reports the e-values decide
    (`e_benjamini_hochberg`): that of a sequential measurement with a known range; else 1 / the
    false-alarm rate where the verdict is BIASED, and 0 elsewhere, whose expectation is at most 1 as
    far as the report's own assumption holds.

    Args:
        reports: reports of `measure_bias`, `measure_bias_sequentially` or `measure_meta_gradient`.
        rate: the false-discovery rate, in (0, 1).

    Returns:
        A `Survey`.

    Raises:
        ValueError: no reports, or a rate outside (0, 1).

    >>> from gradbias.analytic import TabularMDP
    >>> from gradbias.stochastic import dice, from_surrogate, lvc
    >>> from gradbias.verification import measure_bias
    >>> mdp = TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.9, horizon=2)
    >>> both = [from_surrogate(each, order=2) for each in (dice, lvc)]
    >>> biases = survey([measure_bias(each, mdp, np.zeros((2, 2))) for each in both])
    >>> biases.verdict.value, biases.findings.tolist()
    ('BIASED', [False, True])
    """
    _check_reports(reports)
    real_number("rate", rate, low=1e-300, high=1.0 - 1e-9)
    sampled = np.array([report.interval is not None for report in reports])
    e_values = np.array([e_value_of(report) for report in reports])
    findings = np.isinf(e_values) & ~sampled
    findings[sampled] = e_benjamini_hochberg(e_values[sampled], rate)
    return Survey(tuple(reports), e_values, findings, rate)


def _check_reports(reports: object) -> None:
    known = isinstance(reports, Sequence) and all(isinstance(r, BiasReport) for r in reports)
    if not known or not reports:
        got = "none" if known else str(reports)
        raise ValueError(f"reports: expected at least one BiasReport in a list, got {got:.60}")


def e_value_of(report: BiasReport) -> float:
    """The e-value of a bias above the tolerance: of expectation at most 1 where there is none."""
    biased = report.verdict is Verdict.BIASED
    if report.interval is None:
        return math.inf if biased else 0.0
    if isinstance(report, SequentialReport) and report.e_value is not None:
        return report.e_value
    return 1.0 / report.false_alarm if biased and report.false_alarm else 0.0


def e_benjamini_hochberg(e_values: npt.ArrayLike, rate: float) -> BoolArray:
    """Which of K e-values are findings: the k largest, for the largest k whose k-th largest is at
    least K / (k rate). At most the share ``rate`` of these is false in expectation, however the
    e-values depend on each other.

    Source: Wang and Ramdas 2022, *False discovery rate control with e-values*.

    Raises:
        ValueError: negative e-values, or NaN.
    """
    e = np.asarray(e_values, dtype=np.float64)
    if e.ndim != 1 or not (e >= 0).all():
        raise ValueError(f"e_values: expected numbers >= 0, got {e.tolist()}")
    order = np.argsort(-e, kind="stable")
    ranks = np.arange(1, e.size + 1)
    passed = np.flatnonzero(e[order] * ranks * rate >= e.size)
    findings = np.zeros(e.size, dtype=np.bool_)
    findings[order[: 1 + int(passed.max(initial=-1))]] = True
    return findings
