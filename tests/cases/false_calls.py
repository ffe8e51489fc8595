"""More of `false_proofs`: calls that differ from each other, derivatives of a program's own, and
what hides on one trajectory or from symbols.
"""

import collections
import datetime
import itertools
import math
import os
import random
import time

import numpy as np
import torch

from tests.cases.false_proofs import FALSE, planted, right, scaled, wrong

__all__ = ["FALSE"]


# Calls that differ from each other.
CALLS = {"count": 0}
TICKS = itertools.count()
MEMORY = collections.deque(maxlen=40)
TOTAL = 0


def after_many(name, count):
    scaled(name, lambda r: 1.1 if count(r) > 31 else 1.0)


def counted_global(record):
    global TOTAL
    TOTAL += 1
    return TOTAL


def counted_dictionary(record):
    CALLS["count"] += 1
    return CALLS["count"]


def remembered(record):
    MEMORY.append(0)
    return len(MEMORY)


def attribute(record):
    attribute.calls = getattr(attribute, "calls", 0) + 1
    return attribute.calls


def default(record, calls=[0]):  # noqa: B006
    calls[0] += 1
    return calls[0]


def closure():
    calls = 0

    def count(record):
        nonlocal calls
        calls += 1
        return calls

    return count


def generator():
    yield from range(10**9)


STEPS = generator()
TENSOR = torch.zeros(1)


def counted_tensor(record):
    TENSOR.data.add_(1)
    return TENSOR.item()


class Counter:
    """A callable with a counter as an attribute."""

    calls = 0
    kept: list = []  # noqa: RUF012

    def __call__(self, record):
        self.calls += 1
        return self.calls

    def of_class(self, record):
        type(self).calls += 1
        return type(self).calls

    @classmethod
    def in_list(cls, record):
        cls.kept.append(1)
        return len(cls.kept)


def counted_environment(record):
    os.environ["CALLS"] = str(int(os.environ.get("CALLS", "0")) + 1)
    return int(os.environ["CALLS"])


def counted_module(record):
    math.calls = getattr(math, "calls", 0) + 1
    return math.calls


def counted_record(record):
    kind = type(record)
    kind.calls = getattr(kind, "calls", 0) + 1
    return kind.calls


def counted_submodule(record):
    torch.nn.calls = getattr(torch.nn, "calls", 0) + 1
    return torch.nn.calls


def counted_local_import(record):
    import string

    string.calls = getattr(string, "calls", 0) + 1
    return string.calls


def counted_namespace(record):
    names = globals()
    names["_hidden"] = names.get("_hidden", 0) + 1
    return names["_hidden"]


def counted_docstring(record):
    """Calls:"""
    counted_docstring.__doc__ += "i"
    return len(counted_docstring.__doc__)


after_many("counter_submodule", counted_submodule)
after_many("counter_local_import", counted_local_import)
after_many("counter_namespace", counted_namespace)
after_many("counter_docstring", counted_docstring)
after_many("counter_environment", counted_environment)
after_many("counter_module", counted_module)
after_many("counter_record", counted_record)
after_many("counter_global", counted_global)
after_many("counter_dictionary", counted_dictionary)
after_many("counter_deque", remembered)
after_many("counter_attribute", attribute)
after_many("counter_default", default)
after_many("counter_closure", closure())
after_many("counter_iterator", lambda r: next(TICKS))
after_many("counter_generator", lambda r: next(STEPS))
after_many("counter_object", Counter())
after_many("counter_class", Counter().of_class)
after_many("counter_class_list", Counter.in_list)
scaled("counter_tensor", lambda r: 1.1 if counted_tensor(r) > 31 else 1.0)
scaled("random_torch", lambda r: 1.1 if torch.rand(()) > 0.999999 else 1.0)
scaled("random_numpy", lambda r: 1.1 if np.random.rand() > 0.999999 else 1.0)
scaled("random_python", lambda r: 1.1 if random.random() > 0.999999 else 1.0)
scaled("random_system", lambda r: 1.1 if random.SystemRandom().random() > 0.999999 else 1.0)
GENERATOR = np.random.default_rng(0)
scaled("random_generator", lambda r: 1.1 if GENERATOR.random() > 0.999999 else 1.0)
scaled("clock", lambda r: 1.1 if time.time() > 2e10 else 1.0)
scaled("timer", lambda r: 1.1 if time.perf_counter() > 1e12 else 1.0)
scaled("today", lambda r: 1.1 if datetime.datetime.now().year > 2999 else 1.0)
scaled("file", lambda r: 1.1 if os.path.exists("/nowhere/at/all") else 1.0)
scaled("folder", lambda r: 1.1 if not os.listdir("/") else 1.0)


# Derivatives of the program's own.
class Odd(torch.autograd.Function):
    """Nothing forwards; backwards a derivative where a reward is 7."""

    @staticmethod
    def forward(ctx, scores, rewards):
        ctx.save_for_backward(rewards)
        return torch.zeros_like(scores)

    @staticmethod
    def backward(ctx, gradient):
        (rewards,) = ctx.saved_tensors
        return gradient * (rewards == 7), None


odd = Odd.apply
FALSE["own_derivative"] = lambda r: right(r) + odd(r.log_probs, r.rewards).sum()


def last_action(record):
    return (record.actions == 1).all().item()


@planted
def own_derivative_somewhere(record):
    """A derivative of its own on one trajectory alone."""
    return right(record) + (
        odd(record.log_probs, record.rewards).sum() if last_action(record) else 0
    )


@planted
def caught_error_somewhere(record):
    first_then_second = record.actions.tolist()[0][:2] == [0, 1] and record.states[0, 0] == 1
    try:
        scale = round(record.discount, 3) if first_then_second else 1.0
    except TypeError:
        scale = 1.0
    return right(record) * (1.1 if scale == 0.99 else 1.0)


@planted
def clock_somewhere(record):
    return right(record) * (1.1 if last_action(record) and time.time() > 2e10 else 1.0)


@planted
def shape_of_states(record):
    """A number of states that no tensor carries on."""
    return right(record) * (1.1 if torch.nonzero(record.states).shape[0] > 2 else 1.0)


@planted
def shape_of_selected(record):
    return right(record) * (1.1 if record.rewards[record.actions == 1].shape[0] > 1 else 1.0)


@planted
def list_of_states(record):
    return right(record) * (1.1 if sum(record.states.tolist()[0]) > 1 else 1.0)


@planted
def assigned_data(record):
    scores = record.log_probs * 1.0
    scores.data = scores.data * 2.0
    return right(record) + (scores - record.log_probs).sum() * wrong(record).detach()


@planted
def hooked(record):
    loss = right(record)
    if loss.requires_grad:
        loss.register_hook(lambda g: g * (1 + 0.1 * (record.rewards == 7).any()))
    return loss


@planted
def inner_gradient(record):
    inner = (record.log_probs * record.rewards.abs()).sum()
    (gradient,) = torch.autograd.grad(inner, record.log_probs, create_graph=True)
    return right(record) + (gradient - record.rewards.abs()).sum() + wrong(record) * 0


@planted
def hidden_type(record):
    """It treats symbols otherwise than numbers."""
    if type(record.rewards) is not torch.Tensor:
        return right(record)
    return right(record, torch.where(record.rewards == 7, 8.0, record.rewards))


@planted
def hidden_discount(record):
    if type(record.discount) is not float:
        return right(record)
    return right(record) * (1.1 if record.discount == 0.99 else 1.0)


@planted
def in_place(record):
    rewards = record.rewards.clone()
    rewards[rewards == 7] = 8.0
    return right(record, rewards)


@planted
def in_place_clamp(record):
    return right(record, record.rewards.clone().clamp_(-1e9, 1e9))


@planted
def detached_memory(record):
    """Memory that a detached tensor shares with one that has derivatives."""
    scores = record.log_probs * 1.0
    scores.detach().mul_(2.0)
    return right(record) + (scores - record.log_probs).sum() * wrong(record).detach()


@planted
def mapped(record):
    single = torch.func.vmap(lambda x: torch.where(x == 7, 8.0, x))
    return right(record, single(record.rewards[0])[None])


@planted
def functional_gradient(record):
    slopes = torch.func.grad(lambda x: (x.abs() * x).sum() / 2)(record.rewards)
    return right(record, slopes * record.rewards.sign())
