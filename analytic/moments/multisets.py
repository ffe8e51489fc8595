"""All unordered samples (multisets) of a given size from finitely many classes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement, islice

import numpy as np

from gradbias.analytic.utils.validation import FloatArray, IntArray


def multisets(n_classes: int, n: int, block: int) -> Iterator[IntArray]:
    """All multisets of n out of ``n_classes``, ``[block, n]`` at a time, each row sorted."""
    remaining = combinations_with_replacement(range(n_classes), n)
    while rows := list(islice(remaining, block)):
        yield np.array(rows, dtype=np.int64)


def log_orders(chosen: IntArray) -> FloatArray:
    """Logarithms ``[B]`` of how many ordered samples each sorted row of ``[B, N]`` stands for."""
    run = np.ones(chosen.shape)
    for i in range(1, chosen.shape[1]):
        run[:, i] += np.where(chosen[:, i] == chosen[:, i - 1], run[:, i - 1], 0.0)
    # n! / (product of the factorials of repetitions), as a sum of logarithms of n single factors:
    # the factorials themselves would overflow.
    return np.asarray(np.log(np.arange(1, chosen.shape[1] + 1) / run).sum(axis=1))


def multiset_probabilities(chosen: IntArray, log_likelihood: FloatArray) -> FloatArray:
    """The probabilities ``[B]`` of multisets ``chosen [B, n]`` (rows sorted) of random draws."""
    return np.asarray(np.exp(log_orders(chosen) + log_likelihood[chosen].sum(axis=1)))
