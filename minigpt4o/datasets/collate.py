"""Put examples of different lengths into one batch: on the right for learning, on the left for generation."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch.utils.data import default_collate

from minigpt4o.common.errors import DataError
from minigpt4o.conversation.batch import IGNORE, Batch, Example


def collate(examples: list[Example], pad_id: int, side: Literal["right", "left"] = "right") -> Batch:
    """One batch of the examples, in order. Raises DataError if their media do not have one shape."""
    assert examples, "a batch needs at least one example"
    longest = _width(examples)
    shape = (len(examples), longest)
    input_ids = np.full(shape, pad_id, np.int64)  # numpy: torch takes five times as long for each small piece
    labels = np.full(shape, IGNORE, np.int64)
    attention_mask = np.zeros(shape, np.int64)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        place = slice(0, length) if side == "right" else slice(longest - length, longest)
        input_ids[row, place] = example.input_ids.numpy()
        labels[row, place] = example.labels.numpy()
        attention_mask[row, place] = 1
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(attention_mask),
        labels=torch.from_numpy(labels),
        images=_stack(examples, "images", "vis_processor"),
        audios=_stack(examples, "audios", "audio_processor"),
        samples=[e.sample for e in examples],
        skipped=[skip for e in examples for skip in e.skipped],
        truncated=sum(e.truncated for e in examples),
        facts=_facts(examples),
    )


def _facts(examples: list[Example]) -> dict[str, dict[str, float]]:
    """Data set -> the sums of what was noted of its examples."""
    found: dict[str, dict[str, float]] = {}
    for example in examples:
        for fact, value in example.facts.items():
            sums = found.setdefault(example.sample.dataset, {})
            sums[fact] = sums.get(fact, 0) + value
    return found


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
        if medium.shape != first.shape or medium.dtype != first.dtype:  # stacked, bytes would be taken for numbers
            raise DataError(
                f"{what} of one batch differ in shape: {_form(first)} in sample {first_sample.id!r} of "
                f"{first_sample.dataset or 'its data set'}, {_form(medium)} in sample {sample.id!r} of "
                f"{sample.dataset or 'its data set'}; give all data sets that are mixed the same {processor} size"
            )
    # In a worker it stacks right into memory that the processes share, so that nothing is copied twice.
    stacked: torch.Tensor = default_collate([medium for _, medium in found])
    return stacked


def _form(medium: torch.Tensor) -> str:
    return f"{tuple(medium.shape)} {str(medium.dtype).removeprefix('torch.')}"
