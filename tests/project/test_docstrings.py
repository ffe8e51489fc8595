"""Every public function says what it takes, gives and refuses, in one form."""

import ast
import importlib
import inspect
import re
from functools import cache

import pytest

from tests.cases.checkout import ROOT

PACKAGES = ("analytic", "stochastic", "verification")
SECTION = re.compile(r"^(Args|Returns|Raises|Source|Yields|Attributes):")


def public_objects(package):
    """The public names of a package's rooms, with what they are: ``{"room.name": object}``."""
    found = {}
    for stub in sorted((ROOT / package).glob("*/__init__.pyi")):
        room = importlib.import_module(f"gradbias.{package}.{stub.parent.name}")
        found |= {f"{stub.parent.name}.{name}": getattr(room, name) for name in room.__all__}
    return found


@cache
def protocol_members():
    """The names of methods that a protocol describes, once, for all that implement it."""
    return {
        member.name
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases)
        for member in node.body
        if isinstance(member, ast.FunctionDef)
    }


def public_callables(package):
    """Public functions, and those methods of public classes that take two arguments or more.

    A method that a protocol describes is left out.
    """
    for name, thing in public_objects(package).items():
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing) and thing.__module__.startswith("gradbias."):
            for attribute, member in vars(thing).items():
                method = getattr(member, "__func__", member)
                private = attribute.startswith("_") or attribute in protocol_members()
                if private or not inspect.isfunction(method):
                    continue
                if len(parameters(method)) >= 2:
                    yield f"{name}.{attribute}", method


def parameters(function):
    """The names of a function's parameters, those of variable length with their stars."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    named = inspect.signature(function).parameters.values()
    return [stars.get(p.kind, "") + p.name for p in named if p.name not in ("self", "cls")]


def sections(text):
    """The sections of a docstring by heading, each with its lines."""
    found, heading = {"": []}, ""
    for line in inspect.cleandoc(text).splitlines():
        match = SECTION.match(line)
        if match or not line.startswith(" "):
            heading = match[1] if match else ""
        found.setdefault(heading, []).append(line)
    return found


def undescribed(function):
    """The parameters that a docstring's argument list leaves out, and what it lists besides."""
    lines = sections(function.__doc__ or "").get("Args", [])
    headings = [re.match(r"    (?! )([\w*, ]+):", line) for line in lines]
    listed = [name.strip() for match in headings if match for name in match[1].split(",")]
    plain = {name.lstrip("*") for name in listed}
    # What Hypothesis hands to a composite strategy is no argument of its caller.
    return {name.lstrip("*") for name in parameters(function)} ^ (plain - {"draw"})


@pytest.mark.parametrize("package", PACKAGES)
def test_every_parameter_of_a_public_callable_is_described(package):
    found = dict(public_callables(package))
    assert len(found) > 25
    lacking = {name: undescribed(function) for name, function in found.items()}
    assert not {name: names for name, names in lacking.items() if names}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_function_says_what_it_returns_and_refuses(package):
    for name, function in public_objects(package).items():
        if inspect.isfunction(function):
            there = sections(function.__doc__ or "")
            assert {"Returns", "Raises"} <= set(there), name


def test_every_public_function_of_the_exact_side_has_shapes_a_source_and_an_example():
    functions = {n: f for n, f in public_objects("analytic").items() if inspect.isfunction(f)}
    assert len(functions) > 50
    for name, function in functions.items():
        assert "Source" in sections(function.__doc__), name
        assert ">>> " in function.__doc__, name
        assert "[" in function.__doc__, name


def test_a_docstring_that_forgets_or_invents_an_argument_is_found():
    def forgetful(mdp, theta, *, steps):
        """A number.

        Args:
            mdp, theta: the problem and the policy.
            stride: no such thing.
        """

    assert undescribed(forgetful) == {"steps", "stride"}


FRAGMENTS = re.compile(r"^(Of|Those|That of|With|See|As|What's|Whose)\b")


def docstrings(package):
    """Every docstring of a package's sources, with where it stands."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text:
                    yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", text


@pytest.mark.parametrize("package", [*PACKAGES, "experiments"])
def test_docstrings_open_with_their_subject(package):
    """No fragments: a docstring says what its thing is, and is longer than a symbol."""
    for where, text in docstrings(package):
        assert not FRAGMENTS.match(text), (where, text.splitlines()[0])
        assert len(text) > 8, (where, text)


def test_functions_are_short():
    """A body of 60 lines at most, its docstring left out."""
    for package in [*PACKAGES, "experiments"]:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    body = node.body[1:] if ast.get_docstring(node) else node.body
                    lines = node.end_lineno - body[0].lineno + 1 if body else 0
                    assert lines <= 60, f"{path}:{node.lineno}: {node.name}"
