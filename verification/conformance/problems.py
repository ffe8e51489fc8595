"""Small random problems for the conformance checks, with their batches, and relabelled ones."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray, IntArray
from gradbias.stochastic.estimators.contexts import Context
from gradbias.stochastic.estimators.kinds import DrawEstimator, Estimator
from gradbias.stochastic.rollouts.trajectories import Trajectories, sample
from gradbias.verification.evidence.draw_trees import explored_moments
from gradbias.verification.evidence.enumeration import Enumeration, EnumerationSizeError
from gradbias.verification.evidence.request import Request
from gradbias.verification.evidence.setting import Setting

MAX_BATCHES = 4096
"""The largest number of batches that are enumerated."""

MAX_DRAWN_OUTCOMES = 1024
"""The largest number of outcomes of an estimate that draws, which is run twice for each."""

_SIZES = ((3, 2, 3), (3, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 1), (1, 2, 1))
"""States, actions and steps of the problems that may be enumerated, the largest first."""

_DETERMINISTIC = 3
"""The index in `_SIZES` of the problem with deterministic transitions, which has 4 trajectories."""

_DISCOUNT = 0.8


@dataclass(frozen=True, eq=False)
class Setup:
    """A problem, a tabular policy's parameters, and a critic ``[H + 1, S]`` or ``[S]``."""

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
        """A random setup of ``sizes`` (states, actions, steps), with rewards of both signs by next
        state.

        With ``ends`` the last state ends the episode and is entered half of the time. With
        ``one_start`` episodes start in state 0, else in any. With ``deterministic`` action a leads
        to state a.
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
        """What estimates depend on besides the trajectories."""
        return Context(self.theta, self.mdp.discount, critic=self.critic)

    @property
    def steps(self) -> int:
        """The horizon H, in steps."""
        return int(self.mdp.tables.steps)

    @property
    def size(self) -> str:
        """The problem's sizes, in words."""
        return f"{self.mdp.n_states} states, {self.mdp.n_actions} actions, {self.steps} steps"

    def drawn(
        self, rng: np.random.Generator, replications: int, n: int, at: FloatArray | None = None
    ) -> Trajectories:
        """Batches ``[R, n, H]`` drawn by the policy, or by that with parameters ``at``."""
        theta = self.theta if at is None else at
        return sample(self.mdp, theta, n, rng=rng, replications=replications)

    def drawn_with_reward_noise(
        self, rng: np.random.Generator, replications: int, n: int
    ) -> Trajectories:
        """`drawn`, with noise in every reward: if trajectories had equal returns, rounding would
        decide their ranks, and be blown up by a division by a group's standard deviation.
        """
        return with_reward_noise(self.drawn(rng, replications, n), rng)

    def enumeration(self, at: FloatArray | None = None) -> Enumeration:
        """All trajectories of the policy, or of that with parameters ``at``."""
        theta = self.theta if at is None else at
        return Enumeration.of(self.mdp, TABULAR, theta, self.steps)


@dataclass(frozen=True, eq=False)
class Distribution:
    """The mean, variance and largest distance from the mean of an estimate, entry by entry."""

    mean: FloatArray
    variance: FloatArray
    reach: FloatArray


def distribution(outcomes: FloatArray, weights: FloatArray) -> Distribution:
    """The distribution of outcomes ``[B, *shape]`` with probabilities ``[B]``."""
    mean = np.tensordot(weights, outcomes, axes=1)
    centred = np.abs(outcomes - mean)
    return Distribution(mean, np.tensordot(weights, centred**2, axes=1), centred.max(axis=0))


def drawn_distribution(estimator: DrawEstimator, setup: Setup) -> Distribution:
    """The distribution over all outcomes of an estimate's own draws, with a bound on its reach.
    Raises EnumerationSizeError.
    """
    setting = Setting.of(setup.mdp, setup.theta, critic=setup.critic)
    moments = explored_moments(Request(estimator, setting), estimator, MAX_DRAWN_OUTCOMES)
    reach = np.full(moments.mean.shape, 2 * moments.largest)
    return Distribution(moments.mean, moments.variance, reach)


def largest_enumerable(
    estimator: Estimator, rng: np.random.Generator, n: int, *, ordered: bool
) -> Setup | None:
    """A random setup of the largest size whose batches of n (``ordered`` ones, or multisets) can
    all be enumerated; None if there is none.
    """
    for place, sizes in enumerate(_SIZES):
        setup = Setup.random(rng, sizes, one_start=True, deterministic=place == _DETERMINISTIC)
        if isinstance(estimator, DrawEstimator):
            with suppress(EnumerationSizeError):
                drawn_distribution(estimator, setup)
                return setup
        elif setup.enumeration().count_batches(n, ordered=ordered) <= MAX_BATCHES:
            return setup
    return None


@dataclass(frozen=True, eq=False)
class Relabelling:
    """Other labels: ``states[s]`` for state s, and ``actions[a]`` for action a."""

    states: IntArray
    actions: IntArray

    @classmethod
    def random(cls, rng: np.random.Generator, setup: Setup) -> Relabelling:
        """A relabelling that changes every label."""
        return cls(_shuffle(rng, setup.mdp.n_states), _shuffle(rng, setup.mdp.n_actions))

    def setup(self, setup: Setup) -> Setup:
        """The same problem, policy and critic under the new labels."""
        mdp, (s, a) = setup.mdp, self._origins
        transition = mdp.transition[s][:, a][:, :, s]
        reward = mdp.reward[s][:, a]
        reward = reward[:, :, s] if reward.ndim == 3 else reward
        renamed = replace(mdp, transition=transition, reward=reward, start=mdp.start[s])
        critic = None if setup.critic is None else setup.critic[..., s]
        return Setup(renamed, setup.theta[s][:, a], critic)

    def batch(self, batch: Trajectories) -> Trajectories:
        """The same trajectories under the new labels; dead steps keep action 0."""
        actions = np.where(batch.alive, self.actions[batch.actions], 0)
        return replace(batch, states=self.states[batch.states], actions=actions)

    def estimates(self, estimates: FloatArray, order: int) -> FloatArray:
        """Estimates ``[R, *shape]`` that were computed with the old labels, under the new ones."""
        states, actions = self._origins
        for axis in range(estimates.ndim - 2 * order, estimates.ndim, 2):
            estimates = np.take(np.take(estimates, states, axis), actions, axis + 1)
        return estimates

    @property
    def _origins(self) -> tuple[IntArray, IntArray]:
        """The old labels of the new states and actions."""
        return np.argsort(self.states), np.argsort(self.actions)


def _shuffle(rng: np.random.Generator, size: int) -> IntArray:
    """A random permutation that is one cycle, so that it moves every label."""
    order = rng.permutation(size)
    labels: IntArray = np.empty(size, dtype=np.int64)
    labels[order] = np.roll(order, 1)
    return labels


def with_reward_noise(batch: Trajectories, rng: np.random.Generator) -> Trajectories:
    """The same trajectories with noise in the rewards of steps before the end."""
    noise = rng.normal(size=batch.rewards.shape)
    return replace(batch, rewards=batch.rewards + np.where(batch.alive, noise, 0.0))


def padded(batch: Trajectories, more: int) -> Trajectories:
    """The trajectories, all of which have ended, with ``more`` dead steps added."""
    width = [(0, 0)] * (batch.actions.ndim - 1) + [(0, more)]
    names = ("actions", "rewards", "alive", "behaviour_log_probs")
    steps: dict[str, Any] = {name: np.pad(getattr(batch, name), width) for name in names}
    return replace(batch, states=np.pad(batch.states, width, mode="edge"), **steps)


def ended(setup: Setup, rng: np.random.Generator, replications: int, n: int) -> Trajectories:
    """Batches ``[R, n, H]`` of trajectories that all have ended, with different returns."""
    parts: list[Trajectories] = []
    while sum(len(part.actions) for part in parts) < replications * n:
        drawn = setup.drawn(rng, 1, replications * n)[0]
        parts.append(drawn[setup.mdp.terminal[drawn.states[..., -1]]])
    enough = Trajectories.concatenated(parts)[: replications * n]
    return with_reward_noise(enough.reshape(replications, n), rng)


def single_state(batch: Trajectories) -> Trajectories:
    """One-step trajectories with all states renamed to 0, as a bandit has them."""
    return replace(batch, states=np.zeros_like(batch.states))
