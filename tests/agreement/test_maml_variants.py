"""MAML's variants by name: what each is unbiased for."""

import numpy as np
import pytest

from gradbias.analytic.additive.maml_expansion import step_expansion
from gradbias.analytic.meta.bilevel import Maml
from gradbias.analytic.meta.meta_gradients import TaskFamily, inner_loop, meta_gradient
from gradbias.analytic.meta.sampled_objective import sampled_step_objective
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.maml_variants import (
    e_maml,
    first_order_maml,
    linearised_score_function,
    maml,
    over_sampled_tasks,
)
from gradbias.stochastic.surrogates.dice import dice
from gradbias.verification.measurement.meta_enumeration import Enumerating


def setting(seed=0):
    rng = np.random.default_rng(seed)
    mdp = TabularMDP.random(2, 2, rng=rng, discount=0.8, horizon=2)
    return mdp, rng.normal(size=(2, 2)), SampledLoop(mdp, starts_at_meta=True)


def mean(estimator, theta):
    return estimator.mean_over(Enumerating(estimator.loop, ordered=False), theta, None)[0]


def size(array):
    return float(np.linalg.norm(array))


def test_e_maml_alone_is_unbiased_for_sampled_steps():
    mdp, theta, loop = setting()
    wanted = sampled_step_objective(mdp, theta, batch_size=2, steps=1, step_size=0.9).gradient
    options = {"steps": 1, "step_size": 0.9, "batch_size": 2, "outer_batch_size": 1}
    assert size(mean(e_maml(loop, **options), theta) - wanted) < 1e-13
    others = {
        "half": e_maml(loop, **options, correction=0.5),
        "maml": maml(loop, **options),
        "dice": maml(loop, **options, hessian=dice),
        "first": first_order_maml(loop, **options),
    }
    for name, estimator in others.items():
        assert size(mean(estimator, theta) - wanted) > 1e-3 * size(wanted), name


def test_first_order_maml_is_the_mean_outer_gradient():
    """At one step its mean is that of grad J at the sampled parameters; with more samples it goes
    to grad J at the expected ones."""
    mdp, theta, loop = setting(1)
    after = inner_loop(Maml(mdp), theta, steps=1, step_size=0.5)[-1]
    gaps = []
    for n in (1, 2, 4):
        estimator = first_order_maml(loop, steps=1, step_size=0.5, batch_size=n, outer_batch_size=1)
        gaps.append(size(mean(estimator, theta) - gradient(mdp, after)))
    assert gaps[0] > 1.5 * gaps[1] > 2.25 * gaps[2] > 0


def test_the_linearised_estimates_bias_is_one_over_n_with_the_derived_constant():
    """Two steps, 6 to 24 samples: N times the bias goes to the sum of the effects of the step's
    spread and of the samples' reuse, with what is left falling like 1/N."""
    mdp = TabularMDP(np.ones((1, 2, 1)), [[1.0, -0.3]], 0.8, [1.0], horizon=2)
    theta, loop = np.array([[0.4, -0.2]]), SampledLoop(mdp, starts_at_meta=True)
    expected = meta_gradient(Maml(mdp), theta, steps=1, step_size=0.9)
    found = step_expansion(mdp, theta, step_size=0.9, credit=Credit.TOTAL_RETURN)
    constant = found.spread + found.reuse
    left = []
    for n in (6, 12, 24):
        estimator = linearised_score_function(loop, step_size=0.9, batch_size=n, outer_batch_size=1)
        left.append(size(n * (mean(estimator, theta) - expected) - constant) / size(constant))
    assert left[2] < 0.05
    assert left[0] / left[1] > 1.7
    assert left[1] / left[2] > 1.8


def test_sampled_tasks_have_the_families_mean():
    """20,000 runs over two tasks of unequal probability, 5.5 standard errors: a false alarm of 4e-8
    a component; equal probabilities would show."""
    mdp, theta, loop = setting(3)
    other = setting(4)[0]
    loops = [loop, SampledLoop(other, starts_at_meta=True)]
    each = [
        linearised_score_function(one, step_size=0.3, batch_size=2, outer_batch_size=2)
        for one in loops
    ]
    found = over_sampled_tasks(
        each,
        theta,
        tasks=3,
        replications=20_000,
        rng=np.random.default_rng(0),
        probabilities=[0.8, 0.2],
    )
    means = [mean(estimator, theta) for estimator in each]
    error = found.std(axis=0) / np.sqrt(len(found))
    wanted = 0.8 * means[0] + 0.2 * means[1]
    assert (np.abs(found.mean(axis=0) - wanted) < 5.5 * error).all()
    equal = 0.5 * means[0] + 0.5 * means[1]
    assert (np.abs(found.mean(axis=0) - equal) > 5.5 * error).any()
    # The exact counterpart is a family of tasks.
    family = TaskFamily([Maml(mdp), Maml(other)], [0.8, 0.2])
    exact = meta_gradient(family, theta, steps=1, step_size=0.3)
    assert size(wanted - exact) < 0.1 * size(exact)
    with pytest.raises(ValueError, match="estimators: expected at least one"):
        over_sampled_tasks([], theta, tasks=1, replications=1, rng=np.random.default_rng(0))
