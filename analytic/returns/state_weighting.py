"""State weights of an update on policy: discounted, undiscounted, or given for each step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradbias.analytic.problems.tables import Tables
from gradbias.analytic.problems.targets import Discounted, StateWeighting
from gradbias.analytic.returns.evaluation import Evaluation
from gradbias.analytic.utils.validation import FloatArray


def weighted_visits(
    tables: Tables, policy: FloatArray, weighting: StateWeighting
) -> tuple[Evaluation, FloatArray]:
    """An evaluation and factors ``[T, 1]``; ``factors * evaluation.occupancy`` are the state
    weights.

    Raises:
        ValueError: a weighting that needs a finite horizon, or weights for another one.
    """
    if isinstance(weighting, Discounted):
        return Evaluation(tables, policy), np.ones((tables.steps, 1))
    if tables.horizon is None:
        raise ValueError(f"weighting: {weighting} needs a finite horizon, got horizon None")
    factors = weighting.step_weights(1.0, tables.horizon)[:, None]
    undiscounted = replace(tables, discount=np.ones_like(tables.discount))
    return Evaluation(undiscounted, policy), factors
