"""MGRL's constants and bounds: against differences of exact Jacobians, and exact biases."""

import numpy as np
import pytest
from bound_instances import of_bias

from analytic.bilevel import Mgrl
from analytic.moments import Curvature
from analytic.policies import LinearSoftmax
from analytic.problems import TabularMDP
from analytic.scoped_constants import Scope, loop_constants
from analytic.targets import GivenWeights, Undiscounted
from verification.bound_sweeps import Sweep, bound_versus_empirical
from verification.bounds import meta_gradient_bias_bound

LOOPS = 30


def random_loop(seed):
    """Discount and lambda between 0 and 1, both ends among them; critics that are far off or move
    with time; deterministic transitions."""
    rng = np.random.default_rng([seed, 8])
    n_states, horizon = 1 + seed % 2, int(rng.integers(1, 4))
    rows = rng.dirichlet(np.full(n_states, 0.3), size=(n_states, 2))
    if seed % 3 == 0:
        rows = np.eye(n_states)[rng.integers(n_states, size=(n_states, 2))]
    reward = rng.normal(size=(n_states, 2)) * rng.choice([0.1, 1.0, 5.0])
    discount = float(rng.choice([0.0, 0.5, 0.9, 1.0]))
    mdp = TabularMDP(rows, reward, discount, np.eye(n_states)[0], horizon)
    critic = rng.normal(size=(horizon + 1, n_states)) * rng.choice([0.1, 1.0, 5.0])
    weighting = {"weighting": Undiscounted()} if seed % 4 == 1 else {}
    phi = rng.choice([0.0, 0.5, 0.9, 1.0], size=2)
    theta = rng.normal(size=(n_states, 2)) * rng.choice([0.0, 1.0, 3.0])
    return Mgrl(mdp, critic, **weighting), phi, theta


def derivatives(problem, phi, theta, v):
    """Norms of the update's Jacobian and of its derivatives in phi, and how fast they change."""
    every = np.eye(theta.size).reshape(-1, *theta.shape)

    def jacobian(x):
        step = problem.inner_step(phi, x)
        return np.array([step.jvp(one).ravel() for one in every])

    def mixed(x):
        linear = problem.inner_step(phi, x).linear
        moved = (linear.discount_derivative, linear.trace_decay_derivative)
        return np.stack([part.ravel() for part in moved])

    found = {}
    for names, function in ((("c2", "rho2", "chi2"), jacobian), (("c1", "rho1", "chi1"), mixed)):
        here, h = function(theta), 1e-3
        up, down = function(theta + h * v), function(theta - h * v)
        changes = (here, (up - down) / (2 * h), (up - 2 * here + down) / h**2)
        found |= {
            name: float(np.linalg.norm(one, 2)) for name, one in zip(names, changes, strict=True)
        }
    return found


def test_derivatives_of_the_update_stay_below_their_constants():
    rng, largest = np.random.default_rng(0), {}
    for seed in range(LOOPS):
        problem, phi, theta = random_loop(seed)
        constants = loop_constants(problem, phi, theta, steps=1, step_size=0.1, scope=Scope.GLOBAL)
        for spread in (0.0, 0.5, 1.0, 3.0):
            v = rng.normal(size=theta.shape)
            at = rng.normal(size=theta.shape) * spread
            found = derivatives(problem, phi, at, v / np.linalg.norm(v))
            for name, value in found.items():
                bound = getattr(constants, name)
                assert value <= bound * (1 + 1e-5) + 1e-6 * (1 + constants.chi2), (seed, name)
                if bound > 1e-3:
                    largest[name] = max(largest.get(name, 0.0), value / bound)
    assert min(largest.values()) > 0.3, largest


def test_bounds_hold_for_sampled_lambda_returns():
    ran, loose = 0, []
    for seed in range(0, LOOPS, 3):
        given, steps = random_loop(seed), 1 + seed % 2
        asked = {"sweep": Sweep.STEP_SIZE, "values": [0.03, 1.0], "samples": 1, "steps": steps}
        asked["outcomes"] = 1000
        for row in bound_versus_empirical(*given, **asked).rows:
            loop = {"steps": steps, "step_size": row.step_size}
            for scope in (Scope.GLOBAL, Scope.LOCAL):
                constants = loop_constants(*given, **loop, scope=scope)
                bound = meta_gradient_bias_bound(constants, **loop, samples=1)
                if row.bias is None:
                    continue
                for found in of_bias(bound, row.bias, 1.0 + constants.c1, scope.name):
                    assert found.holds, (seed, found)
                    ran += 1
                    loose += [] if found.looseness is None else [found.looseness]
    assert ran >= 2 * LOOPS
    assert min(loose) < 12.0


def test_local_constants_hold_at_the_ends_of_the_ball():
    rng, names = np.random.default_rng(0), set()
    for seed in range(12):
        problem, phi, theta = random_loop(seed)
        asked = {"steps": 2, "step_size": 1e-3}
        local = loop_constants(problem, phi, theta, **asked)
        path = loop_constants(problem, phi, theta, **asked, scope=Scope.PATH)
        v = rng.normal(size=theta.shape)
        there = theta + local.radius * v / np.linalg.norm(v)
        found = derivatives(problem, phi, there, v / np.linalg.norm(v))
        for name in ("c1", "c2"):
            assert found[name] <= getattr(local, name) * (1 + 1e-9)
            assert getattr(path, name) <= getattr(local, name) * (1 + 1e-9)
        names |= {name for name, scope in local.scopes.items() if scope is Scope.LOCAL}
    assert names == {"c1", "c2", "m2", "mu2"}


def test_bad_input_is_named():
    mdp = TabularMDP(np.ones((1, 2, 1)), [[1.0, 0.0]], 0.9, [1.0], horizon=2)
    asked = {"steps": 1, "step_size": 0.1}
    phi, theta = [0.9, 0.5], np.zeros((1, 2))
    endless = TabularMDP(np.ones((1, 2, 1)), [[1.0, 0.0]], 0.9, [1.0])
    linear = Mgrl(mdp, [0.0], policy=LinearSoftmax(np.ones((1, 2, 1))))
    bad = [
        (lambda: loop_constants(Mgrl(endless, [0.0]), phi, theta, **asked), "finite horizon"),
        (lambda: loop_constants(linear, phi, np.zeros(1), **asked), "tabular softmax"),
        (
            lambda: loop_constants(
                Mgrl(mdp, [0.0], weighting=GivenWeights((1.0, 2.0))), phi, theta, **asked
            ),
            "weights",
        ),
        (
            lambda: loop_constants(Mgrl(mdp, [0.0]), phi, theta, **asked, curvature=Curvature.DICE),
            "curvature: expected None",
        ),
        (
            lambda: loop_constants(Mgrl(mdp, [0.0]), phi, np.zeros((3, 1, 2)), **asked),
            "theta: expected one policy",
        ),
    ]
    for call, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            call()
