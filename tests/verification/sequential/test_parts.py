"""What a sequential measurement is made of, each part written out a second time."""

import math

import numpy as np
import pytest
from scipy import stats

import gradbias.verification.sequential.comparison as comparison
from gradbias.analytic.returns.derivatives import gradient
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import lvc
from gradbias.verification.confidence.control_variates import control_coefficients
from gradbias.verification.confidence.mean_tests import MeanTest
from gradbias.verification.confidence.scaled_sequences import Method, ScaledSequence
from gradbias.verification.confidence.sequences import Betting
from gradbias.verification.evidence.ranges import component_range
from gradbias.verification.evidence.request import Request
from gradbias.verification.evidence.setting import Setting
from gradbias.verification.evidence.verdicts import ErrorRates
from gradbias.verification.sequential.comparison_report import Agreement, ComparisonReport
from gradbias.verification.sequential.draws import Draws
from gradbias.verification.sequential.functionals import (
    ControlVariate,
    Functionals,
    box_of,
    pilot_direction,
)
from gradbias.verification.sequential.plan import MethodChoice, fresh_plan
from gradbias.verification.sequential.power import SequentialDesign, detectable_norm
from gradbias.verification.sequential.stream import SampledBlock, Stopped, Stream
from gradbias.verification.sequential.verdict import tolerance_e_value
from tests.oracles import brute_force as oracles

MDP = oracles.random_mdp(0, horizon=3, n_states=3, n_actions=2)
THETA = np.random.default_rng(1).normal(size=(3, 2))
RATES = ErrorRates(0.01, 0.1, 0.2)


def planned(choice, control=None, estimator=lvc):
    request = Request(from_surrogate(estimator, order=1), Setting.of(MDP, THETA), budget=4000)
    draws = Draws.of(request, control, None)
    return draws, fresh_plan(draws, choice, RATES, gradient(MDP, THETA), 4000)


def test_a_control_s_range_is_added_to_the_estimate_s():
    """x in [a, b] and y in [c, d] leave ``x - k (y - E y)`` a width of (b - a) + |k| (d - c)."""
    mean = gradient(MDP, THETA)
    control = ControlVariate(from_surrogate(dice, order=1), mean)
    draws, plan = planned(MethodChoice("auto", None, None, None), control)
    ours, theirs = (
        component_range(Request(from_surrogate(s, order=1), Setting.of(MDP, THETA)))
        for s in (lvc, dice)
    )
    k = plan.coefficients
    intervals = plan.stream.intervals
    for sign, own, low, high in ((1, "low", "low", "high"), (-1, "high", "high", "low")):
        first = getattr(ours, own).ravel()
        moves = [k * (getattr(theirs, end).ravel() - mean.ravel()) for end in (low, high)]
        expected = first - (np.maximum(*moves) if sign == 1 else np.minimum(*moves))
        np.testing.assert_allclose(getattr(intervals, own)[:6], expected, rtol=1e-12)
    block = plan.block(draws, 2000)
    low, high = intervals.low, intervals.high
    assert (block.functionals >= low - 1e-12).all()
    assert (block.functionals <= high + 1e-12).all()


def test_a_truncated_plan_is_widened_by_v_over_4_t():
    """T = sqrt(v n / (2 log(2 / rate))), at half the false-alarm rate over six components."""
    second = np.linspace(0.5, 2.0, 6).reshape(3, 2)
    _, plan = planned(MethodChoice("truncated", None, second, None))
    level = np.sqrt(second.ravel() * 4000 / (2 * math.log(2 / (0.1 / 2 / 6))))
    np.testing.assert_allclose(plan.level, level)
    slack = second.ravel() / (4 * level)
    direction = np.abs(plan.functionals.direction)
    np.testing.assert_allclose(plan.stream.intervals.slack, [*slack, direction @ slack])
    np.testing.assert_allclose(plan.stream.intervals.high, [*level, direction @ level])


def stream_of(values, reading, low, high, centre, parts=1):
    ends = reading.range_of(np.asarray(low, float), np.asarray(high, float))
    empty = Stream.empty(ScaledSequence.bounded(*ends, Method.BETTING, 0.1), centre, parts)
    return empty.updated(SampledBlock(values, reading.of(values), np.abs(values).max()), {})


def wealth(x, candidate, sign, low, high):
    unit = Betting.empty(1).updated(((x - low) / (high - low))[:, None])
    at = np.array([min(max((candidate - low) / (high - low), 0.0), 1.0)])
    return math.exp(unit.log_wealth(at, sign)[0])


def test_the_e_value_is_wealth_against_the_ends_of_the_tolerance():
    """Half on the direction, half over two components and both signs, each against the nearer end
    of what the tolerance allows."""
    values = np.random.default_rng(0).random((400, 2)) * np.array([1.0, 0.5])
    exact, tolerated = np.array([0.2, 0.4]), 0.05
    reading = Functionals(None, np.array([0.6, -0.8]))
    stream = stream_of(values, reading, [0, 0], [1, 0.5], exact)
    parts = [
        wealth(values[:, k], exact[k] + sign * tolerated, sign, 0.0, high)
        for k, high in ((0, 1.0), (1, 0.5))
        for sign in (1, -1)
    ]
    along = values @ reading.direction
    directed = wealth(along, exact @ reading.direction + tolerated, 1, -0.4, 0.6)
    found = tolerance_e_value(stream, reading, exact, tolerated)
    np.testing.assert_allclose(found, np.mean(parts) / 2 + directed / 2, rtol=1e-9)
    assert parts[0] > 1 > parts[1]
    assert parts[3] > 1 > parts[2]
    assert directed > 1


def test_a_comparison_s_rate_is_split_over_all_that_it_says():
    """Three quarters over the difference's and the reference's components that vary, a quarter for
    the direction."""
    values = np.random.default_rng(0).random((400, 4)) - np.array([0.2, 0.6, 0.0, 0.0])
    values[:, 3] = 0.0
    reading = Functionals(None, pilot_direction(np.array([0.3, -0.1, 0.0, 0.0])))
    low, high = [-1, -1, 0, 0], [1, 1, 1, 0]
    stream = stream_of(values, reading, low, high, np.zeros(4), parts=2)
    (least, most), (near, far) = comparison._norms(stream, 2, 0.2)
    reach = np.abs(reading.direction[:2]).sum()
    ends = [
        ScaledSequence.bounded(np.array([a]), np.array([b]), Method.BETTING, 0.1)
        .updated(x[:, None])
        .bounds(rate)
        for a, b, x, rate in (
            (-1.0, 1.0, values[:, 0], 0.15 / 3),
            (-1.0, 1.0, values[:, 1], 0.15 / 3),
            (0.0, 1.0, values[:, 2], 0.15 / 3),
            (-reach, reach, values @ reading.direction, 0.05),
        )
    ]
    gaps = [max(e[0][0], -e[1][0], 0.0) for e in ends[:2]]
    np.testing.assert_allclose(least, max(math.hypot(*gaps), ends[3][0][0]), rtol=1e-9)
    np.testing.assert_allclose(
        most, math.hypot(*(max(abs(e[0][0]), abs(e[1][0])) for e in ends[:2]))
    )
    np.testing.assert_allclose([near, far], [ends[2][0][0], ends[2][1][0]], rtol=1e-9)


def test_the_relative_interval_divides_by_the_farther_end():
    zeros = np.zeros(2)
    report = ComparisonReport(
        "one", "two", Agreement.UNDECIDED, None, "", zeros, zeros, (1.0, 6.0), (2.0, 3.0),
        0.1, 0.1, "", 1, Stopped.BUDGET, 0.0,
    )  # fmt: skip
    assert report.relative_interval == (1 / 3, 3.0)


def test_a_stream_keeps_the_largest_of_all_blocks():
    """Of each part; a block of small estimates does not make it forget."""
    reading = Functionals(None, None)
    centre = np.array([1.0, 0.0])
    stream = stream_of(np.array([[1.0, 3.0], [0.0, 0.0]]), reading, [-9, -9], [9, 9], centre, 2)
    small = np.array([[1.0, 0.5]])
    stream = stream.updated(SampledBlock(small, small, 0.5), {})
    assert stream.largest == 3.0
    np.testing.assert_array_equal(stream.squares, [[1.0, 9.25], [1.0, 9.0]])
    assert stream.largest_share == 1.0
    flat = np.array([[1.0, 2.0]])
    stream = stream_of(flat, reading, [-9, -9], [9, 9], centre, 2)
    assert stream.largest_share == 1.0  # the first part does not vary: the second's


def test_a_control_that_varies_by_rounding_takes_nothing_off():
    rng = np.random.default_rng(0)
    flat = 0.1 + 1e-17 * rng.normal(size=(500, 1))
    flat[:250] = np.nextafter(0.1, 1.0)
    values = rng.normal(size=(500, 1))
    assert control_coefficients(values, flat)[0] == 0.0
    assert abs(control_coefficients(values, 3 * values + flat)[0] - 1 / 3) < 1e-9


def law():
    """A skewed vector of two components in [0, 1] x [0, 2], and its mean."""
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    values = np.array([[0.0, 0.1], [0.3, 0.0], [0.5, 0.4], [1.0, 2.0]])
    return values, np.cumsum(probabilities), probabilities @ values


def runs_of(n, bias, runs, seed, rates=RATES, looks=4):
    """For each run whether it said BIASED at some look, and its detectable norm where it ended."""
    values, cumulative, mean = law()
    rng = np.random.default_rng(seed)
    target, tolerated = mean - bias, 0.01
    found, sizes = [], []
    for _ in range(runs):

        def draw(count):
            at = np.minimum(np.searchsorted(cumulative, rng.random(count), side="right"), 3)
            return values[at]

        reading = Functionals(None, pilot_direction(draw(100).mean(axis=0) - target))
        ends = reading.range_of(np.zeros(2), np.array([1.0, 2.0]))
        stream = Stream.empty(ScaledSequence.bounded(*ends, Method.BETTING, 0.1), target)
        verdict = None
        while verdict is None and stream.count < n:
            block = draw(min(-(-n // looks), n - stream.count))
            stream = stream.updated(SampledBlock(block, reading.of(block), 1.0), {})
            low, high = box_of(stream, reading, target, rates.false_alarm).norm
            if low > tolerated or high <= tolerated:
                verdict = low > tolerated
        found.append(bool(verdict))
        sizes.append(detectable_norm(stream, reading, tolerated, rates))
    return np.array(found), np.array(sizes)


@pytest.mark.parametrize("axis", [None, pytest.param(1, marks=pytest.mark.slow)])
def test_a_bias_of_the_designed_size_is_found_within_the_budget(axis):
    """60 runs at a missed-bias rate of 20%: a rate just kept fails at 1e-3 (binomial)."""
    design = SequentialDesign(np.array([1.0, 2.0]), 0.01, 0.1, 0.2)
    # Downwards: the target stays within the range, where it is not refuted for nothing.
    direction = -np.ones(2) / math.sqrt(2) if axis is None else -np.eye(2)[axis]
    n = design.samples_needed(0.3)
    assert design.smallest_detectable_bias(n) <= 0.3 < design.smallest_detectable_bias(n // 2)
    found, _ = runs_of(n, 0.3 * direction, 60, seed=1)
    assert not exceeds((~found).sum(), 60)
    # A tenth of it in a tenth of the samples is not: the broken twin.
    found, _ = runs_of(n // 10, 0.03 * direction, 60, seed=1)
    assert exceeds((~found).sum(), 60)


def exceeds(count, runs):
    return stats.binom.sf(count - 1, runs, RATES.missed_bias) < 1e-3


def test_what_a_stopped_run_says_it_would_have_found_it_has_found():
    """Its number depends on the sample: runs with a bias above their own number that did not say
    BIASED are at most the missed-bias rate; 60 runs, at 1e-3 (binomial)."""
    direction = -np.ones(2) / math.sqrt(2)
    found, sizes = runs_of(60, 0.9 * direction, 60, seed=2, looks=1)
    assert (sizes <= 0.9).mean() > 0.3
    assert not exceeds((~found & (sizes <= 0.9)).sum(), 60)
    # A fifth of the number is not found: the broken twin.
    found, sizes = runs_of(60, 0.18 * direction, 60, seed=2, looks=1)
    assert exceeds((~found & (sizes / 5 <= 0.18)).sum(), 60)


def test_the_detectable_norm_is_where_two_boxes_leave_each_other():
    """Written out: the largest gap between the nearest end at one rate and the farther at the
    other, over components; in projections' lengths and back, if there are any."""
    values, _, mean = law()
    sample = values[np.random.default_rng(0).integers(0, 4, 500)]
    low, high = np.zeros(2), np.array([1.0, 2.0])
    for directed in (False, True):
        reading = Functionals(None, np.array([0.6, 0.8]) if directed else None)
        stream = stream_of(sample, reading, low, high, mean)
        alone = Betting.empty(2).updated(sample / high)
        ours = alone.bounds((0.05 if directed else 0.1) / 2)
        theirs = alone.bounds(0.2 / 2)
        gaps = np.maximum(theirs[1] - ours[0], ours[1] - theirs[0]) * high
        found = detectable_norm(stream, reading, 0.01, RATES)
        np.testing.assert_allclose(found, 0.01 + np.linalg.norm(gaps), rtol=1e-9)
    matrix = np.random.default_rng(1).normal(size=(3, 2))
    reading = Functionals(matrix, None)
    stream = stream_of(sample, reading, low, high, mean)
    ends = reading.range_of(low, high)
    alone = Betting.empty(3).updated((sample @ matrix.T - ends[0]) / (ends[1] - ends[0]))
    ours, theirs = alone.bounds(0.05 / 3), alone.bounds(0.1 / 3)
    gaps = np.maximum(theirs[1] - ours[0], ours[1] - theirs[0]) * (ends[1] - ends[0])
    far, near = math.sqrt(stats.chi2.isf(0.025, 3)), math.sqrt(stats.chi2.ppf(0.05, 3))
    expected = (0.01 * far + np.linalg.norm(gaps)) / near
    np.testing.assert_allclose(detectable_norm(stream, reading, 0.01, RATES), expected, rtol=1e-9)


def test_nothing_is_promised_at_a_missed_rate_below_the_false_alarm_s():
    """A run may end wrongly UNBIASED as often as that."""
    widths = np.array([1.0, 2.0])
    assert SequentialDesign(widths, 0.01, 0.1, 0.05).smallest_detectable_bias(10**6) == math.inf
    assert SequentialDesign(widths, 0.01, 0.1, 0.05).samples_needed(0.5) is None
    assert SequentialDesign(0 * widths, 0.01, 0.1, 0.2).smallest_detectable_bias(1) == 0.01
    one = SequentialDesign(np.array([2.0]), 0.0, 0.1, 0.2)
    expected = 2 * MeanTest(0.0, 1.0, 0.1, 0.1).smallest_detectable_bias(300)
    np.testing.assert_allclose(one.smallest_detectable_bias(300), expected)
    two = SequentialDesign(np.array([2.0, 0.0]), 0.0, 0.1, 0.2)
    expected = 2 * MeanTest(0.0, 1.0, 0.05, 0.1).smallest_detectable_bias(300)
    np.testing.assert_allclose(two.smallest_detectable_bias(300), expected)
    both = SequentialDesign(np.array([2.0, 1.0]), 0.05, 0.1, 0.2)  # each rate is shared by the two
    expected = math.hypot(2, 1) * MeanTest(0.0, 1.0, 0.025, 0.05).smallest_detectable_bias(300)
    np.testing.assert_allclose(both.smallest_detectable_bias(300), 0.05 + expected)
