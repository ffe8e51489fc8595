"""Sampling until a claim is decided: a state of fixed size, blocks, looks, checkpoints.

The state after a block, with the generator's, is one frozen record that replaces the one before: an
interruption between two blocks or within one leaves a whole number of blocks counted, once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.confidence.scaled_sequences import ScaledSequence
from gradbias.verification.evidence.accumulated_moments import MAX_ESTIMATE, Moments, Progress
from gradbias.verification.sequential.checkpoints import generator_state

LOOKS = 1.1
"""Intervals are looked at about where the number of estimates has grown by this factor."""

_ROUNDING = 1e-10
"""Deviations that are a smaller share of the largest part's are rounding."""

_SAVED_EVERY = 1.0
"""Seconds between checkpoints, and so between signs of life where there are checkpoints."""


@dataclass(frozen=True, eq=False)
class Stream:
    """What is kept of all estimates so far.

    ``sums [3, D]``: of differences to ``centre [D]``, of their squares, of absolute values;
    ``squares [2, P]``: for each of P equal parts of the components (one, unless said) the sum of
    ``|x - centre|^2`` over estimates, and its largest term; ``largest``: see
    `stochastic.derivatives.assembly.Rows`; ``generator``: its state after the last block.
    """

    intervals: ScaledSequence
    centre: FloatArray
    sums: FloatArray
    squares: FloatArray = field(default_factory=lambda: np.zeros((2, 1)))
    largest: float = 0.0
    count: int = 0
    generator: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def empty(cls, intervals: ScaledSequence, centre: FloatArray, parts: int = 1) -> Stream:
        """Before the first block."""
        return cls(intervals, centre, np.zeros((3, len(centre))), np.zeros((2, parts)))

    def updated(self, block: SampledBlock, generator: dict[str, Any]) -> Stream:
        """With a block more."""
        if block.largest > MAX_ESTIMATE or not np.isfinite(block.values).all():
            raise ValueError(
                f"estimates: expected numbers up to {MAX_ESTIMATE:g}, got {block.largest:.3g}"
            )
        gaps = block.values - self.centre
        squared = gaps**2
        lengths = squared.reshape(len(gaps), self.squares.shape[1], -1).sum(axis=2)
        added = [gaps.sum(axis=0), squared.sum(axis=0), np.abs(block.values).sum(axis=0)]
        total, most = self.squares
        return Stream(
            self.intervals.updated(block.read),
            self.centre,
            self.sums + np.stack(added),
            np.stack([total + lengths.sum(axis=0), np.maximum(most, lengths.max(axis=0))]),
            max(self.largest, block.largest),
            self.count + len(block.values),
            generator,
        )

    @property
    def largest_share(self) -> float:
        """Of one estimate in the sum of squared distances to the centre, in any part that varies
        by more than rounding.
        """
        total, most = self.squares
        varies = total > _ROUNDING**2 * total.max()
        return float((most[varies] / total[varies]).max(initial=0.0))

    def moments(self, shape: tuple[int, ...]) -> Moments:
        """Mean and variance of one estimate."""
        n = max(self.count, 1)
        shift = self.sums[0] / n
        variance = np.maximum(self.sums[1] / n - shift**2, 0.0) * n / max(n - 1, 1)
        absolute = float(np.linalg.norm(self.sums[2])) / n
        mean = (self.centre + shift).reshape(shape)
        return Moments(mean, variance.reshape(shape), absolute, self.count, self.largest, None)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All of it but the generator's state."""
        own = {"centre": self.centre, "moments": self.sums, "squares": self.squares}
        numbers = {"largest": np.array(self.largest), "estimates": np.array(self.count)}
        inner = {f"sequence_{name}": a for name, a in self.intervals.arrays().items()}
        return own | numbers | inner

    def restored(self, arrays: dict[str, npt.NDArray[Any]], generator: dict[str, Any]) -> Stream:
        """The stream that had these ``arrays``."""
        named = {n.removeprefix("sequence_"): a for n, a in arrays.items() if "sequence_" in n}
        return Stream(
            self.intervals.restored(named),
            arrays["centre"],
            arrays["moments"],
            arrays["squares"].reshape(2, -1),
            float(arrays["largest"]),
            int(arrays["estimates"]),
            generator,
        )


@dataclass(frozen=True, eq=False)
class SampledBlock:
    """Estimates ``values [B, D]``, what is ``read [B, F]`` off them, and see `Rows.largest`."""

    values: FloatArray
    read: FloatArray
    largest: float


@dataclass(frozen=True, eq=False)
class Run:
    """How a stream goes on: ``take(count)`` gives a block drawn with ``rng``, up to ``limit``
    estimates; ``decided(stream)`` is asked at every look.
    """

    take: Callable[[int], SampledBlock]
    rng: np.random.Generator
    limit: int
    block: int
    decided: Callable[[Stream], bool]
    save: Callable[[Stream], None] | None = None
    progress: Progress | None = None

    def advanced(self, stream: Stream) -> tuple[Stream, str]:
        """The last stream, and why it is the last: "decided", "budget" or "interrupted"."""
        stopped = "budget"
        saved = time.monotonic()
        try:
            while True:
                if self._is_look(stream.count) and self.decided(stream):
                    stopped = "decided"
                    break
                if stream.count >= self.limit:
                    break
                stream = self._next(stream)
                if self.save is None or time.monotonic() - saved > _SAVED_EVERY:
                    self._tell(stream)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            stopped = "interrupted"
        self._tell(stream)
        return stream, stopped

    def _is_look(self, count: int) -> bool:
        """By the count alone, so that a run that was resumed looks where it would have."""
        if count == 0 or count >= self.limit:
            return count > 0
        before = max(count - self.block, 1)
        return int(math.log(count, LOOKS)) != int(math.log(before, LOOKS))

    def _next(self, stream: Stream) -> Stream:
        block = self.take(min(self.block, self.limit - stream.count))
        return stream.updated(block, generator_state(self.rng))

    def _tell(self, stream: Stream) -> None:
        """What is told was saved before."""
        if self.save is not None:
            self.save(stream)
        if self.progress is not None:
            self.progress(stream.count, self.limit)


def with_generator(stream: Stream, rng: np.random.Generator) -> Stream:
    """The stream with the generator's present state."""
    return replace(stream, generator=generator_state(rng))
