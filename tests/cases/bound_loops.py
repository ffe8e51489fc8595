"""Random and adversarial loops, with their exact biases and the bounds of these biases."""

import math
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.constants.loops import LoopConstants, Scope, loop_constants
from gradbias.analytic.meta.bilevel import Lirpg, Maml
from gradbias.analytic.meta.compositional_bias import compositional_bias
from gradbias.analytic.meta.meta_gradients import meta_gradient
from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import Sampled
from gradbias.stochastic.surrogates.catalogue import CATALOGUE
from gradbias.stochastic.surrogates.meta_losses import IntrinsicReward
from gradbias.verification.bounds.biased_hessians import with_hessian_error
from gradbias.verification.bounds.meta_gradient_bias import (
    compositional_error_bound,
    meta_gradient_bias_bound,
)
from gradbias.verification.bounds.meta_gradient_variance import meta_gradient_variance_bound
from tests.oracles.scalar_loops import ScalarLoop, averaged_pair, coin, lopsided

ROUNDING = 1e-12
"""The rounding of exact values, relative to the numbers that they are differences of."""


@dataclass(frozen=True)
class Found:
    """An exact value and a bound of it; ``scale`` is the size of the numbers it comes from."""

    name: str
    exact: float
    bound: float
    scale: float = 1.0

    @property
    def holds(self):
        return self.exact <= self.bound * (1.0 + 1e-10) + ROUNDING * self.scale

    @property
    def looseness(self):
        """The bound over the exact value; None where the exact value is rounding."""
        return self.bound / self.exact if self.exact > 1e3 * ROUNDING * self.scale else None


def of_bias(bound, exact, scale, label):
    names = ("corrected", "second_order")
    return [Found(f"{name}, {label}", exact, getattr(bound, name), scale) for name in names]


# --- scalar loops: all constants known in closed form ---


def random_scalar(seed):
    """A loop on a sine in phi and theta, with biased estimates and noise everywhere; derivatives of
    all orders are bounded, and the constants below are attained."""
    rng = np.random.default_rng(seed)
    a, b, d, h, k = rng.normal(size=5) * rng.choice([0.3, 1.0, 3.0])
    c, p, q = rng.normal(size=3)
    delta_h, delta_j = rng.choice([0.0, 0.1, 1.0], size=2) * rng.uniform(size=2)
    wave, size = rng.normal(), rng.choice([0.05, 0.5, 2.0]) * rng.uniform()
    noises = rng.choice([0.0, 0.2, 1.0], size=4) * rng.uniform(size=4)
    from_phi = bool(rng.integers(2))
    alpha, steps = rng.choice([0.03, 0.3, 1.0]), int(rng.integers(1, 4))
    phi = rng.normal()
    moving = rng.integers(3)
    noise = (coin(size), lopsided(0.3 * size, 0.1), coin(lambda x: size * np.abs(np.sin(wave * x))))
    sigma = (size, 0.3 * size * math.sqrt(1.0 / 9.0), size)[moving]
    noise, n = noise[moving], int(rng.integers(1, 3))
    linear = 0.0 if from_phi else k
    loop = ScalarLoop(
        steps=steps,
        step_size=alpha,
        inner=lambda x: a * np.sin(b * x + d * phi) + h * x + linear * phi,
        mixed=lambda x: a * d * np.cos(b * x + d * phi) + linear,
        hessian=lambda x: a * b * np.cos(b * x + d * phi) + h,
        outer=lambda x: c * p * np.cos(p * x + q * phi),
        outer_in_phi=lambda x: c * q * np.cos(p * x + q * phi),
        start=rng.normal(),
        noise=averaged_pair(noise) if n == 2 else noise,
        mixed_mean=lambda x: a * d * np.cos(b * x + d * phi) + linear + delta_j * np.sin(wave * x),
        hessian_mean=lambda x: a * b * np.cos(b * x + d * phi) + h + delta_h * np.cos(wave * x),
        hessian_noise=noises[0] / math.sqrt(n),
        mixed_noise=noises[1] / math.sqrt(n),
        outer_noise=noises[2] / math.sqrt(n),
        outer_in_phi_noise=noises[3] / math.sqrt(n),
        from_phi=from_phi,
    )
    a, b, d, c, p, q, w = map(abs, (a, b, d, c, p, q, wave))
    constants = LoopConstants(
        c2=a * b + abs(h),
        rho2=a * b**2,
        chi2=a * b**3,
        c1=a * d + abs(linear),
        rho1=a * d * b,
        chi1=a * d * b**2,
        m2=c * p,
        mu2=c * p**2,
        nu2=c * p**3,
        m1=c * q,
        mu12=c * p * q,
        nu12=c * p**2 * q,
        delta_h=delta_h,
        delta_j=delta_j,
        sigma=sigma,
        change_h=a * b**2 + delta_h * w,
        change_j=a * d * b + delta_j * w,
        **dict(zip(("sigma_h", "sigma_j", "sigma_2", "sigma_1"), noises, strict=True)),
        starts_at_meta=from_phi,
    )
    return loop, constants, n


def scalar_findings(loop, constants, n):
    """The findings of every bound on one scalar loop."""
    asked = {"steps": loop.steps, "step_size": loop.step_size, "batch_size": n}
    error = compositional_error_bound(constants, **asked)
    bias = meta_gradient_bias_bound(constants, **asked)
    variance = meta_gradient_variance_bound(constants, **asked)
    mean, square, shift = loop.errors()
    size = 1.0 + abs(loop.exact())
    return [
        Found("Lemma 4.4, scalar", mean, error.printed),
        Found("root mean square, scalar", square, error.root_mean_square),
        Found("iterate's bias, scalar", shift, error.iterate_bias),
        *of_bias(bias, abs(loop.bias()), size, "scalar"),
        Found("variance, scalar", loop.variance(), variance.corrected, size**2),
    ]


# --- decision problems: exact biases by enumeration of all batches ---

CURVATURES = (None, Curvature.DICE, Curvature.LVC, Curvature.AD)


@dataclass(frozen=True)
class Instance:
    """One sampled loop of a decision problem."""

    problem: object
    phi: np.ndarray
    theta: np.ndarray | None
    steps: int
    step_size: float
    samples: int
    curvature: Curvature | None

    @property
    def asked(self):
        return {"steps": self.steps, "step_size": self.step_size}


def random_problem(rng, kind):
    """A bandit, or a one-state or two-state problem of two steps, with random or deterministic
    transitions and rewards of both signs."""
    if kind == "bandit":
        arms = int(rng.integers(2, 4))
        reward = rng.normal(size=(1, arms)) * rng.choice([0.1, 1.0, 5.0])
        return TabularMDP(np.ones((1, arms, 1)), reward, 0.9, [1.0], horizon=1)
    discount = float(rng.choice([0.5, 0.9, 1.0]))
    concentration = float(rng.choice([0.2, 1.0]))
    rows = rng.dirichlet(np.full(2, concentration), size=(2, 2))
    if kind == "deterministic":
        rows = np.eye(2)[rng.integers(2, size=(2, 2))]
    if kind == "repeated":
        return TabularMDP(np.ones((1, 2, 1)), rng.normal(size=(1, 2)), discount, [1.0], horizon=2)
    reward = rng.normal(size=(2, 2, 2) if rng.integers(2) else (2, 2))
    return TabularMDP(rows, reward, discount, [1.0, 0.0], horizon=2)


def random_instance(seed):
    rng = np.random.default_rng([seed, 1])
    kind = ("bandit", "bandit", "repeated", "random", "deterministic")[int(rng.integers(5))]
    mdp = random_problem(rng, kind)
    steps = int(rng.integers(1, 4)) if kind in ("bandit", "repeated") else int(rng.integers(1, 3))
    most = 1 if steps == 3 or (kind == "random" and steps == 2) else 2
    shape = (mdp.n_states, mdp.n_actions)
    theta = rng.normal(size=shape) * rng.choice([0.0, 1.0, 4.0])
    alpha = float(rng.choice([0.003, 0.03, 0.3, 2.0]))
    curvature = CURVATURES[int(rng.integers(4))]
    loop = (steps, alpha, int(rng.integers(1, most + 1)), curvature)
    if rng.integers(2):
        return Instance(Maml(mdp), theta, None, *loop)
    return Instance(Lirpg(mdp), rng.normal(size=shape) * 0.5, theta, *loop)


def found_biases(instance):
    """The exact `CompositionalBias`, the meta-gradient's total bias, and the exact one's norm."""
    given = (instance.phi, instance.theta)
    inner = instance.problem.mdp
    if isinstance(instance.problem, Lirpg):
        extra = instance.phi if inner.reward.ndim == 2 else instance.phi[..., None]
        inner = TabularMDP(
            inner.transition, inner.reward + extra, inner.discount, inner.start, inner.horizon
        )
    erring = with_hessian_error(instance.problem, inner, instance.curvature, 1.0)
    sampled = compositional_bias(erring, *given, **instance.asked, batch_size=instance.samples)
    expected = meta_gradient(erring, *given, **instance.asked)
    exact = meta_gradient(instance.problem, *given, **instance.asked)
    return sampled, sampled.meta_gradient + expected - exact, float(np.linalg.norm(exact))


NAMES = {Curvature.AD: "ad", Curvature.LVC: "lvc", Curvature.DICE: "dice"}


def sampled_estimator(instance):
    """The sampled meta-gradient of an instance, with fresh batches in each of its slots."""
    n, ad, own = instance.samples, CATALOGUE["ad"], CATALOGUE[NAMES[instance.curvature]]
    mdp, loop = instance.problem.mdp, (instance.steps, instance.step_size)
    if isinstance(instance.problem, Maml):
        slots = (Sampled(ad, n), Sampled(own, n), Sampled(ad, n))
        return MetaGradient(SampledLoop(mdp, starts_at_meta=True), *loop, *slots)
    inner, turned = IntrinsicReward(ad), IntrinsicReward(own)
    slots = (Sampled(inner, n), Sampled(turned, n), Sampled(ad, n), Sampled(inner, n))
    return MetaGradient(SampledLoop(mdp), *loop, *slots)


def instance_findings(instance):
    """The findings of every bound on one loop of a decision problem."""
    sampled, whole, size = found_biases(instance)
    shift = float(np.linalg.norm(sampled.iterate))
    square = math.sqrt(float(np.trace(sampled.iterate_covariance)) + shift**2)
    found = []
    for scope in Scope:
        label = scope.name.lower()
        given = (instance.problem, instance.phi, instance.theta)
        constants = loop_constants(
            *given, **instance.asked, scope=scope, curvature=instance.curvature
        )
        asked = instance.asked | {"batch_size": instance.samples}
        of_return = {"lipschitz": constants.m2, "slope_lipschitz": constants.mu2}
        error = compositional_error_bound(constants, **asked)
        returned = compositional_error_bound(constants, **asked, **of_return)
        bias = meta_gradient_bias_bound(constants, **asked)
        found += [
            Found(f"root mean square, {label}", square, error.root_mean_square),
            Found(f"iterate's bias, {label}", shift, error.iterate_bias),
            Found(f"return's bias, {label}", abs(sampled.outer_return), returned.bias),
            *of_bias(bias, float(np.linalg.norm(whole)), 1.0 + size, label),
        ]
    return found


def findings(scalar, decision):
    """The findings of the first ``scalar`` scalar loops and ``decision`` loops of MDPs."""
    for seed in range(scalar):
        yield from scalar_findings(*random_scalar(seed))
    for seed in range(decision):
        yield from instance_findings(random_instance(seed))


def table(every):
    """A row for each bound: name, findings, and smallest, median and largest looseness."""
    loose = {}
    for found in every:
        loose.setdefault(found.name, [])
        if found.looseness is not None:
            loose[found.name].append(found.looseness)
    return [
        (name, len(values), min(values), float(np.median(values)), max(values))
        for name, values in sorted(loose.items())
    ]
