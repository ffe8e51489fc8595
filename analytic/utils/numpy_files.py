"""Reading numpy's files, without pickle, with one clear error for whatever is wrong with them."""

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
    found = _load(Path(path), "an npz archive of plain arrays")
    if isinstance(found, dict):
        return found
    raise ValueError(f"{path}: expected an npz archive of plain arrays: it holds a single array")


def read_npy(path: str | Path) -> Array:
    """The array of an npy file.

    Raises:
        ValueError: no such file, or not a plain array.
    """
    found = _load(Path(path), "an npy array")
    if isinstance(found, dict):
        raise ValueError(f"{path}: expected an npy array: it is an archive")
    return found


def _load(path: Path, wanted: str) -> Array | dict[str, Array]:
    try:
        # Opened here: numpy leaves its own file open where reading fails.
        with open(path, "rb") as stream:
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            arrays = {name: found[name] for name in found.files}
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except Exception as error:  # files can be broken in more ways than numpy has names for
        raise ValueError(f"{path}: expected {wanted}: {_reason(path, error)}") from None
    members: dict[str, object] = dict(arrays)
    strange = [name for name, array in members.items() if not isinstance(array, np.ndarray)]
    if strange:
        raise ValueError(f"{path}: expected {wanted}: {strange[0]} is none")
    return arrays


def _reason(path: Path, error: Exception) -> str:
    """Why numpy could not read a file, in words; it takes all that it does not know for pickles."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "pickle" not in said:
        return said
    with open(path, "rb") as stream:
        head = stream.read(2)
    known = head[:1] == b"\x80" or head in (b"PK", b"\x93N")
    return "it holds pickled data" if known else "it is not one"
