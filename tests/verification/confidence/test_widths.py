"""How narrow intervals by betting are, and that a bias of the stated size is found."""

import numpy as np
import pytest
from scipy import stats

from gradbias.verification.confidence.mean_tests import MeanTest
from tests.cases.widths import width_ratios


@pytest.mark.parametrize(
    ("name", "least_gain"),
    [
        ("coin of 1 in 100", 1.1),
        ("beta(1/20, 19/20)", 1.15),
        ("jackpot of 1 in 2,000", 1.7),
        ("exponential of mean 1/50", 2.5),
        ("fair coin", 0.96),
    ],
)
def test_stakes_are_narrower_than_capped_fractions_on_skewed_laws(name, least_gain):
    """1,000 observations, the median ratio of widths of 9 samples: by about these factors narrower
    than fractions of at most a half, and nowhere much wider than hedged capital. Where the law is
    not skewed, they are up to 4% wider than capped ones."""
    capped, hedged = width_ratios(name, 1000, 1e-3, 9, seed=11)
    assert capped > least_gain
    assert hedged > (0.8 if name == "fair coin" else 0.9)


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
