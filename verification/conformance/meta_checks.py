"""What a sampled meta-gradient must satisfy, one function a check.

Draws are answered by `verification.conformance.replayed_draws`, so that the same numbers come by in
two ways.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from gradbias.analytic.policies.softmax import TabularSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenTarget
from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import Given, Sampling, Source
from gradbias.verification.conformance.checks import undisturbed
from gradbias.verification.conformance.problems import Relabelling, Setup
from gradbias.verification.conformance.replayed_draws import Kept, Repeating, Replayed
from gradbias.verification.conformance.report import (
    TOLERANCE,
    NotApplicable,
    NotSatisfied,
    check_equal,
)
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


@dataclass(frozen=True, eq=False)
class MetaTrial:
    """A meta-gradient on trial at phi and theta (None: where it starts by itself)."""

    estimator: MetaGradient
    phi: FloatArray
    theta: FloatArray | None
    seed: int
    replications: int
    false_alarm: float

    def rng(self, which: int) -> np.random.Generator:
        """A generator for one of the checks' uses."""
        return np.random.default_rng([self.seed, which])

    def sampled(self, which: int, replications: int = REPLICATIONS) -> FloatArray:
        """``[R, *phi]``."""
        rng = self.rng(which)
        return self.estimator.estimates(self.phi, self.theta, replications=replications, rng=rng)

    def over(self, source: Source, replications: int, **other: Any) -> FloatArray:
        """``[R, *phi]`` over what ``source`` answers, with some of its fields changed."""
        changed = replace(self.estimator, **other)
        return changed.mean_over(source, self.phi, self.theta, replications)

    @cached_property
    def kept(self) -> tuple[Kept, FloatArray]:
        """The answers that some estimates took, and these."""
        kept = Kept(Sampling(self.estimator.loop, self.rng(0)))
        return kept, self.over(kept, REPLICATIONS)

    @cached_property
    def moments(self) -> BiasReport:
        """Exact, over all draws: mean and variance. Raises
        NotApplicable.
        """
        nothing = GivenTarget("nothing", np.zeros(self.phi.shape))
        try:
            return measure_meta_gradient(
                self.estimator, self.phi, self.theta, target=nothing, evidence="enumeration"
            )
        except EnumerationSizeError as error:
            raise NotApplicable(str(error)) from None


def runs(trial: MetaTrial) -> int:
    """Estimates have phi's shape, and are finite, whatever the number of replications."""
    sizes = (1, 2, 5)
    for count in sizes:
        found, wanted = trial.sampled(1, count), (count, *trial.phi.shape)
        if found.shape != wanted or found.dtype != np.float64:
            raise NotSatisfied(
                f"expected float64 of shape {wanted}, got {found.dtype} of shape {found.shape}"
            )
        if not np.isfinite(found).all():
            raise NotSatisfied("expected finite numbers")
    return len(sizes)


def purity(trial: MetaTrial) -> int:
    """The same estimates from a generator in the same state, whatever came between; nothing is
    changed, nothing drawn elsewhere.
    """
    before = np.array(trial.phi), None if trial.theta is None else np.array(trial.theta)
    first = trial.sampled(2)
    trial.sampled(3)
    made = check_equal(trial.sampled(2), first, "a generator in the same state again")
    made += undisturbed(partial(trial.sampled, 2))
    for array, copy in zip((trial.phi, trial.theta), before, strict=True):
        if copy is not None and not np.array_equal(np.asarray(array), copy):
            raise NotSatisfied("changed its parameters")
    return made + 1


def independence(trial: MetaTrial) -> int:
    """From the same draws a replication's estimate is the same alone, and in another place."""
    (kept, together), made = trial.kept, 0
    for r in range(REPLICATIONS):
        alone = trial.over(Replayed(kept, np.array([r])), 1)
        what = f"replication {r} among {REPLICATIONS}, and alone"
        made += check_equal(alone[0], together[r], what, beside=together)
    order = np.arange(REPLICATIONS)[::-1]
    found = trial.over(Replayed(kept, order), REPLICATIONS)
    return made + check_equal(found, together[order], "in reverse order")


def steps(trial: MetaTrial) -> int:
    """Over steps of size 0 the estimate is the outer gradient alone: the same for one and for K."""
    if trial.estimator.correction:
        raise NotApplicable("corrected for sampling, it depends on the number of steps of size 0")
    several = max(trial.estimator.steps, _OTHER_STEPS)

    def still(count: int) -> FloatArray:
        source = Repeating(trial.estimator.loop, [trial.seed, 4])
        return trial.over(source, REPLICATIONS, steps=count, step_size=0.0)

    made = check_equal(still(several), still(1), f"{several} steps of size 0, and one")
    one = trial.over(Sampling(trial.estimator.loop, trial.rng(5)), REPLICATIONS, steps=1)
    if one.shape != (REPLICATIONS, *trial.phi.shape) or not np.isfinite(one).all():
        raise NotSatisfied(f"one step: expected finite numbers of phi's shape, got {one.shape}")
    return made + 1


def relabelling(trial: MetaTrial) -> int:
    """From the same draws under other names of states and actions, the same estimate under those
    names.
    """
    (kept, found), loop = trial.kept, trial.estimator.loop
    if not isinstance(loop, SampledLoop) or not isinstance(loop.policy, TabularSoftmax):
        raise NotApplicable("no tabular policy in a decision problem")
    if callable(loop.critic):
        raise NotApplicable("the critic is a function, which the suite cannot give other names")
    _, theta = loop.start(trial.phi, trial.theta)
    setup = Setup(loop.mdp, theta, loop.critic)
    names = Relabelling.random(trial.rng(6), setup)
    renamed = names.setup(setup)
    other = replace(loop, mdp=renamed.mdp, critic=renamed.critic)
    changed = replace(trial.estimator, loop=other, **_slots(trial.estimator, names, theta))
    phi, is_table = _renamed_phi(trial, names)
    start = None if loop.starts_at_meta else renamed.theta
    source = Replayed(kept, np.arange(REPLICATIONS), names)
    again = changed.mean_over(source, phi, start, REPLICATIONS)
    wanted = names.estimates(found, 1) if is_table else found
    return check_equal(again, wanted, "with states and actions renamed")


def _renamed_phi(trial: MetaTrial, names: Relabelling) -> tuple[FloatArray, bool]:
    """Phi under other names, and whether it has a row for each state."""
    sizes = (len(names.states), len(names.actions))
    if trial.phi.shape == sizes:
        return names.estimates(trial.phi[None], 1)[0], True
    if set(trial.phi.shape) & {*sizes}:
        raise NotApplicable(
            f"which axes of meta-parameters {trial.phi.shape} are states, or actions"
        )
    return trial.phi, False


def _slots(estimator: MetaGradient, names: Relabelling, theta: FloatArray) -> dict[str, Any]:
    """The exact slots, of their problems under other names."""
    found: dict[str, Any] = {}
    for name in ("value", "hessian", "outer", "jacobian"):
        slot = getattr(estimator, name)
        if not isinstance(slot, Given):
            continue
        problem: Any = slot.problem
        known = is_dataclass(problem) and {f.name for f in fields(problem)} <= {"mdp", "policy"}
        if not known or not isinstance(problem.mdp, TabularMDP):
            kind = type(problem).__name__
            raise NotApplicable(f"the suite cannot give the states of the exact {kind} other names")
        mdp = names.setup(Setup(problem.mdp, theta, None)).mdp
        found[name] = Given(replace(problem, mdp=mdp))
    return found


def sampling(trial: MetaTrial) -> int:
    """The mean of sampled estimates is that over all draws."""
    blocks = median_blocks(trial.false_alarm / trial.phi.size)
    if trial.replications < blocks:
        raise NotApplicable(
            f"{trial.replications} samples are fewer than the {blocks} blocks it takes"
        )
    exact = trial.moments
    found = median_of_means(trial.sampled(7, trial.replications), blocks)
    allowed = median_radius(exact.variance, trial.replications, blocks)
    allowed += TOLERANCE * float((np.abs(exact.mean) + np.sqrt(exact.variance)).max())
    return check_means(found, exact.mean, allowed, trial.replications)
