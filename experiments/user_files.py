"""Estimators from a user's own file."""

from __future__ import annotations

import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any


def load_named(path: Path, name: str) -> Any:
    """The object called ``name`` in the Python file ``path``.

    The file's folder is appended to ``sys.path``, so that it can import its neighbours.

    Raises:
        ValueError: no such file, one that does not parse or raises on import (with its last line),
            no such name, or one that cannot be called.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    spec = spec_from_file_location(f"user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: expected a Python file (.py)")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    module = module_from_spec(spec)
    try:
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        last = traceback.format_exception_only(error)[-1].strip()
        raise ValueError(f"{path}: cannot be imported{_line_in(path, error)}: {last}") from None
    if not hasattr(module, name):
        raise ValueError(f"{path}: expected something called {name!r}, got none")
    found = getattr(module, name)
    if not callable(found) and not hasattr(found, "order"):
        raise ValueError(f"{path}: expected {name!r} to be callable, got {type(found).__name__}")
    return found


def _line_in(path: Path, error: BaseException) -> str:
    """Where in the user's file it went wrong."""
    if isinstance(error, SyntaxError):
        return f" (line {error.lineno})"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path
    ]
    return f" (line {lines[-1]})" if lines else ""
