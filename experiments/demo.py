"""A demonstration: four built-in estimators and one from a user's file, on two environments.

    python -m gradbias.experiments.demo FOLDER

prints a table and writes FOLDER/overview.png, FOLDER/results.csv and a folder for each check.
"""

from __future__ import annotations

import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradbias.experiments.inputs.check import Checked, run_check
from gradbias.experiments.inputs.commands import Check
from gradbias.experiments.reports.check_folder import claim_folder, write_folder
from gradbias.experiments.reports.figures import draw_bias_map, draw_components, new_figure
from gradbias.verification.evidence.reports import BiasReport

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "my_estimator.py"
FLOOR = 1e-17
MARKERS = ("x", "o", "s", "+", "v")


@dataclass(frozen=True)
class DemoProblem:
    """A gymnasium environment, with a horizon that is long enough to reach a reward."""

    title: str
    gym: str
    horizon: int
    env_option: tuple[str, ...] = ()


PROBLEMS = (
    DemoProblem("FrozenLake, H = 6", "FrozenLake-v1", 6, ("is_slippery=False",)),
    DemoProblem("CliffWalking, H = 4", "CliffWalking-v1", 4),
)
BUILTINS = ("ad", "lvc", "dice", "loaded_dice")
ESTIMATORS = (*BUILTINS, f"{EXAMPLE}:surrogate")
ORDERS = {1: "gradient", 2: "Hessian"}


@dataclass(frozen=True, eq=False)
class DemoRow:
    """One check of the demo: the problem, the estimator's name and its report."""

    problem: DemoProblem
    estimator: str
    report: BiasReport


def run_demo(folder: Path) -> list[DemoRow]:
    """Runs all checks; each writes its own folder when it is done."""
    rows = []
    for problem in PROBLEMS:
        for name in ESTIMATORS:
            for order in ORDERS:
                checked, command = _check(problem, name, order)
                short = "my_estimator" if name not in BUILTINS else name
                where = f"{problem.gym}-{short}-{ORDERS[order]}".lower()
                write_folder(claim_folder(str(folder / where)), command, checked)
                rows.append(DemoRow(problem, short, checked.report))
                print(_table_line(rows[-1]), flush=True)
    return rows


def _check(problem: DemoProblem, name: str, order: int) -> tuple[Checked, Check]:
    command = Check(
        estimator=name,
        gym=problem.gym,
        env_option=problem.env_option,
        horizon=problem.horizon,
        discount=0.9,
        order=order,
    )
    return run_check(command), command


HEADER = (
    f"{'problem':<20} {'estimator':<13} {'target':<9} {'verdict':<9} "
    f"{'relative bias':>13} {'scale':>8} {'cosine':>7} {'deviation':>10}"
)


def _table_line(row: DemoRow) -> str:
    report, split = row.report, row.report.direction
    return (
        f"{row.problem.title:<20} {row.estimator:<13} {ORDERS[report.target.order]:<9} "
        f"{report.verdict.value:<9} {report.relative_bias:>13.3g} {split.scale:>8.3f} "
        f"{split.cosine:>7.3f} {report.deviation_per_trajectory:>10.4g}"
    )


def write_results(rows: list[DemoRow], path: Path) -> None:
    """Writes one line for each check, with every number of its report but the bias array."""
    tables: list[dict[str, Any]] = []
    for row in rows:
        summary = row.report.as_dict()
        tables.append(
            {"problem": row.problem.title} | {k: summary[k] for k in summary if k != "bias"}
        )
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(tables[0]))
        writer.writeheader()
        writer.writerows(tables)


def draw_overview(rows: list[DemoRow], path: Path) -> None:
    """Draws a row for each problem: relative biases, expected against exact Hessians, and a map of
    the bias of LVC's Hessian.
    """
    figure = new_figure(15.0, 4.2 * len(PROBLEMS))
    axes = figure.subplots(len(PROBLEMS), 3, squeeze=False)
    for (bars, points, heat), problem in zip(axes, PROBLEMS, strict=True):
        ours = [row for row in rows if row.problem is problem]
        _draw_bars(bars, ours, problem.title)
        hessians = [row for row in ours if row.report.target.order == 2]
        for row, marker in zip(hessians, MARKERS, strict=True):
            draw_components(points, row.report.exact, row.report.mean, row.estimator, marker)
        points.set_title("Hessian: exact against expected", fontsize=10)
        points.legend(fontsize=8)
        lvc = next(row for row in hessians if row.estimator == "lvc")
        draw_bias_map(heat, lvc.report.bias)
        heat.set_title("LVC's Hessian: " + heat.get_title(), fontsize=10)
    figure.savefig(path, dpi=110)


def _draw_bars(axes: Any, rows: list[DemoRow], title: str) -> None:
    names = list(dict.fromkeys(row.estimator for row in rows))
    for k, (order, label) in enumerate(ORDERS.items()):
        heights = [
            max(row.report.relative_bias, FLOOR) for row in rows if row.report.target.order == order
        ]
        places = [i + 0.38 * (k - 0.5) for i in range(len(names))]
        axes.bar(places, heights, width=0.36, label=label)
    axes.axhline(1e-9, color="0.3", linestyle="--", linewidth=0.8, label="rounding")
    axes.set_yscale("log")
    axes.set_ylim(FLOOR, 1e3)
    axes.set_xticks(range(len(names)), names, fontsize=9, rotation=12)
    axes.set_ylabel("relative bias")
    axes.set_title(f"{title}: bias of the expectation", fontsize=10)
    axes.legend(fontsize=8, loc="upper center", ncols=3)


def main() -> int:
    """Runs the demo into the folder that the command line names (default: demo)."""
    began = time.perf_counter()
    folder = claim_folder(sys.argv[1] if len(sys.argv) > 1 else "demo")
    print(HEADER)
    rows = run_demo(folder)
    write_results(rows, folder / "results.csv")
    draw_overview(rows, folder / "overview.png")
    print(
        f"\n{len(rows)} checks in {time.perf_counter() - began:.1f} s, all exact (by enumeration)."
    )
    print(
        f"The picture is {folder / 'overview.png'}, the numbers are in {folder / 'results.csv'}, "
        "and each check has a report in its own folder, such as "
        f"{folder / 'cliffwalking-v1-lvc-hessian'}/report.html."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
