"""The plainest problems of each size, to end a search on: deterministic, with one reward.

Shrinking changes a few choices at a time, and can rest where a plainer problem is several away.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product

import numpy as np

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.verification.properties.search import Example

LARGEST = 2
"""States of the problems that are gone through."""

_MOST = 400


def plainer(than: Example) -> Iterator[Example]:
    """Plain examples of at most that one's size, which has a finite horizon; the fewest states
    first, then actions, then steps, then discount 1, the uniform policy and a reward of 1.

    >>> found = Example(TabularMDP([[[1.0]] * 2], [[1.0, 0.0]], 0.5, [1.0], 2), (np.ones((1, 2)),))
    >>> next(plainer(found)).problem.horizon
    1
    """
    yield from islice(_up_to(than), _MOST)


def _up_to(than: Example) -> Iterator[Example]:
    one = than.problem
    for n_states in range(1, min(one.n_states, LARGEST) + 1):
        for n_actions in range(2, one.n_actions + 1):
            for horizon in range(1, one.horizon + 1):
                size = (n_states, n_actions, horizon)
                for example in _of_size(*size):
                    if example.digest == than.digest:
                        return
                    if size == (one.n_states, one.n_actions, one.horizon) and _bent(example):
                        return
                    yield example


def _of_size(n_states: int, n_actions: int, horizon: int) -> Iterator[Example]:
    shape = (n_states, n_actions)
    tilted = np.zeros(shape)
    tilted[:, -1] = 1.0
    start = np.eye(n_states)[0]
    nexts = list(product(range(n_states), repeat=n_states * n_actions))
    places = list(np.ndindex(shape))
    # Where there is one step, it leads nowhere that matters.
    kernels = nexts if horizon > 1 else nexts[:1]
    for discount, theta, paid in product((1.0, 0.5), (np.zeros(shape), tilted), (1.0, -1.0)):
        for ends, place in product(kernels, places):
            reward = np.zeros(shape)
            reward[place] = paid
            rows = np.eye(n_states)[np.array(ends)].reshape(*shape, n_states)
            yield Example(TabularMDP(rows, reward, discount, start, horizon), (theta,))


def _bent(example: Example) -> bool:
    """Not of the plainest: of the same size as what was found, that is no gain."""
    return example.problem.discount != 1.0 or bool(example.parameters[0].any())
