"""Bounds of the derivatives of a softmax, and of state values by recursion over the steps to go.

Let ``Pi^(k)`` be the k-th derivative of a softmax along a unit direction, and b_k a bound of
``sum_a |Pi^(k)|``. Then ``|Pi^(k) f| <= b_k/2 span(f)`` for a function f of the action. The product
rule for ``V = Pi Q``, ``Q = r + gamma P V`` with n steps to go (r: rewards, P: transitions, gamma:
discount) bounds the k-th derivative of every state's value by ``x_k(n)``,

    x_k(n) = b_k/2 D(n) + gamma tau sum_{0<j<k} (k choose j) b_j x_{k-j}(n-1) + gamma x_k(n-1),

where ``D(n)`` bounds the span over actions of ``Q``, and ``tau`` is the largest total variation
distance between the next state's distributions under two actions. The means of AD's and LVC's
Hessian estimates obey similar recursions.

Source: Taylor's theorem and the product rule; b_1 and b_2 are attained for any number of actions,
b_3 and b_4 for two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.problems.mdp import TabularMDP

SCORE = math.sqrt(2.0)
"""A bound of the norm of a score ``e_a - pi``, and of the span of a unit direction."""

THIRD_CENTRAL = math.sqrt(2.0) / (3.0 * math.sqrt(3.0))
"""A bound of the derivative of ``diag(pi) - pi pi^T``: the largest third central moment on a span
of SCORE."""

ORDERS = 4


@dataclass(frozen=True)
class ProblemSizes:
    """The numbers of a problem that the recursions need.

    A *mean* reward is that of a state and action, a *possible* reward that of a transition with
    positive probability.

    Attributes:
        mdp: the problem.
        softmax: b_1 .. b_4, for its number of actions.
        action_span: the largest span of mean rewards over the actions of one state.
        reward_span, mean_span: the spans of all possible and of all mean rewards.
        largest_mean, largest_reward: the largest absolute mean and possible reward.
        influence: tau.
    """

    mdp: TabularMDP
    softmax: tuple[float, float, float, float]
    action_span: float
    reward_span: float
    mean_span: float
    largest_mean: float
    largest_reward: float
    influence: float

    @classmethod
    def of(cls, mdp: TabularMDP) -> ProblemSizes:
        """The numbers of a problem. Raises ValueError if it is no `TabularMDP`."""
        if not isinstance(mdp, TabularMDP):
            raise ValueError(f"mdp: expected a TabularMDP, got a {type(mdp).__name__}")
        mean, possible = mdp.tables.reward, mdp.transition > 0
        rewards = np.broadcast_to(
            mdp.next_state_reward, (len(mdp.next_state_reward), *mdp.transition.shape)
        )[:, possible]
        return cls(
            mdp,
            softmax=softmax_constants(mdp.n_actions),
            action_span=float(np.ptp(mean, axis=-1).max()),
            reward_span=float(np.ptp(rewards)),
            mean_span=float(np.ptp(mean)),
            largest_mean=float(np.abs(mean).max()),
            largest_reward=float(np.abs(rewards).max()),
            influence=influence(mdp),
        )

    @property
    def scatter(self) -> float:
        """The bound ``1 - 1/A`` of ``E|u|^2`` for a score u."""
        return 1.0 - 1.0 / self.mdp.n_actions

    def length(self, steps: int | None) -> float:
        """The sum ``1 + gamma + ...`` over that many steps (None: infinitely many)."""
        gamma = self.mdp.discount
        if steps is None:
            return 1.0 / (1.0 - gamma)
        return float(steps) if gamma == 1.0 else (1.0 - gamma**steps) / (1.0 - gamma)

    @property
    def paired_length(self) -> float:
        """The sum over t of ``gamma^t (1 + ... + gamma^{H-t-1})``, for the horizon H."""
        horizon, gamma = self.mdp.horizon, self.mdp.discount
        if horizon is None:
            return (1.0 - gamma) ** -2
        return sum(gamma**t * self.length(horizon - t) for t in range(horizon))


def influence(mdp: TabularMDP) -> float:
    """The largest total variation distance tau, from 0 to 1, between the next state's distributions
    under two actions; 0 if actions do not change ``transition [S, A, S]``.

    Raises:
        ValueError: the problem is no `TabularMDP`.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumption 4.1.

    >>> influence(TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1))
    0.0
    """
    if not isinstance(mdp, TabularMDP):
        raise ValueError(f"mdp: expected a TabularMDP, got a {type(mdp).__name__}")
    largest = 0.0
    for a in range(mdp.n_actions):
        distance = np.abs(mdp.transition - mdp.transition[:, a : a + 1]).sum(axis=2)
        largest = max(largest, 0.5 * float(distance.max()))
    return min(largest, 1.0)


def softmax_constants(n_actions: int) -> tuple[float, float, float, float]:
    """Bounds ``b_1 .. b_4`` of the sum of absolute k-th derivatives of a softmax over ``[A]``
    logits along a unit direction.

    Raises:
        ValueError: no actions.

    Source: the logistic function's derivatives for two actions, where all are attained; b_1 and
    b_2 are the same for more, b_3 and b_4 then follow from moments on a span of sqrt(2).

    >>> [round(b, 4) for b in softmax_constants(2)]
    [0.7071, 0.3849, 0.7071, 1.0215]
    """
    if n_actions < 1:
        raise ValueError(f"n_actions: expected a whole number >= 1, got {n_actions!r}")
    if n_actions == 1:
        return (0.0, 0.0, 0.0, 0.0)
    first, second = 1.0 / SCORE, 2.0 / (3.0 * math.sqrt(3.0))
    if n_actions == 2:
        z = math.sqrt((15.0 - math.sqrt(105.0)) / 30.0)
        return (first, second, 1.0 / SCORE, 2.0 * z * (1.0 - z * z) * (2.0 - 3.0 * z * z))
    # E|y^4 - m4| + 6 m2 E|y^2 - m2| + 4 |m3| E|y| on a span of sqrt(2).
    fourth = 2.0 + 3.0 + 4.0 * THIRD_CENTRAL / SCORE
    return (first, second, SCORE, fourth)


def derivative_bounds(problem: ProblemSizes) -> list[dict[str, float]]:
    """Bounds by name at 1, 2, .. steps to go; over the infinite horizon, their limit alone.

    ``x1`` to ``x4`` bound the values' derivatives, ``mixed`` the second one along two policies'
    directions; the others bound the means of LVC's and AD's estimates, LVC's error, and how fast
    the means change.
    """
    horizon = problem.mdp.horizon
    if horizon is None:
        return [_row(problem, None, {})]
    rows = [dict.fromkeys(_NAMES, 0.0)]
    for n in range(1, horizon + 1):
        rows.append(_row(problem, n, rows[-1]))
    return rows[1:]


_NAMES = ("x1", "x2", "x3", "x4", "mixed", "lvc", "lvc_error", "lvc_change", "ad", "ad_change")


def _row(problem: ProblemSizes, n: int | None, before: dict[str, float]) -> dict[str, float]:
    """The bounds with n steps to go (None: infinitely many), from those with n - 1."""
    mdp = problem.mdp
    gamma, b = mdp.discount, (1.0, *problem.softmax)
    turn = gamma * problem.influence  # 1/2 from Pi' cancels 2 from the span of values within +-x
    row: dict[str, float] = {}
    ahead = row if n is None else before  # the bounds one step later

    def put(name: str, source: float) -> None:
        row[name] = source / (1.0 - gamma) if n is None else source + gamma * before[name]

    later = problem.length(None if n is None else n - 1)
    span = problem.action_span + turn * problem.mean_span * later
    for k in range(1, ORDERS + 1):
        cross = sum(math.comb(k, j) * b[j] * ahead[f"x{k - j}"] for j in range(1, k))
        put(f"x{k}", 0.5 * b[k] * span + turn * cross)
    put("mixed", 0.25 * span * (2.0 * b[1] ** 2) + 2.0 * turn * b[1] * ahead["x1"])
    put("lvc", 0.5 * b[2] * span)
    put("lvc_error", 2.0 * turn * b[1] * ahead["x1"])
    put("lvc_change", 0.5 * b[3] * span + turn * (b[2] * ahead["x1"] + b[1] * ahead["lvc"]))
    value = problem.largest_mean * problem.length(n)
    block, change = (0.5, THIRD_CENTRAL) if mdp.n_actions > 1 else (0.0, 0.0)
    put("ad", block * value)
    put("ad_change", block * row["x1"] + change * value + turn * b[1] * ahead["ad"])
    return row
