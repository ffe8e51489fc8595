"""An estimate from one trajectory as a sum over its steps, ready for its moments.

If each step's score counts by itself, an estimate is a sum of credits times vectors
(`analytic.moments.independent_steps`). DiCE's Hessian pairs steps
(`analytic.moments.paired_steps`). Total returns are given as the linear map from the sums over
steps t + 1 and later to those over t and later (`analytic.moments.suffix_sums`). Over a finite
horizon the weights w_t of the steps stand in the sum. Over the infinite one they are gamma^t, and
the sums are carried back with the factor gamma, so that every step is the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.moments.independent_steps import CreditedSums
from gradbias.analytic.moments.paired_steps import PairedSums
from gradbias.analytic.moments.suffix_sums import Maps, SuffixSums, check_moments_size
from gradbias.analytic.policies.at_parameters import PolicyAt
from gradbias.analytic.policies.jets import required
from gradbias.analytic.policies.softmax import Policy
from gradbias.analytic.problems.critics import check_ends, critic_rows
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import Discounted, StateWeighting
from gradbias.analytic.returns.evaluation import single_policy
from gradbias.analytic.utils.validation import FloatArray, frozen_array, real_number


@dataclass(frozen=True, eq=False)
class StepSums:
    """A problem, a policy and the weights of T steps (T = 1 for the infinite horizon)."""

    mdp: TabularMDP
    at: PolicyAt
    signal: FloatArray  # [T, S, A, S], rewards or TD errors: their sums are the credits
    decay: float  # the factor that carries credits back
    baseline: FloatArray  # [T + 1, S], 0 at the end of a horizon
    weights: FloatArray  # w, [T]
    carry: float  # the factor that carries the sums themselves back

    @classmethod
    def of(
        cls,
        mdp: TabularMDP,
        theta: npt.ArrayLike,
        policy: Policy,
        critic: npt.ArrayLike | None,
        gae_lambda: float | None,
        weighting: StateWeighting,
    ) -> StepSums:
        """Checks the arguments of `gradient_moments`. Raises ValueError as it does."""
        at = single_policy(mdp, theta, policy)
        values = critic_over_time(mdp, critic)
        weights = _step_weights(mdp, weighting)
        longest = max(at.theta.size, len(weights) * mdp.n_states)
        check_moments_size(mdp.n_states * mdp.n_actions * longest)
        shape = (len(weights), mdp.n_states, mdp.n_actions, mdp.n_states)
        signal = np.broadcast_to(mdp.next_state_reward, shape)
        decay, baseline = mdp.discount, np.array(values)
        if mdp.horizon is not None:
            baseline[-1] = 0.0
        if gae_lambda is not None:
            decay *= checked_lambda(gae_lambda)
            signal = _differences(signal, values, mdp.discount)
            baseline = np.zeros_like(baseline)
        carry = mdp.discount if mdp.horizon is None else 1.0
        return cls(mdp, at, signal, decay, baseline, weights, carry)

    @property
    def scores(self) -> FloatArray:
        """The scores grad log pi(a|s), ``[S, A, p]``, 0 at terminal states."""
        return self._in_parameters([self._logit_scores], [])

    def second_derivatives(self, v: FloatArray, *, keep_scores: bool) -> FloatArray:
        """The Hessian of log pi(a|s), or (``keep_scores``) of pi over pi, times v."""
        tangent = required(self.at.jet([v])[1])
        states = np.arange(self.mdp.n_states)
        derivative = np.zeros_like(self._logit_scores)
        derivative[states, :, states] = -tangent[:, None, :]
        second = self._in_parameters([self._logit_scores, derivative], [v])
        return (
            second + (self.scores @ v.ravel())[..., None] * self.scores if keep_scores else second
        )

    @property
    def _logit_scores(self) -> FloatArray:
        """The scores in the logits, ``[S, A, S, A]``."""
        n_states, n_actions = self.mdp.n_states, self.mdp.n_actions
        states = np.arange(n_states)
        scores = np.zeros((n_states, n_actions, n_states, n_actions))
        scores[states, :, states] = np.eye(n_actions) - self.at.probabilities[:, None, :]
        return scores

    def _in_parameters(self, fields: list[FloatArray], directions: list[FloatArray]) -> FloatArray:
        """`PolicyAt.vjp_jet` with parameters flattened, ``[S, A, p]``, 0 at terminal states."""
        shaped = self.at.vjp_jet(fields, directions)
        flat = shaped.reshape(*shaped.shape[: shaped.ndim - len(self.at.shape)], -1)
        return np.where(self.mdp.terminal[:, None, None], 0.0, flat)

    def to_go(self, vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The mean and covariance of ``sum_t w_t (g_t - b_t) y(s_t, a_t)``, g_t the reward-to-go.
        The recursion runs on ``x + decay b(s') - b(s)``, so that a large offset that the baseline
        removes leaves no rounding errors.
        """
        signal = _differences(self.signal, self.baseline, self.decay)
        arguments = (self.mdp, self.at.probabilities, signal, vectors, self.weights)
        return self._centred(*CreditedSums(*arguments, self.decay, self.carry).moments)

    def total_return(self, vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The mean and covariance of ``sum_t (R - w_t b_t) y(s_t, a_t)``, R the total return. With
        Y the sum of y and B that of ``w_t b_t y``, the sums are Z = (1, R, Y, R Y, B). Raises
        ValueError for an infinite horizon.
        """
        check_ending(self.mdp)
        p = vectors.shape[-1]
        k, pairs = 2 + 3 * p, (self.mdp.n_states, self.mdp.n_actions)
        check_moments_size(math.prod(pairs) * k**2)
        plain, times, base = (slice(2 + i * p, 2 + (i + 1) * p) for i in range(3))

        def maps(t: int) -> Maps:
            fixed, rewarded = np.zeros((2, *pairs, k, k))
            identity = np.eye(p)
            fixed[..., 0, 0] = rewarded[..., 1, 0] = 1.0
            fixed[..., 1, 1] = self.decay
            fixed[..., plain, 0] = rewarded[..., times, 0] = vectors
            fixed[..., plain, plain] = rewarded[..., times, plain] = identity
            fixed[..., times, 1] = self.decay * vectors
            fixed[..., times, times] = self.decay * identity
            fixed[..., base, 0] = self.weights[t] * self.baseline[t][:, None, None] * vectors
            fixed[..., base, base] = identity
            return fixed, rewarded

        total = SuffixSums(self.mdp, self.at.probabilities, self.signal, maps, k).moments
        pick = np.eye(k)[times] - np.eye(k)[base]
        return self._centred(pick @ total[:, 0], pick @ total @ pick.T)

    def across_steps(self, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The mean and covariance of DiCE's Hessian times v, which pairs scores of steps."""
        local = self.second_derivatives(v, keep_scores=True)
        arguments = (self.mdp, self.at.probabilities, self.signal, self.scores, local, v.ravel())
        sums = PairedSums(*arguments, self.baseline, self.weights, self.decay, self.carry)
        return self._centred(*sums.moments)

    def _centred(self, mean: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The mean, shaped like theta, and the covariance ``[p, p]``."""
        return mean.reshape(self.at.theta.shape), second - np.outer(mean, mean)


def check_ending(mdp: TabularMDP) -> None:
    """Raises ValueError for total returns over an infinite horizon."""
    if mdp.horizon is None:
        raise ValueError(
            "credit: expected rewards-to-go with horizon None, got total returns, which weigh "
            "infinitely many scores alike, so that their sum has no limit"
        )


def critic_over_time(mdp: TabularMDP, critic: npt.ArrayLike | None) -> FloatArray:
    """The critic as rows ``[H + 1, S]``; over the infinite horizon its one row, twice. Raises
    ValueError on a wrong shape, or values at terminal states.
    """
    array = None if critic is None else frozen_array("critic", critic)
    rows = critic_rows(array, mdp.horizon, mdp.n_states)
    check_ends(rows, mdp.terminal)
    return np.repeat(rows, 2, axis=0) if mdp.horizon is None else rows


def checked_lambda(gae_lambda: float) -> float:
    """The lambda of GAE as a float. Raises ValueError outside [0, 1]."""
    return real_number("gae_lambda", gae_lambda, low=0.0, high=1.0)


def _differences(signal: FloatArray, values: FloatArray, discount: float) -> FloatArray:
    """``signal + discount v(s') - v(s)``, ``[T, S, A, S]``, with values v ``[T + 1, S]``."""
    return np.asarray(signal + discount * values[1:, None, None, :] - values[:-1, :, None, None])


def _step_weights(mdp: TabularMDP, weighting: StateWeighting) -> FloatArray:
    """The weights ``[T]``; over the infinite horizon 1, because gamma carries the sums."""
    if mdp.horizon is not None:
        return weighting.step_weights(mdp.discount, mdp.horizon)
    if not isinstance(weighting, Discounted):
        raise ValueError(f"weighting: expected discounted with horizon None, got {weighting}")
    return np.ones(1)
