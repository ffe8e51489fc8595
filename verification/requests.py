"""What a measurement was asked: the record that both measures work from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray
from analytic.problems import TabularMDP
from stochastic.estimators import Context, Estimator
from stochastic.trajectories import Trajectories, sample
from verification.enumeration import Enumeration
from verification.moments import Progress, block_size


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

    def draw(self, replications: int, n: int) -> Trajectories:
        """``[R, n, H]`` at the behaviour policy."""
        wanted = self.length if self.mdp.horizon is None else None
        return sample(
            self.mdp,
            self.behaviour,
            n,
            rng=self.rng,
            replications=replications,
            length=wanted,
            policy=self.context.policy,
        )

    def draw_at(self, theta: npt.ArrayLike, n: int, rng: np.random.Generator) -> Trajectories:
        """``[n, H]`` at the policy with parameters theta."""
        wanted = self.length if self.mdp.horizon is None else None
        return sample(self.mdp, theta, n, rng=rng, length=wanted, policy=self.context.policy)

    def seeded(self, seed: int) -> Request:
        """The same with a generator of its own, so that looking at the estimator first does not
        change what is sampled later.
        """
        return replace(self, rng=np.random.default_rng(seed))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one estimate."""
        return self.context.theta.shape * self.estimator.order

    @property
    def enumeration(self) -> Enumeration:
        """Every trajectory at the behaviour policy."""
        return Enumeration.of(self.mdp, self.context.policy, self.behaviour, self.length)

    def block(self, n: int) -> int:
        """Batches of n to work on at a time."""
        return block_size(self.shape, self.length * n, self.mdp.n_actions, self.estimator.order)
