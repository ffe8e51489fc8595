"""The command line: answers, exit statuses, and one sentence for each kind of bad input."""

import json
import math
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from analytic.problems import TabularMDP
from analytic.values import state_values
from experiments.cli import main

ROOT = Path(__file__).resolve().parents[2]
CLIFF = ("--gym", "CliffWalking-v1", "--horizon", "4", "--discount", "0.9")
SMALL = ("--random", "2x2", "--horizon", "2")

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


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


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
    assert "http" not in page.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "").replace("https://matplotlib.org", "")
    first = json.loads((out / "report.json").read_text())
    table = (out / "components.csv").read_text().splitlines()
    assert table[0] == "state,action,state1,action1,exact,expected,bias,standard_deviation"
    rows = np.array([[float(x) for x in line.split(",")] for line in table[1:]])
    assert math.isclose(np.linalg.norm(rows[:, 6]), first["bias_norm"], rel_tol=1e-12)
    assert math.isclose(np.linalg.norm(rows[:, 4]), first["target_norm"], rel_tol=1e-12)
    command = shlex.split((out / "command.txt").read_text())
    assert command[0] == "gradbias"
    before = os.getcwd()
    os.chdir(out)
    try:
        status, text, _ = run(capsys, *command[1:], "--json")
    finally:
        os.chdir(before)
    again = json.loads(text)
    assert status == 1
    for key in ("verdict", "bias_norm", "target_norm", "samples", "deviation_per_trajectory"):
        assert again[key] == first[key]
    (out / "report.html").unlink()
    status, text, _ = run(capsys, "report", out)
    assert status == 0
    assert (out / "report.html").read_text() == page


def test_a_file_with_neighbours_repeats_from_its_folder_to_the_last_digit(capsys, tmp_path):
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("FACTOR = 1.5\n")
    (tmp_path / "weights.py").write_text("from helpers import FACTOR\n")
    (tmp_path / "mine.py").write_text(
        "import weights\n"
        "def surrogate(r):\n"
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


def test_undecided_and_vacuous_have_status_three(capsys):
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
    assert "the mean is 0" in text or "relative 1" in text
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
    for word in ("ad, dice, loaded_dice, lvc", "Taxi-v4"):
        assert word in text


def bad_npz(path, **changes):
    arrays = {
        "transition": np.full((2, 2, 2), 0.5),
        "reward": np.ones((2, 2)),
        "discount": 0.9,
        "start": [1.0, 0.0],
        "horizon": 2,
    }
    arrays |= changes
    np.savez(path, **{k: np.asarray(v) for k, v in arrays.items() if v is not None})
    return path


NPZ = {
    "rows that do not sum to one": ({"transition": np.full((2, 2, 2), 0.4)}, "sum to one"),
    "negative": (
        {"transition": np.tile([1.5, -0.5], (2, 2, 1))},
        "transition: expected probabilities, got -0.5",
    ),
    "shapes": ({"reward": np.ones((3, 2))}, "reward: expected shape"),
    "nan": ({"reward": np.full((2, 2), np.nan)}, "reward: expected finite numbers"),
    "infinite": ({"start": [np.inf, 0.0]}, "start: expected finite numbers"),
    "discount": ({"discount": 1.5}, "discount: expected a number in [0, 1]"),
    "discount 1": ({"discount": 1.0, "horizon": None}, "discount: 1 needs a finite horizon"),
    "start": ({"start": [0.5, 0.4]}, "start: expected probabilities that sum to one"),
    "horizon": ({"horizon": -1}, "horizon: expected a whole number >= 1, got -1"),
    "fractional horizon": ({"horizon": 2.5}, "horizon: expected a whole number"),
    "missing array": ({"start": None}, "expected an array named start"),
    "strings": ({"reward": [["a", "b"], ["c", "d"]]}, "reward: expected real numbers"),
    "pickled": ({"reward": np.array([[{}, {}], [{}, {}]], dtype=object)}, "pickled"),
}


def assert_one_sentence(result, complaint):
    status, out, err = result
    assert status == 2
    assert out == ""
    lines = [line for line in err.splitlines() if "may" not in line]
    assert len(lines) == 1, err
    assert lines[0].startswith("gradbias: ")
    assert complaint in lines[0]
    assert "Traceback" not in err


@pytest.mark.parametrize("name", sorted(NPZ))
def test_a_bad_problem_file_is_refused(capsys, tmp_path, name):
    changes, complaint = NPZ[name]
    path = bad_npz(tmp_path / "p.npz", **changes)
    assert_one_sentence(run(capsys, "check", "ad", "--npz", path), complaint)


OPTIONS = {
    "unknown environment": (("ad", "--gym", "Nowhere-v0"), "--gym Nowhere-v0: cannot be made"),
    "no table": (("ad", "--gym", "CartPole-v1", "--horizon", 2), "expected an environment with a"),
    "unknown option": (
        ("ad", "--gym", "FrozenLake-v1", "--env-option", "colour=red"),
        "unexpected keyword argument 'colour'",
    ),
    "malformed option": (
        ("ad", "--gym", "FrozenLake-v1", "--env-option", "slippery"),
        "expected KEY=VALUE, got 'slippery'",
    ),
    "option without gym": (("ad", *SMALL, "--env-option", "a=1"), "--env-option: only with --gym"),
    "two problems": (("ad", *SMALL, "--gym", "Taxi-v4"), "got --gym and --random"),
    "no problem": (("ad",), "expected one problem (--npz, --gym or --random), got none"),
    "missing file": (("ad", "--npz", "none.npz"), "none.npz: no such file"),
    "size": (("ad", "--random", "2by2", "--horizon", 2), "expected SxA such as 3x2, got '2by2'"),
    "empty size": (("ad", "--random", "0x2", "--horizon", 2), "expected SxA"),
    "unknown built-in": (("maml", *SMALL), "expected FILE.py:NAME or one of ad, dice"),
    "no such file": (("none.py:f", *SMALL), "none.py: no such file"),
    "order 0": (("ad", *SMALL, "--order", 0), "--order: expected 1 or 2, got 0"),
    "order 3": (("ad", *SMALL, "--order", 3), "--order: expected 1 or 2, got 3"),
    "negative horizon": (("ad", "--random", "2x2", "--horizon", -2), "got -2"),
    "horizon 0": (("ad", "--random", "2x2", "--horizon", 0), "--horizon: expected a whole number"),
    "no horizon": (("ad", "--random", "2x2"), "the horizon is infinite"),
    "discount": (("ad", *SMALL, "--discount", 1.5), "discount: expected a number in [0, 1]"),
    "negative discount": (("ad", *SMALL, "--discount", -0.5), "discount"),
    "discount 1": (("ad", "--random", "2x2", "--discount", 1), "needs a finite horizon"),
    "discount nan": (("ad", *SMALL, "--discount", "nan"), "discount: expected a number"),
    "start": (("ad", *SMALL, "--start", 7), "--start: expected 'uniform' or a state from 0 to 1"),
    "start word": (("ad", *SMALL, "--start", "here"), "got 'here'"),
    "seed": (("ad", *SMALL, "--seed", -1), "--seed: expected a whole number >= 0"),
    "too large": (
        ("ad", "--random", "5x5", "--horizon", 9, "--evidence", "enumeration"),
        "more than the limit of 1,000,000; use sampling",
    ),
    "moments": (("ad", *SMALL, "--evidence", "moments"), "moments is not implemented"),
    "tolerance": (("ad", *SMALL, "--tolerance", 0), "tolerance"),
    "false alarm": (("ad", *SMALL, "--false-alarm", 2), "false_alarm"),
    "budget": (("ad", *SMALL, "--evidence", "sampling", "--budget", 5), "at least 100"),
    "trajectories": (("ad", *SMALL, "--trajectories", 0), "trajectories: expected a whole number"),
    "missing theta": (("ad", *SMALL, "--theta", "none.npy"), "--theta none.npy: no such file"),
    "missing critic": (("ad", *SMALL, "--critic", "none.npy"), "--critic none.npy: no such file"),
    "not a number": (("ad", *SMALL, "--order", "two"), "--order"),
    "unknown flag": (("ad", *SMALL, "--horizn", "2"), "--horizn"),
    "unknown evidence": (("ad", *SMALL, "--evidence", "guess"), "evidence"),
    "too many states": (("ad", "--random", "200000x2", "--horizon", 2), "out of memory"),
    "too many steps": (("ad", "--random", "2x2", "--horizon", 10**9), "at most 5,000 steps"),
    "odd option": (("ad", "--gym", "FrozenLake-v1", "--env-option", "a={[]:1}"), "cannot be made"),
    "odd start": (("ad", *SMALL, "--start", "²"), "--start: expected"),
    "no folder": (("ad", *SMALL, "--out", ""), "--out: expected a folder"),
    "no budget": (("ad", *SMALL, "--budget", 0), "--budget: expected a whole number"),
    "unwritable": (("ad", *SMALL, "--out", "/proc/nowhere"), "--out /proc/nowhere: cannot be"),
}


def test_broken_archives_are_refused(capsys, tmp_path):
    good = bad_npz(tmp_path / "good.npz").read_bytes()
    half, text, single = (tmp_path / name for name in ("half.npz", "text.npz", "single.npz"))
    half.write_bytes(good[: len(good) // 2])
    with zipfile.ZipFile(text, "w") as archive:
        for name in ("transition", "reward", "discount", "start"):
            archive.writestr(name, "hello")
    with open(single, "wb") as stream:
        np.save(stream, np.eye(2))
    flipped = bytearray(good)
    flipped[60:90] = bytes(30)
    (tmp_path / "flipped.npz").write_bytes(bytes(flipped))
    for path in (half, text, single, tmp_path / "flipped.npz"):
        result = run(capsys, "check", "ad", "--npz", path)
        assert_one_sentence(result, path.name)
    result = run(capsys, "check", "ad", *SMALL, "--theta", half)
    assert_one_sentence(result, "expected an npy array")


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_bad_option_is_refused(capsys, name):
    arguments, complaint = OPTIONS[name]
    assert_one_sentence(run(capsys, "check", *arguments), complaint)


ARRAYS = {
    "shape": (np.zeros((3, 2)), "expected shape (2, 2), got (3, 2)"),
    "infinite": (np.full((2, 2), np.inf), "expected finite numbers"),
    "nan": (np.full((2, 2), np.nan), "expected finite numbers"),
    "complex": (np.zeros((2, 2), dtype=complex), "expected one array of real numbers"),
    "pickled": (np.array([[{}, 1], [2, 3]], dtype=object), "it holds pickled data"),
}


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_bad_logits_are_refused(capsys, tmp_path, name):
    array, complaint = ARRAYS[name]
    np.save(tmp_path / "theta.npy", array)
    result = run(capsys, "check", "ad", *SMALL, "--theta", tmp_path / "theta.npy")
    assert_one_sentence(result, complaint)


def test_a_junk_array_and_an_archive_are_no_logits(capsys, tmp_path):
    (tmp_path / "junk.npy").write_text("nothing")
    np.savez(tmp_path / "a.npz", a=np.zeros((2, 2)))
    for name in ("junk.npy", "a.npz"):
        result = run(capsys, "check", "ad", *SMALL, "--theta", tmp_path / name)
        assert_one_sentence(result, f"--theta {tmp_path / name}")


def test_a_bad_critic_is_refused(capsys, tmp_path):
    np.save(tmp_path / "critic.npy", np.zeros(5))
    result = run(capsys, "check", "ad", *SMALL, "--critic", tmp_path / "critic.npy")
    assert_one_sentence(result, "critic: expected shape (2,) or (3, 2), got (5,)")


FILES = {
    "no such name": ("x = 1\n", "expected something called 'surrogate', got none"),
    "not callable": ("surrogate = 3\n", "expected 'surrogate' to be callable, got int"),
    "does not parse": ("x = 1\ndef surrogate(:\n", "cannot be imported (line 2): SyntaxError"),
    "raises on import": (
        "x = 1\n\nraise RuntimeError('first\\nnot ready')\n",
        "cannot be imported (line 3): RuntimeError: first not ready",
    ),
    "exits on import": ("import sys\nsys.exit(0)\n", "cannot be imported (line 2): SystemExit"),
    "neighbour does not parse": ("import broken_neighbour\n", "(broken_neighbour.py, line 1)"),
    "raises what no one catches": (
        "class E(BaseException): pass\nraise E('deep')\n",
        "cannot be imported (line 2): user_mine.E: deep",
    ),
    "surrogate raises what no one catches": (
        "class E(BaseException): pass\ndef surrogate(r):\n    raise E('deep')\n",
        "stopped by E: deep",
    ),
    "raises in backward": (
        (
            "def surrogate(r):\n"
            "    x = r.log_probs * 1.0\n"
            "    x.register_hook(lambda g: {}['k'])\n"
            "    return x.sum(-1).mean()\n"
        ),
        "could not be differentiated: raised KeyError: 'k'",
    ),
    "missing import": ("import nothing_of_the_kind\n", "No module named 'nothing_of_the_kind'"),
    "raises": ("def surrogate(r):\n    return 1 / 0\n", "raised ZeroDivisionError"),
    "exits": ("import sys\ndef surrogate(r):\n    sys.exit(0)\n", "called sys.exit"),
    "not a scalar": ("def surrogate(r):\n    return r.log_probs\n", "expected a scalar"),
    "detached": ("def surrogate(r):\n    return r.log_probs.sum().detach()\n", "detached"),
    "nan": ("def surrogate(r):\n    return r.log_probs.sum() * float('nan')\n", "returned nan"),
    "random": (
        "import torch\ndef surrogate(r):\n    return r.log_probs.sum() * torch.rand(())\n",
        "drew random numbers",
    ),
    "mutates": (
        "def surrogate(r):\n    r.rewards.zero_()\n    return r.log_probs.sum()\n",
        "changed record.rewards in place",
    ),
    "coupled": (
        "def surrogate(r):\n    return (r.log_probs * r.rewards).sum()\n",
        "give trajectories, --trajectories N",
    ),
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_bad_user_file_is_refused(capsys, tmp_path, name):
    text, complaint = FILES[name]
    path = tmp_path / "mine.py"
    path.write_text(text)
    (tmp_path / "broken_neighbour.py").write_text("def (\n")
    assert_one_sentence(run(capsys, "check", f"{path}:surrogate", *SMALL), complaint)


def test_estimators_made_in_the_user_s_file_keep_their_order(capsys, tmp_path):
    path = tmp_path / "made.py"
    path.write_text(
        "from stochastic import dice, from_callable, from_surrogate\n"
        "import neighbour\n"
        "hessian = from_surrogate(dice, 2)\n"
        "direct = from_callable(lambda batch, theta: 0 * theta)\n"
        "broken = from_callable(lambda batch, theta: 1 / 0)\n"
    )
    (tmp_path / "neighbour.py").write_text("")
    assert run(capsys, "check", f"{path}:hessian", *SMALL, "--order", 2)[0] == 0
    result = run(capsys, "check", f"{path}:hessian", *SMALL)
    assert_one_sentence(result, "--order: expected 2, the order of")
    assert run(capsys, "check", f"{path}:direct", *SMALL)[0] == 3
    assert_one_sentence(run(capsys, "check", f"{path}:broken", *SMALL), "ZeroDivisionError")


def test_a_folder_without_a_check_is_no_report(capsys, tmp_path):
    assert_one_sentence(run(capsys, "report", tmp_path), "expected the data of a check")
    for text in ("{}", "[1]", '{"verdict": "X"}', "not json"):
        (tmp_path / "report.json").write_text(text)
        assert_one_sentence(run(capsys, "report", tmp_path), "expected the data of a check")
        (tmp_path / "arrays.npz").write_bytes(b"PK\x03\x04junk")


def test_help_and_the_exact_side_start_without_anything_heavy():
    code = (
        "import sys\n"
        "import analytic, stochastic, verification, experiments.cli\n"
        "from experiments.cli import main\n"
        "main(['check', '--help'])\n"
        "heavy = {'torch', 'scipy', 'gymnasium', 'matplotlib', 'sympy'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "heavy: []" in found.stdout
    derive = "import sys, numpy; import analytic; analytic.gradient; print('torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", derive], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert found.stdout.strip() == "False"


def test_a_foreign_package_in_the_way_is_named(tmp_path):
    (tmp_path / "stochastic").mkdir()
    (tmp_path / "stochastic" / "__init__.py").write_text("")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    found = subprocess.run(
        [sys.executable, "-m", "gradbias", "list"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert found.returncode == 2
    assert len(found.stderr.splitlines()) == 1
    assert "another package called 'stochastic'" in found.stderr
