"""Two-player finite stochastic games, in which each player has a policy.

In state s player 1 takes action a and player 2 action b, independently; each receives a reward, and
the next state is drawn from ``P(s'|s,a,b)``. The exact side treats a game as one MDP per player,
whose actions are the pairs (a, b).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.softmax import TABULAR, LinearSoftmax, Policy
from gradbias.analytic.problems.mdp import checked_discount
from gradbias.analytic.problems.tables import Tables
from gradbias.analytic.problems.transitions import DenseKernel
from gradbias.analytic.utils.validation import (
    FloatArray,
    frozen_array,
    probability_rows,
    set_fields,
)

PLAYERS = (1, 2)


@dataclass(frozen=True, eq=False)
class StochasticGame:
    """A finite game of two players; arrays are copied, checked and made read-only.

    Attributes:
        transition: ``P(s'|s,a,b)``, ``[S, A1, A2, S]``.
        rewards: ``[2, S, A1, A2]`` (player 1's, then player 2's); over time ``[2, H, S, A1, A2]``.
        discount, start, horizon: as in `TabularMDP`.
        policies: map each player's parameters to logits ``[S, A1]`` and ``[S, A2]``.

    Raises:
        ValueError: naming the argument, what was expected and what came.

    >>> matching_pennies = [[[[1.0, -1.0], [-1.0, 1.0]]], [[[-1.0, 1.0], [1.0, -1.0]]]]
    >>> game = StochasticGame(np.ones((1, 2, 2, 1)), matching_pennies, 0.9, [1.0])
    >>> game.n_states, game.n_actions
    (1, (2, 2))
    """

    transition: FloatArray
    rewards: FloatArray
    discount: float
    start: FloatArray
    horizon: int | None = None
    policies: tuple[Policy, Policy] = (TABULAR, TABULAR)

    def __post_init__(self) -> None:
        transition = probability_rows("transition", self.transition, (None,) * 4)
        n_states, first, second, n_next = transition.shape
        if n_next != n_states or transition.size == 0:
            raise ValueError(
                f"transition: expected shape [S, A1, A2, S], got {tuple(transition.shape)}"
            )
        discount, horizon = checked_discount(self.discount, self.horizon)
        rewards = frozen_array("rewards", self.rewards)
        shape = (2, n_states, first, second)
        timed = None if horizon is None else (2, horizon, n_states, first, second)
        if rewards.shape not in (shape, timed):
            either = f"{shape}" if timed is None else f"{shape} or {timed}"
            raise ValueError(f"rewards: expected shape {either}, got {rewards.shape}")
        if len(self.policies) != 2:
            raise ValueError(f"policies: expected one a player, got {len(self.policies)}")
        for policy, n_actions in zip(self.policies, (first, second), strict=True):
            policy.parameter_shape(n_states, n_actions)
        start = probability_rows("start", self.start, (n_states,))
        set_fields(self, transition=transition, rewards=rewards, discount=discount, start=start)
        set_fields(self, horizon=horizon, policies=tuple(self.policies))

    @property
    def n_states(self) -> int:
        """The number of states S."""
        return int(self.transition.shape[0])

    @property
    def n_actions(self) -> tuple[int, int]:
        """The numbers of actions (A1, A2)."""
        return int(self.transition.shape[1]), int(self.transition.shape[2])

    @cached_property
    def joint_tables(self) -> tuple[Tables, Tables]:
        """For each player, the MDP whose actions are pairs, numbered ``a * A2 + b``."""
        pairs = self.n_actions[0] * self.n_actions[1]
        kernel = DenseKernel(self.transition.reshape(self.n_states, pairs, self.n_states))
        rewards = self.rewards.reshape(2, -1, self.n_states, pairs)
        states = np.arange(self.n_states)
        elsewhere = kernel.transition > 0.0
        elsewhere[states, :, states] = False
        stays = ~elsewhere.any(axis=(1, 2))
        unrewarded = (rewards == 0.0).all(axis=(0, 1, 3))
        first, second = (
            Tables(
                kernel=kernel,
                reward=reward,
                discount=np.asarray(self.discount),
                start=self.start,
                terminal=stays & unrewarded,
                horizon=self.horizon,
            )
            for reward in rewards
        )
        return first, second


def check_player(name: str, player: object) -> None:
    """Raises ValueError unless ``player`` is 1 or 2."""
    if not isinstance(player, int) or isinstance(player, bool) or player not in PLAYERS:
        raise ValueError(f"{name}: expected player 1 or 2, got {player!r}")


def memory_one_game(
    payoffs: npt.ArrayLike, discount: float = 0.96, horizon: int | None = None
) -> StochasticGame:
    """A repeated 2x2 matrix game between players who remember only the last round.

    The states are the start and the four outcomes of the last round, (0, 0), (0, 1), (1, 0), (1, 1)
    with the player's own action first: player 2 sees the middle two exchanged. A player's
    parameters are the logits ``[5]`` of playing action 0 in these five states.

    Args:
        payoffs: ``[2, 2, 2]``; ``payoffs[i, a, b]`` is player i + 1's reward when player 1 plays a
            and player 2 plays b.
        discount: gamma, in [0, 1), or up to 1 with a finite horizon.
        horizon: H, the number of rounds (None: infinitely many).

    Returns:
        The game, with S = 5 states and two actions for each player.

    Raises:
        ValueError: payoffs of a wrong shape, a discount or a horizon out of range.

    Source: Foerster et al. 2018 (LOLA), Sec. 5.2: memory-one policies.

    >>> coordination = memory_one_game([[[1.0, 0.0], [0.0, 1.0]]] * 2, discount=0.9)
    >>> coordination.n_states, coordination.policies[0].parameter_shape(5, 2)
    (5, (5,))
    """
    table = frozen_array("payoffs", payoffs, (2, 2, 2))
    transition = np.zeros((5, 2, 2, 5))
    outcome = np.arange(4).reshape(2, 2)
    for a, b in np.ndindex(2, 2):
        transition[:, a, b, 1 + outcome[a, b]] = 1.0
    rewards = np.broadcast_to(table[:, None], (2, 5, 2, 2))
    start = np.eye(5)[0]
    features = np.zeros((2, 5, 2, 5))
    for player, seen in enumerate(([0, 1, 2, 3, 4], [0, 1, 3, 2, 4])):
        features[player, np.arange(5), 0, seen] = 1.0
    policies = (LinearSoftmax(features[0]), LinearSoftmax(features[1]))
    return StochasticGame(transition, rewards, discount, start, horizon, policies)


def prisoners_dilemma(discount: float = 0.96, horizon: int | None = None) -> StochasticGame:
    """The iterated prisoner's dilemma between memory-one players.

    Rewards in each round: -1 each if both cooperate, -2 each if both defect; otherwise -3 for the
    cooperator and 0 for the defector. A player's parameters are logits of *cooperating* ``[5]`` at
    the start and after CC, CD, DC, DD, with the player's own action first.

    Args:
        discount: gamma, in [0, 1), or up to 1 with a finite horizon.
        horizon: H, the number of rounds (None: infinitely many).

    Returns:
        The game, as `memory_one_game` makes it.

    Raises:
        ValueError: a discount or a horizon out of range.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 5.2 (its appendix prints
    this payoff matrix with the actions' labels swapped).

    >>> from gradbias.analytic.returns import game_values
    >>> defect = [-1000.0] * 5
    >>> [round(value, 6) for value in game_values(prisoners_dilemma(), defect, defect)]
    [-50.0, -50.0]
    """
    first = np.array([[-1.0, -3.0], [0.0, -2.0]])
    return memory_one_game(np.stack([first, first.T]), discount, horizon)
