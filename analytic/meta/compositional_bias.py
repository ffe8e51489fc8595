"""The compositional bias of sampled inner steps, exactly, by enumerating every batch.

Inner steps ``theta^{i+1} = theta^i + alpha g_b(theta^i)`` are taken with gradients g_b that are
estimated from N fresh trajectories each and unbiased where they are drawn. The meta-gradient is a
nonlinear function of these steps, so its expectation is not its value along the expected path, even
if everything after them is exact. Here it is averaged over all paths. As the adjoint recursion is
linear in the cotangent lambda, with p_b the probability of batch b and H the Hessian,

    E[lambda_i | theta^i] = (I + alpha H(theta^i)) sum_b p_b E[lambda_{i+1} | theta^i + alpha g_b],

and likewise for the part in the meta-parameters. `analytic.meta.compositional_expansion` has the
leading term in 1/N, for batches that are too many to enumerate.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. 4 and Sec. 4.1. Lemma 4.4
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


@dataclass(frozen=True, eq=False)
class CompositionalBias:
    """Expectations over K sampled inner steps minus the values with expected inner steps.

    Attributes:
        iterate: the bias of theta^K, shaped like theta.
        iterate_covariance: the covariance of theta^K, ``[p, p]``.
        outer_return: the bias of the outer return at theta^K.
        outer_gradient: the bias of the outer return's gradient at theta^K, shaped like theta.
        meta_gradient: the bias of the exact meta-gradient along the sampled path, shaped like phi.
            This is also the bias of an estimate whose Jacobians, Hessians and outer gradient are
            unbiased and independent of the inner steps' samples and of each other.
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
    """The bias that sampled inner steps cause, by enumerating every batch of every step.

    The inner gradient is ``sum_t (gamma^t G_t - gamma^t v(s_t)) grad log pi(a_t|s_t)``, where G_t
    is the reward-to-go, or total returns by ``credit``.

    Args:
        problem: a `Maml` or `Lirpg` of a `TabularMDP` with a finite horizon.
        meta_parameters: phi; ``[S, A]`` for the tabular softmax and for an intrinsic reward.
        theta: theta^0 (None for `Maml`).
        steps: K, the number of inner steps.
        step_size: alpha.
        batch_size: N, the number of trajectories in a batch.
        credit: what multiplies the score of each step.
        critic: v, ``[S]`` or ``[H + 1, S]``, held fixed (default: 0).
        curvature: the Hessian estimator whose mean (with the same credit and critic) replaces the
            exact Hessian, so that the bias is that of the whole estimate.

    Returns:
        The biases, shaped like theta and phi.

    Raises:
        ValueError: as `meta_gradient`; a problem that is not a `Maml` or `Lirpg` of one
            `TabularMDP` with a finite horizon; a critic that does not fit; DiCE's curvature with
            total returns; or more than a million trajectories or outcomes, or tables that are too
            large (the message says so).

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. 4 and Sec. 4.1.

    >>> from gradbias.analytic import Maml, TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> loop = {"steps": 1, "step_size": 1.0, "batch_size": 4}
    >>> bias = compositional_bias(Maml(bandit), [[0.5, 0.0]], **loop)
    >>> bias.iterate_covariance.round(4).tolist(), round(bias.outer_return, 6)
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
    sums = _Enumeration(loop, classes.batches(n), last, curvature).expected(loop.path[0], steps)
    exact = meta_gradient(problem, loop.phi, theta, steps=steps, step_size=step_size)
    return CompositionalBias(
        iterate=sums.error,
        iterate_covariance=sums.square - np.outer(sums.error, sums.error),
        outer_return=float(sums.value),
        outer_gradient=sums.gradient,
        meta_gradient=(sums.adjoint if problem.starts_at_meta else sums.meta) - exact,
    )


@dataclass(frozen=True, eq=False)
class ExpectedPath:
    """A checked inner loop and the path of its expected steps."""

    problem: Maml | Lirpg
    phi: FloatArray  # the meta-parameters
    path: list[FloatArray]  # theta^0 .. theta^K with expected steps
    inner: TabularMDP  # the problem of the inner steps; its reward includes LIRPG's phi
    outer: TabularMDP  # the problem of the outer return
    step_size: float  # alpha
    credit: Credit  # what multiplies the score of each step
    critic: FloatArray | None  # v as rows [H + 1, S], or None

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
    """Checks the loop, runs its *expected* inner steps and returns the path around which
    `compositional_bias` and `leading_compositional_bias` are computed. Raises ValueError as they
    do.
    """
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
            raise ValueError(
                "problem: expected a phi that is given at terminal states, got one that ends before"
            )
        inner = replace(mdp, reward=mdp.reward + (phi if mdp.reward.ndim == 2 else phi[..., None]))
    rows = None
    if critic is not None:
        rows = critic_rows(frozen_array("critic", critic), mdp.horizon, mdp.n_states)
        check_ends(rows, inner.terminal)
    return ExpectedPath(problem, phi, path, inner, mdp, float(step_size), credit, rows)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Expectations over the rest of the loop, given theta^i.

    ``value`` (of the outer return), ``gradient`` (of its gradient) and ``error`` (of theta^K) are
    differences to those of the expected path; ``square [p, p]`` is E[error error^T]. ``adjoint`` is
    the cotangent lambda, ``meta`` the part of the meta-gradient that later steps contribute.
    """

    value: FloatArray
    gradient: FloatArray
    error: FloatArray
    square: FloatArray
    adjoint: FloatArray
    meta: FloatArray

    def plus(self, other: _Sums, weight: float = 1.0) -> _Sums:
        """The sum of these and ``weight`` times those of ``other``."""
        left, right = vars(self), vars(other)
        return _Sums(**{name: left[name] + weight * right[name] for name in left})


@dataclass(frozen=True, eq=False)
class _Enumeration:
    """The sum over all batches of every step."""

    loop: ExpectedPath
    batches: list[BatchClasses]
    last: Outer
    curvature: Curvature | None

    def expected(self, theta: FloatArray, steps: int) -> _Sums:
        """The expectations over ``steps`` more steps from theta."""
        loop, total = self.loop, self._zeros(theta)
        at = loop.at(theta)
        for batch in (block.drawn_at(at) for block in self.batches):
            after = theta + loop.step_size * at.vjp(batch.estimate)
            if steps == 1:
                total = total.plus(self._ends(after, batch.probability))
                continue
            for reached, probability in zip(after, batch.probability, strict=True):
                total = total.plus(self.expected(reached, steps - 1), float(probability))
        products = loop.problem.inner_step(loop.phi, theta).pull_back(total.adjoint)
        meta = total.meta
        if products.meta is not None:
            meta = meta + loop.step_size * products.meta()
        hvp = products.state()
        if self.curvature is not None:
            hvp = self._mean_product(theta, total.adjoint, self.curvature)
        return replace(total, adjoint=total.adjoint + loop.step_size * hvp, meta=meta)

    def _mean_product(self, theta: FloatArray, v: FloatArray, curvature: Curvature) -> FloatArray:
        """The mean of the Hessian's estimate, a symmetric matrix, times v."""
        loop = self.loop
        options: dict[str, Any] = {"credit": loop.credit, "critic": loop.critic}
        policy = loop.problem.policy
        return hvp_moments(loop.inner, theta, v, curvature, policy=policy, **options).mean

    def _zeros(self, theta: FloatArray) -> _Sums:
        zero, p = np.zeros_like(theta), theta.size
        meta = np.zeros_like(self.loop.phi)
        return _Sums(np.zeros(()), zero, zero, np.zeros((p, p)), zero, meta)

    def _ends(self, theta: FloatArray, probability: FloatArray) -> _Sums:
        """The sums over final parameters ``[B, *shape]`` with these probabilities."""
        outer = self.loop.problem.outer(self.loop.phi, theta)
        error = theta - self.loop.path[-1]
        flat = error.reshape(len(theta), -1)
        gradient = outer.theta_gradient
        return _Sums(
            value=probability @ (outer.value - self.last.value),
            gradient=np.tensordot(probability, gradient - self.last.theta_gradient, axes=1),
            error=np.tensordot(probability, error, axes=1),
            square=(probability[:, None] * flat).T @ flat,
            adjoint=np.tensordot(probability, gradient, axes=1),
            meta=np.zeros_like(self.loop.phi),
        )
