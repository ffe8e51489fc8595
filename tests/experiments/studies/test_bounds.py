"""`gradbias bounds`: its table, its folder, its complaints."""

import csv
import json
import subprocess
import sys

import pytest

from gradbias.experiments.inputs.commands import Bounds
from gradbias.experiments.reports.study_folder import Panel, Study, StudyRow, draw_studies
from gradbias.experiments.studies.bounds import study_of
from gradbias.verification.bounds.sweep import MEASURES
from tests.cases.command_line import repeat, run

BANDIT = ("--random", "1x2", "--horizon", "1", "--seed", "3")


def test_a_sweep_leaves_numbers_and_pictures_that_repeat(capsys, tmp_path):
    out = tmp_path / "out"
    options = ("--sweep", "batch-size", "--values", 16, 32, 64, "--steps", 2)
    status, text, _ = run(capsys, "bounds", *BANDIT, *options, "--out", out)
    assert status == 0
    for word in ("trajectories N", "looseness", "slopes", "second order", str(out)):
        assert word in text
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [row["batch_size"] for row in rows] == ["16", "32", "64"]
    for row in rows:
        bias, bound = float(row["bias"]), float(row["second_order"])
        assert 0.0 < bias < bound < float(row["printed"])
        assert float(row["looseness"]) == pytest.approx(bound / bias)
    slopes = {
        row["measure"]: row for row in csv.DictReader((out / "slopes.csv").read_text().splitlines())
    }
    assert float(slopes["bias"]["slope"]) == pytest.approx(-1.0, abs=0.05)
    assert (out / "bounds.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "bounds.svg").read_text().startswith("<svg")
    status, text, _ = repeat(capsys, out)
    again = json.loads(text)
    assert status == 0
    assert again["sweep"] == "trajectories N"
    assert [row["bias"] for row in again["rows"]] == [float(row["bias"]) for row in rows]


def test_a_bias_that_is_not_enumerated_says_why_and_what_to_do(capsys):
    """One row has no slope: no empty heading either."""
    for values, told in (((1, 2), False), ((1000,), True)):
        given = ("--random", "2x2", "--horizon", 2, "--values", *values)
        status, text, _ = run(capsys, "bounds", *given)
        assert status == 0
        assert ("too many to enumerate; --replications" in text) == told
        assert ("slopes" in text) != told


@pytest.mark.parametrize("sweep", ["K", "step-size", "hessian-error"])
@pytest.mark.parametrize("loop", ["maml", "lirpg"])
def test_every_sweep_has_defaults(capsys, sweep, loop):
    given = ("--sweep", sweep, "--loop", loop, "--steps", 2, "--json")
    status, text, _ = run(capsys, "bounds", *BANDIT, *given)
    assert status == 0
    rows = json.loads(text)["rows"]
    assert len(rows) >= 4
    for row in rows:
        assert row["bias"] <= min(row["corrected"], row["second_order"])
    expected = sweep == "hessian-error"
    assert all((row["batch_size"] is None) == expected for row in rows)


def test_the_picture_has_a_line_for_each_measure_with_its_slope():
    problem = {"random": "1x2", "horizon": 1, "steps": 1}
    study = study_of(Bounds(**problem, values=(1.0, 2.0, 4.0)))
    (axes,) = draw_studies([study]).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    labels = [line.get_label() for line in axes.lines]
    assert len(labels) == len(MEASURES)
    assert "exact bias\nslope -1.00" in labels
    steps = study_of(Bounds(**problem, sweep="K", values=(1.0, 2.0)))
    (axes,) = draw_studies([steps]).axes
    assert axes.get_xscale() == "linear"
    assert len(draw_studies([study, steps]).axes) == 2


def test_a_sampled_measure_is_drawn_with_its_interval():
    """One that reaches 0, and a row without: neither hides the line."""
    ends = ({"bias": (0.0, 2.0)}, {"bias": (0.5, 1.0)}, {})
    rows = [StudyRow(k + 1, {"bias": 0.8}, each) for k, each in enumerate(ends)]
    panel = Panel({"bias": ("bias", {})}, "N", "title")
    (axes,) = draw_studies([Study("N", rows, ("bias",), [panel])]).axes
    (bars,) = axes.collections
    ends = [segment[:, 1].tolist() for segment in bars.get_segments() if len(segment)]
    assert ends[1] == [0.5, 1.0]
    assert ends[0][1] == 2.0
    assert rows[0].text("bias") == "0.8 +- 1"


def test_bounds_beyond_floats_are_null_and_a_sampled_bias_stands_apart(capsys):
    given = (*BANDIT, "--sweep", "K", "--values", 1, 60, "--step-size", "1e12", "--json")
    status, text, _ = run(capsys, "bounds", *given)
    first, last = json.loads(text)["rows"]
    assert status == 0
    assert first["corrected"] > 0.0
    assert last["corrected"] is None
    given = ("--random", "2x2", "--horizon", 3, "--values", 8, "--replications", 100, "--steps", 1)
    status, text, _ = run(capsys, "bounds", *given)
    (row,) = [line.split() for line in text.splitlines() if "+-" in line]
    assert status == 0
    assert row[0] == "8"
    assert row[2] == "+-"
    assert row[-1] == "-"  # not told from 0: no looseness


@pytest.mark.parametrize("sweep", ["kappa", "K"])
def test_mixes_on_the_chain_leave_numbers_and_a_picture_that_repeat(capsys, tmp_path, sweep):
    out = tmp_path / "out"
    given = ("--loop", "chain", "--sweep", sweep, "--discount", 0.95, "--step-size", 1.0)
    given = (*given, "--steps", 10)
    status, text, _ = run(capsys, "bounds", *given, "--out", out)
    assert status == 0
    assert text.splitlines()[1].split()[-2:] == ["aligned", "decreasing"]
    assert str(out) in text
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    for row in rows:
        bias, bound, variance = (float(row[n]) for n in ("bias", "bias_bound", "variance"))
        assert 0.0 < bias <= bound * (1 + 1e-10)
        assert 0.0 < variance <= float(row["variance_bound"])
    assert any(float(row["bias"]) < float(row["last_bias"]) for row in rows)
    assert (out / "bounds.png").read_bytes().startswith(b"\x89PNG")
    _, text, _ = repeat(capsys, out)
    again = json.loads(text)["rows"]
    assert [repr(row["bias"]) for row in again] == [row["bias"] for row in rows]


def test_options_of_0_are_repeated(capsys, tmp_path):
    """A mix with kappa = 0 is the first step alone; without the option it would be another."""
    given = ("--loop", "chain", "--sweep", "K", "--values", 4, "--kappa", 0, "--discount", 0)
    _, text, _ = run(capsys, "bounds", *given, "--json", "--out", tmp_path / "out")
    status, again, _ = repeat(capsys, tmp_path / "out")
    assert status == 0
    assert json.loads(again)["rows"] == json.loads(text)["rows"]
    assert json.loads(text)["rows"][0]["kappa"] == 0.0


def test_one_batch_for_step_and_hessian_has_bounds_of_its_own(capsys, tmp_path):
    out = tmp_path / "out"
    given = ("--random", "2x2", "--horizon", 2, "--loop", "reuse", "--step-size", 2)
    status, text, _ = run(capsys, "bounds", *given, "--out", out)
    assert status == 0
    assert "used for the step and for its Hessian" in text
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [row["batch_size"] for row in rows] == ["1", "2", "4", "8"]
    for row in rows:
        assert 0.0 < float(row["bias"]) < float(row["reachable"]) <= float(row["everywhere"])
    assert (out / "bounds.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "bounds.svg").read_text().startswith("<svg")
    _, text, _ = repeat(capsys, out)
    assert [repr(row["bias"]) for row in json.loads(text)["rows"]] == [row["bias"] for row in rows]


BAD = {
    "no horizon": (("--random", "1x2"), "--horizon: expected a number of steps"),
    "no problem": ((), "expected one problem"),
    "exact": ((*BANDIT, "--sweep", "hessian-error", "--curvature", "exact"), "--curvature: "),
    "half a step": ((*BANDIT, "--sweep", "K", "--values", "1.5"), "values: expected an integer"),
    "no samples": ((*BANDIT, "--batch-size", "0", "--sweep", "K"), "batch_size: expected"),
    "negative": ((*BANDIT, "--step-size", "-1"), "step_size: expected"),
    "a chain's problem": (
        (*BANDIT, "--loop", "chain", "--sweep", "kappa"),
        "--random: expected none with --loop chain",
    ),
    "a chain's sweep": (("--loop", "chain"), "--sweep: expected kappa or K"),
    "kappa": ((*BANDIT, "--sweep", "kappa"), "kappa: expected --loop chain"),
    "a large kappa": (
        ("--loop", "chain", "--sweep", "kappa", "--values", "2"),
        "values: expected a number",
    ),
    "two steps of one batch": ((*BANDIT, "--loop", "reuse", "--steps", "2"), "--steps: expected 1"),
    "a swept batch": ((*BANDIT, "--loop", "reuse", "--sweep", "K"), "--sweep: expected batch-size"),
    "N and a sweep": (
        (*BANDIT, "--loop", "reuse", "--batch-size", "2"),
        "--batch-size: expected none",
    ),
    "half a sample": ((*BANDIT, "--loop", "reuse", "--values", "1.5"), "batch_size: expected"),
    "no steps": ((*BANDIT, "--steps", "0"), "steps: expected"),
    "unknown": ((*BANDIT, "--sweep", "weather"), "invalid choice"),
    "theta": ((*BANDIT, "--theta", "none.npy"), "--theta none.npy"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_input_is_one_sentence_and_leaves_no_folder(capsys, tmp_path, name):
    arguments, complaint = BAD[name]
    out = tmp_path / "out"
    status, text, error = run(capsys, "bounds", *arguments, "--out", out)
    assert (status, text) == (2, "")
    assert complaint in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_torch_is_not_loaded_for_a_table():
    script = (
        "import sys; from gradbias.experiments.cli import main; "
        "main(['bounds', '--random', '1x2', '--horizon', '1', '--values', '1', '2']); "
        "sys.exit('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert found.returncode == 0, found.stderr
