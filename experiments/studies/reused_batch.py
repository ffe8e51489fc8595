"""`gradbias bounds --loop reuse`: one step whose trajectories are used again for its Hessian.

The folder has results.csv, bounds.png, bounds.svg, and what repeats it: command.txt, problem.npz,
theta.npy.

Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Sec. 3.4 and Prop. 6.2.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray
from gradbias.experiments.inputs.commands import Bounds
from gradbias.experiments.reports.bound_figures import draw_linearised
from gradbias.experiments.reports.study_folder import repeated_options, write_problem, write_rows
from gradbias.verification.bounds.reused_batch import LinearisedRow, linearised_step_rows

DEFAULT_VALUES = (1.0, 2.0, 4.0, 8.0)
COLUMNS = ("bias", "leading", "reachable", "everywhere")
NOT_OF_ONE_STEP = ("batch_size", "curvature", "kappa", "replications")


def linearised_rows(
    command: Bounds, mdp: TabularMDP, theta: FloatArray
) -> tuple[LinearisedRow, ...]:
    """The sweep that a command asks for. Raises ValueError for bad input."""
    for name in NOT_OF_ONE_STEP:
        if getattr(command, name):
            raise ValueError(f"--{name.replace('_', '-')}: expected none with --loop reuse")
    if command.sweep != "batch-size":
        raise ValueError(f"--sweep: expected batch-size with --loop reuse, got {command.sweep}")
    if command.steps not in (None, 1):
        raise ValueError(f"--steps: expected 1 with --loop reuse, got {command.steps}")
    asked = command.values or DEFAULT_VALUES
    values: list[Any] = [int(v) if float(v).is_integer() else v for v in asked]
    return linearised_step_rows(mdp, theta, step_size=command.step_size, batch_size=values)


def write_linearised(
    folder: Path,
    command: Bounds,
    mdp: TabularMDP,
    theta: FloatArray,
    rows: Sequence[LinearisedRow],
) -> None:
    """The folder. Raises OSError where it cannot be written."""
    arguments = ["gradbias", "bounds", *write_problem(folder, mdp, theta)]
    arguments += repeated_options(command, ("loop", "sweep", "step_size"))
    write_rows(folder, arguments, rows, draw_linearised(rows))


def told_linearised(command: Bounds, rows: Sequence[LinearisedRow]) -> str:
    """The table, or one JSON object."""
    if command.json:
        each = [dataclasses.asdict(row) for row in rows]
        return json.dumps({"sweep": "trajectories N", "rows": each}, allow_nan=False)
    head = "".join(f"{name:>14}" for name in COLUMNS)
    lines = ["trajectories N, used for the step and for its Hessian", f"{'':>10}{head}"]
    for row in rows:
        cells = "".join(f"{getattr(row, name):>14.3g}" for name in COLUMNS)
        lines.append(f"{row.batch_size:>10}{cells}")
    return "\n".join(lines)
