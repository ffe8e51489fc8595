"""What any estimator must satisfy, one function a check.

Comparisons are of the same numbers come by in two ways, so they are exact but for rounding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gradbias.stochastic.estimators.kinds import DrawEstimator
from gradbias.verification.conformance.problems import (
    Relabelling,
    Setup,
    drawn_moments,
    ended,
    padded,
    single_state,
)
from gradbias.verification.conformance.report import NotApplicable, check_equal
from gradbias.verification.conformance.trial import REPLICATIONS, Trial

_MORE_DEAD = 2


def independence(trial: Trial) -> int:
    """A replication's estimate does not depend on the others, their number, or its place."""
    together = trial.estimates(trial.batch)
    made = 0
    for r in range(REPLICATIONS):
        alone = trial.estimates(trial.batch[r : r + 1])[0]
        what = f"replication {r} among {REPLICATIONS}, and alone"
        made += check_equal(together[r], alone, what, beside=together)
    order = np.arange(REPLICATIONS)[::-1]
    made += check_equal(trial.estimates(trial.batch[order]), together[order], "in reverse order")
    twice = np.concatenate([order, order])
    return made + check_equal(trial.estimates(trial.batch[twice]), together[twice], "each twice")


def coupling(trial: Trial) -> int:
    """Unless it was declared, a batch's estimate is the mean of its trajectories' own."""
    if trial.coupled:
        raise NotApplicable("coupling was declared")
    made = 0
    for n in (2, 3, 8):
        batch = trial.setup.unlike(trial.rng(5 + n), REPLICATIONS, n)
        alone = trial.estimates(batch.reshape(-1, 1))
        means = alone.reshape(REPLICATIONS, n, *alone.shape[1:]).mean(axis=1)
        what = f"batches of {n} and the mean of single trajectories (give trajectories=N?)"
        made += check_equal(trial.estimates(batch), means, what)
    return made


def identical(trial: Trial) -> int:
    """N copies of a trajectory give the estimate of one."""
    if trial.coupled:
        raise NotApplicable("coupling was declared")
    one = trial.batch[:, :1]
    wanted = trial.estimates(one)
    made = 0
    for n in (2, 4):
        copies = one[:, np.zeros(n, dtype=np.int64)]
        made += check_equal(trial.estimates(copies), wanted, f"{n} copies of a trajectory")
    return made


def relabelling(trial: Trial) -> int:
    """Under other names of states and actions, the same estimate under those names."""
    names, order = Relabelling.random(trial.rng(9), trial.setup), trial.estimator.order
    if isinstance(trial.estimator, DrawEstimator):
        setup = trial.enumerable
        names = Relabelling.random(trial.rng(9), setup)
        wanted = names.estimates(drawn_moments(trial.estimator, setup).mean, order)
        found = drawn_moments(trial.estimator, names.setup(setup)).mean
        return check_equal(found, wanted, "the mean with states and actions renamed")
    wanted = names.estimates(trial.estimates(trial.batch), order)
    found = trial.estimates(names.batch(trial.batch), names.setup(trial.setup))
    return check_equal(found, wanted, "with states and actions renamed")


def bandits(trial: Trial) -> int:
    """Over one step, the estimate is that of a bandit in the state it starts in."""
    setup = Setup.random(trial.rng(10), (3, 2, 1))
    assert setup.critic is not None
    critic = np.array(setup.critic)
    critic[-1] = 0.0
    made = 0
    for state in range(3):
        there = replace(setup, mdp=replace(setup.mdp, start=np.eye(3)[state]), critic=critic)
        batch = there.unlike(trial.rng(11 + state), REPLICATIONS, trial.n)
        alone = Setup(_bandit(setup, state), setup.theta[state : state + 1], critic[:, [state]])
        small = trial.estimates(single_state(batch, state), alone)
        wanted = np.zeros((REPLICATIONS, *setup.theta.shape * trial.estimator.order))
        wanted[(slice(None), *(state, slice(None)) * trial.estimator.order)] = small[
            (slice(None), *(0, slice(None)) * trial.estimator.order)
        ]
        made += check_equal(trial.estimates(batch, there), wanted, f"one step from state {state}")
    return made


def _bandit(setup: Setup, state: int) -> Any:
    one = np.ones((1, setup.mdp.n_actions, 1))
    reward = setup.mdp.reward[state].mean(axis=-1)[None]
    return replace(setup.mdp, transition=one, reward=reward, start=np.ones(1))


def endings(trial: Trial) -> int:
    """Steps after an episode's end carry nothing: with more of them, the same estimate; after one
    step, too, where that is the horizon.
    """
    made = 0
    for which, horizon in enumerate((3, 1)):
        setup = Setup.random(trial.rng(14 + 10 * which), (3, 2, horizon), ends=True)
        assert setup.critic is not None
        batch = ended(setup, trial.rng(15 + 10 * which), REPLICATIONS, trial.n)
        longer = replace(setup.mdp, horizon=horizon + _MORE_DEAD)
        rows = np.repeat(setup.critic[:1], horizon + _MORE_DEAD + 1, axis=0)
        found = trial.estimates(padded(batch, _MORE_DEAD), Setup(longer, setup.theta, rows))
        what = f"{_MORE_DEAD} more dead steps, after {horizon}"
        made += check_equal(found, trial.estimates(batch, setup), what)
    return made
