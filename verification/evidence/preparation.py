"""What a measurement is asked: arguments checked, the target's value, what they mean off policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.softmax import (
    TABULAR,
    Policy,
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
from gradbias.stochastic.estimators.kinds import Estimator
from gradbias.stochastic.rollouts.trajectories import trajectory_length
from gradbias.verification.evidence.accumulated_moments import Progress
from gradbias.verification.evidence.importance_weights import effective_share
from gradbias.verification.evidence.request import Request

ENUMERATION_LIMIT = 1_000_000
"""Outcomes that are enumerated at most, unless said."""

MOST_STEPS = 5_000
"""Steps of a trajectory at most: surrogates and enumeration take them all at once."""

LARGEST_SCALE = 1e100
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
    samples: int = 200_000,
    enumeration_limit: int = ENUMERATION_LIMIT,
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
        limit=whole_number("enumeration_limit", enumeration_limit, at_least=1),
        samples=whole_number("samples", samples, at_least=1),
        rng=np.random.default_rng(0) if rng is None else rng,
        progress=progress,
        covariance=covariance,
    )


def _checked_steps(mdp: TabularMDP, length: int | None) -> int:
    steps = trajectory_length(mdp, length)
    if steps > MOST_STEPS:
        raise ValueError(f"horizon or length: expected at most {MOST_STEPS:,} steps, got {steps:,}")
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
    if scale != 0.0 and not 1.0 / LARGEST_SCALE <= scale <= LARGEST_SCALE:
        raise ValueError(
            f"rewards: expected values (max|Q| x occupancy) between {1 / LARGEST_SCALE:g} and "
            f"{LARGEST_SCALE:g} in size, got {scale:.3g}; rescale them"
        )
    return visited


def off_policy_notes(asked: Request, least: float) -> tuple[str, ...]:
    """A note on the effective sample size; none on policy. Raises ValueError below ``least``."""
    real_number("least_effective", least, low=0.0, high=1.0)
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
