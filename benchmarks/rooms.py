"""Draws docs/rooms.svg: the rooms and their allowed imports, from the contracts in pyproject.toml.

    python -m benchmarks.rooms [FILE]

writes FILE (default: docs/rooms.svg). A row of the picture is a layer of import-linter's contract
"rooms"; a package with a layers contract of its own is drawn with its rows inside its box. What a
contract forbids beside that is said below the rows. tests/project/test_rooms.py compares the file
with what this draws.
"""

from __future__ import annotations

import sys
import textwrap
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parents[1]
COLOURS = {
    "experiments": "#fbe3c0",
    "verification": "#cfe3f5",
    "stochastic": "#f6d0cf",
    "analytic": "#d5ead0",
}
WIDTH, LINE, GAP, MARGIN, PACKAGE_TITLE = 100.0, 3.0, 1.2, 8.0, 2.6
"""Lengths on the page, in hundredths of its width."""

Contracts = dict[str, dict[str, Any]]
Layers = list[list[str]]


def contracts(text: str) -> Contracts:
    """The import contracts of a pyproject.toml, by id."""
    return {one["id"]: one for one in tomllib.loads(text)["tool"]["importlinter"]["contracts"]}


def layers(contract: dict[str, Any]) -> Layers:
    """The rows of a layers contract, highest first; names in one row do not see each other."""
    return [[name.strip() for name in row.split("|")] for row in contract["layers"]]


def inner_layers(every: Contracts) -> dict[str, Layers]:
    """The rows inside those packages that have a layers contract of their own."""
    return {
        contract["containers"][0].removeprefix("gradbias."): layers(contract)
        for contract in every.values()
        if contract["type"] == "layers" and contract["containers"] != ["gradbias"]
    }


def notes(every: Contracts) -> list[str]:
    """A sentence for each contract that forbids imports."""
    sentences = []
    for contract in every.values():
        if contract["type"] != "forbidden":
            continue
        how = "itself import" if contract.get("allow_indirect_imports") else "import"
        roots = "" if contract.get("as_packages", True) else "names from the package roots "
        told = f"{_listed(contract['source_modules'])} may not {how} {roots}"
        sentences.append(told + _listed(contract["forbidden_modules"], "or") + ".")
    wrapped = [textwrap.wrap(text, 112, subsequent_indent="    ") for text in sentences]
    return [line for lines in wrapped for line in lines]


def _listed(modules: list[str], last: str = "and") -> str:
    """The modules in words: ``a, b and c``; a package stands for all that is in it."""
    names = [name.removeprefix("gradbias.").removesuffix(".**") for name in modules]
    return f" {last} ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def draw(every: Contracts) -> Figure:
    """The picture."""
    rows, inside = layers(every["rooms"]), inner_layers(every)
    heights = [max(_height(name, inside) for name in row) for row in rows]
    below = notes(every)
    total = sum(heights) + GAP * (len(rows) - 1) + 7.0 + 2.2 * len(below)
    figure = Figure(figsize=(8.5, 8.5 * total / WIDTH))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0.0, WIDTH), ylim=(total, 0.0))
    axes.axis("off")
    top = 3.0
    bottom = top + sum(heights) + GAP * (len(rows) - 1)
    arrow = {"arrowstyle": "-|>", "color": "0.4", "linewidth": 1.5}
    axes.annotate("", (MARGIN / 2, bottom), (MARGIN / 2, top), arrowprops=arrow)
    label = "a room may import the rooms below it, and none beside it"
    axes.text(MARGIN / 2 - 1.6, (top + bottom) / 2, label, rotation=90, ha="center", va="center")
    for row, height in zip(rows, heights, strict=True):
        _draw_row(axes, row, (MARGIN, top, WIDTH - MARGIN - 2.0, height), inside)
        top += height + GAP
    for k, line in enumerate(below):
        axes.text(MARGIN, top + 2.0 + 2.2 * k, line, fontsize=8, va="center", color="0.25")
    return figure


def _height(name: str, inside: dict[str, Layers]) -> float:
    """The height of a box: one line, or a title and the rows that stand inside it."""
    if name not in inside:
        return LINE
    return PACKAGE_TITLE + len(inside[name]) * (LINE + 0.6) + 0.6


def _draw_row(
    axes: Axes, row: list[str], where: tuple[float, ...], inside: dict[str, Layers]
) -> None:
    """The names of one row, beside each other in the rectangle ``(x, y, width, height)``."""
    x, y, width, height = where
    each = (width - GAP * (len(row) - 1)) / len(row)
    for k, name in enumerate(row):
        left = x + k * (each + GAP)
        colour = COLOURS[name.split(".")[0]]
        if name not in inside:
            _box(axes, (left, y, each, height), name, colour)
            continue
        _box(axes, (left, y, each, height), "", colour)
        axes.text(left + each / 2, y + PACKAGE_TITLE / 2 + 0.3, name, ha="center", va="center")
        inner = y + PACKAGE_TITLE + 0.3
        for names in inside[name]:
            part = (each - 1.2 * (len(names) + 1)) / len(names)
            for j, room in enumerate(names):
                _box(axes, (left + 1.2 + j * (part + 1.2), inner, part, LINE), room, "white")
            inner += LINE + 0.6


def _box(axes: Axes, where: tuple[float, ...], label: str, colour: str) -> None:
    x, y, width, height = where
    rounded = "round,pad=0,rounding_size=0.6"
    look = {"facecolor": colour, "edgecolor": "0.5", "linewidth": 0.8}
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=rounded, **look))
    axes.text(x + width / 2, y + height / 2, label, ha="center", va="center", fontsize=9)


def write(path: Path, every: Contracts) -> None:
    """Writes the picture as SVG, the same file for the same contracts."""
    with rc_context({"svg.hashsalt": "gradbias", "svg.fonttype": "none"}):
        draw(every).savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Writes the picture."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "rooms.svg"
    write(path, contracts((ROOT / "pyproject.toml").read_text()))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
