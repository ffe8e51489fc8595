"""What Hessian estimators estimate: their exact mean, as a matrix.

Let B_t(s, a) be the mean of what step t is credited with, given (s, a): the reward-to-go less the
critic's value, or GAE(lambda), which obeys ``B_t = r + gamma P v_{t+1} - v_t + gamma lambda P sum_b
pi B_{t+1}``. With on-policy weights w_t p_t of the states,

- AD has the mean ``sum_t,s,a w_t p_t pi B_t (Hessian of log pi)``: it sees the critic, and under
  the exact values is 0 for policies whose logits are linear;
- LVC the mean ``sum_t,s,a w_t p_t B_t (Hessian of pi)``: the block term of the return's Hessian;
- DiCE the Hessian of the return itself, and Loaded-DiCE that of the return of rewards ``B_t - sum_b
  pi B_t``, held fixed: the return's own Hessian where lambda = 1 and nothing is bootstrapped, or
  where the values are exact (the advantages' return is J less a constant), else another one.

Source: Finn et al. 2017 (AD), Rothfuss et al. 2019 (LVC), Foerster et al. 2018 (DiCE), Farquhar et
al. 2019 (Loaded DiCE); *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gradbias.analytic.moments.estimators import Curvature, check_credit
from gradbias.analytic.moments.step_sums import (
    check_ending,
    checked_lambda,
    critic_over_time,
)
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import DISCOUNTED, StateWeighting
from gradbias.analytic.returns.derivatives import hessian_at, logit_gradient
from gradbias.analytic.returns.evaluation import Evaluation, single_policy
from gradbias.analytic.returns.hessians import block_term
from gradbias.analytic.returns.state_weighting import weighted_visits
from gradbias.analytic.returns.value_jets import field_over_time
from gradbias.analytic.utils.validation import FloatArray


def hessian_estimate_mean(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    curvature: Curvature,
    *,
    credit: Credit = Credit.REWARD_TO_GO,
    critic: npt.ArrayLike | None = None,
    gae_lambda: float | None = None,
    weighting: StateWeighting = DISCOUNTED,
    policy: Policy = TABULAR,
) -> FloatArray:
    """The exact mean of a Hessian estimate, theta's axes twice (``[S, A, S, A]`` for a tabular
    policy), for a finite or the infinite horizon. The arguments are those of `hvp_moments`.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 4.3; `analytic.
    estimate_means`.

    Raises:
        ValueError: theta or the critic does not fit, whole returns with GAE or DiCE, whole returns
            or other weightings over the infinite horizon.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> hessian_estimate_mean(bandit, [[0.0, 0.0]], Curvature.AD)[0, 0].tolist()
    [[-0.125, 0.125]]
    >>> hessian_estimate_mean(bandit, [[0.0, 0.0]], Curvature.LVC)[0, 0].tolist()
    [[0.0, 0.0]]
    """
    check_credit(credit, gae_lambda, curvature)
    at = single_policy(mdp, theta, policy)
    seen = _Credited.of(mdp, at.probabilities, critic, gae_lambda, weighting)
    if curvature is Curvature.DICE:
        return hessian_at(at, seen.paid_advantages)
    if credit is Credit.TOTAL_RETURN:
        check_ending(mdp)
        slope, weight = logit_gradient(seen.exact), seen.whole_return_weight
    else:
        slope, weight = field_over_time(seen.visits, seen.credited), seen.weight
    blocks = block_term(slope, at.probabilities)
    if curvature is Curvature.AD:
        blocks = -weight[:, None, None] * _softmax_blocks(at.probabilities)
    full = np.zeros((*slope.shape, *slope.shape))
    states = np.arange(mdp.n_states)
    full[states, :, states] = blocks
    return at.hessian(slope.ravel(), full.reshape(slope.size, -1))


@dataclass(frozen=True, eq=False)
class _Credited:
    """What steps are credited with: ``credited`` has the action values B_t, ``visits [T, S]`` are
    w_t p_t, and ``baseline [T, S]`` is what the critic takes off a whole return.

    ``exact`` are the return's own values, ``based`` those of the problem whose occupancy times
    ``factors [T, 1]`` are the visits.
    """

    mdp: TabularMDP
    exact: Evaluation
    credited: Evaluation
    based: Evaluation
    factors: FloatArray
    baseline: FloatArray

    @classmethod
    def of(
        cls,
        mdp: TabularMDP,
        policy: FloatArray,
        critic: npt.ArrayLike | None,
        gae_lambda: float | None,
        weighting: StateWeighting,
    ) -> _Credited:
        tables, values = mdp.tables, np.array(critic_over_time(mdp, critic))
        decay = 1.0 if gae_lambda is None else checked_lambda(gae_lambda)
        if gae_lambda is None and mdp.horizon is not None:
            values[-1] = 0.0
        ahead = tables.kernel.expect(values[1:])
        errors = tables.reward + mdp.discount * ahead - values[:-1, :, None]
        folded = replace(tables.with_reward(errors), discount=decay * tables.discount)
        based, factors = weighted_visits(tables, policy, weighting)
        exact, credited = Evaluation(tables, policy), Evaluation(folded, policy)
        return cls(mdp, exact, credited, based, factors, values[:-1])

    @property
    def visits(self) -> FloatArray:
        """``[T, S]``."""
        return self.factors * self.based.occupancy

    @property
    def weight(self) -> FloatArray:
        """``[S]``: the mean credit of a state's visits, summed over time."""
        weight: FloatArray = (self.visits * self.credited.step_values).sum(axis=0)
        return weight

    @property
    def whole_return_weight(self) -> FloatArray:
        """``[S]``: as `weight`, of whole returns: ``E[sum_t 1{s_t = s} (R - w_t b_t)]``, of the
        steps before the end. What was earned before t is pushed forwards.
        """
        mdp, policy, exact = self.mdp, self.exact.policy, self.exact
        kernel = np.einsum("sa,sax->sx", policy, mdp.transition)
        rewards = np.broadcast_to(
            mdp.next_state_reward, (len(self.baseline), *mdp.transition.shape)
        )
        weight = (exact.occupancy * exact.step_values - self.visits * self.baseline).sum(axis=0)
        earned = np.zeros(mdp.n_states)
        for reward, visits in zip(rewards, exact.occupancy, strict=True):
            weight += earned
            paid = np.einsum("sa,sax,sax->sx", policy, mdp.transition, reward)
            earned = earned @ kernel + visits @ paid
        return np.where(mdp.terminal, 0.0, weight)

    @property
    def paid_advantages(self) -> Evaluation:
        """The problem that pays ``w_t (B_t - sum_b pi B_t)``, for the same weights of states."""
        reward = self.factors[..., None] * self.credited.advantages
        return Evaluation(self.based.tables.with_reward(reward), self.exact.policy)


def _softmax_blocks(policy: FloatArray) -> FloatArray:
    """``[S, A, A]``: diag(pi) - pi pi^T."""
    outer = policy[:, :, None] * policy[:, None, :]
    return policy[:, :, None] * np.eye(policy.shape[-1]) - outer
