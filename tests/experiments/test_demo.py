"""The demo shows what theory says: pinned verdicts and numbers."""

import csv

import numpy as np
import pytest

from gradbias.analytic.returns.derivatives import hessian
from gradbias.experiments import demo
from gradbias.verification.evidence.reports import Verdict
from tests.oracles import brute_force as oracles

BIASED_HESSIANS = {"ad", "lvc", "my_estimator"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    found = demo.run_demo(folder)
    demo.write_results(found, folder / "results.csv")
    demo.draw_overview(found, folder / "overview.png")
    return folder, found


def test_the_demo_s_verdicts_are_those_of_theory(rows):
    _, found = rows
    assert len(found) == 20
    for row in found:
        if row.report.target.order == 1:
            biased = row.estimator == "my_estimator"
        else:
            biased = row.estimator in BIASED_HESSIANS
        assert row.report.verdict is (Verdict.BIASED if biased else Verdict.UNBIASED)


@pytest.mark.parametrize("problem", demo.PROBLEMS, ids=lambda p: p.gym)
def test_the_demo_s_biases_are_the_closed_forms(rows, problem):
    _, found = rows
    checked, _ = demo._check(problem, "lvc", 2)
    mdp, theta = checked.setting.mdp, checked.setting.theta
    truth = hessian(mdp, theta)
    closed = {"ad": oracles.ad_hessian_mean, "lvc": oracles.lvc_hessian_mean}
    for name, mean in closed.items():
        (row,) = [
            row
            for row in found
            if row.problem is problem and row.estimator == name and row.report.target.order == 2
        ]
        wanted = mean(mdp, theta) - truth
        assert np.abs(row.report.bias - wanted).max() <= 1e-10 * np.linalg.norm(truth)


def test_the_demo_leaves_a_picture_numbers_and_reports(rows):
    folder, found = rows
    assert (folder / "overview.png").read_bytes().startswith(b"\x89PNG")
    with open(folder / "results.csv", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(found)
    assert (folder / "frozenlake-v1-dice-hessian" / "report.html").is_file()
    assert len(list(folder.glob("*/report.html"))) == len(found)
