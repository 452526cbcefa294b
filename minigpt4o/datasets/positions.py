"""What a loader's worker does: positions become a batch, and for a bad sample the next of its pass stands in."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch.utils.data import Dataset

from minigpt4o.common.errors import DataError
from minigpt4o.conversation.batch import IGNORE, Example
from minigpt4o.conversation.sample import Sample
from minigpt4o.datasets.bad import BadSample, attempt
from minigpt4o.datasets.base import Builder
from minigpt4o.datasets.collate import collate
from minigpt4o.datasets.grouping import Grouping, Schedule
from minigpt4o.datasets.order import Place, derive
from minigpt4o.datasets.workers import Made

IN_A_ROW = 100  # bad samples one after the other in one data set: it is not a few bad ones, it is the data set
FILLER = "(filler)"  # id of a row that weighs nothing


class Encoder(Protocol):
    """Sample -> Example; `minigpt4o.conversation.encode.SampleEncoder` is one."""

    def example(self, sample: Sample, rng: random.Random) -> Example: ...

    def prompt(self, sample: Sample, rng: random.Random) -> Example: ...


class Positions(Dataset):
    """Lists of positions -> batches; lives in the workers."""

    def __init__(
        self,
        builders: Mapping[str, Builder],
        encoders: Mapping[str, Encoder],
        schedule: Schedule,
        pad_id: int,
    ) -> None:
        self.builders, self.encoders = dict(builders), dict(encoders)
        self.schedule, self.pad_id = schedule, pad_id
        self.grouping: Grouping | None = None

    def __getitems__(self, positions: Sequence[int]) -> Made:
        bad: list[BadSample] = []
        try:
            examples = [self._example(position, bad) for position in positions if position >= 0]
            fillers = [position for position in positions if position < 0]
            if fillers:
                examples += [self._filler(~fillers[0])] * len(fillers)
            batch = collate(examples, self.pad_id, "right")
            batch.fillers = len(fillers)
            return batch, bad
        except DataError as error:
            return error, bad

    def __getitem__(self, position: int) -> Made:
        return self.__getitems__([position])

    def _example(self, slot: int, bad: list[BadSample]) -> Example:
        """The example of a slot; if its sample is bad, the next in the order of the same pass stands in.

        What it draws depends on its position alone, so that grouping changes the company it comes in and nothing else.
        """
        position = slot if self.grouping is None else self.grouping.position(slot)
        place = self.schedule.at(position)
        failed: list[BadSample] = []
        limit = min(IN_A_ROW, self.schedule.sizes[place.dataset])
        for number in range(limit):
            index = self._index(place, number)
            seed = derive(self.schedule.seed, "sample", position, number)
            result = attempt(self.builders[place.dataset], index, seed, self.encoders[place.dataset].example)
            if isinstance(result, Example):
                result.skipped = [*result.skipped, *((b.reason, str(b)) for b in failed)]
                return result
            failed.append(BadSample(place.dataset, index, slot, *result))
            bad.append(failed[-1])
        told = "\n".join(f"  {b}" for b in failed[:3])
        raise DataError(
            f"datasets.{place.dataset}: {limit} samples in a row cannot be used, the last place tried is position "
            f"{slot}. The first three:\n{told}\nmend the files or the configuration of this data set"
        )

    def _index(self, place: Place, number: int) -> int:
        turn = (place.turn + number) % self.schedule.sizes[place.dataset]
        return self.schedule.index(place.dataset, place.epoch, turn)

    def _filler(self, slot: int) -> Example:
        """A row for the last, short batch of an exact epoch: a sample of that epoch of which nothing is learned."""
        example = self._example(slot, [])
        sample = replace(example.sample, id=FILLER, dataset="")
        labels = torch.full_like(example.labels, IGNORE)
        return replace(example, labels=labels, sample=sample, skipped=[], truncated=0, facts={})
