"""Second derivations by autograd: plain torch functions of logits, rewards and discounts.

Written from the definitions, in terms of plain matrices and loops; of the exact side only the
problems' records are used. Derivatives are by reverse mode, repeated (see the remark on
`torch.linalg.solve` in `oracles`: here it is `inv`).
"""

import numpy as np
import torch

F64 = torch.float64


def tensor(array):
    """A float64 leaf."""
    return torch.tensor(np.array(array, dtype=float), dtype=F64)


def mean_rewards(mdp):
    """The rewards' means over the next state, ``[H or 1, S, A]``, from rewards of any shape."""
    reward = np.asarray(mdp.reward)
    if reward.ndim == 2:
        return tensor(reward[None])
    if reward.ndim == 3:
        return tensor((mdp.transition * reward).sum(-1)[None])
    return tensor((mdp.transition[None] * reward).sum(-1))


def values_of(transition, rewards, policy, discount, horizon):
    """The values V at time 0, ``[S]``, from ``rewards [H or 1, S, A]``; all are tensors."""
    n_states = transition.shape[0]
    kernel = torch.einsum("sa,sat->st", policy, transition)
    if horizon is None:
        system = torch.eye(n_states, dtype=F64) - discount * kernel
        return torch.linalg.inv(system) @ (policy * rewards[0]).sum(-1)
    values = torch.zeros(n_states, dtype=F64)
    for t in reversed(range(horizon)):
        own = (policy * rewards[t if len(rewards) > 1 else 0]).sum(-1)
        values = own + discount * (kernel @ values)
    return values


def return_of(mdp, logits, *, extra_reward=None, discount=None):
    """J as a function of logits, of a reward added at each step, and of the discount."""
    rewards = mean_rewards(mdp)
    if extra_reward is not None:
        rewards = rewards + extra_reward
    gamma = mdp.discount if discount is None else discount
    policy = torch.softmax(logits, -1)
    values = values_of(tensor(mdp.transition), rewards, policy, gamma, mdp.horizon)
    return tensor(mdp.start) @ values


def policy_weights(mdp, policy, weights, state_discount):
    """The weights ``w_t [T, S]``: state distributions times state_discount^t times weights[t]."""
    kernel = torch.einsum("sa,sat->st", policy, tensor(mdp.transition))
    if mdp.horizon is None:
        system = torch.eye(mdp.n_states, dtype=F64) - state_discount * kernel
        return (tensor(mdp.start) @ torch.linalg.inv(system))[None]
    distribution, rows = tensor(mdp.start), []
    for t in range(mdp.horizon):
        rows.append(weights[t] * state_discount**t * distribution)
        distribution = distribution @ kernel
    return torch.stack(rows)


def lambda_action_values(mdp, policy, critic, discount, decay):
    """The action values ``Q_t [T, S, A]``, by their recursion or as its fixed point."""
    transition, rewards = tensor(mdp.transition), mean_rewards(mdp)
    kernel = torch.einsum("sa,sat->st", policy, transition)
    rows = tensor(critic)
    ahead = rows
    if mdp.horizon is None:
        own = (policy * rewards[0]).sum(-1) + discount * (1 - decay) * kernel @ ahead
        system = torch.eye(mdp.n_states, dtype=F64) - discount * decay * kernel
        values = torch.linalg.inv(system) @ own
        mixed = (1 - decay) * ahead + decay * values
        return (rewards[0] + discount * transition @ mixed)[None]
    values, found = None, []
    for t in reversed(range(mdp.horizon)):
        ahead = rows[t + 1] if rows.ndim == 2 else rows
        mixed = ahead if values is None else (1 - decay) * ahead + decay * values
        found.insert(0, rewards[t if len(rewards) > 1 else 0] + discount * transition @ mixed)
        values = (policy * found[0]).sum(-1)
    return torch.stack(found)


def lambda_update(mdp, logits, critic, discount, decay, weights=None, state_discount=None):
    """The expected update in the logits; every argument may be differentiated."""
    policy = torch.softmax(logits, -1)
    q = lambda_action_values(mdp, policy, critic, discount, decay)
    steps = 1 if mdp.horizon is None else mdp.horizon
    state_discount = mdp.discount if state_discount is None else state_discount
    w = policy_weights(mdp, policy, weights or [1.0] * steps, state_discount)
    values = (policy * q).sum(-1, keepdim=True)
    return (w[..., None] * policy * (q - values)).sum(0)


def game_return(game, of, logits1, logits2):
    """The return of player ``of``, a function of both players' logits ``[S, A_i]``."""
    joint = torch.softmax(logits1, -1)[:, :, None] * torch.softmax(logits2, -1)[:, None, :]
    n_states = game.n_states
    rewards = tensor(game.rewards)[of - 1]
    rewards = rewards.reshape(-1, n_states, joint[0].numel())
    transition = tensor(game.transition).reshape(n_states, -1, n_states)
    policy = joint.reshape(n_states, -1)
    values = values_of(transition, rewards, policy, game.discount, game.horizon)
    return tensor(game.start) @ values


def player_logits(game, player, parameters):
    """The logits ``[S, A]`` of a player whose policy is tabular or linear."""
    features = getattr(game.policies[player - 1], "features", None)
    return parameters if features is None else tensor(features) @ parameters


def gradient_in(value, leaf):
    """The derivative, itself differentiable."""
    return torch.autograd.grad(value, leaf, create_graph=True)[0]


def through_the_loop(inner, outer, phi, theta, steps, step_size):
    """d outer(phi, theta^K) / d phi, by autograd through every inner step.

    ``inner(phi, theta)`` is the update; ``theta`` is None where the loop starts from phi.
    """
    meta = tensor(phi).requires_grad_(True)
    here = meta if theta is None else tensor(theta).requires_grad_(True)
    for _ in range(steps):
        here = here + step_size * inner(meta, here)
    value = outer(meta, here)
    found = torch.autograd.grad(value, meta, allow_unused=True, materialize_grads=True)[0]
    return float(value.detach()), found.numpy()
