"""How narrow intervals by betting are, and that a bias of the stated size is found."""

import math

import numpy as np
import pytest
from scipy import stats

from gradbias.verification.confidence.mean_tests import MeanTest
from gradbias.verification.confidence.sequences import Betting


def capped_width(x, rate):
    """The interval's width with fractions of at most a half (2^-1 to 2^-16), which wealth does not
    outgrow where the mean is small."""
    bets = 0.5 ** np.arange(1, 17)

    def wealth(m, sign):
        logs = np.log1p(sign * bets[:, None] * (x[None] - m)).sum(axis=1)
        return np.logaddexp.reduce(logs) - math.log(len(bets))

    return width_where(wealth, x, rate)


def hedged_width(x, rate):
    """The interval's width by hedged capital (Waudby-Smith and Ramdas 2024, Sec. 4.4) at any time:
    fractions by the sample so far, at most 1 / (2 m)."""
    t = np.arange(1, len(x) + 1)
    means = (0.5 + np.cumsum(x)) / (t + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2)) / (t + 1)
    variances = np.concatenate([[0.25], variances[:-1]])
    bets = np.sqrt(2 * math.log(2 / rate) / (variances * t * np.log(t + 1)))

    def wealth(m, sign):
        nearest = m if sign > 0 else 1 - m
        fractions = np.minimum(bets, 0.5 / max(nearest, 1e-12))
        return np.log1p(sign * fractions * (x - m)).sum()

    return width_where(wealth, x, rate)


def width_where(wealth, x, rate):
    ends = []
    for limit, sign in ((0.0, 1), (1.0, -1)):
        refuted, possible = limit, x.mean()
        for _ in range(30):
            middle = (refuted + possible) / 2
            if wealth(middle, sign) >= math.log(2 / rate):
                refuted = middle
            else:
                possible = middle
        ends.append(refuted)
    return ends[1] - ends[0]


@pytest.mark.parametrize(
    ("name", "least_gain"),
    [("1 in 100", 1.1), ("beta", 1.15), ("1 in 2,000", 1.7), ("exponential", 2.5), ("fair", 0.96)],
)
def test_stakes_are_narrower_than_capped_fractions_on_skewed_laws(name, least_gain):
    """1,000 observations, the median ratio of widths of 9 samples: by about these factors narrower
    than fractions of at most a half, and no wider than hedged capital by more than 10% of it. Where
    the law is not skewed, they are up to 4% wider."""
    rng = np.random.default_rng(11)
    laws = {
        "1 in 100": lambda: (rng.random(1000) < 0.01).astype(float),
        "beta": lambda: rng.beta(0.05, 0.95, 1000),
        "1 in 2,000": lambda: (rng.random(1000) < 1 / 2000).astype(float),
        "exponential": lambda: np.clip(rng.exponential(0.02, 1000), 0, 1),
        "fair": lambda: (rng.random(1000) < 0.5).astype(float),
    }
    gains, hedged = [], []
    for _ in range(9):
        x = laws[name]()
        low, high = (float(end[0]) for end in Betting.empty(1).updated(x[:, None]).bounds(1e-3))
        gains.append(capped_width(x, 1e-3) / (high - low))
        hedged.append(hedged_width(x, 1e-3) / (high - low))
    assert np.median(gains) > least_gain
    assert np.median(hedged) > (0.8 if name == "fair" else 0.9)


@pytest.mark.parametrize("law", ["coin", "rare"])
def test_the_smallest_detectable_bias_is_found_at_the_promised_rate(law):
    """Exactly at the number, whose missed-bias rate is 10%: 400 runs, at 1e-7 (binomial). A
    sixth of it is missed more often than that: the number is not vacuous."""
    n, top = 400, {"coin": 0.6, "rare": 0.02}[law]
    test = MeanTest(0.0, 1.0, 0.05, 0.1, variance=top * (1 - top))
    x = (np.random.default_rng(2).random((n, 400)) < top).astype(float)
    low, high = test.interval(x)
    bias = test.smallest_detectable_bias(n)
    assert bias < 1 - top

    def missed(size):
        return int(((low <= top + size) & (top + size <= high)).sum())

    assert stats.binom.sf(missed(bias) - 1, 400, 0.1) > 1e-7
    assert stats.binom.sf(missed(bias / 6) - 1, 400, 0.1) < 1e-7
