"""The check that sampled estimates have the mean of enumerated ones.

Two bounds on the type I error hold for any number of samples: Bernstein's inequality, with the
enumerated variance and range, and the median of means, which needs the variance alone.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import bdtrc

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.estimators.kinds import DrawEstimator
from gradbias.verification.conformance.problems import Distribution
from gradbias.verification.conformance.runner import TOLERANCE, NotSatisfied, Trial
from gradbias.verification.conformance.trial import EstimatorTrial

_CANTELLI = 0.2
"""1 / (1 + 2^2): Cantelli's inequality at two standard deviations."""


def sampling(trial: EstimatorTrial) -> None:
    """The mean of sampled estimates is that of enumerated ones."""
    setup, count = trial.enumerable, trial.replications
    exact = trial.distribution(setup)
    if isinstance(trial.estimator, DrawEstimator):
        runs = [trial.one_run(trial.estimator, 100 + k, setup)[0] for k in range(count)]
        mean: FloatArray = np.mean(runs, axis=0)
    else:
        mean = trial.estimates(setup.drawn(trial.rng(20), count, trial.n), setup).mean(axis=0)
    allowed = bernstein(exact, count, trial.false_alarm / mean.size)
    allowed += TOLERANCE * float((np.abs(exact.mean) + exact.reach).max())
    check_means(trial, mean, exact.mean, allowed)


def check_means(trial: Trial, mean: FloatArray, exact: FloatArray, allowed: FloatArray) -> None:
    """Raises NotSatisfied where an entry differs by more than is ``allowed``."""
    trial.comparisons += mean.size
    gaps = np.abs(mean - exact)
    if not (gaps <= allowed).all():
        worst = np.unravel_index(int(np.argmax(gaps - allowed)), gaps.shape)
        raise NotSatisfied(
            f"{trial.replications:,} sampled estimates and all outcomes: means differ by "
            f"{gaps[worst]:.3g} at {tuple(map(int, worst))}, allowed {allowed[worst]:.3g}"
        )


def bernstein(exact: Distribution, samples: int, rate: float) -> FloatArray:
    """The distance from its expectation that each entry's mean of n samples exceeds with
    probability ``rate`` at most. Source: Boucheron, Lugosi and Massart 2013, eq. 2.10.
    """
    log_rate = math.log(2.0 / rate)
    linear = exact.reach * log_rate / (3.0 * samples)
    radius: FloatArray = linear + np.sqrt(linear**2 + 2.0 * exact.variance * log_rate / samples)
    return radius


def median_blocks(rate: float) -> int:
    """The smallest odd number of blocks whose means have a median that is further from the
    expectation than two standard deviations of such a mean with probability ``rate`` at most.

    By Cantelli's inequality a block's mean is that far above the expectation with probability 1/5
    at most, and the median is only if half of the blocks are. Unlike `bernstein`, this needs no
    range.
    """
    blocks = 1
    while float(bdtrc(blocks // 2, blocks, _CANTELLI)) > rate / 2.0:
        blocks += 2
    return blocks


def median_of_means(estimates: FloatArray, blocks: int) -> FloatArray:
    """The median over blocks of the mean of estimates ``[n, *shape]``; the last ones are left out
    if they fill no block.
    """
    each = len(estimates) // blocks
    means = estimates[: blocks * each].reshape(blocks, each, *estimates.shape[1:]).mean(axis=1)
    median: FloatArray = np.median(means, axis=0)
    return median


def median_radius(variance: FloatArray, samples: int, blocks: int) -> FloatArray:
    """Two standard deviations of a block's mean: see `median_blocks`."""
    radius: FloatArray = 2.0 * np.sqrt(variance / (samples // blocks))
    return radius
