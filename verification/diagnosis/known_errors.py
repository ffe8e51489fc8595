"""What common mistakes in an estimator make of its mean: the setting, and the records.

A mistake is a name, what was probably done, and the exact mean that it leads to. A family of them
has one number that is fitted, such as another discount. They are computed from the same closed
forms as the targets; `verification.diagnosis.gradient_errors` and
`verification.diagnosis.hessian_errors` hold them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.at_parameters import PolicyAt
from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.critics import check_ends, critic_rows
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.tables import Tables
from gradbias.analytic.returns.evaluation import Evaluation, single_policy
from gradbias.analytic.returns.value_jets import field_over_time
from gradbias.analytic.utils.validation import FloatArray, frozen_array

_GRID = 33
_REFINEMENTS = 40
_SMALLEST_STEP = 1e-7


@dataclass(frozen=True, eq=False)
class Mistake:
    """``what`` was done, in words that follow "the mean is that of", and the mean ``value``;
    ``general`` says it for problems of any size, where ``what`` holds a number of this one's.
    """

    name: str
    what: str
    value: FloatArray
    general: str = ""

    @property
    def kind(self) -> str:
        """The same for the same mistake on other problems."""
        return self.general or self.name


@dataclass(frozen=True, eq=False)
class Family:
    """Mistakes that differ in one number of ``[0, 1]``; ``{x}`` in ``what`` stands for it."""

    name: str
    what: str
    value: Callable[[float], FloatArray]


@dataclass(frozen=True, eq=False)
class Setting:
    """Where the mean was measured: ``mdp`` with a finite horizon H, and what the estimator was
    given: ``critic [H + 1, S]``, and ``action_baseline [S, A]`` where it has one.
    """

    mdp: TabularMDP
    at: PolicyAt
    critic: FloatArray | None
    action_baseline: FloatArray | None

    @classmethod
    def of(
        cls,
        mdp: TabularMDP,
        theta: npt.ArrayLike,
        *,
        critic: npt.ArrayLike | None = None,
        action_baseline: npt.ArrayLike | None = None,
        policy: Policy = TABULAR,
        length: int | None = None,
    ) -> Setting:
        """Raises ValueError for what does not fit, or an infinite horizon without a length."""
        if mdp.horizon is None and length is None:
            raise ValueError("length: expected the trajectories' steps with horizon None, got none")
        finite = mdp if mdp.horizon is not None else replace(mdp, horizon=length)
        rows = None
        if critic is not None:
            rows = critic_rows(frozen_array("critic", critic), finite.horizon, mdp.n_states)
            check_ends(rows, mdp.terminal)
        baseline = None
        if action_baseline is not None:
            shape = (mdp.n_states, mdp.n_actions)
            baseline = np.array(frozen_array("action_baseline", action_baseline, shape))
            baseline[mdp.terminal] = 0.0  # nothing is chosen there
        return cls(finite, single_policy(finite, theta, policy), rows, baseline)

    @property
    def tables(self) -> Tables:
        """Of the problem."""
        return self.mdp.tables

    @cached_property
    def exact(self) -> Evaluation:
        """The policy's values."""
        return Evaluation(self.tables, self.at.probabilities)

    @property
    def steps(self) -> int:
        """H."""
        return self.tables.steps

    def discounted(self, discount: float) -> Evaluation:
        """The policy's values and visits with another discount."""
        changed = replace(self.tables, discount=np.asarray(discount))
        return Evaluation(changed, self.at.probabilities)

    def field(self, visits: FloatArray, credit: FloatArray) -> FloatArray:
        """The mean gradient estimate where a visit at step t, weighing ``visits [H, S]``, gives
        its action the mean ``credit [H, S, A]``.
        """
        still = replace(self.tables.with_reward(np.asarray(credit)), discount=np.asarray(0.0))
        credited = Evaluation(still, self.at.probabilities)
        return self.at.vjp(field_over_time(visits, credited))


def best_number(mean: FloatArray, family: Family) -> float:
    """Where in [0, 1] the family is nearest to the mean: the best of a grid, then secant steps of
    Gauss and Newton, which are as exact as the family where nothing is left over.
    """

    def distance(x: float) -> float:
        return float(np.linalg.norm(mean - family.value(x)))

    grid = np.linspace(0.0, 1.0, _GRID)
    sizes = [distance(float(x)) for x in grid]
    best, size, step = float(grid[int(np.argmin(sizes))]), min(sizes), 0.5 / (_GRID - 1)
    for _ in range(_REFINEMENTS):
        here = family.value(best)
        other = best + step if best + step <= 1.0 else best - step
        slope = (family.value(other) - here) / (other - best)
        steepness = float(np.vdot(slope, slope))
        if steepness == 0.0 or step < _SMALLEST_STEP:
            break
        moved = float(np.clip(best + np.vdot(slope, mean - here) / steepness, 0.0, 1.0))
        reached = distance(moved)
        if reached < size:
            step, best, size = max(abs(moved - best), _SMALLEST_STEP), moved, reached
        else:
            step /= 4
    return best
