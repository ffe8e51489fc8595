"""Sampled verdicts on problems whose mean rests on a rare outcome, with and without what the exact
moments know. The estimator is right but for a planted factor.
"""

from dataclasses import dataclass
from typing import ClassVar
from unittest import mock

import numpy as np

import gradbias.verification.evidence.known_moments as known_moments
import gradbias.verification.evidence.verdicts as verdicts
import gradbias.verification.measurement.find_moments as find_moments
import gradbias.verification.sequential.draws as draws
from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.derivatives.assembly import Rows
from gradbias.verification.measurement.measure import measure_bias
from gradbias.verification.sequential.measure import measure_bias_sequentially

THETA = np.array([[0.3, -0.2], [0.0, 0.0], [0.0, 0.0]])


def rare_problem(p):
    """Two steps: action 0 of state 0 leads to state 1 with probability p, and pays 1 / p there."""
    rows = np.zeros((3, 2, 3))
    rows[0, 0, 1], rows[0, 0, 2], rows[0, 1, 2] = p, 1 - p, 1
    rows[1, :, 1] = rows[2, :, 2] = 1.0
    reward = np.zeros((3, 2, 3))
    reward[0, 0, 1], reward[0, 0, 2], reward[0, 1, 2] = 1 / p, 0.2, 0.7
    return TabularMDP(rows, reward, 0.9, [1.0, 0.0, 0.0], 2)


@dataclass(frozen=True)
class WithBaseline:
    """REINFORCE with the baseline 1, times ``scale``; unbiased if that is 1."""

    scale: float = 1.0
    order: int = 1
    name: str = "with a baseline"
    draws_itself: ClassVar[bool] = False

    def prepare(self, batch, context):
        return _Evaluator(self.scale, softmax(context.theta), context.discount)


@dataclass(frozen=True, eq=False)
class _Evaluator:
    scale: float
    policy: np.ndarray
    discount: float
    notes: tuple[str, ...] = ()
    most: int | None = None

    def rows(self, batch):
        count, n, steps = batch.actions.shape
        table = np.zeros((count, *self.policy.shape))
        togo, at = np.zeros((count, n)), np.arange(count)
        for t in reversed(range(steps)):
            togo = batch.rewards[:, :, t] + self.discount * togo
            weight = self.scale * self.discount**t * (togo - 1.0) / n
            for i in range(n):
                states, actions = batch.states[:, i, t], batch.actions[:, i, t]
                scores = np.eye(2)[actions] - self.policy[states]
                table[at, states] += (weight * batch.alive[:, :, t])[:, i, None] * scores
        return Rows.of_dense(table)


def fixed(scale, p, count, seed):
    """The report on a sample of fixed size."""
    options = {"evidence": "sampling", "budget": count, "rng": np.random.default_rng(seed)}
    return measure_bias(WithBaseline(scale), rare_problem(p), THETA, tolerance=0.02, **options)


def sequential(scale, p, count, seed):
    """The report of a run that stops when it is decided."""
    options = {"budget": count, "rng": np.random.default_rng(seed), "tolerance": 0.02}
    return measure_bias_sequentially(WithBaseline(scale), rare_problem(p), THETA, **options)


KINDS = {"fixed": fixed, "sequential": sequential}


def by_the_sample_alone(kind, scale, p, count, seed):
    """The same report where only the sample speaks: no exact kurtosis, no control variate."""
    with (
        mock.patch.object(known_moments, "MIN_OUTCOMES", 0),
        mock.patch.object(verdicts, "_MAX_SHARE", 1.0),
        mock.patch.object(find_moments, "known_control", return_value=None),
        mock.patch.object(draws, "known_control", return_value=None),
    ):
        return KINDS[kind](scale, p, count, seed)
