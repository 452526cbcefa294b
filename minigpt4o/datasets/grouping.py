"""Batches of samples alike in media and length: another order of the same positions, as fixed as the one it is of."""

# A window is a stretch of positions that is sorted; a chunk is the share of it that one optimizer step takes.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from minigpt4o.common.errors import SkipSample
from minigpt4o.datasets.order import Place, derive, permute

CHUNKS = 64  # of a window, if nobody names its size
FEWEST = 4096  # samples of such a window at least: fewer are not alike enough
_GOLDEN, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1  # multiples of the golden ratio's fraction spread evenly


class Schedule(Protocol):
    """Position -> sample."""

    seed: int
    sizes: dict[str, int]
    shares: dict[str, int]

    def at(self, position: int) -> Place: ...

    def index(self, name: str, epoch: int, turn: int) -> int: ...


def window_of(wanted: int, chunk: int) -> int:
    """Samples of a window: the number wanted (0 = 64 chunks, at least 4096), rounded up to whole chunks."""
    wanted = wanted or max(CHUNKS * chunk, FEWEST)
    return -(-wanted // chunk) * chunk


def kind_and_size(builder: Any, index: int) -> tuple[str, int]:
    """(media, length) as the builder tells them without opening anything; ("", 0) if it does not."""
    try:
        kind = builder.modality(index) if hasattr(builder, "modality") else ""
        return str(kind), int(builder.size_hint(index)) if hasattr(builder, "size_hint") else 0
    except SkipSample:
        return "", 0  # it will be counted when its turn comes


class Grouping:
    """Slot of the run -> position of the schedule: a permutation inside each window, a function of (seed, window).

    The samples of a window are sorted by media and length, cut into chunks, the chunks shuffled. Inside a chunk they
    are laid so that any stretch of it holds short and long ones alike: whatever the number of ranks and micro-batches,
    each gets an equal share of the work.
    """

    def __init__(
        self, schedule: Schedule, builders: Mapping[str, Any], *, chunk: int, window: int, epoch: int = 0
    ) -> None:
        """With `epoch` (its number of positions) no window reaches into the next one."""
        assert window % chunk == 0, f"a window of {window} does not hold whole chunks of {chunk}"
        self.schedule, self.builders = schedule, dict(builders)
        self.chunk, self.window, self.epoch = chunk, window, epoch
        self._held: dict[tuple[int, int], list[int]] = {}

    def position(self, slot: int) -> int:
        """Where in the schedule the sample of this slot stands."""
        epoch, inside = divmod(slot, self.epoch) if self.epoch else (0, slot)
        number, offset = divmod(inside, self.window)
        first = slot - offset
        if (epoch, number) not in self._held:
            if len(self._held) > 1:
                self._held.clear()
            length = min(self.window, (epoch + 1) * self.epoch - first) if self.epoch else self.window
            self._held[epoch, number] = self._order(first, length)
        return first + self._held[epoch, number][offset]

    def _order(self, first: int, length: int) -> list[int]:
        found = []
        for position in range(first, first + length):
            place = self.schedule.at(position)
            found.append(kind_and_size(self.builders[place.dataset], place.index))
        return grouped(found, self.chunk, f"{self.schedule.seed}/group/{first}")


def grouped(samples: Sequence[tuple[str, int]], chunk: int, seed: str) -> list[int]:
    """The order in which samples, each given as (media, length), are taken: chunks of like ones. Pure.

    A chunk holds two kinds of media only where one kind ends. Lengths rise with one kind and fall with the next, so
    that these chunks hold samples of like length, too. What fills no chunk comes last.
    """
    line: list[int] = []
    for number, kind in enumerate(sorted({kind for kind, _ in samples})):
        members = [i for i, (own, _) in enumerate(samples) if own == kind]
        line += sorted(members, key=lambda i: samples[i][1], reverse=bool(number % 2))
    full = len(line) // chunk
    chunks = [line[i * chunk : (i + 1) * chunk] for i in range(full)]
    if full:
        shuffled = permute(seed, 0, full)
        chunks = [chunks[shuffled(i)] for i in range(full)]
    chunks.append(line[full * chunk :])
    return [i for number, part in enumerate(chunks) for i in spread(part, derive(seed, number))]


def spread(ordered: Sequence[int], start: int) -> list[int]:
    """The same elements, laid so that every stretch of the answer holds low and high ones alike.

    Place j gets the element whose rank is that of the fraction of `start + j` times the golden ratio.
    """
    places = sorted(range(len(ordered)), key=lambda j: (start + j * _GOLDEN) & _MASK)
    found = [0] * len(ordered)
    for element, place in zip(ordered, places, strict=True):
        found[place] = element
    return found
