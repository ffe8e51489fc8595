"""Of many reports' biases, those that are findings: the false-discovery rate is kept."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import ad, lvc
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.measurement.measure import measure_bias
from gradbias.verification.sequential.measure import measure_bias_sequentially
from gradbias.verification.sequential.surveys import e_benjamini_hochberg, e_value_of, survey

MDP = TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.9, horizon=2)
THETA = np.zeros((2, 2))


def measured(surrogate, **options):
    named = from_surrogate(surrogate, order=2, name=type(surrogate).__name__.lower())
    return measure_bias(named, MDP, THETA, **options)


@pytest.fixture(scope="module")
def sampled():
    """UNBIASED and BIASED, each at a false-alarm rate of 1e-3."""
    options = {"evidence": "sampling", "budget": 40_000, "tolerance": 0.5}
    return measured(dice, **options), measured(ad, **options)


@given(
    st.lists(st.floats(0, 1e4), min_size=1, max_size=30),
    st.sampled_from([0.01, 0.1, 0.3]),
)
def test_e_values_are_reported_as_scipy_reports_their_inverses(e_values, rate):
    adjusted = stats.false_discovery_control([1.0 if e <= 1 else 1 / e for e in e_values])
    near = np.abs(adjusted / rate - 1) < 1e-9
    assert ((e_benjamini_hochberg(e_values, rate) == (adjusted <= rate)) | near).all()


def test_false_findings_of_dependent_e_values_keep_their_rate():
    """40 claims, 30 of them true nulls that share one draw, 4,000 suites: the mean share of false
    findings is 0.0375 (0.05 x 30 / 40), its deviation 0.0026: false alarm far below 1e-6.
    """
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(4000):
        nulls = np.full(30, 1 / 0.05 if rng.random() < 0.05 else 0.0)
        reported = e_benjamini_hochberg(np.concatenate([nulls, np.full(10, 1e3)]), 0.2)
        shares.append(reported[:30].sum() / max(reported.sum(), 1))
    assert 0.02 < np.mean(shares) < 0.055
    assert reported[30:].all()


def test_exact_biases_are_findings_and_exact_zeros_are_not():
    reports = [measured(dice), measured(lvc), measured(ad)]
    found = survey(reports)
    assert found.findings.tolist() == [False, True, True]
    assert found.e_values.tolist() == [0.0, math.inf, math.inf]


def test_one_sampled_bias_among_few_is_a_finding_among_many_it_is_none(sampled):
    unbiased, biased = sampled
    assert [r.verdict for r in sampled] == [Verdict.UNBIASED, Verdict.BIASED]
    assert e_value_of(biased) == pytest.approx(1e3)
    few = survey([biased] + [unbiased] * 9)
    assert few.findings.tolist() == [True] + [False] * 9
    many = survey([biased] + [unbiased] * 99)
    assert not many.findings.any()
    assert survey([biased] * 2 + [unbiased] * 98).findings[:2].all()


def test_exact_reports_do_not_dilute_the_sampled_ones(sampled):
    unbiased, biased = sampled
    for exact, found in ((measured(lvc), True), (measured(dice), False)):
        findings = survey([*[exact] * 200, biased, unbiased]).findings.tolist()
        assert findings == [found] * 200 + [True, False]


def test_a_sequential_report_brings_the_wealth_that_it_ended_with():
    report = measure_bias_sequentially(from_surrogate(lvc, order=2), MDP, THETA, method="betting")
    assert report.verdict is Verdict.BIASED
    assert e_value_of(report) == report.e_value > 1.0
    weak = replace(report, e_value=15.0)
    assert survey([weak], 0.1).findings.all()
    assert not survey([weak], 0.05).findings.any()


def test_the_table_names_every_report_its_bias_and_what_is_found(sampled):
    text = str(survey([measured(lvc), *sampled]))
    lines = text.splitlines()
    assert lines[0].startswith("2 biases found in 3 reports (false-discovery rate 0.05")
    assert [line.split()[0] for line in lines[2:5]] == ["lvc", "dice", "ad"]
    assert [line.endswith("finding") for line in lines[2:5]] == [True, False, True]
    assert lines[5] == f"  target {measured(lvc).target}"
    first = measure_bias(from_surrogate(ad, order=1), MDP, THETA)
    two = str(survey([measured(lvc), first]))
    assert "lvc [1]" in two
    assert "AD() [2]" in two
    assert f"target [2] {first.target}" in two


def test_a_survey_is_plain_data():
    data = survey([measured(lvc), measured(dice)], 0.1).as_dict()
    assert data["false_discovery_rate"] == 0.1
    assert [row["finding"] for row in data["reports"]] == [True, False]
    assert [row["survey_e_value"] for row in data["reports"]] == [None, 0.0]


def test_bad_input_is_named(sampled):
    for reports in ([], sampled[0], [3], "reports"):
        with pytest.raises(ValueError, match="reports: expected at least one"):
            survey(reports)
    for rate in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="rate"):
            survey(sampled, rate)
    for e_values in ([0.1, -1.0], [math.nan], [[1.0]]):
        with pytest.raises(ValueError, match="e_values"):
            e_benjamini_hochberg(e_values, 0.1)
