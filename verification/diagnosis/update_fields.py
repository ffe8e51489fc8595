"""The function that a mean update is the gradient of, if there is one.

An estimator's mean, as a function of theta, is an update field. Its Jacobian is symmetric if it is
a gradient; it may equal a known target; its stationary point may lie away from the return's.

Source: Nota and Thomas 2020, *Is the Policy Gradient a Gradient?*
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray, frozen_array, real_number
from gradbias.stochastic.estimators.kinds import Estimator, estimate
from gradbias.verification.diagnosis.diagnose import Match
from gradbias.verification.diagnosis.field_matching import known_fields
from gradbias.verification.diagnosis.fixed_points import Displacement, Field, displacement
from gradbias.verification.diagnosis.known_errors import ExactQuantities
from gradbias.verification.evidence.enumeration import check_outcomes
from gradbias.verification.evidence.reports import Evidence
from gradbias.verification.evidence.setting import Setting
from gradbias.verification.measurement.measure import MeasureOptions, measure_bias

_STEP = 0.02
_BATCHES = 100_000
_CLEARLY = 10.0
_DECAY = 0.05
_SECOND_POINT = 0.3


class Symmetry(Enum):
    """Whether a Jacobian is symmetric, as far as its accuracy tells; the value is the sentence."""

    SYMMETRIC = "symmetric, as a gradient's is, at this point"
    NOT_SYMMETRIC = "not symmetric: the field is no gradient"
    UNDECIDED = "undecided: the asymmetry is near the differences' own error"


@dataclass(frozen=True, eq=False)
class FieldReport:
    """The properties of a mean update at theta.

    Attributes:
        field: the mean update, shaped like theta.
        jacobian: its derivative, theta's axes twice (rows: the field), by differences.
        accuracy: about the relative error of the Jacobian.
        asymmetry: the norm of the Jacobian's antisymmetric part over its own, in [0, 1].
        matches: the known targets that the field equals, here and at a second point.
        displacement: how far its stationary point lies from the return's; None with
            ``follow=False``.
    """

    field: FloatArray
    jacobian: FloatArray
    accuracy: float
    asymmetry: float
    matches: tuple[Match, ...]
    displacement: Displacement | None

    @property
    def verdict(self) -> Symmetry:
        """Whether the Jacobian is symmetric; at one point that proves no objective."""
        if self.asymmetry <= self.accuracy:
            return Symmetry.SYMMETRIC
        if self.asymmetry > _CLEARLY * self.accuracy:
            return Symmetry.NOT_SYMMETRIC
        return Symmetry.UNDECIDED

    def __str__(self) -> str:
        known = "; or ".join(match.what for match in self.matches) or "none of the known targets"
        lines = [
            f"field: {self.verdict.value}",
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
    batch_size: int | None = None,
    follow: bool = True,
    decay: float | None = None,
) -> FieldReport:
    """A report: what is a mean update the gradient of, if of anything?

    Args:
        field: a function from theta to a mean update, or an estimator of order 1 whose mean can be
            enumerated or is known by recursion.
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        critic: values ``[S]`` or ``[H + 1, S]`` for the estimator, the same at every theta.
        policy: maps theta to logits (default: the tabular softmax).
        length: the steps of a trajectory, where the horizon is infinite.
        batch_size: N, the number of trajectories in a batch; needed if the estimator couples them.
        follow: whether to follow the field to its stationary point.
        decay: the weight decay with which the field is followed (default: a tenth of the
            spectral norm of its Jacobian at theta).

    Returns:
        A `FieldReport`.

    Raises:
        ValueError: an estimator of another order, or without an exact mean; an argument that does
            not fit.

    >>> from gradbias.stochastic import ad, from_surrogate
    >>> mdp = TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.9, horizon=2)
    >>> report = field_report(from_surrogate(ad, order=1), mdp, np.zeros((2, 2)), follow=False)
    >>> report.verdict.name, [match.name for match in report.matches]
    ('SYMMETRIC', ['gradient'])
    """
    setting = Setting.of(mdp, theta, critic=critic, policy=policy, length=length)
    quantities = ExactQuantities.of(setting)
    mean = _mean_field(field, setting, batch_size)
    here = setting.theta
    jacobian, accuracy = differences(mean, here)
    second = here + _SECOND_POINT * np.cos(np.arange(here.size)).reshape(here.shape)
    moved = Setting.of(mdp, second, critic=critic, policy=policy, length=length)
    elsewhere = ExactQuantities.of(moved)
    matches = known_fields(mean, quantities, elsewhere)
    apart = None
    if follow:
        steepness = 2.0 * _steepness(jacobian, quantities)
        chosen = _DECAY * steepness if decay is None else decay
        apart = displacement(
            mean, quantities, real_number("decay", chosen, low=0.0, high=1e100), steepness
        )
    return FieldReport(
        mean(here),
        jacobian,
        accuracy,
        _asymmetry(jacobian, here.size),
        matches,
        apart,
    )


def _mean_field(
    field: Estimator | Callable[[FloatArray], npt.ArrayLike],
    setting: Setting,
    batch_size: int | None,
) -> Field:
    if not isinstance(field, Estimator):
        return lambda theta: frozen_array("field: its value", field(theta), setting.theta.shape)
    if field.order != 1:
        raise ValueError(f"field: expected an estimator of order 1, got {field.order}")
    mdp = setting.finite_mdp
    options: MeasureOptions = {"critic": setting.critic, "policy": setting.policy}
    options |= {"batch_size": batch_size, "budget": 10**4}
    first = measure_bias(field, mdp, setting.theta, **options)
    if first.evidence is Evidence.SAMPLING:
        raise ValueError(
            f"field: expected an exact mean of {field.name}, got one that must be sampled; use a "
            "smaller problem"
        )
    if first.evidence is Evidence.MOMENTS or field.draws_itself:
        return lambda theta: measure_bias(field, mdp, theta, **options).mean
    return partial(_enumerated_mean, field, setting, first.batch_size if first.coupled else 1)


def _enumerated_mean(
    estimator: Estimator, setting: Setting, n: int, theta: FloatArray
) -> FloatArray:
    """The mean at another theta; whether trajectories are coupled is known from the first point."""
    every = setting.enumeration_at(theta)
    check_outcomes(every.count_batches(n, ordered=True), _BATCHES, f"batches of {n}")
    batches, weights = every.all_batches(n, ordered=True)
    context = replace(setting.context, theta=theta)
    mean: FloatArray = np.tensordot(weights, estimate(estimator, batches, context), axes=1)
    return mean


def differences(field: Field, theta: FloatArray) -> tuple[FloatArray, float]:
    """The Jacobian, theta's axes twice, and about its relative error.

    It comes from central differences with three step sizes, extrapolated twice (Romberg); its error
    is taken to be the change by the last extrapolation.
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


def _steepness(jacobian: FloatArray, quantities: ExactQuantities) -> float:
    """The norm of the field's Jacobian or, if that is 0, the scale of the return's derivatives."""
    size = quantities.at.theta.size
    steepness = float(np.linalg.norm(jacobian.reshape(size, size), 2))
    return steepness or quantities.evaluation.scale or 1.0
