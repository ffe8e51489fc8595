"""Values, gradients and Hessian products of two-player games, own and across players.

With ``Q_i^(1)(s, a)`` the mean of ``Q_i(s, a, b)`` over player 2's action, ``dJ_i/dtheta_1`` is
``sum_t m_t pi_1 (Q_i^(1) - V_i)``: the policy gradient of the problem whose actions are pairs,
summed over the other player's action. So every derivative is a jet of that problem's policy
gradient, along directions in either player's parameters. Players are 1 and 2.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy.typing as npt

from gradbias.analytic.policies.at_parameters import PolicyAt, policy_at
from gradbias.analytic.policies.jets import Part, leibniz, required
from gradbias.analytic.problems.games import StochasticGame, check_player
from gradbias.analytic.returns.evaluation import Evaluation
from gradbias.analytic.returns.value_jets import Expansion
from gradbias.analytic.utils.validation import FloatArray, check_leading


@dataclass(frozen=True, eq=False)
class GameAt:
    """A game under both players' parameters; one factorisation for all its derivatives."""

    game: StochasticGame
    players: tuple[PolicyAt, PolicyAt]

    @cached_property
    def _evaluations(self) -> tuple[Evaluation, Evaluation]:
        joint = _pairs(*(player.probabilities for player in self.players))
        tables, other = self.game.joint_tables
        first = Evaluation(tables, joint)
        return first, first.with_reward(other.reward)

    def value(self, of: int) -> FloatArray:
        """J_of ``[...]``."""
        return self._evaluations[of - 1].expected_return

    def gradient(self, of: int, wrt: int) -> FloatArray:
        """dJ_of/dtheta_wrt, shaped like it."""
        still = Expansion(self._evaluations[of - 1], [self._evaluations[of - 1].policy])
        return self.players[wrt - 1].vjp(self._marginal(still.gradient[0], wrt))

    def tangent(self, of: int, along: int, v: FloatArray) -> GameTangent:
        """How player ``of``'s gradients move along ``v`` in player ``along``'s parameters."""
        turned = self.players[along - 1].jet([v])
        jets: list[list[Part]] = [[player.probabilities, None] for player in self.players]
        jets[along - 1] = turned
        joint = [leibniz(_pairs, jets[0], jets[1], mask) for mask in range(2)]
        return GameTangent(self, Expansion(self._evaluations[of - 1], joint), along, v)

    def _marginal(self, field: Part, player: int) -> FloatArray:
        """``[..., S, A_player]`` of a derivative in the pairs' logits ``[..., S, A1 * A2]``."""
        flat = required(field)
        pairs = flat.reshape(*flat.shape[:-1], *self.game.n_actions)
        summed: FloatArray = pairs.sum(axis=-1 if player == 1 else -2)
        return summed


@dataclass(frozen=True, eq=False)
class GameTangent:
    """``(d/dtheta_along) (dJ_of/dtheta_wrt)`` times a direction, for either ``wrt``."""

    base: GameAt
    moved: Expansion
    along: int
    v: FloatArray

    def gradient(self, wrt: int) -> FloatArray:
        """The change of the gradient in player ``wrt``'s parameters, shaped like them."""
        fields = [self.base._marginal(part, wrt) for part in self.moved.gradient]
        player = self.base.players[wrt - 1]
        if wrt == self.along:
            return player.vjp_jet(fields, [self.v])
        return player.vjp(fields[1])


def game_at(game: StochasticGame, theta1: npt.ArrayLike, theta2: npt.ArrayLike) -> GameAt:
    """The game under parameters of both players; leading axes of one, or the same ones of both.

    Raises:
        ValueError: parameters that do not fit their player's policy, or are not finite.
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
    """Both players, who share the leading axes of either. Raises ValueError where they differ."""
    check_leading(name, second.theta, second.shape, first.leading)
    leading = max(first.leading, second.leading, key=len)
    return replace(first, leading=leading), replace(second, leading=leading)


def game_values(
    game: StochasticGame, theta1: npt.ArrayLike, theta2: npt.ArrayLike
) -> tuple[float | FloatArray, float | FloatArray]:
    """Both players' expected (discounted, not normalised) returns; arrays where parameters have
    leading axes.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA).

    Raises:
        ValueError: parameters that do not fit.

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
    """The gradient of player ``of``'s return in player ``wrt``'s parameters, shaped like them.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA).

    Raises:
        ValueError: parameters that do not fit, or a player other than 1 or 2.

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
    """``(d/dtheta_along dJ_of/dtheta_wrt) v``, shaped like player ``wrt``'s parameters; ``v`` is
    shaped like player ``along``'s. No matrix is formed.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA).

    Raises:
        ValueError: parameters or v that do not fit, or a player other than 1 or 2.

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
    """``[..., S, A1 * A2]`` of ``[..., S, A1]`` and ``[..., S, A2]``."""
    both = first[..., :, None] * second[..., None, :]
    return both.reshape(*both.shape[:-2], -1)
