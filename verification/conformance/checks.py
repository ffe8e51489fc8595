"""What any estimator must satisfy, one function a check.

Comparisons are of the same numbers come by in two ways, so they are exact but for rounding.

What comes first: an estimator that fails these is no function of its batch, so that nothing else
can be asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.derivatives.process_state import Watch, put_back
from gradbias.stochastic.estimators.kinds import DrawEstimator
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.conformance.problems import (
    Relabelling,
    Setup,
    drawn_moments,
    ended,
    padded,
    single_state,
)
from gradbias.verification.conformance.report import NotApplicable, NotSatisfied, check_equal
from gradbias.verification.conformance.trial import REPLICATIONS, Trial

_SIZES = ((1, 1, 1), (2, 1, 2), (2, 2, 1), (2, 4, 2))
"""States, actions, steps: one of each, and more actions than states."""


def runs(trial: Trial) -> int:
    """Estimates have theta's axes, once for each order, and are finite, whatever R and N, on any
    problem, also where nothing or always the same is earned.
    """
    if trial.estimator.draws_itself:
        return _runs_that_draw(trial, trial.estimator)
    cases = [*_batches(trial), *_other_problems(trial)]
    for batch, setup in cases:
        wanted = (*batch.shape[:-2], *setup.theta.shape * trial.estimator.order)
        found = trial.estimates(batch, setup)
        if found.shape != wanted:
            raise NotSatisfied(f"on {setup.size}: expected shape {wanted}, got {found.shape}")
        if not np.isfinite(found).all():
            raise NotSatisfied(f"on {setup.size}: expected finite numbers, got NaN or infinity")
    return len(cases)


def _batches(trial: Trial) -> Iterator[tuple[Trajectories, Setup]]:
    """Of some N, with one replication, and with more than one axis of them."""
    sizes = (trial.n,) if trial.coupled else (1, 2, 3)
    for n in sizes:
        drawn = trial.setup.unlike(trial.rng(n), REPLICATIONS, n)
        yield drawn, trial.setup
    yield drawn[0], trial.setup
    yield drawn[:, None], trial.setup


def _other_problems(trial: Trial) -> Iterator[tuple[Trajectories, Setup]]:
    """Of other sizes; and with rewards of which two replications' are all 0, or all 1."""
    for sizes in _SIZES:
        setup = Setup.random(trial.rng(22), sizes)
        yield setup.unlike(trial.rng(23), REPLICATIONS, trial.n), setup
    rewards = np.array(trial.batch.rewards)
    rewards[0], rewards[1] = 0.0, 1.0
    yield replace(trial.batch, rewards=rewards), trial.setup


def _runs_that_draw(trial: Trial, estimator: DrawEstimator) -> int:
    """Another shape is refused by the estimator itself."""
    trial.one_run(estimator, 0)
    for sizes in _SIZES:
        trial.one_run(estimator, 0, Setup.random(trial.rng(22), sizes))
    nothing = replace(trial.setup, mdp=replace(trial.setup.mdp, reward=0 * trial.setup.mdp.reward))
    trial.one_run(estimator, 0, nothing)
    return len(_SIZES) + 2


def purity(trial: Trial) -> int:
    """The same estimate again, whatever came between; nothing is changed, nothing random."""
    if trial.estimator.draws_itself:
        estimator = trial.estimator
        return _same_runs(trial, estimator) + undisturbed(lambda: trial.one_run(estimator, 0)[0])
    other = Setup.random(trial.rng(3), (2, 3, 2))
    batch = trial.setup.unlike(trial.rng(24), REPLICATIONS, trial.n)  # not seen by it before
    before = _arrays(batch)
    first = trial.estimates(batch)
    trial.estimates(other.drawn(trial.rng(4), 2, trial.n), other)
    made = check_equal(trial.estimates(batch), first, "the same batch again, another between")
    made += undisturbed(lambda: trial.estimates(batch))
    for name, array in _arrays(batch).items():
        if not np.array_equal(array, before[name]):
            raise NotSatisfied(f"changed the batch's {name}")
    return made + len(before)


def undisturbed(compute: Callable[[], FloatArray]) -> int:
    """How many comparisons it made. Raises NotSatisfied where a call of ``compute`` draws from what
    the process shares, changes it, or depends on torch's default dtype.
    """
    found = []
    for double in (False, True):
        with put_back():
            watch = Watch(double=double)
            found.append(compute())
            what = watch.disturbed()
        if what:
            raise NotSatisfied(what)
    return 2 + check_equal(found[1], found[0], "with float64 as torch's default dtype, and float32")


def _same_runs(trial: Trial, estimator: DrawEstimator) -> int:
    first, asked = trial.one_run(estimator, 0)
    trial.one_run(estimator, 1)
    again, asked_again = trial.one_run(estimator, 0)
    if asked.shape != asked_again.shape:
        raise NotSatisfied("run again, it draws another number of times")
    made = check_equal(asked_again, asked, "run again, the parameters that it draws at")
    return made + check_equal(again, first, "run again with the same draws")


def _arrays(batch: Trajectories) -> dict[str, npt.NDArray[Any]]:
    """Copies of all that a batch holds."""
    named = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: np.array(array) for name, array in named.items() if array is not None}


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
    if trial.estimator.draws_itself:
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
