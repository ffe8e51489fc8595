"""What any estimator must satisfy, one function a check.

Comparisons are of the same numbers come by in two ways, so they are exact but for rounding.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray
from stochastic.estimators import DrawEstimator
from stochastic.trajectories import Trajectories
from verification.conformance_cases import (
    Relabelling,
    Setup,
    drawn_moments,
    padded,
    single_state,
)
from verification.conformance_trials import (
    REPLICATIONS,
    NotApplicable,
    NotSatisfied,
    Trial,
    check_equal,
)

_NUDGE = 1e-10
_NUDGES = 5
_SINGLE = 1e-8
_MORE_DEAD = 2
_POOL = 200


def runs(trial: Trial) -> int:
    """Estimates have theta's axes, once for each order, and are finite, whatever R and N."""
    if isinstance(trial.estimator, DrawEstimator):
        trial.one_run(trial.estimator, 0)  # refuses another shape
        return 1
    shape = trial.setup.theta.shape * trial.estimator.order
    sizes = (trial.n,) if trial.coupled else (1, 2, 3)
    given = [trial.setup.drawn(trial.rng(n), REPLICATIONS, n) for n in sizes]
    given += [given[0][0], given[0][:, None]]
    for batch in given:
        wanted = (*batch.shape[:-2], *shape)
        found = trial.estimates(batch)
        if found.shape != wanted:
            raise NotSatisfied(f"expected shape {wanted}, got {found.shape}")
        if found.dtype != np.float64 or not np.isfinite(found).all():
            raise NotSatisfied(f"expected finite float64 numbers, got {found.dtype}")
    return len(given)


def purity(trial: Trial) -> int:
    """The same estimate again, whatever came between; nothing is changed, nothing random."""
    if isinstance(trial.estimator, DrawEstimator):
        return _same_runs(trial, trial.estimator)
    other = Setup.random(trial.rng(3), (2, 3, 2))
    batch, before = trial.batch, _arrays(trial.batch)
    state = np.random.get_state(legacy=False)["state"]["pos"]
    first = trial.estimates(batch)
    trial.estimates(other.drawn(trial.rng(4), 2, trial.n), other)
    made = check_equal(trial.estimates(batch), first, "the same batch again, another between")
    for name, array in _arrays(batch).items():
        if not np.array_equal(array, before[name]):
            raise NotSatisfied(f"changed the batch's {name}")
    if np.random.get_state(legacy=False)["state"]["pos"] != state:
        raise NotSatisfied("drew from numpy's global generator")
    return made + len(before) + 1


def _same_runs(trial: Trial, estimator: DrawEstimator) -> int:
    first, asked = trial.one_run(estimator, 0)
    trial.one_run(estimator, 1)
    again, asked_again = trial.one_run(estimator, 0)
    if asked.shape != asked_again.shape:
        raise NotSatisfied("run again, it draws another number of times")
    made = check_equal(asked_again, asked, "run again, the parameters that it draws at")
    return made + check_equal(again, first, "run again with the same draws")


def independence(trial: Trial) -> int:
    """A replication's estimate does not depend on the others, their number, or its place."""
    together = trial.estimates(trial.batch)
    made = 0
    for r in range(REPLICATIONS):
        alone = trial.estimates(trial.batch[r : r + 1])[0]
        made += check_equal(together[r], alone, f"replication {r} among {REPLICATIONS}, and alone")
    order = np.arange(REPLICATIONS)[::-1]
    made += check_equal(trial.estimates(trial.batch[order]), together[order], "in reverse order")
    twice = np.concatenate([order, order])
    return made + check_equal(trial.estimates(trial.batch[twice]), together[twice], "each twice")


def precision(trial: Trial) -> int:
    """A tiny change of a reward changes the estimate by as little, but not by nothing."""
    base, rng = trial.estimates(trial.batch), trial.rng(5)
    directions = rng.normal(size=(_NUDGES, *trial.batch.rewards.shape))
    size = float(np.abs(base).max())

    def moved(by: float, direction: FloatArray) -> float:
        rewards = trial.batch.rewards * (1.0 + by * direction)
        found = trial.estimates(replace(trial.batch, rewards=rewards))
        return float(np.abs(found - base).max()) / (size or 1.0)

    if size == 0.0 or moved(1e-3, directions[0]) < 1e-7:
        raise NotApplicable("the estimates do not depend on the rewards, as far as was seen")
    change = float(np.median([moved(_NUDGE, direction) for direction in directions]))
    if not 0.0 < change < _SINGLE:
        raise NotSatisfied(
            f"a relative change of the rewards by {_NUDGE:g} changes estimates by {change:.3g}: "
            "single precision inside?"
        )
    return _NUDGES


def coupling(trial: Trial) -> int:
    """Unless it was declared, a batch's estimate is the mean of its trajectories' own."""
    if trial.coupled:
        raise NotApplicable("coupling was declared")
    made = 0
    for n in (2, 3):
        batch = trial.setup.drawn(trial.rng(5 + n), REPLICATIONS, n)
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
        batch = there.drawn(trial.rng(11 + state), REPLICATIONS, trial.n)
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
    """Steps after an episode's end carry nothing: with more of them, the same estimate."""
    setup = Setup.random(trial.rng(14), (3, 2, 3), ends=True)
    assert setup.critic is not None
    drawn = setup.drawn(trial.rng(15), _POOL, trial.n)
    ended = setup.mdp.terminal[drawn.states[..., -1]].all(axis=-1)
    batch = drawn[np.flatnonzero(ended)[:REPLICATIONS]]
    if not len(batch.actions):
        raise NotApplicable(f"no batch of {trial.n} was drawn in which all episodes end")
    longer = replace(setup.mdp, horizon=setup.steps + _MORE_DEAD)
    later = Setup(longer, setup.theta, np.repeat(setup.critic[:1], setup.steps + 3, axis=0))
    found = trial.estimates(padded(batch, _MORE_DEAD), later)
    return check_equal(found, trial.estimates(batch, setup), f"{_MORE_DEAD} more dead steps")


def _arrays(batch: Trajectories) -> dict[str, npt.NDArray[Any]]:
    """Copies of all that a batch holds."""
    named = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: np.array(array) for name, array in named.items() if array is not None}
