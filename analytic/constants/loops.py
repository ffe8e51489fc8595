"""Every constant of Lemma 4.4 and Theorem 4.5 for a given inner loop, and where each one holds.

- *Global*: for all theta, from `analytic.constants.returns`.
- *Local*: on the ball around theta^0 that no iterate can leave, whatever is sampled: an inner step
  is at most alpha times the largest gradient estimate long. A quantity there is at most its value
  at theta^0 plus its Lipschitz constant times the radius. The smaller of the two is taken.

The largest values at the *expected* iterates would be smaller still, but bound nothing: sampled
iterates go elsewhere.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumptions 4.1-4.3, with the two
Lipschitz constants that they lack (``mu12`` and ``rho1``).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Protocol

import numpy.typing as npt

from gradbias.analytic.constants.lola import LolaLoop
from gradbias.analytic.constants.maml_lirpg import ReturnLoop
from gradbias.analytic.constants.mgrl import MgrlLoop
from gradbias.analytic.meta.bilevel import BilevelProblem, Lola, Mgrl
from gradbias.analytic.meta.compositional_bias import expected_path
from gradbias.analytic.meta.meta_gradients import inner_loop
from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.utils.validation import choice, real_number


class Scope(Enum):
    """Where a constant holds: for all theta, or on the ball around theta^0 that no sampled iterate
    can leave.
    """

    GLOBAL = "global"
    LOCAL = "local"


class LoopSource(Protocol):
    """Where the constants of an inner loop come from.

    The theorem needs norms and Lipschitz constants of a loop's derivatives, and how they are
    bounded depends on what the loop ascends: a return (MAML, LIRPG), the opponent's return in a
    game (LOLA), or no objective at all (MGRL). `loop_constants` knows none of these. It asks a
    source how long an inner step can be, takes that for the radius of the ball, and asks for
    constants that hold everywhere and on the ball. A new kind of loop is one class with these three
    methods and one line in `loop_source`; all bounds, sweeps and studies then work for it.
    """

    def largest_estimate(self) -> float:
        """The largest norm that an estimate of the inner update can have, from any trajectories."""
        ...

    def everywhere(self) -> dict[str, float]:
        """Constants that hold for all theta, by the names of `LoopConstants`' fields."""
        ...

    def in_ball(self, everywhere: dict[str, float], radius: float) -> dict[str, float]:
        """Constants that hold on the ball of ``radius`` around theta^0, none above its value in
        ``everywhere``.
        """
        ...


@dataclass(frozen=True)
class LoopConstants:
    """Norms and Lipschitz constants in theta, by the paper's symbols. Standard deviations are those
    of one trajectory's estimate, ``sqrt(E|estimate - mean|^2)``.

    Attributes:
        c2, rho2, chi2: the norms of the inner Hessian H and of its first two derivatives.
        c1, rho1, chi1: the norms of the inner return's mixed derivative J, and of J's derivatives.
        m1, m2: the norms of the outer return's gradients in phi and in theta.
        mu12, nu12: the norms of the first two derivatives in theta of the gradient in phi.
        mu2, nu2: the norms of the first two derivatives in theta of the gradient in theta.
        delta_j, delta_h: the errors of the means of J's and H's estimates.
        change_j, change_h: the Lipschitz constants of these means.
        sigma: the standard deviation of the inner gradient's estimate.
        sigma_1, sigma_2: the standard deviations of the outer gradients' estimates.
        sigma_j, sigma_h: the standard deviations of J's and H's estimates.
        starts_at_meta: whether theta^0 is phi (MAML); J then plays no part.
        radius: the radius of the ball, for local constants.
        scopes: the `Scope` of each constant, by name, where `loop_constants` computed it.

    Raises:
        ValueError: a constant that is negative or not a number.
    """

    c2: float
    m2: float
    sigma: float = 0.0
    mu2: float = 0.0
    nu2: float = 0.0
    rho2: float = 0.0
    chi2: float = 0.0
    m1: float = 0.0
    mu12: float = 0.0
    nu12: float = 0.0
    c1: float = 0.0
    rho1: float = 0.0
    chi1: float = 0.0
    delta_j: float = 0.0
    delta_h: float = 0.0
    change_j: float = 0.0
    change_h: float = 0.0
    sigma_1: float = 0.0
    sigma_2: float = 0.0
    sigma_j: float = 0.0
    sigma_h: float = 0.0
    starts_at_meta: bool = False
    radius: float | None = None
    scopes: dict[str, Scope] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.type == "float" or (each.name == "radius" and value is not None):
                number = real_number(each.name, value, low=0.0, high=sys.float_info.max)
                object.__setattr__(self, each.name, number)
        if not isinstance(self.starts_at_meta, bool):
            raise ValueError(f"starts_at_meta: expected True or False, got {self.starts_at_meta!r}")


def loop_constants(
    problem: BilevelProblem,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None = None,
    *,
    steps: int,
    step_size: float,
    scope: Scope | str = Scope.LOCAL,
    curvature: Curvature | str | None = None,
    hessian_error: float = 1.0,
) -> LoopConstants:
    """The constants of an inner loop; gradients are estimated with rewards-to-go and no critic.

    In a game the Hessian and the mixed derivative are DiCE's, of both players' scores, or exact. In
    a `Mgrl` loop only the updates are sampled; their exact Jacobians take the place of Hessians.

    Args:
        problem: a `Maml` or `Lirpg` with a tabular softmax policy, a `Lola`, or a `Mgrl`.
        meta_parameters: phi, as for `meta_gradient`.
        theta: the parameters that the inner loop starts from; None for MAML.
        steps: K, the number of inner steps.
        step_size: alpha, at least 0.
        scope: "local" (on the ball that iterates can reach) or "global" (for all theta).
        curvature: the Hessian estimator whose mean replaces the exact Hessian: "ad", "lvc" or
            "dice" (default: the exact Hessian).
        hessian_error: multiplies the error of that mean (not its noise).

    Returns:
        The constants, each with the scope that it holds in.

    Raises:
        ValueError: as `meta_gradient`; another kind of problem, policy or weighting; an infinite
            horizon; AD's or LVC's Hessians in a game, or any for MGRL; a negative step size.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Theorem 4.5 and Lemma 4.4.

    >>> from gradbias.analytic import Maml, TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> loop = {"steps": 2, "step_size": 0.01}
    >>> for scope in Scope:
    ...     bounds = loop_constants(Maml(bandit), [[0.5, 0.0]], **loop, scope=scope)
    ...     print(round(bounds.c2, 4), bounds.scopes["c2"].name, round(bounds.sigma, 4))
    0.1925 GLOBAL 0.7071
    0.1232 LOCAL 0.3329
    """
    size = real_number("step_size", step_size, low=0.0, high=1e12)
    times = real_number("hessian_error", hessian_error, low=0.0, high=1e12)
    where = choice("scope", scope, Scope)
    means = None if curvature is None else choice("curvature", curvature, Curvature)
    source = loop_source(problem, meta_parameters, theta, steps, size, means, times)
    everywhere, radius = source.everywhere(), None
    smaller: dict[str, float] = {}
    if where is Scope.LOCAL:
        radius = steps * size * source.largest_estimate()
        local = source.in_ball(everywhere, radius)
        smaller = {name: value for name, value in local.items() if value < everywhere[name]}
    scopes = {name: where if name in smaller else Scope.GLOBAL for name in everywhere}
    constants, starts = everywhere | smaller, problem.starts_at_meta
    return LoopConstants(**constants, starts_at_meta=starts, radius=radius, scopes=scopes)


def loop_source(
    problem: BilevelProblem,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None,
    steps: int,
    step_size: float,
    curvature: Curvature | None,
    hessian_error: float,
) -> LoopSource:
    """The source for a problem's kind of loop, checked. Raises ValueError as `loop_constants`."""
    if isinstance(problem, Lola | Mgrl):
        path = inner_loop(problem, meta_parameters, theta, steps=steps, step_size=step_size)
        phi = problem.start(meta_parameters, theta)[0]
        if isinstance(problem, Lola):
            return LolaLoop.of(problem, phi, path, curvature)
        return MgrlLoop.of(problem, phi, path, curvature)
    credit = Credit.REWARD_TO_GO
    loop = expected_path(problem, meta_parameters, theta, steps, step_size, credit, None)
    if loop.problem.policy is not TABULAR:
        raise ValueError("problem: expected a tabular softmax policy, got another one")
    return ReturnLoop(loop, curvature, hessian_error)
