"""Do sampled estimates have the mean of enumerated ones?

By a bound on false alarms that holds for any number of samples: Bernstein's inequality, with the
enumerated variance and range.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.estimators.kinds import DrawEstimator
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.conformance.problems import Distribution, Setup, drawn_moments
from gradbias.verification.conformance.report import TOLERANCE, NotSatisfied
from gradbias.verification.conformance.trial import Trial

_FAR = 0.2
"""1 / (1 + 2^2): Cantelli's inequality at two deviations."""


def sampling(trial: Trial) -> int:
    """The mean of sampled estimates is that of enumerated ones."""
    setup, rng = trial.enumerable, trial.rng(20)
    if trial.estimator.draws_itself:
        moments = drawn_moments(trial.estimator, setup)
        reach = np.full(moments.mean.shape, 2 * moments.largest)
        exact = Distribution(moments.mean, moments.variance, reach)
        found = _sampled_runs(trial.estimator, setup, trial.replications, rng)
    else:
        exact = trial.distribution(setup)
        found = trial.estimates(setup.drawn(rng, trial.replications, trial.n), setup).mean(axis=0)
    allowed = bernstein(exact, trial.replications, trial.false_alarm / found.size)
    allowed += TOLERANCE * float((np.abs(exact.mean) + exact.reach).max())
    return check_means(found, exact.mean, allowed, trial.replications)


def check_means(found: FloatArray, exact: FloatArray, allowed: FloatArray, samples: int) -> int:
    """How many entries. Raises NotSatisfied where one strays further than is ``allowed``."""
    gaps = np.abs(found - exact)
    if not (gaps <= allowed).all():
        worst = np.unravel_index(int(np.argmax(gaps - allowed)), gaps.shape)
        raise NotSatisfied(
            f"{samples:,} sampled estimates and all outcomes: means differ by "
            f"{gaps[worst]:.3g} at {tuple(map(int, worst))}, allowed {allowed[worst]:.3g}"
        )
    return int(found.size)


def bernstein(exact: Distribution, samples: int, rate: float) -> FloatArray:
    """How far each entry's mean of n estimates strays from its expectation, but for probability
    ``rate``. Source: Boucheron, Lugosi and Massart 2013, eq. 2.10.
    """
    size = math.log(2.0 / rate)
    linear = exact.reach * size / (3.0 * samples)
    found: FloatArray = linear + np.sqrt(linear**2 + 2.0 * exact.variance * size / samples)
    return found


def median_blocks(rate: float) -> int:
    """How many blocks, an odd number, so that at most with probability ``rate`` the median of their
    means is further from the expectation than two deviations of such a mean.

    By Cantelli's inequality a block's mean is that far above it with probability 1/5 at most, and
    for the median half of the blocks must be. Needs no range, unlike `bernstein`.
    """
    blocks = 1
    while float(bdtrc(blocks // 2, blocks, _FAR)) > rate / 2.0:
        blocks += 2
    return blocks


def median_of_means(found: FloatArray, blocks: int) -> FloatArray:
    """Of estimates ``[n, *shape]``, the last of which are left out if they fill no block."""
    each = len(found) // blocks
    means = found[: blocks * each].reshape(blocks, each, *found.shape[1:]).mean(axis=1)
    middle: FloatArray = np.median(means, axis=0)
    return middle


def median_radius(variance: FloatArray, samples: int, blocks: int) -> FloatArray:
    """See `median_blocks`."""
    radius: FloatArray = 2.0 * np.sqrt(variance / (samples // blocks))
    return radius


def _sampled_runs(
    estimator: DrawEstimator, setup: Setup, samples: int, rng: np.random.Generator
) -> FloatArray:
    def draw(theta: npt.ArrayLike, n: int) -> Trajectories:
        return replace(setup, theta=np.asarray(theta)).drawn(rng, 1, n)[0]

    runs = [estimator.run(draw, setup.context) for _ in range(samples)]
    found: FloatArray = np.mean(runs, axis=0)
    return found
