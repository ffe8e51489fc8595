"""MAML's sampled meta-gradients by the names they are published under.

Each is a `MetaGradient` of a loop that starts at phi, with ``n`` trajectories for each inner step
and ``m`` for the outer gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, probability_rows, whole_number
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import FIRST_ORDER, Reuse, Sampled
from gradbias.stochastic.rollouts.records import Surrogate
from gradbias.stochastic.surrogates.off_policy import OffPolicyDice, Ratio
from gradbias.stochastic.surrogates.score_function import ad, reinforce


def maml(
    loop: SampledLoop,
    *,
    steps: int,
    step_size: float,
    batch_size: int,
    outer_batch_size: int,
    hessian: Surrogate = ad,
) -> MetaGradient:
    """MAML as it is practised: each step's value and derivative from the same ``batch_size``
    trajectories.

    With AD as ``hessian`` it is the original, biased; with DiCE, DiCE-MAML; with LVC, ProMP's.
    Source: Finn et al. 2017; Foerster et al. 2018; Rothfuss et al. 2019.

    Raises:
        ValueError: as `MetaGradient`.
    """
    outer, reuse = Sampled(ad, outer_batch_size), Reuse.HESSIAN
    slots = (Sampled(ad, batch_size), Sampled(hessian, batch_size), outer)
    return MetaGradient(loop, steps, step_size, *slots, reuse=reuse)


def first_order_maml(
    loop: SampledLoop, *, steps: int, step_size: float, batch_size: int, outer_batch_size: int
) -> MetaGradient:
    """First-order MAML: the outer gradient after the steps, whose derivative is left out.

    Source: Finn et al. 2017, Sec. 5.2.

    Raises:
        ValueError: as `MetaGradient`.
    """
    return MetaGradient(
        loop, steps, step_size, Sampled(ad, batch_size), FIRST_ORDER, Sampled(ad, outer_batch_size)
    )


def e_maml(
    loop: SampledLoop,
    *,
    steps: int,
    step_size: float,
    batch_size: int,
    outer_batch_size: int,
    correction: float = 1.0,
) -> MetaGradient:
    """E-MAML: MAML with ``correction``, in [0, 1], times the term for the law of the inner samples;
    at 1 it is unbiased for the objective of n-sample inner steps.

    Source: Stadie et al. 2018; Al-Shedivat et al. 2018; the coefficient: Vuorio et al. 2021.

    Raises:
        ValueError: as `MetaGradient`.
    """
    plain = maml(
        loop,
        steps=steps,
        step_size=step_size,
        batch_size=batch_size,
        outer_batch_size=outer_batch_size,
    )
    return replace(plain, correction=correction)


def linearised_score_function(
    loop: SampledLoop, *, step_size: float, batch_size: int, outer_batch_size: int
) -> MetaGradient:
    """One REINFORCE step, its derivative with the unbiased Hessian of total returns of the same
    ``batch_size`` trajectories; ``outer_batch_size`` for the outer gradient, which is scored at the
    adapted parameters.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (11) with the step size that
    the print omits, and Algorithm 1 (whose outer score is printed at theta).

    Raises:
        ValueError: as `MetaGradient`.
    """
    whole = OffPolicyDice(Ratio.TRAJECTORY)
    slots = (
        Sampled(reinforce, batch_size),
        Sampled(whole, batch_size),
        Sampled(reinforce, outer_batch_size),
    )
    return MetaGradient(loop, 1, step_size, *slots, reuse=Reuse.HESSIAN)


def over_sampled_tasks(
    estimators: Sequence[MetaGradient],
    meta_parameters: npt.ArrayLike,
    *,
    tasks: int,
    replications: int,
    rng: np.random.Generator,
    probabilities: npt.ArrayLike | None = None,
) -> FloatArray:
    """``[R, *phi]``: means over ``tasks`` estimates, of as many tasks that are drawn, one estimator
    each, with ``probabilities`` (default: equal ones).

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Algorithm 1.

    Raises:
        ValueError: no estimator, or probabilities that do not fit.
    """
    given: object = estimators
    if not isinstance(given, Sequence) or not given:
        raise ValueError(f"estimators: expected at least one, got {given!r}")
    for estimator in given:
        if not isinstance(estimator, MetaGradient):
            raise ValueError(f"estimators: expected MetaGradients, got {estimator!r}")
    whole_number("tasks", tasks, at_least=1)
    whole_number("replications", replications, at_least=1)
    given = probabilities
    if given is None:
        given = np.full(len(estimators), 1.0 / len(estimators))
    weights = probability_rows("probabilities", given, (len(estimators),))
    drawn = rng.choice(len(estimators), size=(replications, tasks), p=weights)
    total = np.zeros((replications, *np.shape(meta_parameters)))
    for k, estimator in enumerate(estimators):
        counts = (drawn == k).sum(axis=1)
        runs = int(counts.sum())
        if runs == 0:
            continue
        found = estimator.estimates(meta_parameters, replications=runs, rng=rng)
        np.add.at(total, np.repeat(np.arange(replications), counts), found)
    return total / tasks
