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
from gradbias.analytic.problems.critics import critic_rows
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.tables import Tables
from gradbias.analytic.returns.evaluation import Evaluation, single_policy
from gradbias.analytic.returns.value_jets import field_over_time
from gradbias.analytic.utils.validation import FloatArray, frozen_array
from gradbias.verification.evidence.setting import Setting

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
class ExactQuantities:
    """The exact values, visits and critic of a setting, from which the means of known errors are
    computed.

    Attributes:
        mdp: the problem, with a finite horizon H.
        at: the policy at its parameters.
        critic: ``[H + 1, S]``, or None.
        action_baseline: a baseline ``[S, A]`` that depends on the action, or None.
    """

    mdp: TabularMDP
    at: PolicyAt
    critic: FloatArray | None
    action_baseline: FloatArray | None

    @classmethod
    def of(cls, setting: Setting, action_baseline: npt.ArrayLike | None = None) -> ExactQuantities:
        """The quantities of a setting. Raises ValueError for a baseline of a wrong shape."""
        mdp, rows, baseline = setting.finite_mdp, None, None
        if setting.critic is not None:
            rows = critic_rows(setting.critic, setting.steps, mdp.n_states)
        if action_baseline is not None:
            shape = (mdp.n_states, mdp.n_actions)
            baseline = np.array(frozen_array("action_baseline", action_baseline, shape))
            baseline[mdp.terminal] = 0.0  # nothing is chosen there
        return cls(mdp, single_policy(mdp, setting.theta, setting.policy), rows, baseline)

    @property
    def tables(self) -> Tables:
        """The problem's tables."""
        return self.mdp.tables

    @cached_property
    def evaluation(self) -> Evaluation:
        """The policy's values and occupancy."""
        return Evaluation(self.tables, self.at.probabilities)

    @property
    def steps(self) -> int:
        """The horizon H, in steps."""
        return self.tables.steps

    def discounted(self, discount: float) -> Evaluation:
        """The policy's values and occupancy with another discount."""
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
