"""The line of a user's program that is being executed."""

from __future__ import annotations

import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from types import FrameType

import numpy as np
import torch

_HERE = str(Path(__file__).parent)
_LIBRARIES = tuple(str(Path(module.__file__ or "").parent) for module in (torch, np))
_STANDARD = sysconfig.get_paths()["stdlib"]


@lru_cache(maxsize=4096)
def is_library(file: str) -> bool:
    """Whether a file is torch's, numpy's, the standard library's or this room's."""
    if file.startswith((*_LIBRARIES, _HERE, "<frozen")):
        return True
    return file.startswith(_STANDARD) and "site-packages" not in file


def program_line() -> tuple[str, int]:
    """File and line of the innermost frame that is no library's; ("", 0) if there is none.

    Code that was made from a string, as a dataclass's methods are, counts where there is no other.
    """
    frame: FrameType | None = sys._getframe(1)
    made = ("", 0)
    while frame is not None:
        file = frame.f_code.co_filename
        if not is_library(file):
            if file != "<string>":
                return file, frame.f_lineno
            made = made if made[0] else (file, frame.f_lineno)
        frame = frame.f_back
    return made
