"""The record of a remark on a paper, and the classes that remarks fall into."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

BIAS_PAPER = "Gradient Bias"
MERITS_PAPER = "On Merits"
ONE_STEP_PAPER = "One Step"


class Kind(Enum):
    """What is the matter with a statement."""

    WRONG = "wrong"
    LOOSE = "loose"
    NOTATION = "notation"


@dataclass(frozen=True)
class Erratum:
    """A remark: where it applies, what is printed, what holds or is meant, and the numbers.

    ``elsewhere`` says where the same paper prints it as it should be, or what is not affected.
    """

    title: str
    paper: str
    where: str
    kind: Kind
    printed: str
    holds: str
    example: str
    numbers: Callable[[], dict[str, float]]
    elsewhere: str = ""


def relative(found, wanted):
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
