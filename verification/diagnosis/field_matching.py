"""The known target that a mean update equals at two points, if there is one.

The known targets are those of `verification.diagnosis.gradient_errors`, the gradient itself, a
multiple of it, and the gradient with a regulariser (entropy as a reward, entropy as a loss, weight
decay) whose coefficient is fitted. Numbers are fitted at the first point and tested at the second.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradbias.analytic.policies.softmax import log_softmax
from gradbias.analytic.problems.targets import return_derivative
from gradbias.analytic.returns.derivatives import gradient
from gradbias.analytic.returns.evaluation import Evaluation
from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.diagnosis.diagnose import Match
from gradbias.verification.diagnosis.fixed_points import Field
from gradbias.verification.diagnosis.gradient_errors import gradient_errors, gradient_families
from gradbias.verification.diagnosis.known_errors import ExactQuantities, KnownError, best_number
from gradbias.verification.evidence.reports import Direction

_MATCHED = 1e-9


def known_fields(
    mean: Field, quantities: ExactQuantities, elsewhere: ExactQuantities
) -> tuple[Match, ...]:
    """The known targets that the field equals at both points."""
    first, second = mean(quantities.at.theta), mean(elsewhere.at.theta)
    unit = float(np.linalg.norm(first)) or 1.0
    matches = []
    for known, other in zip(_known(quantities), _known(elsewhere), strict=True):
        residual = max(_gap(first, known.value), _gap(second, other.value)) / unit
        if residual <= _MATCHED:
            matches.append(Match(known.name, known.what, residual))
    if matches:
        return tuple(matches)
    return tuple(_fitted(first, second, quantities, elsewhere, unit))


def _gap(first: FloatArray, second: FloatArray) -> float:
    return float(np.linalg.norm(first - second))


def _known(quantities: ExactQuantities) -> Iterator[KnownError]:
    target = return_derivative(1, horizon=quantities.steps)
    yield KnownError("gradient", str(target), _gradient(quantities))
    for known in gradient_errors(quantities):
        if known.name != f"horizon {quantities.steps}":
            yield known


def _gradient(quantities: ExactQuantities) -> FloatArray:
    return gradient(quantities.mdp, quantities.at.theta, policy=quantities.at.policy)


def _fitted(
    first: FloatArray,
    second: FloatArray,
    quantities: ExactQuantities,
    elsewhere: ExactQuantities,
    unit: float,
) -> Iterator[Match]:
    """Targets with a number, fitted at the first point and tested at the second."""
    families = zip(gradient_families(quantities), gradient_families(elsewhere), strict=True)
    for family, other in families:
        x = best_number(first, family)
        residual = max(_gap(first, family.value(x)), _gap(second, other.value(x))) / unit
        if residual <= _MATCHED:
            yield Match(family.name, family.what.format(x=f"{x:.6g}"), residual, x)
    scale = Direction.of(first, _gradient(quantities)).scale
    residual = max(
        _gap(first, scale * _gradient(quantities)), _gap(second, scale * _gradient(elsewhere))
    )
    if residual <= _MATCHED * unit:
        what = f"{scale:.6g} times the gradient of the return"
        yield Match("pure scale", what, residual / unit, scale)
    for added, there in zip(_added(quantities), _added(elsewhere), strict=True):
        size = float(np.vdot(added.value, added.value))
        rest = [first - _gradient(quantities), second - _gradient(elsewhere)]
        x = float(np.vdot(rest[0], added.value)) / size if size > 0 else 0.0
        residual = max(_gap(rest[0], x * added.value), _gap(rest[1], x * there.value)) / unit
        if residual <= _MATCHED:
            what = f"the gradient of the return plus {x:.6g} times {added.what}"
            yield Match(added.name, what, residual, x)


def _added(quantities: ExactQuantities) -> Iterator[KnownError]:
    """What regularisers with a coefficient of 1 add to the gradient."""
    exact, at = quantities.evaluation, quantities.at
    surprise = -log_softmax(at.logits)
    surprise = np.where(quantities.mdp.terminal[:, None], 0.0, surprise)
    entropy_reward = np.broadcast_to(surprise, exact.action_values.shape)
    soft = Evaluation(quantities.tables.with_reward(entropy_reward), at.probabilities)
    yield KnownError(
        "entropy in the return",
        "that of the discounted sum of entropies (entropy as a reward)",
        quantities.field(exact.occupancy, soft.action_values),
    )
    for name, visits in (
        ("entropy as a loss", exact.occupancy),
        ("entropy as a loss, no gamma^t", quantities.discounted(1.0).occupancy),
    ):
        what = "that of the entropies at the visited states, with the visits held fixed"
        yield KnownError(name, what, quantities.field(visits, entropy_reward))
    yield KnownError("weight decay", "theta", np.array(at.theta))
