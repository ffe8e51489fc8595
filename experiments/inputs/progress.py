"""The progress of long work: a bar on a terminal, or an occasional line in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def shown_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function ``(done, total)`` that shows progress on standard error once work takes long."""
    began = last = time.monotonic()
    if sys.stderr.isatty():
        from tqdm.auto import tqdm

        with tqdm(desc=what, delay=1.0, leave=False, file=sys.stderr, unit="outcomes") as bar:

            def advance(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield advance
        return

    def write_line(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            print(f"{what}: {done:,} of {total:,} ({now - began:.0f} s)", file=sys.stderr)

    yield write_line
