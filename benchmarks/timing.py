"""A job that is done in two ways, timed in interleaved rounds."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

ROUNDS = 7


@dataclass(frozen=True)
class Job:
    """A job in two ways; the naive one does only the part ``share`` of it. Slow jobs take fewer
    ``rounds``.
    """

    name: str
    ours: Callable[[], object]
    naive: Callable[[], object]
    share: float = 1.0
    rounds: int = ROUNDS

    def measured(self) -> dict[str, object]:
        """A row: the median milliseconds of both ways, and the median of the rounds' ratios."""
        if self.rounds == ROUNDS:
            self.ours(), self.naive()
        rounds = [
            (seconds(self.ours), seconds(self.naive) / self.share) for _ in range(self.rounds)
        ]
        ours, naive = (1e3 * median(times) for times in zip(*rounds, strict=True))
        ratio = median(slow / fast for fast, slow in rounds)
        return {"job": self.name, "ours_ms": ours, "naive_ms": naive, "ratio": ratio}


def seconds(function: Callable[[], object]) -> float:
    """The duration of one call, in seconds."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began
