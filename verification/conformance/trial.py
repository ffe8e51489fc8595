"""An estimator on trial: its problem, and its batches."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.estimators.kinds import DrawEstimator, Estimator, Evaluator
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.conformance.problems import (
    Distribution,
    Setup,
    distribution,
    drawn_distribution,
    largest_enumerable,
)
from gradbias.verification.conformance.runner import (
    NotApplicable,
    NotSatisfied,
    Trial,
    check_equal,
)

REPLICATIONS = 6

_SHUFFLES = 5
"""Orders of a batch's trajectories that are tried, to see whether the order matters."""


@dataclass(eq=False, kw_only=True)
class EstimatorTrial(Trial):
    """An estimator on trial: ``n`` trajectories in a batch; ``coupled`` if coupling is declared."""

    estimator: Estimator
    n: int
    coupled: bool
    _prepared: dict[tuple[Setup, tuple[int, ...]], Evaluator] = field(default_factory=dict)

    @cached_property
    def setup(self) -> Setup:
        """The problem of most checks."""
        return Setup.random(self.rng(0), (3, 3, 3))

    @cached_property
    def batch(self) -> Trajectories:
        """Batches ``[R, N, H]`` of that problem, whose trajectories have different returns."""
        return self.setup.drawn_with_reward_noise(self.rng(1), REPLICATIONS, self.n)

    @cached_property
    def ordered(self) -> bool:
        """Whether the order of a batch's trajectories was seen to matter."""
        if self.n == 1 or isinstance(self.estimator, DrawEstimator):
            return False
        estimates, rng = self.estimates(self.batch), self.rng(21)
        try:
            for _ in range(_SHUFFLES):
                shuffled = self.batch[:, rng.permutation(self.n)]
                check_equal(self.estimates(shuffled), estimates, "another order")
        except NotSatisfied:
            return True
        return False

    @cached_property
    def enumerable(self) -> Setup:
        """A problem whose batches can all be enumerated. Raises NotApplicable."""
        setup = largest_enumerable(self.estimator, self.rng(2), self.n, ordered=self.ordered)
        if setup is None:
            raise NotApplicable(f"batches of {self.n} are too many to enumerate, on any problem")
        return setup

    @property
    def enumerated(self) -> str:
        """The problem whose batches a check enumerated, in words ("" if none did)."""
        return self.enumerable.size if "enumerable" in vars(self) else ""

    def estimates(self, batch: Trajectories, setup: Setup | None = None) -> FloatArray:
        """``[..., *shape]``. Raises NotApplicable for estimates that draw their own batches."""
        if isinstance(self.estimator, DrawEstimator):
            raise NotApplicable("the estimate draws its own batches")
        where = self.setup if setup is None else setup
        flat = batch.reshape(-1, batch.shape[-2])
        key = (where, flat.shape[1:])
        if key not in self._prepared:
            self._prepared[key] = self.estimator.prepare(flat, where.context)
        dense = self._prepared[key].rows(flat).dense()
        return dense.reshape(*batch.shape[:-2], *dense.shape[1:])

    def distribution(self, setup: Setup, at: FloatArray | None = None) -> Distribution:
        """The exact distribution over all batches of the policy, or of that with parameters ``at``.
        Raises NotApplicable for ``at`` with an estimate that draws its own batches.
        """
        if isinstance(self.estimator, DrawEstimator) and at is None:
            return drawn_distribution(self.estimator, setup)
        batches, weights = setup.enumeration(at).all_batches(self.n, ordered=self.ordered)
        return distribution(self.estimates(batches, setup), weights)

    def one_run(
        self, estimator: DrawEstimator, seed: int, setup: Setup | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """One estimate with seeded draws, and the parameters ``[draws, S, A]`` it drew at."""
        rng, where = np.random.default_rng([self.seed, seed]), setup or self.setup
        parameters: list[FloatArray] = []

        def draw(theta: npt.ArrayLike, n: int) -> Trajectories:
            parameters.append(np.array(theta))
            return replace(where, theta=parameters[-1]).drawn(rng, 1, n)[0]

        estimate = estimator.run(draw, where.context)
        return estimate, np.array(parameters)
