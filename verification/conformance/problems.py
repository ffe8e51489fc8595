"""What the conformance checks are put to: small random problems, batches, and their relabelling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray, IntArray
from gradbias.stochastic.estimators.contexts import Context
from gradbias.stochastic.estimators.kinds import DrawEstimator, Estimator
from gradbias.stochastic.rollouts.trajectories import Trajectories, sample
from gradbias.verification.evidence.accumulated_moments import Moments
from gradbias.verification.evidence.draw_trees import explored_moments
from gradbias.verification.evidence.enumeration import Enumeration, EnumerationSizeError
from gradbias.verification.evidence.request import Request
from gradbias.verification.evidence.setting import Setting

OUTCOMES = 4096
"""Batches that are enumerated at most."""

LEAVES = 1024
"""Outcomes at most of an estimate that draws, which is run twice for each."""

_SIZES = ((3, 2, 3), (3, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 1), (1, 2, 1))
_DETERMINISTIC = 3
"""Which of the sizes is tried with an action that says where it leads: 4 trajectories, 2 steps."""

_DISCOUNT = 0.8


@dataclass(frozen=True, eq=False)
class Setup:
    """A problem with parameters of a tabular policy, and a critic ``[H + 1, S]`` or ``[S]``."""

    mdp: TabularMDP
    theta: FloatArray
    critic: FloatArray | None

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        sizes: tuple[int, int, int],
        *,
        ends: bool = False,
        one_start: bool = False,
        deterministic: bool = False,
    ) -> Setup:
        """Rewards of both signs by next state; any start, or the first state; with ``ends`` the
        last state ends the episode and is entered half of the time; with ``deterministic`` action
        a leads to state a.
        """
        n_states, n_actions, horizon = sizes
        rows = rng.dirichlet(np.ones(n_states), size=(n_states, n_actions))
        if deterministic:
            rows = np.tile(np.eye(n_states)[np.arange(n_actions) % n_states], (n_states, 1, 1))
        reward = rng.normal(size=(n_states, n_actions, n_states))
        critic = rng.normal(size=(horizon + 1, n_states))
        start = np.full(n_states, 1.0 / n_states)
        if ends:
            rows = 0.5 * rows + 0.5 * np.eye(n_states)[-1]
            rows[-1], reward[-1], critic[:, -1] = np.eye(n_states)[-1], 0.0, 0.0
            critic[:] = critic[0]
            start = np.full(n_states, 1.0 / max(n_states - 1, 1))
            start[-1] = 0.0
        if one_start:
            start = np.eye(n_states)[0]
        mdp = TabularMDP(rows, reward, _DISCOUNT, start, horizon)
        return cls(mdp, rng.normal(size=(n_states, n_actions)), critic)

    @property
    def context(self) -> Context:
        """What estimates depend on besides trajectories."""
        return Context(self.theta, self.mdp.discount, critic=self.critic)

    @property
    def steps(self) -> int:
        """H."""
        return int(self.mdp.tables.steps)

    @property
    def size(self) -> str:
        """In words."""
        return f"{self.mdp.n_states} states, {self.mdp.n_actions} actions, {self.steps} steps"

    def drawn(
        self, rng: np.random.Generator, replications: int, n: int, at: FloatArray | None = None
    ) -> Trajectories:
        """``[R, n, H]`` of the policy, or of the one with parameters ``at``."""
        theta = self.theta if at is None else at
        return sample(self.mdp, theta, n, rng=rng, replications=replications)

    def unlike(self, rng: np.random.Generator, replications: int, n: int) -> Trajectories:
        """`drawn`, with noise in every reward: where trajectories earned the same, rounding would
        decide ranks and blow up what is divided by a group's deviation.
        """
        return noisy(self.drawn(rng, replications, n), rng)

    def enumeration(self, at: FloatArray | None = None) -> Enumeration:
        """All trajectories, likewise."""
        theta = self.theta if at is None else at
        return Enumeration.of(self.mdp, TABULAR, theta, self.steps)


@dataclass(frozen=True, eq=False)
class Distribution:
    """An estimate's outcomes: mean, variance, and the largest distance from the mean."""

    mean: FloatArray
    variance: FloatArray
    reach: FloatArray


def distribution(found: FloatArray, weights: FloatArray) -> Distribution:
    """Of outcomes ``[B, *shape]`` with probabilities ``[B]``."""
    mean = np.tensordot(weights, found, axes=1)
    centred = np.abs(found - mean)
    return Distribution(mean, np.tensordot(weights, centred**2, axes=1), centred.max(axis=0))


def drawn_moments(estimator: DrawEstimator, setup: Setup) -> Moments:
    """Over all outcomes of an estimate's own draws. Raises EnumerationSizeError."""
    setting = Setting.of(setup.mdp, setup.theta, critic=setup.critic)
    return explored_moments(Request(estimator, setting), estimator, LEAVES)


def enumerable(
    estimator: Estimator, rng: np.random.Generator, n: int, *, ordered: bool
) -> Setup | None:
    """The largest of a few sizes whose batches of n (tuples, or multisets) can all be enumerated;
    None: there is none.
    """
    for which, sizes in enumerate(_SIZES):
        plain = which == _DETERMINISTIC
        setup = Setup.random(rng, sizes, one_start=True, deterministic=plain)
        if estimator.draws_itself:
            try:
                drawn_moments(estimator, setup)
            except EnumerationSizeError:
                continue
            return setup
        if setup.enumeration().count_batches(n, ordered=ordered) <= OUTCOMES:
            return setup
    return None


@dataclass(frozen=True, eq=False)
class Relabelling:
    """State s is called ``states[s]``, action a ``actions[a]``."""

    states: IntArray
    actions: IntArray

    @classmethod
    def random(cls, rng: np.random.Generator, setup: Setup) -> Relabelling:
        """One that moves every label."""
        return cls(_shuffle(rng, setup.mdp.n_states), _shuffle(rng, setup.mdp.n_actions))

    def setup(self, setup: Setup) -> Setup:
        """The same problem and policy under the new names."""
        mdp, (s, a) = setup.mdp, self._origins
        transition = mdp.transition[s][:, a][:, :, s]
        reward = mdp.reward[s][:, a]
        reward = reward[:, :, s] if reward.ndim == 3 else reward
        renamed = replace(mdp, transition=transition, reward=reward, start=mdp.start[s])
        critic = None if setup.critic is None else setup.critic[..., s]
        return Setup(renamed, setup.theta[s][:, a], critic)

    def batch(self, batch: Trajectories) -> Trajectories:
        """The same trajectories; dead steps keep action 0."""
        actions = np.where(batch.alive, self.actions[batch.actions], 0)
        return replace(batch, states=self.states[batch.states], actions=actions)

    def estimates(self, found: FloatArray, order: int) -> FloatArray:
        """``[R, *shape]`` of the old names, under the new ones."""
        for axis in range(found.ndim - 2 * order, found.ndim, 2):
            found = np.take(np.take(found, self._origins[0], axis), self._origins[1], axis + 1)
        return found

    @property
    def _origins(self) -> tuple[IntArray, IntArray]:
        return np.argsort(self.states), np.argsort(self.actions)


def _shuffle(rng: np.random.Generator, size: int) -> IntArray:
    """A random cycle through all labels."""
    order = rng.permutation(size)
    found: IntArray = np.empty(size, dtype=np.int64)
    found[order] = np.roll(order, 1)
    return found


def noisy(batch: Trajectories, rng: np.random.Generator) -> Trajectories:
    """The same trajectories with other rewards, while alive."""
    noise = rng.normal(size=batch.rewards.shape)
    return replace(batch, rewards=batch.rewards + np.where(batch.alive, noise, 0.0))


def padded(batch: Trajectories, more: int) -> Trajectories:
    """Trajectories that all have ended, with more dead steps."""
    width = [(0, 0)] * (batch.actions.ndim - 1) + [(0, more)]
    return Trajectories(
        np.pad(batch.states, width, mode="edge"),
        np.pad(batch.actions, width),
        np.pad(batch.rewards, width),
        np.pad(batch.alive, width),
        np.pad(batch.behaviour_log_probs, width),
    )


def ended(setup: Setup, rng: np.random.Generator, replications: int, n: int) -> Trajectories:
    """Batches ``[R, n, H]`` of trajectories that all have ended; none earn the same."""
    found: list[Trajectories] = []
    while sum(len(part.actions) for part in found) < replications * n:
        drawn = setup.drawn(rng, 1, replications * n)[0]
        found.append(drawn[setup.mdp.terminal[drawn.states[..., -1]]])
    enough = Trajectories.concatenated(found)[: replications * n]
    return noisy(enough.reshape(replications, n), rng)


def single_state(batch: Trajectories, state: int) -> Trajectories:
    """One-step trajectories that start in ``state``, as those of a bandit with this state alone."""
    if (batch.states[..., 0] != state).any() or batch.actions.shape[-1] != 1:
        raise ValueError(f"batch: expected one step from state {state}")
    return replace(batch, states=np.zeros_like(batch.states))
