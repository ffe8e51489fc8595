"""What each surrogate is by definition, in numpy: its value and its first two derivatives in the
log-probabilities of a group of walks, written down from the formulas of the papers.

A definition maps a group to ``(value, slopes [N, H], curvatures [N, H, H])``; log-probabilities of
different walks do not meet. The mean and the variance of the estimate follow over all groups.
"""

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tests.mutation.problems import DISCOUNT, walks


@cache
def moments(name, definition, order, n):
    """Exact mean and componentwise variance of the estimate from n walks."""
    first = second = 0.0
    for group in itertools.product(walks(name), repeat=n):
        probability = np.prod([walk.probability for walk in group])
        estimate = assembled(group, definition(group), order)
        first, second = first + probability * estimate, second + probability * estimate**2
    return first, second - first**2


def assembled(group, derivatives, order):
    """The estimate in theta: sum g s, and sum h s s' + sum g (log pi)''."""
    _, slopes, curvatures = derivatives
    total = 0.0
    for walk, g, h in zip(group, slopes, curvatures, strict=True):
        if order == 1:
            total = total + g @ walk.scores
        else:
            total = total + walk.scores.T @ h @ walk.scores
            total = total + np.einsum("t,tij->ij", g, walk.curvatures)
    return total


def discounting(walk):
    return DISCOUNT ** np.arange(walk.horizon)


def to_go(walk):
    steps = range(walk.horizon)
    later = [[DISCOUNT ** (k - t) * walk.rewards[k] for k in steps if k >= t] for t in steps]
    return np.array([sum(terms) for terms in later])


def advantages(walk, lam, discount=DISCOUNT):
    """GAE, from its recursion."""
    found, after = np.zeros(walk.horizon), 0.0
    for t in reversed(range(walk.horizon)):
        error = walk.rewards[t] + discount * walk.values[t + 1] - walk.values[t]
        after = (error + discount * lam * after) * walk.alive[t]
        found[t] = after
    return found


def mean_of_walks(function):
    """The definition that averages a function of one walk."""

    def definition(group):
        values, slopes, curvatures = _each(function, group)
        return values.mean(), slopes / len(group), curvatures / len(group)

    return definition


def _each(function, group):
    parts = [function(walk) for walk in group]
    return tuple(np.array([part[k] for part in parts]) for k in (0, 1, 2))


def _weights(walk, given):
    return discounting(walk) if given is None else np.array(given)


def _scored(walk, reward_to_go, weights, lam=None):
    baselines = walk.values[:-1]
    if lam is not None:
        return _weights(walk, weights) * advantages(walk, lam)
    if reward_to_go:
        return _weights(walk, weights) * (to_go(walk) - baselines) * walk.alive
    return (to_go(walk)[0] - _weights(walk, weights) * baselines) * walk.alive


def _by_live_steps(function):
    """Sums over walks and steps, divided by the group's live steps."""

    def definition(group):
        value, slopes, curvatures = _each(function, group)
        live = max(sum(walk.alive.sum() for walk in group), 1)
        return value.sum() / live, slopes / live, curvatures / live

    return definition


@cache
def ad(reward_to_go=True, weights=None, by_live_steps=False, lam=None):
    """sum_t c_t log pi_t."""

    def one(walk):
        c = _scored(walk, reward_to_go, weights, lam)
        return c @ walk.log_pi, c, np.zeros((walk.horizon, walk.horizon))

    return _by_live_steps(one) if by_live_steps else mean_of_walks(one)


@cache
def lvc(reward_to_go=True, weights=None, by_live_steps=False, lam=None):
    """sum_t c_t pi_t / stop(pi_t), whose derivatives in log pi_t are all c_t."""

    def one(walk):
        c = _scored(walk, reward_to_go, weights, lam)
        return c.sum(), c, np.diag(c)

    return _by_live_steps(one) if by_live_steps else mean_of_walks(one)


def _latest(walk):
    """``[H, H]``: the later of two steps."""
    return np.maximum.outer(np.arange(walk.horizon), np.arange(walk.horizon))


def _dice(walk):
    paid = discounting(walk) * walk.rewards
    from_there = np.array([paid[t:].sum() for t in range(walk.horizon)])
    taken_off = discounting(walk) * walk.values[:-1] * walk.alive
    return paid.sum(), from_there - taken_off, from_there[_latest(walk)] - np.diag(taken_off)


dice = mean_of_walks(_dice)


@cache
def loaded_dice(lam=1.0, weights=None):
    """W_t - W_{t-1} is 0, and has a derivative 1 in sets of steps of which the last is t."""

    def one(walk):
        weighted = _weights(walk, weights) * advantages(walk, lam)
        return 0.0, weighted, weighted[_latest(walk)]

    return mean_of_walks(one)


@cache
def off_policy_dice(ratio, largest=np.inf):
    """``ratio``: "trajectory", "per decision" or "per step"."""

    def one(walk):
        steps = np.arange(walk.horizon)
        members = {  # [t, u]: whether the ratio of u is in the product of t
            "trajectory": np.ones((walk.horizon, walk.horizon)),
            "per decision": (steps[None, :] <= steps[:, None]).astype(float),
            "per step": np.eye(walk.horizon),
        }[ratio]
        rho = np.exp(members @ (walk.log_pi - walk.log_mu))
        paid = discounting(walk) * walk.rewards * np.minimum(rho, largest)
        moved = paid * (rho <= largest)
        return paid.sum(), moved @ members, np.einsum("t,tu,tv->uv", moved, members, members)

    return mean_of_walks(one)


def penalties(walk, kind):
    """Values, first and second derivatives in log pi of a penalty's steps."""
    x, one = walk.log_pi - walk.log_ref, walk.alive.astype(float)
    inverse = np.exp(-x) * one
    return {
        "k1": (x, one, 0 * x),
        "k2": (x**2 / 2, x, one),
        "k3": (inverse - one + x, one - inverse, inverse),
        "negative entropy": (walk.log_pi, one, 0 * x),
        "each step": (one, 0 * x, 0 * x),
    }[kind]


@dataclass(frozen=True)
class Group:
    """A group loss: ``baseline`` "none", "mean" or "others"; ``length`` "none", "own", "group";
    ``penalty`` is (kind, coefficient, as_loss)."""

    baseline: str = "others"
    normalise: bool = False
    length: str = "none"
    clip: float | None = None
    penalty: Any = ("k1", 0.0, False)
    epsilon: float = 1e-4

    def __call__(self, group):
        given = self._advantages(group)
        lengths = np.array([max(walk.alive.sum(), 1) for walk in group], dtype=float)
        scale = {"none": np.ones(len(group)), "own": lengths}.get(self.length)
        scale = np.full(len(group), lengths.mean()) if scale is None else scale
        parts = [self._of_one(w, a) for w, a in zip(group, given, strict=True)]
        by = len(group) * scale
        value = sum(part[0] / b for part, b in zip(parts, by, strict=True))
        slopes = np.array([part[1] / b for part, b in zip(parts, by, strict=True)])
        return value, slopes, [np.diag(part[2] / b) for part, b in zip(parts, by, strict=True)]

    def _of_one(self, walk, advantage):
        rho = np.exp(walk.log_pi - walk.log_mu)
        limited = rho if self.clip is None else np.clip(rho, 1 - self.clip, 1 + self.clip)
        free = rho * advantage <= limited * advantage
        terms = np.minimum(rho * advantage, limited * advantage)
        slopes = rho * advantage * free
        kind, coefficient, as_loss = self.penalty
        off = [as_loss * coefficient * part for part in penalties(walk, kind)]
        alive = walk.alive
        return (
            ((terms - off[0]) * alive).sum(),
            (slopes - off[1]) * alive,
            (slopes - off[2]) * alive,
        )

    def _advantages(self, group):
        kind, coefficient, as_loss = self.penalty
        as_data = coefficient * (not as_loss)
        returns = np.array([
            discounting(walk) @ walk.rewards - as_data * penalties(walk, kind)[0].sum()
            for walk in group
        ])  # fmt: skip
        others = [np.delete(returns, i) for i in range(len(group))]
        baselines = {"none": 0.0, "mean": returns.mean()}.get(self.baseline)
        if baselines is None:
            baselines = np.array([values.mean() for values in others])
        spread = returns.std(ddof=1) + self.epsilon if self.normalise else 1.0
        return (returns - baselines) / spread
