"""All unordered samples of a given size from finitely many classes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement, islice

import numpy as np

from gradbias.analytic.utils.validation import FloatArray, IntArray


def multisets(n_classes: int, n: int, block: int) -> Iterator[IntArray]:
    """All multisets of n classes, ``[block, n]`` at a time, each row sorted."""
    every = combinations_with_replacement(range(n_classes), n)
    while some := list(islice(every, block)):
        yield np.array(some, dtype=np.int64)


def log_orders(chosen: IntArray) -> FloatArray:
    """``[B]``: the logarithm of how many ordered samples each sorted row ``[B, N]`` stands for."""
    run = np.ones(chosen.shape)
    for i in range(1, chosen.shape[1]):
        run[:, i] += np.where(chosen[:, i] == chosen[:, i - 1], run[:, i - 1], 0.0)
    # n! / (product of the factorials of repetitions), factor by factor.
    found: FloatArray = np.log(np.arange(1, chosen.shape[1] + 1) / run).sum(axis=1)
    return found


def multiset_probabilities(chosen: IntArray, log_likelihood: FloatArray) -> FloatArray:
    """``[B]``: of the multisets ``chosen [B, n]`` (each row sorted) of independent outcomes."""
    probability: FloatArray = np.exp(log_orders(chosen) + log_likelihood[chosen].sum(axis=1))
    return probability
