"""`gradbias bounds --loop chain`: mixes of multi-step meta-gradients on the reward chain.

The chain is the paper's, of ten states with one discount each (all alike) and values of 0; the loss
is a mean over the states. The folder has results.csv, bounds.png, bounds.svg and command.txt.

Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, eq. (10) and App. B.1.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from gradbias.analytic.problems.reward_chains import ChainLearner, RewardChain
from gradbias.experiments.inputs.commands import Bounds, steps_of
from gradbias.experiments.reports.bound_figures import draw_mixtures
from gradbias.experiments.reports.study_folder import repeated_options, write_rows
from gradbias.verification.bounds.mixture_sweep import (
    MixtureRow,
    MixtureSweep,
    mixture_versus_bounds,
)

STATES = 10
DEFAULT_BATCH_SIZE = 32
SWEEPS = {
    "kappa": (MixtureSweep.KAPPA, (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0)),
    "K": (MixtureSweep.STEPS, (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)),
}
NOT_OF_A_CHAIN = (
    "npz",
    "gym",
    "random",
    "horizon",
    "start",
    "curvature",
    "env_option",
    "replications",
)
COLUMNS = ("bias", "bias_bound", "last_bias", "variance", "variance_bound", "last_variance")


def check_chain(command: Bounds) -> None:
    """Raises ValueError for what a chain does not have."""
    for name in NOT_OF_A_CHAIN:
        if getattr(command, name):
            raise ValueError(f"--{name.replace('_', '-')}: expected none with --loop chain")
    if command.theta != "random":
        raise ValueError("--theta: expected none with --loop chain")
    if command.sweep not in SWEEPS:
        raise ValueError(f"--sweep: expected kappa or K with --loop chain, got {command.sweep}")


def chain_rows(command: Bounds) -> tuple[MixtureRow, ...]:
    """The sweep that a command asks for. Raises ValueError for bad input."""
    check_chain(command)
    sweep, defaults = SWEEPS[command.sweep]
    batch_size = DEFAULT_BATCH_SIZE if command.batch_size is None else command.batch_size
    discount = 0.9 if command.discount is None else command.discount
    learner = ChainLearner(
        RewardChain.alternating(STATES),
        np.full(STATES, discount),
        np.zeros(STATES),
        command.step_size,
        1.0 / STATES,
        batch_size,
        batch_size,
    )
    values = command.values or defaults
    if sweep is MixtureSweep.STEPS:
        values = tuple(int(v) if float(v).is_integer() else v for v in values)
    asked: dict[str, Any] = {"sweep": sweep, "values": values}
    return mixture_versus_bounds(learner, **asked, steps=steps_of(command), kappa=command.kappa)


def write_chain(folder: Path, command: Bounds, rows: tuple[MixtureRow, ...]) -> None:
    """The folder. Raises OSError where it cannot be written."""
    options = ("loop", "sweep", "steps", "step_size", "batch_size", "discount", "kappa")
    arguments = ["gradbias", "bounds", *repeated_options(command, options)]
    write_rows(folder, arguments, rows, draw_mixtures(rows, SWEEPS[command.sweep][0]))


def told(command: Bounds, rows: tuple[MixtureRow, ...]) -> str:
    """The table, or one JSON object."""
    sweep = SWEEPS[command.sweep][0]
    if command.json:
        each = [dataclasses.asdict(row) for row in rows]
        return json.dumps({"sweep": sweep.value, "rows": each}, allow_nan=False)
    head = "".join(f"{name.replace('_', ' '):>16}" for name in COLUMNS)
    lines = [sweep.value, f"{'':>10}{head}   aligned and decreasing"]
    for row in rows:
        cells = "".join(f"{getattr(row, name):>16.3g}" for name in COLUMNS)
        value = row.kappa if sweep is MixtureSweep.KAPPA else row.steps
        lines.append(f"{value:>10g}{cells}   {'yes' if row.aligned and row.decreasing else 'no'}")
    return "\n".join(lines)
