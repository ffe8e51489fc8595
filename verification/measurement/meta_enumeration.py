"""Every batch that an inner loop can draw, with its probability.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. (4), whose four sample sets
are drawn like this.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.meta.inner_loops import Loop
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.evidence.enumeration import Enumeration, check_outcomes

MAX_STEP = 200_000
"""The default limit on the number of batches at one step, of all paths together."""


@dataclass(frozen=True, eq=False)
class Enumerating:
    """A `stochastic.meta.slots.Source` that answers each draw with every batch and its probability.

    Attributes:
        loop: the loop whose problem the batches are drawn from.
        ordered: whether batches are ordered tuples of trajectories; otherwise they are multisets,
            which is right for estimates that do not depend on the order.
        limit: the largest number of batches at one step, of all paths together.
    """

    loop: Loop
    ordered: bool = True
    limit: int = MAX_STEP
    _cached: dict[int, tuple[Trajectories, FloatArray]] = field(default_factory=dict, repr=False)
    _counts: list[int] = field(default_factory=list, repr=False)

    @property
    def answered(self) -> int:
        """The number of batches that all draws so far have returned together."""
        return sum(self._counts)

    def draw(self, log_policy: FloatArray, n: int) -> tuple[Trajectories, FloatArray]:
        """The M batches of n trajectories under each of B policies.

        Args:
            log_policy: the log-probabilities of the policies' actions, ``[B, S, A]``.
            n: the number of trajectories in a batch.

        Returns:
            The batches ``[B * M, n, H]``, and their probabilities ``[B, M]``.

        Raises:
            EnumerationSizeError: more batches than ``limit``.
        """
        batches, environment = self._batches(n)
        count, outcomes = len(log_policy), len(environment)
        check_outcomes(count * outcomes, self.limit, f"batches of {n} at one step")
        self._counts.append(count * outcomes)
        log_probs = log_policy[:, batches.states[..., :-1], batches.actions] * batches.alive
        probabilities = environment * np.exp(log_probs.sum(axis=(-1, -2)))
        copies = batches[np.tile(np.arange(outcomes), count)]
        drawn = replace(copies, behaviour_log_probs=log_probs.reshape(-1, *batches.shape[1:]))
        return drawn, probabilities

    def _batches(self, n: int) -> tuple[Trajectories, FloatArray]:
        """The M batches of n trajectories, and the environment's factor of their probabilities
        (initial states, transitions and, for multisets, the number of orders), ``[M]``.
        """
        if n not in self._cached:
            problem = self.loop.problem
            uniform = np.full((problem.n_states, problem.n_actions), 1.0 / problem.n_actions)
            enumeration = Enumeration(problem, uniform, np.log(uniform), self.loop.steps)
            count = enumeration.count_batches(n, ordered=self.ordered)
            check_outcomes(count, self.limit, f"batches of {n} at one step")
            batches, weights = enumeration.all_batches(n, ordered=self.ordered)
            # The uniform policy's factor 1/A of each action is divided out.
            actions_taken = batches.alive.sum(axis=(-1, -2))
            self._cached[n] = batches, weights * float(problem.n_actions) ** actions_taken
        return self._cached[n]
