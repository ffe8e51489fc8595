"""`gradbias bounds`: the bias of a sampled meta-gradient beside its bounds, as one setting varies.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 5.1, Fig. 2.
"""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from gradbias.analytic.meta.bilevel import Lirpg, Maml
from gradbias.analytic.moments.estimators import Curvature
from gradbias.experiments.inputs.commands import Bounds
from gradbias.experiments.inputs.problems import load_loop_start
from gradbias.experiments.reports.study_folder import (
    Panel,
    Study,
    StudyRow,
    as_json,
    as_table,
    write_study,
)
from gradbias.experiments.studies.reused_batch import reused_batch_study
from gradbias.experiments.studies.reward_chain_mixtures import mixture_study
from gradbias.verification.bounds.sweep import (
    MEASURES,
    BoundRow,
    BoundSweep,
    Sweep,
    bound_versus_empirical,
)

SWEEPS = {
    "K": (Sweep.STEPS, (1.0, 2.0, 3.0, 4.0)),
    "step-size": (Sweep.STEP_SIZE, (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)),
    "batch-size": (Sweep.BATCH_SIZE, (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)),
    "hessian-error": (Sweep.HESSIAN_ERROR, (0.001, 0.01, 0.1, 0.3, 1.0, 3.0)),
}
DEFAULT_BATCH_SIZE = 2
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "printed": ("eq. (9) as printed, constant 1", {"color": "#c1272d", "ls": ":", "marker": "x"}),
    "everywhere": ("Theorem 4.5 corrected, any policy", {"color": "#7fb2e5", "marker": "v"}),
    "corrected": ("Theorem 4.5 corrected, reachable", {"color": "#0b5fa5", "marker": "^"}),
    "second_order": ("second-order bound, reachable", {"color": "#1b7837", "marker": "s"}),
    "bias": ("exact bias", {"color": "black", "marker": "o", "lw": 3.0}),
    "leading": ("leading term", {"color": "#fdb863", "ls": "--"}),
}


def run_bounds(command: Bounds) -> str:
    """Runs the study that a command asks for, writes its folder, and returns what is printed.

    Raises:
        ValueError: bad input of any kind, in one sentence.
    """
    with _claimed(command.out) as folder:
        study = study_of(command)
        if folder is not None:
            write_study(folder, study, ["bounds", *command.repeated()])
    if command.json:
        return as_json(study)
    return as_table(study) if folder is None else f"{as_table(study)}\n  written     {folder}"


def _claimed(out: str | None) -> AbstractContextManager[Path | None]:
    if out is None:
        return nullcontext()
    from gradbias.experiments.reports.check_folder import claimed  # here, as it imports torch

    return claimed(out)


def study_of(command: Bounds) -> Study:
    """The study that a command asks for. Raises ValueError as `run_bounds`."""
    studies = {"chain": mixture_study, "reuse": reused_batch_study}
    return studies.get(command.loop, sweep_study)(command)


def sweep_study(command: Bounds) -> Study:
    """A sweep of a MAML or LIRPG loop. Raises ValueError as `run_bounds`."""
    mdp, theta = load_loop_start(command)
    if command.sweep == "kappa" or command.kappa is not None:
        option = "--sweep kappa" if command.sweep == "kappa" else "--kappa"
        raise ValueError(f"{option}: expected --loop chain, whose steps are mixed")
    sweep, defaults = SWEEPS[command.sweep]
    of_error = sweep is Sweep.HESSIAN_ERROR
    name = command.curvature or ("ad" if of_error else "exact")
    if of_error and name == "exact":
        raise ValueError("--curvature: expected dice, lvc or ad, whose error is swept; got exact")
    batch_size = command.batch_size
    if batch_size is None and not of_error:
        batch_size = DEFAULT_BATCH_SIZE
    maml = command.loop == "maml"
    result = bound_versus_empirical(
        Maml(mdp) if maml else Lirpg(mdp),
        theta if maml else 0.0 * theta,
        None if maml else theta,
        sweep=sweep,
        values=command.swept(defaults, integers=sweep in (Sweep.STEPS, Sweep.BATCH_SIZE)),
        steps=command.inner_steps,
        step_size=command.step_size,
        batch_size=batch_size,
        curvature=None if name == "exact" else Curvature[name.upper()],
        replications=command.replications,
    )
    notes = []
    if any(row.bias is None for row in result.rows):
        notes = ["bias -: batches too many to enumerate; --replications 10000 samples them instead"]
    return Study(
        swept=sweep.label,
        rows=[_row(result, row) for row in result.rows],
        columns=(*MEASURES, "looseness"),
        panels=[Panel(LINES, sweep.label, _title(result), log_x=sweep is not Sweep.STEPS)],
        slopes=result.slopes,
        notes=notes,
        problem=(mdp, theta),
    )


def _row(result: BoundSweep, row: BoundRow) -> StudyRow:
    values = dataclasses.asdict(row) | {"looseness": row.looseness}
    intervals = {} if row.interval is None else {"bias": row.interval}
    return StudyRow(result.swept(row), values, intervals)


def _title(result: BoundSweep) -> str:
    """The settings of the loop that are not varied."""
    first = result.rows[0]
    n = "expected steps" if first.batch_size is None else f"N = {first.batch_size}"
    settings = {
        Sweep.STEPS: f"K = {first.steps}",
        Sweep.STEP_SIZE: f"step size {first.step_size:g}",
        Sweep.BATCH_SIZE: n,
    }
    fixed = [text for setting, text in settings.items() if setting is not result.sweep]
    return "Bias of the meta-gradient: " + ", ".join(fixed)
