"""The exact values of targets that have a closed form here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.at_parameters import PolicyAt
from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.tables import Problem, Tables
from gradbias.analytic.problems.targets import (
    POLICY_PARAMETERS,
    AnyTarget,
    BootstrappedHorizon,
    Discounted,
    FiniteHorizon,
    GivenTarget,
    Target,
    ZeroTarget,
)
from gradbias.analytic.returns.derivatives import gradient_along, hessian_at, logit_gradient
from gradbias.analytic.returns.evaluation import Evaluation, policy_of
from gradbias.analytic.returns.state_weighting import weighted_visits
from gradbias.analytic.returns.value_jets import field_over_time
from gradbias.analytic.utils.validation import FloatArray, frozen_array

MAX_THIRD_DERIVATIVE = 1_000_000
"""Entries up to which a third derivative is computed."""


def evaluate_target(
    target: AnyTarget, mdp: Problem, theta: npt.ArrayLike, *, policy: Policy = TABULAR
) -> FloatArray:
    """The exact value of a target; the target's horizon is used, not the problem's.

    Args:
        target: a `Target`, a `GivenTarget` or a `ZeroTarget`.
        mdp: the problem.
        theta: the policy's parameters; ``[S, A]`` for the tabular softmax.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        Theta's axes, ``target.order`` times.

    Raises:
        ValueError: a target without a closed form here (derive it and pass a `GivenTarget`), or
            with a horizon, weights or bootstrap values that do not fit the problem; a third
            derivative that is too large, or of many policies at once.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, App. B (targets); the
    policy gradient and Hessian theorems.

    >>> from gradbias.analytic import TabularMDP, return_derivative
    >>> bandit = TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0])
    >>> evaluate_target(return_derivative(1, horizon=1), bandit, [[0.0, 0.0]]).tolist()
    [[0.25, -0.25]]
    """
    if isinstance(target, GivenTarget):
        return target.value
    if isinstance(target, ZeroTarget):
        return np.zeros(np.shape(theta) * target.order)
    other_variable = target.with_respect_to != POLICY_PARAMETERS
    if other_variable or target.inner or target.regulariser or target.order > 3:
        raise ValueError(f"no closed form for {target}: derive it and pass a GivenTarget")
    tables = _with_horizon(mdp.tables, target)
    at = policy_of(mdp, theta, policy)
    exact = Evaluation(tables, at.probabilities)
    if not isinstance(target.weighting, Discounted):
        return at.vjp(_update_field(exact, target))
    if target.order == 1:
        return at.vjp(logit_gradient(exact))
    return hessian_at(at, exact) if target.order == 2 else _third(tables, at)


def _with_horizon(tables: Tables, target: Target) -> Tables:
    """The problem with the target's horizon and final values."""
    horizon, values, steps = target.horizon, None, None
    if isinstance(horizon, BootstrappedHorizon):
        values = frozen_array("bootstrap values", horizon.values, tables.start.shape[-1:])
    if isinstance(horizon, FiniteHorizon | BootstrappedHorizon):
        steps = horizon.steps
    elif np.max(tables.discount) >= 1.0:
        raise ValueError("discount: 1 needs a finite horizon, got horizon None")
    if tables.timed and tables.horizon != steps:
        raise ValueError(
            f"target: expected the {tables.horizon} steps that rewards are given for, got {target}"
        )
    return replace(tables, horizon=steps, final_values=values)


def _update_field(exact: Evaluation, target: Target) -> FloatArray:
    """The policy gradient in the logits with the target's weights in place of gamma^t."""
    if target.order != 1:
        raise ValueError(f"no closed form for {target}: derive it and pass a GivenTarget")
    base, weights = weighted_visits(exact.tables, exact.policy, target.weighting)
    return field_over_time(weights * base.occupancy, exact)


def _third(tables: Tables, at: PolicyAt) -> FloatArray:
    """``D^3 J``, theta's axes three times, from all pairs of basis directions."""
    size = int(np.prod(at.shape))
    if size**3 > MAX_THIRD_DERIVATIVE:
        raise ValueError(
            f"target: expected at most {MAX_THIRD_DERIVATIVE:,} entries, got {size**3:,} in a "
            "third derivative; use third_derivative along directions"
        )
    if at.leading or tables.leading:
        raise ValueError("theta: expected one policy and one problem for a third derivative")
    basis = np.eye(size).reshape(size, *at.shape)
    rows = [gradient_along(tables, at, [v, basis]) for v in basis]
    return np.reshape(rows, at.shape * 3)
