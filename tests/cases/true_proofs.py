"""Surrogates that are right, written in many ways, and must be proved."""

import functools

import numpy as np
import torch
from torch.nn import functional

from gradbias.stochastic.surrogates.returns import discounts, path_ratios, probability_ratios

TRUE = {}
"""The surrogates by name, with their order."""


def right(order):
    def note(function):
        TRUE[function.__name__] = (function, order)
        return function

    return note


@right(1)
def python_loops(record):
    count, steps = record.rewards.shape
    total = 0.0
    for n in range(count):
        for t in range(steps):
            later = 0.0
            for k in range(t, steps):
                later = later + record.discount**k * record.rewards[n, k]
            total = total + later * record.log_probs[n, t]
    return total / count


@right(1)
def backward_recursion(record):
    steps = record.rewards.shape[-1]
    later = torch.zeros_like(record.rewards[..., 0])
    returns = []
    for t in reversed(range(steps)):
        later = record.rewards[..., t] + record.discount * later
        returns.insert(0, record.discount**t * later)
    return (torch.stack(returns, dim=-1) * record.log_probs).sum(-1).mean()


@right(1)
def filled_in_place(record):
    returns = torch.empty_like(record.rewards)
    later = torch.zeros(record.rewards.shape[0], dtype=torch.float64)
    for t in range(record.rewards.shape[1] - 1, -1, -1):
        later.mul_(record.discount).add_(record.rewards[:, t])
        returns[:, t] = later * record.discount**t
    return torch.einsum("nt,nt->n", returns, record.log_probs).mean()


@right(1)
def numpy_discounts(record):
    steps = record.rewards.shape[-1]
    weights = torch.tensor(record.discount ** np.arange(steps))
    returns = (record.rewards * weights).flip(-1).cumsum(-1).flip(-1)
    return (returns * record.log_probs).sum(-1).mean()


@right(1)
def listed_discounts(record):
    steps = record.rewards.shape[-1]
    weights = torch.tensor([record.discount**t for t in range(steps)], dtype=torch.float64)
    terms = record.rewards * weights
    to_go = terms.sum(-1, keepdim=True) - terms.cumsum(-1) + terms
    return (to_go * record.log_probs).sum(-1).mean()


@right(1)
def array_of_discounts(record):
    weights = np.array([record.discount**t for t in range(record.rewards.shape[-1])])
    terms = record.rewards * torch.as_tensor(weights * 2.0) / 2.0
    to_go = torch.stack([terms[..., t:].sum(-1) for t in range(terms.shape[-1])], -1)
    return (to_go * record.log_probs).sum(-1).mean()


@right(2)
def filled_discounts(record):
    steps = record.rewards.shape[-1]
    powers = torch.full((steps,), record.discount, dtype=torch.float64)
    powers[0] = 1.0
    ratios = torch.exp(torch.cumsum(record.log_probs - record.log_probs.data, -1))
    return (powers.cumprod(0) * record.rewards * ratios).sum() / record.rewards.shape[0]


@right(2)
def without_gradients(record):
    with torch.no_grad():
        fixed = record.log_probs.clone()
        weights = record.discount ** torch.arange(record.rewards.shape[-1])
    ratios = torch.cumprod(torch.exp(record.log_probs - fixed), -1)
    return torch.sum(weights * record.rewards * ratios, dim=-1).mean()


@right(2)
def divided_probabilities(record):
    probabilities = record.log_probs.exp()
    ratios = (probabilities / probabilities.detach()).cumprod(-1)
    return (discounts(record) * record.rewards * ratios).sum(-1).mean()


@right(2)
def magic_box(record):
    tau = record.log_probs.cumsum(-1)
    box = torch.exp(tau - tau.detach())
    return torch.sum(box * record.rewards * discounts(record), 1).mean(0)


@right(2)
def gathered(record):
    """The taken actions' log-probabilities, from those of all actions."""
    chosen = record.log_policy.gather(-1, record.actions.unsqueeze(-1)).squeeze(-1)
    ratios = torch.exp((chosen - chosen.detach()).cumsum(-1))
    return (discounts(record) * record.rewards * ratios).sum(-1).mean()


@right(2)
def one_hot(record):
    hot = functional.one_hot(record.actions, record.log_policy.shape[-1]).double()
    chosen = (hot * record.log_policy).sum(-1)
    ratios = torch.exp((chosen - record.log_probs.detach()).cumsum(-1))
    return (discounts(record) * record.rewards * ratios).sum(-1).mean()


@right(2)
def baseline_by_state(record):
    table = torch.tensor([0.3, -1.7], dtype=torch.float64)
    extra = discounts(record) * (1.0 - probability_ratios(record)) * table[record.states[..., :-1]]
    terms = discounts(record) * record.rewards * path_ratios(record) + extra * record.alive
    return terms.sum(-1).mean()


@right(2)
def baseline_by_lists(record):
    """Python's own look at the states."""
    table = {0: 0.5, 1: -2.0}
    rows = [[table[s] for s in row[:-1]] for row in record.states.tolist()]
    extra = discounts(record) * (1.0 - probability_ratios(record)) * torch.tensor(rows)
    return (discounts(record) * record.rewards * path_ratios(record) + extra).sum(-1).mean()


@right(2)
def matrices(record):
    steps = record.rewards.shape[-1]
    lower = torch.tril(torch.ones(steps, steps, dtype=torch.float64))
    scores = record.log_probs - record.log_probs.detach()
    ratios = torch.exp(scores @ lower.T)
    return torch.einsum("t,nt,nt->n", discounts(record), record.rewards, ratios).mean()


@right(1)
def clipped_ratio(record):
    """PPO's clip, which on policy changes nothing: ratios are 1."""
    ratios = torch.exp(record.log_probs - record.behaviour_log_probs)
    steps = record.rewards.shape[-1]
    gaps = torch.arange(steps) - torch.arange(steps)[:, None]
    powers = torch.where(gaps >= 0, record.discount ** gaps.clamp(min=0), torch.zeros(()))
    returns = record.rewards @ powers.double().T
    terms = ratios.clamp(0.8, 1.2) * returns * discounts(record)
    return terms.sum(-1).mean()


@right(1)
def masked(record):
    terms = discounts(record) * record.rewards
    returns = terms.flip(-1).cumsum(-1).flip(-1)
    return torch.where(record.alive, returns * record.log_probs, 0.0).sum(-1).mean()


@right(1)
def masked_in_single_precision(record):
    """A mask in fewer digits, which are enough for it."""
    terms = discounts(record) * record.rewards * record.alive.float()
    returns = terms.flip(-1).cumsum(-1).flip(-1)
    return (returns * record.log_probs).sum(-1).mean()


@functools.cache
def triangle(steps):
    return torch.triu(torch.ones(steps, steps, dtype=torch.float64))


@right(1)
def cached(record):
    terms = discounts(record) * record.rewards
    return ((terms @ triangle(terms.shape[-1]).T) * record.log_probs).sum(-1).mean()


@right(1)
def padded(record):
    terms = functional.pad(discounts(record) * record.rewards, (0, 1))
    returns = terms.flip(-1).cumsum(-1).flip(-1)[..., :-1]
    return (returns * record.log_probs).sum(-1).mean()


class Loss(torch.nn.Module):
    """A module with a buffer and a parameter of its own, of which the result does not depend."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.tensor(0.5, dtype=torch.float64))

    def forward(self, record):
        terms = discounts(record) * record.rewards * self.weight
        returns = terms.flip(-1).cumsum(-1).flip(-1) / self.weight
        return (returns * record.log_probs).sum(-1).mean()


TRUE["module"] = (Loss(), 1)


@right(1)
def caught(record):
    """An error of the program's own, which numbers raise as well."""
    try:
        raise KeyError("weights")
    except KeyError:
        weights = discounts(record)
    returns = (weights * record.rewards).flip(-1).cumsum(-1).flip(-1)
    return (returns * record.log_probs).sum(-1).mean()


@right(1)
def validated(record):
    if not isinstance(record.discount, float) or record.rewards.dtype != torch.float64:
        raise ValueError("record: expected float64")
    if record.log_probs.requires_grad:
        return caught(record)
    return 0.0 * caught(record)
