"""Gradient of what? What a mean update is the gradient of, if of anything.

Of an estimator's mean as a function of theta: whether its Jacobian is symmetric (that of a gradient
is), which known target it is, and how far from the return's its own optimum lies.

Source: Nota and Thomas 2020, *Is the Policy Gradient a Gradient?*
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray, frozen_array, real_number
from analytic.derivatives import gradient
from analytic.policies import TABULAR, Policy, log_softmax
from analytic.problems import TabularMDP
from analytic.targets import return_derivative
from analytic.values import Evaluation
from stochastic.contexts import Context
from stochastic.estimators import (
    CallableEstimator,
    DrawEstimator,
    Estimator,
    SurrogateEstimator,
    estimate,
)
from verification.diagnosis import Match
from verification.enumeration import Enumeration, check_size
from verification.following import Displacement, Field, displacement
from verification.gradient_mistakes import gradient_families, gradient_mistakes
from verification.measurement import measure_bias
from verification.mistakes import Mistake, Setting, best_number
from verification.reports import Direction, Evidence

_STEP = 0.02
_BATCHES = 100_000
_MATCHED = 1e-9
_CLEARLY = 10.0
_DECAY = 0.05
_SECOND_POINT = 0.3


class Symmetry(Enum):
    """Of a Jacobian, as far as its accuracy tells."""

    SYMMETRIC = "symmetric, as a gradient's is, at this point"
    NOT_SYMMETRIC = "not symmetric: the field is no gradient"
    UNDECIDED = "undecided: the asymmetry is near the differences' own error"


@dataclass(frozen=True, eq=False)
class FieldReport:
    """What is known of a mean update ``field`` at theta.

    ``jacobian`` has theta's axes twice (rows: the field), by differences whose error is about
    ``accuracy``, relative. ``asymmetry`` is the norm of its antisymmetric part over its own, in
    [0, 1]. ``matches`` are the known targets that the field equals, here and at a second point;
    ``displacement`` says how far its optimum lies from the return's (None: not asked).
    """

    field: FloatArray
    jacobian: FloatArray
    accuracy: float
    asymmetry: float
    matches: tuple[Match, ...]
    displacement: Displacement | None

    @property
    def symmetry(self) -> Symmetry:
        """Of the Jacobian. Symmetry at one point is no proof that there is an objective."""
        if self.asymmetry <= self.accuracy:
            return Symmetry.SYMMETRIC
        if self.asymmetry > _CLEARLY * self.accuracy:
            return Symmetry.NOT_SYMMETRIC
        return Symmetry.UNDECIDED

    def __str__(self) -> str:
        known = "; or ".join(match.what for match in self.matches) or "none of the known targets"
        lines = [
            f"field: {self.symmetry.value}",
            f"  asymmetry   {self.asymmetry:.3g} (error of the differences {self.accuracy:.1g})",
            f"  is          {known}",
        ]
        if self.displacement is not None:
            lines.append(f"  optimum     {self.displacement}")
        return "\n".join(lines)


def field_report(
    field: Estimator | Callable[[FloatArray], npt.ArrayLike],
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    critic: npt.ArrayLike | None = None,
    policy: Policy = TABULAR,
    length: int | None = None,
    trajectories: int | None = None,
    follow: bool = True,
    decay: float | None = None,
) -> FieldReport:
    """What a mean update is the gradient of, if of anything.

    ``field`` is a function theta -> mean update, or an estimator of order 1, whose mean is then
    enumerated (or known by recursion) at every point that is looked at; ``critic``, held fixed, and
    ``trajectories`` are given to it. ``follow`` follows it to its optimum, with weight ``decay``
    (default: 5% of how fast the gradient changes at theta).

    Raises:
        ValueError: an estimator of another order, or without an exact mean; what does not fit.

    >>> from stochastic.estimators import from_surrogate
    >>> from stochastic.surrogates.score_function import ad
    >>> mdp = TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.9, horizon=2)
    >>> report = field_report(from_surrogate(ad, 1), mdp, np.zeros((2, 2)), follow=False)
    >>> report.symmetry.name, [match.name for match in report.matches]
    ('SYMMETRIC', ['gradient'])
    """
    setting = Setting.of(mdp, theta, critic=critic, policy=policy, length=length)
    mean = _mean_field(field, setting, trajectories)
    here = setting.at.theta
    jacobian, accuracy = differences(mean, here)
    second = here + _SECOND_POINT * np.cos(np.arange(here.size)).reshape(here.shape)
    elsewhere = Setting.of(mdp, second, critic=critic, policy=policy, length=length)
    matches = _matches(mean, setting, elsewhere)
    moved = None
    if follow:
        steepness = 2.0 * _steepness(jacobian, setting)
        chosen = _DECAY * steepness if decay is None else decay
        moved = displacement(
            mean, setting, real_number("decay", chosen, low=0.0, high=1e100), steepness
        )
    return FieldReport(
        mean(here),
        jacobian,
        accuracy,
        _asymmetry(jacobian, here.size),
        matches,
        moved,
    )


def _mean_field(
    field: Estimator | Callable[[FloatArray], npt.ArrayLike],
    setting: Setting,
    trajectories: int | None,
) -> Field:
    if not isinstance(field, SurrogateEstimator | CallableEstimator | DrawEstimator):
        return lambda theta: frozen_array("field: its value", field(theta), setting.at.shape)
    options = {"critic": setting.critic, "policy": setting.at.policy}
    if field.order != 1:
        raise ValueError(f"field: expected an estimator of order 1, got {field.order}")
    given: dict[str, Any] = {**options, "trajectories": trajectories, "samples": 10**4}
    first = measure_bias(field, setting.mdp, setting.at.theta, **given)
    if first.evidence is Evidence.SAMPLING:
        raise ValueError(
            f"field: expected an exact mean of {field.name}, got one that must be sampled; use a "
            "smaller problem"
        )
    if first.evidence is Evidence.MOMENTS or isinstance(field, DrawEstimator):
        return lambda theta: measure_bias(field, setting.mdp, theta, **given).mean
    return partial(_enumerated_mean, field, setting, first.trajectories if first.coupled else 1)


def _enumerated_mean(
    estimator: SurrogateEstimator | CallableEstimator,
    setting: Setting,
    n: int,
    theta: FloatArray,
) -> FloatArray:
    """The coupling was looked for at the first point: here the mean is all that is wanted."""
    mdp, policy = setting.mdp, setting.at.policy
    measure = Enumeration.of(mdp, policy, theta, setting.steps)
    check_size(measure.count_batches(n, ordered=True), _BATCHES, f"batches of {n}")
    batches, weights = measure.all_batches(n, ordered=True)
    context = Context(theta, mdp.discount, policy=policy, critic=setting.critic)
    mean: FloatArray = np.tensordot(weights, estimate(estimator, batches, context), axes=1)
    return mean


def differences(field: Field, theta: FloatArray) -> tuple[FloatArray, float]:
    """The Jacobian, theta's axes twice, and about its relative error: central differences with
    three steps, extrapolated twice (Romberg); the error is the last extrapolation's change.
    """
    size = theta.size
    columns, errors = [], []
    for v in np.eye(size).reshape(size, *theta.shape):
        plain = []
        for step in (_STEP, _STEP / 2, _STEP / 4):
            plain.append((field(theta + step * v) - field(theta - step * v)) / (2 * step))
        once = [(4 * fine - coarse) / 3 for coarse, fine in pairwise(plain)]
        twice = (16 * once[1] - once[0]) / 15
        columns.append(twice)
        errors.append(np.linalg.norm(twice - once[1]))
    jacobian = np.moveaxis(np.stack(columns), 0, -1).reshape(theta.shape * 2)
    norm = float(np.linalg.norm(jacobian))
    rounding = 1e-15 * float(np.linalg.norm(field(theta))) / _STEP
    error = float(np.linalg.norm(errors)) + rounding * np.sqrt(size)
    return jacobian, float(error / norm) if norm > 0 else 0.0


def _asymmetry(jacobian: FloatArray, size: int) -> float:
    matrix = jacobian.reshape(size, size)
    norm = float(np.linalg.norm(matrix))
    return float(np.linalg.norm(matrix - matrix.T)) / (2 * norm) if norm > 0 else 0.0


def _steepness(jacobian: FloatArray, setting: Setting) -> float:
    """How fast the field changes; where it does not, the return's natural scale."""
    size = setting.at.theta.size
    found = float(np.linalg.norm(jacobian.reshape(size, size), 2))
    return found or setting.exact.scale or 1.0


def _matches(mean: Field, setting: Setting, elsewhere: Setting) -> tuple[Match, ...]:
    """The known targets that the field is at both points."""
    first, second = mean(setting.at.theta), mean(elsewhere.at.theta)
    unit = float(np.linalg.norm(first)) or 1.0
    found = []
    pairs = (setting, elsewhere)
    for known, other in zip(*(_known(one) for one in pairs), strict=True):
        residual = max(_gap(first, known.value), _gap(second, other.value)) / unit
        if residual <= _MATCHED:
            found.append(Match(known.name, known.what, residual))
    if found:
        return tuple(found)
    return tuple(_fitted(first, second, setting, elsewhere, unit))


def _gap(one: FloatArray, other: FloatArray) -> float:
    return float(np.linalg.norm(one - other))


def _known(setting: Setting) -> Iterator[Mistake]:
    target = return_derivative(1, horizon=setting.steps)
    yield Mistake("gradient", str(target), _gradient(setting))
    for known in gradient_mistakes(setting):
        if known.name != f"horizon {setting.steps}":
            yield known


def _gradient(setting: Setting) -> FloatArray:
    return gradient(setting.mdp, setting.at.theta, policy=setting.at.policy)


def _fitted(
    first: FloatArray, second: FloatArray, setting: Setting, elsewhere: Setting, unit: float
) -> Iterator[Match]:
    """Targets with a number, fitted at the first point and tried at the second."""
    families = zip(gradient_families(setting), gradient_families(elsewhere), strict=True)
    for family, other in families:
        x = best_number(first, family)
        residual = max(_gap(first, family.value(x)), _gap(second, other.value(x))) / unit
        if residual <= _MATCHED:
            yield Match(family.name, family.what.format(x=f"{x:.6g}"), residual, x)
    scale = Direction.of(first, _gradient(setting)).scale
    residual = max(
        _gap(first, scale * _gradient(setting)), _gap(second, scale * _gradient(elsewhere))
    )
    if residual <= _MATCHED * unit:
        what = f"{scale:.6g} times the gradient of the return"
        yield Match("pure scale", what, residual / unit, scale)
    for added, there in zip(_added(setting), _added(elsewhere), strict=True):
        size = float(np.vdot(added.value, added.value))
        rest = [first - _gradient(setting), second - _gradient(elsewhere)]
        x = float(np.vdot(rest[0], added.value)) / size if size > 0 else 0.0
        residual = max(_gap(rest[0], x * added.value), _gap(rest[1], x * there.value)) / unit
        if residual <= _MATCHED:
            what = f"the gradient of the return plus {x:.6g} times {added.what}"
            yield Match(added.name, what, residual, x)


def _added(setting: Setting) -> Iterator[Mistake]:
    """What regularisers add to the gradient, for a coefficient of 1."""
    exact, at = setting.exact, setting.at
    surprise = -log_softmax(at.logits)
    surprise = np.where(setting.mdp.terminal[:, None], 0.0, surprise)
    paid = np.broadcast_to(surprise, exact.action_values.shape)
    soft = Evaluation(setting.tables.paying(paid), at.probabilities)
    yield Mistake(
        "entropy in the return",
        "that of the discounted sum of entropies (entropy as a reward)",
        setting.field(exact.occupancy, soft.action_values),
    )
    for name, visits in (
        ("entropy as a loss", exact.occupancy),
        ("entropy as a loss, no gamma^t", setting.discounted(1.0).occupancy),
    ):
        what = "that of the entropies at the visited states, with the visits held fixed"
        yield Mistake(name, what, setting.field(visits, paid))
    yield Mistake("weight decay", "theta", np.array(at.theta))
