"""Sweeps of bounds beside biases: slopes; biases by enumeration, by sampling, or not at all."""

import math

import numpy as np
import pytest

from gradbias.analytic.constants.loops import Scope, loop_constants
from gradbias.analytic.meta.bilevel import Lirpg, Maml
from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.verification.bounds.meta_gradient_bias import meta_gradient_bias_bound
from gradbias.verification.bounds.sweep import MEASURES, Sweep, bound_versus_empirical, slope_of
from gradbias.verification.measurement.meta_gradients import measure_meta_gradient
from tests.cases.bandits import bandit
from tests.cases.bound_loops import Instance, sampled_estimator

PROBLEM = TabularMDP(
    [[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.1, 0.9]]], [[1.0, 0.0], [0.3, -0.5]], 0.9, [1, 0], 2
)
THETA = np.array([[0.4, -0.3], [0.1, 0.6]])


@pytest.mark.parametrize("problem", ["maml", "lirpg"])
def test_slopes_of_a_sweep_are_those_of_theory(problem):
    """The bias falls as 1/N; in the step size it rises as alpha^2 for MAML, whose outer gradient
    alone bends first, and as alpha^3 for LIRPG."""
    given = (Maml(PROBLEM), THETA) if problem == "maml" else (Lirpg(PROBLEM), 0 * THETA, THETA)
    sweep = {"sweep": Sweep.BATCH_SIZE, "values": [1, 2, 3], "steps": 1, "step_size": 0.1}
    found = bound_versus_empirical(*given, **sweep).slopes
    for name, wanted in (("bias", -1.0), ("leading", -1.0), ("second_order", -1.0)):
        assert found[name].value == pytest.approx(wanted, abs=0.05), name
    assert found["corrected"].value == pytest.approx(-0.5, abs=1e-6)
    sizes = {"sweep": Sweep.STEP_SIZE, "values": [1e-4, 1e-3, 1e-2], "steps": 2, "batch_size": 1}
    found = bound_versus_empirical(*given, **sizes)
    order = 2.0 if problem == "maml" else 3.0
    assert found.slopes["bias"].value == pytest.approx(order, abs=0.05)
    for row in found.rows:
        assert row.bias == pytest.approx(row.leading, rel=20 * row.step_size)
        assert row.bias <= min(row.second_order, row.corrected) <= row.everywhere
        assert row.looseness == min(row.second_order, row.corrected) / row.bias


def test_a_sweep_of_the_hessian_s_error_is_linear_where_that_is_small():
    asked = {"values": [1e-4, 1e-3, 1e-2], "batch_size": None, "steps": 3, "step_size": 0.3}
    sweep = {"sweep": Sweep.HESSIAN_ERROR, "curvature": Curvature.AD} | asked
    found = bound_versus_empirical(Maml(PROBLEM), THETA, **sweep)
    for name in ("bias", "corrected", "everywhere"):
        assert found.slopes[name].value == pytest.approx(1.0, abs=0.02), name
    assert found.slopes["printed"].value < 0.1
    assert all(row.batch_size is None and row.bias == row.leading for row in found.rows)
    sampled = bound_versus_empirical(Maml(PROBLEM), THETA, **sweep | {"batch_size": 1, "steps": 1})
    for row in sampled.rows:
        assert row.bias <= row.corrected
        assert row.bias == pytest.approx(row.leading, rel=0.2)


def test_a_multiple_of_an_estimator_s_error_is_the_estimator_s_bias():
    """With the factor 1: its exact bias, by the enumeration of all its samples."""
    instance = Instance(Maml(bandit()), np.array([[0.9, -0.3]]), None, 2, 0.8, 2, Curvature.AD)
    asked = {"sweep": Sweep.HESSIAN_ERROR, "values": [1.0], "curvature": Curvature.AD}
    loop = {"steps": 2, "step_size": 0.8, "batch_size": 2}
    (row,) = bound_versus_empirical(instance.problem, instance.phi, **asked, **loop).rows
    report = measure_meta_gradient(
        sampled_estimator(instance), instance.phi, exact=instance.problem
    )
    assert row.bias == pytest.approx(float(np.linalg.norm(report.bias)), rel=1e-10)


def test_the_leading_term_is_the_bias_but_for_order_n_to_the_minus_2():
    """Also with biased Hessians, whose own error and what sampled steps make of it both count."""
    asked = {"sweep": Sweep.BATCH_SIZE, "values": [16, 32, 64], "steps": 2, "step_size": 0.8}
    maml = (Maml(bandit()), np.array([[0.9, -0.3]]))
    for curvature in (None, Curvature.AD):
        rows = bound_versus_empirical(*maml, **asked, curvature=curvature).rows
        left = [abs(row.bias - row.leading) * row.batch_size**2 for row in rows]
        assert left[2] == pytest.approx(left[1], rel=0.1)
        assert abs(rows[2].bias - rows[2].leading) < 1e-3 * rows[2].bias


def test_a_sweep_beyond_enumeration_has_the_leading_term_alone():
    asked = {"sweep": Sweep.STEPS, "values": [1, 5], "batch_size": 3, "step_size": 0.1}
    first, last = bound_versus_empirical(Maml(PROBLEM), THETA, **asked).rows
    assert first.bias is not None
    assert last.bias is None is last.looseness
    assert last.leading > 0.0


@pytest.mark.parametrize("problem", ["maml", "lirpg"])
def test_a_sampled_bias_has_an_interval_that_holds_the_exact_one(problem):
    """A fixed seed; the stated rate of a miss is 1e-3."""
    given = (Maml(PROBLEM), THETA) if problem == "maml" else (Lirpg(PROBLEM), 0.3 * THETA, THETA)
    asked = {"sweep": Sweep.STEP_SIZE, "values": [1.0], "batch_size": 1, "steps": 2}
    for curvature, runs in ((None, 8_000), (Curvature.AD, 300)):
        more = {"curvature": curvature} | asked
        (exact,) = bound_versus_empirical(*given, **more).rows
        (found,) = bound_versus_empirical(*given, **more, max_outcomes=0, replications=runs).rows
        low, high = found.interval
        assert low <= exact.bias <= high
        assert 0.0 < high - low < (3.0 if curvature is None else 8.0) * exact.bias
        assert exact.interval is None
        assert found.leading == exact.leading


def test_slopes_are_those_of_powers():
    x = np.array([8.0, 1.0, 2.0])

    def slope(values):
        return slope_of(x, [None if value is None else (value,) * 3 for value in values])

    assert vars(slope(3.0 * x**-1.5)) == pytest.approx({"value": -1.5, "low": -1.5, "high": -1.5})
    bent = slope([8.0, 1.0, None])
    assert bent.value == pytest.approx(1.0)
    wide = slope([2.0, 1.0, 2.0])
    assert (wide.low, wide.high) == pytest.approx((0.0, 1.0))
    assert slope([1.0, None, None]) is None
    assert slope([1.0, math.inf, None]) is None
    sampled = slope_of(np.array([1.0, 2.0]), [(1.0, 0.5, 2.0), (2.0, 2.0, 2.0)])
    assert vars(sampled) == pytest.approx({"value": 1.0, "low": 0.0, "high": 2.0})


def test_a_sampled_bias_that_may_be_0_has_no_slope_and_no_looseness():
    """A fixed seed; 200 loops, whose bias is a tenth of what they can tell from 0."""
    asked = {"sweep": Sweep.BATCH_SIZE, "values": [2, 4], "steps": 1, "step_size": 0.1}
    found = bound_versus_empirical(Maml(PROBLEM), THETA, **asked, max_outcomes=0, replications=200)
    for row in found.rows:
        assert row.interval[0] == 0.0 < row.interval[1]
        assert row.looseness is None
    assert "bias" not in found.slopes
    assert "corrected" in found.slopes


@pytest.mark.parametrize("lirpg", [False, True])
def test_a_bias_that_is_rounding_is_0(lirpg):
    """All rewards equal, or a step size of 0: so are the bounds, and nothing is said of noise."""
    equal = TabularMDP(PROBLEM.transition, np.ones((2, 2)), 0.9, [1, 0], 2)
    asked = {"sweep": Sweep.BATCH_SIZE, "values": [1, 2], "steps": 2, "step_size": 0.3}
    given = (Lirpg(equal), THETA, THETA) if lirpg else (Maml(equal), THETA)
    found = bound_versus_empirical(*given, **asked, curvature=Curvature.LVC)
    for row in found.rows:
        assert (row.bias, row.leading, row.corrected, row.looseness) == (0.0, 0.0, 0.0, None)
    assert set(found.slopes) == {"printed"}
    still = {"sweep": Sweep.STEP_SIZE, "values": [0.0, 1e-3, 1e-2], "batch_size": 1}
    given = (Lirpg(PROBLEM), THETA, THETA) if lirpg else (Maml(PROBLEM), THETA)
    first, *others = bound_versus_empirical(*given, **still).rows
    assert (first.bias, first.corrected) == (0.0, 0.0)
    assert all(0.0 < row.bias <= row.second_order for row in others)


def test_each_row_has_the_bounds_of_both_scopes():
    asked = {"steps": 2, "step_size": 0.003}
    sweep = {"sweep": Sweep.BATCH_SIZE, "values": [3], "curvature": Curvature.AD}
    (row,) = bound_versus_empirical(Maml(PROBLEM), THETA, **sweep, **asked).rows
    for scope, names in ((Scope.GLOBAL, ("everywhere", "printed")), (Scope.LOCAL, ("corrected",))):
        constants = loop_constants(
            Maml(PROBLEM), THETA, **asked, scope=scope, curvature=Curvature.AD
        )
        bound = meta_gradient_bias_bound(constants, **asked, batch_size=3)
        for name in names:
            wanted = bound.corrected if name == "everywhere" else getattr(bound, name)
            assert getattr(row, name) == wanted
    assert row.everywhere > row.corrected


def test_a_sweep_beyond_floats_has_infinite_bounds():
    asked = {"sweep": Sweep.STEPS, "values": [1, 60], "step_size": 1e12}
    first, last = bound_versus_empirical(Maml(PROBLEM), THETA, **asked).rows
    assert first.corrected < last.corrected == math.inf


def test_bad_input_is_named():
    sweep = {"sweep": Sweep.BATCH_SIZE, "values": [1]}
    maml = (Maml(bandit()), np.zeros((1, 2)))
    bad = [
        (
            {"sweep": "N"},
            "sweep: expected one of steps, step_size, batch_size, hessian_error, got 'N'",
        ),
        ({"curvature": "PPO"}, "curvature: expected one of"),
        ({"values": []}, "values: expected at least one"),
        ({"values": 3}, "values: expected at least one number in a sequence, got 3"),
        ({"values": [1.5]}, "values: expected an integer"),
        ({"sweep": Sweep.HESSIAN_ERROR}, "curvature: expected the estimator whose error"),
        ({"sweep": Sweep.STEP_SIZE, "values": [-1.0]}, "values: expected a number"),
    ]
    for options, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            bound_versus_empirical(*maml, **sweep | options)
    assert set(MEASURES) >= {"bias", "printed"}
