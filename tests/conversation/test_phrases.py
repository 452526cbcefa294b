"""Phrases with boxes are read as MiniGPT-v2's demo reads them, and a drawn mask becomes its box."""

import random

import numpy as np
import pytest
from PIL import Image

from minigpt4o.conversation.boxes import BoxError, box_text, parse_boxes, to_pixels
from minigpt4o.conversation.phrases import Phrase, mask_box, parse_phrases, phrase_text, read_phrases
from minigpt4o.conversation.sample import Box

# [x, y, w, h], (W, H), text: measured with the reference
BOXES = [
    ((285.04, 23.29, 139.74, 123.11), (640, 427), "{<44><5><66><34>}"),
    ((0, 0, 640, 427), (640, 427), "{<0><0><100><100>}"),
    ((3.24, 159.31, 156.4, 312.81), (640, 480), "{<0><33><24><98>}"),
    ((-3.0, 5, 10, 10), (500, 400), "{<0><1><1><3>}"),
    ((639, 426, 1, 1), (640, 427), "{<99><99><100><100>}"),
]


@pytest.mark.parametrize(("xywh", "size", "text"), BOXES)
def test_truncated_boxes_are_the_references(xywh, size, text):
    x, y, w, h = xywh
    assert box_text(Box((x, y, x + w, y + h), size), "truncate") == text


def test_a_box_on_the_grid_becomes_pixels_again():
    grid = parse_boxes("{<44><5><66><34>}")[0]
    assert to_pixels(grid, (640, 427)).xyxy == pytest.approx((281.6, 21.35, 422.4, 145.18))


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        (
            "<p>A man</p> {<1><2><3><4>} with <p>dogs</p> {<1><2><3><4>}<delim>{<5><6><7><8>} .",
            [Phrase("A man", [(1, 2, 3, 4)]), Phrase("dogs", [(1, 2, 3, 4), (5, 6, 7, 8)])],
        ),
        ("{<15><25><46><75>}", [Phrase("", [(15, 25, 46, 75)])]),
        ("it is at 1, 2, 3 and 4", [Phrase("", [(1, 2, 3, 4)])]),
        ("a dog", []),
        ("1 2 3", []),
        ("<p>a dog</p> {<1><2><3><4>} <p>a c", [Phrase("a dog", [(1, 2, 3, 4)])]),
        ("<p>dog</p> {<1><2><3>} <p>cat</p> {<1><2><3><4>}", [Phrase("cat", [(1, 2, 3, 4)])]),
        ("<p>dog</p> {<1><2><3><4>} <p>dog</p> {<5><6><7><8>}", [Phrase("dog", [(1, 2, 3, 4), (5, 6, 7, 8)])]),
        ("", []),
    ],
)
def test_phrases_are_read(text, phrases):
    assert parse_phrases(text) == phrases


def test_a_phrase_is_written_as_it_is_read():
    text = phrase_text("two dogs", ["{<1><2><3><4>}", "{<5><6><7><8>}"])
    assert text == "<p>two dogs</p> {<1><2><3><4>}<delim>{<5><6><7><8>}"
    assert parse_phrases(text) == [Phrase("two dogs", [(1, 2, 3, 4), (5, 6, 7, 8)])]


def test_a_mask_becomes_the_box_around_what_is_drawn():
    mask = np.zeros((200, 400), np.uint8)
    mask[20:60, 100:200] = 255
    assert mask_box(mask) == "{<25><10><49><29>}"
    assert mask_box(Image.fromarray(mask).convert("RGB")) == "{<25><10><49><29>}"
    assert mask_box(np.full((7, 5), 255, np.uint8)) == "{<0><0><99><99>}"
    assert mask_box(np.zeros((7, 5), np.uint8)) == ""


@pytest.mark.parametrize("seed", range(50))
def test_strictly_read_phrases_are_those_that_were_written(seed):
    rng = random.Random(seed)
    said, text = [], "In the picture"
    for number in range(rng.randint(1, 4)):
        boxes = []
        for _ in range(rng.randint(1, 3)):
            x, y = sorted(rng.randint(0, 100) for _ in range(2)), sorted(rng.randint(0, 100) for _ in range(2))
            boxes.append((x[0], y[0], x[1], y[1]))
        said.append(Phrase(f"thing {number}", boxes))
        text += " and " + phrase_text(said[-1].text, [box_text(to_pixels(box, (640, 427))) for box in boxes])
    assert read_phrases(text + ".") == said == parse_phrases(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a dog", "none"),
        ("{<1><2><3><4>}", "none"),
        ("<p>a dog</p> and <p>a cat</p> {<1><2><3><4>}", "none"),
        ("<p>a dog</p> {<1><2><3>}", "malformed"),
        ("<p>a dog</p> {<1><2><3><4>}<delim>{<1><2><3><400>}", "range"),
        ("<p>a dog</p> {<9><2><3><4>}", "inverted"),
    ],
)
def test_a_phrase_that_cannot_be_read_strictly_is_refused_by_name(text, reason):
    with pytest.raises(BoxError) as caught:
        read_phrases(text)
    assert caught.value.reason == reason
