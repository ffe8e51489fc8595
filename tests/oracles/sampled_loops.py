"""Sampled inner loops, independent of the library: in Python, with autograd along each path."""

import itertools
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from gradbias.analytic.meta.bilevel import Lirpg, Maml
from gradbias.analytic.meta.compositional_bias import CompositionalBias, compositional_bias
from gradbias.analytic.meta.compositional_expansion import leading_compositional_bias
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.problems.mdp import TabularMDP
from tests.oracles import brute_force as oracles
from tests.oracles import torch_functions as by_torch

PARTS = [field.name for field in fields(CompositionalBias)]
WHOLE, TO_GO = Credit.TOTAL_RETURN, Credit.REWARD_TO_GO


def ending():
    """Two states, the second of which ends the episode; rewards by next state."""
    rows = np.zeros((2, 2, 2))
    rows[0] = [[0.3, 0.7], [0.6, 0.4]]
    rows[1, :, 1] = 1.0
    reward = np.zeros((2, 2, 2))
    reward[0] = [[1.0, -2.0], [0.5, 3.0]]
    return TabularMDP(rows, reward, 0.8, [0.7, 0.3], 2)


def same_logits(p):
    return p


@dataclass(frozen=True)
class Loop:
    """A sampled inner loop in torch and plain Python, and the calls of the library for it."""

    mdp: TabularMDP
    theta: np.ndarray
    steps: int
    step_size: float
    phi: np.ndarray | None = None  # an intrinsic reward: LIRPG, else MAML
    credit: Credit = TO_GO
    critic: np.ndarray | None = None
    policy: object = None
    logits: object = same_logits

    @property
    def paid(self):
        """The MDP with the rewards of the inner loop."""
        if self.phi is None:
            return self.mdp
        extra = self.phi if self.mdp.reward.ndim == 2 else self.phi[..., None]
        return replace(self.mdp, reward=self.mdp.reward + extra)

    def ask(self, function, **more):
        chosen = {} if self.policy is None else {"policy": self.policy}
        problem = (Maml if self.phi is None else Lirpg)(self.mdp, **chosen)
        given = (self.theta,) if self.phi is None else (self.phi, self.theta)
        loop = {"steps": self.steps, "step_size": self.step_size}
        return function(problem, *given, **loop, **more)

    def bias(self, **more):
        function = compositional_bias if more else leading_compositional_bias
        return self.ask(function, credit=self.credit, critic=self.critic, **more)

    def singles(self, theta):
        """The probability and the estimate of every trajectory, in plain Python."""
        leaf = by_torch.tensor(theta).requires_grad_(True)
        logits = self.logits(leaf)
        log_policy = torch.log_softmax(logits, -1)
        critic = np.zeros(self.mdp.n_states) if self.critic is None else self.critic
        mdp = self.paid
        walks = oracles.all_trajectories(mdp, logits.detach().numpy(), mdp.horizon)
        for probability, states, actions, rewards in walks:
            discounted = [mdp.discount**t * r for t, r in enumerate(rewards)]
            surrogate = 0.0 * leaf.sum()
            for t, action in enumerate(actions):
                if not mdp.terminal[states[t]]:
                    v = critic[t, states[t]] if critic.ndim == 2 else critic[states[t]]
                    credit = sum(discounted if self.credit is WHOLE else discounted[t:])
                    weight = credit - mdp.discount**t * v
                    surrogate = surrogate + weight * log_policy[states[t], action]
            yield probability, torch.autograd.grad(surrogate, leaf, retain_graph=True)[0].numpy()

    def covariance(self, theta):
        probabilities, estimates = zip(*self.singles(theta), strict=True)
        flat = np.array(estimates).reshape(len(estimates), -1)
        centred = flat - np.array(probabilities) @ flat
        return (np.array(probabilities)[:, None] * centred).T @ centred

    def value(self, theta, extra=None):
        return by_torch.return_of(self.mdp, self.logits(theta), extra_reward=extra)

    def inner(self, phi, theta):
        extra = None if self.phi is None else phi
        return torch.func.grad(lambda t: self.value(t, extra))(theta)

    def reached(self, phi, noise):
        """The last iterate theta^K, with ``noise [K, *shape]`` added to the inner gradients."""
        here = phi if self.phi is None else by_torch.tensor(self.theta)
        for xi in noise:
            here = here + self.step_size * (self.inner(phi, here) + xi)
        return here

    @property
    def meta(self):
        return by_torch.tensor(self.theta if self.phi is None else self.phi)

    def quantities(self, noise):
        """theta^K, the outer return and gradient there, and the meta-gradient with that noise."""
        end = self.reached(self.meta, noise)
        through = torch.func.grad(lambda phi: self.value(self.reached(phi, noise)))(self.meta)
        return end, self.value(end), torch.func.grad(self.value)(end), through


def by_noise(loop, covariances):
    """Half the traces of second derivatives in each step's noise, by reverse mode."""
    zero = torch.zeros((loop.steps, *loop.theta.shape), dtype=by_torch.F64)
    second = torch.func.jacrev(torch.func.jacrev(loop.quantities))(zero)
    p = loop.theta.size
    found = []
    for part in second:
        flat = part.numpy().reshape(-1, loop.steps, p, loop.steps, p)
        found.append(
            0.5
            * sum(np.einsum("xkl,kl->x", flat[:, i, :, i], c) for i, c in enumerate(covariances))
        )
    first = torch.func.jacrev(lambda noise: loop.quantities(noise)[0])(zero)
    slopes = first.numpy().reshape(p, loop.steps, p)
    spread = sum(slopes[:, i] @ c @ slopes[:, i].T for i, c in enumerate(covariances))
    return dict(
        zip(("iterate", "outer_return", "outer_gradient", "meta_gradient"), found, strict=True)
    ) | {"iterate_covariance": spread}


def enumerated(loop, n, drawn_at=None):
    """Expectations over all *ordered* batches of every step, with autograd along each path.

    With ``drawn_at`` it is wrong on purpose: all batches are drawn at that theta.
    """
    totals, square = None, 0.0
    target = loop.quantities(torch.zeros((loop.steps, *loop.theta.shape), dtype=by_torch.F64))

    def visit(theta, noise, probability):
        nonlocal totals, square
        if len(noise) == loop.steps:
            values = loop.quantities(torch.tensor(np.array(noise)))
            gaps = [(a - b).numpy() * probability for a, b in zip(values, target, strict=True)]
            totals = gaps if totals is None else [a + b for a, b in zip(totals, gaps, strict=True)]
            error = (values[0] - target[0]).numpy().ravel()
            square = square + probability * np.outer(error, error)
            return
        exact = loop.inner(loop.meta, by_torch.tensor(theta)).numpy()
        singles = list(loop.singles(theta if drawn_at is None else drawn_at))
        for batch in itertools.product(singles, repeat=n):
            estimate = sum(g for _, g in batch) / n
            chance = probability * np.prod([p for p, _ in batch])
            visit(theta + loop.step_size * estimate, [*noise, estimate - exact], chance)

    visit(np.array(loop.theta), [], 1.0)
    found = dict(
        zip(("iterate", "outer_return", "outer_gradient", "meta_gradient"), totals, strict=True)
    )
    mean = found["iterate"].ravel()
    return found | {"iterate_covariance": square - np.outer(mean, mean)}
