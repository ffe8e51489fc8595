"""Every constant of Lemma 4.4 and Theorem 4.5 for a given loop, and how far each one holds.

- *Global*: for all theta, from `analytic.constants.returns`.
- *Local*: on the ball around theta^0 that no iterate can leave, whatever is sampled: an inner step
  is at most alpha times the largest gradient estimate long. A quantity there is at most its value
  at theta^0 plus its Lipschitz constant times the radius. The smaller of the two is taken.
- *Path*: the largest value at the expected iterates. Sampled iterates go elsewhere, so this bounds
  nothing; it shows what the bounds would be if they could be that small.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Assumptions 4.1-4.3, with the two
Lipschitz constants that they lack (``mu12`` and ``rho1``).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from enum import Enum

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
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import Discounted, Undiscounted
from gradbias.analytic.utils.validation import real_number


class Scope(Enum):
    """Where a constant holds."""

    GLOBAL = "for all theta"
    LOCAL = "on the ball that iterates can reach"
    PATH = "at the expected iterates alone"


@dataclass(frozen=True)
class LoopConstants:
    """Norms and Lipschitz constants in theta, by the paper's symbols; deviations are of one
    trajectory's estimate, ``sqrt(E|estimate - mean|^2)``.

    - the outer return: ``m1``, ``m2`` its gradients in phi and theta; ``mu12``, ``nu12`` the first
      and second derivative of the former in theta, ``mu2``, ``nu2`` of the latter;
    - the mixed derivative J of the inner return: ``c1``; its derivatives ``rho1``, ``chi1``;
    - the inner Hessian H: ``c2``; its derivatives ``rho2``, ``chi2``;
    - the estimates' means: their errors ``delta_j``, ``delta_h``, their Lipschitz constants
      ``change_j``, ``change_h``;
    - deviations: ``sigma`` of the inner gradient, ``sigma_1`` and ``sigma_2`` of the outer ones,
      ``sigma_j`` and ``sigma_h`` of J's and H's estimates.

    ``starts_at_meta`` where theta^0 is phi (MAML), and J has no part. ``scopes`` has the `Scope` of
    every constant that was computed; ``radius`` is that of the ball, where there is one.

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
            given = getattr(self, each.name)
            if each.type == "float" or (each.name == "radius" and given is not None):
                value = real_number(each.name, given, low=0.0, high=sys.float_info.max)
                object.__setattr__(self, each.name, value)
        if not isinstance(self.starts_at_meta, bool):
            raise ValueError(f"starts_at_meta: expected True or False, got {self.starts_at_meta!r}")


def loop_constants(
    problem: BilevelProblem,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None = None,
    *,
    steps: int,
    step_size: float,
    scope: Scope = Scope.LOCAL,
    curvature: Curvature | None = None,
    hessian_error: float = 1.0,
) -> LoopConstants:
    """The constants of a `Maml` or `Lirpg` loop with tabular policies ``[S, A]``, or of a `Lola`
    or `Mgrl` loop; gradients are estimated with rewards-to-go and no critic.

    ``curvature`` says whose mean the Hessians have (None: exact), ``hessian_error`` multiplies its
    difference to the Hessian (not its noise). In a game it is DiCE's, of both players' scores, or
    exact, and so is the mixed derivative. Of a `Mgrl` loop the updates alone are sampled; its
    Jacobians, which are exact, stand in for Hessians.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Theorem 4.5 and Lemma 4.4.

    Raises:
        ValueError: as `meta_gradient`; a problem that is not a `Maml` or `Lirpg` of one
            `TabularMDP` with a finite horizon and tabular policy, or a `Lola` or `Mgrl`
            with a finite horizon; in a game, AD's or LVC's Hessians, for MGRL any; a negative step
            size.

    >>> from gradbias.analytic import Maml, TabularMDP
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    >>> asked = {"steps": 2, "step_size": 0.01}
    >>> for scope in Scope:
    ...     found = loop_constants(Maml(bandit), [[0.5, 0.0]], **asked, scope=scope)
    ...     print(round(found.c2, 4), found.scopes["c2"].name, round(found.sigma, 4))
    0.1925 GLOBAL 0.7071
    0.1232 LOCAL 0.3329
    0.116 PATH 0.2588
    """
    size = real_number("step_size", step_size, low=0.0, high=1e12)
    times = real_number("hessian_error", hessian_error, low=0.0, high=1e12)
    if not isinstance(scope, Scope):
        raise ValueError(f"scope: expected a Scope, got {scope!r}")
    loop = _loop(problem, meta_parameters, theta, steps, size, curvature, times)
    everywhere, found, radius = loop.everywhere(), dict[str, float](), None
    if scope is Scope.PATH:
        found = loop.along_path()
    elif scope is Scope.LOCAL:
        radius = steps * size * loop.largest_estimate()
        found = loop.in_ball(everywhere, radius)
        found = {name: value for name, value in found.items() if value < everywhere[name]}
    scopes = {name: scope if name in found else Scope.GLOBAL for name in everywhere}
    each, starts = everywhere | found, problem.starts_at_meta
    return LoopConstants(**each, starts_at_meta=starts, radius=radius, scopes=scopes)


def _loop(
    problem: BilevelProblem,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None,
    steps: int,
    step_size: float,
    curvature: Curvature | None,
    hessian_error: float,
) -> ReturnLoop | LolaLoop | MgrlLoop:
    if isinstance(problem, Mgrl):
        return _mgrl_loop(problem, meta_parameters, theta, steps, step_size, curvature)
    if not isinstance(problem, Lola):
        to_go = Credit.REWARD_TO_GO
        loop = expected_path(problem, meta_parameters, theta, steps, step_size, to_go, None)
        if loop.problem.policy is not TABULAR:
            raise ValueError("problem: expected a tabular softmax policy, got another one")
        return ReturnLoop(loop, curvature, hessian_error)
    if problem.game.horizon is None:
        raise ValueError("problem: expected a game with a finite horizon, got horizon None")
    if curvature not in (None, Curvature.DICE):
        raise ValueError(f"curvature: expected None or DiCE's in a game, got {curvature!r}")
    path = inner_loop(problem, meta_parameters, theta, steps=steps, step_size=step_size)
    phi, first = problem.start(meta_parameters, theta)
    if path[-1].shape != first.shape or problem.outer(phi, first).value.ndim:
        raise ValueError(f"theta: expected one pair of policies, got shape {path[-1].shape}")
    return LolaLoop(problem, phi, path, sampled_curvature=curvature is not None)


def _mgrl_loop(
    problem: Mgrl,
    meta_parameters: npt.ArrayLike,
    theta: npt.ArrayLike | None,
    steps: int,
    step_size: float,
    curvature: Curvature | None,
) -> MgrlLoop:
    mdp = problem.mdp
    if not isinstance(mdp, TabularMDP) or mdp.horizon is None:
        raise ValueError(f"problem: expected a TabularMDP with a finite horizon, got {mdp!r}")
    if problem.policy is not TABULAR:
        raise ValueError("problem: expected a tabular softmax policy, got another one")
    if not isinstance(problem.weighting, Discounted | Undiscounted):
        raise ValueError(f"problem: expected (un)discounted weights, got {problem.weighting!r}")
    if curvature is not None:
        raise ValueError(f"curvature: expected None for MGRL, got {curvature!r}")
    path = inner_loop(problem, meta_parameters, theta, steps=steps, step_size=step_size)
    if path[0].ndim != 2:
        raise ValueError(f"theta: expected one policy, got shape {path[0].shape}")
    return MgrlLoop(problem, mdp, problem.start(meta_parameters, theta)[0], path)
