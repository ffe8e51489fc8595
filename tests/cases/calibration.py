"""False-alarm rates of intervals, measured: estimators with a known mean, and methods by name.

Runs are columns, so that thousands of them are one array. A case is a discrete or continuous
distribution of one number, with its exact mean and, where it has them, its range and second moment.
A case of an estimator is the distribution of one component of its estimate over all trajectories.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.off_policy import OffPolicyDice
from gradbias.stochastic.surrogates.score_function import ad
from gradbias.verification.confidence.scaled_sequences import (
    Method,
    ScaledSequence,
    truncation_level,
    truncation_slack,
)
from gradbias.verification.confidence.sequences import Asymptotic, Betting, EmpiricalBernstein
from gradbias.verification.evidence.enumeration import Enumeration
from gradbias.verification.evidence.ranges import component_range
from gradbias.verification.evidence.request import Request
from gradbias.verification.evidence.setting import Setting
from gradbias.verification.evidence.verdicts import ErrorRates
from gradbias.verification.sequential.functionals import Functionals, box_of, pilot_direction
from gradbias.verification.sequential.power import SequentialDesign, detectable_norm
from gradbias.verification.sequential.stream import SampledBlock, Stream

LOOKS = (64, 128, 256, 512, 1024)


@dataclass(frozen=True, eq=False)
class Case:
    """A distribution, by ``draw(rng, shape)``, with its exact ``mean``, range and second moment."""

    name: str
    kind: str
    draw: object
    mean: float
    low: float | None
    high: float | None
    second: float


def discrete(name, kind, values, weights, low=None, high=None):
    values, weights = np.asarray(values, float), np.asarray(weights, float) / np.sum(weights)
    cumulative = np.cumsum(weights)
    cumulative[-1] = 1.0

    def draw(rng, shape):
        return values[np.searchsorted(cumulative, rng.random(shape), side="right")]

    ends = (values.min() if low is None else low, values.max() if high is None else high)
    return Case(name, kind, draw, float(weights @ values), *ends, float(weights @ values**2))


def pareto(power):
    """The Pareto distribution of minimum 1; below power 3 its third moment is infinite."""
    mean, second = power / (power - 1), power / (power - 2)
    return Case(
        f"Pareto, tail power {power:g}",
        "heavy",
        lambda rng, shape: 1.0 + rng.pareto(power, shape),
        mean,
        None,
        None,
        second,
    )


def asked_for(surrogate, mdp, theta, drawn):
    """A request for a surrogate's gradient."""
    return Request(from_surrogate(surrogate, order=1), Setting.of(mdp, theta, behaviour=drawn))


def component_law(name, kind, surrogate, mdp, theta, entry, behaviour=None):
    """The distribution of one component of a gradient estimate, by enumeration."""
    drawn = theta if behaviour is None else behaviour
    request = asked_for(surrogate, mdp, theta, drawn)
    values, weights = [], []
    evaluator = None
    for batch, probability in Enumeration.of(mdp, TABULAR, drawn, mdp.horizon).batches(
        1, ordered=True, block=4096
    ):
        evaluator = evaluator or request.estimator.prepare(batch, request.context)
        values.append(evaluator.rows(batch).dense()[:, *entry])
        weights.append(probability)
    known = component_range(request)
    ends = (None, None) if known is None else (known.low[entry], known.high[entry])
    return discrete(name, kind, np.concatenate(values), np.concatenate(weights), *ends)


def jackpot_mdp(probability, prizes):
    rows = np.zeros((3, 2, 3))
    rows[0, :, 1], rows[0, :, 2] = probability, 1 - probability
    rows[1, :, 1] = rows[2, :, 2] = 1.0
    reward = np.zeros((3, 2, 3))
    reward[0, :, 1] = prizes
    return TabularMDP(rows, reward, 1.0, [1.0, 0.0, 0.0], 1)


def cases():
    """Easy, skewed and heavy-tailed distributions, synthetic and of estimates."""
    mdp = TabularMDP.random(3, 2, rng=np.random.default_rng(0), discount=0.9, horizon=3)
    theta = np.random.default_rng(1).normal(size=(3, 2))
    bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.3]], 0.9, [1.0], horizon=1)
    rare = np.array([[0.0, math.log(0.002 / 0.998)]])
    return [
        discrete("fair coin", "easy", [0, 1], [0.5, 0.5]),
        Case("uniform", "easy", lambda rng, s: rng.random(s), 0.5, 0.0, 1.0, 1 / 3),
        component_law("AD's gradient, 3 states, H = 3", "easy", ad, mdp, theta, (0, 0)),
        discrete("coin of 1 in 100", "skewed", [0, 1], [0.99, 0.01]),
        Case(
            "beta(1/20, 19/20)", "skewed", lambda r, s: r.beta(0.05, 0.95, s), 0.05, 0, 1, 0.02625
        ),
        component_law(
            "AD's gradient, prize of 1 in 300",
            "skewed",
            ad,
            jackpot_mdp(1 / 300, [800, 400]),
            np.array([[0.0, 2.0], [0, 0], [0, 0]]),
            (0, 0),
        ),
        discrete("coin and jackpot of 1 in 100,000", "heavy", [0.0, 1e-4, 1], [0.5, 0.49999, 1e-5]),
        discrete("jackpot of 1 in 2,000", "heavy", [0.0, 1.0], [1 - 1 / 2000, 1 / 2000]),
        component_law(
            "off-policy DiCE, weights to 250",
            "heavy",
            OffPolicyDice(),
            bandit,
            np.zeros((1, 2)),
            (0, 1),
            behaviour=rare,
        ),
        pareto(2.5),
    ]


class StudentT:
    """The t-interval at whatever time it is looked at: no confidence sequence."""

    def __init__(self):
        self.parts = []

    def updated(self, observed):
        new = StudentT()
        new.parts = [*self.parts, observed]
        return new

    def bounds(self, rate):
        x = np.concatenate(self.parts)
        n = len(x)
        radius = stats.t.isf(rate / 2, n - 1) * x.std(axis=0, ddof=1) / math.sqrt(n)
        return x.mean(axis=0) - radius, x.mean(axis=0) + radius


class Narrowed:
    """The planted error: intervals half as wide as they should be."""

    def __init__(self, inner):
        self.inner = inner

    def updated(self, observed):
        return Narrowed(self.inner.updated(observed))

    def bounds(self, rate):
        low, high = self.inner.bounds(rate)
        middle, half = (low + high) / 2, (high - low) / 4
        return middle - half, middle + half


def sequence_of(method, case, runs, rate, samples):
    """An empty sequence for ``runs`` columns, or None where the method does not apply."""
    if method == "t":
        return StudentT()
    if method is Method.ASYMPTOTIC:
        return ScaledSequence(Asymptotic.empty(runs, samples // 4))
    if method is Method.TRUNCATED:
        second = np.full(runs, case.second)
        level = truncation_level(second, samples, rate)
        return ScaledSequence.truncated(level, truncation_slack(second, level))
    if case.low is None:
        return None
    ends = np.full(runs, float(case.low)), np.full(runs, float(case.high))
    empty = Betting.empty(runs)
    if method is Method.EMPIRICAL_BERNSTEIN:
        empty = EmpiricalBernstein.empty(runs, rate)
    return ScaledSequence(empty, *ends)


def misses(method, case, runs, rate, seed, looks=LOOKS, wrap=lambda s: s):
    """Whether each run's interval missed the mean at some look, and at the last one, ``[runs]``
    each; None where the method does not apply."""
    sequence = sequence_of(method, case, runs, rate, looks[-1])
    if sequence is None:
        return None
    sequence = wrap(sequence)
    rng = np.random.default_rng(seed)
    ever = np.zeros(runs, dtype=bool)
    done = 0
    for n in looks:
        observed = case.draw(rng, (n - done, runs))
        if method is Method.TRUNCATED:
            inner = getattr(sequence, "inner", sequence)
            observed = np.clip(observed, inner.low, inner.high)
        sequence, done = sequence.updated(observed), n
        low, high = sequence.bounds(rate)
        # A range that ends at the mean is no miss by rounding.
        slack = 1e-12 * max(abs(case.mean), 1.0)
        outside = (case.mean < low - slack) | (case.mean > high + slack)
        ever |= outside
    return ever, outside


def exceeds(count, runs, rate, level=1e-3):
    """Whether so many misses are more than ``rate`` explains, by a one-sided binomial test."""
    return stats.binom.sf(count - 1, runs, rate) < level


def missed_biases(case, test, bias, runs, seed):
    """Whether each run of `MeanTest`, of the designed size, passed a mean wrong by ``bias``."""
    n = test.samples_needed(bias)
    rng = np.random.default_rng(seed)
    samples = case.draw(rng, (n, runs))
    low, high = replace(test, claims=1).interval(samples)
    # Within the range: what is outside is refuted by the range, whatever the samples.
    wrong = case.mean - bias if case.mean - bias >= case.low else case.mean + bias
    assert case.low <= wrong <= case.high
    return (low <= wrong) & (wrong <= high)


def norm_misses(rate, runs, seed, wrap=lambda s: s):
    """Whether in each run, at some look, the norm's interval missed the bias 0 of a vector of six
    components, or the interval of a component, or of a pilot's direction, missed its mean."""
    mdp = TabularMDP.random(3, 2, rng=np.random.default_rng(0), discount=0.9, horizon=3)
    theta = np.random.default_rng(1).normal(size=(3, 2))
    values, cumulative, known = vector_law(mdp, theta)
    mean = np.diff(cumulative, prepend=0.0) @ values
    rng = np.random.default_rng(seed)

    def draw(count):
        return values[np.searchsorted(cumulative, rng.random(count), side="right")]

    missed = np.zeros(runs, dtype=bool)
    for run in range(runs):
        reading = Functionals(None, pilot_direction(draw(200).mean(axis=0) - mean))
        ends = reading.range_of(known.low.ravel(), known.high.ravel())
        stream = Stream.empty(wrap(ScaledSequence.bounded(*ends, Method.BETTING, rate)), mean)
        for _ in range(2):
            block = draw(200)
            stream = stream.updated(SampledBlock(block, reading.of(block), 1.0), {})
            box = box_of(stream, reading, mean, rate)
            exact = reading.of(mean[None])[0]
            outside = (exact < box.low - 1e-12) | (exact > box.high + 1e-12)
            missed[run] |= box.norm[0] > 1e-12 or outside.any()
    return missed


def sequential_misses(share, along, rates, tolerated, bias, runs, seed, looks=5):
    """Sequential runs with betting, a pilot of 200 estimates and ``looks`` evenly spaced looks, on
    a ``bias`` of AD's gradient in the direction ``along``. The budget is a ``share`` of the samples
    that the design asks for.

    Returns the budget; whether each run did not say BIASED, ``[runs]``; and whether the bias was
    above the smallest detectable one that the run reported where it stopped, ``[runs]``."""
    mdp = TabularMDP.random(3, 2, rng=np.random.default_rng(0), discount=0.9, horizon=3)
    theta = np.random.default_rng(1).normal(size=(3, 2))
    values, cumulative, known = vector_law(mdp, theta)
    low, high = known.low.ravel(), known.high.ravel()
    design = SequentialDesign(high - low, tolerated, rates.false_alarm, rates.missed_bias)
    n = math.ceil(share * design.samples_needed(bias))
    target = np.diff(cumulative, prepend=0.0) @ values - bias * along / np.linalg.norm(along)
    assert ((low <= target) & (target <= high)).all()  # else the range refutes it
    rng = np.random.default_rng(seed)
    missed, promised = np.zeros(runs, dtype=bool), np.zeros(runs, dtype=bool)

    def draw(count):
        return values[np.searchsorted(cumulative, rng.random(count), side="right")]

    for run in range(runs):
        reading = Functionals(None, pilot_direction(draw(200).mean(axis=0) - target))
        ends = reading.range_of(low, high)
        stream = Stream.empty(ScaledSequence.bounded(*ends, Method.BETTING, 0.5), target)
        least, most = 0.0, math.inf
        while stream.count < n and least <= tolerated < most:
            block = draw(min(math.ceil(n / looks), n - stream.count))
            stream = stream.updated(SampledBlock(block, reading.of(block), 1.0), {})
            least, most = box_of(stream, reading, target, rates.false_alarm).norm
        missed[run] = least <= tolerated
        promised[run] = bias >= detectable_norm(stream, reading, tolerated, rates)
    return n, missed, promised


DESIGNED = ErrorRates(0.01, 0.05, 0.1)
"""The error rates of the sequential runs whose power is measured."""


def vector_law(mdp, theta):
    """All values of AD's gradient, their cumulative probabilities, and the known range."""
    request = asked_for(ad, mdp, theta, theta)
    (batch, weights), *rest = Enumeration.of(mdp, TABULAR, theta, mdp.horizon).batches(
        1, ordered=True, block=4096
    )
    assert not rest
    evaluator = request.estimator.prepare(batch, request.context)
    cumulative = np.cumsum(weights)
    cumulative[-1] = 1.0
    return (
        evaluator.rows(batch).dense().reshape(len(weights), -1),
        cumulative,
        component_range(request),
    )
