"""The constants of LOLA's loop: the opponent's return is the inner one, the player's the outer one.

A derivative in both players' parameters is bounded by the joint one of its order
(`analytic.constants.games`). Standard deviations are those of estimates with rewards-to-go. The
Hessian and the mixed derivative are DiCE's, which take both players' scores and are unbiased. For
rewards of at most R, and scores whose squares are at most q_1 and q_2 on average, the mixed
derivative's estimate is a martingale whose step k has noise of at most
``R sqrt(q_1 q_2) (1 + 2 sqrt(k))``.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (LOLA), Assumptions
4.1-4.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.constants.games import game_constants, joint_problem
from gradbias.analytic.constants.softmax import SCORE, ProblemSizes
from gradbias.analytic.meta.bilevel import Lola
from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.returns.game_derivatives import game_gradient, game_hvp
from gradbias.analytic.utils.validation import FloatArray


@dataclass(frozen=True, eq=False)
class LolaLoop:
    """The `LoopSource` of a `Lola` loop: ``phi`` are the parameters of the player who looks ahead,
    ``theta`` the opponent's before the first step; ``sampled_curvature`` says whether the Hessian
    and the mixed derivative are estimated.
    """

    problem: Lola
    phi: FloatArray
    theta: FloatArray
    sampled_curvature: bool

    @classmethod
    def of(
        cls, problem: Lola, phi: FloatArray, path: list[FloatArray], curvature: Curvature | None
    ) -> LolaLoop:
        """The source for the expected ``path``. Raises ValueError as `loop_constants`."""
        if problem.game.horizon is None:
            raise ValueError("problem: expected a game with a finite horizon, got horizon None")
        if curvature not in (None, Curvature.DICE):
            raise ValueError(f"curvature: expected None or DiCE's in a game, got {curvature!r}")
        if path[-1].shape != path[0].shape or problem.outer(phi, path[0]).value.ndim:
            raise ValueError(f"theta: expected one pair of policies, got shape {path[-1].shape}")
        return cls(problem, phi, path[0], sampled_curvature=curvature is not None)

    @property
    def player(self) -> int:
        """The player who looks ahead, 1 or 2."""
        return self.problem.player

    @property
    def opponent(self) -> int:
        """The player who takes the inner steps, 1 or 2."""
        return 3 - self.problem.player

    def largest_estimate(self) -> float:
        """The largest norm of an estimate of the opponent's gradient, from any trajectories."""
        sizes = self._sizes(self.opponent)
        alone = self.problem.game.n_actions[self.opponent - 1] == 1
        return 0.0 if alone else SCORE * sizes.largest_reward * sizes.paired_length

    def everywhere(self) -> dict[str, float]:
        """Constants that hold for all parameters of both players, by name."""
        game = self.problem.game
        inner, outer = game_constants(game, self.opponent), game_constants(game, self.player)
        noise, reward = self._noise(), self._sizes(self.player).largest_reward
        scatter = self._scatter(self.opponent)
        constants = {
            "c2": inner.own.curvature,
            "rho2": inner.own.third,
            "chi2": inner.own.fourth,
            "c1": inner.mixed,
            "rho1": inner.joint.third,
            "chi1": inner.joint.fourth,
            "m1": outer.own.slope,
            "m2": outer.own.slope,
            "mu2": outer.own.curvature,
            "nu2": outer.own.third,
            "mu12": outer.mixed,
            "nu12": outer.joint.third,
            "change_h": inner.own.third,
            "change_j": inner.joint.third,
            "sigma": self._sizes(self.opponent).largest_reward * math.sqrt(scatter) * noise,
            "sigma_1": reward * math.sqrt(self._scatter(self.player)) * noise,
            "sigma_2": reward * math.sqrt(scatter) * noise,
        }
        return constants | (self._curvature_noise() if self.sampled_curvature else {})

    def at(self, theta: FloatArray) -> dict[str, float]:
        """The exact norms of first and second derivatives at ``theta``; those of third derivatives
        are not known.
        """
        game, me, other = self.problem.game, self.player, self.opponent
        thetas = (self.phi, theta) if me == 1 else (theta, self.phi)

        def second(of: int, wrt: int) -> float:
            every = np.eye(theta.size).reshape(-1, *theta.shape)
            columns = [game_hvp(game, *thetas, v, of=of, wrt=wrt, along=other) for v in every]
            return float(np.linalg.norm([column.ravel() for column in columns], 2))

        slopes = [game_gradient(game, *thetas, of=me, wrt=wrt) for wrt in (me, other)]
        m1, m2 = (float(np.linalg.norm(slope)) for slope in slopes)
        inner = {"c2": second(other, other), "c1": second(other, me)}
        return inner | {"m1": m1, "m2": m2, "mu2": second(me, other), "mu12": second(me, me)}

    def in_ball(self, everywhere: dict[str, float], radius: float) -> dict[str, float]:
        """Constants on the ball: the values at theta^0, and how far they can change."""
        constants = self.at(self.theta)
        changes = {"c2": "rho2", "c1": "rho1", "mu2": "nu2", "mu12": "nu12"}
        # The outer gradients come last, because the bounds of their derivatives are used.
        for name, change in (changes | {"m1": "mu12", "m2": "mu2"}).items():
            fastest = min(constants.get(change, math.inf), everywhere[change])
            constants[name] = min(everywhere[name], constants[name] + fastest * radius)
        return constants

    def _sizes(self, player: int) -> ProblemSizes:
        return ProblemSizes.of(joint_problem(self.problem.game, player))

    def _scatter(self, player: int) -> float:
        return 1.0 - 1.0 / self.problem.game.n_actions[player - 1]

    def _discounts(self) -> FloatArray:
        """``[H]``: the discount of each step's reward."""
        game = self.problem.game
        return np.asarray(game.discount ** np.arange(game.joint_tables[0].steps))

    def _noise(self) -> float:
        """The gradient estimate's standard deviation if rewards are 1, scores of mean square 1."""
        discounts = self._discounts()
        return float(discounts @ np.sqrt(np.arange(len(discounts)) + 1.0))

    def _curvature_noise(self) -> dict[str, float]:
        """Standard deviations of the Hessian's and the mixed derivative's estimates."""
        opponent, player = self._scatter(self.opponent), self._scatter(self.player)
        discounts = self._discounts()
        reward, k = self._sizes(self.opponent).largest_reward, np.arange(len(discounts))

        def summed(steps: FloatArray) -> float:
            return float(reward * (discounts @ np.sqrt(np.cumsum(steps**2))))

        across = 2.0 * np.sqrt(k)
        return {
            "sigma_h": summed(math.sqrt(2.0 * opponent) + opponent * across),
            "sigma_j": summed(math.sqrt(opponent * player) * (1.0 + across)),
        }
