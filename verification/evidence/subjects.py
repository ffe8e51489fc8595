"""What a report is about: the moments that were measured, and the target they are compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.targets import (
    AnyTarget,
    BootstrappedHorizon,
    FiniteHorizon,
    InfiniteHorizon,
    Target,
)
from gradbias.analytic.returns.target_values import evaluate_target
from gradbias.analytic.utils.validation import BoolArray, FloatArray
from gradbias.stochastic.tracing.imprecision import PRECISE, Imprecision
from gradbias.verification.evidence.accumulated_moments import Moments
from gradbias.verification.evidence.reasons import Doubt
from gradbias.verification.evidence.reports import Evidence
from gradbias.verification.evidence.request import Request
from gradbias.verification.evidence.setting import Setting


@dataclass(frozen=True, eq=False)
class MeasuredMoments:
    """Moments of one estimate, with their evidence.

    ``batch_size`` is N. ``scope`` and ``assumption`` replace the report's defaults, where the
    evidence has its own (symbolic evidence has). ``doubt`` is why a sampled mean is not taken for
    normal, ``unguarded`` the mean with all guards of ``imprecision`` extrapolated to 0.
    """

    moments: Moments
    evidence: Evidence
    batch_size: int
    coupled: bool
    notes: tuple[str, ...]
    scope: str | None = None
    assumption: str | None = None
    doubt: Doubt | None = None
    imprecision: Imprecision = PRECISE
    unguarded: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class Subject:
    """What a report is about: the estimator's name, the target with its ``exact`` value, and the
    ``scope`` of the verdict.

    ``scale`` and ``rounding_scale`` are the sizes of the values that the target is made of (max|Q|
    x occupancy, and what determines their rounding). Where no reward can be reached, ``unrewarded``
    says within how many steps.
    """

    estimator: str
    target: AnyTarget
    exact: FloatArray
    scope: str
    scale: float
    rounding_scale: float
    setting: Setting | None = None
    unrewarded: str | None = None
    notes: tuple[str, ...] = ()


def subject_of(
    request: Request, measured: MeasuredMoments, target: AnyTarget, exact: FloatArray
) -> Subject:
    """The subject of a measurement of ``target``, whose value is ``exact``."""
    setting = request.setting
    unrewarded = None
    if _is_plain_return(target) and not _reward_can_be_reached(setting):
        unrewarded = f"within {setting.steps} steps of the start"
    return Subject(
        request.estimator.name,
        target,
        exact,
        measured.scope or _scope(request, measured.batch_size),
        setting.evaluation.scale,
        setting.evaluation.rounding_scale,
        setting,
        unrewarded,
        _truncation(setting, target, exact),
    )


def _is_plain_return(target: AnyTarget) -> bool:
    """Whether the target is 0 wherever all rewards are."""
    if not isinstance(target, Target):
        return False
    return target.regulariser is None and not isinstance(target.horizon, BootstrappedHorizon)


def _reward_can_be_reached(setting: Setting) -> bool:
    """Whether some reward that is not 0 has positive probability under the behaviour policy."""
    mdp = setting.mdp
    behaviour = softmax(setting.policy.logits(setting.behaviour))
    joint = behaviour[:, :, None] * mdp.transition > 0
    rewarded = (joint & (mdp.next_state_reward != 0.0)).any(axis=(2, 3))
    successors: BoolArray = np.asarray(joint.any(axis=1))
    reached = mdp.start > 0
    for t in range(setting.steps):
        if (reached & rewarded[min(t, len(rewarded) - 1)]).any():
            return True
        reached = np.any(successors[reached], axis=0)
    return False


def _scope(request: Request, batch_size: int) -> str:
    on_policy = request.setting.on_policy
    where = "at this MDP and policy" if on_policy else "at this MDP, policy and behaviour policy"
    draws = "with its own draws" if request.estimator.draws_itself else f"N = {batch_size}"
    return f"{draws}, {where}"


def _truncation(setting: Setting, target: AnyTarget, exact: FloatArray) -> tuple[str, ...]:
    """A note on the part of the bias that comes from cutting trajectories short."""
    if setting.length is None or not isinstance(target, Target):
        return ()
    if not isinstance(target.horizon, InfiniteHorizon):
        return ()
    cut = replace(target, horizon=FiniteHorizon(setting.steps))
    value = evaluate_target(cut, setting.mdp, setting.theta, policy=setting.policy)
    missing = float(np.linalg.norm(value - exact))
    note = (
        f"trajectories are cut at {setting.steps} steps, the target is not: {cut} differs from the "
        f"target by {missing:.3g} in norm (truncation bias)"
    )
    return (note,)
