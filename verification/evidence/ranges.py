"""How large can one estimate be? A certified range of each component, by the worst trajectory.

The estimate of a known surrogate from one trajectory is a sum over its visits,

    sum_t w_t (c_e(s_t, a_t) (A_t - v_t) + d_e,t A_t),

with A_t the return from t on (discounted with gamma lambda), c_e a product of scores or their
derivative, and, in DiCE's Hessian, d_e,t the scores of the visits before t times that of t. Each
term has a range, from those of A_t and of the number of earlier visits (at most t); the largest sum
of upper ends along any trajectory that can happen is found by a recursion over time. It is exact
for one step, and never too small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.policies.softmax import TabularSoftmax, softmax
from gradbias.analytic.problems.critics import critic_rows
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import Discounted, StateWeighting
from gradbias.analytic.utils.validation import BoolArray, FloatArray, IntArray
from gradbias.stochastic.estimators.kinds import SurrogateEstimator
from gradbias.stochastic.surrogates.dice import Dice, LoadedDice
from gradbias.stochastic.surrogates.score_function import AD, LVC, Reduction
from gradbias.verification.evidence.request import Request

Best = Callable[..., FloatArray]

_ROUNDED = 1e-12
"""Of all that an estimate sums: what is outside a range by less is rounding."""

MAX_WORK = 2e9
"""Operations up to which a range is looked for."""


@dataclass(frozen=True, eq=False)
class ComponentRange:
    """``low`` and ``high``, shaped like an estimate: no estimate is outside by more than the
    ``rounding`` of what it is made of.
    """

    low: FloatArray
    high: FloatArray
    rounding: float = 0.0


@dataclass(frozen=True, eq=False)
class _Form:
    """What a surrogate is to its range: the factor of the return ahead, the weighting of steps, and
    the terms of its Hessian.
    """

    decay: float
    weighting: StateWeighting
    squared: bool
    crossed: bool


def component_range(asked: Request) -> ComponentRange | None:
    """The range of one trajectory's estimate; None where none is known: other surrogates than AD
    and LVC (rewards-to-go, summed over steps), DiCE and Loaded-DiCE, orders above 2, off policy,
    policies that are not tabular, a critic with lambda < 1, or problems that are too large.

    Raises:
        ValueError: state weights for another number of steps.
    """
    form = _form_of(asked)
    if form is None:
        return None
    mdp, order, size = asked.mdp, asked.estimator.order, asked.context.theta.size
    entries = size**order if form.crossed else size * mdp.n_actions ** (order - 1)
    if asked.length * entries * mdp.n_states**2 * mdp.n_actions > MAX_WORK:
        return None
    policy = softmax(asked.context.policy.logits(asked.context.theta))
    coefficients, where, before = _coefficients(policy, order, form)
    low, high = _extremes(asked, form, coefficients, before)
    ends = np.zeros((2, size**order))
    ends[0, where], ends[1, where] = low, high
    low, high = (end.reshape(asked.shape) for end in ends)
    return ComponentRange(low, high, _ROUNDED * _size(asked, form))


def _form_of(asked: Request) -> _Form | None:
    estimator, gamma = asked.estimator, asked.mdp.discount
    plain = (
        isinstance(estimator, SurrogateEstimator)
        and estimator.order <= 2
        and isinstance(asked.context.policy, TabularSoftmax)
        and np.array_equal(asked.behaviour, asked.context.theta)
    )
    if not plain or not isinstance(estimator, SurrogateEstimator):
        return None
    surrogate, second = estimator.function, estimator.order == 2
    if type(surrogate) is Dice:
        return _Form(gamma, Discounted(), second, second)
    if type(surrogate) is LoadedDice and asked.context.critic is None:
        return _Form(gamma * surrogate.gae_lambda, surrogate.weighting, second, second)
    if type(surrogate) is AD or type(surrogate) is LVC:
        known = surrogate.reward_to_go and surrogate.reduction is Reduction.SUM_OVER_STEPS
        lam = surrogate.gae_lambda
        if known and (lam is None or asked.context.critic is None):
            decay = gamma * (1.0 if lam is None else lam)
            return _Form(decay, surrogate.weighting, second and type(surrogate) is LVC, False)
    return None


def _coefficients(
    policy: FloatArray, order: int, form: _Form
) -> tuple[FloatArray, IntArray, FloatArray | None]:
    """``[E, S, A]``, what an action in a state multiplies into each of E entries; where these stand
    in the flattened estimate; and for crossed terms the same for one earlier visit at most.
    """
    n_states, n_actions = policy.shape
    size = policy.size
    table = np.zeros((n_states, n_actions, n_states, n_actions))
    at = np.arange(n_states)
    table[at, :, at, :] = np.eye(n_actions)[None] - policy[:, :, None]
    scores: FloatArray = table.reshape(size, n_states, n_actions)
    if order == 1:
        return scores, np.arange(size, dtype=np.int64), None
    same = np.kron(np.eye(n_states), np.ones((n_actions, n_actions)))
    covariance = same * (np.diag(policy.ravel()) - np.outer(policy, policy))
    where: IntArray = np.arange(size**2, dtype=np.int64)
    if not form.crossed:
        where = np.flatnonzero(same.ravel()).astype(np.int64)
    first, second = np.divmod(where, size)
    here = np.abs(scores).max(axis=2) > 0
    bent = here[first] & here[second]
    coefficients = -covariance.ravel()[where][:, None, None] * bent[:, :, None]
    if form.squared:
        coefficients = coefficients + scores[first] * scores[second]
    if not form.crossed:
        return coefficients, where, None
    largest = np.abs(scores).max(axis=(1, 2))[:, None, None]
    before = largest[first] * np.abs(scores[second]) + np.abs(scores[first]) * largest[second]
    return coefficients, where, before


def _extremes(
    asked: Request, form: _Form, coefficients: FloatArray, before: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Smallest and largest sums along any trajectory, ``[E]`` each."""
    mdp, steps = asked.mdp, asked.length
    weights = form.weighting.step_weights(mdp.discount, steps)
    critic = critic_rows(asked.context.critic, steps, mdp.n_states)
    support = mdp.transition > 0.0
    low = np.zeros((len(coefficients), mdp.n_states))
    high = np.zeros_like(low)
    for t, (least, most) in _returns_ahead(mdp, form.decay, steps):
        baseline = critic[t][:, None]
        products = np.stack([coefficients * (least - baseline), coefficients * (most - baseline)])
        smallest, largest = products.min(axis=0), products.max(axis=0)
        if before is not None:
            slack = t * before * np.maximum(np.abs(least), np.abs(most))
            smallest, largest = smallest - slack, largest + slack
        smallest, largest = _scaled(smallest, largest, weights[t])
        low = (smallest + _best_successor(low, support, np.min)).min(axis=2)
        high = (largest + _best_successor(high, support, np.max)).max(axis=2)
        low[:, mdp.terminal] = high[:, mdp.terminal] = 0.0
    starts = mdp.start > 0.0
    return low[:, starts].min(axis=1), high[:, starts].max(axis=1)


def _size(asked: Request, form: _Form) -> float:
    """Of all that an estimate sums: scores and their derivatives are at most 1."""
    mdp, steps = asked.mdp, asked.length
    weights = form.weighting.step_weights(mdp.discount, steps)
    critic = np.abs(critic_rows(asked.context.critic, steps, mdp.n_states)).max(axis=1)
    total = 0.0
    for t, (least, most) in _returns_ahead(mdp, form.decay, steps):
        visits = 1 + 2 * t if form.crossed else 1
        ahead = max(np.abs(least).max(), np.abs(most).max())
        total += abs(weights[t]) * visits * (ahead + critic[t])
    return float(total)


def _scaled(low: FloatArray, high: FloatArray, factor: float) -> tuple[FloatArray, FloatArray]:
    return (factor * low, factor * high) if factor >= 0 else (factor * high, factor * low)


def _returns_ahead(
    mdp: TabularMDP, decay: float, steps: int
) -> list[tuple[int, tuple[FloatArray, FloatArray]]]:
    """For t from the last step to the first: t, and the ends ``[S, A]`` of the range of A_t."""
    support = mdp.transition > 0.0
    found = []
    least, most = np.zeros(mdp.n_states), np.zeros(mdp.n_states)
    for t in reversed(range(steps)):
        rewards = mdp.next_state_reward[min(t, len(mdp.next_state_reward) - 1)]
        small = np.where(support, rewards + decay * least, np.inf).min(axis=2)
        large = np.where(support, rewards + decay * most, -np.inf).max(axis=2)
        found.append((t, (small, large)))
        least, most = small.min(axis=1), large.max(axis=1)
        least[mdp.terminal] = most[mdp.terminal] = 0.0
    return found


def _best_successor(values: FloatArray, support: BoolArray, best: Best) -> FloatArray:
    """``[E, S, A]``: the smallest or largest of ``values [E, S]`` among the possible successors."""
    result = np.empty((len(values), *support.shape[:2]))
    for s in range(support.shape[0]):
        for a in range(support.shape[1]):
            result[:, s, a] = best(values[:, support[s, a]], axis=1)
    return result
