"""What a program could remember between its calls, and what it asks of the world outside.

A proof reads a program's first calls. It says something about later ones only if they are the same:
if nothing that the program can reach (variables that it closes over, globals that it names,
attributes, default arguments, iterators) changes from call to call, and if it asks for no time, no
file and no random number.
"""

from __future__ import annotations

import gc
import random
import sys
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.tracing.source_lines import is_library, program_line

MAX_OBJECTS = 20_000
"""The most objects that are looked at."""

_ATOMS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
_OUTSIDE = frozenset(
    ("time", "datetime", "posix", "nt", "_io", "io", "_socket", "_uuid", "secrets")
)
_CALLERS = frozenset(
    (
        *("random.py", "secrets.py", "uuid.py", "pathlib.py", "tempfile.py", "os.py", "glob.py"),
        *("genericpath.py", "posixpath.py", "shutil.py", "socket.py", "subprocess.py"),
    )
)


def snapshot(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function can reach: values by the path to them."""
    values: dict[str, Any] = {}
    seen: dict[int, Any] = {}
    pending: deque[tuple[str, Any]] = deque([("", function), ("record's class", Record)])
    while pending:
        if len(seen) > MAX_OBJECTS:
            raise ValueError(f"reaches more than {MAX_OBJECTS:,} objects")
        path, item = pending.popleft()
        if isinstance(item, _ATOMS):
            values[path] = (type(item).__name__, repr(item))
            continue
        if id(item) in seen:
            continue
        seen[id(item)] = item
        summary, parts = _described(item)
        values[path] = (type(item).__name__, summary)
        pending.extend((f"{path}.{name}" if path else name, part) for name, part in parts)
    return values


def changed_path(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The path to a value that differs; "" if none does."""
    for path in [*before, *after]:
        if before.get(path) != after.get(path):
            return path
    return ""


def _described(item: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """A summary of an object and the named objects that it holds."""
    if isinstance(item, torch.Tensor):
        held = item.detach()
        numbers = held.cpu().numpy().tobytes() if held.layout == torch.strided else b""
        return (item.shape, item.requires_grad, numbers), [("grad", item.grad)]
    if isinstance(item, np.ndarray):
        if item.dtype == object:
            return item.shape, _numbered(item.ravel().tolist())
        return (item.shape, item.tobytes()), []
    if isinstance(item, np.random.Generator):
        return repr(item.bit_generator.state), []
    if isinstance(item, random.Random):
        return hash(item.getstate()), []
    if isinstance(item, types.FunctionType):
        return "", _of_function(item)
    if isinstance(item, types.MethodType):
        return "", [("self", item.__self__), (item.__name__, item.__func__)]
    if isinstance(item, partial):
        return "", [("func", item.func), ("args", item.args), ("keywords", item.keywords)]
    if isinstance(item, types.GeneratorType) and item.gi_frame is not None:
        return object(), []  # equal to nothing: what a generator holds cannot be seen
    if isinstance(item, list | tuple | deque):
        if all(isinstance(part, _ATOMS) for part in item):
            return repr(item), []
        return len(item), _numbered(list(item))
    if isinstance(item, set | frozenset):
        return sorted(map(repr, item)), []
    if isinstance(item, Mapping):
        return len(item), [(repr(key)[:80], part) for key, part in list(item.items())]
    if isinstance(item, type):
        return "", _of_class(item)
    return _of_object(item)


def _numbered(items: list[Any]) -> list[tuple[str, Any]]:
    return [(str(i), part) for i, part in enumerate(items)]


def _of_function(function: types.FunctionType) -> list[tuple[str, Any]]:
    """A function's closure, defaults, attributes, and the globals that its code names."""
    if is_library(function.__code__.co_filename):
        return []
    parts: list[tuple[str, Any]] = [
        ("defaults", function.__defaults__),
        ("keyword defaults", function.__kwdefaults__),
        ("docstring", function.__doc__),
        ("name", function.__name__),
        *function.__dict__.items(),
    ]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            parts.append((name, cell.cell_contents))
        except ValueError:  # not bound yet
            continue
    names = set(_names(function.__code__))
    for name, value in sorted(function.__globals__.items()):
        if isinstance(value, types.ModuleType):
            parts += _of_module(name, value, names) if name in names else []
        elif name in names or (isinstance(value, _ATOMS) and not name.startswith("__")):
            parts.append((name, value))
    for name in sorted(names & set(sys.modules)):  # imported where it is used
        parts += _of_module(name, sys.modules[name], names)
    return parts


def _is_data(value: Any) -> bool:
    return isinstance(value, (*_ATOMS, list, dict, set))


def _of_module(name: str, module: types.ModuleType, names: set[str]) -> list[tuple[str, Any]]:
    """A module's attributes of the given names; of a library's, those that hold data, of itself
    and of its own modules.
    """
    named = [(f"{name}.{key}", vars(module)[key]) for key in sorted(names & set(vars(module)))]
    if not is_library(getattr(module, "__file__", None) or "<frozen"):
        return named
    parts = [(key, part) for key, part in named if _is_data(part)]
    for key, part in named:
        if isinstance(part, types.ModuleType) and part.__name__.startswith(f"{module.__name__}."):
            parts += _of_module(key, part, names)
    return parts


def _names(code: types.CodeType) -> Iterator[str]:
    """The global names and attributes that code and the functions in it mention."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _of_class(kind: type) -> list[tuple[str, Any]]:
    """A class's own attributes, if it is no library's."""
    module = sys.modules.get(kind.__module__)
    if is_library(getattr(module, "__file__", None) or "<frozen"):
        return []
    hidden = ("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__")
    return [(name, part) for name, part in vars(kind).items() if name not in hidden]


def _of_object(item: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """An object of another class: its attributes, or what pickle would keep of it."""
    if hasattr(item, "cache_info"):
        return item.cache_info().currsize, [("wrapped", getattr(item, "__wrapped__", None))]
    if isinstance(item, types.ModuleType | types.BuiltinFunctionType):
        return "", []
    if isinstance(item, staticmethod | classmethod):
        return "", [("function", item.__func__)]
    if isinstance(item, property):
        return "", [("getter", item.fget)]
    parts: list[tuple[str, Any]] = [("class", type(item))]
    if hasattr(item, "__dict__"):
        parts += list(vars(item).items())
    slots = [name for kind in type(item).__mro__ for name in getattr(kind, "__slots__", ())]
    parts += [(name, getattr(item, name)) for name in slots if hasattr(item, name)]
    if hasattr(item, "__next__"):
        parts.append(("iterator", _pickled(item)))
    return "", parts


def _pickled(iterator: Any) -> Any:
    """What pickle would keep of an iterator; its text if pickle does not take it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return iterator.__reduce__()[1:]
        except Exception:
            return repr(iterator)


class Watched:
    """What happened while a program ran: the path to what it ``changed``, and the ``calls`` that it
    made to the world outside; "" if nothing.
    """

    changed: str = ""
    calls: str = ""


@contextmanager
def unchanged(function: Callable[..., Any]) -> Iterator[Watched]:
    """A context that notes at its end whether what a function can reach has changed in it.

    Raises:
        ValueError: the function reaches more than can be looked at.
    """
    watched = Watched()
    before = snapshot(function)
    yield watched
    watched.changed = changed_path(before, snapshot(function))


def _asks_for_files(file: str) -> bool:
    """Whether code is one of the standard library's frozen modules, os and its paths among them;
    those that import others do not count.
    """
    return file.startswith("<frozen ") and "import" not in file


@contextmanager
def outside_calls() -> Iterator[Watched]:
    """A context that notes calls which ask for the time, for files, or for the system's random
    numbers.
    """
    watched = Watched()

    def profile(frame: types.FrameType, event: str, called: Any) -> None:
        if event != "c_call" or watched.calls:
            return
        owner = getattr(called, "__self__", None)
        module = getattr(called, "__module__", None)
        if (
            module in (None, "builtins")
            and owner is not None
            and not isinstance(owner, types.ModuleType)
        ):
            module = owner.__module__ if isinstance(owner, type) else type(owner).__module__
        file = frame.f_code.co_filename
        name = getattr(called, "__name__", "")
        if module not in _OUTSIDE and name not in ("_getframe", "input", "open", "getrefcount"):
            return
        if is_library(file) and Path(file).name not in _CALLERS and not _asks_for_files(file):
            return
        watched.calls = f"{module}.{name} ({file}, line {frame.f_lineno})"

    previous: Any = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield watched
    finally:
        if hasattr(previous, "enable"):  # cProfile's, which is no Python function
            previous.enable()
        else:
            sys.setprofile(previous)


Raised = list[tuple[str, str, int]]
"""The name of each error that was raised in a program, with file and line, caught or not."""

OWN_DERIVATIVE = "autograd.Function"
"""Stands among the errors for a derivative that a program defines."""

_APPLY = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]


@contextmanager
def errors_raised() -> Iterator[Raised]:
    """A context that notes the errors raised in it, outside of libraries, and `OWN_DERIVATIVE`."""
    raised: Raised = []

    def local(frame: types.FrameType, event: str, arg: Any) -> Any:
        # The end of a generator that nobody needs any more is no error of the program.
        if event == "exception" and not issubclass(arg[0], GeneratorExit):
            raised.append((arg[0].__name__, frame.f_code.co_filename, frame.f_lineno))
        return local

    def enter(frame: types.FrameType, event: str, arg: Any) -> Any:
        if frame.f_code is _APPLY:
            raised.append((OWN_DERIVATIVE, *program_line()))
        if is_library(frame.f_code.co_filename):
            return None
        frame.f_trace_lines = False
        return local

    previous, collecting = sys.gettrace(), gc.isenabled()
    gc.disable()  # what it would clean up is not the program's
    sys.settrace(enter)
    try:
        yield raised
    finally:
        sys.settrace(previous)
        if collecting:
            gc.enable()


class Unwatched:
    """A context in which no function watches what Python executes, for speed."""

    __slots__ = ("_profiling", "_tracing")

    def __enter__(self) -> None:
        self._tracing, self._profiling = sys.gettrace(), sys.getprofile()
        sys.settrace(None)
        sys.setprofile(None)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._profiling)
        sys.settrace(self._tracing)
