"""Rates of many claims never sum to more than the budget."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradbias.verification.confidence.error_budgets import ErrorBudget


@given(
    total=st.floats(1e-12, 0.5),
    claims=st.integers(1, 10_000),
    examples=st.integers(1, 1000),
)
def test_split_rates_never_sum_to_more_than_the_total(total, claims, examples):
    rate = ErrorBudget(total).split(claims=claims, examples=examples)
    assert Fraction(rate) * claims * examples <= Fraction(total)
    assert rate >= total / (claims * examples) * (1 - 1e-15)


@given(total=st.floats(1e-12, 0.5))
def test_shares_of_any_number_of_claims_sum_to_less_than_the_total_and_to_it_in_the_limit(total):
    spent = sum(Fraction(ErrorBudget(total).share(k)) for k in range(500))
    assert spent < Fraction(total)
    assert abs(float(spent) / (total * (1 - 1 / 501)) - 1) < 1e-12


@pytest.mark.parametrize("total", [0.0, 0.6, -0.1, float("nan"), "0.1", None])
def test_a_total_is_a_rate(total):
    with pytest.raises(ValueError, match="total: expected a rate above 0"):
        ErrorBudget(total)


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_counts_are_whole_numbers(count):
    with pytest.raises(ValueError, match="examples"):
        ErrorBudget(0.1).split(claims=2, examples=count)
    with pytest.raises(ValueError, match="index"):
        ErrorBudget(0.1).share(-1 if count == 0 else count)
