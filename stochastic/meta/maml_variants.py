"""MAML's sampled meta-gradients by the names they are published under.

Each is a `MetaGradient` of a loop that starts at the meta-parameters phi.
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
    """MAML as it is practised: each step's value and derivative are from the same trajectories.

    Args:
        loop: the problem, with ``starts_at_meta=True``.
        steps: K, the number of inner steps.
        step_size: alpha.
        batch_size: N, the number of trajectories in an inner step's batch.
        outer_batch_size: the number of trajectories in the outer gradient's batch.
        hessian: the surrogate of the inner steps' Hessian. AD (the default) is the original MAML,
            biased; DiCE makes it DiCE-MAML, and LVC ProMP's estimator.

    Returns:
        The estimator, for `MetaGradient.estimates` and `verification.measure_meta_gradient`.

    Raises:
        ValueError: as `MetaGradient`.

    Source: Finn et al. 2017; Foerster et al. 2018; Rothfuss et al. 2019.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> loop = SampledLoop(bandit, starts_at_meta=True)
    >>> maml(loop, steps=1, step_size=0.1, batch_size=4, outer_batch_size=8).name
    'meta-gradient (value AD() x 4, Hessian AD() x 4, outer AD() x 8, reuse: hessian)'
    """
    outer, reuse = Sampled(ad, outer_batch_size), Reuse.HESSIAN
    slots = (Sampled(ad, batch_size), Sampled(hessian, batch_size), outer)
    return MetaGradient(loop, steps, step_size, *slots, reuse=reuse)


def first_order_maml(
    loop: SampledLoop, *, steps: int, step_size: float, batch_size: int, outer_batch_size: int
) -> MetaGradient:
    """First-order MAML: the outer gradient after the inner steps, whose derivative is left out.

    Args:
        loop: the problem, with ``starts_at_meta=True``.
        steps: K, the number of inner steps.
        step_size: alpha.
        batch_size: N, the number of trajectories in an inner step's batch.
        outer_batch_size: the number of trajectories in the outer gradient's batch.

    Returns:
        The estimator, as `maml`.

    Raises:
        ValueError: as `MetaGradient`.

    Source: Finn et al. 2017, Sec. 5.2.
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
    """E-MAML: MAML with a score term, as the inner batches' distribution depends on phi.

    Args:
        loop: the problem, with ``starts_at_meta=True``.
        steps: K, the number of inner steps.
        step_size: alpha.
        batch_size: N, the number of trajectories in an inner step's batch.
        outer_batch_size: the number of trajectories in the outer gradient's batch.
        correction: the factor of the score term, in [0, 1]. At 1 the estimator is unbiased for the
            objective of N-sample inner steps.

    Returns:
        The estimator, as `maml`.

    Raises:
        ValueError: as `MetaGradient`.

    Source: Stadie et al. 2018; Al-Shedivat et al. 2018; the coefficient: Vuorio et al. 2021.
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
    """One REINFORCE step whose derivative is the unbiased Hessian of total returns.

    Value and Hessian are from the same trajectories; the outer gradient is at the adapted
    parameters.

    Args:
        loop: the problem, with ``starts_at_meta=True``.
        step_size: alpha.
        batch_size: N, the number of trajectories in an inner step's batch.
        outer_batch_size: the number of trajectories in the outer gradient's batch.

    Returns:
        The estimator, as `maml`.

    Raises:
        ValueError: as `MetaGradient`.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, eq. (11) with the step size that
    the print omits, and Algorithm 1 (whose outer score is printed at theta).
    """
    total_return = OffPolicyDice(Ratio.TRAJECTORY)
    slots = (
        Sampled(reinforce, batch_size),
        Sampled(total_return, batch_size),
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
    """Means of one estimate each of several random tasks.

    Args:
        estimators: one estimator for each of the T possible tasks.
        meta_parameters: phi.
        tasks: the number of tasks that are drawn, with replacement, for one mean.
        replications: R, the number of means.
        rng: the generator of all draws.
        probabilities: of the tasks, ``[T]`` (default: equal ones).

    Returns:
        The means, ``[R, *phi]``.

    Raises:
        ValueError: no estimator, or probabilities that do not fit.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Algorithm 1.
    """
    sequence: object = estimators
    if not isinstance(sequence, Sequence) or not sequence:
        raise ValueError(f"estimators: expected at least one, got {sequence!r}")
    for estimator in sequence:
        if not isinstance(estimator, MetaGradient):
            raise ValueError(f"estimators: expected MetaGradients, got {estimator!r}")
    whole_number("tasks", tasks, at_least=1)
    whole_number("replications", replications, at_least=1)
    if probabilities is None:
        probabilities = np.full(len(estimators), 1.0 / len(estimators))
    weights = probability_rows("probabilities", probabilities, (len(estimators),))
    drawn = rng.choice(len(estimators), size=(replications, tasks), p=weights)
    total = np.zeros((replications, *np.shape(meta_parameters)))
    for k, estimator in enumerate(estimators):
        counts = (drawn == k).sum(axis=1)
        runs = int(counts.sum())
        if runs == 0:
            continue
        estimates = estimator.estimates(meta_parameters, replications=runs, rng=rng)
        np.add.at(total, np.repeat(np.arange(replications), counts), estimates)
    return total / tasks
