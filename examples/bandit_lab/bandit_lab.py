"""Losses of a small reinforcement-learning project, each a function of one batch's record."""

import torch


def rewards_to_go(record):
    """gamma^t (r_t + gamma r_{t+1} + ...), ``[N, H]``."""
    steps = torch.arange(record.rewards.shape[-1], dtype=torch.float64)
    discounted = record.discount**steps * record.rewards
    return discounted.flip(-1).cumsum(-1).flip(-1)


def policy_gradient_loss(record):
    """The textbook loss. Its gradient is right; its Hessian is not."""
    return (record.log_probs * rewards_to_go(record) * record.alive).sum(-1).mean()


def lvc_loss(record):
    """Ratios in place of log-probabilities. Its Hessian has no terms between different steps."""
    ratios = torch.exp(record.log_probs - record.log_probs.detach())
    return (ratios * rewards_to_go(record) * record.alive).sum(-1).mean()


def dice_loss(record):
    """Each reward times the ratio of the path so far. Derivatives of every order are right."""
    path = (record.log_probs * record.alive).cumsum(-1)
    steps = torch.arange(record.rewards.shape[-1], dtype=torch.float64)
    discounted = record.discount**steps * record.rewards
    return (torch.exp(path - path.detach()) * discounted).sum(-1).mean()
