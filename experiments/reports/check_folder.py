"""The folder of a check: its data, and a page that is drawn from the data.

The files are report.html (the page), report.json (the verdict and its numbers), components.csv,
arrays.npz (mean, exact, variance), and what repeats the check: command.txt, problem.npz, theta.npy,
critic.npy and the user's file.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import platform
import shlex
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from gradbias.analytic.utils.numpy_files import read_npz
from gradbias.analytic.utils.validation import FloatArray
from gradbias.experiments.inputs.check import Checked, run_check
from gradbias.experiments.inputs.commands import Check
from gradbias.experiments.reports.figures import as_svg, draw_bias_map, draw_components, new_figure
from gradbias.verification.evidence.reports import largest_components

PACKAGES = ("gradbias", "numpy", "scipy", "torch", "gymnasium", "matplotlib")


def written_check(command: Check) -> tuple[Checked, Path | None]:
    """Runs a check; returns it with the path of its page, if a folder was asked for.

    Raises:
        ValueError: bad input of any kind, in one sentence.
    """
    with claimed(command.out) as folder:
        checked = run_check(command)
    return checked, None if folder is None else write_folder(folder, command, checked)


@contextlib.contextmanager
def claimed(name: str | None) -> Iterator[Path | None]:
    """A context with a folder that exists; an error in it removes the folder again, if empty."""
    folder = None if name is None else claim_folder(name)
    try:
        yield folder
    except BaseException:
        if folder is not None:
            abandon_folder(folder)
        raise


def claim_folder(name: str) -> Path:
    """Makes the folder and tries to write to it. Raises ValueError if that fails."""
    if not name:
        raise ValueError("--out: expected a folder, got an empty name")
    folder = Path(name).absolute()
    trial = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise ValueError(f"--out {name}: cannot be written ({error.strerror})") from None
    return folder


def abandon_folder(folder: Path) -> None:
    """Removes the folder, if there is nothing in it."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def write_folder(folder: Path, command: Check, checked: Checked) -> Path:
    """Writes everything and returns the page's path. Raises ValueError where that fails."""
    try:
        return _write_folder(folder, command, checked)
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be written ({error})") from None


def _write_folder(folder: Path, command: Check, checked: Checked) -> Path:
    report = checked.report
    summary = {key: value for key, value in report.as_dict().items() if key != "bias"}
    summary["text"] = str(report)
    summary["versions"] = {name: version(name) for name in PACKAGES}
    summary["python"] = platform.python_version()
    summary["command"] = shlex.join(["gradbias", *_repeated_arguments(command, checked)])
    arrays = {"mean": report.mean, "exact": report.exact, "variance": report.variance}
    _replace(folder / "arrays.npz", lambda path: _save_arrays(path, arrays))
    _replace(folder / "problem.npz", checked.setting.mdp.save)
    _replace(folder / "theta.npy", lambda path: _save_array(path, checked.setting.theta))
    (folder / "critic.npy").unlink(missing_ok=True)
    critic = checked.setting.critic
    if critic is not None:
        _replace(folder / "critic.npy", lambda path: _save_array(path, critic))
    _copy_sources(folder, checked.sources)
    write_text(folder / "command.txt", summary["command"] + "\n")
    _replace(folder / "components.csv", lambda path: write_components(path, **arrays))
    write_text(folder / "report.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    return draw_again(str(folder))


def _copy_sources(folder: Path, sources: tuple[Path, ...]) -> None:
    """Copies the user's file, and its neighbours to the same relative places."""
    for source in sources:
        copy = folder / source.relative_to(sources[0].parent)
        if copy.absolute() != source:
            copy.parent.mkdir(parents=True, exist_ok=True)
            _replace(copy, partial(shutil.copyfile, source))


def draw_again(name: str) -> Path:
    """Draws report.html from a folder's data. Raises ValueError if the data are not there."""
    folder = Path(name)
    try:
        page = _page(folder)
    except Exception as error:  # files are missing, or hold something else
        raise ValueError(
            f"{name}: expected the folder of a check ({type(error).__name__}: {error})"
        ) from None
    try:
        write_text(folder / "report.html", page)
    except OSError as error:
        raise ValueError(f"{folder / 'report.html'}: cannot be written ({error})") from None
    return folder / "report.html"


def _page(folder: Path) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    summary = json.loads((folder / "report.json").read_text())
    stored = read_npz(folder / "arrays.npz")
    arrays = {key: stored[key] for key in ("mean", "exact", "variance")}
    pages = Environment(
        loader=PackageLoader("gradbias.experiments.reports"),
        autoescape=select_autoescape(),
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    return pages.get_template("report.html").render(
        summary=summary,
        components=_components_figure(arrays),
        bias_map=_bias_map_figure(arrays),
        worst=_worst_rows(arrays),
    )


def _components_figure(arrays: dict[str, FloatArray]) -> str:
    figure = new_figure(4.6, 4.2)
    draw_components(figure.add_subplot(), arrays["exact"], arrays["mean"])
    return as_svg(figure)


def _bias_map_figure(arrays: dict[str, FloatArray]) -> str:
    figure = new_figure(5.2, 4.2)
    draw_bias_map(figure.add_subplot(), arrays["mean"] - arrays["exact"])
    return as_svg(figure)


def _worst_rows(arrays: dict[str, FloatArray], count: int = 12) -> list[dict[str, Any]]:
    bias = arrays["mean"] - arrays["exact"]
    return [
        {
            "index": ", ".join(str(i) for i in index),
            "exact": arrays["exact"][index],
            "mean": arrays["mean"][index],
            "bias": bias[index],
            "deviation": np.sqrt(arrays["variance"][index]),
        }
        for index in largest_components(bias, count)
    ]


def write_components(path: Path, mean: FloatArray, exact: FloatArray, variance: FloatArray) -> None:
    """Writes a row for each component that is not 0 throughout: its indices, the exact and the
    expected value, the bias, and the standard deviation of one estimate.
    """
    names = [f"{kind}{k or ''}" for k in range(exact.ndim // 2) for kind in ("state", "action")]
    shown = np.argwhere((mean != 0) | (exact != 0) | (variance != 0))
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*names, "exact", "expected", "bias", "standard_deviation"])
        for index in map(tuple, shown):
            numbers = exact[index], mean[index], mean[index] - exact[index], variance[index] ** 0.5
            writer.writerow([*index, *(repr(float(number)) for number in numbers)])


_REPEATED = (
    *("seed", "length", "order", "batch_size", "evidence", "bounds", "second_moment"),
    *("tolerance", "false_alarm", "budget"),
)


def _repeated_arguments(command: Check, checked: Checked) -> list[str]:
    """The command line that repeats the check from inside the folder."""
    estimator = command.estimator
    if checked.sources:
        estimator = f"./{checked.sources[0].name}:{estimator.rpartition(':')[2]}"
    arguments = ["check", estimator, "--npz", "problem.npz", "--theta", "theta.npy"]
    if checked.setting.critic is not None:
        arguments += ["--critic", "critic.npy"]
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if field.name in _REPEATED and value != field.default:
            values = value if isinstance(value, tuple) else (value,)
            arguments += [f"--{field.name.replace('_', '-')}", *map(str, values)]
    return arguments


def _save_arrays(path: Path, arrays: dict[str, FloatArray]) -> None:
    with open(path, "wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def _save_array(path: Path, array: FloatArray) -> None:
    with open(path, "wb") as stream:
        np.save(stream, array, allow_pickle=False)


def write_text(path: Path, text: str) -> None:
    """Writes a file of text, so that no reader sees half of it. Raises OSError."""
    _replace(path, lambda temporary: temporary.write_text(text))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Writes under a temporary name, then renames, so that no reader sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
