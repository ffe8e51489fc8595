"""Loops over one parameter and one meta-parameter, whose samples are few enough to list.

Independent of the library: means and variances are sums over all samples of all four sets.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


def nothing(x):
    return np.zeros_like(np.asarray(x, dtype=float))


def coin(size):
    """Noise +-size (a number or a function of x) with probability 1/2 each."""
    at = size if callable(size) else (lambda x: np.full(np.shape(x), float(size)))
    return lambda x: [(0.5, at(x)), (0.5, -at(x))]


def lopsided(size, p):
    """Noise of mean 0 with two values, of which ``size`` has probability p."""
    other = -size * p / (1.0 - p)
    return lambda x: [(p, np.full(np.shape(x), size)), (1.0 - p, np.full(np.shape(x), other))]


def no_noise(x):
    return [(1.0, nothing(x))]


def averaged_pair(noise):
    """The mean of two independent draws."""

    def two(x):
        (p, a), (q, b) = noise(x)
        return [(p * p, a), (2 * p * q, 0.5 * (a + b)), (q * q, b)]

    return two


@dataclass(frozen=True)
class ScalarLoop:
    """Derivatives at x: the inner gradient, its derivatives in phi and x, the outer gradients in x
    and phi; the noises of batches, and what the estimates of the Hessian and the mixed derivative
    are on average (default: exact)."""

    steps: int
    step_size: float
    inner: Callable
    mixed: Callable
    hessian: Callable
    outer: Callable = lambda x: np.ones_like(np.asarray(x, dtype=float))
    outer_in_phi: Callable = nothing
    start: float = 0.0
    noise: Callable = no_noise
    mixed_mean: Callable | None = None
    hessian_mean: Callable | None = None
    hessian_noise: float = 0.0
    mixed_noise: float = 0.0
    outer_noise: float = 0.0
    outer_in_phi_noise: float = 0.0
    from_phi: bool = False
    extras: dict = field(default_factory=dict)

    def expected_path(self):
        """The path with expected steps, ``[1, K + 1]``, and its probability, 1."""
        path = [self.start]
        for _ in range(self.steps):
            path.append(path[-1] + self.step_size * self.inner(np.asarray(path[-1])))
        return np.ones(1), np.array(path, dtype=float)[None]

    def sampled_paths(self):
        """The probabilities ``[M]`` and the paths ``[M, K + 1]`` of all samples."""
        weights, paths = np.ones(1), np.full((1, 1), float(self.start))
        for _ in range(self.steps):
            here = paths[:, -1]
            grown, chance = [], []
            for p, xi in self.noise(here):
                after = here + self.step_size * (self.inner(here) + xi)
                grown.append(np.column_stack([paths, after]))
                chance.append(weights * p)
            weights, paths = np.concatenate(chance), np.concatenate(grown)
        return weights, paths

    def carried(self, paths, signs=None, *, exact=False):
        """The estimates ``[M, C]`` along paths, with given signs ``[C, 2K + 1]`` of the noises."""
        signs = np.zeros((1, 2 * self.steps + 1)) if signs is None else signs
        mixed = self.mixed if exact or self.mixed_mean is None else self.mixed_mean
        hessian = self.hessian if exact or self.hessian_mean is None else self.hessian_mean
        last = paths[:, -1:]
        cotangent = self.outer(last) + self.outer_noise * signs[:, 0]
        meta = self.outer_in_phi(last) + self.outer_in_phi_noise * signs[:, 0]
        for i in reversed(range(self.steps)):
            here = paths[:, i : i + 1]
            of_phi = mixed(here) + self.mixed_noise * signs[:, 2 * i + 1]
            of_x = hessian(here) + self.hessian_noise * signs[:, 2 * i + 2]
            meta = meta + self.step_size * of_phi * cotangent
            cotangent = cotangent + self.step_size * of_x * cotangent
        return cotangent if self.from_phi else meta + 0.0 * cotangent

    def exact(self):
        """The exact meta-gradient, with expected steps."""
        return float(self.carried(self.expected_path()[1], exact=True)[0, 0])

    def bias(self):
        weights, paths = self.sampled_paths()
        return float(weights @ self.carried(paths)[:, 0]) - self.exact()

    def variance(self):
        """The estimate's variance over all samples of all sets."""
        signs = np.array(list(itertools.product([-1.0, 1.0], repeat=2 * self.steps + 1)))
        weights, paths = self.sampled_paths()
        every = self.carried(paths, signs)
        mean = float(weights @ every.mean(axis=1))
        return float(weights @ (every**2).mean(axis=1)) - mean**2

    def errors(self):
        """The last iterate's errors ``E|e_K|``, ``sqrt(E e_K^2)`` and ``|E e_K|``."""
        weights, paths = self.sampled_paths()
        off = paths[:, -1] - self.expected_path()[1][0, -1]
        return (
            float(weights @ abs(off)),
            float(np.sqrt(weights @ off**2)),
            abs(float(weights @ off)),
        )
