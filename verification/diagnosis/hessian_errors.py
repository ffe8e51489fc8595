"""The means of Hessian estimates with a known error.

With u_t the score of step t, the return's Hessian is the mean of

    sum_k gamma^k r_k [(sum_{t <= k} u_t)(sum_{t <= k} u_t)^T + sum_{t <= k} grad u_t].

Its terms of one step are ``D = S + A``, the squares of scores S and the derivatives of scores A (AD
keeps A alone, LVC keeps D). Its terms of two steps are X + X^T: X holds how later values depend on
the parameters, X^T how the visits do.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 4.2;
`analytic.returns.hessians`, `analytic.moments.hessian_means`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.moments.hessian_means import hessian_estimate_mean
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.problems.targets import Undiscounted
from gradbias.analytic.returns.derivatives import hessian_at
from gradbias.analytic.returns.value_jets import Expansion, policy_gradient
from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.diagnosis.gradient_errors import shifted_horizons
from gradbias.verification.diagnosis.known_errors import ErrorFamily, ExactQuantities, KnownError

_UNDISCOUNTED = Undiscounted()
_KEPT = {
    Curvature.DICE: "a Hessian",
    Curvature.LVC: "terms of one step alone (LVC)",
    Curvature.AD: "derivatives of scores alone (AD)",
}


def hessian_errors(quantities: ExactQuantities) -> Iterator[KnownError]:
    """The known errors of a Hessian without a number to fit."""
    yield from _kept_terms(quantities)
    yield from _missing_terms(quantities)
    yield from _weightings(quantities)
    yield from shifted_horizons(quantities, 2)
    if quantities.critic is None:
        return
    for curvature, which in _KEPT.items():
        value = _mean(quantities, curvature, critic=quantities.critic, gae_lambda=1.0)
        name = "bootstrapped" if curvature is Curvature.DICE else f"{curvature.name}, bootstrapped"
        yield KnownError(name, f"{which} of the return bootstrapped with the critic", value)


def hessian_families(quantities: ExactQuantities) -> Iterator[ErrorFamily]:
    """The families of known errors of a Hessian."""

    def everywhere(x: float) -> FloatArray:
        return hessian_at(quantities.at, quantities.discounted(x))

    yield ErrorFamily("other discount", "the discount {x} instead of the problem's", everywhere)
    if quantities.critic is None:
        return
    for curvature, which in _KEPT.items():
        traced = partial(_traced, quantities, curvature)
        name = "GAE" if curvature is Curvature.DICE else f"{curvature.name}, GAE"
        yield ErrorFamily(
            name, f"{which} of advantages GAE(lambda) of the critic, lambda = {{x}}", traced
        )


def _traced(quantities: ExactQuantities, curvature: Curvature, gae_lambda: float) -> FloatArray:
    return _mean(quantities, curvature, critic=quantities.critic, gae_lambda=gae_lambda)


def _mean(quantities: ExactQuantities, curvature: Curvature, **options: object) -> FloatArray:
    options = {"policy": quantities.at.policy, **options}
    return hessian_estimate_mean(quantities.mdp, quantities.at.theta, curvature, **options)  # type: ignore[arg-type]


def _kept_terms(quantities: ExactQuantities) -> Iterator[KnownError]:
    """The errors of estimators that keep only some of the terms."""
    only = "derivatives of scores alone, as AD keeps them: no distribution term"
    for critic, name, with_it in (
        (None, "AD", ""),
        (quantities.critic, "AD, critic", ", with the critic as baseline"),
    ):
        if critic is None and name != "AD":
            continue
        yield KnownError(name, only + with_it, _mean(quantities, Curvature.AD, critic=critic))
        value = _mean(quantities, Curvature.AD, critic=critic, credit=Credit.TOTAL_RETURN)
        yield KnownError(f"{name}, whole returns", f"{only}, of whole returns{with_it}", value)
    value = _mean(quantities, Curvature.LVC)
    yield KnownError("LVC", "terms of one step alone, as LVC keeps them: no cross term", value)
    nothing = np.zeros_like(value)
    yield KnownError("zero", "nothing: a second derivative that is 0 (first order only)", nothing)


def _missing_terms(quantities: ExactQuantities) -> Iterator[KnownError]:
    """The errors of a Hessian without one of its terms."""
    full = hessian_at(quantities.at, quantities.evaluation)
    one_step, scores = _mean(quantities, Curvature.LVC), _mean(quantities, Curvature.AD)
    no_squares = full - one_step + scores
    crossed = _frozen_visits(quantities)
    size = quantities.at.theta.size
    other_cross = crossed.reshape(size, size).T.reshape(one_step.shape)
    twice_transposed = 2 * other_cross - one_step
    for name, what, value in (
        ("no score derivatives", "products of scores alone: their derivatives miss", full - scores),
        ("no squares of scores", "a Hessian without each score's own square", no_squares),
        ("no terms of one step", "products of different steps' scores alone", full - one_step),
        ("visits held fixed", "a Hessian in which the visits do not move", crossed),
        ("later values held fixed", "a Hessian in which later values do not move", other_cross),
        ("cross term twice", "one cross term twice, without its transpose", 2 * crossed - one_step),
        ("cross term twice, transposed", "one cross term's transpose twice", twice_transposed),
    ):
        yield KnownError(name, what, value)


def _frozen_visits(quantities: ExactQuantities) -> FloatArray:
    """D + X, the derivative of the policy gradient with its visits held fixed, column by column."""
    at, size = quantities.at, quantities.at.theta.size
    basis = np.eye(size).reshape(size, *at.shape)
    jet = at.jet([basis])
    timed = [None if part is None else part[..., None, :, :] for part in jet]
    values = Expansion(quantities.evaluation, jet)
    fields = policy_gradient([quantities.evaluation.occupancy, None], timed, values.advantages)
    columns = at.vjp_jet(fields, [basis])
    return np.moveaxis(columns, 0, -1).reshape(at.shape * 2)


def _weightings(quantities: ExactQuantities) -> Iterator[KnownError]:
    for curvature, which in _KEPT.items():
        value = _mean(quantities, curvature, weighting=_UNDISCOUNTED)
        what = f"{which} in which steps count 1 instead of gamma^t"
        yield KnownError(f"{curvature.name}, no gamma^t", what, value)
        if quantities.critic is not None:
            options = {"critic": quantities.critic, "gae_lambda": 1.0, "weighting": _UNDISCOUNTED}
            value = _mean(quantities, curvature, **options)
            name = f"{curvature.name}, bootstrapped, no gamma^t"
            yield KnownError(name, f"{what}, bootstrapped with the critic", value)
    value = hessian_at(quantities.at, quantities.discounted(1.0))
    yield KnownError("no discount", "the return without any discount", value)
