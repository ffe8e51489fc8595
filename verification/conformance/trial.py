"""An estimator on trial: its problem, and its batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.estimators.kinds import DrawEstimator, Estimator, Evaluator
from gradbias.stochastic.rollouts.trajectories import Trajectories
from gradbias.verification.conformance.problems import Distribution, Setup, distribution, enumerable
from gradbias.verification.conformance.report import (
    NotApplicable,
    NotSatisfied,
    Remarked,
    check_equal,
)

REPLICATIONS = 6

_ORDERS = 5


@dataclass(frozen=True, eq=False)
class Trial:
    """An estimator on trial: ``n`` trajectories a batch, ``coupled`` where that was declared."""

    estimator: Estimator
    n: int
    coupled: bool
    seed: int
    replications: int
    false_alarm: float
    _prepared: dict[tuple[Setup, tuple[int, ...]], Evaluator] = field(default_factory=dict)

    def rng(self, which: int) -> np.random.Generator:
        """A generator for one of the checks' uses."""
        return np.random.default_rng([self.seed, which])

    @cached_property
    def setup(self) -> Setup:
        """The problem of most checks."""
        return Setup.random(self.rng(0), (3, 3, 3))

    @cached_property
    def batch(self) -> Trajectories:
        """Its batches ``[R, N, H]``, none of whose trajectories earn the same."""
        return self.setup.unlike(self.rng(1), REPLICATIONS, self.n)

    @cached_property
    def ordered(self) -> bool:
        """Whether the order of a batch's trajectories was seen to matter."""
        if self.n == 1 or self.estimator.draws_itself:
            return False
        found, rng = self.estimates(self.batch), self.rng(21)
        for _ in range(_ORDERS):
            try:
                shuffled = self.batch[:, rng.permutation(self.n)]
                check_equal(self.estimates(shuffled), found, "another order")
            except NotSatisfied:
                return True
        return False

    @cached_property
    def enumerable(self) -> Setup:
        """A problem of which all batches can be enumerated. Raises NotApplicable."""
        found = enumerable(self.estimator, self.rng(2), self.n, ordered=self.ordered)
        if found is None:
            raise NotApplicable(f"batches of {self.n} are too many to enumerate, on any problem")
        return found

    def estimates(self, batch: Trajectories, setup: Setup | None = None) -> FloatArray:
        """``[..., *shape]``. Raises NotApplicable for estimates that draw their own batches."""
        if self.estimator.draws_itself:
            raise NotApplicable("the estimate draws its own batches")
        where = self.setup if setup is None else setup
        flat = batch.reshape(-1, batch.shape[-2])
        key = (where, flat.shape[1:])
        if key not in self._prepared:
            self._prepared[key] = self.estimator.prepare(flat, where.context)
        dense = self._prepared[key].rows(flat).dense()
        return dense.reshape(*batch.shape[:-2], *dense.shape[1:])

    def distribution(self, setup: Setup, at: FloatArray | None = None) -> Distribution:
        """Exact, over all batches. Raises NotApplicable likewise."""
        batches, weights = setup.enumeration(at).all_batches(self.n, ordered=self.ordered)
        return distribution(self.estimates(batches, setup), weights)

    def one_run(
        self, estimator: DrawEstimator, seed: int, setup: Setup | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """One estimate with seeded draws, and the parameters that were drawn at."""
        rng, where = np.random.default_rng([self.seed, seed]), setup or self.setup
        asked: list[FloatArray] = []

        def draw(theta: npt.ArrayLike, n: int) -> Trajectories:
            asked.append(np.array(theta))
            return replace(where, theta=asked[-1]).drawn(rng, 1, n)[0]

        found = estimator.run(draw, where.context)
        return found, np.array(asked)


Check = Callable[[Trial], int | Remarked]
"""How many comparisons it made. Raises NotSatisfied or, where it does not apply, NotApplicable."""
