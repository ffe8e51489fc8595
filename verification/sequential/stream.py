"""Sampling until a claim is decided: a state of fixed size, blocks, looks, checkpoints.

The state after a block, with that of the generator, is one frozen record that replaces the one
before. An interruption, whenever it comes, leaves complete blocks, each counted once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.confidence.scaled_sequences import ScaledSequence
from gradbias.verification.evidence.accumulated_moments import MAX_ESTIMATE, Moments, Progress
from gradbias.verification.sequential.checkpoints import generator_state

LOOKS = 1.1
"""Intervals are computed about each time that the number of estimates has grown by this factor."""

_ROUNDING = 1e-10
"""A part whose standard deviation is a smaller share of the largest part's varies by rounding."""

_SAVED_EVERY = 1.0
"""The seconds between checkpoints, and between calls of progress where there are checkpoints."""


class Stopped(Enum):
    """Why a sequential measurement stopped sampling."""

    DECIDED = "decided"
    BUDGET = "budget"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, eq=False)
class Stream:
    """What is kept of all estimates so far.

    Attributes:
        intervals: the confidence sequence of the functionals.
        centre: a vector ``[D]`` near the mean, for differences without cancellation.
        sums: ``[3, D]``, the sums of differences to the centre, their squares, absolute values.
        squares: ``[2, P]``, for each of P equal parts of the components (default: one) the sum of
            ``|x - centre|^2`` over estimates, and its largest term.
        largest: the largest number in any estimate.
        count: the number of estimates.
        generator: the generator's state after the last block.
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
        """The stream before its first block."""
        return cls(intervals, centre, np.zeros((3, len(centre))), np.zeros((2, parts)))

    def updated(self, block: SampledBlock, generator: dict[str, Any]) -> Stream:
        """The stream after another block."""
        if block.largest > MAX_ESTIMATE or not np.isfinite(block.values).all():
            raise ValueError(
                f"estimates: expected numbers up to {MAX_ESTIMATE:g}, got {block.largest:.3g}"
            )
        gaps = block.values - self.centre
        squared = gaps**2
        lengths = squared.reshape(len(gaps), self.squares.shape[1], -1).sum(axis=2)
        added = [gaps.sum(axis=0), squared.sum(axis=0), np.abs(block.values).sum(axis=0)]
        total, maximum = self.squares
        return Stream(
            self.intervals.updated(block.functionals),
            self.centre,
            self.sums + np.stack(added),
            np.stack([total + lengths.sum(axis=0), np.maximum(maximum, lengths.max(axis=0))]),
            max(self.largest, block.largest),
            self.count + len(block.values),
            generator,
        )

    @property
    def largest_share(self) -> float:
        """The largest share of one estimate in the sum of squared distances to the centre, in any
        part that varies by more than the rounding of its mean.
        """
        total, maximum = self.squares
        size = max(float(total.max()), self.count * float(self.centre @ self.centre))
        varies = total > _ROUNDING**2 * size
        return float((maximum[varies] / total[varies]).max(initial=0.0))

    def moments(self, shape: tuple[int, ...]) -> Moments:
        """The mean and variance of one estimate of that ``shape``."""
        n = max(self.count, 1)
        shift = self.sums[0] / n
        variance = np.maximum(self.sums[1] / n - shift**2, 0.0) * n / max(n - 1, 1)
        absolute = float(np.linalg.norm(self.sums[2])) / n
        mean = (self.centre + shift).reshape(shape)
        return Moments(mean, variance.reshape(shape), absolute, self.count, self.largest, None)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The stream as arrays, but for the generator's state."""
        arrays = {"centre": self.centre, "moments": self.sums, "squares": self.squares}
        numbers = {"largest": np.array(self.largest), "estimates": np.array(self.count)}
        inner = {f"sequence_{name}": a for name, a in self.intervals.arrays().items()}
        return arrays | numbers | inner

    def restored(self, arrays: dict[str, npt.NDArray[Any]], generator: dict[str, Any]) -> Stream:
        """The stream with these ``arrays``."""
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
    """Estimates ``values [B, D]``, their ``functionals [B, F]``, and the largest number in them."""

    values: FloatArray
    functionals: FloatArray
    largest: float


@dataclass(frozen=True, eq=False)
class Run:
    """How a stream is continued: ``take(count)`` gives blocks of at most ``block`` estimates, drawn
    with ``rng``, up to ``limit`` estimates in all, unless ``decided(stream)`` says at some look
    that no more are needed. ``save(stream)`` writes a checkpoint.
    """

    take: Callable[[int], SampledBlock]
    rng: np.random.Generator
    limit: int
    block: int
    decided: Callable[[Stream], bool]
    save: Callable[[Stream], None] | None = None
    progress: Progress | None = None

    def advanced(self, stream: Stream) -> tuple[Stream, Stopped]:
        """The last stream, and why it is the last."""
        stopped = Stopped.BUDGET
        saved = time.monotonic()
        try:
            while True:
                if self._is_look(stream.count) and self.decided(stream):
                    stopped = Stopped.DECIDED
                    break
                if stream.count >= self.limit:
                    break
                stream = self._next(stream)
                if self.save is None or time.monotonic() - saved > _SAVED_EVERY:
                    self._tell(stream)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            stopped = Stopped.INTERRUPTED
        self._tell(stream)
        return stream, stopped

    def _is_look(self, count: int) -> bool:
        """Whether to look now; by the count alone, so that a resumed run looks likewise."""
        if count == 0 or count >= self.limit:
            return count > 0
        before = max(count - self.block, 1)
        return int(math.log(count, LOOKS)) != int(math.log(before, LOOKS))

    def _next(self, stream: Stream) -> Stream:
        block = self.take(min(self.block, self.limit - stream.count))
        return stream.updated(block, generator_state(self.rng))

    def _tell(self, stream: Stream) -> None:
        """Saves, and only then reports progress: what was reported is in the checkpoint."""
        if self.save is not None:
            self.save(stream)
        if self.progress is not None:
            self.progress(stream.count, self.limit)


def with_generator(stream: Stream, rng: np.random.Generator) -> Stream:
    """The stream with the present state of the generator."""
    return replace(stream, generator=generator_state(rng))
