"""Boxes as text: what is written can be read, what is not a box is refused by name."""

import copy
import json
import os
import random
from pathlib import Path

import pytest

from minigpt4o.conversation.boxes import BoxError, box_text, parse_boxes, to_pixels
from minigpt4o.conversation.sample import Box

SHARED = Path(os.environ.get("MINIGPT4O_TEST_DATA", "../shared/data")) / "refcoco/refcoco_dev60.json"


def box_of(xywh, size):
    x, y, w, h = xywh
    return Box((x, y, x + w, y + h), size)


# (x, y, w, h), (W, H), text as MiniGPT-v2 writes it
REFERENCE = [
    ((285.04, 23.29, 139.74, 123.11), (640, 427), "{<44><5><66><34>}"),
    ((0, 0, 640, 427), (640, 427), "{<0><0><100><100>}"),
    ((3.24, 159.31, 156.4, 312.81), (640, 480), "{<0><33><24><98>}"),
    ((-3.0, 5, 10, 10), (500, 400), "{<0><1><1><3>}"),
    ((639, 426, 1, 1), (640, 427), "{<99><99><100><100>}"),
]


@pytest.mark.parametrize(("xywh", "size", "text"), REFERENCE)
def test_truncated_text_is_that_of_the_reference(xywh, size, text):
    assert box_text(box_of(xywh, size), "truncate") == text


def test_rounding_is_nearer_to_the_truth_than_truncation():
    box = box_of((285.04, 23.29, 139.74, 123.11), (640, 427))
    assert box_text(box) == "{<45><5><66><34>}"
    for x in (0.004, 0.005, 0.996):
        near = Box((x, 0, 1, 1), (1, 1))
        assert abs(parse_boxes(box_text(near))[0][0] / 100 - x) <= 0.005


def test_what_leaves_the_picture_is_cut_off():
    assert box_text(Box((-50, -1, 700, 500), (640, 427))) == "{<0><0><100><100>}"
    assert box_text(Box((-50, -1, 700, 500), (640, 427)), "truncate") == "{<0><0><100><100>}"


def test_every_box_of_the_grid_survives_a_round_trip():
    for size in ((640, 427), (64, 64), (333, 1000)):
        for grid in ((0, 0, 100, 100), (1, 2, 3, 4), (7, 7, 7, 7), (33, 66, 99, 100)):
            assert parse_boxes(box_text(to_pixels(grid, size))) == [grid]


def test_boxes_are_found_in_a_sentence_in_order():
    text = "<p>a dog</p> {<1><2><3><4>}<delim>{ <10> <20> <30> <40> } and no more"
    assert parse_boxes(text) == [(1, 2, 3, 4), (10, 20, 30, 40)]
    assert to_pixels((10, 20, 30, 40), (200, 100), "dog", 1) == Box((20, 20, 60, 40), (200, 100), "dog", 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "none"),
        ("on the left", "none"),
        ("<1><2><3><4>", "none"),
        ("{}", "malformed"),
        ("{<1><2><3>}", "malformed"),
        ("{<1><2><3><4><5>}", "malformed"),
        ("{<1><-2><3><4>}", "malformed"),
        ("{<1.5><2><3><4>}", "malformed"),
        ("{<1><2><3><4>} {<a><b><c><d>}", "malformed"),
        ("{<0><0><101><100>}", "range"),
        ("{<50><0><40><100>}", "inverted"),
        ("{<0><50><40><20>}", "inverted"),
    ],
)
def test_what_is_no_box_is_refused_by_name(text, reason):
    with pytest.raises(BoxError) as caught:
        parse_boxes(text)
    assert caught.value.reason == reason
    assert copy.copy(caught.value).reason == reason  # by the way errors are pickled between processes


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (Box((0, 0, 1, 1), (0, 10)), "range"),
        (Box((0, 0, float("nan"), 1), (10, 10)), "range"),
        (Box((5, 0, 1, 1), (10, 10)), "inverted"),
    ],
)
def test_a_box_that_cannot_be_written_is_refused(box, reason):
    with pytest.raises(BoxError) as caught:
        box_text(box)
    assert caught.value.reason == reason


def overlap(a, b):
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return wide * high / (sum(area) - wide * high)


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not there (set MINIGPT4O_TEST_DATA)")
def test_real_boxes_survive_the_grid():
    for item in json.loads(SHARED.read_text())["items"]:
        size = (item["width"], item["height"])
        box = box_of(item["bbox"], size)
        for rounding in ("round", "truncate"):
            (grid,) = parse_boxes(box_text(box, rounding))
            assert overlap(to_pixels(grid, size).xyxy, box.xyxy) > 0.5
        x, y, w, h = item["bbox"]
        cut = [int(100 * v / of) for v, of in zip((x, y, x + w, y + h), size * 2, strict=True)]
        assert parse_boxes(box_text(box, "truncate")) == [tuple(cut)]


@pytest.mark.parametrize(("rounding", "step"), [("round", 0.5), ("truncate", 1.0)])
def test_what_is_written_is_off_by_half_a_line_of_the_grid_at_most_or_by_one_if_truncated(rounding, step):
    rng = random.Random(0)
    for _ in range(10_000):
        size = (rng.randint(1, 4000), rng.randint(1, 4000))
        x, y = sorted(rng.uniform(0, size[0]) for _ in range(2)), sorted(rng.uniform(0, size[1]) for _ in range(2))
        box = Box((x[0], y[0], x[1], y[1]), size)
        (grid,) = parse_boxes(box_text(box, rounding))
        for was, is_, of in zip(box.xyxy, to_pixels(grid, size).xyxy, size * 2, strict=True):
            assert abs(was - is_) * 100 / of <= step + 1e-9


def test_a_box_wholly_outside_is_refused_and_not_written_at_the_border():
    for xyxy in ((-20, 0, -5, 10), (101, 0, 120, 10), (0, -9, 10, -1), (0, 50.5, 10, 60)):
        with pytest.raises(BoxError) as caught:
            box_text(Box(xyxy, (100, 50)))
        assert caught.value.reason == "range"
