"""Exact mean and covariance of the known estimators, by recursion over time.

A trajectory's estimate is a sum over its steps, so what is summed from step t on, Z_t, is linear in
Z_{t+1}: ``Z_t = (L(s, a) + x(s, a, s') E(s, a)) Z_{t+1}`` with x the step's reward (or its temporal
difference error). The second moments ``M_t(s) = E[Z_t Z_t^T | s_t = s]`` then follow backwards,

    M_t(s) = sum_a pi(a|s) sum_s' P(s'|s,a) (L + x E) M_{t+1}(s') (L + x E)^T,

in ``O(H S A (S k^2 + k^3))`` for Z of length k, where enumeration takes (S A)^H trajectories.
Rewards that depend on the next state keep their variance.

Source of the estimators: AD: Finn et al. 2017; LVC: Rothfuss et al. 2019; DiCE: Foerster et al.
2018; Loaded DiCE: Farquhar et al. 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray, frozen_array, real_number, whole_number
from analytic.critics import check_ends, critic_rows
from analytic.jets import required
from analytic.logits import PolicyAt
from analytic.policies import TABULAR, Policy
from analytic.problems import TabularMDP
from analytic.targets import DISCOUNTED, Discounted, GivenWeights, StateWeighting
from analytic.trajectory_classes import Credit
from analytic.values import policy_of

Step = Callable[[int], tuple[FloatArray, FloatArray]]
"""L and E ``[S, A, k, k]`` of step t."""
LARGEST_STATE = 200_000_000
"""Numbers (states x actions x k^2) up to which the recursion is run."""


class Curvature(Enum):
    """What a Hessian estimator keeps of the second derivative."""

    AD = "the second derivative of log-probabilities"
    LVC = "that of probabilities"
    DICE = "that of the trajectory's probability"


@dataclass(frozen=True, eq=False)
class EstimateMoments:
    """Of one estimate (here from one trajectory): ``mean``, shaped like what is estimated, and
    ``covariance [p, p]``.
    """

    mean: FloatArray
    covariance: FloatArray

    @property
    def variance(self) -> FloatArray:
        """Of each component, shaped like the mean."""
        return np.diagonal(self.covariance).reshape(self.mean.shape)

    def averaged(self, estimates: int) -> EstimateMoments:
        """Of the mean of so many independent estimates. Raises ValueError for fewer than one."""
        n = whole_number("estimates", estimates, at_least=1)
        return EstimateMoments(self.mean, self.covariance / n)


def gradient_moments(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    credit: Credit = Credit.REWARD_TO_GO,
    critic: npt.ArrayLike | None = None,
    gae_lambda: float | None = None,
    weighting: StateWeighting = DISCOUNTED,
    policy: Policy = TABULAR,
) -> EstimateMoments:
    """Moments of ``sum_t w_t (G_t - v(s_t)) grad log pi(a_t|s_t)`` from one trajectory.

    ``G_t`` is the reward-to-go or, by ``credit``, the trajectory's whole return (then ``R - w_t
    v``); with ``gae_lambda`` the bracket is GAE(lambda) of ``critic [S]`` or ``[H + 1, S]``
    (default 0), bootstrapped at the horizon. This is the gradient of AD, LVC, DiCE, Loaded-DiCE.

    Source: Finn et al. 2017, Schulman et al. 2016 (eq. 16), Foerster et al. 2018.

    Raises:
        ValueError: theta or the critic does not fit, an infinite horizon, GAE of whole returns, or
            a problem that is too large.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> found = gradient_moments(bandit, [[0.0, 0.0]])
    >>> found.mean.tolist(), found.variance.tolist()
    ([[0.25, -0.25]], [[0.0625, 0.0625]])
    """
    run = _Run.of(mdp, theta, policy, critic, gae_lambda, weighting)
    if credit is Credit.TOTAL_RETURN:
        if gae_lambda is not None:
            raise ValueError("credit: expected rewards-to-go with gae_lambda, got whole returns")
        return run.whole_return(run.scores)
    return run.to_go(run.scores)


def hvp_moments(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    v: npt.ArrayLike,
    curvature: Curvature,
    *,
    credit: Credit = Credit.REWARD_TO_GO,
    critic: npt.ArrayLike | None = None,
    gae_lambda: float | None = None,
    weighting: StateWeighting = DISCOUNTED,
    policy: Policy = TABULAR,
) -> EstimateMoments:
    """Moments of a Hessian estimate from one trajectory times ``v``.

    ``Curvature.DICE`` with a critic is DiCE with its baseline term; with ``gae_lambda`` it is
    Loaded-DiCE(lambda). AD and LVC take ``credit`` as `gradient_moments` does.

    Source: Finn et al. 2017, Rothfuss et al. 2019, Foerster et al. 2018, Farquhar et al. 2019.

    Raises:
        ValueError: as `gradient_moments`; v does not fit; AD or LVC with ``gae_lambda``, DiCE with
            whole returns.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> ad = hvp_moments(bandit, [[0.0, 0.0]], [[1.0, 0.0]], Curvature.AD)
    >>> ad.mean.tolist()  # the truth is 0: log-probabilities forget that sampling moves
    [[-0.125, 0.125]]
    """
    run = _Run.of(mdp, theta, policy, critic, gae_lambda, weighting)
    direction = run.at.direction(v)
    if curvature is Curvature.DICE:
        if credit is Credit.TOTAL_RETURN:
            raise ValueError("credit: expected rewards-to-go with DiCE, got whole returns")
        return run.across_steps(direction)
    if gae_lambda is not None:
        raise ValueError(f"gae_lambda: expected None with {curvature.name}, got {gae_lambda}")
    turned = run.curved(direction, keep_scores=curvature is Curvature.LVC)
    return run.whole_return(turned) if credit is Credit.TOTAL_RETURN else run.to_go(turned)


@dataclass(frozen=True, eq=False)
class _Run:
    """One problem, policy and way to weigh steps: ``signal [H, S, A, S]`` is x, ``decay`` what
    carries it back, ``baseline [H, S]``, ``weights [H]``.
    """

    mdp: TabularMDP
    at: PolicyAt
    signal: FloatArray
    decay: float
    baseline: FloatArray
    weights: FloatArray

    @classmethod
    def of(
        cls,
        mdp: TabularMDP,
        theta: npt.ArrayLike,
        policy: Policy,
        critic: npt.ArrayLike | None,
        gae_lambda: float | None,
        weighting: StateWeighting,
    ) -> _Run:
        if mdp.horizon is None:
            raise ValueError("horizon: expected a finite one, got horizon None")
        at = policy_of(mdp, theta, policy)
        if at.leading:
            raise ValueError(f"theta: expected one policy, got leading axes {at.leading}")
        array = None if critic is None else frozen_array("critic", critic)
        values = critic_rows(array, mdp.horizon, mdp.n_states)
        check_ends(values, mdp.terminal)
        shape = (mdp.horizon, mdp.n_states, mdp.n_actions, mdp.n_states)
        signal = np.broadcast_to(mdp.next_state_reward, shape)
        decay, baseline = mdp.discount, values[:-1]
        if gae_lambda is not None:
            decay *= real_number("gae_lambda", gae_lambda, low=0.0, high=1.0)
            signal = _differences(signal, values, mdp.discount)
            baseline = np.zeros_like(baseline)
        weights = _step_weights(mdp, mdp.horizon, weighting)
        return cls(mdp, at, signal, decay, baseline, weights)

    @property
    def scores(self) -> FloatArray:
        """``[S, A, p]``: grad log pi(a|s), 0 at terminal states."""
        return self._pulled([self._logit_scores], [])

    def curved(self, v: FloatArray, *, keep_scores: bool) -> FloatArray:
        """``[S, A, p]``: the Hessian of log pi(a|s) times v; with scores, that of pi over pi."""
        moved = required(self.at.jet([v])[1])
        states = np.arange(self.mdp.n_states)
        change = np.zeros_like(self._logit_scores)
        change[states, :, states] = -moved[:, None, :]
        found = self._pulled([self._logit_scores, change], [v])
        return found + self._along(v)[..., None] * self.scores if keep_scores else found

    def _along(self, v: FloatArray) -> FloatArray:
        """``[S, A]``: the scores along v."""
        along: FloatArray = self.scores @ v.ravel()
        return along

    @property
    def _logit_scores(self) -> FloatArray:
        """``[S, A, S, A]``."""
        n_states, n_actions = self.mdp.n_states, self.mdp.n_actions
        states = np.arange(n_states)
        found = np.zeros((n_states, n_actions, n_states, n_actions))
        found[states, :, states] = np.eye(n_actions) - self.at.probabilities[:, None, :]
        return found

    def _pulled(self, fields: list[FloatArray], directions: list[FloatArray]) -> FloatArray:
        found = self.at.pulled_jet(fields, directions)
        flat = found.reshape(*found.shape[: found.ndim - len(self.at.shape)], -1)
        return np.where(self.mdp.terminal[:, None, None], 0.0, flat)

    def to_go(self, vectors: FloatArray) -> EstimateMoments:
        """Of ``sum_t w_t (g_t - b_t) y(s_t, a_t)``. Z = (1, g - b, X): the differences carry over
        ``x + decay b(s') - b(s)``, so that an offset which the baseline takes off does not round.
        """
        p = vectors.shape[-1]
        own = slice(2, 2 + p)
        values = np.concatenate([self.baseline, np.zeros_like(self.baseline[:1])])
        signal = _differences(self.signal, values, self.decay)

        def step(t: int) -> tuple[FloatArray, FloatArray]:
            fixed, moving = self._start(2 + p)
            weighted = self.weights[t] * vectors
            moving[..., own, 0] = weighted
            fixed[..., own, 1] = self.decay * weighted
            fixed[..., own, own] = np.eye(p)
            return fixed, moving

        return self._moments(step, signal, np.eye(2 + p)[own])

    def whole_return(self, vectors: FloatArray) -> EstimateMoments:
        """Of ``sum_t (R - w_t b_t) y(s_t, a_t)``. Z = (1, R, Y, R Y, B)."""
        p = vectors.shape[-1]
        plain, times, base = (slice(2 + i * p, 2 + (i + 1) * p) for i in range(3))

        def step(t: int) -> tuple[FloatArray, FloatArray]:
            fixed, moving = self._start(2 + 3 * p)
            identity = np.eye(p)
            fixed[..., plain, 0] = moving[..., times, 0] = vectors
            fixed[..., plain, plain] = moving[..., times, plain] = identity
            fixed[..., times, 1] = self.decay * vectors
            fixed[..., times, times] = self.decay * identity
            fixed[..., base, 0] = self.weights[t] * self.baseline[t][:, None, None] * vectors
            fixed[..., base, base] = identity
            return fixed, moving

        pick = np.eye(2 + 3 * p)
        return self._moments(step, self.signal, pick[times] - pick[base])

    def across_steps(self, v: FloatArray) -> EstimateMoments:
        """Of DiCE's Hessian times v, which also pairs the scores of different steps. Z = (1, g, X,
        h), where X has no baseline.
        """
        scores, local = self.scores, self.curved(v, keep_scores=True)
        along, direction, p = self._along(v), v.ravel(), self.scores.shape[-1]
        first, second = slice(2, 2 + p), slice(2 + p, 2 + 2 * p)
        pairs = along[..., None, None] * np.eye(p) + scores[..., :, None] * direction

        def step(t: int) -> tuple[FloatArray, FloatArray]:
            fixed, moving = self._start(2 + 2 * p)
            for rows, vectors in ((first, scores), (second, local)):
                moving[..., rows, 0] = self.weights[t] * vectors
                fixed[..., rows, 1] = self.decay * self.weights[t] * vectors
                fixed[..., rows, rows] = np.eye(p)
            fixed[..., second, 0] = -self.baseline[t][:, None, None] * self.weights[t] * local
            fixed[..., second, first] = pairs
            return fixed, moving

        return self._moments(step, self.signal, np.eye(2 + 2 * p)[second])

    def _start(self, k: int) -> tuple[FloatArray, FloatArray]:
        """L and E ``[S, A, k, k]`` with the rows of 1 and of what is carried back."""
        fixed = np.zeros((self.mdp.n_states, self.mdp.n_actions, k, k))
        moving = np.zeros_like(fixed)
        fixed[..., 0, 0] = 1.0
        fixed[..., 1, 1] = self.decay
        moving[..., 1, 0] = 1.0
        return fixed, moving

    def _moments(self, step: Step, signal: FloatArray, pick: FloatArray) -> EstimateMoments:
        """Runs the recursion with x ``[H, S, A, S]``, and picks the estimate out of Z by the rows
        of ``pick``.
        """
        mdp, policy, k = self.mdp, self.at.probabilities, pick.shape[1]
        size = mdp.n_states * mdp.n_actions * k**2
        if size > LARGEST_STATE:
            raise ValueError(
                f"mdp: expected a recursion of at most {LARGEST_STATE:,} numbers, got {size:,}; "
                "use samples, or fewer parameters"
            )
        signal = signal * (~mdp.terminal)[:, None, None]
        moments = np.zeros((mdp.n_states, k, k))
        moments[:, 0, 0] = 1.0
        for t in reversed(range(len(self.weights))):
            fixed, moving = step(t)
            joint = mdp.transition
            plain, once, twice = (
                np.tensordot(joint * signal[t] ** power, moments, axes=1) for power in range(3)
            )
            cross = moving @ once @ np.swapaxes(fixed, -1, -2)
            both = fixed @ plain @ np.swapaxes(fixed, -1, -2)
            both += cross + np.swapaxes(cross, -1, -2)
            both += moving @ twice @ np.swapaxes(moving, -1, -2)
            moments = (policy[..., None, None] * both).sum(axis=1)
        total = np.tensordot(mdp.start, moments, axes=1)
        mean = pick @ total[:, 0]
        covariance = pick @ total @ pick.T - np.outer(mean, mean)
        return EstimateMoments(mean.reshape(self.at.theta.shape), covariance)


def _differences(signal: FloatArray, values: FloatArray, discount: float) -> FloatArray:
    """``signal + discount v(s') - v(s)`` ``[H, S, A, S]``, of values ``[H + 1, S]``."""
    found: FloatArray = signal + discount * values[1:, None, None, :] - values[:-1, :, None, None]
    return found


def _step_weights(mdp: TabularMDP, horizon: int, weighting: StateWeighting) -> FloatArray:
    if isinstance(weighting, Discounted):
        powers: FloatArray = mdp.discount ** np.arange(horizon, dtype=np.float64)
        return powers
    if isinstance(weighting, GivenWeights):
        return frozen_array("state weighting", weighting.weights, (horizon,))
    return np.ones(horizon)
