"""A program's tensor operations and their source lines."""

import inspect

import pytest
import torch

from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.tracing.operations import traced_operations


def record(steps=3):
    """One trajectory of ``steps`` steps, with numbers that do not matter."""
    generator = torch.Generator().manual_seed(0)
    policy = torch.randn(1, steps, 2, dtype=torch.float64, generator=generator).log_softmax(-1)
    chosen = policy[..., 0].clone()
    return Record(
        log_probs=chosen.requires_grad_(),
        log_policy=policy.requires_grad_(),
        behaviour_log_probs=chosen.detach(),
        rewards=torch.randn(1, steps, dtype=torch.float64, generator=generator),
        states=torch.zeros(1, steps + 1, dtype=torch.int64),
        actions=torch.zeros(1, steps, dtype=torch.int64),
        alive=torch.ones(1, steps, dtype=torch.bool),
        values=torch.zeros(1, steps + 1, dtype=torch.float64),
        discount=0.9,
    )


def rough(record):
    rewards = record.rewards.float()
    scale = rewards.std() + 1e-8
    return (record.log_probs * (rewards / scale)).sum(-1).mean().double()


def line_of(text):
    """The line of ``rough`` that holds a text."""
    lines, first = inspect.getsourcelines(rough)
    return first + next(i for i, line in enumerate(lines) if text in line)


def test_casts_to_lower_precision_and_added_constants_are_found_with_their_lines():
    operations = traced_operations(rough, record())
    casts = [o for o in operations if o.lowers_precision]
    assert [(o.name, o.line) for o in casts] == [("_to_copy", line_of(".float()"))]
    assert casts[0].inputs == (torch.float64,)
    assert casts[0].outputs == (torch.float32,)
    added = [(o.added_constants, o.line) for o in operations if o.added_constants]
    assert added == [((1e-8,), line_of("1e-8"))]
    assert {o.file for o in operations} == {__file__}


def test_what_keeps_its_digits_is_no_cast():
    def precise(record):
        steps = torch.arange(3).double()
        return (record.log_probs * (steps - record.rewards) * record.alive).sum() - 0.5

    operations = traced_operations(precise, record())
    assert not any(o.lowers_precision for o in operations)
    assert [o.added_constants for o in operations if o.added_constants] == [(0.5,)]


def test_integers_made_of_floats_are_casts_and_errors_pass_through():
    operations = traced_operations(lambda r: r.rewards.long().sum(), record())
    assert sum(o.lowers_precision for o in operations) == 1
    with pytest.raises(RuntimeError, match="must match"):
        traced_operations(lambda r: r.rewards + r.values, record())
    assert torch.get_default_dtype() is torch.float32
