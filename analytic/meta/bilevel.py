"""Bilevel problems: an inner loop that changes policy parameters, and a return at its end.

An inner step is ``theta + step_size * g(phi, theta)`` with meta-parameters phi; the outer
objective is a return after the last step. Each problem says how g and the outer return depend on
both; `analytic.meta.meta_gradients` differentiates them. Inner steps are *expected* ones.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3, with its instances MAML,
LIRPG, LOLA and MGRL.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gradbias.analytic.meta.inner_steps import InnerStep, LambdaStep, OpponentStep, ReturnStep
from gradbias.analytic.policies.at_parameters import PolicyAt, policy_at
from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.games import StochasticGame, check_player
from gradbias.analytic.problems.tables import Problem
from gradbias.analytic.problems.targets import DISCOUNTED, StateWeighting
from gradbias.analytic.returns.derivatives import checked_reward, logit_gradient
from gradbias.analytic.returns.evaluation import Evaluation, policy_of
from gradbias.analytic.returns.game_derivatives import GameAt, together
from gradbias.analytic.returns.lambda_returns import LambdaReturns
from gradbias.analytic.utils.validation import (
    FloatArray,
    frozen_array,
    required_theta,
    set_fields,
)


@dataclass(frozen=True, eq=False)
class Outer:
    """The outer return at (phi, theta^K) and its partial gradients.

    Attributes:
        value: the return, ``[...]``.
        theta_gradient: shaped like theta.
        meta_gradient: shaped like phi (None: the return does not depend on phi directly).
    """

    value: FloatArray
    theta_gradient: FloatArray
    meta_gradient: FloatArray | None = None


class BilevelProblem(Protocol):
    """An inner loop and an outer return, as a meta-gradient needs them.

    All meta-gradients here are one adjoint recursion. What distinguishes MAML, LIRPG, LOLA and MGRL
    is where the loop starts, what an inner step is, and what the outer return is: the members
    below. A meta-learning problem of yours that has them works with `meta_gradient`, `inner_loop`,
    `meta_objective` and `TaskFamily`.
    """

    @property
    def starts_at_meta(self) -> bool:
        """Whether theta^0 is phi (dtheta^0/dphi = I); else theta^0 does not depend on phi."""

    def start(
        self, meta_parameters: npt.ArrayLike, theta: npt.ArrayLike | None
    ) -> tuple[FloatArray, FloatArray]:
        """The pair (phi, theta^0), checked.

        Args:
            meta_parameters: phi, as the user gave it.
            theta: theta^0, as the user gave it (None: the problem starts elsewhere).

        Raises:
            ValueError: they do not fit.
        """

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> InnerStep:
        """The inner update g, linearised.

        Args:
            meta_parameters: phi.
            theta: the policy's parameters before the step.
        """

    def outer(self, meta_parameters: FloatArray, theta: FloatArray) -> Outer:
        """The outer return and its gradients.

        Args:
            meta_parameters: phi.
            theta: the policy's parameters after the last step.
        """


@dataclass(frozen=True, eq=False)
class Maml:
    """MAML: phi is theta^0, and inner steps and outer objective have the same return.

    Attributes:
        mdp: the problem.
        policy: maps theta to logits (default: the tabular softmax).

    >>> from gradbias.analytic import TabularMDP, meta_gradient
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> meta_gradient(Maml(bandit), [[0.0, 0.0]], steps=1, step_size=1.0).round(4).tolist()
    [[0.235, -0.235]]
    """

    mdp: Problem
    policy: Policy = TABULAR
    starts_at_meta = True

    def start(
        self, meta_parameters: npt.ArrayLike, theta: npt.ArrayLike | None
    ) -> tuple[FloatArray, FloatArray]:
        """The pair (phi, theta^0), which are equal. Raises ValueError if phi does not fit, or theta
        is neither None nor phi.
        """
        phi = policy_of(self.mdp, meta_parameters, self.policy, "meta_parameters").theta
        if theta is not None and not np.array_equal(np.asarray(theta), phi):
            raise ValueError(
                "theta: expected None or the meta-parameters, which MAML's inner loop starts from; "
                "got other parameters"
            )
        return phi, phi

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> InnerStep:
        """A step along the return's gradient."""
        at = policy_of(self.mdp, theta, self.policy)
        return ReturnStep(Evaluation(self.mdp.tables, at.probabilities), at)

    def outer(self, meta_parameters: FloatArray, theta: FloatArray) -> Outer:
        """The return and its gradient."""
        return _outer_return(self.mdp, theta, self.policy)


@dataclass(frozen=True, eq=False)
class Lirpg:
    """LIRPG: phi ``[S, A]`` is an intrinsic reward. Inner steps ascend the return of r + phi, the
    outer return is that of the problem's reward r.

    Attributes:
        mdp: the problem.
        policy: maps theta to logits (default: the tabular softmax).
        paid_at_end: whether a terminal state's phi is received at every step after the end. If not,
            phi ends with the episode, as in sampled trajectories, and its gradient there is 0.

    >>> from gradbias.analytic import TabularMDP, meta_gradient
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> phi, theta = [[0.0, 0.0]], [[0.0, 0.0]]
    >>> meta_gradient(Lirpg(bandit), phi, theta, steps=1, step_size=1.0).round(4).tolist()
    [[0.1175, -0.1175]]
    """

    mdp: Problem
    policy: Policy = TABULAR
    paid_at_end: bool = True
    starts_at_meta = False

    def start(
        self, meta_parameters: npt.ArrayLike, theta: npt.ArrayLike | None
    ) -> tuple[FloatArray, FloatArray]:
        """The pair (phi, theta^0). Raises ValueError if they do not fit."""
        at = policy_of(self.mdp, required_theta(theta), self.policy)
        return checked_reward("meta_parameters", meta_parameters, self.mdp, at.leading), at.theta

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> InnerStep:
        """A step along the gradient of the return of r + phi."""
        at = policy_of(self.mdp, theta, self.policy)
        tables = self.mdp.tables
        where = np.ones_like(tables.terminal) if self.paid_at_end else ~tables.terminal
        intrinsic = meta_parameters * where[..., None]
        inner = tables.with_reward(tables.reward + intrinsic[..., None, :, :])
        return ReturnStep(Evaluation(inner, at.probabilities), at, intrinsic=where)

    def outer(self, meta_parameters: FloatArray, theta: FloatArray) -> Outer:
        """The return of r and its gradient."""
        return _outer_return(self.mdp, theta, self.policy)


@dataclass(frozen=True, eq=False)
class Lola:
    """LOLA: phi are the parameters of ``player``, theta the opponent's. The opponent takes the
    inner steps, along the gradient of its return; the outer return is that of ``player``.

    Attributes:
        game: the game.
        player: 1 or 2, the player who looks ahead.

    Raises:
        ValueError: a player other than 1 or 2.

    >>> from gradbias.analytic import meta_gradient, prisoners_dilemma
    >>> zero = [0.0] * 5
    >>> game = prisoners_dilemma()
    >>> meta_gradient(Lola(game), zero, zero, steps=1, step_size=0.3).shape
    (5,)
    """

    game: StochasticGame
    player: int = 1
    starts_at_meta = False

    def __post_init__(self) -> None:
        check_player("player", self.player)

    def start(
        self, meta_parameters: npt.ArrayLike, theta: npt.ArrayLike | None
    ) -> tuple[FloatArray, FloatArray]:
        """The player's and the opponent's parameters. Raises ValueError if they do not fit."""
        ego = self._player(self.player, meta_parameters, "meta_parameters")
        opponent = self._player(self._opponent, required_theta(theta), "theta")
        together(ego, opponent, "theta")
        return ego.theta, opponent.theta

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> InnerStep:
        """The opponent's step along the gradient of its return."""
        return OpponentStep(self._game_at(meta_parameters, theta), self._opponent)

    def outer(self, meta_parameters: FloatArray, theta: FloatArray) -> Outer:
        """The player's return and its gradients in both players' parameters."""
        at = self._game_at(meta_parameters, theta)
        theta_gradient = at.gradient(of=self.player, wrt=self._opponent)
        meta_gradient = at.gradient(of=self.player, wrt=self.player)
        return Outer(at.value(self.player), theta_gradient, meta_gradient)

    @property
    def _opponent(self) -> int:
        return 3 - self.player

    def _player(self, player: int, parameters: npt.ArrayLike, name: str) -> PolicyAt:
        policy, n_actions = self.game.policies[player - 1], self.game.n_actions[player - 1]
        return policy_at(policy, parameters, self.game.n_states, n_actions, name=name)

    def _game_at(self, meta_parameters: FloatArray, theta: FloatArray) -> GameAt:
        ego = self._player(self.player, meta_parameters, "meta_parameters")
        opponent = self._player(self._opponent, theta, "theta")
        return GameAt(self.game, (ego, opponent) if self.player == 1 else (opponent, ego))


@dataclass(frozen=True, eq=False)
class Mgrl:
    """MGRL: phi ``[2]`` are the discount and lambda of the inner update's lambda-returns; the outer
    return uses the problem's discount.

    Attributes:
        mdp: the problem.
        critic: v, ``[S]`` or ``[H + 1, S]``, held fixed.
        weighting: the inner update's weight of each step; the discounted one uses the problem's
            discount, a constant.
        policy: maps theta to logits (default: the tabular softmax).

    Raises:
        ValueError: as `LambdaReturns`.

    >>> from gradbias.analytic import TabularMDP, meta_gradient
    >>> mdp = TabularMDP.random(3, 2, rng=np.random.default_rng(0), discount=0.9)
    >>> problem = Mgrl(mdp, critic=np.ones(3))
    >>> meta_gradient(problem, [0.9, 0.8], np.zeros((3, 2)), steps=2, step_size=0.5).shape
    (2,)
    """

    mdp: Problem
    critic: npt.ArrayLike
    weighting: StateWeighting = DISCOUNTED
    policy: Policy = TABULAR
    starts_at_meta = False

    def __post_init__(self) -> None:
        set_fields(self, critic=self._returns.critic)

    @cached_property
    def _returns(self) -> LambdaReturns:
        critic = frozen_array("critic", self.critic)
        return LambdaReturns(self.mdp, critic, self.weighting, self.policy)

    def start(
        self, meta_parameters: npt.ArrayLike, theta: npt.ArrayLike | None
    ) -> tuple[FloatArray, FloatArray]:
        """The pair ((discount, lambda), theta^0). Raises ValueError if they do not fit."""
        phi = frozen_array("meta_parameters", meta_parameters, (2,))
        return phi, policy_of(self.mdp, required_theta(theta), self.policy).theta

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> InnerStep:
        """A step along the expected lambda-return update."""
        discount, gae_lambda = meta_parameters.tolist()
        return LambdaStep(self._returns.at(theta, discount=discount, gae_lambda=gae_lambda))

    def outer(self, meta_parameters: FloatArray, theta: FloatArray) -> Outer:
        """The return, with the problem's discount, and its gradient."""
        return _outer_return(self.mdp, theta, self.policy)


def _outer_return(mdp: Problem, theta: FloatArray, policy: Policy) -> Outer:
    """The return of a problem, which does not depend on phi, and its gradient."""
    at = policy_of(mdp, theta, policy)
    exact = Evaluation(mdp.tables, at.probabilities)
    return Outer(exact.expected_return, at.vjp(logit_gradient(exact)))
