"""`gradbias survey`, and sequential evidence on the command line."""

import csv
import json

import numpy as np
import pytest

from gradbias.verification.sequential.draws import Draws
from tests.cases.command_line import SMALL, repeat, run

HESSIANS = (*SMALL, "--order", 2, "--theta", "random", "--seed", 3)


def test_a_survey_finds_the_biased_ones_and_leaves_everything_behind(capsys, tmp_path):
    out = tmp_path / "out"
    status, text, _ = run(capsys, "survey", "ad", "dice", "lvc", *HESSIANS, "--out", out)
    assert status == 1
    rows = [line.split() for line in text.splitlines()[2:5]]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("ad", "BIASED", "finding"),
        ("dice", "UNBIASED", "exact"),
        ("lvc", "BIASED", "finding"),
    ]
    with open(out / "survey.csv", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["finding"] for row in table] == ["True", "False", "True"]
    for row in table:
        kept = json.loads((out / row["estimator"] / "report.json").read_text())
        assert float(row["relative_bias"]) == kept["relative_bias"]
    assert (out / "survey.png").stat().st_size > 5_000
    assert (out / "survey.svg").read_text().startswith("<svg")
    assert len(json.loads((out / "survey.json").read_text())["reports"]) == 3


def test_a_table_of_sampled_reports_has_both_ends_of_each_interval(capsys, tmp_path):
    out = tmp_path / "out"
    sampled = ("--evidence", "sampling", "--budget", 2000)
    run(capsys, "survey", "ad", "dice", *SMALL, *sampled, "--out", out)
    with open(out / "survey.csv", newline="") as stream:
        for row in csv.DictReader(stream):
            kept = json.loads((out / row["estimator"] / "report.json").read_text())
            assert [float(row["low"]), float(row["high"])] == kept["relative_interval"]
            assert float(row["low"]) <= float(row["relative_bias"]) <= float(row["high"])


def test_its_status_says_whether_any_bias_was_found_or_none_for_certain(
    capsys, tmp_path, no_control
):
    assert run(capsys, "survey", "ad", "dice", *SMALL)[0] == 0
    sampled = ("--evidence", "sampling", "--budget", 2000)
    assert run(capsys, "survey", "ad", "dice", *SMALL, *sampled)[0] == 3
    silent = tmp_path / "silent.py"
    silent.write_text("def loss(record):\n    return 0.0 * record.log_probs.sum()\n")
    assert run(capsys, "survey", "ad", f"{silent}:loss", *SMALL)[0] == 1  # one is off by 100%
    far_from_goal = ("--gym", "FrozenLake-v1", "--horizon", 2)  # no reward within reach
    assert run(capsys, "survey", "ad", *far_from_goal)[0] == 3  # vacuous


def test_a_sampled_bias_that_is_no_finding_leaves_the_survey_undecided(capsys):
    sampled = ("--evidence", "sampling", "--budget", 20_000, "--tolerance", 0.3)
    asked = ("survey", "ad", *SMALL, "--order", 2, *sampled)
    assert run(capsys, *asked)[0] == 1
    status, text, _ = run(capsys, *asked, "--false-discovery", 1e-4)
    assert status == 3
    assert "0 biases found in 1 reports" in text
    assert "BIASED" in text


def test_a_survey_takes_the_same_samples_for_each_and_prints_json_alone(capsys):
    sampled = ("--evidence", "sampling", "--budget", 20_000, "--tolerance", 0.5, "--json")
    status, text, _ = run(capsys, "survey", "ad", "lvc", *SMALL, *sampled)
    first, second = json.loads(text)["reports"]
    assert status == 0
    assert first["bias"] == second["bias"]  # gradients agree on every trajectory
    assert (first["estimator"], second["estimator"]) == ("ad", "lvc")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ad", "ad"), "estimators: expected different names, at least one, got 'ad' twice"),
        ((), "estimators: expected different names, at least one, got none"),
        (("ad", "nothing"), "estimator: expected FILE.py:NAME or one of"),
        (("ad", "--false-discovery", "1.5"), "--false-discovery: expected"),
        (("ad", "--bounds", "-1", "1"), "--bounds: expected --evidence sequential, got auto"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_folder(capsys, tmp_path, arguments, said):
    out = tmp_path / "out"
    status, text, err = run(capsys, "survey", *arguments, *SMALL, "--out", out)
    assert (status, text) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not out.exists()


def test_a_finished_report_survives_a_survey_that_breaks(capsys, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def loss(record):\n    raise RuntimeError('no')\n")
    out = tmp_path / "out"
    status, _, err = run(capsys, "survey", "ad", f"{broken}:loss", *SMALL, "--out", out)
    assert status == 2
    assert "no" in err
    assert (out / "ad" / "report.html").is_file()
    assert not (out / "loss").exists()


def test_an_interrupted_survey_ends_there_and_says_so(capsys, monkeypatch, tmp_path):
    """Ctrl-C while the second of three is sampled."""
    drawn = []

    def take(self, count):
        drawn.append(self.request.estimator.name)
        if drawn.count("dice") == 5:
            raise KeyboardInterrupt
        return plain(self, count)

    plain = Draws.take
    monkeypatch.setattr(Draws, "take", take)
    asked = ("--evidence", "sequential", "--budget", 20_000, "--out", tmp_path)
    status, text, err = run(capsys, "survey", "ad", "dice", "lvc", *SMALL, *asked)
    assert status == 130
    assert "gradbias: interrupted: 2 of 3 estimators were measured" in err
    assert [line.split()[0] for line in text.splitlines()[2:4]] == ["ad", "dice"]
    assert (tmp_path / "dice" / "report.json").exists()
    assert not (tmp_path / "lvc").exists()


def test_sequential_evidence_stops_when_it_is_decided(capsys, tmp_path):
    out = tmp_path / "out"
    options = ("--evidence", "sequential", "--bounds", "-9", "9", "--tolerance", "0.3")
    status, text, _ = run(capsys, "check", "lvc", *HESSIANS, *options, "--out", out)
    assert status == 1
    assert "component's range, that was given; betting, valid at any stopping time" in text
    assert "(decided)" in text
    assert "--bounds -9.0 9.0 --tolerance 0.3" in (out / "command.txt").read_text()
    again, repeated, _ = repeat(capsys, out)
    assert again == 1
    assert (
        json.loads(repeated)["samples"] == json.loads((out / "report.json").read_text())["samples"]
    )


def test_a_sequential_check_goes_on_from_its_checkpoint_as_if_never_stopped(capsys, tmp_path):
    sequential = ("--evidence", "sequential", "--bounds", "-9", "9", "--checkpoint")
    arguments = ("check", "dice", *SMALL, "--json", *sequential)
    whole, in_parts = tmp_path / "whole.npz", tmp_path / "parts.npz"
    found = [
        run(capsys, *arguments, kept, "--budget", budget)
        for kept, budget in ((whole, 8192), (in_parts, 4096), (in_parts, 8192))
    ]
    assert [status for status, *_ in found] == [3, 3, 3]
    once, _, resumed = (json.loads(text) for _, text, _ in found)
    assert once["samples"] == resumed["samples"] == 8192
    assert np.array_equal(once["bias"], resumed["bias"])
    assert once["interval"] == resumed["interval"]
    status, _, err = run(capsys, *arguments, whole, "--tolerance", "0.5")
    assert status == 2
    assert "is of another measurement (rates differ)" in err


def test_what_is_known_of_an_estimate_is_repeated_too(capsys, tmp_path):
    own = ("--evidence", "sequential", "--second-moment", 4, "--budget", 500)
    run(capsys, "check", "dice", *SMALL, *own, "--out", tmp_path)
    assert repeat(capsys, tmp_path)[0] == 3
    assert "--second-moment 4.0" in (tmp_path / "command.txt").read_text()


def test_an_interval_without_an_end_is_printed_as_json(capsys, no_control):
    few = ("--evidence", "sequential", "--budget", 400, "--json")
    for own in ((), ("--second-moment", 4), ("--bounds", "-50", "50")):
        status, text, _ = run(capsys, "check", "off_policy_dice", *SMALL, *few, *own)
        assert status == 3
        assert json.loads(text)["verdict"] == "UNDECIDED"
