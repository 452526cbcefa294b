"""Boxes of a sample: from marks in its turns to text in the frame that the model sees, and from its answer back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.boxes import GRID, BoxError, box_text
from minigpt4o.conversation.marks import count_marks
from minigpt4o.conversation.sample import BOX_MARK, IMAGE_MARK, Box, Sample, Turn

XYXY = tuple[float, float, float, float]
SHARES = (1, 1)  # picture size of a box that is given in shares of its picture's sides
HUNDREDTHS = (GRID, GRID)

_LITERAL = re.compile(r"\{\s*" + r"<\s*(-?\d{1,4})\s*>\s*" * 4 + r"\}")
_PLACE = re.compile("|".join((re.escape(BOX_MARK), re.escape(IMAGE_MARK), _LITERAL.pattern)))


class Geometry(Protocol):
    """How a processor laid a picture into what the model sees, in pixels (`processors.geometry`)."""

    @property
    def source(self) -> tuple[int, int]: ...

    @property
    def target(self) -> tuple[int, int]: ...

    @property
    def whole(self) -> bool: ...

    def visible(self, xyxy: XYXY) -> XYXY | None: ...

    def inverse(self, xyxy: XYXY) -> XYXY: ...


def written(sample: Sample, geometries: Sequence[Geometry] | None = None) -> Sample:
    """The sample with its boxes as text where their marks stand; the sample itself if it has no marks.

    Boxes are written in the frame of their original picture, or with the `geometries` of the pictures in the frame
    that the model sees, what lies outside cut off. `boxes` stays as it is, in the original frame.
    Raises SkipSample: media_mismatch if marks and boxes differ in number, bad_box if a box cannot be written.
    """
    marks = sum(count_marks(turn.text, BOX_MARK) for turn in sample.turns)
    if not marks:
        return sample
    where = sample.where or sample.id
    if marks != len(sample.boxes):
        raise SkipSample(
            "media_mismatch", f"{where}: the turns have {marks} {BOX_MARK} mark(s), but {len(sample.boxes)} box(es)"
        )
    try:
        words = iter([box_text(_seen(box, geometries), sample.rounding) for box in sample.boxes])
    except BoxError as error:
        raise SkipSample("bad_box", f"{where}: {error}") from error
    turns = []
    for turn in sample.turns:
        pieces = turn.text.split(BOX_MARK)
        text = pieces[0] + "".join(next(words) + piece for piece in pieces[1:])
        turns.append(replace(turn, text=text))
    return replace(sample, turns=turns)


def seen(box: Box, geometry: Geometry) -> Box:
    """What the model sees of a box, in its frame. Raises BoxError (range) if nothing of it is left."""
    visible = geometry.visible(_scaled(box.xyxy, box.image_size, geometry.source))
    if visible is None:
        raise BoxError("range", f"box {box.xyxy} of a picture of {box.image_size} lies outside of what the model sees")
    return replace(box, xyxy=visible, image_size=geometry.target)


def shares(boxes: Sequence[Box], image: int) -> list[XYXY]:
    """The boxes of one picture in shares of its sides."""
    return [_scaled(box.xyxy, box.image_size, SHARES) for box in boxes if box.image == image]


def lifted(sample: Sample) -> Sample:
    """The sample with every box that stands as text in its turns made a box with a mark.

    So boxes that came as text (grounded captions, the reference's own samples) can follow their picture. Such a box
    belongs to the last picture whose mark stands before it; in an answer to a question with marks of boxes, to theirs
    if it is one, as `answered_about` has it.
    """
    given = iter(sample.boxes)
    turns: list[Turn] = []
    boxes: list[Box] = []
    picture, asked = -1, set[int]()
    for turn in sample.turns:
        pieces, end = [], 0
        asked = asked if turn.role == "assistant" else set()
        for place in _PLACE.finditer(turn.text):
            picture += place.group() == IMAGE_MARK and turn.role != "assistant"
            if place.group() == BOX_MARK:
                box = next(given, None)
                asked |= {box.image} if box is not None and turn.role != "assistant" else set()
            else:
                about = asked if turn.role == "assistant" and len(asked) == 1 else {max(picture, 0)}
                box = _literal(place, *about)
            if box is not None:
                boxes.append(box)
                pieces += [turn.text[end : place.start()], BOX_MARK]
                end = place.end()
        turns.append(replace(turn, text="".join(pieces) + turn.text[end:]))
    return replace(sample, turns=turns, boxes=boxes)


def cut_boxes(sample: Sample, turns: Sequence[Turn]) -> list[Box]:
    """The boxes of the first so many turns; all if the sample's turns have no marks of boxes."""
    if not any(BOX_MARK in turn.text for turn in sample.turns):
        return sample.boxes
    return sample.boxes[: sum(count_marks(turn.text, BOX_MARK) for turn in turns)]


def in_original_frame(text: str, geometry: Geometry | None) -> str:
    """A text of the model with its boxes moved from the frame it saw to that of the original picture.

    What reaches out of the picture (into padding) is cut off. Without a geometry, or where the whole picture was
    shown, the text comes back letter for letter; so do braces that hold no box.
    """
    if geometry is None or geometry.whole:
        return text
    shown = geometry

    def moved(place: re.Match[str]) -> str:
        box = _literal(place, 0)
        if box is None or max(box.xyxy) > GRID:
            return place.group()
        x1, y1, x2, y2 = shown.inverse(_scaled(box.xyxy, HUNDREDTHS, shown.target))
        width, height = shown.source
        inside = (_within(x1, width), _within(y1, height), _within(x2, width), _within(y2, height))
        return box_text(Box(inside, shown.source))

    return _LITERAL.sub(moved, text)


def answered_about(sample: Sample, geometries: Sequence[Geometry]) -> Geometry | None:
    """The geometry of the picture that an answer's boxes lie in: that of the true boxes, else the last picture.

    Where marks stand in the turns, the boxes of earlier questions and their answers do not count.
    """
    if not geometries:
        return None
    meant = {box.image for box in _of_last_question(sample)}
    number = meant.pop() if len(meant) == 1 else len(geometries) - 1
    return geometries[number] if number < len(geometries) else None


def _of_last_question(sample: Sample) -> list[Box]:
    """The boxes from the last words of a user on; all of them if the turns have no marks."""
    marks = [count_marks(turn.text, BOX_MARK) for turn in sample.turns]
    last = max((i for i, turn in enumerate(sample.turns) if turn.role == "user"), default=0)
    return sample.boxes[sum(marks[:last]) :]


def _literal(place: re.Match[str], image: int) -> Box | None:
    """The box that a text holds; None for a mark, and for numbers that are no box: they stay the words they are."""
    if place.group(1) is None:
        return None
    x1, y1, x2, y2 = (float(number) for number in place.groups())
    return Box((x1, y1, x2, y2), HUNDREDTHS, image=image) if x1 <= x2 and y1 <= y2 else None


def _seen(box: Box, geometries: Sequence[Geometry] | None) -> Box:
    if not geometries:
        return box
    if not 0 <= box.image < len(geometries):
        raise BoxError("range", f"box {box.xyxy} lies in picture {box.image + 1}, but {len(geometries)} came with it")
    geometry = geometries[box.image]
    return box if geometry.whole else seen(box, geometry)


def _within(value: float, extent: int) -> float:
    return min(max(value, 0.0), float(extent))


def _scaled(xyxy: XYXY, size: tuple[int, int], to: tuple[int, int]) -> XYXY:
    """A box of a picture of one size in the same picture at another size. Raises BoxError if there is no such size."""
    if size[0] <= 0 or size[1] <= 0:
        raise BoxError("range", f"box {xyxy} in a picture of {size[0]}x{size[1]}: sizes must be positive")
    x, y = to[0] / size[0], to[1] / size[1]
    return xyxy[0] * x, xyxy[1] * y, xyxy[2] * x, xyxy[3] * y
