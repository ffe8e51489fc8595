"""Widths of intervals by betting: as they are, with capped fractions, and by hedged capital."""

import math

import numpy as np

from gradbias.verification.confidence.sequences import Betting

LAWS = {
    "fair coin": lambda rng, n: (rng.random(n) < 0.5).astype(float),
    "uniform": lambda rng, n: rng.random(n),
    "coin of 1 in 100": lambda rng, n: (rng.random(n) < 0.01).astype(float),
    "beta(1/20, 19/20)": lambda rng, n: rng.beta(0.05, 0.95, n),
    "jackpot of 1 in 2,000": lambda rng, n: (rng.random(n) < 1 / 2000).astype(float),
    "exponential of mean 1/50": lambda rng, n: np.clip(rng.exponential(0.02, n), 0, 1),
}


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


def width_ratios(name, n, rate, runs, seed):
    """Median ratios of the widths with capped fractions, and by hedged capital, to the widths as
    they are, over ``runs`` samples of n observations of the law."""
    rng = np.random.default_rng(seed)
    capped, hedged = [], []
    for _ in range(runs):
        x = LAWS[name](rng, n)
        low, high = (float(end[0]) for end in Betting.empty(1).updated(x[:, None]).bounds(rate))
        capped.append(capped_width(x, rate) / (high - low))
        hedged.append(hedged_width(x, rate) / (high - low))
    return float(np.median(capped)), float(np.median(hedged))
