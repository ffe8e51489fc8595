"""Bounds against exact biases, errors and variances: sums over all samples of small loops."""

import doctest
import math
from dataclasses import fields, replace
from functools import cache
from itertools import permutations

import numpy as np
import pytest

import benchmarks.bounds as by_script
from gradbias.analytic.constants.at_point import Point
from gradbias.analytic.constants.loops import LoopConstants, loop_constants
from gradbias.analytic.meta.bilevel import Lirpg, Maml
from gradbias.analytic.meta.compositional_bias import expected_path
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.verification.bounds.meta_gradient_bias import (
    compositional_error_bound,
    meta_gradient_bias_bound,
)
from gradbias.verification.bounds.meta_gradient_variance import meta_gradient_variance_bound
from gradbias.verification.bounds.saturating_arithmetic import power, saturating_product
from gradbias.verification.measurement.meta_gradients import measure_meta_gradient
from tests.cases.bound_loops import (
    CURVATURES,
    Found,
    Instance,
    findings,
    found_biases,
    instance_findings,
    random_instance,
    random_scalar,
    sampled_estimator,
    scalar_findings,
    table,
)
from tests.cases.checkout import ROOT
from tests.errata.paths import noise_off_the_path, quadratic
from tests.errata.theorem import hessian_off
from tests.oracles.scalar_loops import ScalarLoop, coin

SCALAR, DECISIONS = 400, 40
"""Loops in every run; the slow test takes 600 of decision problems."""


def check_all(every, fewest):
    ran = 0
    for found in every:
        assert found.holds, found
        ran += 1
    assert ran >= fewest


@cache
def on_scalar_loops():
    return [f for s in range(SCALAR) for f in scalar_findings(*random_scalar(s))]


def test_every_bound_holds_on_scalar_loops_with_every_constant_at_work():
    """J_out that depends on phi, biased Jacobians and Hessians, noise in all sets: 1 to 3 steps."""
    check_all(on_scalar_loops(), 6 * SCALAR)
    seen = [random_scalar(s)[1] for s in range(100)]
    for each in fields(LoopConstants):
        if each.type == "float":
            assert sum(getattr(c, each.name) > 0.0 for c in seen) >= 20, each.name


def test_every_bound_holds_on_bandits_and_small_mdps():
    every = [random_instance(seed) for seed in range(DECISIONS)]
    check_all((f for i in every for f in instance_findings(i)), 10 * DECISIONS)
    assert {i.steps for i in every} == {1, 2, 3}
    assert {i.curvature for i in every} == set(CURVATURES)
    assert {type(i.problem) for i in every} == {Maml, Lirpg}


@pytest.mark.slow
def test_the_page_s_table_is_that_of_600_bandits_and_small_mdps_and_every_bound_holds():
    every = list(findings(by_script.SCALAR, by_script.DECISIONS))
    check_all(every, 10 * 600)
    wanted = by_script.page(table(every), len(every), 0)
    shown = (ROOT / "docs" / "bounds.md").read_text()
    assert shown.split("| bound |")[0] == wanted.split("| bound |")[0]
    kept, found = (text.split("|---|---|---|---|---|\n")[1] for text in (shown, wanted))
    for one, other in zip(kept.splitlines(), found.splitlines(), strict=True):
        for cell, again in zip(one.split("|"), other.split("|"), strict=True):
            same = cell.strip() == again.strip()
            # The largest ones have exact values that are not much more than rounding.
            assert same or float(cell) == pytest.approx(float(again), rel=0.05)


def test_the_page_s_examples_run():
    found = doctest.testfile(str(ROOT / "docs" / "bounds.md"), module_relative=False)
    assert (found.failed, found.attempted >= 9) == (0, True)


def test_bounds_are_attained_or_nearly():
    """Else they could be right by being large alone."""
    for name, _, smallest, *_ in table(on_scalar_loops()):
        assert smallest < 1.2, name


def test_constants_on_the_expected_path_alone_bound_nothing():
    """A policy that hardly ever takes the arm that pays: its deviation is small, until it does."""
    on_path = noise_off_the_path()
    assert on_path["expected error"] > on_path["eq. (6), sigma on the expected path"]
    mdp = TabularMDP(np.ones((1, 2, 1)), [[1.0, 0.0]], 0.9, [1.0], horizon=1)
    rare = Instance(Maml(mdp), np.array([[-8.0, 0.0]]), None, 3, 4.0, 1, None)
    assert all(found.holds for found in instance_findings(rare))
    loop = expected_path(rare.problem, rare.phi, None, 3, 4.0, Credit.REWARD_TO_GO, None)
    points = [Point(loop, theta, None, 1.0).inner() for theta in loop.path[:-1]]
    path = {name: max(point[name] for point in points) for name in points[0]}
    constants = LoopConstants(m2=1.0, **path)
    error = compositional_error_bound(constants, **rare.asked, batch_size=1).root_mean_square
    (exact,) = {f.exact for f in instance_findings(rare) if f.name.startswith("root mean square")}
    assert not Found("root mean square, path", exact, error).holds


def without_step_size(bound, step_size):
    """What remains of a bound if one alpha is forgotten."""
    return bound / step_size


def test_bounds_without_their_step_size_fail():
    """Three broken twins, where alpha = 2."""
    off = hessian_off(3, 2.0, 0.3, 0.5)
    constants = LoopConstants(c2=0.3, m2=1.0, c1=1.0, delta_h=0.5)
    asked = {"steps": 3, "step_size": 2.0}
    bias = meta_gradient_bias_bound(constants, **asked, batch_size=None).corrected
    assert Found("bias", off.bias(), bias).holds
    assert not Found("bias", off.bias(), without_step_size(bias, 2.0)).holds
    noisy = quadratic(1, 2.0, 0.3, noise=coin(1.0))
    asked = {"steps": 1, "step_size": 2.0, "batch_size": 1}
    error = compositional_error_bound(LoopConstants(c2=0.3, m2=1.0, sigma=1.0), **asked).printed
    assert Found("error", noisy.errors()[0], error).holds
    assert not Found("error", noisy.errors()[0], without_step_size(error, 2.0)).holds
    one = quadratic(1, 2.0, 0.0, mixed_noise=1.0)
    noise = LoopConstants(c2=0.0, m2=1.0, c1=1.0, sigma_j=1.0)
    variance = meta_gradient_variance_bound(noise, **asked).corrected
    assert Found("variance", one.variance(), variance).holds
    assert not Found("variance", one.variance(), without_step_size(variance, 2.0)).holds


def constant(value):
    return lambda x: np.full(np.shape(x), float(value))


def attained():
    """Loops in which one term of the theorem is the whole bias, and constants for them: +-0.5 is
    what a step's noise is, and a modulus is Lipschitz with no better constant."""
    zero, one, alpha = constant(0.0), constant(1.0), 2.0
    still = {"inner": zero, "mixed": zero, "hessian": zero, "noise": coin(0.5)}
    bent = {"inner": lambda x: 0.5 * x * np.abs(x), "hessian": np.abs}
    c = {"m2": 1.0, "sigma": 0.5}
    return {
        "mu12": (ScalarLoop(1, alpha, **still | {"outer_in_phi": np.abs}), {"mu12": 1.0}),
        "mu2": (ScalarLoop(1, alpha, **still | {"mixed": one, "outer": np.abs}), {"mu2": 1.0}),
        "rho1": (ScalarLoop(2, alpha, **still | {"mixed": np.abs}), {"rho1": 1.0}),
        "rho2": (
            ScalarLoop(2, alpha, **still | bent | {"mixed": one}),
            {"rho2": 1.0, "c2": 1.0},
        ),
        "delta_j, delta_h": (
            ScalarLoop(
                3,
                alpha,
                inner=lambda x: 0.3 * x,
                mixed=zero,
                hessian=constant(0.3),
                mixed_mean=constant(0.4),
                hessian_mean=constant(0.7),
            ),
            {"c1": 0.0, "c2": 0.3, "delta_j": 0.4, "delta_h": 0.4},
        ),
        "MAML, mu2": (
            ScalarLoop(1, alpha, **still | {"outer": np.abs}, from_phi=True),
            {"mu2": 1.0},
        ),
        "MAML, rho2": (
            ScalarLoop(2, 1e-3, **still | bent, from_phi=True),
            {"rho2": 1.0, "c2": 5e-4},
        ),
        "MAML, delta_h": (
            ScalarLoop(
                3,
                alpha,
                inner=lambda x: 0.3 * x,
                mixed=zero,
                hessian=constant(0.3),
                hessian_mean=constant(0.7),
                from_phi=True,
            ),
            {"c2": 0.3, "delta_h": 0.4},
        ),
    }, c


@pytest.mark.parametrize("name", sorted(attained()[0]))
def test_each_term_of_the_corrected_bound_is_attained_by_itself(name):
    loops, common = attained()
    loop, own = loops[name]
    constants = LoopConstants(**{"c1": 1.0, "c2": 0.0} | common | own, starts_at_meta=loop.from_phi)
    asked = {"steps": loop.steps, "step_size": loop.step_size}
    samples = 1 if "delta" not in name else None
    bound = meta_gradient_bias_bound(constants, **asked, batch_size=samples).corrected
    assert bound == pytest.approx(abs(loop.bias()), rel=1e-5)
    assert bound > 1e-8


@pytest.mark.parametrize("from_phi", [False, True])
def test_the_variance_bound_is_attained_where_derivatives_are_constant(from_phi):
    noises = {"sigma_h": 0.5, "sigma_j": 0.0 if from_phi else 0.7, "sigma_2": 0.9}
    loop = ScalarLoop(
        3,
        1.5,
        inner=lambda x: 0.3 * x,
        mixed=constant(0.6),
        hessian=constant(0.3),
        outer=constant(0.8),
        hessian_noise=0.5,
        mixed_noise=0.7,
        outer_noise=0.9,
        outer_in_phi_noise=0.0 if from_phi else 0.4,
        from_phi=from_phi,
    )
    first = {} if from_phi else {"sigma_1": 0.4}
    constants = LoopConstants(c2=0.3, c1=0.6, m2=0.8, **noises, **first, starts_at_meta=from_phi)
    asked = {"steps": 3, "step_size": 1.5, "batch_size": 1}
    bound = meta_gradient_variance_bound(constants, **asked).corrected
    assert bound == pytest.approx(loop.variance(), rel=1e-12)


def test_what_the_path_does_to_the_variance_is_attained_too():
    """out = alpha x at theta^1, or J that is x, or a Hessian that is x: each by itself."""
    zero, one, line = constant(0.0), constant(1.0), lambda x: np.asarray(x, dtype=float)
    still = {"inner": zero, "mixed": zero, "hessian": zero, "noise": coin(0.5)}
    first = lambda x: np.where(x == 0, 1.0, 0.0)  # noqa: E731
    cases = (
        (1, {"mixed": one, "outer": line}, {"c1": 1.0, "mu2": 1.0, "m2": 0.0}),
        (2, {"mixed": line}, {"change_j": 1.0}),
        (2, {"mixed": first, "hessian_mean": line}, {"c1": 1.0, "change_h": 1.0}),
        (1, {"outer_in_phi": line}, {"mu12": 1.0}),
    )
    for steps, parts, own in cases:
        loop = ScalarLoop(steps, 2.0, **still | parts)
        constants = LoopConstants(**{"c2": 0.0, "m2": 1.0, "sigma": 0.5} | own)
        asked = {"steps": steps, "step_size": 2.0, "batch_size": 1}
        bound = meta_gradient_variance_bound(constants, **asked).corrected
        assert bound == pytest.approx(loop.variance(), rel=1e-12)
    shifted = {"hessian": constant(0.7), "hessian_mean": lambda x: 0.7 + np.asarray(x)}
    twice = ScalarLoop(2, 2.0, **still | shifted, from_phi=True)
    constants = LoopConstants(c2=0.7, m2=1.0, sigma=0.5, change_h=1.0, starts_at_meta=True)
    asked = {"steps": 2, "step_size": 2.0, "batch_size": 1}
    bound = meta_gradient_variance_bound(constants, **asked).corrected
    assert bound == pytest.approx(twice.variance(), rel=1e-12)


def test_the_second_order_bound_s_terms_are_attained():
    """Two factors that move together, J and the outer gradient at later points; and a path that
    bends."""
    zero, line = constant(0.0), lambda x: np.asarray(x, dtype=float)
    still = {"inner": zero, "mixed": zero, "hessian": zero, "noise": coin(0.5)}
    square = {"inner": lambda x: 0.5 * x**2, "hessian": line, "outer": zero, "outer_in_phi": line}
    curved = {"outer": zero, "outer_in_phi": lambda x: 0.5 * x**2}
    turned = {"hessian": lambda x: 0.5 * x**2, "from_phi": True}
    cases = (
        (2.0, 2, {"mixed": line, "outer": line}, {"rho1": 1.0, "mu2": 1.0}),
        (1e-3, 2, square, {"rho2": 1.0, "mu12": 1.0}),
        (2.0, 1, curved, {"nu12": 1.0}),
        (2.0, 2, turned, {"chi2": 1.0, "m2": 1.0, "starts_at_meta": True}),
    )
    for alpha, steps, parts, own in cases:
        loop = ScalarLoop(steps, alpha, **still | parts)
        constants = LoopConstants(**{"c2": 0.0, "m2": 0.0, "sigma": 0.5} | own)
        asked = {"steps": steps, "step_size": alpha, "batch_size": 1}
        bound = meta_gradient_bias_bound(constants, **asked).second_order
        assert bound == pytest.approx(abs(loop.bias()), rel=1e-6)
        assert bound > 0.0


ERRORS = ("sigma", "delta_j", "delta_h", "sigma_1", "sigma_2", "sigma_j", "sigma_h")


def test_each_bound_goes_to_0_with_its_errors_and_what_is_printed_does_not():
    for seed in range(40):
        loop, constants, n = random_scalar(seed)
        asked = {"steps": loop.steps, "step_size": loop.step_size, "batch_size": n}
        found = []
        for factor in (1.0, 1e-4, 1e-6, 0.0):
            scaled = {name: factor * getattr(constants, name) for name in ERRORS}
            less = replace(constants, **scaled)
            bias = meta_gradient_bias_bound(less, **asked)
            error = compositional_error_bound(less, **asked, slope_lipschitz=1.0)
            variance = meta_gradient_variance_bound(less, **asked)
            parts = (bias.corrected, bias.second_order, bias.smallest)
            more = (error.printed, error.root_mean_square, error.iterate_bias, error.bias)
            found.append([*parts, *more, variance.corrected])
            printed = bias.printed
        assert found[-1] == [0.0] * 8
        assert printed >= loop.steps - 1  # eq. (9), where nothing errs
        for big, small in zip(found[1], found[2], strict=True):
            assert small <= 0.0101 * big  # at least linear


def test_sampled_steps_add_a_bias_of_order_1_over_n_to_its_second_order_bound():
    constants = random_scalar(3)[1]
    constants = replace(constants, delta_h=0.0, delta_j=0.0)
    asked = {"steps": 3, "step_size": 0.1}
    one, other = (meta_gradient_bias_bound(constants, **asked, batch_size=n) for n in (100, 10_000))
    assert one.second_order / other.second_order == pytest.approx(100.0, rel=1e-9)
    assert one.corrected / other.corrected == pytest.approx(10.0, rel=1e-9)


def test_the_smallest_bound_is_one_that_holds():
    loop, constants, n = random_scalar(1)
    asked = {"steps": loop.steps, "step_size": loop.step_size, "batch_size": n}
    found = meta_gradient_bias_bound(constants, **asked)
    assert found.smallest == min(found.corrected, found.second_order)
    assert found.estimates <= found.smallest


# --- variances, and biases by another way ---


def test_the_variance_bound_holds_for_estimates_from_four_sets_of_samples():
    """Exact covariances by enumeration; and the same biases as by the exact side's way."""
    ran = 0
    for seed in range(45):
        instance = random_instance(seed)
        small = instance.problem.mdp.n_states == 1 or instance.steps == 1
        if instance.curvature is None or instance.steps > 2 or not small:
            continue
        given = (instance.phi, instance.theta)
        estimator = sampled_estimator(instance)
        asked = {"exact": instance.problem, "evidence": "enumeration"}
        report = measure_meta_gradient(estimator, *given, **asked)
        _, bias, size = found_biases(instance)
        np.testing.assert_allclose(report.bias, bias, rtol=0.0, atol=1e-11 * (1.0 + size))
        constants = loop_constants(
            instance.problem, *given, **instance.asked, curvature=instance.curvature
        )
        bound = meta_gradient_variance_bound(
            constants, **instance.asked, batch_size=instance.samples
        )
        variance = float(np.sum(report.variance))
        assert Found("variance", variance, bound.corrected, 1.0 + size**2).holds
        ran += 1
    assert ran >= 15


def test_independent_outer_sets_are_covered_too():
    """One set for both outer gradients is the worse case."""
    loop, constants, n = random_scalar(2)
    asked = {"steps": loop.steps, "step_size": loop.step_size, "batch_size": n}
    whole = meta_gradient_variance_bound(constants, **asked).corrected
    first = replace(constants, sigma_1=0.0)
    assert meta_gradient_variance_bound(first, **asked).corrected <= whole


STEEP = {"c2": 1e3, "m2": 1.0, "c1": 1.0, "mu2": 1.0, "rho2": 1.0, "chi2": 1.0}


@pytest.mark.parametrize("from_phi", [False, True])
@pytest.mark.parametrize("steps", [60, 200, 400])
def test_bounds_beyond_what_floats_reach_are_infinite_and_0_where_nothing_errs(from_phi, steps):
    asked = {"steps": steps, "step_size": 1e9, "batch_size": 1}
    noisy = LoopConstants(**STEEP, sigma=1.0, sigma_2=1.0, delta_h=1.0, starts_at_meta=from_phi)
    error = compositional_error_bound(noisy, **asked, slope_lipschitz=1.0)
    bias = meta_gradient_bias_bound(noisy, **asked)
    variance = meta_gradient_variance_bound(noisy, **asked)
    for bound in (*vars(error).values(), *vars(bias).values(), *vars(variance).values()):
        assert bound == math.inf
    exact = LoopConstants(**STEEP, starts_at_meta=from_phi)
    bias = meta_gradient_bias_bound(exact, **asked)
    assert (bias.corrected, bias.second_order, bias.estimates) == (0.0,) * 3
    assert meta_gradient_variance_bound(exact, **asked).corrected == 0.0
    error = compositional_error_bound(exact, **asked)
    assert list(vars(error).values()) == [0.0] * 4


def test_a_tiny_step_does_not_make_a_bound_0():
    """Its square is below what floats hold; times what else there is, it is not. Two steps, errors
    of the Hessian alone: alpha^2 m_2 c_1 Delta_H, and no more."""
    large = LoopConstants(c2=1.0, m2=1e250, c1=1e100, delta_h=1.0)
    found = meta_gradient_bias_bound(large, steps=2, step_size=1e-170, batch_size=None)
    expected = pytest.approx(1e10, rel=1e-9)
    assert (found.corrected, found.second_order) == (expected,) * 2
    quiet = LoopConstants(c2=0.0, m2=1.0, mu2=1.0, sigma=1e-170, nu2=1e300, starts_at_meta=True)
    assert meta_gradient_bias_bound(quiet, steps=1, step_size=1.0, batch_size=1).second_order > 0.0


def test_a_product_is_0_where_a_factor_is_and_infinite_where_floats_end():
    """Whatever is multiplied first: a bound that floats make 0 on the way would be none."""
    for factors in permutations((1e-200, 1e-200, 1e300)):
        assert saturating_product(*factors) == pytest.approx(1e-100, rel=1e-12)
    for factors in permutations((1e200, 1e200, 1e-300)):
        assert saturating_product(*factors) == pytest.approx(1e100, rel=1e-12)
    for factors in permutations((1e-200, 1e-200, math.inf)):
        assert saturating_product(*factors) == math.inf
    assert saturating_product(1e-200, 1e-200) > 0.0
    assert saturating_product(0.0, math.inf) == saturating_product(1e300, 0.0, 1e300) == 0.0
    assert power(1e200, 2) == saturating_product(1e200, 1e200) == math.inf
    assert saturating_product(0.1, 0.7, 3.0) == 0.1 * 0.7 * 3.0


def test_what_is_0_times_infinity_on_the_way_is_no_bound_of_0():
    """A derivative that is 0 everywhere, times one that floats do not reach."""
    for from_phi in (False, True):
        steep = LoopConstants(
            c2=1e200, m2=1.0, c1=1.0, mu2=1.0, rho2=1.0, sigma=1.0, starts_at_meta=from_phi
        )
        found = meta_gradient_bias_bound(steep, steps=3, step_size=1.0, batch_size=1)
        assert found.second_order == math.inf


def test_a_thousand_steps_take_no_time():
    """A hundred times fewer operations than a sum over pairs of steps."""
    small = LoopConstants(c2=1e-6, m2=1.0, c1=1.0, sigma=1.0, mu2=1.0, rho2=1.0, chi2=1.0)
    found = meta_gradient_bias_bound(small, steps=1000, step_size=1e-3, batch_size=1)
    assert 0.0 < found.second_order < found.corrected < math.inf


def test_bad_input_is_named():
    constants = LoopConstants(c2=0.0, m2=1.0)
    loop = {"steps": 1, "step_size": 0.1, "batch_size": 1}
    for function in (
        compositional_error_bound,
        meta_gradient_bias_bound,
        meta_gradient_variance_bound,
    ):
        for name, value in (("steps", 0), ("step_size", -1.0), ("batch_size", 0)):
            with pytest.raises(ValueError, match=f"{name}: expected"):
                function(constants, **loop | {name: value})
    with pytest.raises(ValueError, match="lipschitz: expected"):
        compositional_error_bound(constants, **loop, lipschitz=math.nan)
    with pytest.raises(ValueError, match="batch_size: expected"):
        meta_gradient_variance_bound(constants, **loop | {"batch_size": None})
    with pytest.raises(ValueError, match="constants: expected LoopConstants, got dict"):
        meta_gradient_bias_bound({"c2": 1.0}, **loop)


def test_a_loop_without_noise_or_error_has_no_bias():
    """Of the enumeration itself: exact steps give the exact meta-gradient."""
    still = ScalarLoop(2, 0.5, inner=np.sin, mixed=np.cos, hessian=np.cos, start=0.3)
    assert still.bias() == 0.0
    assert still.variance() == pytest.approx(0.0, abs=1e-15)
