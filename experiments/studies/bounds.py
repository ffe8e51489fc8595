"""`gradbias bounds`: a sweep of bounds beside the bias, as a table, a folder, or one JSON object.

The folder has results.csv, slopes.csv, bounds.png, bounds.svg, and what repeats it: command.txt,
problem.npz, theta.npy.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradbias.analytic.meta.bilevel import Lirpg, Maml
from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray
from gradbias.experiments.inputs.commands import Bounds, steps_of
from gradbias.experiments.inputs.problems import generators, load_problem, load_theta
from gradbias.experiments.reports.bound_figures import draw_sweep
from gradbias.experiments.reports.figures import as_svg
from gradbias.experiments.reports.study_folder import repeated_options, write_problem
from gradbias.experiments.studies.reused_batch import (
    linearised_rows,
    told_linearised,
    write_linearised,
)
from gradbias.experiments.studies.reward_chain_mixtures import chain_rows, told, write_chain
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
CURVATURES = {
    "exact": None,
    "dice": Curvature.DICE,
    "lvc": Curvature.LVC,
    "ad": Curvature.AD,
}
DEFAULT_BATCH_SIZE = 2


def run_bounds(command: Bounds) -> str:
    """Runs the sweep, leaves its folder, and returns what is printed.

    Raises:
        ValueError: bad input of any kind, in one sentence.
    """
    folder = None
    if command.out is not None:
        from gradbias.experiments.reports.check_folder import claim_folder  # here, for torch's sake

        folder = claim_folder(command.out)
    try:
        text = _RUNS.get(command.loop, _run_sweep)(command, folder)
    except BaseException:
        if folder is not None and not (folder / "command.txt").exists():
            from gradbias.experiments.reports.check_folder import abandon_folder

            abandon_folder(folder)
        raise
    return text if folder is None or command.json else f"{text}\n  written     {folder}"


def _run_sweep(command: Bounds, folder: Path | None) -> str:
    mdp, theta = problem_of(command)
    found = _swept(command, mdp, theta)
    if folder is not None:
        with _writing(folder):
            _write(folder, command, mdp, theta, found)
    if command.json:
        return json.dumps(_as_dict(found), allow_nan=False)
    return "\n".join([*_table(found), *_slope_lines(found)])


def _run_chain(command: Bounds, folder: Path | None) -> str:
    rows = chain_rows(command)
    if folder is not None:
        with _writing(folder):
            write_chain(folder, command, rows)
    return told(command, rows)


def _run_reuse(command: Bounds, folder: Path | None) -> str:
    mdp, theta = problem_of(command)
    rows = linearised_rows(command, mdp, theta)
    if folder is not None:
        with _writing(folder):
            write_linearised(folder, command, mdp, theta, rows)
    return told_linearised(command, rows)


_RUNS = {"chain": _run_chain, "reuse": _run_reuse}


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be written ({error})") from None


def sweep_of(command: Bounds) -> BoundSweep:
    """The sweep that a command asks for. Raises ValueError as `run_bounds`."""
    return _swept(command, *problem_of(command))


def problem_of(command: Bounds) -> tuple[TabularMDP, FloatArray]:
    """The problem and the logits that a command names. Raises ValueError as `run_bounds`."""
    problem_rng, policy_rng, _ = generators(command.seed)
    mdp = load_problem(command, problem_rng)
    if mdp.horizon is None:
        raise ValueError("--horizon: expected a number of steps, as whole trajectories are sampled")
    return mdp, load_theta(command.theta, mdp, policy_rng)


def _swept(command: Bounds, mdp: TabularMDP, theta: FloatArray) -> BoundSweep:
    if command.sweep == "kappa" or command.kappa is not None:
        option = "--sweep kappa" if command.sweep == "kappa" else "--kappa"
        raise ValueError(f"{option}: expected --loop chain, whose steps are mixed")
    sweep, defaults = SWEEPS[command.sweep]
    given: tuple[float, ...] = command.values or defaults
    values = [int(v) if sweep in _WHOLE and float(v).is_integer() else v for v in given]
    of_error = sweep is Sweep.HESSIAN_ERROR
    batch_size = command.batch_size
    if batch_size is None and not of_error:
        batch_size = DEFAULT_BATCH_SIZE
    name = command.curvature or ("ad" if of_error else "exact")
    if of_error and CURVATURES[name] is None:
        raise ValueError("--curvature: expected dice, lvc or ad, whose error is swept; got exact")
    asked: dict[str, Any] = {
        "steps": steps_of(command),
        "step_size": command.step_size,
    }
    asked |= {"batch_size": batch_size, "curvature": CURVATURES[name], "sweep": sweep}
    asked |= {"replications": command.replications}
    if command.loop == "maml":
        return bound_versus_empirical(Maml(mdp), theta, values=values, **asked)
    return bound_versus_empirical(Lirpg(mdp), 0.0 * theta, theta, values=values, **asked)


_WHOLE = (Sweep.STEPS, Sweep.BATCH_SIZE)


_REPEATED = ("loop", "sweep", "steps", "step_size", "batch_size", "curvature", "replications")


def _write(
    folder: Path, command: Bounds, mdp: TabularMDP, theta: FloatArray, found: BoundSweep
) -> None:
    arguments = ["gradbias", "bounds", *write_problem(folder, mdp, theta)]
    arguments += repeated_options(command, _REPEATED)
    (folder / "command.txt").write_text(shlex.join(arguments) + "\n")
    names = [field.name for field in dataclasses.fields(found.rows[0])]
    rows = [[_text(getattr(row, name)) for name in names] for row in found.rows]
    _write_csv(folder / "results.csv", [[*names, "looseness"]], rows, found)
    slopes = [[name, *map(_text, dataclasses.astuple(s))] for name, s in found.slopes.items()]
    _write_csv(folder / "slopes.csv", [["measure", "slope", "smallest", "largest"]], slopes)
    figure = draw_sweep(found)
    figure.savefig(folder / "bounds.png", dpi=150)
    (folder / "bounds.svg").write_text(as_svg(figure))


def _write_csv(
    path: Path, header: list[list[str]], rows: list[list[str]], found: BoundSweep | None = None
) -> None:
    if found is not None:
        loose = [_text(row.looseness) for row in found.rows]
        rows = [[*row, last] for row, last in zip(rows, loose, strict=True)]
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows([*header, *rows])


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(repr, value))
    return "" if value is None else repr(value)


def _as_dict(found: BoundSweep) -> dict[str, Any]:
    rows = [dataclasses.asdict(row) | {"looseness": row.looseness} for row in found.rows]
    rows = [{name: _finite(value) for name, value in row.items()} for row in rows]
    slopes = {name: dataclasses.asdict(slope) for name, slope in found.slopes.items()}
    return {"sweep": found.sweep.value, "rows": rows, "slopes": slopes}


def _finite(value: Any) -> Any:
    """None for what is infinite, which JSON has no word for."""
    return None if isinstance(value, float) and math.isinf(value) else value


def _table(found: BoundSweep) -> list[str]:
    head = f"{'bias':>24}" + "".join(f"{name.replace('_', ' '):>14}" for name in MEASURES[1:])
    lines = [f"{found.sweep.value}", f"{'':>10}{head}{'looseness':>12}"]
    for row in found.rows:
        cells = "".join(f"{_short(getattr(row, name)):>14}" for name in MEASURES[1:])
        cells = f"{_bias_text(row):>24}" + cells
        lines.append(f"{found.swept(row):>10g}{cells}{_short(row.looseness):>12}")
    if any(row.bias is None for row in found.rows):
        lines.append(
            "  bias -: batches too many to enumerate; --replications 10000 samples them instead"
        )
    return lines


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _bias_text(row: BoundRow) -> str:
    """The bias; a sampled one with half its interval's length."""
    if row.interval is None:
        return _short(row.bias)
    return f"{_short(row.bias)} +- {_short((row.interval[1] - row.interval[0]) / 2)}"


def _slope_lines(found: BoundSweep) -> list[str]:
    if not found.slopes:
        return []
    lines = ["slopes on log-log axes (and between neighbours)"]
    for name, slope in found.slopes.items():
        between = f"({slope.low:.2f} .. {slope.high:.2f})"
        lines.append(f"  {name.replace('_', ' '):12}{slope.value:>7.2f}  {between}")
    return lines
