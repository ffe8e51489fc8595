"""Every trajectory with its probability, in blocks.

An expectation over all of them is exact (to rounding), for any estimator. Trajectories that have
ended do not branch. Batches of N coupled trajectories are enumerated as multisets where the
estimate does not depend on their order, else as ordered tuples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradbias.analytic.policies.softmax import Policy, log_softmax, softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray, IntArray
from gradbias.stochastic.estimators.contexts import UnansweredDrawError
from gradbias.stochastic.rollouts.trajectories import Trajectories, complete_trajectories

Block = tuple[Trajectories, FloatArray]
"""Batches ``[B, N, H]`` and their probabilities ``[B]``."""


_EXACT_BELOW = 30.0  # logarithms of counts
_INFINITE_ABOVE = 690.0
_FAR_MORE = 1e6


class EnumerationSizeError(UnansweredDrawError):
    """More outcomes than the limit; the message says how many, and what to use instead."""


@dataclass(frozen=True, eq=False)
class Enumeration:
    """Every trajectory of ``length`` steps whose actions have the probabilities ``behaviour``,
    ``[S, A]`` (``log_behaviour`` are their logarithms).
    """

    mdp: TabularMDP
    behaviour: FloatArray
    log_behaviour: FloatArray
    length: int

    @classmethod
    def of(cls, mdp: TabularMDP, policy: Policy, theta: FloatArray, length: int) -> Enumeration:
        """The enumeration under the policy with parameters theta."""
        logits = policy.logits(theta)
        return cls(mdp, softmax(logits), log_softmax(logits), length)

    @cached_property
    def _branches(self) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
        """The possible (action, next state) pairs of all states, one state after the other: their
        number for each state ``[S]``, then their actions, next states and probabilities.
        """
        joint = self.behaviour[:, :, None] * self.mdp.transition
        ends = np.flatnonzero(self.mdp.terminal)
        joint[ends] = 0.0
        joint[ends, 0, ends] = 1.0
        states, actions, successors = np.nonzero(joint)
        counts = np.bincount(states, minlength=self.mdp.n_states)
        return counts, actions, successors, joint[states, actions, successors]

    def count(self) -> float:
        """The number of trajectories of positive probability, as a float: it can be very large."""
        counts, _, successors, _ = self._branches
        owners = np.repeat(np.arange(self.mdp.n_states), counts)
        suffixes: FloatArray = np.ones(self.mdp.n_states)
        for _ in range(self.length):
            weights = suffixes[successors]
            suffixes = np.bincount(owners, weights, self.mdp.n_states).astype(np.float64)
        return float(suffixes[self.mdp.start > 0].sum())

    def trajectories(self, block: int) -> Iterator[Block]:
        """All trajectories, as batches of one ``[B, 1, H]``, about ``block`` at a time."""
        starts = np.flatnonzero(self.mdp.start > 0)
        states = np.zeros((len(starts), self.length + 1), dtype=np.int64)
        states[:, 0] = starts
        actions = np.zeros((len(starts), self.length), dtype=np.int64)
        pending = [(0, states, actions, self.mdp.start[starts])]
        while pending:
            t, states, actions, weights = pending.pop()
            if t == self.length:
                yield self._batches(states[:, None], actions[:, None]), weights
                continue
            counts = self._branches[0][states[:, t]]
            if counts.sum() > block and len(states) > 1:
                half = len(states) // 2
                pending.append((t, states[half:], actions[half:], weights[half:]))
                pending.append((t, states[:half], actions[:half], weights[:half]))
                continue
            pending.append((t + 1, *self._extended(t, states, actions, weights)))

    def _extended(
        self, t: int, states: IntArray, actions: IntArray, weights: FloatArray
    ) -> tuple[IntArray, IntArray, FloatArray]:
        counts, next_actions, successors, probabilities = self._branches
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        here = states[:, t]
        parents = np.repeat(np.arange(len(states)), counts[here])
        within = np.arange(len(parents)) - np.repeat(
            np.cumsum(counts[here]) - counts[here], counts[here]
        )
        branch = first[here[parents]] + within
        states, actions = states[parents], actions[parents]
        states[:, t + 1] = successors[branch]
        actions[:, t] = next_actions[branch]
        return states, actions, weights[parents] * probabilities[branch]

    def _batches(self, states: IntArray, actions: IntArray) -> Trajectories:
        return complete_trajectories(self.mdp, self.log_behaviour, states, actions)

    def count_batches(self, n: int, *, ordered: bool) -> float:
        """The number of batches of n trajectories: tuples, or multisets."""
        singles = self.count()
        if ordered or n == 1:
            logarithm = n * math.log(singles)
        elif singles > _FAR_MORE * n:
            logarithm = n * math.log(singles) - math.lgamma(n + 1)
        else:
            logarithm = math.lgamma(singles + n) - math.lgamma(n + 1) - math.lgamma(singles)
        if logarithm > _INFINITE_ABOVE:
            return math.inf
        if logarithm > _EXACT_BELOW:
            return math.exp(logarithm)
        count = round(singles)
        return float(count**n if ordered else math.comb(count + n - 1, n))

    def batches(self, n: int, *, ordered: bool, block: int) -> Iterator[Block]:
        """All batches of n independent trajectories, ``[B, n, H]`` at a time."""
        if n == 1:
            yield from self.trajectories(block)
            return
        singles, weights = self.all_batches(1, ordered=ordered)
        members = range(len(weights))
        batches = iter(
            itertools.product(members, repeat=n)
            if ordered
            else itertools.combinations_with_replacement(members, n)
        )
        while chosen := list(itertools.islice(batches, block)):
            index = np.array(chosen)
            probability = weights[index].prod(axis=1) if ordered else _of_multisets(index, weights)
            yield self._batches(singles.states[index, 0], singles.actions[index, 0]), probability

    def all_batches(self, n: int, *, ordered: bool) -> Block:
        """All batches of n independent trajectories, in one block."""
        blocks = list(self.batches(n, ordered=ordered, block=1 << 16))
        batches = Trajectories.concatenated([batch for batch, _ in blocks])
        return batches, np.concatenate([weights for _, weights in blocks])


def _of_multisets(index: IntArray, weights: FloatArray) -> FloatArray:
    """The probability ``[B]`` of drawing each sorted row of ``index [B, n]`` in any order."""
    probability = weights[index[:, 0]]
    run = np.ones(len(index))
    # The number of orders is n! over the factorials of the runs' lengths. Taken step by step, it
    # does not overflow (171! does).
    for k in range(1, index.shape[1]):
        run = np.where(index[:, k] == index[:, k - 1], run + 1, 1.0)
        probability = probability * weights[index[:, k]] * ((k + 1) / run)
    return probability


def check_outcomes(count: float, limit: int, what: str) -> None:
    """Raises EnumerationSizeError where ``count`` outcomes are more than ``limit``."""
    if count > limit:
        many = f"{count:,.0f}" if count < 1e15 else f"about {count:.0e}"
        if count == math.inf:
            many = "more than 1e300"
        raise EnumerationSizeError(
            f"enumeration: {many} {what}, more than the limit of {limit:,}; use sampling "
            "evidence, a shorter horizon, or a start in one state"
        )
