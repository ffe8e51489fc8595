"""Files that a long run goes on from after it was killed: whole, or the one before.

A checkpoint is written under another name, synchronised to the disk, and renamed, so that at any
moment the file is a complete one. It holds arrays and one line of JSON; no pickle.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.numpy_files import read_npz

FORMAT = 1
_HEADER = "header"


def save_checkpoint(
    path: str | Path, arrays: Mapping[str, npt.NDArray[Any]], header: Mapping[str, Any]
) -> None:
    """Replaces the file by one with these ``arrays`` and this ``header`` (plain JSON)."""
    path = Path(path)
    text = json.dumps({"format": FORMAT, **header}, sort_keys=True)
    unfinished = path.with_name(path.name + ".unfinished")
    with open(unfinished, "wb") as stream:
        named: dict[str, Any] = {_HEADER: np.array(text), **arrays}
        np.savez(stream, **named)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(unfinished, path)
    _synchronise(path.parent)


def load_checkpoint(path: str | Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Arrays and header.

    Raises:
        ValueError: no such file, or none that `save_checkpoint` wrote.
    """
    arrays = read_npz(path)
    try:
        header = json.loads(str(arrays.pop(_HEADER)))
        fits = header["format"] == FORMAT
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"{path}: expected a checkpoint of format {FORMAT}; delete it to start")
    return arrays, header


def generator_state(rng: np.random.Generator) -> dict[str, Any]:
    """As plain JSON."""
    state: dict[str, Any] = json.loads(json.dumps(rng.bit_generator.state, default=_listed))
    return state


def restore_generator(rng: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Sets ``rng`` to a state that `generator_state` gave.

    Raises:
        ValueError: that of another kind of generator.
    """
    try:
        rng.bit_generator.state = _as_arrays(dict(state))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"rng: expected a generator of the checkpoint's kind ({error})") from None


def _listed(value: Any) -> Any:
    return value.tolist()


def _as_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_arrays(entry) for key, entry in value.items()}
    return np.array(value, dtype=np.uint64) if isinstance(value, list) else value


def _synchronise(folder: Path) -> None:
    """The rename itself, where folders can be synchronised."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
