"""What common mistakes make of the mean of a Hessian estimate.

With u_t the score of step t, the return's Hessian is the mean of

    sum_k gamma^k r_k [(sum_{t <= k} u_t)(sum_{t <= k} u_t)^T + sum_{t <= k} grad u_t].

Its terms: those of one step, ``D = S + A``, squares of scores S and derivatives of scores A (all
that AD keeps; LVC keeps D), and those of two steps, X + X^T, where X holds how later values depend
on the parameters and X^T how the visits do.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 4.3;
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
from gradbias.verification.diagnosis.known_errors import ExactQuantities, Family, Mistake

_UNDISCOUNTED = Undiscounted()
_KEPT = {
    Curvature.DICE: "a Hessian",
    Curvature.LVC: "terms of one step alone (LVC)",
    Curvature.AD: "derivatives of scores alone (AD)",
}


def hessian_mistakes(quantities: ExactQuantities) -> Iterator[Mistake]:
    """Those without a number to fit."""
    yield from _kept_terms(quantities)
    yield from _missing_terms(quantities)
    yield from _weightings(quantities)
    yield from shifted_horizons(quantities, 2)
    if quantities.critic is None:
        return
    for curvature, which in _KEPT.items():
        value = _mean(quantities, curvature, critic=quantities.critic, gae_lambda=1.0)
        name = "bootstrapped" if curvature is Curvature.DICE else f"{curvature.name}, bootstrapped"
        yield Mistake(name, f"{which} of the return bootstrapped with the critic", value)


def hessian_families(quantities: ExactQuantities) -> Iterator[Family]:
    """Those with one."""

    def everywhere(x: float) -> FloatArray:
        return hessian_at(quantities.at, quantities.discounted(x))

    yield Family("other discount", "the discount {x} instead of the problem's", everywhere)
    if quantities.critic is None:
        return
    for curvature, which in _KEPT.items():
        traced = partial(_traced, quantities, curvature)
        name = "GAE" if curvature is Curvature.DICE else f"{curvature.name}, GAE"
        yield Family(
            name, f"{which} of advantages GAE(lambda) of the critic, lambda = {{x}}", traced
        )


def _traced(quantities: ExactQuantities, curvature: Curvature, gae_lambda: float) -> FloatArray:
    return _mean(quantities, curvature, critic=quantities.critic, gae_lambda=gae_lambda)


def _mean(quantities: ExactQuantities, curvature: Curvature, **options: object) -> FloatArray:
    given: dict[str, object] = {"policy": quantities.at.policy, **options}
    return hessian_estimate_mean(quantities.mdp, quantities.at.theta, curvature, **given)  # type: ignore[arg-type]


def _kept_terms(quantities: ExactQuantities) -> Iterator[Mistake]:
    """Estimators that keep some of the terms."""
    only = "derivatives of scores alone, as AD keeps them: no distribution term"
    for critic, name, with_it in (
        (None, "AD", ""),
        (quantities.critic, "AD, critic", ", with the critic as baseline"),
    ):
        if critic is None and name != "AD":
            continue
        yield Mistake(name, only + with_it, _mean(quantities, Curvature.AD, critic=critic))
        value = _mean(quantities, Curvature.AD, critic=critic, credit=Credit.TOTAL_RETURN)
        yield Mistake(f"{name}, whole returns", f"{only}, of whole returns{with_it}", value)
    value = _mean(quantities, Curvature.LVC)
    yield Mistake("LVC", "terms of one step alone, as LVC keeps them: no cross term", value)
    nothing = np.zeros_like(value)
    yield Mistake("zero", "nothing: a second derivative that is 0 (first order only)", nothing)


def _missing_terms(quantities: ExactQuantities) -> Iterator[Mistake]:
    """The Hessian without one of its terms."""
    full = hessian_at(quantities.at, quantities.evaluation)
    own, scores = _mean(quantities, Curvature.LVC), _mean(quantities, Curvature.AD)
    crossed = _frozen_visits(quantities)
    size = quantities.at.theta.size
    turned = crossed.reshape(size, size).T.reshape(own.shape)
    for name, what, value in (
        ("no score derivatives", "products of scores alone: their derivatives miss", full - scores),
        ("no squares of scores", "a Hessian without each score's own square", full - own + scores),
        ("no terms of one step", "products of different steps' scores alone", full - own),
        ("visits held fixed", "a Hessian in which the visits do not move", crossed),
        ("later values held fixed", "a Hessian in which later values do not move", turned),
        ("cross term twice", "one cross term twice, without its transpose", 2 * crossed - own),
        ("cross term twice, transposed", "one cross term's transpose twice", 2 * turned - own),
    ):
        yield Mistake(name, what, value)


def _frozen_visits(quantities: ExactQuantities) -> FloatArray:
    """D + X: the derivative of the policy gradient with its visits held fixed, one column a
    parameter.
    """
    at, size = quantities.at, quantities.at.theta.size
    basis = np.eye(size).reshape(size, *at.shape)
    jet = at.jet([basis])
    timed = [None if part is None else part[..., None, :, :] for part in jet]
    values = Expansion(quantities.evaluation, jet)
    fields = policy_gradient([quantities.evaluation.occupancy, None], timed, values.advantages)
    columns = at.vjp_jet(fields, [basis])
    return np.moveaxis(columns, 0, -1).reshape(at.shape * 2)


def _weightings(quantities: ExactQuantities) -> Iterator[Mistake]:
    for curvature, which in _KEPT.items():
        value = _mean(quantities, curvature, weighting=_UNDISCOUNTED)
        what = f"{which} in which steps count 1 instead of gamma^t"
        yield Mistake(f"{curvature.name}, no gamma^t", what, value)
        if quantities.critic is not None:
            options = {"critic": quantities.critic, "gae_lambda": 1.0, "weighting": _UNDISCOUNTED}
            value = _mean(quantities, curvature, **options)
            name = f"{curvature.name}, bootstrapped, no gamma^t"
            yield Mistake(name, f"{what}, bootstrapped with the critic", value)
    value = hessian_at(quantities.at, quantities.discounted(1.0))
    yield Mistake("no discount", "the return without any discount", value)
