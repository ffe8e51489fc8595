"""What a sampled K-step meta-gradient must satisfy, one function for each check.

The sources of `verification.conformance.replayed_draws` answer its draws with known batches, so
that a check compares the same numbers, computed in two ways.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from gradbias.analytic.policies.softmax import TabularSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenTarget
from gradbias.analytic.utils.validation import FloatArray, IntArray
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import Given, Sampling, Source
from gradbias.verification.conformance.checks import check_independent, check_pure
from gradbias.verification.conformance.problems import Relabelling, Setup
from gradbias.verification.conformance.replayed_draws import Recording, Repeating, Replay
from gradbias.verification.conformance.runner import TOLERANCE, NotApplicable, Trial
from gradbias.verification.conformance.sampling import (
    check_means,
    median_blocks,
    median_of_means,
    median_radius,
)
from gradbias.verification.evidence.enumeration import EnumerationSizeError
from gradbias.verification.evidence.reports import BiasReport
from gradbias.verification.measurement.meta_gradients import measure_meta_gradient

REPLICATIONS = 4
_OTHER_STEPS = 2


@dataclass(eq=False, kw_only=True)
class MetaTrial(Trial):
    """A meta-gradient on trial at phi and theta (None: the inner steps start at phi)."""

    estimator: MetaGradient
    phi: FloatArray
    theta: FloatArray | None

    def sampled(self, use: int, replications: int = REPLICATIONS) -> FloatArray:
        """Estimates ``[R, *phi]`` from the generator for that use."""
        rng = self.rng(use)
        return self.estimator.estimates(self.phi, self.theta, replications=replications, rng=rng)

    def over(self, source: Source, replications: int, **changes: Any) -> FloatArray:
        """Estimates ``[R, *phi]`` over a source's batches, with ``changes`` of the estimator's
        fields.
        """
        changed = replace(self.estimator, **changes)
        return changed.mean_over(source, self.phi, self.theta, replications)

    @cached_property
    def recorded(self) -> tuple[Recording, FloatArray]:
        """A recording of the draws of some estimates, and the estimates."""
        recording = Recording(Sampling(self.estimator.loop, self.rng(0)))
        return recording, self.over(recording, REPLICATIONS)

    @cached_property
    def moments(self) -> BiasReport:
        """The exact mean and variance over all draws. Raises NotApplicable for too many."""
        zero = GivenTarget("nothing", np.zeros(self.phi.shape))
        try:
            return measure_meta_gradient(
                self.estimator, self.phi, self.theta, target=zero, evidence="enumeration"
            )
        except EnumerationSizeError as error:
            raise NotApplicable(str(error)) from None

    @property
    def enumerated(self) -> str:
        """The problem whose draws were enumerated, in words ("" if none were)."""
        if "moments" not in vars(self):
            return ""
        problem, steps = self.estimator.loop.problem, self.estimator.loop.steps
        sizes = f"{problem.n_states} states, {problem.n_actions} actions, {steps} steps"
        return f"its own problem: {sizes}"


def runs(trial: MetaTrial) -> None:
    """Estimates have phi's shape, and are finite, whatever the number of replications."""
    for count in (1, 2, 5):
        trial.finite(trial.sampled(1, count), (count, *trial.phi.shape))


def purity(trial: MetaTrial) -> None:
    """A generator in the same state gives the same estimates, whatever was computed in between.
    Parameters are left as they were, and no other generator is used.
    """
    check_pure(
        trial,
        partial(trial.sampled, 2),
        partial(trial.sampled, 3),
        "a generator in the same state again",
        {"its meta-parameters": trial.phi, "its parameters": trial.theta},
    )


def independence(trial: MetaTrial) -> None:
    """From the same draws a replication's estimate is the same alone, and in another place."""
    recording, together = trial.recorded

    def estimates_of(which: IntArray) -> FloatArray:
        return trial.over(Replay(recording, which), len(which))

    check_independent(trial, together, estimates_of)


def steps(trial: MetaTrial) -> None:
    """Over steps of size 0 the estimate is the outer gradient alone: the same for one and for K."""
    if trial.estimator.correction:
        raise NotApplicable("corrected for sampling, it depends on the number of steps of size 0")
    several = max(trial.estimator.steps, _OTHER_STEPS)

    def over_steps_of_size_0(count: int) -> FloatArray:
        source = Repeating(trial.estimator.loop, [trial.seed, 4])
        return trial.over(source, REPLICATIONS, steps=count, step_size=0.0)

    what = f"{several} steps of size 0, and one"
    trial.same(over_steps_of_size_0(several), over_steps_of_size_0(1), what)
    single = trial.over(Sampling(trial.estimator.loop, trial.rng(5)), REPLICATIONS, steps=1)
    trial.finite(single, (REPLICATIONS, *trial.phi.shape), "one step: ")


def relabelling(trial: MetaTrial) -> None:
    """From the same draws with other labels of states and actions, the same estimate under those
    labels.
    """
    (recording, estimates), loop = trial.recorded, trial.estimator.loop
    if not isinstance(loop, SampledLoop) or not isinstance(loop.policy, TabularSoftmax):
        raise NotApplicable("no tabular policy in a decision problem")
    if callable(loop.critic):
        raise NotApplicable("the critic is a function, which the suite cannot give other names")
    _, theta = loop.start(trial.phi, trial.theta)
    setup = Setup(loop.mdp, theta, loop.critic)
    labels = Relabelling.random(trial.rng(6), setup)
    relabelled = labels.setup(setup)
    other = replace(loop, mdp=relabelled.mdp, critic=relabelled.critic)
    changed = replace(trial.estimator, loop=other, **_exact_slots(trial.estimator, labels, theta))
    phi, is_table = _relabelled_phi(trial, labels)
    start = None if loop.starts_at_meta else relabelled.theta
    source = Replay(recording, np.arange(REPLICATIONS), labels)
    again = changed.mean_over(source, phi, start, REPLICATIONS)
    wanted = labels.estimates(estimates, 1) if is_table else estimates
    trial.same(again, wanted, "with states and actions renamed")


def _relabelled_phi(trial: MetaTrial, labels: Relabelling) -> tuple[FloatArray, bool]:
    """Phi under the other labels, and whether it has a row for each state."""
    sizes = (len(labels.states), len(labels.actions))
    if trial.phi.shape == sizes:
        return labels.estimates(trial.phi[None], 1)[0], True
    if set(trial.phi.shape) & {*sizes}:
        raise NotApplicable(
            f"which axes of meta-parameters {trial.phi.shape} are states, or actions"
        )
    return trial.phi, False


def _exact_slots(estimator: MetaGradient, labels: Relabelling, theta: FloatArray) -> dict[str, Any]:
    """The exact slots by name, with the labels of their problems changed."""
    slots: dict[str, Any] = {}
    for name in ("value", "hessian", "outer", "jacobian"):
        slot = getattr(estimator, name)
        if not isinstance(slot, Given):
            continue
        problem: Any = slot.problem
        known = is_dataclass(problem) and {f.name for f in fields(problem)} <= {"mdp", "policy"}
        if not known or not isinstance(problem.mdp, TabularMDP):
            kind = type(problem).__name__
            raise NotApplicable(f"the suite cannot give the states of the exact {kind} other names")
        mdp = labels.setup(Setup(problem.mdp, theta, None)).mdp
        slots[name] = Given(replace(problem, mdp=mdp))
    return slots


def sampling(trial: MetaTrial) -> None:
    """The median of means of sampled estimates is the mean over all draws, within its radius."""
    blocks = median_blocks(trial.false_alarm / trial.phi.size)
    if trial.replications < blocks:
        raise NotApplicable(
            f"{trial.replications} samples are fewer than the {blocks} blocks it takes"
        )
    exact = trial.moments
    median = median_of_means(trial.sampled(7, trial.replications), blocks)
    allowed = median_radius(exact.variance, trial.replications, blocks)
    allowed += TOLERANCE * float((np.abs(exact.mean) + np.sqrt(exact.variance)).max())
    check_means(trial, median, exact.mean, allowed)
