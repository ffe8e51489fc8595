"""Small problems and MAML's sampled meta-gradients on them, for tests."""

import numpy as np

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import FIRST_ORDER, Given, Sampled
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import ad
from gradbias.verification.measurement.meta_enumeration import Enumerating

TWO_ARMS = TabularMDP(np.ones((1, 2, 1)), [[1.0, 0.0]], 0.9, [1.0], horizon=1)


def close(found, wanted, tolerance=1e-12):
    return np.abs(found - wanted).max() <= tolerance * max(np.abs(wanted).max(), 1e-3)


def small(seed=0, horizon=2, n_states=2):
    rng = np.random.default_rng(seed)
    mdp = TabularMDP.random(n_states, 2, rng=rng, discount=0.8, horizon=horizon)
    return mdp, rng.normal(size=(n_states, 2)), rng


def maml(mdp, steps=1, step_size=0.7, *, value=ad, hessian=dice, outer=ad, batch_size=1, **options):
    """MAML with every slot sampled, unless it is said to be given."""

    def slot(surrogate):
        return surrogate if isinstance(surrogate, Given) else Sampled(surrogate, batch_size)

    if hessian is not FIRST_ORDER:
        hessian = slot(hessian)
    loop = SampledLoop(mdp, starts_at_meta=True)
    return MetaGradient(loop, steps, step_size, slot(value), hessian, slot(outer), **options)


def exact_mean(estimator, phi, theta=None):
    source = Enumerating(estimator.loop, ordered=False)
    return estimator.mean_over(source, phi, theta)[0]
