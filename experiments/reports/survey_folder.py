"""`gradbias survey`: several estimators on one problem, and which of their biases are findings.

The folder has survey.csv, survey.json, survey.png, survey.svg, and for each estimator the folder of
a `gradbias check`, written as soon as its report is there.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradbias.analytic.utils.validation import real_number
from gradbias.experiments.inputs.check import check_name
from gradbias.experiments.inputs.commands import Survey
from gradbias.experiments.reports.check_folder import claimed, written_check
from gradbias.experiments.reports.figures import as_svg, new_figure
from gradbias.verification.evidence.reports import BiasReport
from gradbias.verification.sequential.stream import Stopped
from gradbias.verification.sequential.surveys import Survey as SurveyResult
from gradbias.verification.sequential.surveys import survey
from gradbias.verification.sequential.verdict import SequentialReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALLEST_SHOWN = 1e-6
MIN_RATE = 1e-12
COLOURS = {
    "UNBIASED": "#2a7d3f",
    "BIASED": "#b3261e",
    "UNDECIDED": "#9a6700",
    "VACUOUS": "#777777",
}


def run_survey(command: Survey) -> SurveyResult:
    """Runs all checks one after the other and judges them together. If sequential evidence is
    interrupted, the survey ends with that report.

    Raises:
        ValueError: bad input of any kind, in one sentence.
    """
    checks = command.checks()
    real_number("--false-discovery", command.false_discovery, low=MIN_RATE, high=0.5)
    for name in command.estimators:
        check_name(name)
    with claimed(command.out) as folder:
        reports: list[BiasReport] = []
        for check in checks:
            reports.append(written_check(check)[0].report)
            if is_interrupted(reports[-1]):
                break
        result = survey(reports, command.false_discovery)
    if folder is not None:
        try:
            _write(folder, result)
        except OSError as error:
            raise ValueError(f"--out {folder}: cannot be written ({error})") from None
    return result


def is_interrupted(report: BiasReport) -> bool:
    """Whether sampling was interrupted by the user."""
    return isinstance(report, SequentialReport) and report.stopped is Stopped.INTERRUPTED


def _write(folder: Path, result: SurveyResult) -> None:
    (folder / "survey.json").write_text(json.dumps(result.as_dict(), allow_nan=False) + "\n")
    with open(folder / "survey.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["estimator", "target", "verdict", "relative_bias", *_MORE])
        for row in result.as_dict()["reports"]:
            low, high = row["relative_interval"] or (row["relative_bias"],) * 2
            bias = [repr(x) for x in (row["relative_bias"], low, high)]
            more = [row["evidence"], row["samples"], row["survey_e_value"], row["finding"]]
            rows.writerow([row["estimator"], row["target"], row["verdict"], *bias, *more])
    figure = draw_survey(result)
    figure.savefig(folder / "survey.png", dpi=150)
    (folder / "survey.svg").write_text(as_svg(figure))


_MORE = ("low", "high", "evidence", "samples", "e_value", "finding")


def draw_survey(result: SurveyResult) -> Figure:
    """Each estimator's relative bias with its interval; a ring around each finding."""
    figure = new_figure(7.2, 1.6 + 0.32 * len(result.reports))
    axes = figure.add_subplot()
    for k, report in enumerate(result.reports):
        low, high = _ends(report)
        colour = COLOURS[report.verdict.value]
        axes.plot([max(low, SMALLEST_SHOWN), max(high, SMALLEST_SHOWN)], [k, k], color=colour)
        middle = report.relative_bias
        marker = "o" if middle > SMALLEST_SHOWN else "<"
        axes.plot(max(middle, SMALLEST_SHOWN), k, marker, color=colour)
        if result.findings[k]:
            axes.plot(max(middle, SMALLEST_SHOWN), k, "o", ms=11, mfc="none", color=colour)
    for tolerance in {report.tolerance for report in result.reports if report.interval is not None}:
        axes.axvline(tolerance, color="0.6", lw=0.8, ls="--")
    axes.set_xscale("log")
    axes.set_yticks(np.arange(len(result.reports)), [r.estimator for r in result.reports])
    axes.set_ylim(len(result.reports) - 0.4, -0.6)
    axes.set_xlabel(f"relative bias (<: at most {SMALLEST_SHOWN:g}; with a ring: a finding)")
    return figure


def _ends(report: BiasReport) -> tuple[float, float]:
    if report.interval is None:
        return report.relative_bias, report.relative_bias
    low, high = report.relative_interval
    return low, high
