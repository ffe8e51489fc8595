"""The gradient of a return after K inner steps, by the adjoint recursion.

With ``theta^{i+1} = theta^i + alpha g(phi, theta^i)`` and ``J^K(phi) = J_out(phi, theta^K)``, start
from ``lambda = dJ_out/dtheta`` at theta^K and ``out = dJ_out/dphi``, and go back through the steps:

    out    += alpha (dg/dphi)^T lambda
    lambda += alpha (dg/dtheta)^T lambda

Then ``out`` is the meta-gradient; if theta^0 is phi itself (MAML), ``lambda`` is added at the end.
These are K products with vectors, each with the factorisation of its step: no Jacobian or Hessian
is formed. The order of the steps matters, as their Jacobians do not commute.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Prop. 3.1, with dtheta^0/dphi,
which MAML needs (docs/errata.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradbias.analytic.meta.bilevel import BilevelProblem
from gradbias.analytic.meta.inner_steps import InnerStep
from gradbias.analytic.policies.jets import add
from gradbias.analytic.policies.softmax import MAX_PARAMETER
from gradbias.analytic.utils.validation import (
    FloatArray,
    probability_rows,
    real_number,
    set_fields,
    whole_number,
)

MAX_STEP = 1e12
"""Size up to which step sizes are accepted."""


@dataclass(frozen=True, eq=False)
class TaskFamily:
    """Finitely many tasks with probabilities; objectives are exact expectations over them.

    Every task has the same meta-parameters and starts its inner loop from the same theta.

    Attributes:
        tasks: the bilevel problems.
        probabilities: one for each task, with sum 1 (default: equal ones).

    Raises:
        ValueError: no task, probabilities whose number is not that of the tasks, or that do not sum
            to one.

    >>> from gradbias.analytic import Maml, TabularMDP, meta_gradient
    >>> rng = np.random.default_rng(0)
    >>> tasks = [Maml(TabularMDP.random(3, 2, rng=rng, discount=0.9)) for _ in range(4)]
    >>> meta_gradient(TaskFamily(tasks), np.zeros((3, 2)), steps=1, step_size=1.0).shape
    (3, 2)
    """

    tasks: Sequence[BilevelProblem]
    probabilities: npt.ArrayLike | None = None

    def __post_init__(self) -> None:
        tasks = tuple(self.tasks)
        if not tasks:
            raise ValueError("tasks: expected at least one, got none")
        weights = self.probabilities
        weights = np.full(len(tasks), 1.0 / len(tasks)) if weights is None else weights
        weights = probability_rows("probabilities", weights, (len(tasks),))
        set_fields(self, tasks=tasks, probabilities=weights)


def inner_loop(
    problem: BilevelProblem | TaskFamily,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None = None,
    *,
    steps: int,
    step_size: float,
) -> list[FloatArray]:
    """The parameters before each expected inner step, and after the last.

    Args:
        problem: the bilevel problem.
        meta_parameters: phi; theta^0 ``[S, A]`` for `Maml`.
        theta: theta^0 (None for `Maml`).
        steps: K, the number of inner steps.
        step_size: alpha.

    Returns:
        ``[theta^0, .., theta^K]``.

    Raises:
        ValueError: as `meta_gradient`; a `TaskFamily`, whose tasks have a path each.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. 2.

    >>> from gradbias.analytic import Maml, TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> [t.tolist() for t in inner_loop(Maml(bandit), [[0.0, 0.0]], steps=1, step_size=1.0)]
    [[[0.0, 0.0]], [[0.25, -0.25]]]
    """
    if isinstance(problem, TaskFamily):
        raise ValueError("problem: expected one task, got a TaskFamily: its tasks have a path each")
    return _unrolled(problem, meta_parameters, theta, steps, step_size).path


def meta_objective(
    problem: BilevelProblem | TaskFamily,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None = None,
    *,
    steps: int,
    step_size: float,
) -> float | FloatArray:
    """The outer return ``J^K(phi)`` after expected inner steps.

    Args:
        problem: the bilevel problem, or a `TaskFamily`.
        meta_parameters: phi; theta^0 ``[S, A]`` for `Maml`.
        theta: theta^0 (None for `Maml`).
        steps: K, the number of inner steps.
        step_size: alpha.

    Returns:
        A number, or an array ``[...]`` if parameters or problems have leading axes.

    Raises:
        ValueError: as `meta_gradient`.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, eq. 2.

    >>> from gradbias.analytic import Maml, TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> round(meta_objective(Maml(bandit), [[0.0, 0.0]], steps=1, step_size=1.0), 4)
    0.6225
    """
    if isinstance(problem, TaskFamily):
        values = [
            meta_objective(task, meta_parameters, theta, steps=steps, step_size=step_size)
            for task in problem.tasks
        ]
        return _mean_over_tasks(problem, [np.asarray(value) for value in values])[()]
    loop = _unrolled(problem, meta_parameters, theta, steps, step_size)
    value = problem.outer(loop.meta_parameters, loop.path[-1]).value
    return value if value.ndim else float(value)


def meta_gradient(
    problem: BilevelProblem | TaskFamily,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None = None,
    *,
    steps: int,
    step_size: float,
) -> FloatArray:
    """The meta-gradient ``dJ^K/dphi`` (for ascent) of the outer return after *expected* inner
    steps.

    Sampled inner steps make another objective: `sampled_step_objective`.

    Args:
        problem: a `Maml`, `Lirpg`, `Lola`, `Mgrl`, any other `BilevelProblem`, or a `TaskFamily`.
        meta_parameters: phi; theta^0 ``[S, A]`` for `Maml`.
        theta: theta^0 (None for `Maml`).
        steps: K, the number of inner steps.
        step_size: alpha.

    Returns:
        Shaped like phi. Leading axes of parameters or problems lead (`Mgrl`'s phi has none).

    Raises:
        ValueError: parameters that do not fit or are not finite, steps below 1, a step size that is
            not a number up to 1e12 in size, or inner steps that diverge.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Prop. 3.1 with dtheta^0/dphi.

    >>> from gradbias.analytic import Maml, TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> meta_gradient(Maml(bandit), [[0.0, 0.0]], steps=1, step_size=1.0).round(4).tolist()
    [[0.235, -0.235]]
    """
    if isinstance(problem, TaskFamily):
        gradients = [
            meta_gradient(task, meta_parameters, theta, steps=steps, step_size=step_size)
            for task in problem.tasks
        ]
        return _mean_over_tasks(problem, gradients)
    loop = _unrolled(problem, meta_parameters, theta, steps, step_size)
    outer = problem.outer(loop.meta_parameters, loop.path[-1])
    cotangent, total = outer.theta_gradient, outer.meta_gradient
    for i, step in reversed(list(enumerate(loop.steps))):
        products = step.pull_back(cotangent)
        if products.meta is not None:
            total = add(total, loop.step_size * products.meta())
        if i > 0 or problem.starts_at_meta:
            cotangent = cotangent + loop.step_size * products.state()
    if problem.starts_at_meta:
        total = add(total, cotangent)
    return np.zeros_like(loop.meta_parameters) if total is None else total


@dataclass(frozen=True, eq=False)
class _Loop:
    """An inner loop that was run: phi, theta^0 .. theta^K, and the K linearised steps."""

    meta_parameters: FloatArray
    path: list[FloatArray]
    steps: list[InnerStep]
    step_size: float


def _unrolled(
    problem: BilevelProblem,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None,
    steps: int,
    step_size: float,
) -> _Loop:
    """Runs the inner loop. Raises ValueError on bad input, or if parameters diverge."""
    count = whole_number("steps", steps, at_least=1)
    size = real_number("step_size", step_size, low=-MAX_STEP, high=MAX_STEP)
    phi, here = problem.start(meta_parameters, theta)
    path, taken = [here], []
    for i in range(count):
        taken.append(problem.inner_step(phi, here))
        with np.errstate(over="ignore"):
            here = here + size * taken[-1].update
        if not np.abs(here).max(initial=0.0) <= MAX_PARAMETER:
            raise ValueError(
                f"step_size: expected parameters that stay below {MAX_PARAMETER:g}, got larger "
                f"ones after inner step {i + 1} with step size {size:g}"
            )
        path.append(here)
    return _Loop(phi, path, taken, size)


def _mean_over_tasks(family: TaskFamily, values: list[FloatArray]) -> FloatArray:
    return np.tensordot(np.asarray(family.probabilities), np.stack(values), axes=1)
