"""The means of gradient estimates with a known error.

Step t of a trajectory has the weight gamma^t, and its score is multiplied by a credit, the
reward-to-go from t on; an error is another weight or another credit. With p_t the distribution of
s_t and B_t the mean credit of (s, a) at step t, the mean is ``sum_t weight_t p_t pi (B_t - sum_a pi
B_t)``. Any part of the credit that does not depend on the action has zero mean (it is a baseline).

Source: the policy gradient theorem, Sutton et al. 2000; gamma^t: Nota and Thomas 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from gradbias.analytic.problems.targets import (
    bootstrapped_gradient,
    return_derivative,
    update_field,
)
from gradbias.analytic.returns.evaluation import Evaluation
from gradbias.analytic.returns.lambda_returns import LambdaReturns
from gradbias.analytic.returns.target_values import evaluate_target
from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.diagnosis.known_errors import ErrorFamily, ExactQuantities, KnownError

_OTHER_HORIZONS = {
    -1: "the derivative of the return of one step less",
    1: "the derivative of the return of one step more",
    0: "the derivative of the return",
}


def gradient_errors(quantities: ExactQuantities) -> Iterator[KnownError]:
    """The known errors of a gradient without a number to fit."""
    yield from _discounts(quantities)
    yield from _credits(quantities)
    yield from _ends(quantities)
    yield KnownError("zero", "nothing: the mean is 0", np.zeros(quantities.at.shape))
    if quantities.critic is not None:
        yield from _critics(quantities, quantities.critic)
    if quantities.action_baseline is not None:
        credit = quantities.evaluation.action_values - quantities.action_baseline
        yield KnownError(
            "action baseline",
            "a baseline that depends on the action, whose mean is not subtracted",
            quantities.field(quantities.evaluation.occupancy, credit),
        )


def gradient_families(quantities: ExactQuantities) -> Iterator[ErrorFamily]:
    """The families of known errors of a gradient."""
    exact = quantities.evaluation

    def everywhere(x: float) -> FloatArray:
        changed = quantities.discounted(x)
        return quantities.field(changed.occupancy, changed.action_values)

    def in_weights(x: float) -> FloatArray:
        return quantities.field(quantities.discounted(x).occupancy, exact.action_values)

    def in_credits(x: float) -> FloatArray:
        return quantities.field(exact.occupancy, quantities.discounted(x).action_values)

    yield ErrorFamily("other discount", "the discount {x} instead of the problem's", everywhere)
    yield ErrorFamily("other weights", "weights {x}^t of the steps instead of gamma^t", in_weights)
    yield ErrorFamily(
        "other credit", "rewards-to-go discounted by {x} instead of gamma", in_credits
    )
    if quantities.critic is not None:
        returns = LambdaReturns(quantities.mdp, quantities.critic, policy=quantities.at.policy)

        def traced(x: float) -> FloatArray:
            discount = quantities.mdp.discount
            return returns.at(quantities.at.theta, discount=discount, gae_lambda=x).update

        yield ErrorFamily("lambda-return", "lambda-returns of the critic, lambda = {x}", traced)


def _discounts(quantities: ExactQuantities) -> Iterator[KnownError]:
    exact, steps = quantities.evaluation, quantities.steps
    mdp, theta, policy = quantities.mdp, quantities.at.theta, quantities.at.policy
    dropped = evaluate_target(update_field(horizon=steps), mdp, theta, policy=policy)
    yield KnownError("no gamma^t", "steps that count 1 instead of gamma^t", dropped)
    undiscounted = quantities.discounted(1.0)
    yield KnownError(
        "no discount",
        "the return without any discount",
        quantities.field(undiscounted.occupancy, undiscounted.action_values),
    )
    yield KnownError(
        "undiscounted credit",
        "rewards-to-go that are summed without discount",
        quantities.field(exact.occupancy, undiscounted.action_values),
    )
    yield KnownError(
        "gamma^t twice",
        "steps that count gamma^2t: rewards-to-go discounted from the start, and gamma^t on top",
        quantities.field(quantities.discounted(mdp.discount**2).occupancy, exact.action_values),
    )


def _credits(quantities: ExactQuantities) -> Iterator[KnownError]:
    exact, tables = quantities.evaluation, quantities.tables
    visits, ahead = exact.occupancy, np.array(tables.kernel.expect(exact.values[1:]))
    yield KnownError(
        "own reward only",
        "steps credited with their own reward alone",
        quantities.field(visits, exact.reward),
    )
    yield KnownError(
        "own reward missing",
        "steps credited with what follows their own reward (r_t is missing)",
        quantities.field(visits, tables.per_step()[..., None] * ahead),
    )
    if quantities.steps == 1:
        return
    yield KnownError(
        "shifted to t + 1",
        "rewards-to-go shifted by one: step t has that of step t + 1",
        quantities.field(visits, ahead),
    )
    wrapped = ahead.copy()
    wrapped[-1] = quantities.mdp.discount ** (quantities.steps - 1) * exact.reward[-1]
    yield KnownError(
        "rolled to t + 1",
        "rewards-to-go rolled by one: step t has that of step t + 1, the last step the first's",
        quantities.field(visits, wrapped),
    )
    earlier = quantities.mdp.discount * np.array(exact.action_values)
    earlier[0] = 0.0
    yield KnownError(
        "shifted to t - 1",
        "rewards-to-go shifted by one: step t has that of step t - 1, the first has none",
        quantities.field(visits, earlier),
    )
    earlier[0] = _last_reward(quantities).action_values[0]
    yield KnownError(
        "rolled to t - 1",
        "rewards-to-go rolled by one: step t has that of step t - 1, the first step the last's",
        quantities.field(visits, earlier),
    )


def _last_reward(quantities: ExactQuantities) -> Evaluation:
    """The values of the last step's reward alone, without discount."""
    reward = np.zeros_like(quantities.evaluation.reward)
    reward[-1] = quantities.evaluation.reward[-1]
    tables = replace(quantities.tables.with_reward(reward), discount=np.asarray(1.0))
    return Evaluation(tables, quantities.at.probabilities)


def _ends(quantities: ExactQuantities) -> Iterator[KnownError]:
    exact, steps = quantities.evaluation, quantities.steps
    for index, which in ((0, "first"), (-1, "last")):
        if steps > 1:
            visits = np.array(exact.occupancy)
            visits[index] = 0.0
            value = quantities.field(visits, exact.action_values)
            yield KnownError(f"no {which} score", f"a sum without the {which} step's score", value)
    yield from shifted_horizons(quantities, 1)


def shifted_horizons(quantities: ExactQuantities, order: int) -> Iterator[KnownError]:
    """The derivatives of returns of one step less, of one more, and of the H steps themselves."""
    steps = quantities.steps
    for more in (0,) if quantities.tables.timed else (-1, 1, 0):
        if (horizon := steps + more) < 1:
            continue
        target = return_derivative(order, horizon=horizon)
        value = evaluate_target(
            target, quantities.mdp, quantities.at.theta, policy=quantities.at.policy
        )
        yield KnownError(f"horizon {horizon}", f"{target}", value, _OTHER_HORIZONS[more])


def _critics(quantities: ExactQuantities, critic: FloatArray) -> Iterator[KnownError]:
    exact, mdp = quantities.evaluation, quantities.mdp
    target = bootstrapped_gradient(quantities.steps, critic[-1])
    value = evaluate_target(target, mdp, quantities.at.theta, policy=quantities.at.policy)
    yield KnownError("bootstrapped", f"{target} (the critic's after the last step)", value)
    ahead = quantities.tables.kernel.expect(critic[1:])
    yield KnownError(
        "one-step actor-critic",
        "one-step differences of the critic, r + gamma v(s') - v(s)",
        quantities.field(exact.occupancy, exact.reward + mdp.discount * ahead),
    )
    yield KnownError(
        "next state's baseline",
        "the critic of the next state as baseline, which depends on the action",
        quantities.field(exact.occupancy, exact.action_values - ahead),
    )
