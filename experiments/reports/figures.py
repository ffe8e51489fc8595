"""Pictures of a measured bias, drawn from its arrays."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from gradbias.analytic.utils.validation import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 5_000
MAX_ROWS = 60


def new_figure(width: float, height: float) -> Figure:
    """A new figure of a size in inches, without pyplot: no global state, and a shorter import."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def as_svg(figure: Figure) -> str:
    """The figure as an inline SVG element, the same for the same numbers."""
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "gradbias", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def draw_components(
    axes: Axes, exact: FloatArray, mean: FloatArray, label: str = "", marker: str = "o"
) -> None:
    """Draws the estimator's expectation over the exact value, one point for each component (the
    largest ones, if there are many).
    """
    x, y = exact.ravel(), mean.ravel()
    shown = np.flatnonzero((x != 0) | (y != 0))
    if len(shown) > MAX_POINTS:
        size = np.maximum(np.abs(x[shown]), np.abs(y[shown]))
        shown = shown[np.argpartition(-size, MAX_POINTS)[:MAX_POINTS]]
    axes.plot(x[shown], y[shown], marker, markersize=4, fillstyle="none", label=label or None)
    axes.axline((0.0, 0.0), slope=1.0, color="0.4", linewidth=0.8, zorder=0)
    axes.set_xlabel("exact")
    axes.set_ylabel("expected")


def state_action_bias(bias: FloatArray) -> tuple[FloatArray, str]:
    """A table ``[S, A]`` and its name: a gradient's bias, or the norms of the Hessian's rows."""
    if bias.ndim == 2:
        return bias, "bias"
    rows = np.sqrt((bias**2).reshape(*bias.shape[:2], -1).sum(axis=2))
    return rows, "norm of the Hessian's row of bias"


def draw_bias_map(axes: Axes, bias: FloatArray) -> None:
    """Draws a heat map of the bias over states and actions (the worst states, if many)."""
    table, name = state_action_bias(bias)
    states = np.flatnonzero(np.abs(table).max(axis=1) > 0)
    if len(states) == 0:
        states = np.arange(len(table))[:MAX_ROWS]
    elif len(states) > MAX_ROWS:
        size = np.abs(table[states]).max(axis=1)
        states = np.sort(states[np.argsort(-size)[:MAX_ROWS]])
    limit = float(np.abs(table).max()) or 1.0
    signed = bias.ndim == 2
    image = axes.imshow(
        table[states],
        aspect="auto",
        cmap="RdBu_r" if signed else "magma_r",
        vmin=-limit if signed else 0.0,
        vmax=limit,
        interpolation="nearest",
    )
    axes.set_xticks(np.arange(table.shape[1]))
    step = max(1, len(states) // 20)
    axes.set_yticks(np.arange(0, len(states), step), [str(s) for s in states[::step]])
    axes.set_xlabel("action")
    axes.set_ylabel("state")
    axes.set_title(name, fontsize=9)
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(image, ax=axes)
