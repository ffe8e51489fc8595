"""Every mutant of the surrogates' sources, and the surrogates as one of them makes them.

Nothing on disk changes: a mutant is compiled and run in modules of its own, and the other surrogate
modules that import it are run afresh beside it.
"""

import ast
import builtins
import importlib
import types
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from gradbias.analytic.problems.targets import Undiscounted
from tests.mutation.operators import OPERATORS

PACKAGE = "gradbias.stochastic.surrogates"
FOLDER = Path(importlib.import_module(PACKAGE).__path__[0])


def module_names():
    """The surrogate modules there are."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


@cache
def source_of(module):
    return (FOLDER / f"{module}.py").read_text()


@dataclass(frozen=True)
class Mutant:
    """One change of one module: the ``before`` and ``after`` lines, the ``line`` they start at, and
    which of the module's like changes it is (from 0). ``owner`` is the top-level name it is in."""

    module: str
    operator: str
    before: str
    after: str
    occurrence: int
    line: int
    owner: str
    source: str

    @property
    def key(self):
        """What it is known by, wherever its lines move."""
        return self.module, self.operator, self.before, self.after, self.occurrence

    def __str__(self):
        return f"{self.module}:{self.line} [{self.operator}] {self.before}  ->  {self.after}"


def mutants_of(module):
    """Every mutant of a module, in the order of its source."""
    source = source_of(module)
    seen, found = Counter(), []
    for node, above in sites(ast.parse(source)):
        for operator, make in OPERATORS.items():
            for text in make(node, above):
                changed, before, after = _replaced(source, node, above[0][0], text)
                like = (operator, before, after)
                owner = getattr(above[-1][1], "name", "")
                found.append(Mutant(module, *like, seen[like], node.lineno, owner, changed))
                seen[like] += 1
    return found


def sites(tree):
    """Every expression that is evaluated, with its ancestors as (parent, child), nearest first."""

    def walk(node, above):
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns") or isinstance(node, ast.ImportFrom | ast.Raise):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    chain = [(node, child), *above]
                    if isinstance(child, ast.expr):
                        yield child, chain
                    yield from walk(child, chain)

    return list(walk(tree, []))


_COMPOUND = (ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.IfExp)


def _replaced(source, node, parent, text):
    """The source with a node's text replaced, and the lines before and after, as one line each."""
    raw = source.encode()
    starts = [0]
    for row in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(row))
    first = starts[node.lineno - 1] + node.col_offset
    last = starts[node.end_lineno - 1] + node.end_col_offset
    enclosed = raw[first - 1 : first] == b"(" and raw[last : last + 1] == b")"
    tight = isinstance(parent, (*_COMPOUND, ast.Attribute, ast.Subscript)) and not enclosed
    loose = not _sliced(node, parent) and isinstance(ast.parse(text, mode="eval").body, _COMPOUND)
    if tight and loose:
        text = f"({text})"
    head, tail = starts[node.lineno - 1], starts[node.end_lineno]
    before = raw[head:tail].decode()
    after = raw[head:first].decode() + text + raw[last:tail].decode()
    changed = raw[:head].decode() + after + raw[tail:].decode()
    return changed, " ".join(before.split()), " ".join(after.split())


def _sliced(node, parent):
    return isinstance(node, ast.Slice) or (
        isinstance(parent, ast.Subscript) and node is parent.slice
    )


class World:
    """The public names of all surrogate modules, of which one may be a mutant's."""

    def __init__(self, mutant=None):
        self._mutant = mutant
        self._modules = {}

    def __getattr__(self, name):
        return getattr(self._module(home_of(name)), name)

    def _module(self, name):
        if name not in self._modules:
            module = types.ModuleType(f"{PACKAGE}.{name}")
            names = {"__import__": self._imported}
            module.__dict__["__builtins__"] = vars(builtins) | names
            # What a dropped discount is written with, where the module does not import it.
            module.__dict__.update(torch=torch, Undiscounted=Undiscounted)
            mutated = self._mutant is not None and self._mutant.module == name
            code = _code(name)
            if mutated:
                code = compile(self._mutant.source, name, "exec")
            self._modules[name] = module
            exec(code, module.__dict__)
        return self._modules[name]

    def _imported(self, name, *args, **kwargs):
        package, _, last = name.rpartition(".")
        return (
            self._module(last) if package == PACKAGE else builtins.__import__(name, *args, **kwargs)
        )


@cache
def _code(module):
    importlib.import_module(f"{PACKAGE}.{module}")  # dataclasses look their module up
    return compile(source_of(module), module, "exec")


@cache
def _homes():
    """The module of each public name: what is defined at its top level."""
    homes = {}
    for module in module_names():
        for item in ast.parse(source_of(module)).body:
            names = [getattr(item, "name", None)]
            if isinstance(item, ast.Assign | ast.AnnAssign):
                targets = item.targets if isinstance(item, ast.Assign) else [item.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            homes |= {name: module for name in names if name and not name.startswith("_")}
    return homes


def home_of(name):
    """The module that defines a public name. Raises AttributeError if none does."""
    if name not in _homes():
        raise AttributeError(f"no surrogate module defines {name!r}")
    return _homes()[name]


@cache
def users_of(module):
    """A module and those that import it, directly or not, nearest first."""
    found = [module]
    for other in found:
        imports = f"from {PACKAGE}.{other} import"
        found += [
            name for name in module_names() if imports in source_of(name) and name not in found
        ]
    return tuple(found)
