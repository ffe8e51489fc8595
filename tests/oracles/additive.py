"""Additive objectives as torch functions of theta, and the exact side's records of them."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradbias.analytic.additive.objectives import AdditiveFunction, AdditiveLaw

F64 = torch.float64


@dataclass(frozen=True, eq=False)
class Toy:
    """M outcomes with logits linear in theta ``[d]`` and features ``A + B theta + sin(C theta)``; f
    is a polynomial of degree ``degree`` in the mean feature. Without ``moves``, neither features
    (then A) nor the polynomial's coefficients depend on theta.
    """

    logits: Tensor
    fixed: Tensor
    moving: Tensor
    waves: Tensor
    coefficients: Tensor
    explicit: Tensor

    @classmethod
    def random(cls, seed, *, outcomes=3, h=2, d=2, degree=4, moves=True):
        rng = np.random.default_rng(seed)

        def normal(*shape):
            return torch.tensor(rng.normal(size=shape), dtype=F64)

        on = 1.0 if moves else 0.0
        return cls(
            normal(outcomes, d),
            normal(outcomes, h),
            on * normal(outcomes, h, d),
            on * normal(outcomes, h, d),
            normal(degree, h) / 2,
            on * normal(degree, d),
        )

    def probabilities(self, theta):
        return torch.softmax(self.logits @ theta, 0)

    def features(self, theta):
        return self.fixed + self.moving @ theta + torch.sin(self.waves @ theta)

    def function(self, x, theta):
        powers = (self.coefficients @ x) ** torch.arange(1, 1 + len(self.coefficients))
        return ((1.0 + self.explicit @ theta) * powers).sum()

    def objective(self, theta, n):
        """The objective, by a sum over all *ordered* batches."""
        p, phi = self.probabilities(theta), self.features(theta)
        total = torch.zeros((), dtype=F64)
        for batch in itertools.product(range(len(p)), repeat=n):
            batch = list(batch)
            total = total + p[batch].prod() * self.function(phi[batch].mean(0), theta)
        return total

    def law(self, theta):
        scores = torch.func.jacrev(lambda t: torch.log(self.probabilities(t)))(theta)
        jacobians = torch.func.jacrev(self.features)(theta)
        moves = bool(jacobians.abs().max() > 0)
        parts = (self.probabilities(theta), self.features(theta), scores, jacobians)
        return AdditiveLaw(*(part.numpy() for part in parts[: 4 if moves else 3]))

    def exact(self, theta):
        """f with all its derivatives, by autograd."""

        def along(function):
            many = torch.func.vmap(function)
            return lambda x: (many if x.ndim > 1 else function)(torch.tensor(x)).numpy()

        def once(function):
            return lambda x: function(torch.tensor(x)).numpy()

        def f(x):
            return self.function(x, theta)

        second = torch.func.jacrev(torch.func.jacrev(self.function))
        explicit = bool(self.explicit.abs().max() > 0)
        return AdditiveFunction(
            value=along(f),
            gradient=along(torch.func.grad(f)),
            hessian=once(torch.func.jacrev(torch.func.jacrev(f))),
            third_derivative=once(torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(f)))),
            explicit=along(lambda x: torch.func.grad(self.function, 1)(x, theta))
            if explicit
            else None,
            explicit_hessian=once(lambda x: torch.func.jacrev(second, 1)(x, theta))
            if explicit
            else None,
        )


def parameters(seed, d=2):
    return torch.tensor(np.random.default_rng(seed).normal(size=d) / 2, dtype=F64)


def laurent(values, samples, powers):
    """The coefficients of ``N^power`` in values ``[len(samples), ...]``, exactly such sums."""
    matrix = np.array([[float(n) ** power for power in powers] for n in samples])
    return np.linalg.solve(matrix, np.array(values).reshape(len(samples), -1))
