"""Sources that answer a meta-gradient's draws with known batches, also under other labels.

Each answers a draw for B policies with one batch a policy: see `stochastic.meta.slots.Source`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gradbias.analytic.utils.validation import FloatArray, IntArray
from gradbias.stochastic.meta.inner_loops import Loop
from gradbias.stochastic.meta.slots import Sampling
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.conformance.problems import Relabelling
from gradbias.verification.conformance.runner import NotSatisfied, check_equal

Reply = tuple[Trajectories, FloatArray]


@dataclass(frozen=True, eq=False)
class Recording:
    """Samples batches, and records the policies of each draw and the batches that answered it."""

    sampling: Sampling
    policies: list[FloatArray] = field(default_factory=list)
    batches: list[Trajectories] = field(default_factory=list)

    def draw(self, log_policy: FloatArray, n: int) -> Reply:
        """Batches of n trajectories, with their weights."""
        batch, weights = self.sampling.draw(log_policy, n)
        self.policies.append(np.array(log_policy))
        self.batches.append(batch)
        return batch, weights


@dataclass(frozen=True, eq=False)
class Replay:
    """Answers with a recording's batches, in their order, for the replications ``which`` alone.

    With ``labels``, states and actions have other labels. Raises NotSatisfied for a draw that
    differs from the recorded one.
    """

    recording: Recording
    which: IntArray
    labels: Relabelling | None = None
    _sizes: list[int] = field(default_factory=list)

    def draw(self, log_policy: FloatArray, n: int) -> Reply:
        """The recorded batches of the next draw, with weights of 1."""
        turn, batches = len(self._sizes), self.recording.batches
        self._sizes.append(n)
        if turn >= len(batches) or batches[turn].shape[1] != n:
            raise NotSatisfied("draws another number of times, or of trajectories")
        batch = batches[turn][self.which]
        if self.labels is not None:
            log_policy = log_policy[:, self.labels.states][:, :, self.labels.actions]
            batch = self.labels.batch(batch)
        recorded = self.recording.policies[turn][self.which]
        check_equal(np.exp(log_policy), np.exp(recorded), "what it draws with")
        return batch, np.ones((len(log_policy), 1))


@dataclass(frozen=True, eq=False)
class Repeating:
    """Answers each draw of n with the same batches, whatever the policies."""

    loop: Loop
    seed: list[int]

    def draw(self, log_policy: FloatArray, n: int) -> Reply:
        """Batches of n trajectories, with their weights."""
        return Sampling(self.loop, np.random.default_rng([*self.seed, n])).draw(log_policy, n)
