"""Rates of many claims: they never sum to more than the budget; reports keep a false-discovery
rate."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from verification.error_budgets import ErrorBudget, benjamini_hochberg, e_benjamini_hochberg


@given(
    total=st.floats(1e-12, 0.5),
    claims=st.integers(1, 10_000),
    examples=st.integers(1, 1000),
)
def test_split_rates_never_sum_to_more_than_the_total(total, claims, examples):
    rate = ErrorBudget(total).split(claims=claims, examples=examples)
    assert Fraction(rate) * claims * examples <= Fraction(total)
    assert rate >= total / (claims * examples) * (1 - 1e-15)


@given(total=st.floats(1e-12, 0.5), weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_weighted_rates_never_sum_to_more_than_the_total(total, weights):
    if sum(weights) == 0:
        with pytest.raises(ValueError, match="weights"):
            ErrorBudget(total).by_weight(weights)
        return
    rates = ErrorBudget(total).by_weight(weights)
    assert sum(Fraction(float(r)) for r in rates) <= Fraction(total)
    assert abs(rates.sum() / total - 1) < 1e-12


def test_shares_of_an_unknown_number_of_claims_sum_to_the_total_in_the_limit():
    budget = ErrorBudget(0.05)
    spent = sum(budget.share(k) for k in range(5000))
    assert spent < 0.05
    assert abs(spent - 0.05 * (1 - 1 / 5001)) < 1e-12


def test_what_is_spent_is_gone():
    left = ErrorBudget(0.05).spend(0.02).spend(0.02)
    assert abs(left.total - 0.01) < 1e-15
    with pytest.raises(ValueError, match=r"expected less than the 0.01 left, got 0.02"):
        left.spend(0.02)
    for total in (0.0, 0.6, float("nan")):
        with pytest.raises(ValueError, match="total"):
            ErrorBudget(total)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.sampled_from([0.01, 0.1, 0.3]))
def test_benjamini_hochberg_is_scipy_s(p_values, rate):
    adjusted = stats.false_discovery_control(p_values)
    expected = adjusted <= rate
    near = np.abs(adjusted - rate) < 1e-12
    found = benjamini_hochberg(p_values, rate)
    assert ((found == expected) | near).all()


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=30))
def test_e_values_are_reported_as_their_inverses_would_be(e_values):
    """e-BH is BH on 1 / e."""
    p = [1.0 if e <= 1 else 1 / e for e in e_values]
    both = e_benjamini_hochberg(e_values, 0.1), benjamini_hochberg(p, 0.1)
    worst = [abs(e * k * 0.1 - len(p)) for k, e in enumerate(sorted(e_values, reverse=True), 1)]
    assert (both[0] == both[1]).all() or min(worst) < 1e-9 * len(p)


def test_false_discoveries_of_dependent_e_values_keep_their_rate():
    """40 claims, 30 of them true nulls that share one draw: 4,000 suites, false alarm 1e-6."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(4000):
        nulls = np.full(30, 1 / 0.05 if rng.random() < 0.05 else 0.0)
        reported = e_benjamini_hochberg(np.concatenate([nulls, np.full(10, 1e3)]), 0.2)
        shares.append(reported[:30].sum() / max(reported.sum(), 1))
    assert np.mean(shares) <= 0.2
    assert np.mean(shares) > 0.02  # the suite is not silent
    assert reported[30:].all()


def test_what_is_no_p_or_e_value_is_refused():
    with pytest.raises(ValueError, match="p_values"):
        benjamini_hochberg([0.1, 1.2], 0.1)
    with pytest.raises(ValueError, match="e_values"):
        e_benjamini_hochberg([0.1, -1.0], 0.1)
    assert not benjamini_hochberg([], 0.1).size
