"""Files that a long run is resumed from after it was killed.

A checkpoint is written under another name, synchronised to the disk, and renamed, so that the file
is complete at any moment. It holds arrays and one line of JSON, no pickle.
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
    """Replaces the file by one with these ``arrays`` and this ``header``, which is plain JSON."""
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
    """The arrays and the header of a checkpoint.

    Raises:
        ValueError: there is no such file, or `save_checkpoint` did not write it.
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
    """The generator's state, as plain JSON."""
    state: dict[str, Any] = json.loads(json.dumps(rng.bit_generator.state, default=_listed))
    return state


def restore_generator(rng: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Sets ``rng`` to a state that `generator_state` gave.

    Raises:
        ValueError: it is the state of another kind of generator.
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
    """Writes the rename to the disk, where folders can be synchronised."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
