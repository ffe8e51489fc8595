"""The record of an erratum."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BIAS_PAPER = "A Theoretical Understanding of Gradient Bias in Meta-RL"
MERITS_PAPER = "On Merits of Biased Gradient Estimates for Meta-RL"


@dataclass(frozen=True)
class Erratum:
    """A statement that fails: where it is, what it says, what holds, and the numbers."""

    title: str
    where: str
    printed: str
    holds: str
    example: str
    numbers: Callable[[], dict[str, float]]


def relative(found, wanted):
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
