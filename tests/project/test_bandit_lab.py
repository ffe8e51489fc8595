"""The user's project in `examples/`: its tests, and what the broken estimators shrink to."""

import ast
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points

import numpy as np
import pytest

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.score_function import ad, lvc
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.measurement.measure import measure_bias
from tests.cases.checkout import ROOT, environment_of

LAB = ROOT / "examples" / "bandit_lab"
INSTALLED = any(entry.name == "gradbias" for entry in entry_points(group="pytest11"))


def problem(text):
    """The problem and the policy that Python text makes."""
    names = {}
    exec(text, {"TabularMDP": TabularMDP}, names)
    return names["mdp"], np.array(names["theta"])


@pytest.mark.slow
def test_its_broken_hessians_alone_fail_and_print_the_smallest_problems(tmp_path):
    shutil.copytree(LAB, tmp_path / "lab", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    plugin = () if INSTALLED else ("-p", "gradbias.verification.properties.pytest_plugin")
    command = [sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider"]
    found = subprocess.run(
        [*command, "--hypothesis-seed=0", "--runxfail"],
        cwd=tmp_path / "lab",
        env=environment_of(ROOT),
        capture_output=True,
        text=True,
        check=False,
    )
    printed = found.stdout + found.stderr
    assert "2 failed, 3 passed" in printed
    assert "5 claims, 3 held" in printed
    sizes = re.findall(r"The smallest problem found \((.*)\)", printed)
    assert sizes == ["1 state, 2 actions, horizon 1", "2 states, 2 actions, horizon 2"]


def test_the_problems_in_its_readme_are_biased_as_derived_there():
    text = (LAB / "README.md").read_text()
    shown = [c for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "theta" in c]
    block = np.array([[1.0, -1.0], [-1.0, 1.0]]) / 8
    for code, surrogate in zip(shown, (ad, lvc), strict=True):
        ast.parse(code)
        mdp, theta = problem(code)
        report = measure_bias(from_surrogate(surrogate, order=2), mdp, theta)
        assert report.verdict is Verdict.BIASED
        expected = np.zeros(report.bias.shape)
        expected[0, :, 0, :] = -block
        assert np.abs(report.bias - expected).max() < 1e-15


CHANGES = {
    "transitions do not depend on the action": {"transition": [[[1, 0]] * 2, [[1, 0]] * 2]},
    "one step": {"horizon": 1},
    "no reward": {"reward": [[0, 0], [0, 0]]},
    "rewards do not depend on the action": {"reward": [[1, 1], [0, 0]]},
    "nothing later counts": {"discount": 0.0},
    "one action": {"transition": [[[0, 1]], [[1, 0]]], "reward": [[1], [0]]},
    "one state": {"transition": [[[1], [1]]], "reward": [[1, 0]], "start": [1]},
}


@pytest.mark.parametrize("name", CHANGES)
def test_without_any_part_of_it_lvc_s_hessian_is_unbiased(name):
    """At ten policies: mean and target agree to 1e-15, where with all parts they do not."""
    whole = {
        "transition": [[[1, 0], [0, 1]], [[1, 0], [1, 0]]],
        "reward": [[1, 0], [0, 0]],
        "discount": 1,
        "start": [1, 0],
        "horizon": 2,
    }
    rng = np.random.default_rng(0)
    for changed, biased in ((whole | CHANGES[name], False), (whole, True)):
        mdp = TabularMDP(**changed)
        for _ in range(10):
            theta = rng.normal(size=(mdp.n_states, mdp.n_actions))
            report = measure_bias(from_surrogate(lvc, order=2), mdp, theta)
            assert (np.abs(report.bias).max() > 1e-15) == biased
