"""The constants of MGRL's loop, whose update is not the gradient of any objective.

Theorem 4.5 takes norms of the update's Jacobians alone, so it holds with them in place of Hessians.
Let V_n and Q_n be the lambda-returns' values with n steps to go, rho_n their rewards (which include
the critic's share), Pi the policy, Pi'_v its derivative along a unit direction v, P the transition
matrix, and W the discount of the states' weights. The update's product with v, U_n, obeys

    U_n = Pi'_v Q_n + W Pi P U_{n-1},    Q_n = rho_n + gamma lambda P V_{n-1}.

Its derivatives obey recursions like those of `analytic.constants.softmax`; so do those of Q_n in
gamma and lambda, which change its rewards rho and its discount.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (MGRL), Assumptions
4.1-4.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.constants.returns import gradient_deviation, return_constants
from gradbias.analytic.constants.softmax import SCORE, ProblemSizes, derivative_bounds
from gradbias.analytic.meta.bilevel import Mgrl
from gradbias.analytic.meta.inner_steps import LambdaStep
from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.problems.critics import critic_rows
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import Discounted, Undiscounted
from gradbias.analytic.returns.derivatives import gradient, hessian
from gradbias.analytic.utils.validation import FloatArray


@dataclass(frozen=True, eq=False)
class MgrlLoop:
    """The `LoopSource` of a `Mgrl` loop: ``phi`` is (discount, lambda), ``theta`` the logits
    ``[S, A]`` that the loop starts from.
    """

    problem: Mgrl
    mdp: TabularMDP
    phi: FloatArray
    theta: FloatArray

    @classmethod
    def of(
        cls, problem: Mgrl, phi: FloatArray, path: list[FloatArray], curvature: Curvature | None
    ) -> MgrlLoop:
        """The source for the expected ``path``. Raises ValueError as `loop_constants`."""
        mdp = problem.mdp
        if not isinstance(mdp, TabularMDP) or mdp.horizon is None:
            raise ValueError(f"problem: expected a TabularMDP with a finite horizon, got {mdp!r}")
        if problem.policy is not TABULAR:
            raise ValueError("problem: expected a tabular softmax policy, got another one")
        if not isinstance(problem.weighting, Discounted | Undiscounted):
            raise ValueError(f"problem: expected (un)discounted weights, got {problem.weighting!r}")
        if curvature is not None:
            raise ValueError(f"curvature: expected None for MGRL, got {curvature!r}")
        if path[0].ndim != 2:
            raise ValueError(f"theta: expected one policy, got shape {path[0].shape}")
        return cls(problem, mdp, phi, path[0])

    def largest_estimate(self) -> float:
        """The largest norm of an estimate of the update, from any trajectories."""
        return SCORE * self._credit()

    def everywhere(self) -> dict[str, float]:
        """Constants that hold for all theta, by name."""
        outer, sizes = return_constants(self.mdp), ProblemSizes.of(self.mdp)
        slopes = _Slopes.of(self)
        c1, rho1, chi1 = (math.hypot(*both) for both in zip(*slopes.in_phi, strict=True))
        return {
            "c2": slopes.update[1],
            "rho2": slopes.update[2],
            "chi2": slopes.update[3],
            "c1": c1,
            "rho1": rho1,
            "chi1": chi1,
            "change_h": slopes.update[2],
            "change_j": rho1,
            "m2": outer.slope,
            "mu2": outer.curvature,
            "nu2": outer.third,
            "sigma": self._credit() * math.sqrt(sizes.scatter),
            "sigma_2": gradient_deviation(self.mdp),
        }

    def in_ball(self, everywhere: dict[str, float], radius: float) -> dict[str, float]:
        """Constants on the ball: the values at theta^0, and how far they can change."""
        constants = self.at(self.theta)
        for name, change in {"c2": "rho2", "c1": "rho1", "mu2": "nu2", "m2": "mu2"}.items():
            fastest = min(constants.get(change, math.inf), everywhere[change])
            constants[name] = min(everywhere[name], constants[name] + fastest * radius)
        return constants

    def at(self, theta: FloatArray) -> dict[str, float]:
        """The exact norms of first and second derivatives at ``theta``; those of higher derivatives
        are not known.
        """
        step = self.problem.inner_step(self.phi, theta)
        every = np.eye(theta.size).reshape(-1, *theta.shape)
        columns = np.array([step.jvp(v).ravel() for v in every])
        constants = {"c2": float(np.linalg.norm(columns, 2))}
        if isinstance(step, LambdaStep):
            in_phi = (step.linear.discount_derivative, step.linear.lambda_derivative)
            constants["c1"] = float(np.linalg.norm([part.ravel() for part in in_phi], 2))
        outer_hessian = hessian(self.mdp, theta).reshape(theta.size, -1)
        slope = float(np.linalg.norm(gradient(self.mdp, theta)))
        return constants | {"m2": slope, "mu2": float(np.linalg.norm(outer_hessian, 2))}

    @property
    def horizon(self) -> int:
        """The horizon H, in steps."""
        return self.mdp.tables.steps

    @property
    def values(self) -> FloatArray:
        """The critic's values ``[H + 1, S]``."""
        return critic_rows(np.asarray(self.problem.critic), self.mdp.horizon, self.mdp.n_states)

    @property
    def weight(self) -> float:
        """W, the discount of the states' weights."""
        return self.mdp.discount if isinstance(self.problem.weighting, Discounted) else 1.0

    def _credit(self) -> float:
        """The largest weighted sum over steps of a lambda-return's advantage estimate."""
        gamma, decay = self.phi.tolist()
        values = self.values
        rewards = np.broadcast_to(
            self.mdp.next_state_reward, (self.horizon, *self.mdp.transition.shape)
        )
        errors = rewards + gamma * values[1:, None, None, :] - values[:-1, :, None, None]
        largest = float(np.abs(errors[:, self.mdp.transition > 0]).max())
        lengths = np.cumsum((gamma * decay) ** np.arange(self.horizon))[::-1]
        return largest * float(self.weight ** np.arange(self.horizon) @ lengths)


@dataclass(frozen=True)
class _Slopes:
    """Bounds of norms, by the order of the derivative in theta.

    Attributes:
        update: of the update, orders 0 to 3.
        in_phi: of the update's derivatives in gamma and in lambda, orders 0 to 2 each.
    """

    update: tuple[float, ...]
    in_phi: tuple[tuple[float, ...], tuple[float, ...]]

    @classmethod
    def of(cls, loop: MgrlLoop) -> _Slopes:
        """The bounds for a loop, by recursion over the steps to go."""
        gamma, decay = loop.phi.tolist()
        folded, ahead = _folded(loop)
        sizes = ProblemSizes.of(folded)
        rows = [dict.fromkeys(("x1", "x2", "x3", "x4"), 0.0), *derivative_bounds(sizes)]
        turn, tau = folded.discount * sizes.influence, sizes.influence
        update = _Update(sizes, loop.weight)
        by = (_InPhi(sizes, loop.weight, decay), _InPhi(sizes, loop.weight, gamma))
        for n in range(1, loop.horizon + 1):
            before = [rows[n - 1][f"x{k}"] for k in (1, 2, 3)]
            spread = sizes.mean_span * sizes.length(n - 1)
            update.step(sizes.action_span + turn * spread, [turn * x for x in before])
            share = 1.0 if n == 1 else 1.0 - decay
            critic = ahead[loop.horizon - n]
            spans = float(np.ptp(critic)), float(np.ptp(critic, axis=1).max())
            for each, factor in zip(by, (share, 0.0 if n == 1 else gamma), strict=True):
                each.step(tau, factor * spans[0], factor * spans[1], spread, before)
        return cls(tuple(update.norms), (tuple(by[0].update.norms), tuple(by[1].update.norms)))


def _folded(loop: MgrlLoop) -> tuple[TabularMDP, FloatArray]:
    """The MDP whose values are the lambda-returns (the critic is folded into its rewards), and the
    critic's expected value of the next state, ``[H, S, A]``.
    """
    gamma, decay = loop.phi.tolist()
    mdp, horizon = loop.mdp, loop.horizon
    ahead = np.einsum("sax,tx->tsa", mdp.transition, loop.values[1:])
    share = np.where(np.arange(horizon) == horizon - 1, 1.0, 1.0 - decay)[:, None, None]
    reward = mdp.tables.reward + gamma * share * ahead
    table = reward[..., None] * np.ones(mdp.n_states)
    return TabularMDP(mdp.transition, table, gamma * decay, mdp.start, horizon), ahead


class _Update:
    """Bounds of the update's derivatives in theta, one more step to go with each call of `step`."""

    def __init__(self, sizes: ProblemSizes, weight: float, orders: int = 4) -> None:
        self.softmax, self.turn = (1.0, *sizes.softmax), weight * sizes.influence
        self.weight, self.norms = weight, [0.0] * orders

    def step(self, span: float, later: list[float]) -> None:
        """Adds a step. ``span`` is the span of the action values over actions, ``later[k - 1]``
        half the span of their k-th derivative.
        """
        b, before = self.softmax, list(self.norms)
        for k in range(len(before)):
            total = 0.5 * b[k + 1] * span + self.weight * before[k]
            for j in range(k):
                total += math.comb(k, j) * b[j + 1] * later[k - j - 1]
            for j in range(1, k + 1):
                total += math.comb(k, j) * b[j] * self.turn * before[k - j]
            self.norms[k] = total


class _InPhi:
    """The same bounds for the update's derivative in gamma or in lambda. ``rate`` is the derivative
    of the folded problem's discount, gamma lambda, in that number.
    """

    def __init__(self, sizes: ProblemSizes, weight: float, rate: float) -> None:
        self.update = _Update(sizes, weight, orders=3)
        self.softmax, self.discount, self.rate = sizes.softmax, sizes.mdp.discount, rate
        self.span, self.values = 0.0, [0.0, 0.0]

    def step(
        self, tau: float, reward: float, chosen: float, spread: float, before: list[float]
    ) -> None:
        """Adds a step. ``tau`` is that of `analytic.constants.softmax`; ``reward`` and ``chosen``
        are the spans of the derivative of the step's rewards over states and actions, and over
        actions alone. ``spread`` is the span of the values one step later, ``before`` bounds their
        derivatives.
        """
        ahead = self.rate * spread + self.discount * self.span
        later = [
            self.rate * x + self.discount * y for x, y in zip(before[:2], self.values, strict=True)
        ]
        decided, span = [tau * x for x in later], chosen + tau * ahead
        self.update.step(span, decided)
        b1, b2, *_ = self.softmax
        first = 0.5 * b1 * span + later[0]
        second = 0.5 * b2 * span + 2.0 * b1 * decided[0] + later[1]
        self.span, self.values = reward + ahead, [first, second]
