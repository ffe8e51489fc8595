"""A batch as a record whose log-probabilities are torch functions of tabular parameters."""

import torch

from gradbias.stochastic.rollouts.records import Record


def record_at(batch, theta, discount, values=None, meta=None):
    """The record of ``batch [N, H]`` at ``theta [S, A]``; ``values [N, H + 1]`` default to 0."""
    now = torch.tensor(batch.states[..., :-1])
    log_policy = torch.log_softmax(theta, dim=-1)[now] * torch.tensor(batch.alive)[..., None]
    taken = torch.gather(log_policy, -1, torch.tensor(batch.actions)[..., None])[..., 0]
    nothing = torch.zeros(batch.states.shape, dtype=torch.float64)
    return Record(
        log_probs=taken,
        log_policy=log_policy,
        behaviour_log_probs=torch.tensor(batch.behaviour_log_probs),
        rewards=torch.tensor(batch.rewards),
        states=torch.tensor(batch.states),
        actions=torch.tensor(batch.actions),
        alive=torch.tensor(batch.alive),
        values=nothing if values is None else torch.tensor(values),
        discount=discount,
        meta={} if meta is None else meta,
    )
