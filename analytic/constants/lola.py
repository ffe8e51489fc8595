"""The constants of LOLA's loop: the opponent's return is the inner one, the player's the outer one.

A derivative in both players' parameters is bounded by the joint one of its order
(`analytic.constants.games`). Deviations are those of estimates with rewards-to-go; the opponent's
Hessian and the mixed derivative are DiCE's, which take both players' scores and are unbiased: with
rewards of at most R, and scores whose squares are at most q_1 and q_2 on average, the noise of step
k of the latter's martingale is at most ``R sqrt(q_1 q_2) (1 + 2 sqrt(k))``.

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
from gradbias.analytic.returns.game_derivatives import game_gradient, game_hvp
from gradbias.analytic.utils.validation import FloatArray


@dataclass(frozen=True, eq=False)
class LolaLoop:
    """The loop, for parameters ``phi`` of the player who looks ahead, and the expected ``path`` of
    the opponent's; ``sampled_curvature`` says whether Hessians and mixed derivatives are estimated.
    """

    problem: Lola
    phi: FloatArray
    path: list[FloatArray]
    sampled_curvature: bool

    @property
    def player(self) -> int:
        """Who looks ahead."""
        return self.problem.player

    @property
    def opponent(self) -> int:
        """Who moves."""
        return 3 - self.problem.player

    def largest_estimate(self) -> float:
        """What an estimate of the opponent's gradient from any trajectories does not exceed."""
        sizes = self._sizes(self.opponent)
        alone = self.problem.game.n_actions[self.opponent - 1] == 1
        return 0.0 if alone else SCORE * sizes.largest_reward * sizes.paired_length

    def everywhere(self) -> dict[str, float]:
        """What holds for all parameters of both, by name."""
        game = self.problem.game
        inner, outer = game_constants(game, self.opponent), game_constants(game, self.player)
        noise, paid = self._noise(), self._sizes(self.player).largest_reward
        own = self._scatter(self.opponent)
        found = {
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
            "sigma": self._sizes(self.opponent).largest_reward * math.sqrt(own) * noise,
            "sigma_1": paid * math.sqrt(self._scatter(self.player)) * noise,
            "sigma_2": paid * math.sqrt(own) * noise,
        }
        return found | (self._curvature_noise() if self.sampled_curvature else {})

    def at(self, theta: FloatArray) -> dict[str, float]:
        """What is there, exactly; third derivatives are not."""
        game, me, other = self.problem.game, self.player, self.opponent
        thetas = (self.phi, theta) if me == 1 else (theta, self.phi)

        def second(of: int, wrt: int) -> float:
            every = np.eye(theta.size).reshape(-1, *theta.shape)
            asked = {"of": of, "wrt": wrt, "along": other}
            columns = [game_hvp(game, *thetas, v, **asked).ravel() for v in every]
            return float(np.linalg.norm(columns, 2))

        slopes = [game_gradient(game, *thetas, of=me, wrt=wrt) for wrt in (me, other)]
        m1, m2 = (float(np.linalg.norm(slope)) for slope in slopes)
        found = {"c2": second(other, other), "c1": second(other, me), "m1": m1, "m2": m2}
        return found | {"mu2": second(me, other), "mu12": second(me, me)}

    def in_ball(self, everywhere: dict[str, float], radius: float) -> dict[str, float]:
        """On the ball around theta^0: what is there, and how far that can change."""
        found = self.at(self.path[0])
        changes = {"c2": "rho2", "c1": "rho1", "mu2": "nu2", "mu12": "nu12"}
        # The outer gradients last: they change by what is bounded before.
        for name, change in (changes | {"m1": "mu12", "m2": "mu2"}).items():
            fastest = min(found.get(change, math.inf), everywhere[change])
            found[name] = min(everywhere[name], found[name] + fastest * radius)
        return found

    def along_path(self) -> dict[str, float]:
        """The largest at the expected iterates, of the outer return at the last."""
        each = [self.at(theta) for theta in self.path]
        inner = {name: max(at[name] for at in each[:-1]) for name in ("c1", "c2")}
        return each[-1] | inner

    def _sizes(self, player: int) -> ProblemSizes:
        return ProblemSizes.of(joint_problem(self.problem.game, player))

    def _scatter(self, player: int) -> float:
        return 1.0 - 1.0 / self.problem.game.n_actions[player - 1]

    def _discounts(self) -> FloatArray:
        """``[H]``: of each reward."""
        game = self.problem.game
        return np.asarray(game.discount ** np.arange(game.joint_tables[0].steps))

    def _noise(self) -> float:
        """A gradient's deviation, for rewards of 1 and scores of mean square 1."""
        discounts = self._discounts()
        return float(discounts @ np.sqrt(np.arange(len(discounts)) + 1.0))

    def _curvature_noise(self) -> dict[str, float]:
        own, other = self._scatter(self.opponent), self._scatter(self.player)
        discounts = self._discounts()
        paid, k = self._sizes(self.opponent).largest_reward, np.arange(len(discounts))

        def summed(steps: FloatArray) -> float:
            return float(paid * (discounts @ np.sqrt(np.cumsum(steps**2))))

        across = 2.0 * np.sqrt(k)
        return {
            "sigma_h": summed(math.sqrt(2.0 * own) + own * across),
            "sigma_j": summed(math.sqrt(own * other) * (1.0 + across)),
        }
