"""`check --certificate FILE`: the answer is kept, and the next run is compared with it."""

import json
from pathlib import Path

import numpy as np
import pytest

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.experiments.reports.kept_checks import KeptCertificate
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import ad
from gradbias.verification.measurement.measure import measure_bias
from tests.cases.command_line import SMALL, run

LOSS = """
def surrogate(record):
    returns = record.rewards.flip(-1).cumsum(-1).flip(-1)
    return {factor} * (record.log_probs * returns).sum(-1).mean()
"""


def check(capsys, path, *more, estimator="dice"):
    return run(capsys, "check", estimator, *SMALL, "--certificate", path, *more)


def changed(path, **values):
    found = json.loads(path.read_text()) | values
    if found["evidence"] != "sampling":
        found["bias_norm"] = float(np.linalg.norm(found["bias"]))
    path.write_text(json.dumps(found))


def test_the_first_run_writes_what_json_prints_and_the_next_agrees(capsys, tmp_path):
    path = tmp_path / "dice.json"
    status, text, errors = check(capsys, path)
    assert status == 0
    assert "UNBIASED" in text
    assert f"wrote the certificate {path}" in errors
    _, printed, _ = run(capsys, "check", "dice", *SMALL, "--json")
    kept, now = json.loads(path.read_text()), json.loads(printed)
    assert {**kept, "seconds": 0} == {**now, "seconds": 0}
    before = path.read_bytes()
    status, text, errors = check(capsys, path)
    assert (status, errors) == (0, "gradbias: certificate dice.json: unchanged\n")
    assert path.read_bytes() == before
    printed_one = tmp_path / "printed.json"
    printed_one.write_text(printed)
    assert check(capsys, printed_one)[0] == 0


def test_a_bias_that_is_known_ends_well_as_long_as_it_stays(capsys, tmp_path):
    path = tmp_path / "lvc.json"
    options = {"estimator": "lvc"}
    assert check(capsys, path, "--order", 2, **options)[0] == 1
    assert check(capsys, path, "--order", 2, **options)[0] == 0
    assert check(capsys, path, "--order", 2, "--json", **options)[0] == 0


def test_an_estimator_that_was_changed_is_one_line_and_status_one(capsys, tmp_path):
    loss, path = tmp_path / "loss.py", tmp_path / "loss.json"
    loss.write_text(LOSS.format(factor="1.0"))
    name = f"{loss}:surrogate"
    discount = ("--discount", 1.0)
    assert check(capsys, path, *discount, estimator=name)[0] == 0
    loss.write_text(LOSS.format(factor="1.0001"))
    status, _, errors = check(capsys, path, *discount, estimator=name)
    assert status == 1
    assert len(errors.splitlines()) == 1
    assert "verdict was UNBIASED, is BIASED" in errors
    assert "bias norm was" in errors
    loss.write_text(LOSS.format(factor="1.0"))
    assert check(capsys, path, *discount, estimator=name)[0] == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"verdict": "BIASED"}, "verdict was BIASED, is UNBIASED"),
        ({"target": "the gradient of another return"}, "target was the gradient of another"),
        ({"evidence": "moments"}, "evidence was moments, is enumeration"),
        ({"target_norm": 1.0}, "another problem or policy"),
        ({"bias": [[1e-3, 0.0], [0.0, 0.0]], "tolerance": 1e9}, "moved by 0.001"),
        ({"scope": "N = 7"}, "scope was N = 7, is N = 1, at this MDP and policy"),
        ({"bias": [[1e-3, 0.0], [0.0, 0.0]]}, "moved by 0.001"),
        ({"bias": [0.0]}, "another shape"),
    ],
)
def test_what_differs_is_named(capsys, tmp_path, change, text):
    path = tmp_path / "dice.json"
    check(capsys, path)
    changed(path, **change)
    status, _, errors = check(capsys, path)
    assert status == 1
    assert text in errors
    assert len(errors.splitlines()) == 1


def test_a_bias_that_moves_by_rounding_has_not_changed(capsys, tmp_path):
    path = tmp_path / "lvc.json"
    check(capsys, path, "--order", 2, estimator="lvc")
    found = json.loads(path.read_text())
    bias = np.array(found["bias"])
    moved = bias * (1 + 1e-13)
    changed(path, bias=moved.tolist())
    assert check(capsys, path, "--order", 2, estimator="lvc")[0] == 0
    changed(path, bias=(bias * (1 + 1e-6)).tolist())
    assert check(capsys, path, "--order", 2, estimator="lvc")[0] == 1


def test_a_bias_is_judged_in_its_own_unit():
    """Rewards of a millionth: a bias that moved by a part in ten thousand has moved."""
    mdp = TabularMDP([[[1.0], [1.0]]], [[1e-6, 0.0]], 1.0, [1.0], 1)
    report = measure_bias(from_surrogate(ad, order=2), mdp, np.zeros((1, 2)))
    found = json.loads(json.dumps(report.as_dict()))
    assert KeptCertificate(Path("kept.json"), found).settle(report) is None
    bias = np.array(found["bias"]) * (1 + 1e-4)
    found |= {"bias": bias.tolist(), "bias_norm": float(np.linalg.norm(bias))}
    assert "moved by" in KeptCertificate(Path("kept.json"), found).settle(report)


def test_a_bias_that_turned_around_has_moved(capsys, tmp_path):
    path = tmp_path / "lvc.json"
    check(capsys, path, "--order", 2, estimator="lvc")
    changed(path, bias=(-np.array(json.loads(path.read_text())["bias"])).tolist())
    status, _, errors = check(capsys, path, "--order", 2, estimator="lvc")
    assert status == 1
    assert "moved by" in errors


def test_a_target_that_moved_by_more_than_rounding_is_another(capsys, tmp_path):
    path = tmp_path / "dice.json"
    check(capsys, path)
    norm = json.loads(path.read_text())["target_norm"]
    for factor, said in ((1 + 1e-12, False), (1 + 1e-7, True), (1 - 1e-7, True)):
        changed(path, target_norm=norm * factor)
        status, _, errors = check(capsys, path)
        assert (status == 1) == said == ("another problem or policy" in errors)


def test_intervals_that_overlap_agree_whichever_ends_where(capsys, tmp_path, no_control):
    path = tmp_path / "sampled.json"
    sampled = ("--evidence", "sampling", "--budget", "2000")
    check(capsys, path, *sampled)
    low, high = json.loads(path.read_text())["interval"]
    wide = 0.5 * (high - low)
    for moved in (-wide, wide):
        changed(path, interval=[low + moved, high + moved])
        assert "bias norm was" not in check(capsys, path, *sampled)[2]
    for moved in (-5.0 * wide, 5.0 * wide):
        changed(path, interval=[low + moved, high + moved])
        assert "bias norm was" in check(capsys, path, *sampled)[2]


def test_sampled_biases_are_compared_by_their_intervals(capsys, tmp_path):
    path = tmp_path / "sampled.json"
    options = ("--evidence", "sampling", "--budget", 2000)
    assert check(capsys, path, *options)[0] in (0, 3)
    changed(path, bias=(np.array(json.loads(path.read_text())["bias"]) + 1e-4).tolist())
    assert check(capsys, path, *options)[0] == 0
    low, high = json.loads(path.read_text())["interval"]
    changed(path, interval=[high + 1.0, high + 2.0])
    status, _, errors = check(capsys, path, *options)
    assert status == 1
    assert f"is in [{low:.3g}, {high:.3g}]" in errors


@pytest.mark.parametrize(
    ("option", "kept", "wider"), [("tolerance", 0.3, 0.6), ("false-alarm", 1e-4, 0.4)]
)
def test_a_weaker_claim_of_samples_is_a_change_and_a_stronger_one_is_none(
    capsys, tmp_path, option, kept, wider
):
    """ "Unbiased to within 60%" is not what the certificate of "to within 30%" says."""
    path = tmp_path / "ad.json"
    sampled = ("--evidence", "sequential", "--budget", 60_000)
    sampled += () if option == "tolerance" else ("--tolerance", 0.6)
    options = {"estimator": "ad"}
    assert check(capsys, path, *sampled, f"--{option}", kept, **options)[0] == 0
    status, text, errors = check(capsys, path, *sampled, f"--{option}", wider, **options)
    assert "UNBIASED" in text
    assert status == 1
    assert f"{option.replace('-', '_')} was {kept:g}, is {wider:g}" in errors
    path.unlink()
    assert check(capsys, path, *sampled, f"--{option}", wider, **options)[0] == 0
    assert check(capsys, path, *sampled, f"--{option}", kept, **options)[0] == 0


def good():
    numbers = {"bias_norm": 0.0, "target_norm": 1.0, "tolerance": 1e-9, "order": 1}
    words = dict.fromkeys(("verdict", "target", "evidence", "scope"), "x")
    return {**words, **numbers, "estimator": "dice", "bias": [[0.0, 0.0], [0.0, 0.0]]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "expected JSON"),
        ("not json", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ("[1, 2]", "expected one JSON object"),
        ("{}", "got an invalid 'verdict'"),
        (json.dumps(good() | {"bias_norm": "many"}), "got an invalid 'bias_norm'"),
        (json.dumps(good() | {"tolerance": True}), "got an invalid 'tolerance'"),
        (json.dumps(good() | {"target_norm": float("nan")}), "got an invalid 'target_norm'"),
        (json.dumps(good() | {"bias": [[1.0], [1.0, 2.0]]}), "got an invalid 'bias'"),
        (json.dumps(good() | {"bias": [[None, 1.0]]}), "got an invalid 'bias'"),
        (json.dumps(good() | {"bias": {"a": 1}}), "got an invalid 'bias'"),
        (json.dumps(good() | {"order": [1]}), "got an invalid 'order'"),
        (json.dumps(good() | {"tolerance": -1.0}), "got an invalid 'tolerance'"),
        (json.dumps(good() | {"bias_norm": 1e9}), "got an invalid 'bias_norm'"),
        (json.dumps(good() | {"evidence": "sampling"}), "got an invalid 'interval'"),
        (
            json.dumps(good() | {"evidence": "sampling", "interval": [1, 0]}),
            "got an invalid 'interval'",
        ),
        (json.dumps(good() | {"interval": [0, 1]}), "got an invalid 'interval'"),
        (json.dumps(good() | {"interval": [1.0]}), "got an invalid 'interval'"),
        (
            json.dumps(good() | {"estimator": "lvc"}),
            "expected one of the same check, got another estimator: 'lvc'",
        ),
        (json.dumps(good() | {"order": 2}), "expected one of the same check, got another order: 2"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_bad_and_foreign_files_are_status_two(capsys, tmp_path, content, text):
    path = tmp_path / "kept.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = path.read_bytes()
    status, printed, errors = check(capsys, path)
    assert status == 2
    assert printed == ""
    assert text in errors
    assert len(errors.splitlines()) == 1
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_status_two(capsys, tmp_path):
    for path in (tmp_path / "none" / "kept.json", tmp_path):
        status, _, errors = check(capsys, path)
        assert status == 2
        assert "--certificate" in errors
    assert check(capsys, "")[0] == 2


def test_a_check_that_fails_leaves_no_certificate(capsys, tmp_path):
    path = tmp_path / "kept.json"
    assert check(capsys, path, estimator="nothing")[0] == 2
    assert not path.exists()


def test_another_problem_is_not_taken_for_the_same(capsys, tmp_path):
    """An unbiased estimator's bias is 0 on both; the target's norm tells them apart."""
    path = tmp_path / "dice.json"
    check(capsys, path)
    for option in (("--seed", 1), ("--discount", 0.25)):
        status, _, errors = check(capsys, path, *option)
        assert status == 1
        assert "target norm was" in errors
        assert "another problem or policy" in errors


def test_rounding_moves_nothing_where_the_target_is_zero():
    """At one step and equal rewards the bias is what rounding leaves, on every machine another."""
    bandit = TabularMDP(np.ones((1, 3, 1)), np.full((1, 3), 0.7), 1.0, np.ones(1), 1)
    report = measure_bias(from_surrogate(dice, order=1), bandit, np.array([[0.3, 0.1, 0.2]]))
    found = json.loads(json.dumps(report.as_dict()))
    bias = np.array(found["bias"]) + 3e-17
    found |= {"bias": bias.tolist(), "bias_norm": float(np.linalg.norm(bias))}
    assert KeptCertificate(Path("kept.json"), found).settle(report) is None


def test_symbolic_evidence_on_the_command_line(capsys, tmp_path):
    path = tmp_path / "dice.json"
    status, text, _ = check(capsys, path, "--order", 2, "--evidence", "symbolic")
    assert status == 0
    assert "N = 1, at this MDP, for every policy" in text
    assert check(capsys, path, "--order", 2, "--evidence", "symbolic")[0] == 0
    status, _, errors = check(capsys, path, "--order", 2)
    assert status == 1
    assert "evidence was symbolic, is enumeration" in errors
    options = ("--order", 2, "--evidence", "symbolic")
    status, text, _ = run(capsys, "check", "lvc", *SMALL, *options)
    assert status == 1
    assert "note        formula: " in text
    status, _, errors = run(capsys, "check", "rloo", *SMALL, *options, "--batch-size", 2)
    assert status == 2
    assert "evidence: symbolic is for estimators that do not couple" in errors
