"""The compositional bias of sampled inner steps, exactly, by enumerating every batch.

Inner steps ``theta^{i+1} = theta^i + alpha g_b(theta^i)`` are taken with gradients estimated from N
fresh trajectories each, unbiased at the theta where they are drawn. Whatever follows is a nonlinear
function of them, so its expectation is not its value along the expected path, even where everything
else is exact. Here it is averaged over all paths: an adjoint is linear in what is carried back, so

    E[lambda_i | theta^i] = (I + alpha H(theta^i)) sum_b p_b E[lambda_{i+1} | theta^i + alpha g_b],

and likewise for what reaches the meta-parameters. `analytic.meta.compositional_expansion` has the
leading term in 1/N where batches are too many.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. 4 and Sec. 4.2. Lemma 4.4
there bounds ``E|f(theta^K) - f|``, of order N^-1/2; the bias itself is of order 1/N.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.meta.bilevel import BilevelProblem, Lirpg, Maml, Outer
from gradbias.analytic.meta.meta_gradients import inner_loop, meta_gradient
from gradbias.analytic.moments.estimators import Curvature, hvp_moments
from gradbias.analytic.moments.trajectory_classes import BatchClasses, Credit, TrajectoryClasses
from gradbias.analytic.policies.at_parameters import PolicyAt
from gradbias.analytic.problems.critics import check_ends, critic_rows
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.evaluation import policy_of
from gradbias.analytic.utils.validation import FloatArray, frozen_array, whole_number

_BLOCK = 1_000_000


@dataclass(frozen=True, eq=False)
class CompositionalBias:
    """Expectations over K sampled inner steps, less what expected inner steps give.

    - ``iterate``: of theta^K, shaped like theta;
    - ``outer_return`` and ``outer_gradient`` (shaped like theta): of the outer return at theta^K
      and its gradient there;
    - ``meta_gradient``: of the exact meta-gradient along the sampled path, shaped like phi. That is
      also the bias of the estimate whose Jacobians, Hessians and outer gradient are unbiased and
      independent of the inner steps' samples (and of each other).

    ``iterate_covariance [p, p]`` is that of theta^K.
    """

    iterate: FloatArray
    iterate_covariance: FloatArray
    outer_return: float
    outer_gradient: FloatArray
    meta_gradient: FloatArray


def compositional_bias(
    problem: BilevelProblem,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None = None,
    *,
    steps: int,
    step_size: float,
    batch_size: int,
    credit: Credit = Credit.REWARD_TO_GO,
    critic: npt.ArrayLike | None = None,
    curvature: Curvature | None = None,
) -> CompositionalBias:
    """The bias that ``steps`` inner steps from ``batch_size`` trajectories each cause, shaped like
    phi (``[S, A]``) and theta, by enumerating every batch of every step.

    The inner gradient is ``sum_t (gamma^t G_t - gamma^t v(s_t)) grad log pi(a_t|s_t)``, or with
    whole returns by ``credit``; ``critic [S]`` or ``[H + 1, S]`` is v, a table that does not move.
    With ``curvature`` the meta-gradient's Hessians are what that estimator's are on average (with
    the same credit and critic), so that the bias is that of the whole estimate.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. 4 and Sec. 4.2.

    Raises:
        ValueError: as `meta_gradient`; a problem that is not a `Maml` or `Lirpg` of one
            `TabularMDP` with a finite horizon; a critic that does not fit; DiCE's curvature with
            whole returns; or more than a million trajectories or outcomes, or tables that are too
            large (the message says so).

    >>> from gradbias.analytic import Maml, TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> loop = {"steps": 1, "step_size": 1.0, "batch_size": 4}
    >>> found = compositional_bias(Maml(bandit), [[0.5, 0.0]], **loop)
    >>> found.iterate_covariance.round(4).tolist(), round(found.outer_return, 6)
    ([[0.0084, -0.0084], [-0.0084, 0.0084]], -0.001478)
    """
    n = whole_number("batch_size", batch_size, at_least=1)
    if curvature is not None and not isinstance(curvature, Curvature):
        raise ValueError(f"curvature: expected a Curvature or None, got {curvature!r}")
    loop = expected_path(problem, meta_parameters, theta, steps, step_size, credit, critic)
    baseline = None if loop.critic is None else loop.critic[:-1]
    to_go = credit is Credit.REWARD_TO_GO
    classes = TrajectoryClasses.of(loop.inner, to_go=to_go, baseline=baseline)
    classes.counted(n, steps)
    last = problem.outer(loop.phi, loop.path[-1])
    every = _Enumeration(loop, classes.batches(n, _BLOCK), last, curvature)
    found = every.expected(loop.path[0], steps)
    exact = meta_gradient(problem, loop.phi, theta, steps=steps, step_size=step_size)
    reached = found.adjoint if problem.starts_at_meta else found.meta
    return CompositionalBias(
        iterate=found.error,
        iterate_covariance=found.square - np.outer(found.error, found.error),
        outer_return=float(found.value),
        outer_gradient=found.gradient,
        meta_gradient=reached - exact,
    )


@dataclass(frozen=True, eq=False)
class ExpectedPath:
    """An inner loop whose steps are sampled: what pays them (``inner``, with phi added to its
    rewards where that is the intrinsic one), the expected ``path`` theta^0 .. theta^K, and the
    critic ``[H + 1, S]``.
    """

    problem: Maml | Lirpg
    phi: FloatArray
    path: list[FloatArray]
    inner: TabularMDP
    outer: TabularMDP
    step_size: float
    credit: Credit
    critic: FloatArray | None

    def at(self, theta: FloatArray) -> PolicyAt:
        """The policy at theta."""
        return policy_of(self.outer, theta, self.problem.policy)


def expected_path(
    problem: BilevelProblem,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None,
    steps: int,
    step_size: float,
    credit: Credit,
    critic: npt.ArrayLike | None,
) -> ExpectedPath:
    """What both ways to a compositional bias start from. Raises ValueError on bad input."""
    if not isinstance(problem, Maml | Lirpg):
        raise ValueError(f"problem: expected a Maml or Lirpg, got a {type(problem).__name__}")
    mdp = problem.mdp
    if not isinstance(mdp, TabularMDP) or mdp.horizon is None:
        got = f"horizon {mdp.horizon} of a {type(mdp).__name__}"
        raise ValueError(f"problem: expected a TabularMDP with a finite horizon, got {got}")
    if not isinstance(credit, Credit):
        raise ValueError(f"credit: expected a Credit, got {credit!r}")
    path = inner_loop(problem, meta_parameters, theta, steps=steps, step_size=step_size)
    if policy_of(mdp, path[0], problem.policy).leading:
        raise ValueError(f"theta: expected one policy, got shape {path[0].shape}")
    phi, _ = problem.start(meta_parameters, theta)
    inner = mdp
    if isinstance(problem, Lirpg):
        if not problem.paid_at_end and mdp.terminal.any():
            raise ValueError("problem: expected a phi that is paid at terminal states, got one not")
        inner = replace(mdp, reward=mdp.reward + (phi if mdp.reward.ndim == 2 else phi[..., None]))
    rows = None
    if critic is not None:
        rows = critic_rows(frozen_array("critic", critic), mdp.horizon, mdp.n_states)
        check_ends(rows, inner.terminal)
    return ExpectedPath(problem, phi, path, inner, mdp, float(step_size), credit, rows)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Expectations from one point on; value, gradient and error (of theta^K) are differences
    to the expected path's, ``square [p, p]`` is of the error.
    """

    value: FloatArray
    gradient: FloatArray
    error: FloatArray
    square: FloatArray
    adjoint: FloatArray
    meta: FloatArray

    def plus(self, other: _Sums, weight: float = 1.0) -> _Sums:
        """With ``weight`` times the other added."""
        mine, others = vars(self), vars(other)
        return _Sums(**{name: mine[name] + weight * others[name] for name in mine})


@dataclass(frozen=True, eq=False)
class _Enumeration:
    """All batches, step after step."""

    loop: ExpectedPath
    batches: list[BatchClasses]
    last: Outer
    curvature: Curvature | None

    def expected(self, theta: FloatArray, steps: int) -> _Sums:
        """Over ``steps`` more steps from theta."""
        loop, total = self.loop, self._nothing(theta)
        at = loop.at(theta)
        for batch in (block.drawn_at(at) for block in self.batches):
            after = theta + loop.step_size * at.vjp(batch.estimate)
            if steps == 1:
                total = total.plus(self._ends(after, batch.probability))
                continue
            for one, probability in zip(after, batch.probability, strict=True):
                total = total.plus(self.expected(one, steps - 1), float(probability))
        pulled = loop.problem.inner_step(loop.phi, theta).pull_back(total.adjoint)
        meta = total.meta
        if pulled.meta is not None:
            meta = meta + loop.step_size * pulled.meta()
        turned = pulled.state()
        if self.curvature is not None:
            turned = self._mean_product(theta, total.adjoint, self.curvature)
        return replace(total, adjoint=total.adjoint + loop.step_size * turned, meta=meta)

    def _mean_product(self, theta: FloatArray, v: FloatArray, curvature: Curvature) -> FloatArray:
        """The mean of the Hessian's estimate, which is symmetric, times v."""
        loop = self.loop
        options: dict[str, Any] = {"credit": loop.credit, "critic": loop.critic}
        policy = loop.problem.policy
        return hvp_moments(loop.inner, theta, v, curvature, policy=policy, **options).mean

    def _nothing(self, theta: FloatArray) -> _Sums:
        none, p = np.zeros_like(theta), theta.size
        meta = np.zeros_like(self.loop.phi)
        return _Sums(np.zeros(()), none, none, np.zeros((p, p)), none, meta)

    def _ends(self, theta: FloatArray, probability: FloatArray) -> _Sums:
        """Over final parameters ``[B, *shape]``."""
        found = self.loop.problem.outer(self.loop.phi, theta)
        error = theta - self.loop.path[-1]
        flat = error.reshape(len(theta), -1)
        gradient = found.theta_gradient
        return _Sums(
            value=probability @ (found.value - self.last.value),
            gradient=np.tensordot(probability, gradient - self.last.theta_gradient, axes=1),
            error=np.tensordot(probability, error, axes=1),
            square=(probability[:, None] * flat).T @ flat,
            adjoint=np.tensordot(probability, gradient, axes=1),
            meta=np.zeros_like(self.loop.phi),
        )
