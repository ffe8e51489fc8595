"""The suite's false-alarm budget is shared out, and never exceeded."""

import math
import subprocess
import sys

import numpy as np
import pytest

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.score_function import ad, lvc
from gradbias.verification.properties.ledgers import Ledger, LedgerEntry, summary_lines
from gradbias.verification.sequential.measure import measure_bias_sequentially

BANDIT = TabularMDP([[[1.0]] * 2], [[1.0, 0.0]], 1.0, [1.0], 1)
THETA = np.zeros((1, 2))


def test_any_number_of_sampled_claims_stays_within_the_share():
    ledger = Ledger(0.01)
    for _ in range(2_000):
        ledger.record(LedgerEntry(True, {"sampling": 1}, spent=ledger.next_rate()))
    assert 0.0099 < ledger.spent < 0.01
    with pytest.raises(ValueError, match="spent: expected at most"):
        ledger.record(LedgerEntry(True, {"sampling": 1}, spent=1e-4))


def test_exact_claims_take_nothing():
    ledger = Ledger()
    first = ledger.next_rate()
    ledger.assert_unbiased(from_surrogate(lvc, order=1), BANDIT, THETA)
    assert (ledger.spent, ledger.next_rate()) == (0.0, first)
    assert ledger.claims == [LedgerEntry(True, {"enumeration": 1})]


def test_a_sampled_claim_is_made_at_the_rate_that_it_may_take():
    ledger = Ledger(1e-2)
    options = {"evidence": "sampling", "budget": 100_000, "tolerance": 0.1}
    for k in (1, 2):
        report = ledger.assert_unbiased(from_surrogate(lvc, order=1), BANDIT, THETA, **options)
        assert report.false_alarm == pytest.approx(1e-2 / (k * (k + 1)))
        assert ledger.claims[-1].smallest_detectable == report.smallest_detectable


def test_a_claim_can_be_made_on_non_asymptotic_intervals():
    ledger = Ledger(1e-2)
    report = ledger.assert_unbiased(
        from_surrogate(lvc, order=1),
        BANDIT,
        THETA,
        measure=measure_bias_sequentially,
        tolerance=0.2,
    )
    assert report.assumption.endswith("betting, valid at any stopping time")
    assert ledger.spent == report.false_alarm == 5e-3


def test_a_claim_that_fails_is_kept_and_raised():
    ledger = Ledger()
    with pytest.raises(AssertionError, match="BIASED for the Hessian"):
        ledger.assert_unbiased(from_surrogate(ad, order=2), BANDIT, THETA)
    assert [claim.held for claim in ledger.claims] == [False]
    with pytest.raises(ValueError, match="false_alarm: the suite's budget sets it"):
        ledger.assert_unbiased(from_surrogate(lvc, order=1), BANDIT, THETA, false_alarm=0.1)


def test_the_summary_counts_what_was_evidence_and_what_was_not():
    claims = [
        LedgerEntry(True, {"enumeration": 20, "moments": 1}, vacuous=4),
        LedgerEntry(False, {"sampling": 3}, undecided=2, spent=2e-5, smallest_detectable=0.03),
        LedgerEntry(True, {"sampling": 1}, spent=1e-5, smallest_detectable=0.01),
    ]
    text = "\n".join(summary_lines(claims, 1e-4))
    assert "3 claims, 2 held; problems measured: 25" in text
    assert "20 enumeration, 1 moments, 4 sampling; of these 4 vacuous" in text
    assert "2 undecided" in text
    assert "3e-05 spent of 0.0001" in text
    assert "weakest sampled claim: 0.03" in text
    assert summary_lines([], 1e-4) == []


@pytest.mark.parametrize("rate", [0.0, -1.0, 0.6, math.nan])
def test_a_share_is_a_rate(rate):
    with pytest.raises(ValueError, match="share: expected a rate"):
        Ledger(rate)


def test_the_plugin_loads_without_anything_heavy_and_hypothesis_is_for_properties_alone():
    heavy = "{'torch', 'numpy', 'scipy', 'hypothesis'}"
    plugin = (
        "import sys, gradbias.verification.properties.pytest_plugin; "
        f"print({heavy} & set(sys.modules))"
    )
    rest = (
        "import sys; from gradbias.verification.measurement import measure; "
        "from gradbias.verification.properties import ledgers, source_code; "
        "print('hypothesis' in sys.modules)"
    )
    for code, printed in ((plugin, "set()"), (rest, "False")):
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == printed
