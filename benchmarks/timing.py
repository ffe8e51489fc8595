"""One job done two ways, timed in interleaved rounds."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

ROUNDS = 7


@dataclass(frozen=True)
class Job:
    """``share`` is the part of the job that the naive way is given; slow ones take fewer rounds."""

    name: str
    ours: Callable[[], object]
    naive: Callable[[], object]
    share: float = 1.0
    rounds: int = ROUNDS

    def measured(self) -> dict[str, object]:
        """Median milliseconds of both, and the median of the rounds' ratios."""
        if self.rounds == ROUNDS:
            self.ours(), self.naive()
        rounds = [
            (seconds(self.ours), seconds(self.naive) / self.share) for _ in range(self.rounds)
        ]
        ours, naive = (1e3 * median(times) for times in zip(*rounds, strict=True))
        ratio = median(slow / fast for fast, slow in rounds)
        return {"job": self.name, "ours_ms": ours, "naive_ms": naive, "ratio": ratio}


def seconds(function: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began
