"""Values, gradients and Hessian-vector products of two-player games, within and across players.

Let ``V_i`` and ``Q_i(s, a, b)`` be player i's values and ``Q_i^(1)(s, a)`` the mean of ``Q_i`` over
player 2's action. Then ``dJ_i/dtheta_1 = sum_t m_t pi_1 (Q_i^(1) - V_i)``: the policy gradient of
the MDP whose actions are pairs, summed over the other player's action. So every derivative is a jet
of that MDP's policy gradient, along directions in either player's parameters. Players are 1 and 2.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.at_parameters import PolicyAt, policy_at
from gradbias.analytic.policies.jets import Part, leibniz, required
from gradbias.analytic.problems.games import StochasticGame, check_player
from gradbias.analytic.returns.evaluation import Evaluation
from gradbias.analytic.returns.value_jets import Expansion
from gradbias.analytic.utils.validation import FloatArray, check_leading


@dataclass(frozen=True, eq=False)
class GameAt:
    """A game at both players' parameters; one factorisation serves all its derivatives."""

    game: StochasticGame
    players: tuple[PolicyAt, PolicyAt]

    @cached_property
    def _evaluations(self) -> tuple[Evaluation, Evaluation]:
        joint = _pairs(*(player.probabilities for player in self.players))
        tables, other = self.game.joint_tables
        first = Evaluation(tables, joint)
        return first, first.with_reward(other.reward)

    def value(self, of: int) -> FloatArray:
        """The expected return J of player ``of``, ``[...]``."""
        return self._evaluations[of - 1].expected_return

    def gradient(self, of: int, wrt: int) -> FloatArray:
        """The gradient ``dJ_of/dtheta_wrt``, shaped like player ``wrt``'s parameters."""
        value = Expansion(self._evaluations[of - 1], [self._evaluations[of - 1].policy])
        return self.players[wrt - 1].vjp(self._marginal(value.gradient[0], wrt))

    def tangent(self, of: int, along: int, v: FloatArray) -> GameTangent:
        """The derivatives of ``of``'s gradients along ``v`` in player ``along``'s parameters."""
        jets: list[list[Part]] = [[player.probabilities, None] for player in self.players]
        jets[along - 1] = self.players[along - 1].jet([v])
        joint = [leibniz(_pairs, jets[0], jets[1], mask) for mask in range(2)]
        return GameTangent(self, Expansion(self._evaluations[of - 1], joint), along, v)

    def _marginal(self, field: Part, player: int) -> FloatArray:
        """A derivative in the pairs' logits ``[..., S, A1 * A2]``, summed over the other player's
        actions: ``[..., S, A_player]``.
        """
        flat = required(field)
        pairs = flat.reshape(*flat.shape[:-1], *self.game.n_actions)
        return np.asarray(pairs.sum(axis=-1 if player == 1 else -2))


@dataclass(frozen=True, eq=False)
class GameTangent:
    """``(d/dtheta_along) (dJ_of/dtheta_wrt)`` times a direction, for either ``wrt``."""

    base: GameAt
    expansion: Expansion
    along: int
    v: FloatArray

    def gradient(self, wrt: int) -> FloatArray:
        """The derivative of the gradient in player ``wrt``'s parameters, shaped like them."""
        fields = [self.base._marginal(part, wrt) for part in self.expansion.gradient]
        player = self.base.players[wrt - 1]
        if wrt == self.along:
            return player.vjp_jet(fields, [self.v])
        return player.vjp(fields[1])


def game_at(game: StochasticGame, theta1: npt.ArrayLike, theta2: npt.ArrayLike) -> GameAt:
    """The game at the parameters of both players, which share the leading axes of either. Raises
    ValueError for parameters that do not fit their player's policy, or are not finite.
    """
    thetas = {"theta1": theta1, "theta2": theta2}
    first, second = (
        policy_at(policy, theta, game.n_states, n_actions, name=name)
        for policy, n_actions, (name, theta) in zip(
            game.policies, game.n_actions, thetas.items(), strict=True
        )
    )
    return GameAt(game, together(first, second))


def together(first: PolicyAt, second: PolicyAt, name: str = "theta2") -> tuple[PolicyAt, PolicyAt]:
    """Both players with the leading axes of either. Raises ValueError if those do not match."""
    check_leading(name, second.theta, second.shape, first.leading)
    leading = max(first.leading, second.leading, key=len)
    return replace(first, leading=leading), replace(second, leading=leading)


def game_values(
    game: StochasticGame, theta1: npt.ArrayLike, theta2: npt.ArrayLike
) -> tuple[float | FloatArray, float | FloatArray]:
    """Both players' expected discounted returns.

    Args:
        game: the game.
        theta1: player 1's parameters; ``[S, A1]`` for the tabular softmax.
        theta2: player 2's parameters; ``[S, A2]`` for the tabular softmax.

    Returns:
        Two numbers, or two arrays ``[...]`` if parameters have leading axes.

    Raises:
        ValueError: parameters that do not fit.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA).

    >>> from gradbias.analytic import prisoners_dilemma
    >>> cooperate, defect = [1000.0] * 5, [-1000.0] * 5
    >>> [round(value, 6) for value in game_values(prisoners_dilemma(), cooperate, defect)]
    [-75.0, 0.0]
    """
    at = game_at(game, theta1, theta2)
    first, second = at.value(1), at.value(2)
    return (first, second) if first.ndim else (float(first), float(second))


def game_gradient(
    game: StochasticGame, theta1: npt.ArrayLike, theta2: npt.ArrayLike, *, of: int, wrt: int
) -> FloatArray:
    """The gradient of one player's return in one player's parameters.

    Args:
        game: the game.
        theta1: player 1's parameters; ``[S, A1]`` for the tabular softmax.
        theta2: player 2's parameters; ``[S, A2]`` for the tabular softmax.
        of: whose return, 1 or 2.
        wrt: whose parameters, 1 or 2.

    Returns:
        Shaped like player ``wrt``'s parameters.

    Raises:
        ValueError: parameters that do not fit, or a player other than 1 or 2.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA).

    >>> from gradbias.analytic import prisoners_dilemma
    >>> once = prisoners_dilemma(horizon=1)
    >>> game_gradient(once, [0.0] * 5, [0.0] * 5, of=1, wrt=1).tolist()
    [-0.25, 0.0, 0.0, 0.0, 0.0]
    """
    check_player("of", of)
    check_player("wrt", wrt)
    return game_at(game, theta1, theta2).gradient(of, wrt)


def game_hvp(
    game: StochasticGame,
    theta1: npt.ArrayLike,
    theta2: npt.ArrayLike,
    v: npt.ArrayLike,
    *,
    of: int,
    wrt: int,
    along: int,
) -> FloatArray:
    """The product ``(d/dtheta_along dJ_of/dtheta_wrt) v``; no matrix is formed.

    Args:
        game: the game.
        theta1: player 1's parameters; ``[S, A1]`` for the tabular softmax.
        theta2: player 2's parameters; ``[S, A2]`` for the tabular softmax.
        v: the direction, shaped like player ``along``'s parameters.
        of: whose return, 1 or 2.
        wrt: in whose parameters the gradient is taken, 1 or 2.
        along: along whose parameters it is differentiated, 1 or 2.

    Returns:
        Shaped like player ``wrt``'s parameters.

    Raises:
        ValueError: parameters or v that do not fit, or a player other than 1 or 2.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA).

    >>> from gradbias.analytic import prisoners_dilemma
    >>> once, v = prisoners_dilemma(horizon=1), [1.0, 0.0, 0.0, 0.0, 0.0]
    >>> round(float(game_hvp(once, [1.0] * 5, [0.0] * 5, v, of=1, wrt=1, along=1)[0]), 4)
    0.0909
    """
    for name, player in (("of", of), ("wrt", wrt), ("along", along)):
        check_player(name, player)
    at = game_at(game, theta1, theta2)
    return at.tangent(of, along, at.players[along - 1].direction(v)).gradient(wrt)


def _pairs(first: FloatArray, second: FloatArray) -> FloatArray:
    """The joint ``[..., S, A1 * A2]`` of ``[..., S, A1]`` and ``[..., S, A2]``."""
    both = first[..., :, None] * second[..., None, :]
    return both.reshape(*both.shape[:-2], -1)
