"""What may import what: the contracts hold, and a planted peek breaks them."""

import ast
import importlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from checkout import PACKAGES, ROOT, copy_packages, environment_of

from gradbias import analytic

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


def test_the_contracts_hold(copy):
    status, text = lint(copy)
    assert status == 0, text
    assert "5 kept, 0 broken" in text


PEEKS = {
    "an estimator reads the answers": (
        "stochastic/estimators.py",
        "import gradbias.analytic.values",
        "estimators never see the exact answers",
    ),
    "by way of a function": (
        "stochastic/trajectories.py",
        "from gradbias.analytic.derivatives import hvp",
        "estimators never see the exact answers",
    ),
    "an estimator reads its own verdict": (
        "stochastic/surrogates/dice.py",
        "from gradbias.verification.reports import Verdict",
        "experiments -> verification -> stochastic -> analytic",
    ),
    "the exact side needs torch": (
        "analytic/values.py",
        "import torch",
        "the exact side needs neither torch",
    ),
    "the exact side sees an estimator": (
        "analytic/values.py",
        "import gradbias.stochastic.records",
        "experiments -> verification -> stochastic -> analytic",
    ),
    "verification plots": (
        "verification/reports.py",
        "from matplotlib.figure import Figure",
        "verification imports no torch of its own, and never plots",
    ),
    "a package root hides what is taken": (
        "stochastic/records.py",
        "from gradbias.analytic import hessian",
        "library code imports submodules",
    ),
}


@pytest.mark.parametrize("name", sorted(PEEKS))
def test_a_planted_peek_breaks_a_contract(copy, name):
    module, line, contract = PEEKS[name]
    path = copy / module
    text = path.read_text()
    at = text.index("\nimport ") if "\nimport " in text else text.index("\nfrom dataclasses")
    path.write_text(text[:at] + "\n" + line + text[at:])
    status, report = lint(copy)
    assert status == 1, report
    broken = [line for line in report.splitlines() if line.endswith("BROKEN")]
    assert any(line.startswith(contract) for line in broken)


SEEN_BY_ESTIMATORS = {
    "arrays",
    "critics",
    "exports",
    "files",
    "games",
    "gymnasium_tables",
    "jets",
    "kernels",
    "logits",
    "mixtures",
    "policies",
    "problem_batches",
    "problems",
    "reward_chains",
    "sparse_problems",
    "tables",
    "targets",
}


def test_every_module_of_the_exact_side_is_open_to_estimators_or_closed():
    """A module that is added must be sorted into one or the other."""
    text = (ROOT / "pyproject.toml").read_text()
    contract = tomllib.loads(text)["tool"]["importlinter"]["contracts"][1]
    assert contract["id"] == "no-peeking"
    closed = {name.removeprefix("gradbias.analytic.") for name in contract["forbidden_modules"]}
    modules = {path.stem for path in (ROOT / "analytic").glob("*.py")} - {"__init__"}
    assert closed | SEEN_BY_ESTIMATORS == modules
    assert not closed & SEEN_BY_ESTIMATORS


def test_no_module_bears_the_name_of_a_public_function_or_of_the_standard_library():
    for package in PACKAGES:
        root = ROOT / package
        names = {p.stem for p in root.glob("*.py")} | {p.name for p in root.iterdir() if p.is_dir()}
        names -= {"__init__", "__pycache__"}
        tree = ast.parse((root / "__init__.py").read_text())
        homes = [n for n in ast.walk(tree) if isinstance(n, ast.Dict)]
        public = {key.value for home in homes for key in home.keys if isinstance(key, ast.Constant)}
        assert not names & public, package
        assert not names & STANDARD, package


@pytest.mark.parametrize("package", ["analytic", "stochastic", "verification"])
def test_every_public_name_is_there_and_documented(package):
    module = importlib.import_module(f"gradbias.{package}")
    assert len(module.__all__) > 3
    for name in module.__all__:
        found = getattr(module, name)
        assert found.__doc__, name
        assert name in dir(module)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_every_public_function_of_the_exact_side_says_what_it_gives_raises_and_rests_on():
    """Shapes, what is raised, the source, and an example that the doctests run."""
    functions = [name for name in analytic.__all__ if inspect.isfunction(getattr(analytic, name))]
    assert len(functions) > 30
    for name in functions:
        text = getattr(analytic, name).__doc__
        for needed in ("Raises:", "Source", ">>> "):
            assert needed in text, (name, needed)
        assert "[" in text, (name, "shapes")
