"""What a measurement was asked: the record that both measures work from.

What a measurement is asked: arguments checked, the target's value, what they mean off policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.softmax import (
    TABULAR,
    Policy,
    TabularSoftmax,
    checked_parameters,
    log_softmax,
    softmax,
)
from gradbias.analytic.problems.critics import check_ends, critic_rows
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import AnyTarget
from gradbias.analytic.returns.evaluation import Evaluation, evaluate
from gradbias.analytic.returns.target_values import evaluate_target
from gradbias.analytic.utils.validation import FloatArray, frozen_array, real_number, whole_number
from gradbias.stochastic.estimators.contexts import Context
from gradbias.stochastic.estimators.kinds import Estimator, SurrogateEstimator
from gradbias.stochastic.rollouts.trajectories import Trajectories, sample, trajectory_length
from gradbias.verification.evidence.accumulated_moments import Accumulator, Progress
from gradbias.verification.evidence.enumeration import Enumeration
from gradbias.verification.evidence.importance_weights import effective_share

MAX_LOCAL = 2**27
"""Numbers that one estimate may need at a time: 1 GiB."""


@dataclass(frozen=True, eq=False)
class Request:
    """An estimator in its context, on a problem, with trajectories drawn at ``behaviour``.

    ``max_outcomes`` bounds what is enumerated, ``budget`` the trajectories drawn with ``rng``.
    """

    estimator: Estimator
    mdp: TabularMDP
    context: Context
    behaviour: FloatArray
    length: int
    max_outcomes: int
    budget: int
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


ENUMERATION_LIMIT = 1_000_000
"""Outcomes that are enumerated at most, unless said."""

MAX_STEPS = 5_000
"""Steps of a trajectory at most: surrogates and enumeration take them all at once."""

MAX_SCALE = 1e100
"""Of values, so that squares and their sums are floats."""


def request_of(
    estimator: Estimator,
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    critic: npt.ArrayLike | None = None,
    policy: Policy = TABULAR,
    behaviour: npt.ArrayLike | None = None,
    reference: npt.ArrayLike | None = None,
    meta: Mapping[str, Any] | None = None,
    length: int | None = None,
    budget: int = 200_000,
    max_outcomes: int = ENUMERATION_LIMIT,
    rng: np.random.Generator | None = None,
    progress: Progress | None = None,
    covariance: bool = False,
) -> Request:
    """What a measurement is asked, checked; the arguments are `measure_bias`'s."""
    steps = _checked_steps(mdp, length)
    parameters = checked_parameters(policy, theta, mdp.n_states, mdp.n_actions)
    drawn_at = parameters
    if behaviour is not None:
        drawn_at = checked_parameters(policy, behaviour, mdp.n_states, mdp.n_actions, "behaviour")
    if covariance and estimator.order != 1:
        raise ValueError(f"covariance: only for gradients, got an order of {estimator.order}")
    context = Context(
        parameters,
        mdp.discount,
        policy=policy,
        critic=_checked_critic(critic, mdp, steps),
        reference=None if reference is None else np.asarray(reference),
        meta={} if meta is None else meta,
    )
    return Request(
        estimator,
        mdp,
        context,
        behaviour=drawn_at,
        length=steps,
        max_outcomes=whole_number("max_outcomes", max_outcomes, at_least=1),
        budget=whole_number("budget", budget, at_least=1),
        rng=np.random.default_rng(0) if rng is None else rng,
        progress=progress,
        covariance=covariance,
    )


def _checked_steps(mdp: TabularMDP, length: int | None) -> int:
    steps = trajectory_length(mdp, length)
    if steps > MAX_STEPS:
        raise ValueError(f"horizon or length: expected at most {MAX_STEPS:,} steps, got {steps:,}")
    return steps


def _checked_critic(critic: npt.ArrayLike | None, mdp: TabularMDP, steps: int) -> FloatArray | None:
    if critic is None:
        return None
    array = frozen_array("critic", critic)
    check_ends(critic_rows(array, steps, mdp.n_states), mdp.terminal)
    return array


def checked_values(asked: Request) -> Evaluation:
    """The policy's values. Raises ValueError for rewards whose squares are beyond a float."""
    logits = asked.context.policy.logits(asked.context.theta)
    visited = evaluate(asked.mdp, softmax(logits))
    scale = visited.scale
    if scale != 0.0 and not 1.0 / MAX_SCALE <= scale <= MAX_SCALE:
        raise ValueError(
            f"rewards: expected values (max|Q| x occupancy) between {1 / MAX_SCALE:g} and "
            f"{MAX_SCALE:g} in size, got {scale:.3g}; rescale them"
        )
    return visited


def off_policy_notes(asked: Request, least: float) -> tuple[str, ...]:
    """A note on the effective sample size; none on policy. Raises ValueError below ``least``."""
    real_number("min_effective_share", least, low=0.0, high=1.0)
    if np.array_equal(asked.behaviour, asked.context.theta):
        return ()
    policy = asked.context.policy
    wanted, drawn = (
        log_softmax(policy.logits(at)) for at in (asked.context.theta, asked.behaviour)
    )
    share = effective_share(asked.mdp, wanted, drawn, asked.length)
    if share < least:
        raise ValueError(
            f"behaviour: expected an effective sample size of at least {least:g} of the "
            f"trajectories, got {share:.3g}; draw them nearer to the policy"
        )
    return (f"off policy: the effective sample size is {share:.3g} of the trajectories",)


def target_value(target: AnyTarget, asked: Request) -> FloatArray:
    """The target's value. Raises ValueError where it has not the estimates' order and shape."""
    if target.order != asked.estimator.order:
        raise ValueError(
            f"target: expected order {asked.estimator.order} as the estimator's, got "
            f"{target.order} ({target})"
        )
    exact = evaluate_target(target, asked.mdp, asked.context.theta, policy=asked.context.policy)
    if exact.shape != asked.shape:
        raise ValueError(f"target value: expected shape {asked.shape}, got {exact.shape}")
    return exact
