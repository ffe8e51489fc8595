"""What a program can remember between calls, and what it asks of the world outside."""

import functools
import gc
import itertools
import time

import numpy as np
import pytest
import torch

from gradbias.stochastic.tracing import reachable_state
from gradbias.stochastic.tracing.reachable_state import (
    errors_raised,
    outside_calls,
    snapshot,
    unchanged,
)

TABLE = {"deep": [{"count": 0}]}


class Remembering:
    """An object with slots, an array, a tensor and a generator."""

    __slots__ = ("array", "generator", "tensor")

    def __init__(self):
        self.array = np.zeros(2)
        self.generator = np.random.default_rng(0)
        self.tensor = torch.zeros(2)

    def __call__(self, change):
        change(self)


def change_global(_):
    TABLE["deep"][0]["count"] += 1


@pytest.mark.parametrize(
    "change",
    [
        lambda held: held.array.__setitem__(0, held.array[0] + 1),
        lambda held: held.tensor.add_(1),
        lambda held: held.generator.random(),
        lambda held: setattr(held, "array", held.array + 1),
    ],
)
def test_changes_of_what_an_object_holds_are_seen(change):
    held = Remembering()
    with unchanged(held) as state:
        held(lambda _: None)
    assert state.changed == ""
    with unchanged(held) as state:
        held(change)
    assert state.changed in ("array", "tensor", "generator")


def test_the_path_to_a_change_is_named():
    with unchanged(change_global) as state:
        change_global(None)
    assert state.changed == "TABLE.'deep'.0.'count'"
    counter = itertools.count()
    with unchanged(functools.partial(lambda it: next(it), counter)) as state:
        next(counter)
    assert state.changed.startswith("args.0.iterator")


def test_the_snapshot_of_one_state_is_the_same_twice():
    for function in (change_global, Remembering(), np.linalg.norm, torch.nn.Linear(2, 2)):
        assert snapshot(function) == snapshot(function)


def test_what_reaches_too_much_is_refused(monkeypatch):
    monkeypatch.setattr(reachable_state, "MAX_OBJECTS", 3)
    with pytest.raises(ValueError, match="reaches more than 3 objects"):
        snapshot(change_global)


def test_calls_to_the_world_outside_are_named_with_their_line():
    with outside_calls() as watched:
        len([1])
    assert watched.calls == ""
    with outside_calls() as watched:
        time.time()
    assert watched.calls.startswith(f"time.time ({__file__}, line ")


def test_errors_are_noted_where_they_are_raised_though_they_are_caught():
    def catches():
        try:
            return {}["nothing"]
        except KeyError:
            return None

    with errors_raised() as raised:
        catches()
    assert [(name, file) for name, file, _ in raised] == [("KeyError", __file__)]


def test_a_generator_that_ends_unfinished_is_no_error():
    def numbers():
        yield 1
        yield 2

    with errors_raised() as raised:
        running = numbers()
        next(running)
        running.close()
        assert not gc.isenabled()
    assert raised == []
    assert gc.isenabled()
