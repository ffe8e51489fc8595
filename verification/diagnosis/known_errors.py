"""Known errors of estimators, and the exact quantities that their means are computed from.

A known error has a name, what was probably done, and the exact mean that this leads to. A family of
errors has one number that is fitted, such as another discount. All of them are in
`verification.diagnosis.gradient_errors` and `verification.diagnosis.hessian_errors`.
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
class KnownError:
    """An error that an estimator may have: a short name, ``what`` was done (in words that follow
    "the mean is that of"), and the exact mean ``value`` that this leads to. If ``what`` contains a
    number of this problem, such as its horizon, ``general`` says the same without it.
    """

    name: str
    what: str
    value: FloatArray
    general: str = ""

    @property
    def kind(self) -> str:
        """A name of this error that is the same on all problems."""
        return self.general or self.name


@dataclass(frozen=True, eq=False)
class ErrorFamily:
    """Errors that differ in one number of ``[0, 1]``; ``{x}`` in ``what`` stands for it."""

    name: str
    what: str
    value: Callable[[float], FloatArray]


@dataclass(frozen=True, eq=False)
class ExactQuantities:
    """The exact quantities of a setting that the means of known errors are computed from: ``mdp``
    has a finite horizon H, ``critic`` is ``[H + 1, S]``, ``action_baseline`` is ``[S, A]``.
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
        """The mean gradient estimate whose step t has the weights ``visits [H, S]`` and multiplies
        the score of (s, a) by the mean ``credit [H, S, A]``.
        """
        # With the credit as reward and discount 0, action values are the credit itself.
        one_step = replace(self.tables.with_reward(np.asarray(credit)), discount=np.asarray(0.0))
        credited = Evaluation(one_step, self.at.probabilities)
        return self.at.vjp(field_over_time(visits, credited))


def best_number(mean: FloatArray, family: ErrorFamily) -> float:
    """The number in [0, 1] at which the family is nearest to the mean: the best of a grid, then
    refined by Gauss-Newton steps with secant slopes.
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
        proposed = float(np.clip(best + np.vdot(slope, mean - here) / steepness, 0.0, 1.0))
        reached = distance(proposed)
        if reached < size:
            step, best, size = max(abs(proposed - best), _SMALLEST_STEP), proposed, reached
        else:
            step /= 4
    return best
