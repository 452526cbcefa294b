"""Put examples of different lengths into one batch: on the right for learning, on the left for generation."""

from __future__ import annotations

from typing import Literal

import torch

from minigpt4o.common.errors import DataError
from minigpt4o.conversation.batch import IGNORE, Batch, Example


def collate(examples: list[Example], pad_id: int, side: Literal["right", "left"] = "right") -> Batch:
    """One batch of the examples, in order. Raises DataError if their media do not have one shape."""
    assert examples, "a batch needs at least one example"
    longest = _width(examples)
    shape = (len(examples), longest)
    input_ids = torch.full(shape, pad_id, dtype=torch.int64)
    labels = torch.full(shape, IGNORE, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        place = slice(0, length) if side == "right" else slice(longest - length, longest)
        input_ids[row, place] = example.input_ids
        labels[row, place] = example.labels
        attention_mask[row, place] = 1
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        labels=labels,
        images=_stack(examples, "images", "vis_processor"),
        audios=_stack(examples, "audios", "audio_processor"),
        samples=[e.sample for e in examples],
        skipped=[skip for e in examples for skip in e.skipped],
        truncated=sum(e.truncated for e in examples),
    )


def _width(examples: list[Example]) -> int:
    """Places of the longest row. The reference pads contexts and answers apart, which may add empty columns."""
    if all(e.context for e in examples):
        return max(e.context for e in examples) + max(len(e.input_ids) - e.context for e in examples)
    return max(len(e.input_ids) for e in examples)


def _stack(examples: list[Example], what: str, processor: str) -> torch.Tensor | None:
    """All media of one kind in row order, or None if there are none."""
    found = [(e.sample, medium) for e in examples for medium in getattr(e, what)]
    if not found:
        return None
    first_sample, first = found[0]
    for sample, medium in found:
        if medium.shape != first.shape:
            raise DataError(
                f"{what} of one batch differ in shape: {tuple(first.shape)} in sample {first_sample.id!r} of "
                f"{first_sample.dataset or 'its data set'}, {tuple(medium.shape)} in sample {sample.id!r} of "
                f"{sample.dataset or 'its data set'}; give all data sets that are mixed the same {processor} size"
            )
    return torch.stack([medium for _, medium in found])
