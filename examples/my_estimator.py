"""A surrogate objective as in many training loops. Is its gradient the policy gradient?

    gradbias check examples/my_estimator.py:surrogate --gym CliffWalking-v1 --horizon 4

A surrogate is a function of one batch's record and returns a scalar torch tensor. ``record`` has
log_probs [N, H], log_policy [N, H, A], rewards, actions, alive [N, H], states, values [N, H + 1],
behaviour_log_probs [N, H], discount, and more; see docs/guide.md.
"""

import torch


def surrogate(record):
    """Log-probabilities times discounted rewards-to-go. Each step's term lacks its factor gamma^t,
    the most common simplification; the result is not the gradient of the discounted return."""
    steps = torch.arange(record.rewards.shape[-1])
    gaps = (steps[:, None] - steps[None, :]).clamp(min=0)
    to_go = record.rewards @ torch.tril(record.discount ** gaps.double())
    return (record.log_probs * to_go).sum(-1).mean()
