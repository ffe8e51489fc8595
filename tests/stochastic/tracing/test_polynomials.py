"""Exact numbers: polynomials in symbols, truncated in infinitesimals."""

import math
from fractions import Fraction

import numpy as np
import pytest

from gradbias.stochastic.tracing.polynomials import (
    MAX_EXPONENT,
    InexactError,
    Polynomial,
    exponential,
    exponents,
    fixed,
    inverse,
    is_plain,
    logarithm,
    power,
    symbol,
    value,
)

ORDER = 3
X, Y = symbol(0, ORDER), symbol(1, ORDER)
LOG, PI = symbol(2, ORDER), symbol(3, ORDER)
SMALL = symbol(4, ORDER, infinitesimal=True)
OTHER = symbol(5, ORDER, infinitesimal=True)
PROBABILITY = frozenset([3])


def at(number, point):
    """A number at a point, its infinitesimals taken for numbers."""
    if is_plain(number):
        return number
    return sum(
        coefficient * math.prod(point[i] ** e for i, e in exponents(monomial))
        for part in number.parts
        for monomial, coefficient in part.items()
    )


def random_number(rng):
    """A polynomial of low degree, with infinitesimals to the first power at most."""
    number = Fraction(int(rng.integers(-5, 6)), int(rng.integers(1, 4)))
    for part in rng.permutation(4):
        number = number + int(rng.integers(-3, 4)) * [X, Y * X, PI, SMALL * Y][part]
    return number


@pytest.mark.parametrize("seed", range(5))
def test_sums_and_products_are_those_of_values(seed):
    rng = np.random.default_rng(seed)
    point = [Fraction(int(n), 7) for n in rng.integers(1, 20, size=6)]
    one, other = random_number(rng), random_number(rng)
    a, b = at(one, point), at(other, point)
    assert at(one + other, point) == a + b
    assert at(one - other, point) == a - b
    assert at(3 - one, point) == 3 - a
    assert at(one * other, point) == a * b
    assert at(power(one, 2, PROBABILITY), point) == a * a
    assert at(-one * Fraction(1, 3), point) == -a / 3


def test_what_cancels_is_a_plain_number():
    assert X - X == 0
    assert isinstance((X + 1) - X, int)
    assert (X + SMALL) * 0 == 0
    assert value(X - X + 2 + SMALL) == 2
    assert value(X) is None
    assert fixed(X * 2 + SMALL * X) == X * 2


def test_products_of_too_many_infinitesimals_are_dropped():
    assert SMALL * SMALL * SMALL != 0
    assert SMALL * SMALL * SMALL * SMALL == 0
    first = symbol(4, 1, infinitesimal=True)
    assert first * first == 0


def test_exponents_of_both_signs_are_read_back():
    product = power(PI, -5, PROBABILITY) * power(X, 7, PROBABILITY) * Y
    ((monomial, coefficient),) = product.parts[0].items()
    assert dict(exponents(monomial)) == {0: 7, 1: 1, 3: -5}
    assert coefficient == 1


def test_exponentials_and_logarithms_are_series_around_probabilities():
    grown = exponential(LOG + SMALL, {2: 3})
    assert grown == PI * (
        1 + SMALL + SMALL * SMALL * Fraction(1, 2) + SMALL * SMALL * SMALL * Fraction(1, 6)
    )
    assert exponential(LOG - LOG + SMALL - SMALL, {2: 3}) == 1
    assert logarithm(grown, {3: 2}) == LOG + SMALL
    assert exponential(logarithm(grown, {3: 2}), {2: 3}) == grown
    both = exponential(2 * LOG + SMALL + OTHER, {2: 3})
    assert both == grown * PI * exponential(OTHER, {2: 3})
    assert inverse(grown, PROBABILITY) * grown == 1
    assert inverse(Fraction(2, 3), PROBABILITY) == Fraction(3, 2)


@pytest.mark.parametrize(
    ("compute", "text"),
    [
        (lambda: exponential(X, {2: 3}), "no sum of log-probabilities"),
        (lambda: exponential(LOG * LOG, {2: 3}), "no sum of log-probabilities"),
        (lambda: exponential(LOG * Fraction(1, 2), {2: 3}), "no sum of log-probabilities"),
        (lambda: exponential(1, {2: 3}), "exp of a number that is not 0"),
        (lambda: logarithm(PI + X, {3: 2}), "no product of probabilities"),
        (lambda: logarithm(PI * 2, {3: 2}), "no product of probabilities"),
        (lambda: logarithm(2, {3: 2}), "log of a number that is not 1"),
        (lambda: inverse(X, PROBABILITY), "division by what is no product"),
        (lambda: inverse(PI + 1, PROBABILITY), "division by what is no product"),
        (lambda: inverse(0, PROBABILITY), "division by 0"),
        (lambda: power(X, MAX_EXPONENT + 1, PROBABILITY), "a power of"),
        (lambda: power(power(X, MAX_EXPONENT, PROBABILITY), 2, PROBABILITY), "too large"),
        (lambda: bool(X), "a comparison of a symbol"),
    ],
)
def test_what_has_no_exact_result_is_refused(compute, text):
    with pytest.raises(InexactError, match=text):
        compute()


def test_equal_polynomials_are_equal_however_they_came_about():
    assert (X + Y) * (X - Y) == X * X - Y * Y
    assert isinstance(X, Polynomial)
    assert X != Y
