"""Look at every sample of a builder, in worker processes, and hand the findings over in order."""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.conversation.sample import Sample
from minigpt4o.datasets.base import Builder

T = TypeVar("T")
CHUNK = 64  # samples that a worker takes at once
AHEAD = 4  # chunks for each worker that may wait to be collected, which bounds the memory
Look = Callable[[Builder, int], T]

_given: tuple[Builder, Look[Any]] | None = None  # of this worker process


def walk(builder: Builder, indices: Sequence[int], look: Look[T], workers: int) -> Iterator[T]:
    """`look(builder, index)` for all indices, in their order; memory does not grow with their number.

    `look` must be picklable. Raises DataError when a worker process dies.
    """
    if workers < 1 or len(indices) <= CHUNK:
        for index in indices:
            yield look(builder, index)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(builder, look)) as pool:
        waiting: deque[tuple[int, Future[list[T]]]] = deque()
        for start in range(0, len(indices), CHUNK):
            waiting.append((start, pool.submit(_look_at, list(indices[start : start + CHUNK]))))
            if len(waiting) >= AHEAD * workers:
                yield from _collected(*waiting.popleft(), indices)
        while waiting:
            yield from _collected(*waiting.popleft(), indices)


def _collected(start: int, future: Future[list[T]], indices: Sequence[int]) -> list[T]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        last = indices[min(start + CHUNK, len(indices)) - 1]
        raise DataError(
            f"a worker process died near samples {indices[start]} to {last} (out of memory, or a decoder crashed); "
            "add --workers 0 to see where"
        ) from error


def _start(builder: Builder, look: Look[Any]) -> None:
    global _given
    _given = builder, look
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _look_at(indices: list[int]) -> list[Any]:
    assert _given is not None
    builder, look = _given
    return [look(builder, index) for index in indices]


def drawn(builder: Builder, index: int) -> Sample | SkipSample:
    """A sample, always the same for the same index; or why it cannot be used."""
    try:
        found: Sample = builder.sample(index, random.Random(index))
        return found
    except SkipSample as skip:
        return skip
    except FileNotFoundError as error:
        return SkipSample("missing_file", str(error))
    except OSError as error:
        return SkipSample("read_error", str(error))


def spread(count: int, limit: int) -> Sequence[int]:
    """All indices below `count`, or `limit` of them evenly spread; 0 = no limit."""
    return range(count) if not 0 < limit < count else [i * count // limit for i in range(limit)]
