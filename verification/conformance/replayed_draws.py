"""Answers to a meta-gradient's draws that are known beforehand, or under other names.

See `stochastic.meta.slots.Source`: each answers a draw for B policies with one batch for each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gradbias.analytic.utils.validation import FloatArray, IntArray
from gradbias.stochastic.meta.inner_loops import Loop
from gradbias.stochastic.meta.slots import Sampling
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.conformance.problems import Relabelling
from gradbias.verification.conformance.report import NotSatisfied, check_equal

Reply = tuple[Trajectories, FloatArray]


@dataclass(frozen=True, eq=False)
class Kept:
    """Samples, and keeps what it was asked for and what it answered, in order."""

    sampling: Sampling
    asked: list[FloatArray] = field(default_factory=list)
    answered: list[Trajectories] = field(default_factory=list)

    def draw(self, log_policy: FloatArray, n: int) -> Reply:
        """See `Source`."""
        batch, weights = self.sampling.draw(log_policy, n)
        self.asked.append(np.array(log_policy))
        self.answered.append(batch)
        return batch, weights


@dataclass(frozen=True, eq=False)
class Replayed:
    """Answers as ``kept`` did, in the same order, for some of the replications, under other names
    where there are ``names``. Raises NotSatisfied where it is asked for something else.
    """

    kept: Kept
    which: IntArray
    names: Relabelling | None = None
    _turn: list[int] = field(default_factory=list)

    def draw(self, log_policy: FloatArray, n: int) -> Reply:
        """See `Source`."""
        turn = len(self._turn)
        self._turn.append(n)
        if turn >= len(self.kept.answered) or self.kept.answered[turn].shape[1] != n:
            raise NotSatisfied("draws another number of times, or of trajectories")
        asked = log_policy
        if self.names is not None:
            asked = log_policy[:, self.names.states][:, :, self.names.actions]
        check_equal(np.exp(asked), np.exp(self.kept.asked[turn][self.which]), "what it draws with")
        batch = self.kept.answered[turn][self.which]
        if self.names is not None:
            batch = self.names.batch(batch)
        return batch, np.ones((len(log_policy), 1))


@dataclass(frozen=True, eq=False)
class Repeating:
    """Answers each draw of n with the same batches, whatever the policies."""

    loop: Loop
    seed: list[int]

    def draw(self, log_policy: FloatArray, n: int) -> Reply:
        """See `Source`."""
        return Sampling(self.loop, np.random.default_rng([*self.seed, n])).draw(log_policy, n)
