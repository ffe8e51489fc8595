"""One inner step whose trajectories are used again for the Hessian: its bias, bounded.

MAML's code with an unbiased Hessian and the same N trajectories for step and Hessian computes the
linearised estimate of the sampled-step objective's gradient (E-MAML's;
`analytic.meta.sampled_objective`). Let phi be one trajectory's inner estimate, u its score, alpha
the step size, and mu_2 the Lipschitz constant of the outer gradient wherever a step may lead. Then

    |E[linearised] - gradient| <= alpha^2 mu_2 / (2 N) E[|phi|^2 |u|]

for every N. The bound is of order 1/N, where the source's is of order 1/sqrt(N).

Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Lemma 4.2 and Prop. 6.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.additive.expansion import linearised_bias_bound
from gradbias.analytic.additive.maml_expansion import step_expansion
from gradbias.analytic.additive.maml_step import adapted_return, trajectory_law
from gradbias.analytic.additive.objectives import additive_moments
from gradbias.analytic.constants.loops import Scope
from gradbias.analytic.constants.returns import return_constants
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import hessian
from gradbias.analytic.utils.validation import choice, real_number


@dataclass(frozen=True)
class LinearisedRow:
    """Norms for one ``batch_size`` N: of the exact ``bias``, of its ``leading`` term in 1/N, and
    bounds whose constants hold on the ball that a step can reach (``reachable``) or for all theta
    (``everywhere``).
    """

    batch_size: int
    bias: float
    leading: float
    reachable: float
    everywhere: float


def linearised_step_bound(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    step_size: float,
    batch_size: int,
    credit: Credit = Credit.TOTAL_RETURN,
    scope: Scope | str = Scope.LOCAL,
) -> float:
    """A bound of the norm of the bias of one inner step whose batch is used again for its Hessian,
    with respect to the sampled-step objective.

    Args:
        mdp: the problem, with a finite horizon.
        theta: the policy's logits ``[S, A]``.
        step_size: alpha, at least 0.
        batch_size: N, the number of trajectories in a batch.
        credit: the weight of each score in the inner estimate.
        scope: "local" (mu_2 holds on the ball that a step can reach) or "global" (for all theta).

    Returns:
        The bound, of order 1/N.

    Raises:
        ValueError: theta does not fit, an infinite horizon, too many trajectories, a negative step
            size, no samples, or another scope.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Lemma 4.2, sharpened.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> step = {"step_size": 1.0, "scope": "global"}
    >>> bounds = [linearised_step_bound(bandit, [[0, 0]], batch_size=n, **step) for n in (1, 10)]
    >>> [round(bound, 5) for bound in bounds]
    [0.01701, 0.0017]
    """
    where = choice("scope", scope, Scope)
    size = real_number("step_size", step_size, low=0.0, high=1e12)
    law = trajectory_law(mdp, theta, credit=credit)
    constants = return_constants(mdp)
    mu_2 = constants.curvature
    if where is Scope.LOCAL:
        p = law.features.shape[1]
        at_theta = float(np.linalg.norm(hessian(mdp, theta).reshape(p, p), 2))
        radius = size * float(np.linalg.norm(law.features, axis=1).max())
        mu_2 = min(mu_2, at_theta + radius * constants.third)
    return linearised_bias_bound(law, lipschitz=size**2 * mu_2, batch_size=batch_size)


def linearised_step_rows(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    step_size: float,
    batch_size: Sequence[int],
    credit: Credit = Credit.TOTAL_RETURN,
) -> tuple[LinearisedRow, ...]:
    """The exact bias that one batch for an inner step and its Hessian leaves, beside its leading
    term and bounds, for each batch size.

    Args:
        mdp: the problem, with a finite horizon.
        theta: the policy's logits ``[S, A]``.
        step_size: alpha, at least 0.
        batch_size: the values of N, the number of trajectories in a batch.
        credit: the weight of each score in the inner estimate.

    Returns:
        One row for each batch size.

    Raises:
        ValueError: as `linearised_step_bound`, or batches that are too many to enumerate.

    Source: *On Merits of Biased Gradient Estimates for Meta-RL*, Sec. 3.4 and Prop. 6.2.

    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> few, many = linearised_step_rows(bandit, [[0.5, 0.0]], step_size=0.1, batch_size=[2, 64])
    >>> few.bias < few.reachable < few.everywhere, round(many.leading / many.bias, 2)
    (True, 1.0)
    """
    step: dict[str, Any] = {"step_size": step_size, "credit": credit}
    everywhere, reachable = (
        linearised_step_bound(mdp, theta, batch_size=1, scope=scope, **step)
        for scope in (Scope.GLOBAL, Scope.LOCAL)
    )
    law = trajectory_law(mdp, theta, credit=credit)
    function = adapted_return(mdp, theta, step_size=step_size)
    limits = step_expansion(mdp, theta, **step)
    leading = float(np.linalg.norm(limits.linearised - limits.objective))
    rows = []
    for n in batch_size:
        bias = float(np.linalg.norm(additive_moments(law, function, batch_size=n).bias))
        rows.append(LinearisedRow(n, bias, leading / n, reachable / n, everywhere / n))
    return tuple(rows)
