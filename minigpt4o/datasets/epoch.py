"""Exact epochs: an order in which every sample of every data set comes once before any comes again."""

from __future__ import annotations

from collections.abc import Callable

from minigpt4o.datasets.order import MixtureSchedule, Place, permute

BLOCK = 4096  # samples, about, inside which the data sets are mixed


class EpochSchedule:
    """Position -> sample; an epoch is all samples of all data sets, whatever their ratios (0 leaves a set out).

    An epoch is cut into blocks of about 4096 positions. Each holds every data set in proportion to its size, to the
    nearest whole sample: of n samples block k of K holds those from `k * n // K` up to `(k + 1) * n // K` in the set's
    own order. So no position has to be counted up to.
    """

    def __init__(self, mixture: MixtureSchedule) -> None:
        self.seed, self._mixture = mixture.seed, mixture
        self.sizes = {name: mixture.sizes[name] for name in mixture.shares}
        self.shares = dict(self.sizes)
        self.samples = sum(self.sizes.values())  # of an epoch
        self._blocks = -(-self.samples // BLOCK)
        self._held: tuple[tuple[int, int], Callable[[int], int]] = ((-1, -1), lambda i: i)

    def at(self, position: int) -> Place:
        """The sample at a position; positions have no end."""
        epoch, inside = divmod(position, self.samples)
        block = self._block_of(inside)
        slot = inside - self._start(block)
        if len(self.sizes) > 1:  # the order of a single set is mixed already
            slot = self._shuffled(epoch, block)(slot)
        for name, size in self.sizes.items():
            first, last = block * size // self._blocks, (block + 1) * size // self._blocks
            if slot < last - first:
                return Place(name, epoch, first + slot, self.index(name, epoch, first + slot))
            slot -= last - first
        raise AssertionError("the parts do not add up to the block")

    def index(self, name: str, epoch: int, turn: int) -> int:
        """Index of the sample that data set `name` gives as its `turn`-th of pass `epoch`."""
        return self._mixture.index(name, epoch, turn)

    def _start(self, block: int) -> int:
        return sum(block * size // self._blocks for size in self.sizes.values())

    def _block_of(self, inside: int) -> int:
        block = min(inside * self._blocks // self.samples, self._blocks - 1)
        while block + 1 < self._blocks and self._start(block + 1) <= inside:  # starts are rounded down
            block += 1
        return block

    def _shuffled(self, epoch: int, block: int) -> Callable[[int], int]:
        if self._held[0] != (epoch, block):
            length = self._start(block + 1) - self._start(block)
            self._held = (epoch, block), permute(f"{self.seed}/epoch/{epoch}", block, length)
        return self._held[1]
