"""LOLA's inner loop, sampled: the opponent's steps in a two-player game.

Trajectories are drawn from the decision problem whose actions are pairs, and read as each player
sees them.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.at_parameters import PolicyAt, policy_at
from gradbias.analytic.policies.softmax import log_softmax
from gradbias.analytic.problems.games import StochasticGame, check_player
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.derivatives.jacobian_products import (
    PlayerState,
    PulledEstimate,
    SurrogateBatch,
)
from gradbias.stochastic.meta.inner_loops import checked_critic, given_start
from gradbias.stochastic.rollouts.records import Surrogate
from gradbias.stochastic.rollouts.trajectories import Trajectories, looked_up, trajectory_length


@dataclass(frozen=True, eq=False)
class SampledGame:
    """LOLA's inner loop: phi are the parameters of ``player``, theta the opponent's, who moves.

    Surrogates see the record of the player whose return they are of, with the other's beside it;
    built-in ones are differentiable in both players' parameters. ``critics`` are player 1's and
    player 2's values, each ``[S]`` or ``[H + 1, S]``.

    Raises:
        ValueError: a player other than 1 or 2, a length that is missing or not wanted.
    """

    game: StochasticGame
    player: int = 1
    critics: tuple[FloatArray | None, FloatArray | None] = (None, None)
    length: int | None = None
    starts_at_meta = False

    def __post_init__(self) -> None:
        if not isinstance(self.game, StochasticGame):
            raise ValueError(f"game: expected a StochasticGame, got a {type(self.game).__name__}")
        check_player("player", self.player)
        trajectory_length(self.problem, self.length)
        given: object = self.critics
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise ValueError(f"critics: expected one for each player, got {given!r}")
        rows = [
            checked_critic("critics", critic, self.problem, self.steps) for critic in self.critics
        ]
        object.__setattr__(self, "critics", tuple(rows))

    @cached_property
    def problem(self) -> TabularMDP:
        """The decision problem of pairs of actions, ``a * A2 + b``; its reward is 0 only where both
        players' are, so that it ends where the game does.
        """
        game = self.game
        pairs = game.n_actions[0] * game.n_actions[1]
        paid = np.abs(game.rewards).sum(axis=0).reshape(-1, game.n_states, pairs)
        reward = paid[0] if len(paid) == 1 else paid[..., None]
        rows = game.transition.reshape(game.n_states, pairs, game.n_states)
        return TabularMDP(rows, reward, game.discount, game.start, game.horizon)

    @property
    def steps(self) -> int:
        """See `Loop`."""
        return trajectory_length(self.problem, self.length)

    def start(
        self, meta_parameters: npt.ArrayLike, theta: npt.ArrayLike | None
    ) -> tuple[FloatArray, FloatArray]:
        """See `Loop`."""
        names = {self.player: "meta_parameters", 3 - self.player: "theta"}
        given = {self.player: meta_parameters, 3 - self.player: given_start(theta)}
        found = {}
        for player, name in names.items():
            at = self._policy(player, given[player], name)
            if at.theta.shape != at.shape:
                raise ValueError(f"{name}: expected shape {at.shape}, got {at.theta.shape}")
            found[player] = at.theta
        return found[self.player], found[3 - self.player]

    def log_policy(self, phi: FloatArray, theta: FloatArray) -> FloatArray:
        """See `Loop`."""
        first, second = (log_softmax(at.logits) for at in self._both(phi, theta))
        joint = first[..., :, None] + second[..., None, :]
        return joint.reshape(*joint.shape[:-2], -1)

    def read(self, drawn: Trajectories, phi: FloatArray, theta: FloatArray) -> Trajectories:
        """See `Loop`; the batch as player 1 sees it."""
        now = drawn.states[..., :-1]
        chosen = np.divmod(drawn.actions, self.game.n_actions[1])
        rewards = self.game.rewards.reshape(2, -1, *self.game.rewards.shape[-3:])
        times = np.arange(drawn.shape[-1]) % rewards.shape[1]
        paid = [own[times, now, *chosen] * drawn.alive for own in rewards]
        logarithms = [
            looked_up(log_softmax(at.logits), now, actions) * drawn.alive
            for at, actions in zip(self._both(phi, theta), chosen, strict=True)
        ]
        return Trajectories(
            drawn.states,
            chosen[0],
            paid[0],
            drawn.alive,
            logarithms[0],
            other_actions=chosen[1],
            other_rewards=paid[1],
            other_behaviour_log_probs=logarithms[1],
        )

    def inner(
        self, surrogate: Surrogate, phi: FloatArray, theta: FloatArray, batch: Trajectories
    ) -> SurrogateBatch:
        """See `Loop`; the opponent's."""
        return self._seen_by(3 - self.player, surrogate, phi, theta, batch)

    def outer(
        self, surrogate: Surrogate, phi: FloatArray, theta: FloatArray, batch: Trajectories
    ) -> SurrogateBatch:
        """See `Loop`; that of the player who looks ahead."""
        return self._seen_by(self.player, surrogate, phi, theta, batch)

    def pulled_to_meta(self, pulled: PulledEstimate) -> FloatArray:
        """See `Loop`."""
        if pulled.other is None:
            raise ValueError("pulled: expected an estimate of two players, got one of one")
        return pulled.other

    def inner_in_meta(self, found: SurrogateBatch) -> FloatArray:
        """See `Loop`."""
        return found.other_gradient()

    def outer_gradients(self, found: SurrogateBatch) -> tuple[FloatArray, FloatArray]:
        """See `Loop`."""
        return found.other_gradient(), found.gradient()

    def _policy(self, player: int, parameters: npt.ArrayLike, name: str) -> PolicyAt:
        policy, n_actions = self.game.policies[player - 1], self.game.n_actions[player - 1]
        return policy_at(policy, parameters, self.game.n_states, n_actions, name=name)

    def _both(self, phi: FloatArray, theta: FloatArray) -> tuple[PolicyAt, PolicyAt]:
        """The policies of player 1 and player 2, ``[B, *shape]`` both."""
        copies = np.broadcast_to(phi, (len(theta), *phi.shape))
        own = self._policy(self.player, copies, "meta_parameters")
        opponent = self._policy(3 - self.player, theta, "theta")
        return (own, opponent) if self.player == 1 else (opponent, own)

    def _seen_by(
        self,
        player: int,
        surrogate: Surrogate,
        phi: FloatArray,
        theta: FloatArray,
        batch: Trajectories,
    ) -> SurrogateBatch:
        at = self._both(phi, theta)
        sides = [PlayerState(one, critic) for one, critic in zip(at, self.critics, strict=True)]
        seen = batch if player == 1 else _swapped(batch)
        own, other = (sides[player - 1], sides[2 - player])
        return SurrogateBatch(surrogate, seen, own, self.game.discount, other=other)


def _swapped(batch: Trajectories) -> Trajectories:
    """The batch as the other player sees it."""
    if (
        batch.other_actions is None
        or batch.other_rewards is None
        or batch.other_behaviour_log_probs is None
    ):
        raise ValueError("batch: expected both players' actions and rewards, got one's")
    return Trajectories(
        batch.states,
        batch.other_actions,
        batch.other_rewards,
        batch.alive,
        batch.other_behaviour_log_probs,
        batch.actions,
        batch.rewards,
        batch.behaviour_log_probs,
    )
