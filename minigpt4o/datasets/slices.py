"""Which positions a rank takes of each global batch: the one thing about order that knows ranks and batch sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Slices:
    """Sampler: this rank's positions of each micro-batch, without end, from `position` on.

    It must not know the loader: in a circle of references workers are told too late to end, and each takes 5 seconds.
    """

    position: int  # the next sample of the whole run
    size: int  # rows of this rank's micro-batch
    rank: int
    world_size: int
    epoch: int = 0  # samples of an exact epoch, whose last step is filled up; 0 = positions go on without a border
    global_batch: int = 0  # rows of an optimizer step over all ranks and micro-batches; 0 = one micro-batch

    @property
    def step(self) -> int:
        """Rows of a micro-batch over all ranks."""
        return self.size * self.world_size

    def spans(self) -> Iterator[tuple[int, int]]:
        """(first, end) of the positions that each micro-batch takes over all ranks; at an epoch's end perhaps none.

        Every rank takes part in every micro-batch of the step that ends an epoch, or the others would wait for it.
        """
        position = self.position
        while not self.epoch:
            yield position, position + self.step
            position += self.step
        whole = self.global_batch or self.step
        while True:
            end = (position // self.epoch + 1) * self.epoch
            for first in range(position, position + -(-(end - position) // whole) * whole, self.step):
                yield min(first, end), min(first + self.step, end)
            position = end

    def __iter__(self) -> Iterator[list[int]]:
        """Positions; `~p` is a row that only fills the batch up and weighs nothing (p, the last of its epoch)."""
        for first, end in self.spans():
            start = first + self.rank * self.size
            yield [p if p < end else ~(end - 1) for p in range(start, start + self.size)]
