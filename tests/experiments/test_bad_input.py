"""Bad input: one clear sentence on stderr, exit status 2, nothing on stdout, no traceback."""

import zipfile

import numpy as np
import pytest

from tests.cases.command_line import SMALL, bad_npz, run

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
    "unknown built-in": (
        ("maml", *SMALL),
        "expected FILE.py:NAME or one of actor_critic",
    ),
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
    "moments": (
        ("ad", "--random", "90x5", "--horizon", 40, "--order", 2, "--evidence", "moments"),
        "evidence: expected moments that take at most",
    ),
    "tolerance": (("ad", *SMALL, "--tolerance", 0), "tolerance"),
    "false alarm": (("ad", *SMALL, "--false-alarm", 2), "false_alarm"),
    "budget": (("ad", *SMALL, "--evidence", "sampling", "--budget", 5), "at least 100"),
    "trajectories": (("ad", *SMALL, "--batch-size", 0), "batch_size: expected a whole number"),
    "missing theta": (("ad", *SMALL, "--theta", "none.npy"), "--theta none.npy: no such file"),
    "missing critic": (("ad", *SMALL, "--critic", "none.npy"), "--critic none.npy: no such file"),
    "not a number": (("ad", *SMALL, "--order", "two"), "--order"),
    "unknown flag": (("ad", *SMALL, "--horizn", "2"), "--horizn"),
    "unknown evidence": (("ad", *SMALL, "--evidence", "guess"), "evidence"),
    "too many states": (
        ("ad", "--random", "200000x2", "--horizon", 2),
        "expected at most 200,000,000",
    ),
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
        "stopped: raised E: deep",
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
    "needs several": (
        (
            "def surrogate(r):\n"
            "    total = r.rewards.sum(-1)\n"
            "    return (total / total.std() * r.log_probs.sum(-1)).mean()\n"
        ),
        "if it needs a batch of several, give batch_size",
    ),
    "needs four": (
        (
            "def surrogate(r):\n"
            "    return (r.rewards.sum(-1) * r.log_probs.sum(-1)).reshape(-1, 4).max(1)[0].mean()\n"
        ),
        "if it needs a batch of several, give batch_size",
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
        "give batch_size, --batch-size N",
    ),
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_bad_user_file_is_refused(capsys, tmp_path, name):
    text, complaint = FILES[name]
    path = tmp_path / "mine.py"
    path.write_text(text)
    (tmp_path / "broken_neighbour.py").write_text("def (\n")
    assert_one_sentence(run(capsys, "check", f"{path}:surrogate", *SMALL), complaint)


def test_a_folder_without_a_check_is_no_report(capsys, tmp_path):
    assert_one_sentence(run(capsys, "report", tmp_path), "expected the data of a check")
    for text in ("{}", "[1]", '{"verdict": "X"}', "not json"):
        (tmp_path / "report.json").write_text(text)
        assert_one_sentence(run(capsys, "report", tmp_path), "expected the data of a check")
        (tmp_path / "arrays.npz").write_bytes(b"PK\x03\x04junk")


def test_bad_input_leaves_no_folder(capsys, tmp_path):
    out = tmp_path / "out"
    result = run(capsys, "check", "ad", "--random", "2x2", "--horizon", 0, "--out", out)
    assert_one_sentence(result, "--horizon: expected a whole number")
    assert not out.exists()
