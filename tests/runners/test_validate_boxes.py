"""The probe's answers stand in the frame of the pictures as the data set has them, as their truths do."""

import json

import torch

from minigpt4o.conversation.batch import Example
from minigpt4o.conversation.sample import Box, Sample, Turn
from minigpt4o.processors.geometry import padded
from minigpt4o.runners.validate import _row


def test_an_answered_box_of_a_padded_picture_is_compared_with_the_true_one() -> None:
    box = Box((8, 4, 40, 20), (80, 40))
    turns = [Turn("user", "<image>where is it?"), Turn("assistant", "{<10><10><50><50>}")]
    nothing = torch.zeros(0, dtype=torch.int64)
    sample = Sample("a", turns, boxes=[box], dataset="refer")
    row = json.loads(_row(Example(nothing, nothing, [], [], sample), "{<10><30><50><50>}"))
    assert row["answer"] == "{<10><30><50><50>}"  # the whole picture was shown
    shown = Example(nothing, nothing, [], [], sample, frame=padded((80, 40), (80, 80), (0, 20)))
    row = json.loads(_row(shown, "{<10><30><50><50>}"))
    assert row["truth"] == [row["answer"]] == ["{<10><10><50><50>}"]
