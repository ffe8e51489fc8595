"""What every estimator must satisfy, one function for each check.

A check compares the same numbers, computed in two ways, so that only rounding may differ. `runs`
and `purity` are gates: an estimator that fails one of them is no function of its batch, and the
other checks would say nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray, IntArray
from gradbias.stochastic.derivatives.process_state import Watch, put_back
from gradbias.stochastic.estimators.kinds import DrawEstimator
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.conformance.problems import (
    Relabelling,
    Setup,
    ended,
    padded,
    single_state,
)
from gradbias.verification.conformance.runner import NotApplicable, NotSatisfied, Trial
from gradbias.verification.conformance.trial import REPLICATIONS, EstimatorTrial

_SIZES = ((1, 1, 1), (2, 1, 2), (2, 2, 1), (2, 4, 2))
"""States, actions and steps: one of each, and more actions than states."""

_MORE_DEAD = 2
"""Dead steps that are added to trajectories which have ended."""


def runs(trial: EstimatorTrial) -> None:
    """Estimates have theta's axes, once for each order, and are finite: for any numbers of
    replications and of trajectories, on any problem, also where rewards are all 0, or all the same.
    """
    axes = trial.estimator.order
    if isinstance(trial.estimator, DrawEstimator):
        mdp = replace(trial.setup.mdp, reward=0 * trial.setup.mdp.reward)
        others = [Setup.random(trial.rng(22), sizes) for sizes in _SIZES]
        for setup in (trial.setup, *others, replace(trial.setup, mdp=mdp)):
            estimate, _ = trial.one_run(trial.estimator, 0, setup)
            trial.finite(estimate, setup.theta.shape * axes, f"on {setup.size}: ")
        return
    for batch, setup in _batches(trial):
        shape = (*batch.shape[:-2], *setup.theta.shape * axes)
        trial.finite(trial.estimates(batch, setup), shape, f"on {setup.size}: ")


def _batches(trial: EstimatorTrial) -> Iterator[tuple[Trajectories, Setup]]:
    """Batches of several sizes, one without an axis of replications and one with two such axes,
    batches on problems of other sizes, and one with replications whose rewards are all 0, or all 1.
    """
    for n in (trial.n,) if trial.coupled else (1, 2, 3):
        drawn = trial.setup.drawn_with_reward_noise(trial.rng(n), REPLICATIONS, n)
        yield drawn, trial.setup
    yield drawn[0], trial.setup
    yield drawn[:, None], trial.setup
    for sizes in _SIZES:
        setup = Setup.random(trial.rng(22), sizes)
        yield setup.drawn_with_reward_noise(trial.rng(23), REPLICATIONS, trial.n), setup
    rewards = np.array(trial.batch.rewards)
    rewards[0], rewards[1] = 0.0, 1.0
    yield replace(trial.batch, rewards=rewards), trial.setup


def purity(trial: EstimatorTrial) -> None:
    """The same batch gives the same estimate again, whatever was computed in between. The batch is
    left as it was; global generators and settings of the process are not used or changed.
    """
    if isinstance(trial.estimator, DrawEstimator):
        estimator = trial.estimator
        for which, what in ((1, "the parameters that it draws at"), (0, "with the same draws")):
            check_pure(
                trial,
                lambda which=which: trial.one_run(estimator, 0)[which],  # type: ignore[misc]
                lambda: trial.one_run(estimator, 1),
                f"run again, {what}",
            )
        return
    other = Setup.random(trial.rng(3), (2, 3, 2))
    batch = trial.setup.drawn_with_reward_noise(trial.rng(24), REPLICATIONS, trial.n)  # a new one
    check_pure(
        trial,
        lambda: trial.estimates(batch),
        lambda: trial.estimates(other.drawn(trial.rng(4), 2, trial.n), other),
        "the same batch again, another between",
        {f"the batch's {field.name}": getattr(batch, field.name) for field in fields(batch)},
    )


def check_pure(
    trial: Trial,
    compute: Callable[[], FloatArray],
    between: Callable[[], object],
    what: str,
    inputs: Mapping[str, npt.NDArray[Any] | None] | None = None,
) -> None:
    """Compares two calls of ``compute`` with a call of ``between`` between them, and two calls
    under different default dtypes of torch.

    Raises:
        NotSatisfied: results differ; a call draws from a global generator, or changes a global
            setting or one of its ``inputs``.
    """
    arrays = {name: array for name, array in (inputs or {}).items() if array is not None}
    before = {name: np.array(array) for name, array in arrays.items()}
    first = compute()
    between()
    trial.same(compute(), first, what)
    by_dtype = []
    for double in (False, True):
        with put_back():
            watch = Watch(double=double)
            by_dtype.append(compute())
            disturbed = watch.disturbed()
        if disturbed:
            raise NotSatisfied(disturbed)
    single, double_ = by_dtype
    trial.same(double_, single, "with float64 as torch's default dtype, and float32")
    for name, array in arrays.items():
        if not np.array_equal(array, before[name]):
            raise NotSatisfied(f"changed {name}")


def independence(trial: EstimatorTrial) -> None:
    """A replication's estimate does not depend on the others, their number, or its place."""
    together = trial.estimates(trial.batch)
    check_independent(trial, together, lambda which: trial.estimates(trial.batch[which]))


def check_independent(
    trial: Trial, together: FloatArray, estimates_of: Callable[[IntArray], FloatArray]
) -> None:
    """Compares the estimates of all replications with those of each alone, of all in reverse order,
    and of each twice. Raises NotSatisfied.
    """
    replications = len(together)
    for r in range(replications):
        what = f"replication {r} among {replications}, and alone"
        trial.same(together[r], estimates_of(np.array([r]))[0], what, beside=together)
    order = np.arange(replications)[::-1]
    trial.same(estimates_of(order), together[order], "in reverse order")
    twice = np.concatenate([order, order])
    trial.same(estimates_of(twice), together[twice], "each twice")


def coupling(trial: EstimatorTrial) -> None:
    """Unless coupling was declared, a batch's estimate is the mean of those of its trajectories."""
    if trial.coupled:
        raise NotApplicable("coupling was declared")
    for n in (2, 3, 8):
        batch = trial.setup.drawn_with_reward_noise(trial.rng(5 + n), REPLICATIONS, n)
        alone = trial.estimates(batch.reshape(-1, 1))
        means = alone.reshape(REPLICATIONS, n, *alone.shape[1:]).mean(axis=1)
        what = f"batches of {n} and the mean of single trajectories (give batch_size=N?)"
        trial.same(trial.estimates(batch), means, what)


def identical(trial: EstimatorTrial) -> None:
    """N copies of a trajectory give the estimate of a single one."""
    if trial.coupled:
        raise NotApplicable("coupling was declared")
    single = trial.batch[:, :1]
    for n in (2, 4):
        copies = single[:, np.zeros(n, dtype=np.int64)]
        trial.same(trial.estimates(copies), trial.estimates(single), f"{n} copies of a trajectory")


def relabelling(trial: EstimatorTrial) -> None:
    """Other labels of states and actions give the same estimate under those labels."""
    order, draws = trial.estimator.order, isinstance(trial.estimator, DrawEstimator)
    setup = trial.enumerable if draws else trial.setup
    labels = Relabelling.random(trial.rng(9), setup)
    if draws:
        wanted = labels.estimates(trial.distribution(setup).mean, order)
        mean = trial.distribution(labels.setup(setup)).mean
        trial.same(mean, wanted, "the mean with states and actions renamed")
        return
    wanted = labels.estimates(trial.estimates(trial.batch), order)
    estimates = trial.estimates(labels.batch(trial.batch), labels.setup(setup))
    trial.same(estimates, wanted, "with states and actions renamed")


def bandits(trial: EstimatorTrial) -> None:
    """Over one step, the estimate is that of a bandit with the start state alone."""
    setup, order = Setup.random(trial.rng(10), (3, 2, 1)), trial.estimator.order
    assert setup.critic is not None
    critic = np.array(setup.critic)
    critic[-1] = 0.0
    for state in range(3):
        there = replace(setup, mdp=replace(setup.mdp, start=np.eye(3)[state]), critic=critic)
        batch = there.drawn_with_reward_noise(trial.rng(11 + state), REPLICATIONS, trial.n)
        alone = Setup(_bandit(setup, state), setup.theta[state : state + 1], critic[:, [state]])
        of_bandit = trial.estimates(single_state(batch), alone)
        wanted = np.zeros((REPLICATIONS, *setup.theta.shape * order))
        rows, row = ((slice(None), *(s, slice(None)) * order) for s in (state, 0))
        wanted[rows] = of_bandit[row]
        trial.same(trial.estimates(batch, there), wanted, f"one step from state {state}")


def _bandit(setup: Setup, state: int) -> TabularMDP:
    """The bandit that has only the given state."""
    stay = np.ones((1, setup.mdp.n_actions, 1))
    reward = setup.mdp.reward[state].mean(axis=-1)[None]
    return replace(setup.mdp, transition=stay, reward=reward, start=np.ones(1))


def endings(trial: EstimatorTrial) -> None:
    """Steps after an episode's end have no effect: with more of them, the estimate is the same,
    also for episodes of one step.
    """
    for horizon, use in ((3, 14), (1, 24)):
        setup = Setup.random(trial.rng(use), (3, 2, horizon), ends=True)
        assert setup.critic is not None
        batch = ended(setup, trial.rng(use + 1), REPLICATIONS, trial.n)
        longer = replace(setup.mdp, horizon=horizon + _MORE_DEAD)
        rows = np.repeat(setup.critic[:1], horizon + _MORE_DEAD + 1, axis=0)
        estimates = trial.estimates(padded(batch, _MORE_DEAD), Setup(longer, setup.theta, rows))
        what = f"{_MORE_DEAD} more dead steps, after {horizon}"
        trial.same(estimates, trial.estimates(batch, setup), what)
