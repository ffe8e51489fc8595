"""What any estimator must satisfy, one function a check.

Each is given a `Trial` and returns how many comparisons it made; it raises `NotSatisfied` or, where
it does not apply, `NotApplicable`. Comparisons are of the same numbers come by in two ways, so that
all but the last check are exact; that one samples, with a bound on its false alarms that holds for
any number of samples (Bernstein's inequality with the enumerated variance and range).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray
from stochastic.estimators import DrawEstimator, Estimator, Evaluator
from stochastic.trajectories import Trajectories
from verification.conformance_cases import (
    Distribution,
    Relabelling,
    Setup,
    distribution,
    drawn_moments,
    enumerable,
    padded,
    single_state,
)

TOLERANCE = 1e-8
"""Relative to the largest entry of what is compared."""

REPLICATIONS = 6
_NUDGE = 1e-10
_NUDGES = 5
_SINGLE = 1e-8
_SCALE = 3.7
_SHIFT = 1.3
_MORE_DEAD = 2
_POOL = 200


class NotSatisfied(Exception):  # noqa: N818
    """The estimator fails a check; says how."""


class NotApplicable(Exception):  # noqa: N818
    """A check that has nothing to say here; says why."""


@dataclass(frozen=True, eq=False)
class Trial:
    """An estimator on trial: ``n`` trajectories a batch, ``coupled`` where that was declared."""

    estimator: Estimator
    n: int
    coupled: bool
    seed: int
    samples: int
    false_alarm: float
    _prepared: dict[tuple[Setup, tuple[int, ...]], Evaluator] = field(default_factory=dict)

    def rng(self, which: int) -> np.random.Generator:
        """A generator for one of the checks' uses."""
        return np.random.default_rng([self.seed, which])

    @cached_property
    def setup(self) -> Setup:
        """The problem of most checks."""
        return Setup.random(self.rng(0), (3, 2, 3))

    @cached_property
    def batch(self) -> Trajectories:
        """Its batches ``[R, N, H]``."""
        return self.setup.drawn(self.rng(1), REPLICATIONS, self.n)

    @cached_property
    def enumerable(self) -> Setup:
        """A problem of which all batches can be enumerated. Raises NotApplicable."""
        found = enumerable(self.estimator, self.rng(2), self.n)
        if found is None:
            raise NotApplicable(f"batches of {self.n} are too many to enumerate, on any problem")
        return found

    def estimates(self, batch: Trajectories, setup: Setup | None = None) -> FloatArray:
        """``[..., *shape]``. Raises NotApplicable for estimates that draw their own batches."""
        if isinstance(self.estimator, DrawEstimator):
            raise NotApplicable("the estimate draws its own batches")
        where = self.setup if setup is None else setup
        flat = batch.reshape(-1, batch.shape[-2])
        key = (where, flat.shape[1:])
        if key not in self._prepared:
            self._prepared[key] = self.estimator.prepare(flat, where.context)
        dense = self._prepared[key].rows(flat).dense()
        return dense.reshape(*batch.shape[:-2], *dense.shape[1:])

    def distribution(self, setup: Setup, at: FloatArray | None = None) -> Distribution:
        """Exact, over all batches. Raises NotApplicable likewise."""
        batches, weights = setup.enumeration(at).all_batches(self.n, ordered=True)
        return distribution(self.estimates(batches, setup), weights)

    def one_run(self, estimator: DrawEstimator, seed: int) -> tuple[FloatArray, FloatArray]:
        """One estimate with seeded draws, and the parameters that were drawn at."""
        rng = np.random.default_rng([self.seed, seed])
        asked: list[FloatArray] = []

        def draw(theta: npt.ArrayLike, n: int) -> Trajectories:
            asked.append(np.array(theta))
            return replace(self.setup, theta=asked[-1]).drawn(rng, 1, n)[0]

        found = estimator.run(draw, self.setup.context)
        return found, np.array(asked)


def check_equal(found: npt.ArrayLike, wanted: npt.ArrayLike, what: str) -> int:
    """1. Raises NotSatisfied where they differ by more than rounding."""
    one, other = np.asarray(found), np.asarray(wanted)
    size = max(float(np.abs(one).max(initial=0.0)), float(np.abs(other).max(initial=0.0)))
    gap = float(np.abs(one - other).max(initial=0.0))
    if gap > TOLERANCE * size:
        raise NotSatisfied(f"{what}: differs by {gap / size:.3g} of the largest entry")
    return 1


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


def reward_scale(trial: Trial) -> int:
    """Rewards and critic times c: the estimate times c."""
    assert trial.setup.critic is not None
    scaled = replace(trial.setup, critic=_SCALE * trial.setup.critic)
    batch = replace(trial.batch, rewards=_SCALE * trial.batch.rewards)
    wanted = _SCALE * trial.estimates(trial.batch)
    return check_equal(trial.estimates(batch, scaled), wanted, f"rewards times {_SCALE}")


def reward_shift(trial: Trial) -> int:
    """All rewards larger by a constant: the same estimate."""
    plain = replace(trial.setup, critic=None)
    batch = replace(trial.batch, rewards=trial.batch.rewards + _SHIFT)
    wanted = trial.estimates(trial.batch, plain)
    return check_equal(trial.estimates(batch, plain), wanted, f"rewards plus {_SHIFT}")


def mean_reward_shift(trial: Trial) -> int:
    """All rewards larger by a constant: the same mean."""
    setup = replace(trial.enumerable, critic=None)
    paid = replace(setup, mdp=replace(setup.mdp, reward=setup.mdp.reward + _SHIFT))
    found = trial.distribution(paid)
    return _equal_means(found, trial.distribution(setup), f"the mean with rewards plus {_SHIFT}")


def critic_ignored(trial: Trial) -> int:
    """Another critic, or none: the same estimate."""
    assert trial.setup.critic is not None
    wanted = trial.estimates(trial.batch)
    made = 0
    for critic in (None, trial.rng(16).normal(size=trial.setup.critic.shape)):
        found = trial.estimates(trial.batch, replace(trial.setup, critic=critic))
        made += check_equal(found, wanted, "with another critic")
    return made


def critic_is_baseline(trial: Trial) -> int:
    """Another critic that is 0 at the end, or none: the same mean."""
    assert trial.enumerable.critic is not None
    critic = np.array(trial.enumerable.critic)
    critic[-1] = 0.0
    found = trial.distribution(replace(trial.enumerable, critic=critic))
    wanted = trial.distribution(replace(trial.enumerable, critic=None))
    return _equal_means(found, wanted, "the mean with a critic that is 0 at the end, and none")


def behaviour_ignored(trial: Trial) -> int:
    """Another behaviour's log-probabilities: the same estimate."""
    shift = trial.rng(17).uniform(-1.0, 0.0, size=trial.batch.rewards.shape)
    other = trial.batch.behaviour_log_probs + np.where(trial.batch.alive, shift, 0.0)
    found = trial.estimates(replace(trial.batch, behaviour_log_probs=other))
    return check_equal(found, trial.estimates(trial.batch), "other behaviour_log_probs")


def off_policy(trial: Trial) -> int:
    """Drawn by another policy: the same mean, through `behaviour_log_probs` alone."""
    setup = trial.enumerable
    wanted, made = trial.distribution(setup), 0
    for which in (18, 19):
        other = setup.theta + trial.rng(which).normal(size=setup.theta.shape)
        found = trial.distribution(setup, other)
        made += _equal_means(found, wanted, "the mean where another policy draws")
    return made


def _equal_means(found: Distribution, wanted: Distribution, what: str) -> int:
    """`check_equal`, but relative to the estimates, not to a mean that may be 0."""
    size = max(float((np.abs(one.mean) + one.reach).max()) for one in (found, wanted))
    gap = float(np.abs(found.mean - wanted.mean).max())
    if gap > TOLERANCE * size:
        raise NotSatisfied(f"{what}: differs by {gap / size:.3g} of the largest estimate")
    return 1


def sampling(trial: Trial) -> int:
    """The mean of sampled estimates is that of enumerated ones."""
    setup, rng = trial.enumerable, trial.rng(20)
    if isinstance(trial.estimator, DrawEstimator):
        moments = drawn_moments(trial.estimator, setup)
        reach = np.full(moments.mean.shape, 2 * moments.largest)
        exact = Distribution(moments.mean, moments.variance, reach)
        found = _sampled_runs(trial.estimator, setup, trial.samples, rng)
    else:
        exact = trial.distribution(setup)
        found = trial.estimates(setup.drawn(rng, trial.samples, trial.n), setup).mean(axis=0)
    allowed = bernstein(exact, trial.samples, trial.false_alarm / found.size)
    allowed += TOLERANCE * float((np.abs(exact.mean) + exact.reach).max())
    gaps = np.abs(found - exact.mean)
    if (gaps > allowed).any():
        worst = np.unravel_index(int(np.argmax(gaps - allowed)), gaps.shape)
        raise NotSatisfied(
            f"{trial.samples:,} sampled estimates and all outcomes: means differ by "
            f"{gaps[worst]:.3g} at {tuple(map(int, worst))}, allowed {allowed[worst]:.3g}"
        )
    return int(found.size)


def bernstein(exact: Distribution, samples: int, rate: float) -> FloatArray:
    """How far each entry's mean of n estimates strays from its expectation, but for probability
    ``rate``. Source: Boucheron, Lugosi and Massart 2013, eq. 2.10.
    """
    size = math.log(2.0 / rate)
    linear = exact.reach * size / (3.0 * samples)
    found: FloatArray = linear + np.sqrt(linear**2 + 2.0 * exact.variance * size / samples)
    return found


def _sampled_runs(
    estimator: DrawEstimator, setup: Setup, samples: int, rng: np.random.Generator
) -> FloatArray:
    def draw(theta: npt.ArrayLike, n: int) -> Trajectories:
        return replace(setup, theta=np.asarray(theta)).drawn(rng, 1, n)[0]

    runs = [estimator.run(draw, setup.context) for _ in range(samples)]
    found: FloatArray = np.mean(runs, axis=0)
    return found


def _arrays(batch: Trajectories) -> dict[str, npt.NDArray[Any]]:
    """Copies of all that a batch holds."""
    named = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: np.array(array) for name, array in named.items() if array is not None}


Check = Callable[[Trial], int]
