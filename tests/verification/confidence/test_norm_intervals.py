"""The interval for a bias norm: its coverage, power and design, by simulation.

Normal means are drawn directly; the spread from samples is calibrated in the slow suite. Each
calibration fails a right method with probability below 1e-6
(Hoeffding), and would see a false-alarm rate of five points above the nominal one.
"""

import math

import numpy as np
import pytest

from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.verification.confidence.norm_intervals import Spread, estimate_spread
from tests.oracles import brute_force as oracles

RUNS = 4000
FALSE_ALARM = 0.05
SPECTRA = {
    "one dimension": np.array([4.0]),
    "five equal": np.ones(5),
    "many": np.ones(300),
    "one large of many": np.concatenate([[50.0], np.full(200, 0.1)]),
}


def spread_of(spectrum):
    return Spread(float(spectrum.sum()), float(np.sqrt((spectrum**2).sum())))


def distances(spectrum, bias, n, seed):
    """|mean - target| for RUNS normal means with a bias of that norm, along the widest axis."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(RUNS, len(spectrum))) * np.sqrt(spectrum / n)
    noise[:, np.argmax(spectrum)] += bias
    return np.linalg.norm(noise, axis=1)


@pytest.mark.parametrize("bias", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("name", sorted(SPECTRA))
def test_intervals_hold_the_bias_at_least_as_often_as_they_say(name, bias):
    spectrum, n = SPECTRA[name], 400
    spread = spread_of(spectrum)
    intervals = [spread.interval(d, n, FALSE_ALARM) for d in distances(spectrum, bias, n, seed=1)]
    held = sum(i.low <= bias <= i.high for i in intervals)
    slack = oracles.hoeffding_slack(RUNS, 1e-6)
    assert held / RUNS >= 1 - FALSE_ALARM - slack
    assert all(i.low <= i.point <= i.high for i in intervals)


def test_an_interval_that_is_too_short_would_be_caught():
    spectrum, n = SPECTRA["one dimension"], 400
    spread = Spread(*(0.15 * value for value in (spectrum.sum(), spectrum.sum())))
    ds = distances(spectrum, 0.0, n, seed=1)
    held = np.mean([spread.interval(d, n, FALSE_ALARM).low <= 0.0 for d in ds])
    assert held < 1 - FALSE_ALARM - oracles.hoeffding_slack(RUNS, 1e-6)


@pytest.mark.parametrize("name", sorted(SPECTRA))
def test_the_smallest_detectable_bias_is_detected(name):
    spectrum, n, tolerance, missed = SPECTRA[name], 400, 0.05, 0.05
    spread = spread_of(spectrum)
    bias = spread.smallest_detectable(n, tolerance, FALSE_ALARM, missed)
    found = [
        spread.interval(d, n, FALSE_ALARM).low > tolerance
        for d in distances(spectrum, bias, n, seed=2)
    ]
    assert np.mean(found) >= 1 - missed - oracles.hoeffding_slack(RUNS, 1e-6)


@pytest.mark.parametrize("bias", [0.0, 0.3])
@pytest.mark.parametrize("name", sorted(SPECTRA))
def test_the_samples_to_decide_decide(name, bias):
    spectrum, tolerance, missed = SPECTRA[name], 0.1, 0.05
    spread = spread_of(spectrum)
    n = spread.samples_to_decide(bias, tolerance, FALSE_ALARM, missed)
    intervals = [spread.interval(d, n, FALSE_ALARM) for d in distances(spectrum, bias, n, seed=3)]
    decided = [i.low > tolerance if bias > tolerance else i.high <= tolerance for i in intervals]
    assert np.mean(decided) >= 1 - missed - oracles.hoeffding_slack(RUNS, 1e-6)
    fewer = n // 50
    undecided = [
        i.low <= tolerance < i.high
        for i in (
            spread.interval(d, fewer, FALSE_ALARM) for d in distances(spectrum, bias, fewer, seed=3)
        )
    ]
    # A fiftieth of them does not: no promise, but what makes the number mean something.
    assert np.mean(undecided) > 0.9


def test_no_number_of_samples_decides_at_the_tolerance():
    assert Spread(1.0, 1.0).samples_to_decide(0.1, 0.1, 1e-3, 1e-2) is None


@pytest.mark.parametrize("sparse", [False, True])
def test_the_spread_is_estimated_from_pairs(sparse):
    rng = np.random.default_rng(0)
    scales = np.array([3.0, 1.0, 0.5, 0.1])
    values = 7.0 + rng.normal(size=(512, 4)) * scales
    indices = np.tile(np.array([9, 2, 5, 0]), (512, 1)) if sparse else None
    rows = Rows(values, indices, (10,) if sparse else (4,), 1.0)
    trace = float((scales**2).sum())
    found = estimate_spread(trace, [rows])
    assert 0.95 < found.frobenius / math.sqrt((scales**4).sum()) < 1.3
    assert found.trace == trace
