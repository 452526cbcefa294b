"""Shuffle the samples of many shards so that only a few shards are needed at a time; a pure function of the turn."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from minigpt4o.datasets.order import permute

SLOTS_KEPT = 4  # workers ask for turns that are not far apart
AHEAD = 2  # shards told before they are needed


@dataclass(frozen=True, slots=True)
class _Slot:
    """Some slices of shards that are shuffled together; W of them."""

    begin: int  # turns
    end: int
    ends: list[int]  # (W,) cumulated sizes of the slices
    skipped: list[int]  # (W,) samples of the shard in earlier slices
    shuffle: Callable[[int], int]  # of the slot
    inside: list[Callable[[int], int]]  # (W,) of each shard
    first: list[int]  # (W,) index of each shard's first sample


class WindowOrder:
    """A shuffled order of samples in shards that needs `window` of S shards at a time.

    Shards come in a new order each epoch. Each is divided into `window` slices; slot t of S takes one slice of each of
    `window` shards that follow each other (in a ring) and shuffles them. So from slot to slot one shard leaves and one
    comes: while one shard's worth of samples goes by, at most `window` + 1 shards are touched, and every sample comes
    once. Memory: some numbers for each shard. With no more shards than `window` it is one shuffle of all samples.
    """

    def __init__(
        self,
        seed: object,
        epoch: int,
        counts: Sequence[int],
        window: int,
        coming: Callable[[list[int]], None] = lambda shards: None,
    ) -> None:
        """`counts`: samples of each shard, in the order of their indices; `coming` is told which shards are next."""
        if window < 1:
            raise ValueError(f"a window holds at least one shard, not {window}")
        sizes = np.asarray(counts, np.int64)
        self._seed, self._epoch, self._coming, self._window = seed, epoch, coming, window
        self.size = int(sizes.sum())
        filled = np.flatnonzero(sizes)
        self._whole = permute(seed, epoch, self.size) if len(filled) <= window else None
        if self._whole is not None:
            return
        chosen = permute(f"{seed}/shards", epoch, len(filled))
        self._shards = filled[[chosen(i) for i in range(len(filled))]]  # (S,) in the order in which they come
        self._sizes = sizes[self._shards]
        self._first = (np.cumsum(sizes) - sizes)[self._shards]  # index of each one's first sample
        ends = np.zeros(len(filled), np.int64)
        for j in range(window):  # slice j of shard p comes in slot p + j
            ends += np.roll(self._sizes * (j + 1) // window - self._sizes * j // window, j)
        self._ends = np.cumsum(ends)  # (S,) turn at which each slot ends
        self._slots: dict[int, _Slot] = {}
        self._now = _Slot(0, 0, [], [], permute(0, 0, 1), [], [])

    def __call__(self, turn: int) -> int:
        """Index of the sample that comes as the `turn`-th of this epoch."""
        if self._whole is not None:
            return self._whole(turn)
        if not self._now.begin <= turn < self._now.end:
            self._now = self._enter(turn)
        slot = self._now
        place = slot.shuffle(turn - slot.begin)
        j = bisect_right(slot.ends, place)
        before = slot.ends[j - 1] if j else 0
        return slot.first[j] + slot.inside[j](slot.skipped[j] + place - before)

    def _enter(self, turn: int) -> _Slot:
        if not 0 <= turn < self.size:
            raise IndexError(f"{turn} is outside range({self.size})")
        number = int(np.searchsorted(self._ends, turn, side="right"))
        slot = self._slots.get(number)
        if slot is None:
            if len(self._slots) >= SLOTS_KEPT:
                self._slots.pop(next(iter(self._slots)))
            slot = self._slots[number] = self._slot(number)
            count = len(self._shards)
            self._coming([int(self._shards[(number + ahead) % count]) for ahead in range(1, AHEAD + 1)])
        return slot

    def _slot(self, number: int) -> _Slot:
        window = self._window
        places = [(number - j) % len(self._shards) for j in range(window)]
        sizes = self._sizes[places].tolist()
        skipped = [size * j // window for j, size in enumerate(sizes)]
        ends = list(accumulate(size * (j + 1) // window - skipped[j] for j, size in enumerate(sizes)))
        inside = [
            permute(f"{self._seed}/shard {shard}", self._epoch, size)
            for shard, size in zip(self._shards[places].tolist(), sizes, strict=True)
        ]
        end = int(self._ends[number])
        shuffle = permute(f"{self._seed}/slot {number}", self._epoch, max(ends[-1], 1))
        return _Slot(end - ends[-1], end, ends, skipped, shuffle, inside, self._first[places].tolist())


def shard_order(
    seed: object, epoch: int, counts: Sequence[int], window: int, coming: Callable[[list[int]], None]
) -> Callable[[int], int]:
    """The order of a window of shards, or with `window` 0 the one in which they lie."""
    if window:
        return WindowOrder(seed, epoch, counts, window, coming)
    ends = np.cumsum(counts)
    entered = -1

    def at(turn: int) -> int:
        nonlocal entered
        if not 0 <= turn < ends[-1]:
            raise IndexError(f"{turn} is outside range({ends[-1]})")
        number = int(np.searchsorted(ends, turn, side="right"))
        if number != entered:
            entered = number
            coming([shard for shard in range(number + 1, number + 1 + AHEAD) if shard < len(ends)])
        return turn

    return at
