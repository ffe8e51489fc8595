"""A certified range of each component of one estimate, by the worst trajectory.

The estimate of a known surrogate from one trajectory is a sum over its visits. Its entry e is

    sum_t w_t (c_e(s_t, a_t) (A_t - v_t) + d_e,t A_t).

Here w_t is the state weighting, A_t the return from t on (discounted with gamma lambda), v_t the
critic's value, c_e a score, a product of two scores or a score's derivative, and, in DiCE's
Hessian, d_e,t the sum of the scores of the visits before t, times that of t. The ranges of A_t and
of the number of earlier visits (at most t) give each term a range; a recursion over time finds the
largest sum of upper ends along any possible trajectory. The range is exact for one step, and never
too small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.policies.softmax import TabularSoftmax, softmax
from gradbias.analytic.problems.critics import critic_rows
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import StateWeighting
from gradbias.analytic.utils.validation import BoolArray, FloatArray, IntArray
from gradbias.verification.evidence.known_moments import step_sum_of
from gradbias.verification.evidence.request import Request

_ROUNDING = 1e-12
"""Rounding errors are below this share of the sum of an estimate's absolute terms."""

MAX_WORK = 2e9
"""The most operations that finding a range may take."""


@dataclass(frozen=True, eq=False)
class ComponentRange:
    """A range that no estimate leaves by more than rounding.

    Attributes:
        low: the lower ends, shaped like an estimate.
        high: the upper ends, shaped like an estimate.
        rounding: a bound on the rounding error of an estimate's components.
    """

    low: FloatArray
    high: FloatArray
    rounding: float = 0.0


def component_range(request: Request) -> ComponentRange | None:
    """The range of one trajectory's estimate, by component.

    None where no range is known: the estimator is no sum over steps (`step_sum_of`), or uses total
    returns, or GAE with a critic; the policy is not tabular; or the problem is too large.

    Args:
        request: the estimator with its problem, context and limits.

    Returns:
        The range, or None.

    Raises:
        ValueError: the state weights are for another number of steps.
    """
    form = _form_of(request)
    if form is None:
        return None
    mdp, order, size = request.mdp, request.estimator.order, request.context.theta.size
    entries = size**order if form.crossed else size * mdp.n_actions ** (order - 1)
    if request.length * entries * mdp.n_states**2 * mdp.n_actions > MAX_WORK:
        return None
    policy = softmax(request.context.policy.logits(request.context.theta))
    coefficients, entry_indices, earlier = _coefficients(policy, order, form)
    low, high = _extremes(request, form, coefficients, earlier)
    ends = np.zeros((2, size**order))
    ends[0, entry_indices], ends[1, entry_indices] = low, high
    low, high = (end.reshape(request.shape) for end in ends)
    return ComponentRange(low, high, _ROUNDING * _magnitude(request, form))


@dataclass(frozen=True, eq=False)
class _Form:
    """What the range depends on: ``decay``, the factor of the return one step ahead; the weighting
    of steps; and whether the Hessian has the terms ``squared`` (a step's score times itself) and
    ``crossed`` (times the scores of the steps before).
    """

    decay: float
    weighting: StateWeighting
    squared: bool
    crossed: bool


def _form_of(request: Request) -> _Form | None:
    form, context = step_sum_of(request), request.context
    if form is None or form.total_return or not isinstance(context.policy, TabularSoftmax):
        return None
    # With GAE the advantages of a critic are no sums of rewards alone.
    if form.gae_lambda is not None and context.critic is not None:
        return None
    decay = request.mdp.discount * (1.0 if form.gae_lambda is None else form.gae_lambda)
    second = request.estimator.order == 2
    squared, crossed = second and form.curvature != "AD", second and form.curvature == "DICE"
    return _Form(decay, form.weighting, squared, crossed)


def _coefficients(
    policy: FloatArray, order: int, form: _Form
) -> tuple[FloatArray, IntArray, FloatArray | None]:
    """The factors ``[E, S, A]`` of the return in each of E entries of the estimate, by state and
    action; the entries' indices in the flattened estimate; and, if there are crossed terms, the
    most that one earlier visit can add to the factors, ``[E, S, A]``.
    """
    n_states, n_actions = policy.shape
    size = policy.size
    table = np.zeros((n_states, n_actions, n_states, n_actions))
    at = np.arange(n_states)
    table[at, :, at, :] = np.eye(n_actions)[None] - policy[:, :, None]
    scores: FloatArray = table.reshape(size, n_states, n_actions)
    if order == 1:
        return scores, np.arange(size, dtype=np.int64), None
    same_state = np.kron(np.eye(n_states), np.ones((n_actions, n_actions)))
    covariance = same_state * (np.diag(policy.ravel()) - np.outer(policy, policy))
    indices: IntArray = np.arange(size**2, dtype=np.int64)
    if not form.crossed:
        indices = np.flatnonzero(same_state.ravel()).astype(np.int64)
    first, second = np.divmod(indices, size)
    visited = np.abs(scores).max(axis=2) > 0
    curved = visited[first] & visited[second]
    coefficients = -covariance.ravel()[indices][:, None, None] * curved[:, :, None]
    if form.squared:
        coefficients = coefficients + scores[first] * scores[second]
    if not form.crossed:
        return coefficients, indices, None
    largest = np.abs(scores).max(axis=(1, 2))[:, None, None]
    earlier = largest[first] * np.abs(scores[second]) + np.abs(scores[first]) * largest[second]
    return coefficients, indices, earlier


def _extremes(
    request: Request, form: _Form, coefficients: FloatArray, earlier: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """The smallest and the largest sums along any trajectory, ``[E]`` each."""
    mdp, steps = request.mdp, request.length
    weights = form.weighting.step_weights(mdp.discount, steps)
    critic = critic_rows(request.context.critic, steps, mdp.n_states)
    support = mdp.transition > 0.0
    low = np.zeros((len(coefficients), mdp.n_states))
    high = np.zeros_like(low)
    for t, (least, most) in _returns_ahead(mdp, form.decay, steps):
        baseline = critic[t][:, None]
        products = np.stack([coefficients * (least - baseline), coefficients * (most - baseline)])
        smallest, largest = products.min(axis=0), products.max(axis=0)
        if earlier is not None:
            slack = t * earlier * np.maximum(np.abs(least), np.abs(most))
            smallest, largest = smallest - slack, largest + slack
        smallest, largest = _scaled(smallest, largest, weights[t])
        low = (smallest + _best_successor(low, support, np.min)).min(axis=2)
        high = (largest + _best_successor(high, support, np.max)).max(axis=2)
        low[:, mdp.terminal] = high[:, mdp.terminal] = 0.0
    starts = mdp.start > 0.0
    return low[:, starts].min(axis=1), high[:, starts].max(axis=1)


def _magnitude(request: Request, form: _Form) -> float:
    """A bound on the sum of an estimate's absolute terms, each score being at most 1."""
    mdp, steps = request.mdp, request.length
    weights = form.weighting.step_weights(mdp.discount, steps)
    critic = np.abs(critic_rows(request.context.critic, steps, mdp.n_states)).max(axis=1)
    total = 0.0
    for t, (least, most) in _returns_ahead(mdp, form.decay, steps):
        visits = 1 + 2 * t if form.crossed else 1
        ahead = max(np.abs(least).max(), np.abs(most).max())
        total += abs(weights[t]) * visits * (ahead + critic[t])
    return float(total)


def _scaled(low: FloatArray, high: FloatArray, factor: float) -> tuple[FloatArray, FloatArray]:
    """The range times a factor of either sign."""
    return (factor * low, factor * high) if factor >= 0 else (factor * high, factor * low)


def _returns_ahead(
    mdp: TabularMDP, decay: float, steps: int
) -> list[tuple[int, tuple[FloatArray, FloatArray]]]:
    """For t from the last step to the first: t, and the ends ``[S, A]`` of the range of A_t."""
    support = mdp.transition > 0.0
    ranges = []
    least, most = np.zeros(mdp.n_states), np.zeros(mdp.n_states)
    for t in reversed(range(steps)):
        rewards = mdp.next_state_reward[min(t, len(mdp.next_state_reward) - 1)]
        small = np.where(support, rewards + decay * least, np.inf).min(axis=2)
        large = np.where(support, rewards + decay * most, -np.inf).max(axis=2)
        ranges.append((t, (small, large)))
        least, most = small.min(axis=1), large.max(axis=1)
        least[mdp.terminal] = most[mdp.terminal] = 0.0
    return ranges


def _best_successor(
    values: FloatArray, support: BoolArray, best: Callable[..., FloatArray]
) -> FloatArray:
    """``[E, S, A]``: the smallest or largest of ``values [E, S]`` among the possible successors."""
    result = np.empty((len(values), *support.shape[:2]))
    for s in range(support.shape[0]):
        for a in range(support.shape[1]):
            result[:, s, a] = best(values[:, support[s, a]], axis=1)
    return result
