"""Running the command line inside the tests' own process."""

import contextlib
import shlex

import numpy as np

from gradbias.experiments.cli import main

CLIFF = ("--gym", "CliffWalking-v1", "--horizon", "4", "--discount", "0.9")
SMALL = ("--random", "2x2", "--horizon", "2")


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def repeat(capsys, folder):
    """What a folder's own command line prints as JSON, run inside it."""
    command = shlex.split((folder / "command.txt").read_text())
    assert command[0] == "gradbias"
    with contextlib.chdir(folder):
        return run(capsys, *command[1:], "--json")


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
