"""What may import what: the contracts hold, and a planted peek breaks them."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cases.checkout import PACKAGES, ROOT, copy_packages, environment_of

STANDARD = sys.stdlib_module_names


def lint(folder):
    """import-linter's exit status and text for the packages in ``folder``."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    found = subprocess.run(
        command, cwd=folder, env=environment_of(folder), capture_output=True, text=True, check=False
    )
    return found.returncode, found.stdout + found.stderr


@pytest.fixture
def copy(tmp_path):
    return copy_packages(tmp_path)


def contracts():
    """The import contracts of pyproject.toml, by id."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return {contract["id"]: contract for contract in settings["contracts"]}


def test_the_contracts_hold(copy):
    status, text = lint(copy)
    assert status == 0, text
    assert f"{len(contracts())} kept, 0 broken" in text


PEEKS = {
    "an estimator reads the answers": (
        "stochastic/estimators/kinds.py",
        "import gradbias.analytic.returns.evaluation",
        "rooms",
    ),
    "by way of a function": (
        "stochastic/rollouts/trajectories.py",
        "from gradbias.analytic.returns.derivatives import hvp",
        "rooms",
    ),
    "an estimator reads its own moments": (
        "stochastic/estimators/kinds.py",
        "from gradbias.analytic.moments.estimators import gradient_moments",
        "rooms",
    ),
    "a surrogate reads a symbolic answer": (
        "stochastic/surrogates/dice.py",
        "from gradbias.analytic.symbolic.problems import SymbolicMDP",
        "rooms",
    ),
    "an estimator reads its own verdict": (
        "stochastic/surrogates/dice.py",
        "from gradbias.verification.evidence.reports import Verdict",
        "rooms",
    ),
    "a confidence sequence reads a report": (
        "verification/confidence/sequences.py",
        "from gradbias.verification.evidence.reports import Verdict",
        "rooms",
    ),
    "a problem knows its values": (
        "analytic/problems/mdp.py",
        "from gradbias.analytic.returns.evaluation import evaluate",
        "rooms",
    ),
    "a surrogate knows its derivatives": (
        "stochastic/surrogates/dice.py",
        "from gradbias.stochastic.derivatives.assembly import Rows",
        "inside-stochastic",
    ),
    "a report runs a study": (
        "experiments/reports/figures.py",
        "from gradbias.experiments.studies.bounds import run_bounds",
        "inside-experiments",
    ),
    "the exact side needs torch": (
        "analytic/returns/evaluation.py",
        "import torch",
        "analytic-alone",
    ),
    "the exact side sees an estimator": (
        "analytic/meta/bilevel.py",
        "import gradbias.stochastic.rollouts.records",
        "analytic-alone",
    ),
    "verification plots": (
        "verification/evidence/reports.py",
        "from matplotlib.figure import Figure",
        "verification-without-torch",
    ),
    "a package root hides what is taken": (
        "stochastic/rollouts/records.py",
        "from gradbias.analytic import hessian",
        "no-package-roots",
    ),
}


def plant(path, line):
    """Adds an import to a module, among those that it has."""
    text = path.read_text()
    at = text.index("\nimport ") if "\nimport " in text else text.index("\nfrom dataclasses")
    path.write_text(text[:at] + "\n" + line + text[at:])


def broken_contracts(report):
    """The names of the contracts that import-linter calls broken."""
    return [line.removesuffix(" BROKEN") for line in report.splitlines() if line.endswith("BROKEN")]


def test_every_contract_has_a_planted_peek():
    assert {contract for _, _, contract in PEEKS.values()} == set(contracts())


@pytest.mark.parametrize("name", sorted(PEEKS))
def test_a_planted_peek_breaks_its_contract(copy, name):
    module, line, contract = PEEKS[name]
    plant(copy / module, line)
    status, report = lint(copy)
    assert status == 1, report
    assert contracts()[contract]["name"] in broken_contracts(report)


CLOSED_ROOMS = ("returns", "symbolic", "moments", "meta", "additive", "constants")


@pytest.mark.parametrize("room", CLOSED_ROOMS)
def test_a_new_file_in_a_room_of_answers_is_closed_to_estimators_by_where_it_stands(copy, room):
    (copy / "analytic" / room / "brand_new.py").write_text('"""New."""\n\nANSWER = 42\n')
    assert lint(copy)[0] == 0
    peek = f"from gradbias.analytic.{room}.brand_new import ANSWER"
    plant(copy / "stochastic/estimators/kinds.py", peek)
    status, report = lint(copy)
    assert status == 1, report
    assert contracts()["rooms"]["name"] in broken_contracts(report)


def rooms_of(package):
    """The sub-packages of one of the four packages."""
    return sorted(path.parent.name for path in (ROOT / package).glob("*/__init__.py"))


def test_every_room_stands_in_a_layer():
    """import-linter insists on it inside stochastic and experiments; here are the other two."""
    layers = [name.strip() for row in contracts()["rooms"]["layers"] for name in row.split("|")]
    for package in ("analytic", "verification"):
        named = [name for name in layers if name.startswith(f"{package}.")]
        assert sorted(named) == [f"{package}.{room}" for room in rooms_of(package)]


def test_rooms_are_few_and_small():
    for package in PACKAGES:
        assert len(rooms_of(package)) <= 9, package
        for room in rooms_of(package):
            modules = [p for p in (ROOT / package / room).glob("*.py") if p.stem != "__init__"]
            assert 1 <= len(modules) <= 12, (package, room)


PUBLIC = ("analytic", "stochastic", "verification")


def surfaces():
    """The packages and rooms that have public names, by dotted name."""
    return [
        ".".join(["gradbias", *stub.parent.relative_to(ROOT).parts])
        for package in PUBLIC
        for stub in sorted((ROOT / package).rglob("__init__.pyi"))
    ]


@pytest.mark.parametrize("surface", surfaces())
def test_no_module_bears_the_name_of_a_module_of_the_standard_library(surface):
    folder = ROOT / "/".join(surface.split(".")[1:])
    inside = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not inside & STANDARD


def test_a_public_name_wins_over_the_module_of_its_name_in_whatever_order_they_are_imported():
    """As `dice` does: the surrogate, though it stands in a module of that name."""
    shared = [
        (surface, path.stem)
        for surface in surfaces()
        for path in (ROOT / "/".join(surface.split(".")[1:])).glob("*.py")
        if path.stem in importlib.import_module(surface).__all__
    ]
    assert ("gradbias.stochastic.surrogates", "dice") in shared
    lines = ["import importlib, types"]
    for surface, name in shared:
        lines += [
            f"importlib.import_module('{surface}.{name}')",
            f"from {surface} import {name}",
            f"assert not isinstance({name}, types.ModuleType), '{surface}.{name}'",
        ]
    command = [sys.executable, "-c", "\n".join(lines)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("surface", surfaces())
def test_every_public_name_is_there_and_documented(surface):
    module = importlib.import_module(surface)
    for name in module.__all__:
        assert getattr(module, name).__doc__, name
        assert name in dir(module)
    with pytest.raises(AttributeError, match="nothing"):
        module.nothing  # noqa: B018


@pytest.mark.parametrize("package", PUBLIC)
def test_a_root_has_its_rooms_and_a_selection_of_their_names(package):
    root = importlib.import_module(f"gradbias.{package}")
    offered = {}
    for room in rooms_of(package):
        offered |= vars_of(importlib.import_module(f"gradbias.{package}.{room}"))
    selected = set(root.__all__) - set(rooms_of(package))
    assert set(rooms_of(package)) <= set(root.__all__)
    assert 25 < len(selected) < 40
    for name in selected:
        assert getattr(root, name) is offered[name]


def vars_of(module):
    """The public names of a room; a room without a stub has none."""
    return {name: getattr(module, name) for name in getattr(module, "__all__", ())}


def test_a_folder_of_the_checkout_is_no_package_by_itself():
    """Two copies of the same classes would be the riddle otherwise."""
    code = "import analytic"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert "ImportError: analytic: this is gradbias.analytic" in found.stderr
