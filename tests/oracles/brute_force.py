"""Second derivations, independent of the library: brute force, autograd, complex step.

Nothing here imports the code that it checks, but for the problem's and the surrogate's records.
"""

import itertools
import math

import numpy as np
import torch

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.rollouts.records import Record


def softmax_rows(theta):
    """Softmax in the arithmetic of its argument (complex included)."""
    weights = np.exp(theta - np.max(theta.real, axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def return_any_dtype(mdp, theta):
    """The expected return, by linear solve or recursion, in real or complex arithmetic."""
    policy = softmax_rows(theta)
    kernel = np.einsum("sa,sat->st", policy, mdp.transition)
    if mdp.reward.ndim == 2:
        reward = (policy * mdp.reward).sum(axis=1)
    else:
        reward = np.einsum("sa,sat,sat->s", policy, mdp.transition, mdp.reward)
    if mdp.horizon is None:
        values = np.linalg.solve(np.eye(mdp.n_states) - mdp.discount * kernel, reward)
        return mdp.start @ values
    values = np.zeros(mdp.n_states, dtype=theta.dtype)
    for _ in range(mdp.horizon):
        values = reward + mdp.discount * kernel @ values
    return mdp.start @ values


def complex_step_gradient(mdp, theta, step=1e-30):
    """The gradient to machine precision, by the complex step."""
    gradient = np.zeros_like(theta)
    for index in np.ndindex(theta.shape):
        moved = theta.astype(complex)
        moved[index] += 1j * step
        gradient[index] = return_any_dtype(mdp, moved).imag / step
    return gradient


def policy_gradient_any_dtype(mdp, theta):
    """The gradient by the policy gradient theorem, step by step, in real or complex arithmetic."""
    policy, values, q, occupancy = per_step_quantities(mdp, theta)
    return sum(
        occupancy[t][:, None] * policy * (q[t] - values[t][:, None]) for t in range(mdp.horizon)
    )


def complex_step_hessian(mdp, theta, step=1e-30):
    """The Hessian of a finite horizon to machine precision: the complex step on the gradient."""
    hessian = np.zeros(theta.shape * 2)
    for index in np.ndindex(theta.shape):
        moved = theta.astype(complex)
        moved[index] += 1j * step
        hessian[(..., *index)] = policy_gradient_any_dtype(mdp, moved).imag / step
    return hessian


def torch_return(mdp, theta):
    """The expected return as a torch function of logits."""
    transition = torch.tensor(np.array(mdp.transition))
    start = torch.tensor(np.array(mdp.start))
    policy = torch.softmax(theta, dim=-1)
    kernel = torch.einsum("sa,sat->st", policy, transition)
    if mdp.reward.ndim == 2:
        reward = (policy * torch.tensor(np.array(mdp.reward))).sum(dim=1)
    else:
        both = transition * torch.tensor(np.array(mdp.reward))
        reward = torch.einsum("sa,sat->s", policy, both)
    if mdp.horizon is None:
        system = torch.eye(mdp.n_states, dtype=torch.float64) - mdp.discount * kernel
        # inv, not solve: forward-over-forward differentiation of solve is wrong in torch 2.13.
        return start @ (torch.linalg.inv(system) @ reward)
    values = torch.zeros(mdp.n_states, dtype=torch.float64)
    for _ in range(mdp.horizon):
        values = reward + mdp.discount * kernel @ values
    return start @ values


def autograd_derivative(mdp, theta, order):
    """The derivative of that order of the return, by torch reverse mode."""
    function = lambda t: torch_return(mdp, t)  # noqa: E731
    for _ in range(order):
        function = torch.func.jacrev(function)
    return function(torch.tensor(np.array(theta))).numpy()


def all_trajectories(mdp, theta, length):
    """(probability, states, actions, rewards) of every trajectory, in plain Python; dead steps take
    every action, as no convention about them is assumed here."""
    policy = softmax_rows(np.asarray(theta, dtype=float))
    n_states, n_actions = policy.shape
    steps = list(itertools.product(range(n_actions), range(n_states)))
    for first in range(n_states):
        for walk in itertools.product(steps, repeat=length):
            probability, state, states, rewards = mdp.start[first], first, [first], []
            for action, following in walk:
                probability *= policy[state, action] * mdp.transition[state, action, following]
                reward = mdp.reward[state, action]
                rewards.append(float(reward[following] if mdp.reward.ndim == 3 else reward))
                state = following
                states.append(state)
            if probability > 0:
                yield probability, states, [action for action, _ in walk], rewards


def likelihood_ratio_derivatives(mdp, theta):
    """Return, gradient and Hessian as sums over all trajectories: R, R u, R (u u^T + grad u)."""
    policy = softmax_rows(theta)
    n = theta.size
    value, gradient, hessian = 0.0, np.zeros(n), np.zeros((n, n))
    for probability, states, actions, rewards in all_trajectories(mdp, theta, mdp.horizon):
        total = sum(mdp.discount**t * r for t, r in enumerate(rewards))
        score, curvature = np.zeros(theta.shape), np.zeros((*theta.shape, *theta.shape))
        for state, action in zip(states, actions, strict=False):
            score[state] -= policy[state]
            score[state, action] += 1.0
            block = np.diag(policy[state]) - np.outer(policy[state], policy[state])
            curvature[state, :, state, :] -= block
        value += probability * total
        gradient += probability * total * score.ravel()
        hessian += (
            probability * total * (np.outer(score.ravel(), score.ravel()) + curvature.reshape(n, n))
        )
    return value, gradient.reshape(theta.shape), hessian.reshape(theta.shape * 2)


def softmax_blocks(policy):
    """The Fisher matrix F_s = diag(pi) - pi pi^T of each state, ``[S, A, A]``."""
    return np.stack([np.diag(p) - np.outer(p, p) for p in policy])


def block_diagonal(blocks):
    """The block-diagonal array ``[S, A, S, A]`` of the blocks ``[S, A, A]``."""
    n_states, n_actions, _ = blocks.shape
    full = np.zeros((n_states, n_actions, n_states, n_actions))
    for s in range(n_states):
        full[s, :, s, :] = blocks[s]
    return full


def per_step_quantities(mdp, theta):
    """Policy, V_t, Q_t and the discounted state distributions m_t of a finite horizon."""
    policy = softmax_rows(theta)
    reward = mdp.reward
    if reward.ndim == 3:
        reward = (mdp.transition * reward).sum(axis=2)
    values, q = [np.zeros(mdp.n_states)], []
    for _ in range(mdp.horizon):
        q.insert(0, reward + mdp.discount * mdp.transition @ values[0])
        values.insert(0, (policy * q[0]).sum(axis=1))
    kernel = np.einsum("sa,sat->st", policy, mdp.transition)
    occupancy = [np.array(mdp.start)]
    for _ in range(mdp.horizon - 1):
        occupancy.append(mdp.discount * occupancy[-1] @ kernel)
    return policy, np.array(values), np.array(q), np.array(occupancy)


def ad_hessian_mean(mdp, theta, critic=None):
    """theory: -blockdiag(sum_t m_t (V_t - v) F_s), reward-to-go."""
    policy, values, _, occupancy = per_step_quantities(mdp, theta)
    baseline = np.zeros(mdp.n_states) if critic is None else critic
    weight = (occupancy * (values[:-1] - baseline)).sum(axis=0)
    return -block_diagonal(weight[:, None, None] * softmax_blocks(policy))


def ad_total_return_hessian_mean(mdp, theta):
    """theory: -blockdiag(kappa F_s), kappa(s) = sum_t E[1{s_t = s} R], by its own recursion."""
    policy, values, _, _ = per_step_quantities(mdp, theta)
    kernel = np.einsum("sa,sat->st", policy, mdp.transition)
    reward = mdp.reward
    joint = mdp.transition * (reward if reward.ndim == 3 else reward[:, :, None])
    earned = np.einsum("sa,sat->st", policy, joint)
    collected, law, kappa = np.zeros(mdp.n_states), np.array(mdp.start), np.zeros(mdp.n_states)
    for t in range(mdp.horizon):
        kappa += collected + mdp.discount**t * law * values[t]
        collected = collected @ kernel + mdp.discount**t * (law @ earned)
        law = law @ kernel
    return -block_diagonal(kappa[:, None, None] * softmax_blocks(policy))


def lvc_hessian_mean(mdp, theta):
    """theory: D = blockdiag(sum_t m_t sum_a Q_t(s,a) grad^2 pi(a|s)), any state baseline."""
    policy, _, q, occupancy = per_step_quantities(mdp, theta)
    n_actions = mdp.n_actions
    blocks = np.zeros((mdp.n_states, n_actions, n_actions))
    for s in range(mdp.n_states):
        curvature = softmax_blocks(policy[s : s + 1])[0]
        for a in range(n_actions):
            score = np.eye(n_actions)[a] - policy[s]
            second = policy[s, a] * (np.outer(score, score) - curvature)
            blocks[s] += (occupancy[:, s] * q[:, s, a]).sum() * second
    return block_diagonal(blocks)


def through_theta(surrogate, batch, theta, order, discount, *, critic=None, reference=None):
    """A surrogate's derivative for one replication ``[N, H]``, by autograd through theta."""
    states = torch.tensor(np.array(batch.states))
    actions = torch.tensor(np.array(batch.actions))
    alive = torch.tensor(np.array(batch.alive))
    n_states = len(theta)
    values = torch.zeros(n_states, dtype=torch.float64)
    if critic is not None:
        values = torch.tensor(np.array(critic))
    behaviour = torch.tensor(np.array(batch.behaviour_log_probs))
    rewards = torch.tensor(np.array(batch.rewards))

    def look_up(logits):
        rows = torch.log_softmax(logits, dim=-1)[states[:, :-1]]
        return torch.where(alive[..., None], rows, 0.0)

    def function(parameters):
        log_policy = look_up(parameters)
        return surrogate(
            Record(
                log_probs=log_policy.gather(-1, actions[..., None])[..., 0],
                log_policy=log_policy,
                behaviour_log_probs=behaviour,
                rewards=rewards,
                states=states,
                actions=actions,
                alive=alive,
                values=values[states],
                discount=discount,
                reference_log_policy=None
                if reference is None
                else look_up(torch.tensor(np.array(reference))),
            )
        )

    leaf = torch.tensor(np.array(theta), requires_grad=True)
    return _nested_reverse(function(leaf), leaf, order).detach().numpy()


def _nested_reverse(value, leaf, order):
    """Derivatives by repeated torch.autograd.grad: plain reverse mode, which honours no_grad."""
    result = value
    for _ in range(order):
        entries = [
            torch.autograd.grad(
                entry, leaf, create_graph=True, allow_unused=True, materialize_grads=True
            )[0]
            if entry.requires_grad
            else torch.zeros_like(leaf)
            for entry in result.reshape(-1)
        ]
        result = torch.stack(entries).reshape(*result.shape, *leaf.shape)
    return result


def random_mdp(seed, *, horizon=None, n_states=None, n_actions=None, next_rewards=False):
    """A random MDP, with rewards of both signs and a spread-out initial distribution."""
    rng = np.random.default_rng(seed)
    n_states = n_states or int(rng.integers(1, 4))
    n_actions = n_actions or int(rng.integers(1, 4))
    shape = (n_states, n_actions) + ((n_states,) if next_rewards else ())
    return TabularMDP(
        rng.dirichlet(np.ones(n_states), size=(n_states, n_actions)),
        rng.normal(size=shape),
        float(rng.uniform(0.3, 0.97)),
        rng.dirichlet(np.ones(n_states)),
        horizon,
    )


def degenerate_mdps():
    """Named problems at the edges of what a tabular MDP can be (horizon to be set)."""
    rng = np.random.default_rng(7)
    rows = rng.dirichlet(np.ones(3), size=(3, 2))
    reward = rng.normal(size=(3, 2))
    start = np.array([1.0, 0.0, 0.0])
    cycle = np.zeros((3, 2, 3))
    cycle[[0, 1, 2], :, [1, 2, 0]] = 1.0
    ending = rows.copy()
    ending[2] = [0.0, 0.0, 1.0]
    ending_reward = reward.copy()
    ending_reward[2] = 0.0
    apart = np.zeros((3, 2, 3))
    apart[:2, :, :2] = rng.dirichlet(np.ones(2), size=(2, 2))
    apart[2, :, 2] = 1.0
    return {
        "one state": TabularMDP(np.ones((1, 3, 1)), rng.normal(size=(1, 3)), 0.9, [1.0]),
        "one action": TabularMDP(rows[:, :1], reward[:, :1], 0.9, start),
        "one state, one action": TabularMDP([[[1.0]]], [[1.0]], 0.5, [1.0]),
        "discount 0": TabularMDP(rows, reward, 0.0, start),
        "deterministic": TabularMDP(cycle, reward, 0.9, start),
        "absorbing": TabularMDP(ending, ending_reward, 0.9, start),
        "unreachable state": TabularMDP(apart, reward, 0.9, start),
        "next-state rewards": TabularMDP(rows, rng.normal(size=(3, 2, 3)), 0.9, start),
        "discount near 1": TabularMDP(rows, reward, 0.999, start),
    }


def relative_gap(found, wanted):
    """The largest absolute difference over the norm of the wanted array."""
    gap = np.max(np.abs(np.asarray(found) - np.asarray(wanted)), initial=0.0)
    return float(gap / max(np.linalg.norm(wanted), 1e-300)) if gap > 0 else 0.0


def hoeffding_slack(trials, error):
    """What a frequency exceeds its probability by with probability at most ``error``."""
    return math.sqrt(math.log(1 / error) / (2 * trials))
