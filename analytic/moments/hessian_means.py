"""The exact mean of Hessian estimators, as a matrix.

Let B_t(s, a) be the mean credit of step t, given (s, a): the reward-to-go minus the critic's value,
or GAE(lambda), for which ``B_t = r + gamma P v_{t+1} - v_t + gamma lambda P sum_b pi B_{t+1}``.
With p_t the distribution of s_t and w_t the weight of step t,

- AD has the mean ``sum_t,s,a w_t p_t pi B_t (Hessian of log pi)``: it depends on the critic, and
  with exact values it is 0 for policies with linear logits;
- LVC the mean ``sum_t,s,a w_t p_t B_t (Hessian of pi)``: the block term of the return's Hessian;
- DiCE the Hessian of the return, and Loaded DiCE that of the return with the rewards ``B_t - sum_b
  pi B_t``, held fixed. The two Hessians are equal if lambda = 1 and nothing is bootstrapped, or if
  the critic is exact (the return of advantages is J minus a constant); otherwise they differ.

Source: Finn et al. 2017 (AD), Rothfuss et al. 2019 (LVC), Foerster et al. 2018 (DiCE), Farquhar et
al. 2019 (Loaded DiCE); *A Theoretical Understanding of Gradient Bias in Meta-RL*, Secs. 4.2, 4.4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gradbias.analytic.moments.estimators import Curvature, check_credit
from gradbias.analytic.moments.step_sums import check_ending, checked_lambda, critic_over_time
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
    """The exact mean of a Hessian estimate.

    Args:
        mdp: the problem, with a finite or the infinite horizon.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        curvature: the estimator: AD, LVC or DiCE.
        credit: as in `gradient_moments`; DiCE has no total returns.
        critic: as in `gradient_moments`.
        gae_lambda: as in `gradient_moments`; DiCE with it is Loaded DiCE(lambda).
        weighting: as in `gradient_moments`.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        Theta's axes twice, ``[S, A, S, A]`` for a tabular policy.

    Raises:
        ValueError: theta or the critic does not fit, total returns with GAE or DiCE, total returns
            or other weightings over the infinite horizon.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Secs. 4.2, 4.4, and this
    module's text.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> hessian_estimate_mean(bandit, [[0.0, 0.0]], Curvature.AD)[0, 0].tolist()
    [[-0.125, 0.125]]
    >>> hessian_estimate_mean(bandit, [[0.0, 0.0]], Curvature.LVC)[0, 0].tolist()
    [[0.0, 0.0]]
    """
    check_credit(credit, gae_lambda, curvature)
    at = single_policy(mdp, theta, policy)
    mean = _Credited.of(mdp, at.probabilities, critic, gae_lambda, weighting)
    if curvature is Curvature.DICE:
        return hessian_at(at, mean.advantage_problem)
    if credit is Credit.TOTAL_RETURN:
        check_ending(mdp)
        gradient, weight = logit_gradient(mean.exact), mean.total_return_weight
    else:
        gradient, weight = field_over_time(mean.visits, mean.credited), mean.weight
    blocks = block_term(gradient, at.probabilities)
    if curvature is Curvature.AD:
        blocks = -weight[:, None, None] * _softmax_blocks(at.probabilities)
    full = np.zeros((*gradient.shape, *gradient.shape))
    states = np.arange(mdp.n_states)
    full[states, :, states] = blocks
    return at.hessian(gradient.ravel(), full.reshape(gradient.size, -1))


@dataclass(frozen=True, eq=False)
class _Credited:
    """The mean credit of every step, as action values."""

    mdp: TabularMDP
    exact: Evaluation  # the evaluation of the problem's return
    credited: Evaluation  # an evaluation whose action values are B_t
    based: Evaluation  # an evaluation whose occupancy times ``factors`` is w_t p_t
    factors: FloatArray  # [T, 1]
    baseline: FloatArray  # [T, S], the critic's value that is subtracted from a total return

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
        problem = replace(tables.with_reward(errors), discount=decay * tables.discount)
        based, factors = weighted_visits(tables, policy, weighting)
        exact, credited = Evaluation(tables, policy), Evaluation(problem, policy)
        return cls(mdp, exact, credited, based, factors, values[:-1])

    @property
    def visits(self) -> FloatArray:
        """The weights w_t p_t of states, ``[T, S]``."""
        return self.factors * self.based.occupancy

    @property
    def weight(self) -> FloatArray:
        """The mean credit of a state's visits, summed over time, ``[S]``."""
        return np.asarray((self.visits * self.credited.step_values).sum(axis=0))

    @property
    def total_return_weight(self) -> FloatArray:
        """The same for total returns, ``E[sum_t 1{s_t = s} (R - w_t b_t)]`` over steps before the
        end. The rewards before step t are carried forwards by state.
        """
        mdp, policy, exact = self.mdp, self.exact.policy, self.exact
        kernel = np.einsum("sa,sax->sx", policy, mdp.transition)
        rewards = np.broadcast_to(
            mdp.next_state_reward, (len(self.baseline), *mdp.transition.shape)
        )
        weight = (exact.occupancy * exact.step_values - self.visits * self.baseline).sum(axis=0)
        past = np.zeros(mdp.n_states)
        for reward, visits in zip(rewards, exact.occupancy, strict=True):
            weight += past
            by_next_state = np.einsum("sa,sax,sax->sx", policy, mdp.transition, reward)
            past = past @ kernel + visits @ by_next_state
        return np.where(mdp.terminal, 0.0, weight)

    @property
    def advantage_problem(self) -> Evaluation:
        """The problem with rewards ``w_t (B_t - sum_b pi B_t)``, weighted as the visits."""
        reward = self.factors[..., None] * self.credited.advantages
        return Evaluation(self.based.tables.with_reward(reward), self.exact.policy)


def _softmax_blocks(policy: FloatArray) -> FloatArray:
    """The blocks ``diag(pi) - pi pi^T``, ``[S, A, A]``."""
    outer = policy[:, :, None] * policy[:, None, :]
    return policy[:, :, None] * np.eye(policy.shape[-1]) - outer
