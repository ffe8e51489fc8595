"""Dense derivatives along an inner loop, by autograd through torch functions of the definitions."""

import numpy as np
import torch

from gradbias.analytic.meta.bilevel import Lirpg
from gradbias.analytic.meta.meta_gradients import inner_loop, meta_gradient
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient, hessian
from tests.oracles import brute_force as oracles
from tests.oracles import torch_functions as by_torch

STEP_SIZE = 0.8
HOLDS = 1e-11
FAILS = 1e-6  # five orders above; the order of products makes the smallest error, 2e-5


class LirpgByMatrices:
    """Dense derivatives along LIRPG's inner loop, and the loop's derivative by autograd.

    Rows of a Jacobian are phi's, as in the paper: ``mixed[i]`` is d/dphi d/dtheta J_in at theta^i.
    """

    def __init__(self, steps, seed=11):
        rng = np.random.default_rng(seed)
        self.mdp = oracles.random_mdp(seed, n_states=3, n_actions=2)
        self.phi, self.theta = rng.normal(size=(2, 3, 2))
        self.steps = steps
        loop = {"steps": steps, "step_size": STEP_SIZE}
        self.path = inner_loop(Lirpg(self.mdp), self.phi, self.theta, **loop)
        paid = TabularMDP(
            self.mdp.transition, self.mdp.reward + self.phi, self.mdp.discount, self.mdp.start
        )
        self.hessians = [hessian(paid, theta).reshape(6, 6) for theta in self.path]
        self.mixed = [self._mixed(theta) for theta in self.path]
        self.outer = gradient(self.mdp, self.path[-1]).ravel()
        self.found = meta_gradient(Lirpg(self.mdp), self.phi, self.theta, **loop).ravel()

    def _mixed(self, theta):
        def function(phi, logits):
            return by_torch.return_of(self.mdp, logits, extra_reward=phi)

        both = torch.func.jacrev(torch.func.jacrev(function, 1), 0)
        found = both(by_torch.tensor(self.phi), by_torch.tensor(theta)).numpy()
        return found.reshape(6, 6).T  # rows: phi

    def inner(self, phi, theta):
        value = by_torch.return_of(self.mdp, theta, extra_reward=phi)
        return by_torch.gradient_in(value, theta)

    def through_the_loop(self):
        outer = lambda phi, theta: by_torch.return_of(self.mdp, theta)  # noqa: E731
        _, found = by_torch.through_the_loop(
            self.inner, outer, self.phi, self.theta, self.steps, STEP_SIZE
        )
        return found.ravel()

    def final_jacobian(self):
        """dtheta^K/dphi by autograd, rows phi's."""

        def final(phi):
            theta = by_torch.tensor(self.theta).requires_grad_(True)
            for _ in range(self.steps):
                theta = theta + STEP_SIZE * self.inner(phi, theta)
            return theta

        phi = by_torch.tensor(self.phi)
        return torch.autograd.functional.jacobian(final, phi).numpy().reshape(6, 6).T

    def factor(self, j):
        return np.eye(6) + STEP_SIZE * self.hessians[j]

    def series(self, first=lambda i: i + 1, order=lambda factors: factors):
        """sum_i J_i prod_{j >= first(i)} (I + alpha H_j), the paper's (3), without alpha."""
        total = np.zeros((6, 6))
        for i in range(self.steps):
            product = self.mixed[i]
            for j in order(list(range(first(i), self.steps))):
                product = product @ self.factor(j)
            total += product
        return total


def maml_through_the_loop(mdp, theta, steps):
    value = lambda phi, here: by_torch.return_of(mdp, here)  # noqa: E731
    inner = lambda phi, here: by_torch.gradient_in(value(phi, here), here)  # noqa: E731
    return by_torch.through_the_loop(inner, value, theta, None, steps, STEP_SIZE)[1].ravel()


def numbers(function):
    """The numbers of a remark."""
    return list(function().values())
