"""Simultaneous intervals of many functionals, and the interval of the norm that follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.sequential.functionals import Functionals
from gradbias.verification.sequential.stream import Stream


@dataclass(frozen=True, eq=False)
class Box:
    """Simultaneous intervals ``low, high [F]`` of functionals, and that of the bias ``norm``."""

    low: FloatArray
    high: FloatArray
    norm: tuple[float, float]


def split_rates(stream: Stream, functionals: Functionals, rate: float) -> tuple[FloatArray, float]:
    """The error rate of each functional ``[F]``, and that of the projections' own randomness.

    Half of ``rate`` is for the direction, if there is one. The rest is shared evenly among the
    other functionals that claim anything; with projections half of it is for their randomness.
    """
    directed = functionals.direction is not None
    rest = rate / 2 if directed else rate
    spread = rest / 2 if functionals.projections is not None else 0.0
    claims = stream.intervals.claims
    others = int(claims.sum()) - int(directed and bool(claims[-1]))
    rates = np.full(len(claims), (rest - spread) / max(others, 1))
    if directed:
        rates[-1] = rate / 2
    return rates, spread


def box_of(stream: Stream, functionals: Functionals, exact: FloatArray, rate: float) -> Box:
    """The intervals of the functionals' means and of the bias norm, all at once at ``rate``."""
    rates, spread = split_rates(stream, functionals, rate)
    low, high = stream.intervals.bounds(rates)
    target = functionals.of(exact.reshape(1, -1))[0]
    return Box(low, high, functionals.norm_interval(low - target, high - target, spread))
