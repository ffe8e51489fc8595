"""What is installed: one package called gradbias, in environments beside projects of any shape.

The environments are empty but for the wheel; the libraries that it depends on are lent to them by
the one that the tests run in.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import pytest

from tests.cases.checkout import PACKAGES, ROOT

LOSS = """
def surrogate(record):
    returns = record.rewards.flip(-1).cumsum(-1).flip(-1)
    return (record.log_probs * returns).sum(-1).mean()
"""
TRAIN = """
import gradbias.analytic
import verification.checks
from experiments.settings import STEPS

assert gradbias.analytic.TabularMDP.__module__.startswith("gradbias.")
print("trained for", STEPS, "steps,", verification.checks.WORD)
"""
TEST = """
import verification.checks
from experiments.settings import STEPS

def test_the_project_s_own_folders_are_imported():
    assert STEPS == 3
    assert verification.checks.WORD == "checked"
"""
CLAIM = """
import numpy as np
from gradbias.analytic import TabularMDP
from gradbias.stochastic import from_surrogate, lvc

def test_a_claim_within_the_budget(gradbias):
    mdp = TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.9, horizon=2)
    gradbias.assert_unbiased(from_surrogate(lvc, order=1), mdp, np.zeros((2, 2)))
"""


def run(command, cwd, python_path=""):
    """Exit status and output of a command that sees none of the checkout."""
    environment = os.environ | {"PYTHONPATH": python_path, "PYTEST_ADDOPTS": ""}
    found = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.returncode, found.stdout + found.stderr


def build(target, source, folder):
    """The one archive that hatchling builds from the sources."""
    command = (
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        target,
        "--directory",
        folder,
    )
    status, text = run(command, source)
    assert status == 0, text
    (archive,) = folder.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of an environment with nothing but the wheel and what it depends on."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    interpreter = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", interpreter, "--disable-pip-version-check")
    status, text = run((*pip, "install", "--quiet", "--no-deps", "--no-index", wheel), home)
    assert status == 0, text
    site = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    # A path alone: the .pth files in there, an editable install's among them, are not read.
    lent = sysconfig.get_path("purelib")
    (home / site / "lent.pth").write_text(f"{lent}\n")
    return interpreter


@pytest.fixture(params=[False, True], ids=["folders", "packages"])
def project(request, tmp_path):
    """A user's project with folders called as ours, with and without ``__init__.py``."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        if request.param:
            (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "experiments" / "settings.py").write_text("STEPS = 3\n")
    (tmp_path / "verification" / "checks.py").write_text('WORD = "checked"\n')
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "my_loss.py").write_text(LOSS)
    (tmp_path / "test_project.py").write_text(TEST)
    return tmp_path


def members(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def test_the_wheel_takes_one_name(wheel):
    names = members(wheel)
    assert {name.split("/")[0] for name in names} == {"gradbias", "gradbias-0.1.0.dist-info"}
    for package in PACKAGES:
        sources = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py*")}
        wanted = {f"gradbias/{path}" for path in sources if "__pycache__" not in path.parts}
        assert len(wanted) > 15
        assert wanted <= set(names)
    assert "gradbias/py.typed" in names
    assert "gradbias/experiments/reports/templates/report.html" in names


def test_a_wheel_that_is_built_from_the_source_archive_is_the_same(wheel, tmp_path):
    archive = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    assert members(build("wheel", source, tmp_path / "again")) == members(wheel)


def test_a_project_with_such_folders_runs(python, project):
    status, text = run((python, "train.py"), project)
    assert status == 0, text
    assert "trained for 3 steps, checked" in text


def test_its_tests_run_with_our_plugin_loaded(python, project):
    status, text = run((python, "-m", "pytest", "-p", "no:cacheprovider"), project)
    assert status == 0, text
    assert "1 passed" in text
    assert re.search(r"^plugins: .*\bgradbias-0\.1\.0\b", text, re.MULTILINE), text


def test_its_tests_can_use_the_plugin(python, project):
    (project / "test_claim.py").write_text(CLAIM)
    status, text = run((python, "-m", "pytest", "-p", "no:cacheprovider"), project)
    assert status == 0, text
    assert "2 passed" in text
    assert "1 claim" in text


def test_the_command_works_outside_the_checkout(python, project):
    command = python.parent / "gradbias"
    problem = ("--random", "2x2", "--horizon", "2", "--discount", "0.9")
    status, text = run((command, "check", "my_loss.py:surrogate", *problem, "--out", "r"), project)
    assert status == 1, text
    assert "surrogate: BIASED for the gradient of the 2-step return" in text
    assert (project / "r" / "report.html").is_file()
    status, text = run((python, "-m", "gradbias", "list"), project)
    assert status == 0, text


def test_a_peek_at_the_old_names_finds_nothing(python, tmp_path):
    """The check that these projects run because nothing of ours is in the way can fail."""
    for name in PACKAGES:
        status, text = run((python, "-c", f"import {name}"), tmp_path)
        assert status == 1
        assert f"No module named '{name}'" in text


@pytest.mark.slow
def test_a_user_s_type_checker_sees_the_public_names(python, tmp_path):
    source = (
        "from gradbias.analytic import TabularMDP\n"
        "from gradbias.verification import BiasReport, measure_bias\n"
        "reveal_type(TabularMDP.random)\n"
        "reveal_type(measure_bias)\n"
        "measure_bias(1, 2)\n"
    )
    (tmp_path / "typed.py").write_text(source)
    command = (sys.executable, "-m", "mypy", "--python-executable", python, "typed.py")
    status, text = run(command, tmp_path)
    assert status == 1, text
    assert "-> gradbias.analytic.problems.mdp.TabularMDP" in text
    assert "-> gradbias.verification.evidence.reports.BiasReport" in text
    assert 'Argument 1 to "measure_bias" has incompatible type' in text
