"""Where an estimator is measured: a problem, a policy, and all else that an estimate depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from gradbias.analytic.policies.softmax import (
    TABULAR,
    Policy,
    checked_parameters,
    log_softmax,
    softmax,
)
from gradbias.analytic.problems.critics import check_ends, critic_rows
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.evaluation import Evaluation, evaluate
from gradbias.analytic.utils.validation import FloatArray, frozen_array
from gradbias.stochastic.estimators.contexts import Context
from gradbias.stochastic.rollouts.trajectories import Trajectories, sample, trajectory_length
from gradbias.verification.evidence.enumeration import Enumeration

MAX_STEPS = 5_000
"""The largest number of steps: surrogates and enumeration hold all steps at once."""

MAX_SCALE = 1e100
"""The largest size of values: their squares, and sums of these, must be floats."""


class SettingOptions(TypedDict, total=False):
    """The keywords of `Setting.of`, for functions that pass them on."""

    policy: Policy
    critic: npt.ArrayLike | None
    behaviour: npt.ArrayLike | None
    reference: npt.ArrayLike | None
    meta: Mapping[str, Any] | None
    length: int | None


@dataclass(frozen=True, eq=False)
class Setting:
    """A problem with everything that an estimate on it depends on. `Setting.of` checks and names
    its fields; ``behaviour`` is theta on policy, ``length`` None where the horizon is finite.
    """

    mdp: TabularMDP
    theta: FloatArray
    policy: Policy
    critic: FloatArray | None
    behaviour: FloatArray
    reference: FloatArray | None
    meta: Mapping[str, Any]
    length: int | None

    @classmethod
    def of(
        cls,
        mdp: TabularMDP,
        theta: npt.ArrayLike,
        *,
        policy: Policy = TABULAR,
        critic: npt.ArrayLike | None = None,
        behaviour: npt.ArrayLike | None = None,
        reference: npt.ArrayLike | None = None,
        meta: Mapping[str, Any] | None = None,
        length: int | None = None,
    ) -> Setting:
        """The setting with these parts, all of them checked.

        Args:
            mdp: the problem.
            theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
            policy: maps theta to logits (default: the tabular softmax).
            critic: values ``[S]`` or ``[H + 1, S]``, 0 at terminal states (default: no critic).
            behaviour: parameters that trajectories are drawn at (default: theta).
            reference: parameters of a reference policy, for KL terms.
            meta: meta-parameter tensors by name, which surrogates read as ``record.meta``.
            length: the steps of a trajectory, where the horizon is infinite (and only there).

        Returns:
            The setting; its arrays are read-only copies.

        Raises:
            ValueError: an argument does not fit; the message says which, and what was expected.

        >>> mdp = TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.9, horizon=4)
        >>> setting = Setting.of(mdp, np.zeros((2, 2)))
        >>> setting.steps, setting.on_policy
        (4, True)
        """
        steps = trajectory_length(mdp, length)
        if steps > MAX_STEPS:
            raise ValueError(
                f"horizon or length: expected at most {MAX_STEPS:,} steps, got {steps:,}"
            )
        size = mdp.n_states, mdp.n_actions
        parameters = drawn_at = checked_parameters(policy, theta, *size)
        if behaviour is not None:
            drawn_at = checked_parameters(policy, behaviour, *size, "behaviour")
        if critic is not None:
            critic = frozen_array("critic", critic)
            check_ends(critic_rows(critic, steps, mdp.n_states), mdp.terminal)
        if reference is not None:
            reference = frozen_array("reference", reference, parameters.shape)
        parts = (mdp, parameters, policy, critic, drawn_at, reference, dict(meta or {}), length)
        setting = cls(*parts)
        _ = setting.context  # is built now, since it checks meta
        return setting

    @cached_property
    def context(self) -> Context:
        """What an estimator may see of the setting: all of it but the problem."""
        return Context(
            self.theta,
            self.mdp.discount,
            policy=self.policy,
            critic=self.critic,
            reference=self.reference,
            meta=self.meta,
        )

    @property
    def steps(self) -> int:
        """The number of steps H of every trajectory."""
        return trajectory_length(self.mdp, self.length)

    @property
    def on_policy(self) -> bool:
        """Whether trajectories are drawn from the policy itself."""
        return np.array_equal(self.behaviour, self.theta)

    @property
    def finite_mdp(self) -> TabularMDP:
        """The problem, ended after `steps` steps where its horizon is infinite."""
        return self.mdp if self.length is None else replace(self.mdp, horizon=self.length)

    @cached_property
    def evaluation(self) -> Evaluation:
        """The policy's values and occupancy."""
        return evaluate(self.mdp, softmax(self.policy.logits(self.theta)))

    def check_scale(self) -> None:
        """Raises ValueError for values so large or small that their squares are no floats."""
        scale = self.evaluation.scale
        if scale != 0.0 and not 1.0 / MAX_SCALE <= scale <= MAX_SCALE:
            raise ValueError(
                f"rewards: expected values (max|Q| x occupancy) between {1 / MAX_SCALE:g} and "
                f"{MAX_SCALE:g} in size, got {scale:.3g}; rescale them"
            )

    @cached_property
    def enumeration(self) -> Enumeration:
        """Every trajectory, with its probability under the behaviour policy."""
        return self.enumeration_at(self.behaviour)

    def enumeration_at(self, theta: FloatArray) -> Enumeration:
        """Every trajectory, with its probability under the policy with parameters ``theta``."""
        return Enumeration.of(self.mdp, self.policy, theta, self.steps)

    @cached_property
    def effective_share(self) -> float:
        """The relative effective sample size of trajectories' importance weights, in (0, 1]."""
        if self.on_policy:
            return 1.0
        target, behaviour = (
            log_softmax(self.policy.logits(at)) for at in (self.theta, self.behaviour)
        )
        return effective_share(self.mdp, target, behaviour, self.steps)

    def sample(self, replications: int, n: int, rng: np.random.Generator) -> Trajectories:
        """Random batches ``[R, n, H]`` of the behaviour policy.

        Args:
            replications: R, the number of batches.
            n: the number of trajectories in a batch.
            rng: the random generator.
        """
        options: dict[str, Any] = {"length": self.length, "policy": self.policy}
        return sample(self.mdp, self.behaviour, n, rng=rng, replications=replications, **options)

    def draw(self, theta: npt.ArrayLike, n: int, rng: np.random.Generator) -> Trajectories:
        """One random batch ``[n, H]`` of the policy with parameters ``theta``.

        Args:
            theta: the policy's parameters.
            n: the number of trajectories.
            rng: the random generator.
        """
        return sample(self.mdp, theta, n, rng=rng, length=self.length, policy=self.policy)


def effective_share(
    mdp: TabularMDP, log_policy: FloatArray, log_behaviour: FloatArray, steps: int
) -> float:
    """``1 / E[w^2]`` of whole trajectories' ratios w under the behaviour policy, in (0, 1]: what a
    large sample's effective size is of its number. Both policies are ``[S, A]``.

    Source: Kong 1992; the recursion is that of a return with factors ``pi^2 / mu``.
    """
    weights = 2.0 * log_policy - log_behaviour
    weights[mdp.terminal] = log_policy[mdp.terminal]
    # In logarithms: over many steps the second moment is beyond a float.
    second = np.zeros(mdp.n_states)
    for _ in range(steps):
        later = logsumexp(second, b=mdp.transition, axis=-1)
        second = logsumexp(weights + later, axis=-1)
    return float(np.exp(-logsumexp(second, b=mdp.start)))
