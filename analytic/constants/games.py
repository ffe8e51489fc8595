"""Bounds of the derivatives of a player's return that hold for every pair of softmax policies.

A joint action has the probability ``pi_1 pi_2``. Take a unit direction in both players' logits,
with length c in the first player's and s in the second's, and b_1, b_2, b_3 as in
`analytic.constants.softmax`. The absolute derivatives of the joint probabilities sum to at most
``b_1 (c + s)``, ``b_2 + 2 b_1^2 c s`` and ``b_3 (c^3 + s^3) + 3 b_1 b_2 c s (c + s)``. With the
largest values of these in place of b_1, b_2 and b_3, the recursions of that module hold.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumption 4.1, for LOLA.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from gradbias.analytic.constants.returns import ReturnConstants
from gradbias.analytic.constants.softmax import ProblemSizes, derivative_bounds, softmax_constants
from gradbias.analytic.policies.softmax import LinearSoftmax, Policy, TabularSoftmax
from gradbias.analytic.problems.games import StochasticGame, check_player
from gradbias.analytic.problems.mdp import TabularMDP


@dataclass(frozen=True)
class GameConstants:
    """Bounds of the derivatives of one player's return: in the parameters of either player alone
    (``own``), in both players' at once (``joint``), and of the second derivative in one player's
    and then the other's (``mixed``, which bounds c_1 and mu_12).
    """

    own: ReturnConstants
    joint: ReturnConstants
    mixed: float


def game_constants(game: StochasticGame, player: int) -> GameConstants:
    """Bounds of the derivatives of a player's return that hold for all parameters of both players.

    Args:
        game: the game. Its policies are tabular ``[S, A]``, or linear with features ``[S, A, p]``
            of norm 1 at most, such as memory-one logits.
        player: the player whose return it is, 1 or 2.

    Returns:
        The bounds, by the player in whose parameters the derivatives are taken.

    Raises:
        ValueError: another player, or policies of another kind.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumption 4.1.

    >>> from gradbias.analytic import prisoners_dilemma
    >>> constants = game_constants(prisoners_dilemma(discount=0.5), 1)
    >>> round(constants.mixed, 10)  # 3 (1 + gamma) / (4 (1 - gamma)^3)
    9.0
    """
    check_player("player", player)
    for policy in game.policies:
        _check_slope(policy)
    own = softmax_constants(max(game.n_actions))
    sizes = replace(ProblemSizes.of(joint_problem(game, player)), softmax=own)
    last = derivative_bounds(sizes)[-1]
    both = derivative_bounds(replace(sizes, softmax=_together(own)))[-1]
    names = ("x1", "x2", "x3", "x4")
    return GameConstants(
        own=ReturnConstants(*(last[name] for name in names)),
        joint=ReturnConstants(*(both[name] for name in names)),
        mixed=last["mixed"],
    )


def joint_problem(game: StochasticGame, player: int) -> TabularMDP:
    """The MDP ``[S, A1 * A2]`` whose actions are joint actions and whose reward is ``player``'s.

    Raises:
        ValueError: the game's tables are no MDP.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA).

    >>> from gradbias.analytic import prisoners_dilemma
    >>> joint_problem(prisoners_dilemma(horizon=1), 1).reward[0].tolist()
    [-1.0, -3.0, 0.0, -2.0]
    """
    pairs = game.n_actions[0] * game.n_actions[1]
    kernel = game.transition.reshape(game.n_states, pairs, game.n_states)
    reward = game.joint_tables[player - 1].reward
    table = reward[0] if len(reward) == 1 else reward[..., None]
    return TabularMDP(kernel, table, game.discount, game.start, game.horizon)


def _check_slope(policy: Policy) -> None:
    if isinstance(policy, TabularSoftmax):
        return
    if not isinstance(policy, LinearSoftmax):
        raise ValueError(f"policies: expected tabular or linear ones, got {policy!r}")
    largest = float(np.linalg.norm(policy.features, 2, axis=(-2, -1)).max())
    if largest > 1.0 + 1e-12:
        raise ValueError(f"policies: expected features of norm 1 at most, got {largest:g}")


def _together(own: tuple[float, ...]) -> tuple[float, float, float, float]:
    """b_1 .. b_4 of the product of two policies that each have the constants ``own``."""
    b1, b2, b3, b4 = own
    rise = 3.0 * b1 * b2 - b3
    # The third is the maximum of f(u) = u (b3 + rise (u^2 - 1) / 2) for u = c + s between 1 and
    # sqrt(2): at an end, or where f' = 0.
    candidates = [1.0, math.sqrt(2.0)]
    if rise != 0.0:
        inside = (0.5 * rise - b3) / (1.5 * rise)
        if 1.0 < inside < 2.0:
            candidates.append(math.sqrt(inside))
    third = max(u * (b3 + 0.5 * rise * (u * u - 1.0)) for u in candidates)
    # The fourth uses c^4 + s^4 <= 1 and c s <= 1/2.
    return (math.sqrt(2.0) * b1, b2 + b1**2, third, b4 + 2.0 * b1 * b3 + 1.5 * b2**2)
