"""How the i-step meta-gradients (i = 1..n) of one unroll of n inner steps are mixed, and on which
batch the outer loss after each inner step is taken.

Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, eqs. (5) and (10).
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from gradbias.analytic.utils.validation import FloatArray, real_number, whole_number


class Validation(Enum):
    """Which batch the outer loss at the i-th inner iterate is taken on, i = 1..n.

    ``FRESH``, the default, is that of eq. (10). The choice matters for mixes only: the n-step
    meta-gradient alone has the same distribution under all three.
    """

    FRESH = "a separate batch for each i"
    SHARED = "one batch for all i, apart from the inner ones"
    REUSED = "for each i the batch that the next inner step trains on"


def mixing_weights(steps: int, kappa: float | None = None) -> FloatArray:
    """The weights of the i-step meta-gradients, proportional to kappa^(i-1) and of sum 1.

    Args:
        steps: n, the number of inner steps.
        kappa: in [0, 1]; 0 keeps only the 1-step meta-gradient, 1 weighs all equally (default: the
            paper's automatic 1 - 1/n).

    Returns:
        ``[n]``, for i = 1..n.

    Raises:
        ValueError: steps is no integer >= 1, or kappa lies outside [0, 1].

    Source: *One Step at a Time*, eq. (10) and Sec. 3.5.

    >>> mixing_weights(3, 0.5).round(4).tolist()
    [0.5714, 0.2857, 0.1429]
    """
    n = whole_number("steps", steps, at_least=1)
    ratio = 1.0 - 1.0 / n if kappa is None else real_number("kappa", kappa, low=0.0, high=1.0)
    powers = ratio ** np.arange(n)
    weights: FloatArray = powers / powers.sum()
    return weights
