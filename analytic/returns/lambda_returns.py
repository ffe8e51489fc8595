"""Expected policy-gradient updates from lambda-returns.

With a critic v ``[S]``, held fixed, the lambda-return's action values are

    Q_t = r + gamma P [(1 - lambda) v + lambda V_{t+1}],    V_t = sum_a pi Q_t

(over H steps the last one is bootstrapped with v alone), and the expected update in the logits is
``u = sum_t w_t pi (Q_t - V_t)`` with on-policy state weights w_t: discounted, undiscounted (as in
most code, which drops gamma^t) or given. The weights' discount is the problem's, a constant that
does not change with the update's gamma. In general u is the gradient of no function, so its
Jacobian is not symmetric, and products with it and with its transpose are two things.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3 (MGRL); the Jacobian
products follow by differentiation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.at_parameters import PolicyAt
from gradbias.analytic.policies.jets import Part, Parts, required
from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.critics import check_ends, critic_rows
from gradbias.analytic.problems.tables import Problem
from gradbias.analytic.problems.targets import DISCOUNTED, StateWeighting
from gradbias.analytic.returns.evaluation import Evaluation, policy_of
from gradbias.analytic.returns.state_weighting import weighted_visits
from gradbias.analytic.returns.value_jets import Expansion, policy_gradient
from gradbias.analytic.utils.validation import (
    BoolArray,
    FloatArray,
    frozen_array,
    real_number,
    set_fields,
)


@dataclass(frozen=True, eq=False)
class LambdaReturns:
    """The lambda-return update of a problem with a fixed critic.

    Attributes:
        mdp: the problem.
        critic: v, ``[S]`` or ``[H + 1, S]``, 0 at terminal states.
        weighting: the weight of each step; the discounted one uses the problem's discount.
        policy: maps theta to logits (default: the tabular softmax).

    Raises:
        ValueError: a critic of a wrong shape or not 0 at terminal states; a weighting that needs a
            finite horizon.

    >>> from gradbias.analytic import TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> update = LambdaReturns(bandit, critic=[0.0])
    >>> update.at([[0.0, 0.0]], discount=0.9, gae_lambda=0.8).update.tolist()
    [[0.25, -0.25]]
    """

    mdp: Problem
    critic: FloatArray
    weighting: StateWeighting = DISCOUNTED
    policy: Policy = TABULAR

    def __post_init__(self) -> None:
        tables = self.mdp.tables
        critic = frozen_array("critic", self.critic)
        check_ends(critic_rows(critic, tables.horizon, self.mdp.n_states), tables.terminal)
        weighted_visits(tables, np.ones((self.mdp.n_states, self.mdp.n_actions)), self.weighting)
        set_fields(self, critic=critic)

    def at(self, theta: npt.ArrayLike, *, discount: float, gae_lambda: float) -> LambdaUpdate:
        """The update at given parameters, discount and lambda.

        Args:
            theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
            discount: the update's gamma, in [0, 1].
            gae_lambda: the update's lambda, in [0, 1].

        Returns:
            The update, its derivatives and its Jacobian's products.

        Raises:
            ValueError: theta does not fit; discount (or discount x lambda over the infinite
                horizon) or lambda outside [0, 1].
        """
        gamma = real_number("discount", discount, low=0.0, high=1.0)
        gae_lambda = real_number("gae_lambda", gae_lambda, low=0.0, high=1.0)
        if self.mdp.horizon is None and gamma * gae_lambda == 1.0:
            raise ValueError("discount x gae_lambda: 1 needs a finite horizon, got horizon None")
        return LambdaUpdate(self, policy_of(self.mdp, theta, self.policy), gamma, gae_lambda)


@dataclass(frozen=True, eq=False)
class LambdaUpdate:
    """The expected update u at one point, its Jacobian's products and its meta-derivatives.

    Attributes:
        returns: the problem, critic, weighting and policy.
        at: the policy at theta.
        discount: the update's gamma.
        gae_lambda: the update's lambda.
    """

    returns: LambdaReturns
    at: PolicyAt
    discount: float
    gae_lambda: float

    @cached_property
    def _critic_ahead(self) -> FloatArray:
        """``P v_{t+1}``, ``[..., T, S, A]``."""
        mdp = self.returns.mdp
        rows = critic_rows(self.returns.critic, mdp.horizon, mdp.n_states)
        return mdp.tables.kernel.expect(rows[-mdp.tables.steps :])

    @property
    def _last(self) -> BoolArray:
        """``[T, 1, 1]``: True where the return ends in the critic alone."""
        steps = self.returns.mdp.tables.steps
        ends = self.returns.mdp.horizon is not None
        return np.asarray((np.arange(steps) == steps - 1) & ends)[:, None, None]

    @cached_property
    def values(self) -> Evaluation:
        """The lambda-return's values. They are those of an MDP with the discount gamma lambda,
        whose reward includes the critic's share ``gamma (1 - lambda) P v``.
        """
        tables = self.returns.mdp.tables
        share = np.where(self._last, 1.0, 1.0 - self.gae_lambda)
        reward = tables.reward + self.discount * share * self._critic_ahead
        factor = np.full_like(tables.discount, self.discount * self.gae_lambda)
        tables = replace(tables.with_reward(reward), discount=factor)
        return Evaluation(tables, self.at.probabilities)

    @cached_property
    def _visits(self) -> tuple[Evaluation, FloatArray]:
        policy = self.at.probabilities
        return weighted_visits(self.returns.mdp.tables, policy, self.returns.weighting)

    def _field(self, values: Expansion, occupancy: Parts) -> list[Part]:
        """The jet of the update in the logits, from those of lambda-values and of visits."""
        factors = self._visits[1]
        weighted = [None if part is None else factors * part for part in occupancy]
        timed = [None if part is None else part[..., None, :, :] for part in values.policy]
        return policy_gradient(weighted, timed, values.advantages)

    @cached_property
    def _update(self) -> FloatArray:
        """The update in the logits, ``[..., S, A]``."""
        values = Expansion(self.values, [self.at.probabilities])
        return required(self._field(values, [self._visits[0].occupancy])[0])

    @property
    def update(self) -> FloatArray:
        """The update u, shaped like theta."""
        return self.at.vjp(self._update)

    def jvp(self, v: npt.ArrayLike) -> FloatArray:
        """``(du/dtheta) v``, shaped like theta. Raises ValueError if v does not fit."""
        direction = self.at.direction(v)
        policy = self.at.jet([direction])
        occupancy = Expansion(self._visits[0], policy).occupancy
        fields = self._field(Expansion(self.values, policy), occupancy)
        return self.at.vjp_jet(fields, [direction])

    def vjp(self, cotangent: npt.ArrayLike) -> FloatArray:
        """``(du/dtheta)^T cotangent``, shaped like theta. Raises ValueError if it does not fit."""
        direction = self.at.direction(cotangent, "cotangent")
        logit_cotangent = required(self.at.logit_jet([direction])[1])
        return self.at.vjp_jet([self._update, self._logit_vjp(logit_cotangent)], [direction])

    def _logit_vjp(self, cotangent: FloatArray) -> FloatArray:
        """The product in the logits; u depends on the policy at each state, values and visits."""
        pi = self.at.probabilities
        visits, factors = self._visits
        weights = (factors * visits.occupancy)[..., None]
        centred = (cotangent - (pi * cotangent).sum(axis=-1, keepdims=True))[..., None, :, :]
        pi = pi[..., None, :, :]
        advantages = self.values.advantages
        covariance = (pi * centred * advantages).sum(axis=-1, keepdims=True)
        here = weights * pi * (centred * advantages - covariance)

        system, tables = self.values.system, self.values.tables
        arriving = tables.per_step() * tables.kernel.push(weights * pi * centred)
        ahead = system.solve_adjoint(system.earlier(arriving))[..., None] * pi * advantages

        system, tables = visits.system, visits.tables
        # The occupancy's adjoint is a value recursion with the covariance as its reward.
        adjoint_values = system.later(system.solve(factors * covariance[..., 0]))
        adjoint = tables.per_step()[..., None] * tables.kernel.expect(adjoint_values)
        adjoint = adjoint - (pi * adjoint).sum(axis=-1, keepdims=True)
        by_visits = visits.occupancy[..., None] * pi * adjoint
        return np.asarray((here + ahead + by_visits).sum(axis=-3))

    @cached_property
    def discount_derivative(self) -> FloatArray:
        """``du/dgamma`` (the state weights' discount is constant), shaped like theta."""
        share = np.where(self._last, 1.0, 1.0 - self.gae_lambda)
        return self._meta_derivative(share * self._critic_ahead, self.gae_lambda)

    @cached_property
    def lambda_derivative(self) -> FloatArray:
        """``du/dlambda``, shaped like theta."""
        share = np.where(self._last, 0.0, -self.discount)
        return self._meta_derivative(share * self._critic_ahead, self.discount)

    def _meta_derivative(self, reward: FloatArray, factor: float) -> FloatArray:
        """The update's derivative if the problem of `values` has ``reward`` and ``factor`` as the
        derivatives of its reward and its discount.
        """
        base = self.values
        tangent = Expansion(
            base,
            policy=[self.at.probabilities, None],
            reward=[base.reward, reward],
            discount=[base.tables.discount, np.full_like(base.tables.discount, factor)],
        )
        return self.at.vjp(required(self._field(tangent, [self._visits[0].occupancy, None])[1]))
