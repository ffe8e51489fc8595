"""Bilevel problems: an inner loop that moves policy parameters, and a return at its end.

An inner step is ``theta + step_size * g(phi, theta)`` with meta-parameters phi; the outer
objective is a return after the last step. Each problem says how g and the outer return depend on
both; what is done with it is in `analytic.meta.meta_gradients`. Inner steps are *expected* ones.

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
from gradbias.analytic.utils.validation import FloatArray, frozen_array


@dataclass(frozen=True, eq=False)
class Outer:
    """The outer return at (phi, theta^K) and its gradients (None: it does not depend on phi)."""

    value: FloatArray
    theta_gradient: FloatArray
    meta_gradient: FloatArray | None = None


class BilevelProblem(Protocol):
    """What `meta_gradient` needs of an inner loop and an outer return."""

    @property
    def starts_at_meta(self) -> bool:
        """Whether theta^0 is phi (dtheta^0/dphi = I); else it does not depend on phi."""

    def start(
        self, meta_parameters: npt.ArrayLike, theta: npt.ArrayLike | None
    ) -> tuple[FloatArray, FloatArray]:
        """Both phi and theta^0, checked. Raises ValueError where they do not fit."""

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> InnerStep:
        """The inner update at (phi, theta)."""

    def outer(self, meta_parameters: FloatArray, theta: FloatArray) -> Outer:
        """The outer return at (phi, theta)."""


@dataclass(frozen=True, eq=False)
class Maml:
    """MAML: phi is theta^0; the return of ``mdp`` is ascended and, after the last step, measured.

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
        """theta^0 twice. Raises ValueError if it does not fit, or another theta is given."""
        found = policy_of(self.mdp, meta_parameters, self.policy, "meta_parameters").theta
        if theta is not None and not np.array_equal(np.asarray(theta), found):
            raise ValueError(
                "theta: expected None or the meta-parameters, which MAML's inner loop starts from; "
                "got other parameters"
            )
        return found, found

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> InnerStep:
        """A step up the return."""
        at = policy_of(self.mdp, theta, self.policy)
        return ReturnStep(Evaluation(self.mdp.tables, at.probabilities), at)

    def outer(self, meta_parameters: FloatArray, theta: FloatArray) -> Outer:
        """The return."""
        return _outer_return(self.mdp, theta, self.policy)


@dataclass(frozen=True, eq=False)
class Lirpg:
    """LIRPG: phi ``[S, A]`` is an intrinsic reward; inner steps ascend the return of reward
    r + phi, the outer return is of r alone.

    phi is paid at every step, at a terminal state for ever; with ``paid_at_end=False`` it ends with
    the episode, as sampled trajectories do, and its gradient there is 0.

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
        """Both phi and theta^0. Raises ValueError where they do not fit."""
        at = policy_of(self.mdp, _given(theta), self.policy)
        return checked_reward("meta_parameters", meta_parameters, self.mdp, at.leading), at.theta

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> InnerStep:
        """A step up the return of r + phi."""
        at = policy_of(self.mdp, theta, self.policy)
        tables = self.mdp.tables
        share = np.ones_like(tables.terminal) if self.paid_at_end else ~tables.terminal
        intrinsic = meta_parameters * share[..., None]
        paid = tables.with_reward(tables.reward + intrinsic[..., None, :, :])
        return ReturnStep(Evaluation(paid, at.probabilities), at, intrinsic=share)

    def outer(self, meta_parameters: FloatArray, theta: FloatArray) -> Outer:
        """The return of r."""
        return _outer_return(self.mdp, theta, self.policy)


@dataclass(frozen=True, eq=False)
class Lola:
    """LOLA: phi are the parameters of ``player``, who looks ahead; theta the opponent's, who alone
    moves, up its own return. The outer return is that of ``player``, and depends on phi directly.

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
        """Both players' parameters. Raises ValueError where they do not fit."""
        ego = self._player(self.player, meta_parameters, "meta_parameters")
        opponent = self._player(self._opponent, _given(theta), "theta")
        together(ego, opponent, "theta")
        return ego.theta, opponent.theta

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> InnerStep:
        """The opponent's step up its own return."""
        return OpponentStep(self._at(meta_parameters, theta), self._opponent)

    def outer(self, meta_parameters: FloatArray, theta: FloatArray) -> Outer:
        """The return of the player who looks ahead."""
        at = self._at(meta_parameters, theta)
        theta_gradient = at.gradient(of=self.player, wrt=self._opponent)
        meta_gradient = at.gradient(of=self.player, wrt=self.player)
        return Outer(at.value(self.player), theta_gradient, meta_gradient)

    @property
    def _opponent(self) -> int:
        return 3 - self.player

    def _player(self, player: int, parameters: npt.ArrayLike, name: str) -> PolicyAt:
        policy, n_actions = self.game.policies[player - 1], self.game.n_actions[player - 1]
        return policy_at(policy, parameters, self.game.n_states, n_actions, name=name)

    def _at(self, meta_parameters: FloatArray, theta: FloatArray) -> GameAt:
        ego = self._player(self.player, meta_parameters, "meta_parameters")
        opponent = self._player(self._opponent, theta, "theta")
        return GameAt(self.game, (ego, opponent) if self.player == 1 else (opponent, ego))


@dataclass(frozen=True, eq=False)
class Mgrl:
    """MGRL: phi ``[2]`` are the discount and lambda of the inner update's lambda-returns; the outer
    return uses the problem's own discount.

    ``critic [S]`` (or ``[H + 1, S]``) is a table that does not move. ``weighting`` says how the
    inner update weighs states (with the problem's discount, a constant; or undiscounted).

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
        object.__setattr__(self, "critic", self._returns.critic)

    @cached_property
    def _returns(self) -> LambdaReturns:
        critic = frozen_array("critic", self.critic)
        return LambdaReturns(self.mdp, critic, self.weighting, self.policy)

    def start(
        self, meta_parameters: npt.ArrayLike, theta: npt.ArrayLike | None
    ) -> tuple[FloatArray, FloatArray]:
        """(discount, lambda) and theta^0. Raises ValueError where they do not fit."""
        phi = frozen_array("meta_parameters", meta_parameters, (2,))
        return phi, policy_of(self.mdp, _given(theta), self.policy).theta

    def inner_step(self, meta_parameters: FloatArray, theta: FloatArray) -> InnerStep:
        """A step along the expected lambda-return update."""
        discount, gae_lambda = meta_parameters.tolist()
        return LambdaStep(self._returns.at(theta, discount=discount, gae_lambda=gae_lambda))

    def outer(self, meta_parameters: FloatArray, theta: FloatArray) -> Outer:
        """The return, with the problem's own discount."""
        return _outer_return(self.mdp, theta, self.policy)


def _outer_return(mdp: Problem, theta: FloatArray, policy: Policy) -> Outer:
    at = policy_of(mdp, theta, policy)
    exact = Evaluation(mdp.tables, at.probabilities)
    return Outer(exact.expected_return, at.vjp(logit_gradient(exact)))


def _given(theta: npt.ArrayLike | None) -> npt.ArrayLike:
    if theta is None:
        raise ValueError("theta: expected the parameters that the inner loop starts from, got None")
    return theta
