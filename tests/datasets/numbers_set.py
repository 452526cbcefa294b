"""A data set of numbers, and bytes as tokens: the smallest real parts a loader can be made of."""

from __future__ import annotations

import random

import torch

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.batch import IGNORE, Example
from minigpt4o.conversation.sample import Sample, Turn
from minigpt4o.datasets.loader import TrainLoader


class Numbers:
    """A data set of numbers; those in `bad` cannot be used. `lengths` and `kinds` are told for grouping."""

    def __init__(self, count, name="n", bad=(), lengths=None, kinds=("",)):
        self.count, self.name, self.bad = count, name, set(bad)
        self.lengths, self.kinds = lengths, kinds
        self.ids = [f"{name}{i}" for i in range(count)]

    def __len__(self):
        return self.count

    def size_hint(self, index):
        return self.lengths[index] if self.lengths else len(str(index))

    def modality(self, index):
        return self.kinds[index % len(self.kinds)]

    def sample(self, index, rng):
        if index in self.bad:
            raise SkipSample("bad_text", f"row {index} is empty")
        turns = [Turn("user", f"{index}?"), Turn("assistant", str(rng.randrange(10**6)))]
        return Sample(self.ids[index], turns, dataset=self.name, where=f"row {index}")


class Bytes:
    """Bytes as tokens; the answer is learned."""

    def example(self, sample, rng):
        said = list("".join(turn.text for turn in sample.turns[:-1]).encode())
        answer = list(sample.turns[-1].text.encode())
        labels = [IGNORE] * len(said) + answer
        return Example(torch.tensor(said + answer), torch.tensor(labels), [], [], sample)

    def prompt(self, sample, rng):
        raise NotImplementedError


def loader(sets, ratios=None, **values):
    values = {"seed": 0, "batch_size": 6, "max_bad_fraction": 1.0} | values
    return TrainLoader(sets, ratios or dict.fromkeys(sets, 1), {name: Bytes() for name in sets}, **values)


def take(batches, count):
    """What `count` batches hold: ids and tokens, so that what was drawn is compared too; fillers are left out."""
    found = []
    for batch in batches:
        real = len(batch) - batch.fillers
        rows = [ids[mask.bool()].tolist() for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
        found.append([(s.id, row) for s, row in zip(batch.samples[:real], rows[:real], strict=True)])
        if len(found) == count:
            return found
    raise AssertionError("the loader ended")


def ids_of(found):
    return [name for batch in found for name, _ in batch]


def shuffled(count, seed=0):
    return random.Random(seed).sample(range(count), count)
