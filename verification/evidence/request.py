"""What a measurement was asked: the record that both measures work from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.softmax import TabularSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.estimators.contexts import Context
from gradbias.stochastic.estimators.kinds import Estimator, SurrogateEstimator
from gradbias.stochastic.rollouts.trajectories import Trajectories, sample
from gradbias.verification.evidence.accumulated_moments import Accumulator, Progress
from gradbias.verification.evidence.enumeration import Enumeration

LARGEST_LOCAL = 2**27
"""Numbers that one estimate may need at a time: 1 GiB."""


@dataclass(frozen=True, eq=False)
class Request:
    """An estimator in its context, on a problem, with trajectories drawn at ``behaviour``.

    ``limit`` bounds what is enumerated, ``samples`` the trajectories drawn with ``rng``.
    """

    estimator: Estimator
    mdp: TabularMDP
    context: Context
    behaviour: FloatArray
    length: int
    limit: int
    samples: int
    rng: np.random.Generator
    progress: Progress | None
    covariance: bool

    def draw(self, replications: int, n: int) -> Trajectories:
        """``[R, n, H]`` at the behaviour policy."""
        return self.draw_at(self.behaviour, n, self.rng, replications)

    def draw_at(
        self,
        theta: npt.ArrayLike,
        n: int,
        rng: np.random.Generator,
        replications: int | None = None,
    ) -> Trajectories:
        """``[n, H]``, or ``[R, n, H]``, at the policy with parameters theta."""
        return sample(
            self.mdp,
            theta,
            n,
            rng=rng,
            replications=replications,
            length=self.length if self.mdp.horizon is None else None,
            policy=self.context.policy,
        )

    def seeded(self, seed: int) -> Request:
        """The same with a generator of its own, so that looking at the estimator first does not
        change what is sampled later.
        """
        return replace(self, rng=np.random.default_rng(seed))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one estimate."""
        return self.context.theta.shape * self.estimator.order

    def accumulator(self) -> Accumulator:
        """Empty sums for this request's estimates."""
        return Accumulator(self.shape, covariance=self.covariance)

    @cached_property
    def enumeration(self) -> Enumeration:
        """Every trajectory at the behaviour policy."""
        return Enumeration.of(self.mdp, self.context.policy, self.behaviour, self.length)

    def block(self, n: int) -> int:
        """Batches of n to work on at a time, so that the largest array stays near 32 MiB.

        Raises:
            ValueError: a single batch's estimate is far larger than that.
        """
        size = self._local_size(n)
        if size > LARGEST_LOCAL:
            raise ValueError(
                f"an estimate of order {self.estimator.order} from {n} x {self.length} steps works "
                f"on {8 * size / 2**30:.3g} GiB at a time, more than the limit of "
                f"{8 * LARGEST_LOCAL / 2**30:g}; use a shorter horizon, a smaller N or order 1"
            )
        return int(np.clip(2**22 // size, 1, 2**14))

    def largest_batch(self, n: int) -> int:
        """The largest batch of at most n trajectories that is cheap to estimate from."""
        while n > 2 and self._local_size(n) > 2**18:
            n = max(2, n // 2)
        return n

    def _local_size(self, n: int) -> int:
        """Numbers in the largest array that one batch's estimate needs."""
        visits, order = self.length * n, self.estimator.order
        estimate = int(np.prod(self.shape))
        if not isinstance(self.estimator, SurrogateEstimator):
            return max(visits, estimate)
        local = max(int((visits * self.mdp.n_actions) ** order), visits**2)
        if isinstance(self.context.policy, TabularSoftmax):
            return local
        logits = self.mdp.n_states * self.mdp.n_actions
        return max(local, int(logits**order), estimate)
