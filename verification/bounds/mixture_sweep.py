"""A mix's bias and variance beside its bounds and the n-step estimate's, over kappa or n.

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
from gradbias.analytic.utils.validation import real_number, whole_number
from gradbias.verification.bounds.mixtures import mixture_bias, mixture_bound


class MixtureSweep(Enum):
    """What is varied."""

    KAPPA = "kappa"
    STEPS = "inner steps n"


@dataclass(frozen=True)
class MixtureRow:
    """One mix (``kappa`` None: 1 - 1/n): the norm of its ``bias`` against the limit of many steps,
    its total ``variance``, both of the n-step estimate alone (``last_bias``, ``last_variance``),
    and bounds. Everything is exact.

    ``aligned`` and ``decreasing``: of the i-step biases. Where both hold, the mix's bias is never
    below the n-step one.
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
    sweep: MixtureSweep,
    values: Sequence[float],
    steps: int = 10,
    kappa: float | None = None,
    validation: Validation = Validation.FRESH,
) -> tuple[MixtureRow, ...]:
    """Biases, variances and bounds of mixes, for each of ``values`` in place of the argument that
    ``sweep`` names.

    Source: *One Step at a Time*, eq. (10).

    Raises:
        ValueError: as `chain_step_moments` and `mixture_bound`; no values.

    >>> from gradbias.analytic import RewardChain
    >>> learner = ChainLearner(RewardChain.alternating(10), np.full(10, 0.5), np.zeros(10))
    >>> rows = mixture_versus_bounds(learner, sweep=MixtureSweep.KAPPA, values=[0.0, 1.0])
    >>> [(round(row.bias, 4), round(row.last_bias, 4)) for row in rows]
    [(0.0162, 0.0056), (0.01, 0.0056)]
    """
    if not isinstance(sweep, MixtureSweep):
        raise ValueError(f"sweep: expected a MixtureSweep, got {sweep!r}")
    if np.ndim(values) != 1 or len(values) == 0:
        raise ValueError(f"values: expected at least one number in a sequence, got {values!r}")
    if sweep is MixtureSweep.KAPPA:
        ratios = [real_number("values", value, low=0.0, high=1.0) for value in values]
        return tuple(_row(learner, steps, ratio, validation) for ratio in ratios)
    counts = [whole_number("values", value, at_least=1) for value in values]
    return tuple(_row(learner, count, kappa, validation) for count in counts)


def _row(
    learner: ChainLearner, steps: int, kappa: float | None, validation: Validation
) -> MixtureRow:
    found, bound = mixture_bias(learner, steps, kappa), mixture_bound(learner, steps, kappa)
    moments = chain_step_moments(learner, steps, validation=validation)
    return MixtureRow(
        steps=steps,
        kappa=kappa,
        bias=found.norm,
        last_bias=found.last,
        bias_bound=bound.bias,
        variance=float(np.trace(moments.mixed(kappa).covariance)),
        last_variance=float(np.trace(moments.last.covariance)),
        variance_bound=bound.variance,
        aligned=found.aligned,
        decreasing=found.decreasing,
    )
