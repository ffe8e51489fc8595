"""What the folders of `gradbias bounds` have in common."""

from __future__ import annotations

import csv
import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray
from gradbias.experiments.reports.figures import as_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_problem(folder: Path, mdp: TabularMDP, theta: FloatArray) -> list[str]:
    """problem.npz and theta.npy; returns the options that name them there. Raises OSError."""
    mdp.save(folder / "problem.npz")
    with open(folder / "theta.npy", "wb") as stream:
        np.save(stream, theta, allow_pickle=False)
    return ["--npz", "problem.npz", "--theta", "theta.npy"]


def write_rows(folder: Path, arguments: Sequence[str], rows: Sequence[Any], figure: Figure) -> None:
    """command.txt, results.csv (one line a row), bounds.png and bounds.svg. Raises OSError."""
    (folder / "command.txt").write_text(shlex.join(arguments) + "\n")
    names = [field.name for field in dataclasses.fields(rows[0])]
    with open(folder / "results.csv", "w", newline="") as stream:
        cells = [[_text(getattr(row, name)) for name in names] for row in rows]
        csv.writer(stream).writerows([names, *cells])
    figure.savefig(folder / "bounds.png", dpi=150)
    (folder / "bounds.svg").write_text(as_svg(figure))


def repeated_options(command: object, names: Sequence[str]) -> list[str]:
    """The options of these names that are given, and the swept values."""
    arguments = []
    for name in names:
        value = getattr(command, name)
        if value is not None:
            arguments += [f"--{name.replace('_', '-')}", str(value)]
    values = getattr(command, "values", ())
    return arguments + (["--values", *map(str, values)] if values else [])


def _text(value: object) -> str:
    return "" if value is None else repr(value)
