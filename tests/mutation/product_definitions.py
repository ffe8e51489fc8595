"""Definitions of surrogates that are sums of products of one-step factors, in numpy.

A factor of step u is (value, first, second derivative) in log pi_u; a term is (coefficient,
{u: factor}).
"""

import itertools
from functools import cache

import numpy as np

from tests.mutation.definitions import advantages, discounting, mean_of_walks


def _summed(terms, horizon):
    """Value, slopes and curvatures of a sum of products."""
    value, slopes, bends = 0.0, np.zeros(horizon), np.zeros((horizon, horizon))
    for coefficient, factors in terms:
        order = dict.fromkeys(factors, 0)
        product = lambda k: np.prod([f[k[u]] for u, f in factors.items()])  # noqa: B023, E731
        value += coefficient * product(order)
        for u in factors:
            slopes[u] += coefficient * product(order | {u: 1})
            bends[u, u] += coefficient * product(order | {u: 2})
        for u, v in itertools.permutations(factors, 2):
            bends[u, v] += coefficient * product(order | {u: 1, v: 1})
    return value, slopes, bends


def _gap(log_ratio):
    """pi / mu - 1."""
    ratio = np.exp(log_ratio)
    return ratio - 1.0, ratio, ratio


def _cut(log_ratio, largest):
    """pi / mu, where that is below ``largest``, else ``largest``."""
    ratio = np.exp(log_ratio)
    return (ratio, ratio, ratio) if ratio < largest else (largest, 0.0, 0.0)


@cache
def taylor(order=1, lam=1.0):
    """Products of the gaps of up to ``order`` steps, times the advantage of the last one."""

    def one(walk):
        steps, logs = range(walk.horizon), walk.log_pi - walk.log_mu
        weighted = discounting(walk) * advantages(walk, lam)
        terms = [
            (weighted[chosen[-1]], {u: _gap(logs[u]) for u in chosen})
            for size in range(1, order + 1)
            for chosen in itertools.combinations(steps, size)
        ]
        return _summed(terms, walk.horizon)

    return mean_of_walks(one)


@cache
def v_trace(max_rho=np.inf, max_c=np.inf):
    """v(s_0) and the differences, each with its step's ratio and the traces of those before."""

    def one(walk):
        logs, errors = walk.log_pi - walk.log_mu, advantages(walk, 0.0)
        terms = [(walk.values[0], {})]
        for t in range(walk.horizon):
            traces = {i: _cut(logs[i], max_c) for i in range(t)}
            factors = traces | {t: _cut(logs[t], max_rho)}
            terms.append((discounting(walk)[t] * errors[t], factors))
        return _summed(terms, walk.horizon)

    return mean_of_walks(one)


@cache
def tmaml(coefficient=1.0):
    """DiCE, less products over two different steps of the later one's value."""

    def one(walk):
        paid = discounting(walk) * walk.rewards
        held = discounting(walk) * walk.values[:-1] * walk.alive
        later = np.maximum.outer(np.arange(walk.horizon), np.arange(walk.horizon))
        from_there = np.array([paid[t:].sum() for t in range(walk.horizon)])
        crossed = coefficient * held[later] * (1.0 - np.eye(walk.horizon))
        return paid.sum(), from_there - held, from_there[later] - np.diag(held) - crossed

    return mean_of_walks(one)
