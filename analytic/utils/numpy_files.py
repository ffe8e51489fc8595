"""Readers of numpy's files, without pickle; whatever is wrong with a file is one ValueError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def read_npz(path: str | Path) -> dict[str, Array]:
    """The arrays of an npz archive by name.

    Raises:
        ValueError: no such file, or not an archive of plain arrays.
    """
    content = _load(Path(path), "an npz archive of plain arrays")
    if isinstance(content, dict):
        return content
    raise ValueError(f"{path}: expected an npz archive of plain arrays: it holds a single array")


def read_npy(path: str | Path) -> Array:
    """The array of an npy file.

    Raises:
        ValueError: no such file, or not a plain array.
    """
    content = _load(Path(path), "an npy array")
    if isinstance(content, dict):
        raise ValueError(f"{path}: expected an npy array: it is an archive")
    return content


def _load(path: Path, wanted: str) -> Array | dict[str, Array]:
    try:
        # Opened here, because numpy leaves a file that it opened itself open where reading fails.
        with open(path, "rb") as stream:
            content = np.load(stream, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            arrays = {name: content[name] for name in content.files}
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except Exception as error:  # files can be broken in more ways than numpy has names for
        raise ValueError(f"{path}: expected {wanted}: {_reason(path, error)}") from None
    members: dict[str, object] = dict(arrays)
    others = [name for name, array in members.items() if not isinstance(array, np.ndarray)]
    if others:
        raise ValueError(f"{path}: expected {wanted}: {others[0]} is no array")
    return arrays


def _reason(path: Path, error: Exception) -> str:
    """Why numpy could not read a file, in words; numpy calls every unknown format a pickle."""
    message = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "pickle" not in message:
        return message
    with open(path, "rb") as stream:
        head = stream.read(2)
    known = head[:1] == b"\x80" or head in (b"PK", b"\x93N")
    return "it holds pickled data" if known else "it is not one"
