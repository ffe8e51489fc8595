"""The simplest problems of each size, deterministic and with a single reward, which end a search.

Hypothesis changes a few choices at a time when it shrinks, and can end where a simpler problem is
several changes away.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product

import numpy as np

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.verification.properties.search import Example

MAX_STATES = 2
"""The largest number of states of the simplest problems."""

_MAX_EXAMPLES = 400


def simplest_problems(biased: Example) -> Iterator[Example]:
    """Simple examples that are at most as large as ``biased``, whose horizon is finite. They are in
    the order of the number of states, then of actions, then of steps; for each size, those with
    discount 1, the uniform policy and a reward of 1 come first.

    >>> bandit = TabularMDP([[[1.0]] * 2], [[1.0, 0.0]], 0.5, [1.0], horizon=2)
    >>> next(simplest_problems(Example(bandit, (np.ones((1, 2)),)))).problem.horizon
    1
    """
    yield from islice(_simpler(biased), _MAX_EXAMPLES)


def _simpler(biased: Example) -> Iterator[Example]:
    """All of `simplest_problems`, however many. Among those as large as ``biased``, only those with
    discount 1 and the uniform policy are given: others are not simpler than it.
    """
    mdp = biased.problem
    for n_states in range(1, min(mdp.n_states, MAX_STATES) + 1):
        for n_actions in range(2, mdp.n_actions + 1):
            for horizon in range(1, mdp.horizon + 1):
                same_size = (n_states, n_actions, horizon) == (
                    mdp.n_states,
                    mdp.n_actions,
                    mdp.horizon,
                )
                for example in _of_size(n_states, n_actions, horizon):
                    simplest = example.problem.discount == 1.0 and not example.parameters[0].any()
                    if example.digest == biased.digest or (same_size and not simplest):
                        return
                    yield example


def _of_size(n_states: int, n_actions: int, horizon: int) -> Iterator[Example]:
    """All simple examples of one size, the simplest first."""
    shape = (n_states, n_actions)
    tilted = np.zeros(shape)
    tilted[:, -1] = 1.0
    start = np.eye(n_states)[0]
    kernels = list(product(range(n_states), repeat=n_states * n_actions))
    if horizon == 1:  # where the only step leads does not matter
        kernels = kernels[:1]
    for discount, theta, value in product((1.0, 0.5), (np.zeros(shape), tilted), (1.0, -1.0)):
        for next_states, place in product(kernels, np.ndindex(shape)):
            reward = np.zeros(shape)
            reward[place] = value
            rows = np.eye(n_states)[np.array(next_states)].reshape(*shape, n_states)
            yield Example(TabularMDP(rows, reward, discount, start, horizon), (theta,))
