"""The picture of a sweep: the bias, its leading term, and the bounds, on log axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradbias.experiments.reports.figures import new_figure
from gradbias.verification.bounds.mixture_sweep import MixtureRow, MixtureSweep
from gradbias.verification.bounds.reused_batch import LinearisedRow
from gradbias.verification.bounds.sweep import BoundSweep, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "printed": ("eq. (9) as printed, constant 1", {"color": "#c1272d", "ls": ":", "marker": "x"}),
    "everywhere": ("Theorem 4.5 corrected, any policy", {"color": "#7fb2e5", "marker": "v"}),
    "corrected": ("Theorem 4.5 corrected, reachable", {"color": "#0b5fa5", "marker": "^"}),
    "second_order": ("second-order bound, reachable", {"color": "#1b7837", "marker": "s"}),
    "bias": ("exact bias", {"color": "black", "marker": "o", "lw": 3.0}),
    "leading": ("leading term", {"color": "#fdb863", "ls": "--"}),
}

_MIXTURE_LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "{}_bound": ("bound of the mix", {"color": "#0b5fa5", "marker": "^"}),
    "{}": ("mix, exact", {"color": "black", "marker": "o", "lw": 3.0}),
    "last_{}": ("n-step estimate alone, exact", {"color": "#fdb863", "ls": "--"}),
}

_AXES = {
    Sweep.STEPS: "inner steps K",
    Sweep.STEP_SIZE: "inner step size",
    Sweep.BATCH_SIZE: "trajectories a step, N",
    Sweep.HESSIAN_ERROR: "multiple of the Hessian's error",
}


def draw_sweep(found: BoundSweep) -> Figure:
    """All measures of a sweep in one panel, with their slopes beside their names."""
    figure = new_figure(7.2, 4.6)
    axes = figure.add_subplot()
    _draw(axes, found, slopes=True)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def draw_sweeps(several: Sequence[BoundSweep]) -> Figure:
    """A panel for each sweep, two beside each other, and one legend."""
    rows = -(-len(several) // 2)
    figure = new_figure(9.0, 3.2 * rows + 0.8)
    for k, found in enumerate(several):
        _draw(figure.add_subplot(rows, 2, k + 1), found, slopes=False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def draw_mixtures(rows: Sequence[MixtureRow], sweep: MixtureSweep) -> Figure:
    """Norms of biases beside deviations: of the mix, of the n-step estimate, and of the bound."""
    figure = new_figure(9.0, 3.8)
    of_kappa = sweep is MixtureSweep.KAPPA
    x = np.array([row.kappa if of_kappa else row.steps for row in rows], dtype=float)
    for panel, (name, title) in enumerate((("bias", "bias"), ("variance", "deviation"))):
        axes = figure.add_subplot(1, 2, panel + 1)
        for column, (label, look) in _MIXTURE_LOOKS.items():
            y = np.array([getattr(row, column.format(name)) for row in rows])
            axes.plot(x, np.sqrt(y) if name == "variance" else y, label=label, markersize=4, **look)
        axes.set_yscale("log")
        if not of_kappa:
            axes.set_xscale("log")
        axes.set_xlabel(sweep.value)
        axes.set_title(f"Norm of the {title}", fontsize=9)
        axes.grid(which="major", color="0.9", linewidth=0.6)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


_LINEARISED_LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "everywhere": ("bound, any policy", {"color": "#7fb2e5", "marker": "v"}),
    "reachable": ("bound, reachable", {"color": "#0b5fa5", "marker": "^"}),
    "bias": _LOOKS["bias"],
    "leading": _LOOKS["leading"],
}


def draw_linearised(rows: Sequence[LinearisedRow]) -> Figure:
    """The bias that one batch for step and Hessian leaves, beside its bounds, over N."""
    figure = new_figure(6.4, 4.0)
    axes = figure.add_subplot()
    x = np.array([row.batch_size for row in rows], dtype=float)
    for name, (label, look) in _LINEARISED_LOOKS.items():
        y = np.array([getattr(row, name) for row in rows])
        axes.plot(x, np.where(y > 0.0, y, np.nan), label=label, markersize=4, **look)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(_AXES[Sweep.BATCH_SIZE])
    axes.set_ylabel("norm")
    axes.set_title("One batch for step and Hessian, against E-MAML's objective", fontsize=9)
    axes.grid(which="major", color="0.9", linewidth=0.6)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _title(found: BoundSweep) -> str:
    first = found.rows[0]
    fixed = {
        Sweep.STEPS: f"K = {first.steps}",
        Sweep.STEP_SIZE: f"step size {first.step_size:g}",
        Sweep.BATCH_SIZE: "expected steps"
        if first.batch_size is None
        else f"N = {first.batch_size}",
    }
    fixed.pop(found.sweep, None)
    return "Bias of the meta-gradient: " + ", ".join(fixed.values())


def _draw(axes: Axes, found: BoundSweep, *, slopes: bool) -> None:
    x = np.array([found.swept(row) for row in found.rows])
    for name, (label, look) in _LOOKS.items():
        values = [getattr(row, name) for row in found.rows]
        y = np.array([np.nan if value is None else value for value in values], dtype=float)
        y[~((y > 0.0) & np.isfinite(y))] = np.nan
        if np.isnan(y).all():
            continue
        slope = found.slopes.get(name)
        text = label if slope is None or not slopes else f"{label}\nslope {slope.value:.2f}"
        axes.plot(x, y, label=text, markersize=4, **look)
    axes.set_yscale("log")
    if (x > 0.0).all() and found.sweep is not Sweep.STEPS:
        axes.set_xscale("log")
    if found.sweep is Sweep.STEPS:
        axes.set_xticks(x)
    axes.set_xlabel(_AXES[found.sweep])
    axes.set_ylabel("norm")
    axes.set_title(_title(found), fontsize=9)
    axes.grid(which="major", color="0.9", linewidth=0.6)
