"""The enumerated measure: every trajectory with its probability, in blocks.

The expectation over it is exact (to rounding), for any estimator. Trajectories that have ended do
not branch. Batches of N coupled trajectories are enumerated as multisets where the estimate does
not depend on their order, else as ordered tuples.
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
from gradbias.stochastic.estimators.kinds import UnansweredDrawError
from gradbias.stochastic.rollouts.trajectories import Trajectories, complete_trajectories

Block = tuple[Trajectories, FloatArray]
"""Batches ``[B, N, H]`` and their probabilities ``[B]``."""


_EXACT_BELOW = 30.0  # logarithms of counts
_INFINITE_ABOVE = 690.0
_FAR_MORE = 1e6


class EnumerationSizeError(UnansweredDrawError):
    """More outcomes than the limit; says how many, and what to use instead."""


@dataclass(frozen=True, eq=False)
class Enumeration:
    """Every trajectory of ``length`` steps under action probabilities ``exp(log_policy) [S, A]``.

    ``behaviour`` are those that actions are drawn with.
    """

    mdp: TabularMDP
    behaviour: FloatArray
    log_behaviour: FloatArray
    length: int

    @classmethod
    def of(cls, mdp: TabularMDP, policy: Policy, theta: FloatArray, length: int) -> Enumeration:
        """The measure of the policy with parameters theta."""
        logits = policy.logits(theta)
        return cls(mdp, softmax(logits), log_softmax(logits), length)

    @cached_property
    def _branches(self) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
        """Each state's possible (action, next state) pairs, one state after the other: the number
        of them ``[S]``, then actions, next states and probabilities of all.
        """
        joint = self.behaviour[:, :, None] * self.mdp.transition
        ends = np.flatnonzero(self.mdp.terminal)
        joint[ends] = 0.0
        joint[ends, 0, ends] = 1.0
        states, actions, successors = np.nonzero(joint)
        counts = np.bincount(states, minlength=self.mdp.n_states)
        return counts, actions, successors, joint[states, actions, successors]

    def count(self) -> float:
        """The number of trajectories of positive probability (a float: it can be astronomic)."""
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
        whole = round(singles)
        return float(whole**n if ordered else math.comb(whole + n - 1, n))

    def batches(self, n: int, *, ordered: bool, block: int) -> Iterator[Block]:
        """All batches of n independent trajectories, ``[B, n, H]`` at a time."""
        if n == 1:
            yield from self.trajectories(block)
            return
        singles, weights = self.all_batches(1, ordered=ordered)
        everyone = range(len(weights))
        chosen = iter(
            itertools.product(everyone, repeat=n)
            if ordered
            else itertools.combinations_with_replacement(everyone, n)
        )
        while picked := list(itertools.islice(chosen, block)):
            index = np.array(picked)
            probability = weights[index].prod(axis=1)
            if not ordered:
                probability = probability * _arrangements(index)
            yield self._batches(singles.states[index, 0], singles.actions[index, 0]), probability

    def all_batches(self, n: int, *, ordered: bool) -> Block:
        """All of them in one block."""
        blocks = list(self.batches(n, ordered=ordered, block=1 << 16))
        batches = Trajectories.concatenated([batch for batch, _ in blocks])
        return batches, np.concatenate([weights for _, weights in blocks])


def _arrangements(index: IntArray) -> FloatArray:
    """``[B]``: in how many orders each sorted row of ``index [B, n]`` can be drawn."""
    n = index.shape[1]
    orders = np.full(len(index), float(math.factorial(n)))
    run = np.ones(len(index))
    for k in range(1, n):
        run = np.where(index[:, k] == index[:, k - 1], run + 1, 1.0)
        orders /= run
    return orders


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
