"""The bias and variance of a mix of i-step meta-gradients, beside its bounds and the n-step
estimate's bias and variance, as kappa or n is varied.

Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, eq. (10), Sec. 3.5 and
App. C.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from gradbias.analytic.moments.reward_chains import chain_step_moments
from gradbias.analytic.problems.mixing import Validation
from gradbias.analytic.problems.reward_chains import ChainLearner
from gradbias.analytic.utils.validation import choice, real_number, whole_number
from gradbias.verification.bounds.mixtures import mixture_bias, mixture_bound


class MixtureSweep(Enum):
    """The setting that a sweep varies, by the name of its argument."""

    KAPPA = "kappa"
    STEPS = "steps"

    @property
    def label(self) -> str:
        """The quantity in words, with its symbol."""
        return "kappa" if self is MixtureSweep.KAPPA else "inner steps n"


@dataclass(frozen=True)
class MixtureRow:
    """One mix of the i-step estimates, i = 1 .. ``steps`` (``kappa`` None: 1 - 1/n): the norm of
    its ``bias`` against the limit of many steps, its total ``variance``, the same two of the n-step
    estimate alone (``last_bias``, ``last_variance``), and bounds of the mix's (``bias_bound``,
    ``variance_bound``). Everything is exact.

    ``aligned`` says whether the i-step biases point the same way, ``decreasing`` whether none is
    smaller than the n-step one. Where both hold, the mix's bias is never below the n-step one.
    """

    steps: int
    kappa: float | None
    bias: float
    last_bias: float
    bias_bound: float
    variance: float
    last_variance: float
    variance_bound: float
    aligned: bool
    decreasing: bool


def mixture_versus_bounds(
    learner: ChainLearner,
    *,
    sweep: MixtureSweep | str,
    values: Sequence[float],
    steps: int = 10,
    kappa: float | None = None,
    validation: Validation = Validation.FRESH,
) -> tuple[MixtureRow, ...]:
    """Biases, variances and bounds of mixes on a reward chain, as one setting is varied.

    Args:
        learner: the reward chain and its inner learner.
        sweep: the varied setting: "kappa" or "steps".
        values: its values, in place of the argument of that name.
        steps: n, the largest number of inner steps.
        kappa: the ratio of successive weights, from 0 to 1 (default: 1 - 1/n).
        validation: which samples the outer loss is computed from.

    Returns:
        One row for each value.

    Raises:
        ValueError: as `chain_step_moments` and `mixture_bound`; no values.

    Source: *One Step at a Time*, eq. (10).

    >>> from gradbias.analytic import RewardChain
    >>> learner = ChainLearner(RewardChain.alternating(10), np.full(10, 0.5), np.zeros(10))
    >>> rows = mixture_versus_bounds(learner, sweep="kappa", values=[0.0, 1.0])
    >>> [(round(row.bias, 4), round(row.last_bias, 4)) for row in rows]
    [(0.0162, 0.0056), (0.01, 0.0056)]
    """
    kind = choice("sweep", sweep, MixtureSweep)
    if np.ndim(values) != 1 or len(values) == 0:
        raise ValueError(f"values: expected at least one number in a sequence, got {values!r}")
    if kind is MixtureSweep.KAPPA:
        ratios = [real_number("values", value, low=0.0, high=1.0) for value in values]
        return tuple(_row(learner, steps, ratio, validation) for ratio in ratios)
    counts = [whole_number("values", value, at_least=1) for value in values]
    return tuple(_row(learner, count, kappa, validation) for count in counts)


def _row(
    learner: ChainLearner, steps: int, kappa: float | None, validation: Validation
) -> MixtureRow:
    exact, bound = mixture_bias(learner, steps, kappa), mixture_bound(learner, steps, kappa)
    moments = chain_step_moments(learner, steps, validation=validation)
    return MixtureRow(
        steps=steps,
        kappa=kappa,
        bias=exact.norm,
        last_bias=exact.last,
        bias_bound=bound.bias,
        variance=float(np.trace(moments.mixed(kappa).covariance)),
        last_variance=float(np.trace(moments.last.covariance)),
        variance_bound=bound.variance,
        aligned=exact.aligned,
        decreasing=exact.decreasing,
    )
