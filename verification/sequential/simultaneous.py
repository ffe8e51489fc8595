"""Intervals of many functionals at once, at one rate, and the norm that they leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.sequential.functionals import Reading
from gradbias.verification.sequential.stream import Stream


@dataclass(frozen=True, eq=False)
class Box:
    """Simultaneous intervals of functionals, and the norm that they leave."""

    low: FloatArray
    high: FloatArray
    norm: tuple[float, float]


def split_rates(stream: Stream, reading: Reading, rate: float) -> tuple[FloatArray, float]:
    """``[F]``: half of ``rate`` for the direction, if there is one, the rest evenly for the other
    functionals whose mean is not known; with projections half of that rest is for their own
    randomness, and given beside.
    """
    directed = reading.direction is not None
    rest = rate / 2 if directed else rate
    spread = rest / 2 if reading.projections is not None else 0.0
    claims = stream.intervals.claims
    others = int(claims.sum()) - int(directed and bool(claims[-1]))
    rates = np.full(len(claims), (rest - spread) / max(others, 1))
    if directed:
        rates[-1] = rate / 2
    return rates, spread


def box_of(stream: Stream, reading: Reading, exact: FloatArray, rate: float) -> Box:
    """Intervals of the functionals' means, and of the bias norm, all of it at ``rate``."""
    rates, spread = split_rates(stream, reading, rate)
    low, high = stream.intervals.bounds(rates)
    target = reading.of(exact.reshape(1, -1))[0]
    # Infinities (no interval yet) stay what they are.
    return Box(low, high, reading.norm_interval(low - target, high - target, spread))
