"""How the i-step meta-gradients of one unroll are mixed, and on what data each is validated.

Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, eqs. (5) and (10).
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from gradbias.analytic.utils.validation import FloatArray, real_number, whole_number


class Validation(Enum):
    """Which batch the outer loss at the i-th inner iterate is taken on, i = 1..n.

    Eq. (10) has one batch of its own for each i (tau-tilde^(i)), which is ``FRESH``; it also is
    the default. One n-step meta-gradient alone is distributed alike under all three.
    """

    FRESH = "a batch of its own for each i"
    SHARED = "one batch for all i, apart from the inner ones"
    REUSED = "for each i the batch that the next inner step trains on"


def mixing_weights(steps: int, kappa: float | None = None) -> FloatArray:
    """The weights ``[n]`` of the i-step meta-gradients, proportional to kappa^(i-1) and of sum 1.

    ``kappa=None`` is the paper's automatic 1 - 1/n. At 0 the 1-step one is left, at 1 all weigh the
    same.

    Source: *One Step at a Time*, eq. (10) and Sec. 3.5.

    Raises:
        ValueError: steps is no whole number >= 1, or kappa lies outside [0, 1].

    >>> mixing_weights(3, 0.5).round(4).tolist()
    [0.5714, 0.2857, 0.1429]
    """
    n = whole_number("steps", steps, at_least=1)
    ratio = 1.0 - 1.0 / n if kappa is None else real_number("kappa", kappa, low=0.0, high=1.0)
    powers = ratio ** np.arange(n)
    weights: FloatArray = powers / powers.sum()
    return weights
