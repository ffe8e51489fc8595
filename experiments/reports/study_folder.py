"""The output of a study: a table, one JSON object, or a folder with numbers and a picture.

A study varies one quantity and returns a `Study`: its rows and what is shown of them. This module
does the rest. The folder has results.csv (one line a row), slopes.csv (if slopes were fitted), the
picture as PNG and SVG, and what repeats the study: command.txt and, if there is a problem,
problem.npz and theta.npy.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray
from gradbias.experiments.reports.figures import as_svg, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradbias.verification.bounds.sweep import Slope


@dataclass(frozen=True)
class StudyRow:
    """The results for one value of the varied quantity.

    Attributes:
        swept: that value.
        values: settings and measures by name, in the order of the columns of results.csv; None
            where one is unknown.
        intervals: the ends of the confidence interval of each sampled measure.
    """

    swept: float
    values: Mapping[str, Any]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """A value as the table shows it: a sampled one with half its interval's length."""
        value = self.values[name]
        if isinstance(value, bool):
            return "yes" if value else "no"
        text = "-" if value is None else f"{value:.3g}"
        if name not in self.intervals:
            return text
        low, high = self.intervals[name]
        return f"{text} +- {(high - low) / 2:.3g}"


@dataclass(frozen=True)
class Panel:
    """One panel of the picture, over the varied quantity.

    Attributes:
        lines: for each measure that is drawn, its label and matplotlib's options of its line.
        x_label, y_label, title: the texts of the panel.
        log_x: whether the horizontal axis is logarithmic (the vertical one always is).
        transform: a function of the measures that is drawn in their place.
    """

    lines: Mapping[str, tuple[str, Mapping[str, Any]]]
    x_label: str
    title: str
    y_label: str = "norm"
    log_x: bool = True
    transform: Callable[[FloatArray], FloatArray] = np.asarray


@dataclass(frozen=True)
class Study:
    """A study that has been run, and what is shown of it.

    Attributes:
        swept: the varied quantity, in words.
        rows: the results.
        columns: the measures in the table, in order.
        panels: the panels of the picture.
        slopes: the slopes of measures on log-log axes, if they were fitted.
        notes: sentences printed below the table.
        problem: the problem and the logits that the study was run with, if there are any.
        name: the name of the picture's files.
    """

    swept: str
    rows: Sequence[StudyRow]
    columns: Sequence[str]
    panels: Sequence[Panel]
    slopes: Mapping[str, Slope] | None = None
    notes: Sequence[str] = ()
    problem: tuple[TabularMDP, FloatArray] | None = None
    name: str = "bounds"


def as_table(study: Study) -> str:
    """The study as text: a line for each row, the slopes, and the notes."""
    cells = [["", *(name.replace("_", " ") for name in study.columns)]]
    cells += [[f"{r.swept:g}", *(r.text(name) for name in study.columns)] for r in study.rows]
    widths = [max(10, *map(len, column)) + 2 for column in zip(*cells, strict=True)]
    lines = [study.swept]
    for row in cells:
        lines.append("".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)))
    lines += [f"  {note}" for note in study.notes]
    if study.slopes:
        lines.append("slopes on log-log axes (and the range between neighbouring points)")
    for name, slope in (study.slopes or {}).items():
        between = f"({slope.low:.2f} .. {slope.high:.2f})"
        lines.append(f"  {name.replace('_', ' '):12}{slope.value:>7.2f}  {between}")
    return "\n".join(lines)


def as_json(study: Study) -> str:
    """The study as one JSON object. JSON has no word for infinity: such numbers are null."""
    rows = [{name: _finite(value) for name, value in row.values.items()} for row in study.rows]
    slopes = {name: dataclasses.asdict(slope) for name, slope in (study.slopes or {}).items()}
    fitted = {} if study.slopes is None else {"slopes": slopes}
    return json.dumps({"sweep": study.swept, "rows": rows} | fitted, allow_nan=False)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and math.isinf(value) else value


def write_study(folder: Path, study: Study, arguments: Sequence[str]) -> None:
    """Writes the folder; ``arguments`` are the command line without the problem's options.

    Raises:
        ValueError: the folder cannot be written.
    """
    try:
        if study.problem is not None:
            mdp, theta = study.problem
            mdp.save(folder / "problem.npz")
            with open(folder / "theta.npy", "wb") as stream:
                np.save(stream, theta, allow_pickle=False)
            arguments = [*arguments, "--npz", "problem.npz", "--theta", "theta.npy"]
        (folder / "command.txt").write_text(shlex.join(["gradbias", *arguments]) + "\n")
        rows = [list(study.rows[0].values), *(list(row.values.values()) for row in study.rows)]
        _write_csv(folder / "results.csv", rows)
        if study.slopes is not None:
            slopes = [[name, *dataclasses.astuple(s)] for name, s in study.slopes.items()]
            header = ["measure", "slope", "smallest", "largest"]
            _write_csv(folder / "slopes.csv", [header, *slopes])
        figure = draw_studies([study])
        figure.savefig(folder / f"{study.name}.png", dpi=150)
        (folder / f"{study.name}.svg").write_text(as_svg(figure))
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be written ({error})") from None


def _write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Every float in full, nothing for None, and the ends of an interval beside each other."""
    with open(path, "w", newline="") as stream:
        for row in rows:
            csv.writer(stream).writerow([_cell(value) for value in row])


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(repr, value))
    return "" if value is None else value if isinstance(value, str) else repr(value)


def draw_studies(studies: Sequence[Study]) -> Figure:
    """The panels of all studies with one legend: a single panel's has the slopes, several panels
    stand two in a row.
    """
    panels = [(study, panel) for study in studies for panel in study.panels]
    alone, rows = len(panels) == 1, -(-len(panels) // 2)
    figure = new_figure(7.2, 4.6) if alone else new_figure(9.0, 3.2 * rows + 0.8)
    for k, (study, panel) in enumerate(panels):
        axes = figure.add_subplot() if alone else figure.add_subplot(rows, 2, k + 1)
        _draw(axes, study.rows, panel, study.slopes or {} if alone else {})
    handles, labels = figure.axes[0].get_legend_handles_labels()
    style: dict[str, Any] = {"fontsize": 8, "frameon": False}
    if alone:
        figure.legend(handles, labels, loc="outside right upper", **style)
    else:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, **style)
    return figure


def _draw(axes: Axes, rows: Sequence[StudyRow], panel: Panel, slopes: Mapping[str, Slope]) -> None:
    x = np.array([row.swept for row in rows])
    for name, (label, style) in panel.lines.items():
        values = [row.values[name] for row in rows]
        y = panel.transform(np.array([np.nan if v is None else v for v in values], dtype=float))
        y = np.where((y > 0.0) & np.isfinite(y), y, np.nan)  # what a logarithmic axis can show
        if np.isnan(y).all():
            continue
        text = f"{label}\nslope {slopes[name].value:.2f}" if name in slopes else label
        (line,) = axes.plot(x, y, label=text, markersize=4, **style)
        if any(name in row.intervals for row in rows):
            ends = [row.intervals.get(name, (np.nan, np.nan)) for row in rows]
            low, high = panel.transform(np.array(ends).T)
            lengths = np.array([y - low, high - y])
            axes.errorbar(x, y, yerr=lengths, fmt="none", ecolor=line.get_color())
    axes.set_yscale("log")
    if panel.log_x and (x > 0.0).all():
        axes.set_xscale("log")
    elif (x == np.round(x)).all():
        axes.locator_params(axis="x", integer=True)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.set_title(panel.title, fontsize=9)
    axes.grid(which="major", color="0.9", linewidth=0.6)
