"""Bounds that hold for every tabular softmax policy of a problem, from its tables alone.

With ``Pi^(k)`` the k-th derivative of a softmax along a unit direction, ``sum_a |Pi^(k)| <= b_k``,
so ``|Pi^(k) f| <= b_k/2 span(f)``. The product rule for ``V = Pi Q``, ``Q = r + gamma P V`` with n
steps to go then bounds the k-th derivative of every state's value by ``x_k(n)``,

    x_k(n) = b_k/2 D(n) + gamma tau sum_{0<j<k} (k choose j) b_j x_{k-j}(n-1) + gamma x_k(n-1),

where ``D(n)`` bounds the spread over actions of ``Q`` and ``tau`` is how much of the next state's
law an action decides (total variation). What AD and LVC estimate obeys like recursions.

Source: the constants that *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumptions
4.1-4.3, supposes; the bounds b_1 and b_2 are attained, b_3 and b_4 are for two actions only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from analytic.moments import Curvature
from analytic.problems import TabularMDP
from analytic.trajectory_classes import Credit

SCORE = math.sqrt(2.0)
"""The norm of a score ``e_a - pi`` is below this, and so is the span of a unit direction."""

_THIRD_CENTRAL = math.sqrt(2.0) / (3.0 * math.sqrt(3.0))
"""How fast ``diag(pi) - pi pi^T`` changes: the largest third central moment on a span of SCORE."""

ORDERS = 4


@dataclass(frozen=True)
class ReturnConstants:
    """Bounds, over all theta and starts, of the norms of the return's first four derivatives in
    theta: L0 (gradient), L1 (Hessian), L2, L3. Each is the Lipschitz constant of the one before.
    """

    slope: float
    curvature: float
    third: float
    fourth: float


@dataclass(frozen=True)
class HessianConstants:
    """Of a Hessian estimate's mean, over all theta: the norm of its ``error``, the Lipschitz
    constant of the mean (``change``), and the Frobenius ``deviation`` from one trajectory.
    """

    error: float
    change: float
    deviation: float


def return_constants(mdp: TabularMDP) -> ReturnConstants:
    """Bounds of the return's derivatives that hold for all theta ``[S, A]``, by recursion over the
    steps to go, or its limit.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumption 4.1
    (`analytic.constants` derives them).

    Raises:
        ValueError: the problem is no `TabularMDP`.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> found = return_constants(bandit)
    >>> round(found.slope, 4), round(found.curvature, 4)  # both attained
    (0.3536, 0.1925)
    """
    return _return_constants(_Problem.of(mdp))


def mixed_constants(mdp: TabularMDP) -> ReturnConstants:
    """`return_constants` for every reward ``[S, A]`` of norm 1 in place of the problem's: bounds of
    LIRPG's mixed derivative ``d/dphi dJ/dtheta`` (``slope``: the paper's c_1) and of its first two
    derivatives in theta (``curvature``: rho_1, which the paper lacks; ``third``).

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumption 4.1.

    Raises:
        ValueError: the problem is no `TabularMDP`.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[5.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> round(mixed_constants(bandit).slope, 4)
    0.5
    """
    return _return_constants(replace(_Problem.of(mdp), action_span=SCORE, mean_span=SCORE))


def _return_constants(problem: _Problem) -> ReturnConstants:
    last = _rows(problem)[-1]
    return ReturnConstants(last["x1"], last["x2"], last["x3"], last["x4"])


def hessian_constants(mdp: TabularMDP, curvature: Curvature) -> HessianConstants:
    """Bounds for a Hessian estimate ``[S, A, S, A]`` with rewards-to-go and no critic, for all
    theta.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Theorem 4.5
    (`analytic.constants` derives them).

    Raises:
        ValueError: the problem is no `TabularMDP`; a curvature that is none.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> hessian_constants(bandit, Curvature.LVC).error  # of one step it estimates the Hessian
    0.0
    """
    if not isinstance(curvature, Curvature):
        raise ValueError(f"curvature: expected a Curvature, got {curvature!r}")
    problem = _Problem.of(mdp)
    last = _rows(problem)[-1]
    deviation = problem.largest_reward * _hessian_noise(problem, curvature)
    if curvature is Curvature.LVC:
        return HessianConstants(last["lvc_error"], last["lvc_change"], deviation)
    if curvature is Curvature.AD:
        return HessianConstants(last["ad"] + last["x2"], last["ad_change"], deviation)
    return HessianConstants(0.0, last["x3"], deviation)


def gradient_deviation(
    mdp: TabularMDP,
    *,
    credit: Credit = Credit.REWARD_TO_GO,
    exact_baseline: bool = False,
) -> float:
    """A bound, for all theta ``[S, A]``, of the deviation ``sqrt(E|ghat - g|^2)`` of the gradient
    from one trajectory; with rewards-to-go, less the exact values if ``exact_baseline``.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumption 4.3; scores are
    martingale differences with ``E|u|^2 <= 1 - 1/A``.

    Raises:
        ValueError: whole returns over the infinite horizon, or with the exact baseline.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> round(gradient_deviation(bandit), 4)
    0.7071
    """
    problem = _Problem.of(mdp)
    if credit is Credit.TOTAL_RETURN:
        if mdp.horizon is None or exact_baseline:
            raise ValueError("credit: expected rewards-to-go, got whole returns")
        length = problem.length(mdp.horizon)
        return problem.largest_reward * length * math.sqrt(mdp.horizon * problem.scatter)
    if exact_baseline:
        return problem.reward_span * math.sqrt(problem.scatter) * problem.paired_length
    return problem.largest_reward * mixed_deviation(mdp)


def mixed_deviation(mdp: TabularMDP) -> float:
    """The bound of `gradient_deviation` for rewards of at most 1, which is also one for the
    derivative ``[S, A, S, A]`` of that estimate in the rewards (LIRPG's sampled Jacobian), in the
    Frobenius norm.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Theorem 4.5 (sigma_J).

    Raises:
        ValueError: the problem is no `TabularMDP`.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[3.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> round(mixed_deviation(bandit), 4)
    0.7071
    """
    problem = _Problem.of(mdp)
    if mdp.horizon is None:  # by Cauchy's inequality
        return math.sqrt(problem.scatter) * (1.0 - mdp.discount) ** -1.5
    k = np.arange(mdp.horizon)
    return float(math.sqrt(problem.scatter) * (mdp.discount**k) @ np.sqrt(k + 1.0))


def largest_estimate(mdp: TabularMDP) -> float:
    """What the norm of a gradient estimate ``[S, A]`` (rewards-to-go, no critic) from any
    trajectories, at any theta, does not exceed: an inner step is no longer than that times alpha.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Lemma 4.4 (where iterates
    may go).

    Raises:
        ValueError: the problem is no `TabularMDP`.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> round(largest_estimate(bandit), 4)
    1.4142
    """
    problem = _Problem.of(mdp)
    return 0.0 if mdp.n_actions == 1 else SCORE * problem.largest_reward * problem.paired_length


@dataclass(frozen=True)
class _Problem:
    """What the recursions need of a problem."""

    mdp: TabularMDP
    action_span: float
    reward_span: float
    mean_span: float
    largest_mean: float
    largest_reward: float
    influence: float

    @classmethod
    def of(cls, mdp: TabularMDP) -> _Problem:
        if not isinstance(mdp, TabularMDP):
            raise ValueError(f"mdp: expected a TabularMDP, got a {type(mdp).__name__}")
        mean, possible = mdp.tables.reward, mdp.transition > 0
        paid = np.broadcast_to(
            mdp.next_state_reward, (len(mdp.next_state_reward), *mdp.transition.shape)
        )[:, possible]
        return cls(
            mdp,
            action_span=float(np.ptp(mean, axis=-1).max()),
            reward_span=float(np.ptp(paid)),
            mean_span=float(np.ptp(mean)),
            largest_mean=float(np.abs(mean).max()),
            largest_reward=float(np.abs(paid).max()),
            influence=influence(mdp),
        )

    @property
    def scatter(self) -> float:
        """The largest ``E|u|^2`` of a score u."""
        return 1.0 - 1.0 / self.mdp.n_actions

    def length(self, steps: int | None) -> float:
        """``1 + gamma + ...`` over so many steps."""
        gamma = self.mdp.discount
        if steps is None:
            return 1.0 / (1.0 - gamma)
        return float(steps) if gamma == 1.0 else (1.0 - gamma**steps) / (1.0 - gamma)

    @property
    def paired_length(self) -> float:
        """``sum_t gamma^t (1 + ... + gamma^{H-t-1})``."""
        horizon, gamma = self.mdp.horizon, self.mdp.discount
        if horizon is None:
            return (1.0 - gamma) ** -2
        return sum(gamma**t * self.length(horizon - t) for t in range(horizon))


def influence(mdp: TabularMDP) -> float:
    """tau: the largest total variation distance between the laws of the next state under two
    actions, over states; 0 where actions do not matter for ``transition [S, A, S]``.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumption 4.1.

    Raises:
        ValueError: the problem is no `TabularMDP`.

    >>> influence(TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1))
    0.0
    """
    if not isinstance(mdp, TabularMDP):
        raise ValueError(f"mdp: expected a TabularMDP, got a {type(mdp).__name__}")
    found = 0.0
    for a in range(mdp.n_actions):
        distance = np.abs(mdp.transition - mdp.transition[:, a : a + 1]).sum(axis=2)
        found = max(found, 0.5 * float(distance.max()))
    return min(found, 1.0)


def softmax_constants(n_actions: int) -> tuple[float, float, float, float]:
    """``b_1 .. b_4``: what the sum of absolute k-th derivatives of a softmax over ``[A]`` logits
    along a unit direction does not exceed.

    Source: by the logistic function's derivatives for two actions, where all are attained; b_1 and
    b_2 are the same for more, b_3 and b_4 then follow from moments on a span of sqrt(2).

    Raises:
        ValueError: no actions.

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
    fourth = 2.0 + 3.0 + 4.0 * _THIRD_CENTRAL / SCORE
    return (first, second, SCORE, fourth)


def _hessian_noise(problem: _Problem, curvature: Curvature) -> float:
    """The deviation of the Hessian's estimate for rewards of at most 1, by Minkowski over rewards:
    that of step k sees a martingale of k + 1 increments (AD: a sum of k + 1 matrices).
    """
    mdp, scatter = problem.mdp, problem.scatter
    gamma = mdp.discount
    if curvature is Curvature.AD:  # a Frobenius norm of at most sqrt(|F| tr F)
        return math.sqrt(0.5 * scatter) * problem.paired_length
    steps = mdp.horizon
    if steps is None:
        # Until what is left out is below rounding; the rest is bounded by a geometric series.
        steps = math.ceil(60.0 / (1.0 - gamma)) if gamma > 0.0 else 1
    k = np.arange(steps)
    own = math.sqrt(2.0 * scatter)  # E|u u^T - F|^2 <= E|u|^4 <= 2 E|u|^2
    across = 2.0 * scatter * np.sqrt(k) if curvature is Curvature.DICE else np.zeros(steps)
    noise = np.sqrt(np.cumsum((own + across) ** 2))
    rest = 0.0 if mdp.horizon is not None else gamma**steps * 60.0 * steps / (1.0 - gamma) ** 2
    return float(gamma**k @ noise) + rest


def _rows(problem: _Problem) -> list[dict[str, float]]:
    """What bounds values' derivatives x1 .. x4, and what LVC and AD estimate, at 1, 2, .. steps to
    go; over the infinite horizon the limit alone.
    """
    horizon = problem.mdp.horizon
    if horizon is None:
        return [_row(problem, None, {})]
    rows = [dict.fromkeys(_NAMES, 0.0)]
    for n in range(1, horizon + 1):
        rows.append(_row(problem, n, rows[-1]))
    return rows[1:]


_NAMES = ("x1", "x2", "x3", "x4", "lvc", "lvc_error", "lvc_change", "ad", "ad_change")


def _row(problem: _Problem, n: int | None, before: dict[str, float]) -> dict[str, float]:
    mdp = problem.mdp
    gamma, b = mdp.discount, (1.0, *softmax_constants(mdp.n_actions))
    turn = gamma * problem.influence  # a half for Pi', a two for the span of values within +-x
    found: dict[str, float] = {}
    ahead = found if n is None else before  # one step later

    def put(name: str, source: float) -> None:
        found[name] = source / (1.0 - gamma) if n is None else source + gamma * before[name]

    later = problem.length(None if n is None else n - 1)
    span = problem.action_span + turn * problem.mean_span * later
    for k in range(1, ORDERS + 1):
        cross = sum(math.comb(k, j) * b[j] * ahead[f"x{k - j}"] for j in range(1, k))
        put(f"x{k}", 0.5 * b[k] * span + turn * cross)
    put("lvc", 0.5 * b[2] * span)
    put("lvc_error", 2.0 * turn * b[1] * ahead["x1"])
    put("lvc_change", 0.5 * b[3] * span + turn * (b[2] * ahead["x1"] + b[1] * ahead["lvc"]))
    value = problem.largest_mean * problem.length(n)
    block, moved = (0.5, _THIRD_CENTRAL) if mdp.n_actions > 1 else (0.0, 0.0)
    put("ad", block * value)
    put("ad_change", block * found["x1"] + moved * value + turn * b[1] * ahead["ad"])
    return found
