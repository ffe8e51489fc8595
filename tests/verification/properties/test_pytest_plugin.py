"""The pytest plugin, in runs of its own: shares, the summary, workers, silence.

The tests of those runs write claims of their own into the ledger, so that they need no estimator.
"""

import math
import re
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from tests.cases.checkout import ROOT, environment_of

INSTALLED = any(entry.name == "gradbias" for entry in entry_points(group="pytest11"))
CLAIMS = """
import pytest
from gradbias.verification.properties.ledgers import LedgerEntry

def sampled(ledger):
    rate = ledger.next_rate()
    ledger.record(LedgerEntry(True, {"sampling": 1}, spent=rate, smallest_detectable=0.02))

@pytest.mark.parametrize("k", range(6))
def test_sampled(gradbias, k):
    for _ in range(k):
        sampled(gradbias)

def test_property(gradbias):
    gradbias.record(LedgerEntry(False, {"enumeration": 40}, vacuous=3))

def test_of_something_else():
    pass
"""


def run(folder, text, *options, name="test_it.py"):
    """pytest's exit status and text on a file in a folder of its own."""
    (folder / name).write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    plugin = () if INSTALLED else ("-p", "gradbias.verification.properties.pytest_plugin")
    command = [sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider", *options]
    found = subprocess.run(
        command,
        cwd=folder,
        env=environment_of(ROOT) | {"PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return found.returncode, found.stdout + found.stderr


def spent_by_claims(budget, tests=7, counts=range(6)):
    """Each test has an equal share; its k-th sampled claim takes 1 / (k (k + 1)) of it."""
    series = [sum(1 / (k * (k + 1)) for k in range(1, n + 1)) for n in counts]
    return budget / tests * math.fsum(series)


def check_summary(text, budget):
    assert "16 claims, 15 held; problems measured: 55" in text
    assert "40 enumeration, 15 sampling; of these 3 vacuous" in text
    spent, total = re.search(r"false-alarm rate: (\S+) spent of (\S+)", text).groups()
    assert float(total) == budget
    assert float(spent) == pytest.approx(spent_by_claims(budget), rel=0.01)
    assert float(spent) < budget
    assert "weakest sampled claim: 0.02" in text


def test_the_summary_adds_up_what_was_claimed(tmp_path):
    status, text = run(tmp_path, CLAIMS)
    assert status == 0, text
    check_summary(text, 1e-4)


@pytest.mark.slow
def test_workers_spend_what_one_process_would(tmp_path):
    status, text = run(tmp_path, CLAIMS, "-n", "2", "--gradbias-budget", "0.01")
    assert status == 0, text
    assert "2 workers" in text
    check_summary(text, 0.01)


@pytest.mark.slow
def test_where_every_worker_runs_every_test_they_share_the_budget(tmp_path):
    status, text = run(tmp_path, CLAIMS, "--dist", "each", "--tx", "2*popen")
    assert status == 0, text
    assert "32 claims" in text
    spent = float(re.search(r"false-alarm rate: (\S+) spent", text)[1])
    assert spent == pytest.approx(spent_by_claims(1e-4), rel=0.01)


@pytest.mark.slow
def test_a_worker_that_dies_is_named(tmp_path):
    text = """
import os
from gradbias.verification.properties.ledgers import LedgerEntry
def test_dies():
    os._exit(1)
def test_claims(gradbias):
    gradbias.record(LedgerEntry(True, {"enumeration": 1}))
"""
    status, printed = run(tmp_path, text, "-n", "1")
    assert status == 1
    assert "1 claim, 1 held" in printed
    assert "workers that ended without handing in their claims: 1" in printed


def test_a_run_that_claims_nothing_is_silent(tmp_path):
    status, text = run(tmp_path, "def test_it():\n    pass\n")
    assert status == 0
    said = [line for line in text.splitlines() if not line.startswith("plugins:")]
    assert not any("gradbias" in line for line in said)


@pytest.mark.slow
def test_deselected_tests_keep_their_share(tmp_path):
    """So that a part of the suite gives the verdicts that the whole gives."""
    _, text = run(tmp_path, CLAIMS, "-k", "sampled")
    assert "15 claims" in text
    spent = float(re.search(r"false-alarm rate: (\S+) spent", text)[1])
    assert spent == pytest.approx(spent_by_claims(1e-4), rel=0.01)


@pytest.mark.slow
def test_a_test_that_spends_beyond_its_share_is_stopped(tmp_path):
    text = """
from gradbias.verification.properties.ledgers import LedgerEntry
def test_it(gradbias):
    gradbias.record(LedgerEntry(True, {"sampling": 1}, spent=1e-4))
"""
    status, printed = run(tmp_path, text)
    assert status == 1
    assert "spent: expected at most 5e-05" in printed


def test_a_budget_that_is_no_rate_is_refused(tmp_path):
    status, text = run(tmp_path, "", "--gradbias-budget", "0.7")
    assert status == 4
    assert "--gradbias-budget: expected a rate above 0 and at most 0.5, got 0.7" in text


def test_the_fixture_has_to_be_asked_for_by_name(tmp_path):
    text = "def test_it(request):\n    request.getfixturevalue('gradbias')\n"
    status, printed = run(tmp_path, text)
    assert status != 0
    assert "gradbias: expected as an argument of the test" in printed
