"""Inner-loop surrogates that depend on meta-parameters: what LIRPG and MGRL learn.

The meta-parameters phi are ``record.meta["phi"]``. An inner update is the surrogate's gradient in
the policy's parameters; the update's derivative in phi is the Jacobian of eq. (4).

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3, with its instances LIRPG
(Zheng et al. 2018) and MGRL (Xu et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from gradbias.analytic.problems.targets import DISCOUNTED, StateWeighting
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.surrogates.returns import generalised_advantages, log_probabilities
from gradbias.stochastic.surrogates.score_function import step_weights

PHI = "phi"
"""The name of the meta-parameters in a record."""


@dataclass(frozen=True)
class IntrinsicReward:
    """LIRPG's loss: a surrogate of the reward r + phi(s, a), with phi ``[S, A]``.

    Attributes:
        surrogate: a surrogate; the rewards of its record are r + phi until the episode ends.
    """

    surrogate: Callable[[Record], Tensor]

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        phi = record.meta[PHI]
        n_actions = record.log_policy.shape[-1]
        if phi.ndim != 2 or phi.shape[1] != n_actions:
            raise ValueError(f"phi: expected shape [S, {n_actions}], got {tuple(phi.shape)}")
        intrinsic = phi[record.states[..., :-1], record.actions] * record.alive
        return self.surrogate(replace(record, rewards=record.rewards + intrinsic))


@dataclass(frozen=True)
class LambdaReturn:
    """MGRL's loss sum_t w_t A_t f_t, A_t by GAE, whose discount and lambda are phi ``[2]``.

    Its update is not the gradient of any function of the policy, so that the update's Jacobian is
    not symmetric and no surrogate's Hessian is unbiased for it.

    Attributes:
        factor: f_t, which carries the derivative: `returns.log_probabilities` (AD, the default),
            `returns.probability_ratios` (LVC) or `returns.path_ratio_steps` (Loaded-DiCE).
        weighting: w_t (default: powers of the problem's own discount).
    """

    factor: Callable[[Record], Tensor] = log_probabilities
    weighting: StateWeighting = DISCOUNTED

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        if record.meta[PHI].shape != (2,):
            shape = tuple(record.meta[PHI].shape)
            raise ValueError(f"phi: expected (discount, lambda), shape (2,), got {shape}")
        discount, gae_lambda = record.meta[PHI]
        advantages = generalised_advantages(record, gae_lambda, discount)
        weights = step_weights(record, self.weighting)
        return (weights * advantages * self.factor(record) * record.alive).sum(dim=-1).mean()
