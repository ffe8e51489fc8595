"""Jobs with many replications of estimates and meta-gradients, against loops over trajectories."""

import numpy as np
import torch

from benchmarks.timing import Job
from gradbias.analytic.policies.at_parameters import policy_at
from gradbias.analytic.policies.softmax import TABULAR, softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.derivatives.jacobian_products import PlayerState, SurrogateBatch
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import Sampled
from gradbias.stochastic.rollouts.trajectories import sample
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import ad

N = 32
STEP_SIZE = 10.0


def rollouts(mdp, theta, rng):
    """The states, actions and rewards of N trajectories, drawn one step at a time."""
    policy = softmax(theta)
    for _ in range(N):
        state, visited = rng.choice(mdp.n_states, p=mdp.start), []
        for _ in range(mdp.horizon):
            action = rng.choice(mdp.n_actions, p=policy[state])
            visited.append((state, action, mdp.reward[state, action]))
            state = rng.choice(mdp.n_states, p=mdp.transition[state, action])
        yield [np.array(column) for column in zip(*visited, strict=True)]


def dice_of(trajectory, logits, discount):
    """DiCE's surrogate of one trajectory, a torch function of the logits."""
    states, actions, rewards = (torch.tensor(column) for column in trajectory)
    log_probs = torch.log_softmax(logits, -1)[states, actions]
    ratios = torch.exp(torch.cumsum(log_probs - log_probs.detach(), 0))
    weights = discount ** torch.arange(len(rewards), dtype=torch.float64)
    return (weights * rewards * ratios).sum()


def naive_product(trajectories, theta, v, discount):
    """DiCE's Hessian-vector product, one trajectory at a time."""
    leaf, total = torch.tensor(theta, requires_grad=True), 0.0
    for trajectory in trajectories:
        (slope,) = torch.autograd.grad(dice_of(trajectory, leaf, discount), leaf, create_graph=True)
        total = total + torch.autograd.grad((slope * torch.tensor(v)).sum(), leaf)[0] / N
    return total


def naive_meta_gradient(mdp, theta, steps, rng):
    """One estimate, by rollouts and autograd through the unrolled steps."""
    leaf = torch.tensor(theta, requires_grad=True)
    here = leaf
    for _ in range(steps):
        drawn = [list(rollouts(mdp, here.detach().numpy(), rng)) for _ in range(2)]
        slopes = []
        for trajectories in drawn:
            value = sum(dice_of(path, here, mdp.discount) for path in trajectories) / N
            slopes.append(torch.autograd.grad(value, here, create_graph=True)[0])
        first, second = (here + STEP_SIZE * slope for slope in slopes)
        here = first.detach() + second - second.detach()
    last = list(rollouts(mdp, here.detach().numpy(), rng))
    value = sum(dice_of(path, here, mdp.discount) for path in last) / N
    return torch.autograd.grad(value, leaf)[0]


def jobs():
    """Jobs on products and meta-gradients at S = 20, A = 5, H = 20, with batches of 32."""
    rng = np.random.default_rng(3)
    mdp = TabularMDP.random(20, 5, rng=rng, discount=0.8, horizon=20)
    theta, v = np.zeros((20, 5)), rng.normal(size=(20, 5))
    batch = sample(mdp, theta, N, rng=rng, replications=200)
    several = np.broadcast_to(v, (200, 20, 5))
    trajectories = list(rollouts(mdp, theta, rng))
    at = policy_at(TABULAR, theta, 20, 5)
    yield Job(
        "200 DiCE Hessian-vector products, 32 trajectories",
        lambda: SurrogateBatch(dice, batch, PlayerState(at), 0.8).pull_back(several),
        lambda: naive_product(trajectories, theta, v, 0.8),
        share=1 / 200,
    )
    loop = SampledLoop(mdp, starts_at_meta=True)
    for steps in (1, 5):
        estimator = MetaGradient(
            loop, steps, STEP_SIZE, Sampled(ad, N), Sampled(dice, N), Sampled(ad, N)
        )
        yield Job(
            f"200 sampled DiCE meta-gradients, K = {steps}",
            lambda estimator=estimator: estimator.estimates(theta, replications=200, rng=rng),
            lambda steps=steps: naive_meta_gradient(mdp, theta, steps, rng),
            share=1 / 200,
        )
