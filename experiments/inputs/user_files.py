"""Estimators from a user's own file."""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True, eq=False)
class UserFile:
    """A Python file that was run as a module; ``before`` are the names of the modules that had been
    imported before it ran.
    """

    path: Path
    module: ModuleType
    before: frozenset[str]

    @property
    def sources(self) -> tuple[Path, ...]:
        """The file and the neighbours that it has imported by now: all that is needed to run it
        elsewhere.
        """
        return (self.path, *_neighbours(self.path, set(sys.modules) - self.before))

    def named(self, name: str) -> Any:
        """The object called ``name``. Raises ValueError if there is none."""
        if not hasattr(self.module, name):
            raise ValueError(f"{self.path}: expected an object called {name!r}, got none")
        return getattr(self.module, name)


def load_file(path: Path) -> UserFile:
    """Runs the Python file ``path`` as a module.

    Its folder is appended to ``sys.path``, so that it can import its neighbours.

    Raises:
        ValueError: no such file, one that does not parse or raises on import (with its last line).
    """
    path = path.absolute()
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    spec = spec_from_file_location(f"user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: expected a Python file (.py)")
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    before = frozenset(sys.modules)
    module = module_from_spec(spec)
    try:
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a file can raise anything, even SystemExit
        last = " ".join(traceback.format_exception_only(error)[-1].split())
        raise ValueError(f"{path}: cannot be imported{_place(path, error)}: {last}") from None
    return UserFile(path, module, before)


def _neighbours(path: Path, imported: set[str]) -> list[Path]:
    """The files in ``path``'s folder or below it that belong to the ``imported`` modules."""
    files = [getattr(sys.modules.get(name), "__file__", None) for name in sorted(imported)]
    paths = [Path(file).absolute() for file in files if file is not None]
    return [
        file
        for file in paths
        if file != path and file.is_relative_to(path.parent) and "site-packages" not in file.parts
    ]


def _place(path: Path, error: BaseException) -> str:
    """The place of an error: a line of the file, or of the neighbour that does not parse."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        where = Path(error.filename or path)
        other = "" if where == path else f"{where.name}, "
        return f" ({other}line {error.lineno})"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path
    ]
    return f" (line {lines[-1]})" if lines else ""
