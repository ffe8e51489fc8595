"""Every batch that an inner loop can draw, with its probability.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. (4), whose four sample sets
are drawn like this.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.meta.inner_loops import Loop
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.evidence.enumeration import Enumeration, check_outcomes

MAX_STEP = 200_000
"""The default of the largest number of batches at one step, of all paths together."""


@dataclass(frozen=True, eq=False)
class Enumerating:
    """A `stochastic.meta.slots.Source` that answers each draw with every batch: as ordered
    tuples or, for estimates that do not depend on the order, as multisets.
    """

    loop: Loop
    ordered: bool = True
    limit: int = MAX_STEP
    _known: dict[int, tuple[Trajectories, FloatArray]] = field(default_factory=dict, repr=False)
    _answered: list[int] = field(default_factory=list, repr=False)

    @property
    def answered(self) -> int:
        """The number of batches that it has answered with."""
        return sum(self._answered)

    def draw(self, log_policy: FloatArray, n: int) -> tuple[Trajectories, FloatArray]:
        """Every batch under each policy, with weights. Raises EnumerationSizeError for too many."""
        batches, environment = self._batches(n)
        count, outcomes = len(log_policy), len(environment)
        check_outcomes(count * outcomes, self.limit, f"batches of {n} at one step")
        self._answered.append(count * outcomes)
        chosen = log_policy[:, batches.states[..., :-1], batches.actions] * batches.alive
        weights = environment * np.exp(chosen.sum(axis=(-1, -2)))
        every = batches[np.tile(np.arange(outcomes), count)]
        logarithms = chosen.reshape(-1, *batches.shape[1:])
        drawn = Trajectories(every.states, every.actions, every.rewards, every.alive, logarithms)
        return drawn, weights

    def _batches(self, n: int) -> tuple[Trajectories, FloatArray]:
        """All batches of n, and their probabilities without the policy's factors."""
        if n not in self._known:
            problem = self.loop.problem
            shares = np.full((problem.n_states, problem.n_actions), 1.0 / problem.n_actions)
            uniform = Enumeration(problem, shares, np.log(shares), self.loop.steps)
            count = uniform.count_batches(n, ordered=self.ordered)
            check_outcomes(count, self.limit, f"batches of {n} at one step")
            batches, weights = uniform.all_batches(n, ordered=self.ordered)
            choices = batches.alive.sum(axis=(-1, -2))
            self._known[n] = batches, weights * float(problem.n_actions) ** choices
        return self._known[n]
