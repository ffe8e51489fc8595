"""Batches whose order does not matter: multisets of n outcomes, and how likely each is."""

from collections.abc import Iterator
from itertools import combinations_with_replacement, islice

import numpy as np

from analytic.arrays import FloatArray, IntArray


def multisets(n_outcomes: int, n: int, block: int) -> Iterator[IntArray]:
    """All multisets of n outcomes, ``[block, n]`` at a time, each row sorted."""
    every = combinations_with_replacement(range(n_outcomes), n)
    while some := list(islice(every, block)):
        yield np.array(some, dtype=np.int64)


def multiset_probabilities(chosen: IntArray, log_likelihood: FloatArray) -> FloatArray:
    """``[B]``: of the multisets ``chosen [B, n]`` (each row sorted) of independent outcomes."""
    run = np.ones(chosen.shape)
    for i in range(1, chosen.shape[1]):
        run[:, i] += np.where(chosen[:, i] == chosen[:, i - 1], run[:, i - 1], 0.0)
    # The number of orders, n! / (product of the factorials of repetitions), factor by factor.
    log_orders = np.log(np.arange(1, chosen.shape[1] + 1) / run)
    probability: FloatArray = np.exp((log_orders + log_likelihood[chosen]).sum(axis=1))
    return probability
