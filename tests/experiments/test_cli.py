"""The command line: answers, files, exit statuses."""

import json
import math
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.evaluation import state_values
from tests.cases.checkout import ROOT
from tests.cases.command_line import CLIFF, SMALL, bad_npz, repeat, run

GOOD = """
import torch

print("a user's file may print")

def surrogate(record):
    print("and so may its surrogate")
    steps = torch.arange(record.rewards.shape[-1])
    weights = record.discount ** steps.double()
    to_go = torch.flip(torch.cumsum(torch.flip(weights * record.rewards, [-1]), -1), [-1])
    return (record.log_probs * to_go).sum(-1).mean()
"""


@pytest.fixture
def user_file(tmp_path):
    path = tmp_path / "my estimator.py"
    path.write_text(GOOD)
    return path


def test_a_user_s_own_file_is_checked_on_a_real_environment(capsys, user_file, tmp_path):
    out = tmp_path / "out"
    name = f"{user_file}:surrogate"
    status, text, _ = run(capsys, "check", name, *CLIFF, "--order", 2, "--out", out)
    assert status == 1
    assert "surrogate: BIASED for the Hessian of the 4-step return" in text
    for word in (
        "absolute",
        "relative",
        "scale",
        "cosine",
        "evidence    enumeration",
        "assumption",
    ):
        assert word in text
    for word in ("per trajectory", "(state 36, action", "time", str(out / "report.html")):
        assert word in text
    status, text, _ = run(capsys, "check", name, *CLIFF)
    assert status == 0
    assert "UNBIASED for the gradient of the 4-step return, discounted state weighting" in text


def test_the_folder_holds_pictures_numbers_and_what_repeats_it(capsys, user_file, tmp_path):
    out = tmp_path / "out"
    options = ("--order", 2, "--theta", "random", "--seed", 5, "--critic", "exact", "--start", "24")
    status, *_ = run(capsys, "check", f"{user_file}:surrogate", *CLIFF, *options, "--out", out)
    assert status == 1
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 2
    assert page.count("<td>36, ") + page.count("<td>24, ") > 4  # the worst components
    assert "http" not in page.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "").replace("https://matplotlib.org", "")
    first = json.loads((out / "report.json").read_text())
    table = (out / "components.csv").read_text().splitlines()
    assert table[0] == "state,action,state1,action1,exact,expected,bias,standard_deviation"
    rows = np.array([[float(x) for x in line.split(",")] for line in table[1:]])
    assert math.isclose(np.linalg.norm(rows[:, 6]), first["bias_norm"], rel_tol=1e-12)
    assert math.isclose(np.linalg.norm(rows[:, 4]), first["target_norm"], rel_tol=1e-12)
    status, text, _ = repeat(capsys, out)
    again = json.loads(text)
    assert status == 1
    for key in ("verdict", "bias_norm", "target_norm", "samples", "deviation_per_trajectory"):
        assert again[key] == first[key]
    (out / "report.html").unlink()
    status, text, _ = run(capsys, "report", out)
    assert status == 0
    assert (out / "report.html").read_text() == page


def test_a_batch_size_is_repeated(capsys, tmp_path):
    given = ("ad", *SMALL, "--batch-size", 2, "--json", "--out", tmp_path)
    _, first, _ = run(capsys, "check", *given)
    assert "--batch-size 2" in (tmp_path / "command.txt").read_text()
    _, again, _ = repeat(capsys, tmp_path)
    assert json.loads(again)["samples"] == json.loads(first)["samples"]


def test_a_file_with_neighbours_repeats_from_its_folder_to_the_last_digit(capsys, tmp_path):
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("FACTOR = 1.5\n")
    (tmp_path / "weights.py").write_text("from helpers import FACTOR\n")
    (tmp_path / "mine.py").write_text(
        "def surrogate(r):\n"
        "    import weights\n"
        "    return weights.FACTOR * (r.log_probs * r.rewards).sum(-1).mean()\n"
    )
    out = tmp_path / "out"
    problem = ("--random", "13x3", "--horizon", 2, "--theta", "random", "--start", "uniform")
    run(capsys, "check", f"{tmp_path / 'mine.py'}:surrogate", *problem, "--out", out)
    first = json.loads((out / "report.json").read_text())
    for name in ("weights.py", "helpers/__init__.py"):
        (tmp_path / name).unlink()
    command = shlex.split((out / "command.txt").read_text())
    found = subprocess.run(
        [sys.executable, "-m", "gradbias", *command[1:], "--json"],
        capture_output=True,
        text=True,
        cwd=out,
        check=False,
    )
    again = json.loads(found.stdout)
    for key in ("bias_norm", "relative_bias", "target_norm", "deviation_per_trajectory"):
        assert again[key] == first[key]


def test_a_check_may_be_written_beside_the_user_s_file(capsys, user_file):
    where = user_file.parent
    status, *_ = run(capsys, "check", f"{user_file}:surrogate", *SMALL, "--out", where)
    assert status == 0
    assert user_file.read_text() == GOOD
    run(capsys, "check", f"{user_file}:surrogate", *SMALL, "--critic", "exact", "--out", where)
    assert (where / "critic.npy").is_file()
    run(capsys, "check", f"{user_file}:surrogate", *SMALL, "--out", where)
    assert not (where / "critic.npy").exists()
    assert not list(where.glob(".*"))


def test_json_stays_alone_on_standard_output(tmp_path):
    path = tmp_path / "loud.py"
    path.write_text(
        "import os, subprocess, sys\n"
        "os.system('echo one')\n"
        "subprocess.run(['echo', 'two'])\n"
        "print('three', file=sys.__stdout__, flush=True)\n"
        "def surrogate(r):\n"
        "    os.write(1, b'four')\n"
        "    return (r.log_probs * r.rewards).sum(-1).mean()\n"
    )
    found = subprocess.run(
        [sys.executable, "-m", "gradbias", "check", f"{path}:surrogate", *SMALL, "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert json.loads(found.stdout)["estimator"] == "surrogate"
    assert "two" in found.stderr


def test_json_is_one_object_and_nothing_else(capsys, user_file):
    status, text, err = run(capsys, "check", f"{user_file}:surrogate", *SMALL, "--json")
    found = json.loads(text)
    assert status == 0
    assert found["verdict"] == "UNBIASED"
    assert np.array(found["bias"]).shape == (2, 2)
    assert "may print" in err


@pytest.mark.parametrize(
    ("name", "order", "expected"),
    [
        ("ad", 1, 0),
        ("lvc", 1, 0),
        ("dice", 1, 0),
        ("loaded_dice", 1, 0),
        ("ad", 2, 1),
        ("lvc", 2, 1),
        ("dice", 2, 0),
        ("loaded_dice", 2, 0),
    ],
)
def test_the_exit_status_is_the_verdict(capsys, name, order, expected):
    status, text, _ = run(capsys, "check", name, *SMALL, "--order", order)
    assert status == expected
    assert ("UNBIASED" in text) == (expected == 0)


def test_undecided_and_vacuous_have_status_three(capsys, no_control):
    sampling = ("--evidence", "sampling", "--budget", 500)
    status, text, _ = run(capsys, "check", "dice", *SMALL, *sampling)
    assert status == 3
    assert "UNDECIDED" in text
    assert "estimates would decide" in text
    lake = ("--gym", "FrozenLake-v1", "--horizon", 4)
    status, text, _ = run(capsys, "check", "dice", *lake)
    assert status == 3
    assert "VACUOUS" in text
    assert "use a longer horizon" in text
    dry = ("--env-option", "is_slippery=False", "--env-option", "map_name=4x4")
    status, text, _ = run(capsys, "check", "dice", "--gym", "FrozenLake-v1", "--horizon", 6, *dry)
    assert status == 0


def test_taxi_is_checked_from_one_start(capsys):
    taxi = ("--gym", "Taxi-v4", "--horizon", 3, "--start", 123)
    status, text, _ = run(capsys, "check", "lvc", *taxi, "--order", 2)
    assert status == 1
    assert "216 outcomes" in text


def test_saved_problems_logits_and_critics_are_read(capsys, tmp_path):
    mdp = TabularMDP.random(3, 2, rng=np.random.default_rng(0), discount=0.8, horizon=3)
    theta = np.random.default_rng(1).normal(size=(3, 2))
    mdp.save(tmp_path / "p.npz")
    np.save(tmp_path / "theta.npy", theta)
    np.save(tmp_path / "critic.npy", state_values(mdp, theta))
    files = ("--npz", tmp_path / "p.npz", "--theta", tmp_path / "theta.npy")
    status, text, _ = run(
        capsys, "check", "ad", *files, "--critic", tmp_path / "critic.npy", "--order", 2
    )
    assert status == 1
    assert "off by 100% of the target's norm" in text
    status, text, _ = run(
        capsys, "check", "dice", *files, "--discount", 1, "--horizon", 2, "--json"
    )
    assert json.loads(text)["target"].startswith("the gradient of the 2-step return")
    status, text, _ = run(capsys, "check", "dice", *files, "--start", "uniform")
    assert status == 0


def test_the_command_line_overrides_what_a_problem_file_says(capsys, tmp_path):
    path = bad_npz(tmp_path / "p.npz", discount=1.0, horizon=None, reward=np.eye(2))
    status, text, _ = run(capsys, "check", "ad", "--npz", path, "--horizon", 2)
    assert status == 0
    assert "2-step return" in text
    status, *_ = run(capsys, "check", "ad", "--npz", path, "--discount", 0.5, "--length", 3)
    assert status == 1


def test_an_infinite_horizon_is_cut_at_a_length(capsys):
    status, text, _ = run(capsys, "check", "ad", "--random", "2x2", "--length", 3)
    assert status == 1
    assert "truncation bias" in text


def test_the_lists_are_printed(capsys):
    status, text, _ = run(capsys, "list")
    assert status == 0
    for word in ("ad, dice, dr_grpo, grpo, loaded_dice, lvc", "Taxi-v4"):
        assert word in text


def test_estimators_made_in_the_user_s_file_keep_their_order(capsys, tmp_path):
    path = tmp_path / "made.py"
    path.write_text(
        "from gradbias.stochastic import dice, from_callable, from_surrogate\n"
        "import neighbour\n"
        "hessian = from_surrogate(dice, order=2)\n"
        "direct = from_callable(lambda batch, theta: 0 * theta, order=1)\n"
        "broken = from_callable(lambda batch, theta: 1 / 0, order=1)\n"
    )
    (tmp_path / "neighbour.py").write_text("")
    assert run(capsys, "check", f"{path}:hessian", *SMALL, "--order", 2)[0] == 0
    result = run(capsys, "check", f"{path}:hessian", *SMALL)
    assert result[0] == 2
    assert "--order: expected 2, the order of" in result[2]
    status, text, _ = run(capsys, "check", f"{path}:direct", *SMALL)
    assert status == 1
    assert "off by 100%" in text
    status, _, error = run(capsys, "check", f"{path}:broken", *SMALL)
    assert status == 2
    assert "ZeroDivisionError" in error


def test_help_and_the_exact_side_start_without_anything_heavy():
    code = (
        "import sys\n"
        "from gradbias import analytic, stochastic, verification\n"
        "from gradbias.experiments.cli import main\n"
        "main(['check', '--help'])\n"
        "heavy = {'torch', 'scipy', 'gymnasium', 'matplotlib', 'sympy'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "heavy: []" in found.stdout
    derive = (
        "import sys, numpy; from gradbias import analytic; analytic.gradient; "
        "print('torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", derive], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize("arguments", [("list",), ("check", "ad", *SMALL)])
def test_a_reader_that_leaves_is_no_bad_input(arguments):
    """`gradbias check ... | head -1`: nothing on stderr, and the status of a broken pipe."""
    command = [sys.executable, "-m", "gradbias", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        errors = running.stderr.read()
    progress = re.compile(rb"ad: [\d,]+ of [\d,]+ \(\d+ s\)\n")  # on a machine that is busy
    assert progress.sub(b"", errors) == b""
    assert running.returncode == 141
