"""Jobs of the exact side, each against the straightforward way: torch autograd, or sympy."""

from functools import partial

import numpy as np
import sympy
import torch

from benchmarks.timing import Job
from gradbias.analytic.meta.bilevel import Lola, Maml
from gradbias.analytic.meta.meta_gradients import meta_gradient
from gradbias.analytic.problems.games import prisoners_dilemma
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient, hessian, hvp
from gradbias.analytic.symbolic.problems import SymbolicMDP


def torch_return(mdp, theta):
    """The infinite-horizon return as a torch function of the logits."""
    policy = torch.softmax(theta, -1)
    transition, reward = torch.tensor(np.array(mdp.transition)), torch.tensor(np.array(mdp.reward))
    kernel = torch.einsum("sa,sat->st", policy, transition)
    system = torch.eye(mdp.n_states, dtype=torch.float64) - mdp.discount * kernel
    values = torch.linalg.solve(system, (policy * reward).sum(-1))
    return torch.tensor(np.array(mdp.start)) @ values


def through_the_loop(value, theta, steps, step_size):
    """MAML's meta-gradient by autograd through every inner step."""
    leaf = torch.tensor(theta, requires_grad=True)
    here = leaf
    for _ in range(steps):
        here = here + step_size * torch.autograd.grad(value(here), here, create_graph=True)[0]
    return torch.autograd.grad(value(here), leaf)[0]


def torch_dilemma(theta1, theta2, discount=0.96):
    """Both players' returns in the iterated prisoner's dilemma, by the published formula."""
    p1, p2 = torch.sigmoid(theta1), torch.sigmoid(theta2)[[0, 1, 3, 2, 4]]
    joint = torch.stack([p1 * p2, p1 * (1 - p2), (1 - p1) * p2, (1 - p1) * (1 - p2)], -1)
    system = torch.eye(4, dtype=torch.float64) - discount * joint[1:]
    visits = torch.linalg.solve(system.T, joint[0])
    first = torch.tensor([-1.0, -3.0, 0.0, -2.0], dtype=torch.float64)
    return visits @ first, visits @ first[[0, 2, 1, 3]]


def torch_lola(theta1, theta2, step_size):
    """LOLA's meta-gradient by autograd through the opponent's step."""
    ego = torch.tensor(theta1, requires_grad=True)
    other = torch.tensor(theta2, requires_grad=True)
    step = torch.autograd.grad(torch_dilemma(ego, other)[1], other, create_graph=True)[0]
    return torch.autograd.grad(torch_dilemma(ego, other + step_size * step)[0], ego)[0]


def naive_symbolic_hessian(mdp):
    """The Hessian by sympy: softmaxes of symbols theta, a symbolic solve, and `diff` twice."""
    n_states, n_actions = mdp.n_states, mdp.n_actions
    theta = [[sympy.Symbol(f"t{s}{a}") for a in range(n_actions)] for s in range(n_states)]
    exact = partial(sympy.nsimplify, rational=True)
    weights = [[sympy.exp(t) for t in row] for row in theta]
    policy = [[w / sum(row) for w in row] for row in weights]
    system, reward = sympy.eye(n_states), sympy.zeros(n_states, 1)
    for s, a, successor in np.ndindex(n_states, n_actions, n_states):
        system[s, successor] -= (
            exact(mdp.discount) * policy[s][a] * exact(float(mdp.transition[s, a, successor]))
        )
    for s, a in np.ndindex(n_states, n_actions):
        reward[s] += policy[s][a] * exact(float(mdp.reward[s, a]))
    values = system.LUsolve(reward)
    total = sum(exact(float(w)) * v for w, v in zip(mdp.start, values, strict=True))
    flat = [t for row in theta for t in row]
    return [
        [sympy.diff(total, x, y) for j, y in enumerate(flat) if j >= i] for i, x in enumerate(flat)
    ]


def rational_mdp(n_states, n_actions):
    """An MDP whose entries are multiples of 1/10."""
    rng = np.random.default_rng(0)
    rows = rng.multinomial(10, np.full(n_states, 1 / n_states), size=(n_states, n_actions)) / 10
    return TabularMDP(
        rows, rng.integers(-5, 6, (n_states, n_actions)) / 10, 0.9, np.eye(n_states)[0]
    )


def jobs():
    """All jobs of the exact side."""
    rng = np.random.default_rng(0)
    mdp = TabularMDP.random(20, 5, rng=rng, discount=0.8)
    theta, v = rng.normal(size=(2, 20, 5))
    leaf = torch.tensor(theta)
    function = partial(torch_return, mdp)
    yield Job(
        "exact gradient, S = 20, A = 5",
        lambda: gradient(mdp, theta),
        lambda: torch.autograd.functional.jacobian(function, leaf),
    )
    yield Job(
        "exact Hessian, S = 20, A = 5",
        lambda: hessian(mdp, theta),
        lambda: torch.autograd.functional.hessian(function, leaf),
    )
    yield Job(
        "exact Hessian-vector product, S = 20, A = 5",
        lambda: hvp(mdp, theta, v),
        lambda: torch.autograd.functional.vhp(function, leaf, torch.tensor(v)),
    )
    for steps in (1, 5):
        yield Job(
            f"exact meta-gradient (MAML), S = 20, K = {steps}",
            partial(meta_gradient, Maml(mdp), theta, steps=steps, step_size=1.0),
            partial(through_the_loop, function, theta, steps, 1.0),
        )
    many = rng.normal(size=(200, 20, 5))
    yield Job(
        "the same, K = 1, 200 policies in one call",
        partial(meta_gradient, Maml(mdp), many, steps=1, step_size=1.0),
        lambda: [through_the_loop(function, each, 1, 1.0) for each in many[:10]],
        share=10 / 200,
    )
    large = TabularMDP.random(300, 5, rng=rng, discount=0.95)
    start = np.zeros((300, 5))
    yield Job(
        "exact meta-gradient (MAML), S = 300, K = 3",
        partial(meta_gradient, Maml(large), start, steps=3, step_size=1.0),
        partial(through_the_loop, partial(torch_return, large), start, 3, 1.0),
    )
    game, players = prisoners_dilemma(), rng.normal(size=(2, 1000, 5))
    yield Job(
        "LOLA, prisoner's dilemma, one step",
        partial(meta_gradient, Lola(game), *players[:, 0], steps=1, step_size=0.3),
        partial(torch_lola, *players[:, 0], 0.3),
    )
    yield Job(
        "the same, 1,000 pairs of players in one call",
        partial(meta_gradient, Lola(game), *players, steps=1, step_size=0.3),
        lambda: [torch_lola(*players[:, i], 0.3) for i in range(20)],
        share=20 / 1000,
    )
    for size in ((2, 2), (3, 2), (2, 3)):
        small = rational_mdp(*size)
        yield Job(
            f"symbolic Hessian, S = {size[0]}, A = {size[1]}",
            lambda small=small: SymbolicMDP.of(small).hessian(),
            lambda small=small: naive_symbolic_hessian(small),
            rounds=1,
        )
