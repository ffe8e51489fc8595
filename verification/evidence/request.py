"""A measurement request: the estimator, where it is measured, and the limits, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.softmax import TabularSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import AnyTarget
from gradbias.analytic.returns.target_values import evaluate_target
from gradbias.analytic.utils.validation import FloatArray, whole_number
from gradbias.stochastic.estimators.contexts import Context
from gradbias.stochastic.estimators.kinds import MAX_BY_VISIT, Estimator, SurrogateEstimator
from gradbias.stochastic.rollouts.trajectories import Trajectories, empty_batches
from gradbias.verification.evidence.accumulated_moments import Accumulator, Progress
from gradbias.verification.evidence.enumeration import Enumeration
from gradbias.verification.evidence.setting import Setting

MAX_LOCAL = 2**27
"""The largest number of floats that one estimate may need at a time: 1 GiB."""

MAX_OUTCOMES = 1_000_000
"""The default of the largest number of outcomes that is enumerated."""


@dataclass(frozen=True, eq=False)
class Request:
    """One measurement to be made: an estimator and where it is measured, the largest number of
    outcomes to enumerate, the number of trajectories that may be drawn with ``rng``, and whether a
    gradient estimate's full covariance is wanted.
    """

    estimator: Estimator
    setting: Setting
    max_outcomes: int = MAX_OUTCOMES
    budget: int = 200_000
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    progress: Progress | None = None
    covariance: bool = False

    def __post_init__(self) -> None:
        for member in ("order", "name", "prepare", "draws_itself"):
            if not hasattr(self.estimator, member):
                raise ValueError(
                    "estimator: expected an object with order, name, prepare and draws_itself, "
                    f"got {type(self.estimator).__name__} without {member}"
                )
        rng: object = self.rng
        if not isinstance(rng, np.random.Generator):
            raise ValueError(f"rng: expected a numpy Generator, got {rng!r}")
        whole_number("max_outcomes", self.max_outcomes, at_least=1)
        whole_number("budget", self.budget, at_least=1)
        if self.covariance and self.estimator.order != 1:
            raise ValueError(
                f"covariance: only for gradients, got an order of {self.estimator.order}"
            )

    @cached_property
    def context(self) -> Context:
        """What the estimator sees, with this request's generator where it draws itself."""

        def draw(theta: npt.ArrayLike, n: int) -> Trajectories:
            return self.setting.draw(theta, n, self.rng)

        return replace(self.setting.context, draw=draw)

    @property
    def mdp(self) -> TabularMDP:
        """The setting's problem."""
        return self.setting.mdp

    @property
    def behaviour(self) -> FloatArray:
        """The setting's behaviour policy, as parameters."""
        return self.setting.behaviour

    @property
    def length(self) -> int:
        """The number of steps of every trajectory."""
        return self.setting.steps

    @property
    def enumeration(self) -> Enumeration:
        """Every trajectory, with its probability under the behaviour policy."""
        return self.setting.enumeration

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one estimate: theta's axes, once for each order."""
        return self.setting.theta.shape * self.estimator.order

    def draw(self, replications: int, n: int) -> Trajectories:
        """Batches ``[R, n, H]`` of the behaviour policy; `empty_batches` for an estimator that
        draws its own.
        """
        if self.estimator.draws_itself:
            return empty_batches(replications)
        return self.setting.sample(replications, n, self.rng)

    def seeded(self, seed: int) -> Request:
        """The same request with another generator, for a look at the estimator that leaves what is
        sampled later as it is.
        """
        return replace(self, rng=np.random.default_rng(seed))

    def accumulator(self) -> Accumulator:
        """Empty sums for this request's estimates."""
        return Accumulator(self.shape, covariance=self.covariance)

    def target_value(self, target: AnyTarget) -> FloatArray:
        """The exact value of the target.

        Raises:
            ValueError: its order or shape is not that of the estimates.
        """
        order, setting = self.estimator.order, self.setting
        if target.order != order:
            raise ValueError(
                f"target: expected order {order} as the estimator's, got {target.order} ({target})"
            )
        exact = evaluate_target(target, setting.mdp, setting.theta, policy=setting.policy)
        if exact.shape != self.shape:
            raise ValueError(f"target value: expected shape {self.shape}, got {exact.shape}")
        return exact

    def block(self, n: int) -> int:
        """The number of batches of n to work on at a time: the largest array is near 32 MiB.

        Raises:
            ValueError: a single batch's estimate needs far more than that.
        """
        size = self._local_size(n)
        if size > MAX_LOCAL:
            raise ValueError(
                f"an estimate of order {self.estimator.order} from {n} x {self.length} steps works "
                f"on {8 * size / 2**30:.3g} GiB at a time, more than the limit of "
                f"{8 * MAX_LOCAL / 2**30:g}; use a shorter horizon, a smaller N or order 1"
            )
        return int(np.clip(2**22 // size, 1, 2**14))

    def largest_batch(self, n: int) -> int:
        """The largest batch of at most n trajectories that is cheap to estimate from."""
        while n > 2 and self._local_size(n) > 2**18:
            n = max(2, n // 2)
        return n

    def _local_size(self, n: int) -> int:
        """The number of floats in the largest array that one batch's estimate needs."""
        visits, order = self.length * n, self.estimator.order
        estimate = int(np.prod(self.shape))
        if not isinstance(self.estimator, SurrogateEstimator):
            return max(visits, estimate)
        logits = self.mdp.n_states * self.mdp.n_actions
        local = int((visits * self.mdp.n_actions) ** order)
        local = max(local, visits * min(visits, self.mdp.n_states))
        if not isinstance(self.setting.policy, TabularSoftmax):
            return max(local, int(logits**order), estimate)
        if local > MAX_BY_VISIT and logits < visits:
            return max(visits * self.mdp.n_actions * order, int(logits**order))
        return local


def generator_or_default(rng: np.random.Generator | None) -> np.random.Generator:
    """The generator, or one seeded with 0 where none is given."""
    return np.random.default_rng(0) if rng is None else rng


def off_policy_notes(setting: Setting) -> tuple[str, ...]:
    """A note on the effective sample size; none on policy."""
    if setting.on_policy:
        return ()
    share = setting.effective_share
    return (f"off policy: the effective sample size is {share:.3g} of the trajectories",)
