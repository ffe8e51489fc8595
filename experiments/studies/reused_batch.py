"""`gradbias bounds --loop reuse`: one step whose trajectories are used again for its Hessian.

Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Sec. 3.4 and Prop. 6.2.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from gradbias.experiments.inputs.commands import Bounds
from gradbias.experiments.inputs.problems import load_loop_start
from gradbias.experiments.reports.study_folder import Panel, Study, StudyRow
from gradbias.verification.bounds.reused_batch import linearised_step_rows

DEFAULT_VALUES = (1.0, 2.0, 4.0, 8.0)
NOT_OF_ONE_STEP = ("batch_size", "curvature", "kappa", "replications")
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "everywhere": ("bound, any policy", {"color": "#7fb2e5", "marker": "v"}),
    "reachable": ("bound, reachable", {"color": "#0b5fa5", "marker": "^"}),
    "bias": ("exact bias", {"color": "black", "marker": "o", "lw": 3.0}),
    "leading": ("leading term", {"color": "#fdb863", "ls": "--"}),
}
TITLE = "One batch for step and Hessian, against E-MAML's objective"


def reused_batch_study(command: Bounds) -> Study:
    """The bias that one batch for step and Hessian leaves, beside its bounds, over N.

    Raises:
        ValueError: bad input of any kind, in one sentence.
    """
    mdp, theta = load_loop_start(command)
    command.refuse(NOT_OF_ONE_STEP)
    if command.sweep != "batch-size":
        raise ValueError(f"--sweep: expected batch-size with --loop reuse, got {command.sweep}")
    if command.steps not in (None, 1):
        raise ValueError(f"--steps: expected 1 with --loop reuse, got {command.steps}")
    sizes: Any = command.swept(DEFAULT_VALUES, integers=True)
    rows = linearised_step_rows(mdp, theta, step_size=command.step_size, batch_size=sizes)
    return Study(
        swept="trajectories N",
        rows=[StudyRow(row.batch_size, dataclasses.asdict(row)) for row in rows],
        columns=("bias", "leading", "reachable", "everywhere"),
        panels=[Panel(LINES, "trajectories N", TITLE)],
        notes=["Each batch is used for the step and for its Hessian."],
        problem=(mdp, theta),
    )
