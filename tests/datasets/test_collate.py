"""Padding on either side, media in row order, and a clear word when media do not have one shape."""

import pytest
import torch

from minigpt4o.common.errors import DataError
from minigpt4o.conversation.batch import IGNORE, Example
from minigpt4o.conversation.sample import Sample
from minigpt4o.datasets.collate import collate


def example(ids, images=(), audios=(), name="x", learned=1):
    ids = torch.tensor(ids)
    labels = ids.clone()
    labels[: len(ids) - learned] = IGNORE
    return Example(ids, labels, list(images), list(audios), Sample(name, [], dataset="d"))


def test_rows_are_padded_on_the_right_for_learning():
    batch = collate([example([5, 6, 7]), example([8])], pad_id=0)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [[IGNORE, IGNORE, 7], [8, IGNORE, IGNORE]]
    assert batch.images is None
    assert batch.audios is None
    assert len(batch) == 2


def test_rows_are_padded_on_the_left_for_generation():
    batch = collate([example([5, 6, 7]), example([8])], pad_id=9, side="left")
    assert batch.input_ids.tolist() == [[5, 6, 7], [9, 9, 8]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert batch.labels[1].tolist() == [IGNORE, IGNORE, 8]


def test_a_pad_id_that_is_also_a_real_token_does_not_hide_the_real_one():
    batch = collate([example([0, 0]), example([0])], pad_id=0)
    assert batch.attention_mask.tolist() == [[1, 1], [1, 0]]


def test_media_stand_in_row_order_and_counts_travel():
    images = [torch.full((3, 2, 2), float(i)) for i in range(3)]
    first, second = example([1], images[:1]), example([2], images[1:], [torch.ones(4, 5)])
    first.skipped, second.truncated = [("bad_text", "row 3")], 2
    batch = collate([first, second], pad_id=0)
    assert batch.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert batch.audios.shape == (1, 4, 5)
    assert batch.skipped == [("bad_text", "row 3")]
    assert batch.truncated == 2
    assert [s.id for s in batch.samples] == ["x", "x"]


def test_media_of_two_shapes_name_both_samples_and_the_mend():
    rows = [example([1], [torch.zeros(3, 4, 4)], name="one"), example([2], [torch.zeros(3, 8, 8)], name="two")]
    with pytest.raises(DataError, match=r"(?s)\(3, 4, 4\).*'one'.*\(3, 8, 8\).*'two'.*vis_processor"):
        collate(rows, pad_id=0)


def test_pictures_that_come_as_bytes_stay_bytes():
    pictures = [torch.full((3, 2, 2), i, dtype=torch.uint8) for i in (7, 255)]
    batch = collate([example([1], pictures[:1]), example([2], pictures[1:])], pad_id=0)
    assert batch.images.dtype == torch.uint8
    assert batch.images[:, 0, 0, 0].tolist() == [7, 255]
    assert batch.to("cpu").images.dtype == torch.uint8


def test_bytes_and_numbers_in_one_batch_name_both_samples():
    rows = [example([1], [torch.zeros(3, 2, 2)], name="one"), example([2], [torch.zeros(3, 2, 2).byte()], name="two")]
    with pytest.raises(DataError, match=r"(?s)float32.*'one'.*uint8.*'two'.*vis_processor"):
        collate(rows, pad_id=0)
