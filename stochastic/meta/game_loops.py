"""LOLA's inner loop, sampled: the opponent's steps in a two-player game.

Trajectories are drawn from the decision problem whose actions are pairs of the players' actions;
each player's surrogate then sees them from its own side.

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
from gradbias.analytic.utils.validation import FloatArray, required_theta
from gradbias.stochastic.derivatives.jacobian_products import (
    PlayerState,
    PulledEstimate,
    SurrogateBatch,
)
from gradbias.stochastic.meta.inner_loops import checked_critic
from gradbias.stochastic.rollouts.records import Surrogate
from gradbias.stochastic.rollouts.trajectories import Trajectories, looked_up, trajectory_length


@dataclass(frozen=True, eq=False)
class SampledGame:
    """LOLA's inner loop: phi are the parameters of the player who looks ahead, theta those of the
    opponent, who takes the inner steps.

    Surrogates see the record of the player whose return they estimate, with the other player's as
    ``record.other``; built-in ones are differentiable in both players' parameters.

    Attributes:
        game: the game, with both players' policies.
        player: the player who looks ahead, 1 or 2.
        critics: the values of player 1 and of player 2, each ``[S]``, ``[H + 1, S]`` or None
            (zeros).
        length: the length of trajectories, for an infinite horizon alone.

    Raises:
        ValueError: a player other than 1 or 2; a length that is missing, or given with a finite
            horizon.
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
        critics: object = self.critics
        if not isinstance(critics, tuple | list) or len(critics) != 2:
            raise ValueError(f"critics: expected one for each player, got {critics!r}")
        rows = [
            checked_critic("critics", critic, self.problem, self.steps) for critic in self.critics
        ]
        object.__setattr__(self, "critics", tuple(rows))

    @cached_property
    def problem(self) -> TabularMDP:
        """The decision problem whose actions are pairs of actions, numbered ``a * A2 + b``.

        Its reward, the sum of both players' absolute rewards, only decides which states are
        terminal: it is 0 only where both players' rewards are.
        """
        game = self.game
        pairs = game.n_actions[0] * game.n_actions[1]
        rewards = np.abs(game.rewards).sum(axis=0).reshape(-1, game.n_states, pairs)
        reward = rewards[0] if len(rewards) == 1 else rewards[..., None]
        rows = game.transition.reshape(game.n_states, pairs, game.n_states)
        return TabularMDP(rows, reward, game.discount, game.start, game.horizon)

    @property
    def steps(self) -> int:
        """The length H of a trajectory."""
        return trajectory_length(self.problem, self.length)

    def start(
        self, meta_parameters: npt.ArrayLike, theta: npt.ArrayLike | None
    ) -> tuple[FloatArray, FloatArray]:
        """The pair (phi, theta^0) of the two players' parameters, checked; neither may be None."""
        parameters = []
        for player, name, value in (
            (self.player, "meta_parameters", meta_parameters),
            (3 - self.player, "theta", required_theta(theta)),
        ):
            at = self._policy(player, value, name)
            if at.theta.shape != at.shape:
                raise ValueError(f"{name}: expected shape {at.shape}, got {at.theta.shape}")
            parameters.append(at.theta)
        phi, start = parameters
        return phi, start

    def log_policy(self, phi: FloatArray, theta: FloatArray) -> FloatArray:
        """The log-probabilities ``[B, S, A1 * A2]`` of the players' pairs of actions."""
        first, second = (log_softmax(at.logits) for at in self._both(phi, theta))
        joint = first[..., :, None] + second[..., None, :]
        return joint.reshape(*joint.shape[:-2], -1)

    def read(self, drawn: Trajectories, phi: FloatArray, theta: FloatArray) -> Trajectories:
        """The batch as player 1 sees it, from trajectories ``[B, N, H]`` of pairs of actions."""
        now = drawn.states[..., :-1]
        chosen = np.divmod(drawn.actions, self.game.n_actions[1])
        rewards = self.game.rewards.reshape(2, -1, *self.game.rewards.shape[-3:])
        times = np.arange(drawn.shape[-1]) % rewards.shape[1]
        received = [table[times, now, *chosen] * drawn.alive for table in rewards]
        logarithms = [
            looked_up(log_softmax(at.logits), now, actions) * drawn.alive
            for at, actions in zip(self._both(phi, theta), chosen, strict=True)
        ]
        return Trajectories(
            drawn.states,
            chosen[0],
            received[0],
            drawn.alive,
            logarithms[0],
            other_actions=chosen[1],
            other_rewards=received[1],
            other_behaviour_log_probs=logarithms[1],
        )

    def inner(
        self, surrogate: Surrogate, phi: FloatArray, theta: FloatArray, batch: Trajectories
    ) -> SurrogateBatch:
        """The opponent's surrogate on ``batch [B, N, H]``, as a function of theta and phi."""
        return self._seen_by(3 - self.player, surrogate, phi, theta, batch)

    def outer(
        self, surrogate: Surrogate, phi: FloatArray, theta: FloatArray, batch: Trajectories
    ) -> SurrogateBatch:
        """The surrogate of the player who looks ahead, as a function of phi and theta."""
        return self._seen_by(self.player, surrogate, phi, theta, batch)

    def pulled_to_meta(self, pulled: PulledEstimate) -> FloatArray:
        """The part in phi, ``[B, *phi]``, of an inner estimate's vector-Jacobian product."""
        if pulled.other is None:
            raise ValueError("pulled: expected an estimate of two players, got one of one")
        return pulled.other

    def inner_in_meta(self, estimate: SurrogateBatch) -> FloatArray:
        """The gradient of an inner surrogate in phi, ``[B, *phi]``."""
        return estimate.other_gradient()

    def outer_gradients(self, estimate: SurrogateBatch) -> tuple[FloatArray, FloatArray]:
        """The gradients of an outer surrogate in theta ``[B, *shape]`` and in phi ``[B, *phi]``."""
        return estimate.other_gradient(), estimate.gradient()

    def _policy(self, player: int, parameters: npt.ArrayLike, name: str) -> PolicyAt:
        policy, n_actions = self.game.policies[player - 1], self.game.n_actions[player - 1]
        return policy_at(policy, parameters, self.game.n_states, n_actions, name=name)

    def _both(self, phi: FloatArray, theta: FloatArray) -> tuple[PolicyAt, PolicyAt]:
        """The policies of player 1 and player 2, both with B parameters."""
        copies = np.broadcast_to(phi, (len(theta), *phi.shape))
        ego = self._policy(self.player, copies, "meta_parameters")
        opponent = self._policy(3 - self.player, theta, "theta")
        return (ego, opponent) if self.player == 1 else (opponent, ego)

    def _seen_by(
        self,
        player: int,
        surrogate: Surrogate,
        phi: FloatArray,
        theta: FloatArray,
        batch: Trajectories,
    ) -> SurrogateBatch:
        policies = self._both(phi, theta)
        players = [PlayerState(at, v) for at, v in zip(policies, self.critics, strict=True)]
        seen = batch if player == 1 else _swapped(batch)
        own, other = players[player - 1], players[2 - player]
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
