"""What makes a program inexact, with its lines: coarse dtypes, and small constants that guard."""

import inspect

import pytest
import torch

from gradbias.stochastic.derivatives.coefficients import SurrogateCall
from gradbias.stochastic.tracing.imprecision import (
    PRECISE,
    GuardScaling,
    Imprecision,
    imprecision_of,
)
from gradbias.stochastic.tracing.operations import OperationLog


def found(function, steps=3):
    """The imprecision of a function on one trajectory of ``steps`` steps."""
    generator = torch.Generator().manual_seed(0)
    policy = torch.randn(1, 1, steps, 2, dtype=torch.float64, generator=generator).log_softmax(-1)
    chosen = policy[..., 0].clone()
    tensors = {
        "log_probs": chosen,
        "log_policy": policy,
        "behaviour_log_probs": chosen.clone(),
        "rewards": torch.randn(1, 1, steps, dtype=torch.float64, generator=generator),
        "states": torch.zeros(1, 1, steps + 1, dtype=torch.int64),
        "actions": torch.zeros(1, 1, steps, dtype=torch.int64),
        "alive": torch.ones(1, 1, steps, dtype=torch.bool),
        "values": torch.zeros(1, 1, steps + 1, dtype=torch.float64),
    }
    return imprecision_of(SurrogateCall(function, "mine", 0.9, {}), tensors)


def rough(record):
    rewards = record.rewards.float()
    scale = rewards.std() + 1e-8
    return (record.log_probs * (rewards / scale)).sum(-1).mean().double()


def line_of(text):
    """The line of ``rough`` that holds a text."""
    lines, first = inspect.getsourcelines(rough)
    return first + next(i for i, line in enumerate(lines) if text in line)


def test_the_coarsest_dtype_and_guards_are_found_with_their_lines():
    result = found(rough)
    assert result.rounding == torch.finfo(torch.float32).eps
    assert result.coarsest == f"float32, test_imprecision.py line {line_of('.float()')}"
    assert result.guards == (f"1e-08, test_imprecision.py line {line_of('1e-8')}",)
    both = found(lambda r: rough(r) + r.log_probs.half().sum().double())
    assert both.rounding == torch.finfo(torch.float16).eps
    assert both.coarsest.startswith("float16")


def test_what_keeps_its_digits_is_precise():
    def precise(record):
        steps = torch.arange(3).double()
        return (record.log_probs * (steps - record.rewards) * record.alive).sum() - 0.5

    assert found(precise) == PRECISE == Imprecision()
    assert found(lambda r: r.rewards.long().sum() + r.log_probs.sum()) == PRECISE


@pytest.mark.parametrize(
    ("function", "guards"),
    [
        (lambda x: x + 1e-8, 1),
        (lambda x: 1e-6 - x, 1),
        (lambda x: x.clamp(min=1e-5), 1),
        (lambda x: x + 1e-3, 0),  # too large
        (lambda x: 1e-8 * x, 0),  # a factor
        (lambda x: torch.add(x, x, alpha=1e-8), 0),
    ],
)
def test_a_guard_is_a_small_constant_that_is_added_or_clamped_to(function, guards):
    x = torch.tensor([0.0, 2.0], dtype=torch.float64)
    with GuardScaling(2.0) as scaling:
        doubled = function(x)
    assert len(scaling.places) == guards
    assert bool((doubled != function(x)).any()) == (guards > 0)


def test_operations_have_their_dtypes_and_lines_and_errors_pass_through():
    with OperationLog() as log:
        torch.zeros(2).double()
    assert [o.name for o in log.operations] == ["zeros", "_to_copy"]
    assert set(log.operations[-1].dtypes) == {torch.float32, torch.float64}
    assert {o.file for o in log.operations} == {__file__}
    with pytest.raises(RuntimeError, match="must match"):
        found(lambda r: r.rewards + r.values)
    assert torch.get_default_dtype() is torch.float32
