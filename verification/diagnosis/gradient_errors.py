"""What common mistakes make of the mean of a gradient estimate.

Step t of a trajectory counts with the weight gamma^t and is credited with the reward-to-go from t
on; a mistake is another weight or another credit. With p_t the law of s_t, Q_t the action values
and B_t the mean credit of (s, a) at step t, the mean is ``sum_t weight_t p_t pi (B_t - sum_a pi
B_t)``: what a credit holds that does not depend on the action falls away.

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
from gradbias.verification.diagnosis.known_errors import Family, Mistake, Setting

_OTHER_HORIZONS = {
    -1: "the derivative of the return of one step less",
    1: "the derivative of the return of one step more",
    0: "the derivative of the return",
}


def gradient_mistakes(setting: Setting) -> Iterator[Mistake]:
    """Those without a number to fit."""
    yield from _discounts(setting)
    yield from _credits(setting)
    yield from _ends(setting)
    yield Mistake("zero", "nothing: the mean is 0", np.zeros(setting.at.shape))
    if setting.critic is not None:
        yield from _critics(setting, setting.critic)
    if setting.action_baseline is not None:
        credit = setting.exact.action_values - setting.action_baseline
        yield Mistake(
            "action baseline",
            "a baseline that depends on the action, whose mean is not taken off",
            setting.field(setting.exact.occupancy, credit),
        )


def gradient_families(setting: Setting) -> Iterator[Family]:
    """Those with one."""
    exact = setting.exact

    def everywhere(x: float) -> FloatArray:
        changed = setting.discounted(x)
        return setting.field(changed.occupancy, changed.action_values)

    def in_weights(x: float) -> FloatArray:
        return setting.field(setting.discounted(x).occupancy, exact.action_values)

    def in_credits(x: float) -> FloatArray:
        return setting.field(exact.occupancy, setting.discounted(x).action_values)

    yield Family("other discount", "the discount {x} instead of the problem's", everywhere)
    yield Family("other weights", "weights {x}^t of the steps instead of gamma^t", in_weights)
    yield Family("other credit", "rewards-to-go discounted by {x} instead of gamma", in_credits)
    if setting.critic is not None:
        returns = LambdaReturns(setting.mdp, setting.critic, policy=setting.at.policy)

        def traced(x: float) -> FloatArray:
            found = returns.at(setting.at.theta, discount=setting.mdp.discount, gae_lambda=x)
            return found.update

        yield Family("lambda-return", "lambda-returns of the critic, lambda = {x}", traced)


def _discounts(setting: Setting) -> Iterator[Mistake]:
    exact, steps = setting.exact, setting.steps
    mdp, theta, policy = setting.mdp, setting.at.theta, setting.at.policy
    dropped = evaluate_target(update_field(horizon=steps), mdp, theta, policy=policy)
    yield Mistake("no gamma^t", "steps that count 1 instead of gamma^t", dropped)
    undiscounted = setting.discounted(1.0)
    yield Mistake(
        "no discount",
        "the return without any discount",
        setting.field(undiscounted.occupancy, undiscounted.action_values),
    )
    yield Mistake(
        "undiscounted credit",
        "rewards-to-go that are summed without discount",
        setting.field(exact.occupancy, undiscounted.action_values),
    )
    yield Mistake(
        "gamma^t twice",
        "steps that count gamma^2t: rewards-to-go discounted from the start, and gamma^t on top",
        setting.field(setting.discounted(mdp.discount**2).occupancy, exact.action_values),
    )


def _credits(setting: Setting) -> Iterator[Mistake]:
    exact, tables = setting.exact, setting.tables
    visits, ahead = exact.occupancy, np.array(tables.kernel.expect(exact.values[1:]))
    yield Mistake(
        "own reward only",
        "steps credited with their own reward alone",
        setting.field(visits, exact.reward),
    )
    yield Mistake(
        "own reward missing",
        "steps credited with what follows their own reward (r_t is missing)",
        setting.field(visits, tables.per_step()[..., None] * ahead),
    )
    if setting.steps == 1:
        return
    yield Mistake(
        "shifted to t + 1",
        "rewards-to-go shifted by one: step t has that of step t + 1",
        setting.field(visits, ahead),
    )
    wrapped = ahead.copy()
    wrapped[-1] = setting.mdp.discount ** (setting.steps - 1) * exact.reward[-1]
    yield Mistake(
        "rolled to t + 1",
        "rewards-to-go rolled by one: step t has that of step t + 1, the last step the first's",
        setting.field(visits, wrapped),
    )
    earlier = setting.mdp.discount * np.array(exact.action_values)
    earlier[0] = 0.0
    yield Mistake(
        "shifted to t - 1",
        "rewards-to-go shifted by one: step t has that of step t - 1, the first has none",
        setting.field(visits, earlier),
    )
    earlier[0] = _last_reward(setting).action_values[0]
    yield Mistake(
        "rolled to t - 1",
        "rewards-to-go rolled by one: step t has that of step t - 1, the first step the last's",
        setting.field(visits, earlier),
    )


def _last_reward(setting: Setting) -> Evaluation:
    """The values of the last step's reward alone, not discounted."""
    paid = np.zeros_like(setting.exact.reward)
    paid[-1] = setting.exact.reward[-1]
    tables = replace(setting.tables.with_reward(paid), discount=np.asarray(1.0))
    return Evaluation(tables, setting.at.probabilities)


def _ends(setting: Setting) -> Iterator[Mistake]:
    exact, steps = setting.exact, setting.steps
    for index, which in ((0, "first"), (-1, "last")):
        if steps > 1:
            visits = np.array(exact.occupancy)
            visits[index] = 0.0
            value = setting.field(visits, exact.action_values)
            yield Mistake(f"no {which} score", f"a sum without the {which} step's score", value)
    yield from shifted_horizons(setting, 1)


def shifted_horizons(setting: Setting, order: int) -> Iterator[Mistake]:
    """The derivatives of returns of one step less, of one more, and of the H steps themselves."""
    steps = setting.steps
    for more in (0,) if setting.tables.timed else (-1, 1, 0):
        if (horizon := steps + more) < 1:
            continue
        target = return_derivative(order, horizon=horizon)
        value = evaluate_target(target, setting.mdp, setting.at.theta, policy=setting.at.policy)
        yield Mistake(f"horizon {horizon}", f"{target}", value, _OTHER_HORIZONS[more])


def _critics(setting: Setting, critic: FloatArray) -> Iterator[Mistake]:
    exact, mdp = setting.exact, setting.mdp
    target = bootstrapped_gradient(setting.steps, critic[-1])
    value = evaluate_target(target, mdp, setting.at.theta, policy=setting.at.policy)
    yield Mistake("bootstrapped", f"{target} (the critic's after the last step)", value)
    ahead = setting.tables.kernel.expect(critic[1:])
    yield Mistake(
        "one-step actor-critic",
        "one-step differences of the critic, r + gamma v(s') - v(s)",
        setting.field(exact.occupancy, exact.reward + mdp.discount * ahead),
    )
    yield Mistake(
        "next state's baseline",
        "the critic of the next state as baseline, which depends on the action",
        setting.field(exact.occupancy, exact.action_values - ahead),
    )
