"""Boxes as annotations give them -> `Box`: four numbers checked against their picture, and ms-swift's `objects`."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.marks import count_marks, escape_boxes, escape_marks
from minigpt4o.conversation.phrases import DELIMITER, phrase_text
from minigpt4o.conversation.sample import BOX_MARK, Box, Media, Turn
from minigpt4o.datasets.media import image_size
from minigpt4o.datasets.tables.rows import Row
from minigpt4o.processors.geometry import XYXY, Geometry, Size, upright
from minigpt4o.processors.orientation import orientation

OVERHANG = 0.02  # of the picture's side that a box may reach outside; annotators draw a little over the edge
REF_MARK = "<ref-object>"  # ms-swift's place of an object's name
BOX_TYPES = {"real": 0, "norm1": 1, "norm1000": 1000}  # what the picture's sides are in the numbers; 0 = pixels

_PHRASE = re.compile(rf"{REF_MARK}\s*((?:{BOX_MARK}\s*)*{BOX_MARK})|{REF_MARK}|{BOX_MARK}(?:\s*{BOX_MARK})+")


def four_numbers(value: Any, where: str) -> XYXY:
    """A list of four numbers, or a text of them with blanks or commas between (tables)."""
    parts = value.strip("[]() ").replace(",", " ").split() if isinstance(value, str) else value
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4 or not all(math.isfinite(n) for n in numbers):
        points = "; points are not supported, a box is x1, y1, x2, y2" if len(numbers) == 2 else ""
        raise SkipSample("bad_box", f"{where}: {value!r} is not four numbers{points}")
    return (numbers[0], numbers[1], numbers[2], numbers[3])


def placed(numbers: XYXY, size: Size, where: str, form: str = "xyxy", label: str = "", image: int = 0) -> Box:
    """The box of a picture of (width, height); `form` says what the numbers are: xywh or xyxy, in pixels.

    Raises SkipSample (bad_box) if it has no area, or reaches out of its picture by more than a trifle.
    """
    x1, y1, a, b = numbers
    x2, y2 = (x1 + a, y1 + b) if form == "xywh" else (a, b)
    width, height = size
    if width <= 0 or height <= 0:
        raise SkipSample("bad_box", f"{where}: a picture cannot be {width}x{height} pixels large")
    slack_x, slack_y = OVERHANG * width, OVERHANG * height
    if not (x1 < x2 and y1 < y2):
        raise SkipSample("bad_box", f"{where}: box {numbers} has no area as {form}")
    if x1 < -slack_x or y1 < -slack_y or x2 > width + slack_x or y2 > height + slack_y:
        raise SkipSample("bad_box", f"{where}: box {numbers} ({form}) reaches out of its {width}x{height} picture")
    return Box((x1, y1, x2, y2), size, label, image)


def file_turn(media: Media) -> Geometry:
    """From a picture as its file stores it to the picture upright, by its EXIF orientation. Raises SkipSample."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(media.read())) as picture:
            return upright(picture.size, orientation(picture))
    except FileNotFoundError as error:
        raise SkipSample("missing_file", f"{media}: does not exist") from error
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        raise SkipSample("unreadable_image", f"{media}: {error}") from error


def turned(box: Box, turn: Geometry) -> Box:
    """A box of the stored picture in the upright one; both in pixels of the file, whatever size the box names."""
    x, y = turn.source[0] / box.image_size[0], turn.source[1] / box.image_size[1]
    x1, y1, x2, y2 = box.xyxy
    return Box(turn.forward((x1 * x, y1 * y, x2 * x, y2 * y)), turn.target, box.label, box.image)


def with_objects(row: Row, turns: Sequence[Turn], images: Sequence[Media]) -> tuple[list[Turn], list[Box]]:
    """The turns of a row, and its boxes in the order of their `<bbox>` marks.

    ms-swift's `objects: {ref: [names], bbox: [[x1, y1, x2, y2]], bbox_type: real | norm1 | norm1000, image_id: [0]}`:
    each `<ref-object>` becomes the next name, as `<p>name</p> ` where boxes follow it at once, and boxes side by side
    are parted by the delimiter. A row without objects has no marks: what looks like one is only words.
    Raises SkipSample: media_mismatch if marks and objects differ in number, bad_box for a box that cannot be.
    """
    given = row.get("objects") if row.has("objects") else None
    if not isinstance(given, Mapping) or not ("bbox" in given or "ref" in given):
        return [Turn(turn.role, escape_boxes(turn.text)) for turn in turns], []
    names, boxes = _listed(given, "ref", row.where), _listed(given, "bbox", row.where)
    for mark, listed, what in ((REF_MARK, names, "ref"), (BOX_MARK, boxes, "bbox")):
        said = sum(count_marks(turn.text, mark) for turn in turns)
        if said != len(listed):
            raise SkipSample(
                "media_mismatch",
                f"{row.where}: the turns have {said} {mark} mark(s), but objects.{what} lists {len(listed)}",
            )
    queue = iter([escape_marks(str(name)) for name in names])
    told = [Turn(turn.role, _PHRASE.sub(lambda m: _resolved(m, queue), turn.text)) for turn in turns]
    return told, _boxes(given, names, boxes, images, row.where)


def boxes_of(turns: Sequence[Turn], boxes: Sequence[Box]) -> list[Box]:
    """The boxes whose marks are in these turns, which are the first of those that the boxes belong to."""
    return list(boxes[: sum(count_marks(turn.text, BOX_MARK) for turn in turns)])


def _resolved(match: re.Match[str], names: Any) -> str:
    """What stands in the text for one `<ref-object>` with the boxes behind it, or for boxes side by side."""
    marks = [BOX_MARK] * match.group().count(BOX_MARK)
    if not match.group().startswith(REF_MARK):
        return DELIMITER.join(marks)
    name = next(names)
    return phrase_text(name, marks) if marks else str(name)


def _boxes(
    given: Mapping[str, Any], names: Sequence[Any], boxes: Sequence[Any], images: Sequence[Media], where: str
) -> list[Box]:
    kind = str(given.get("bbox_type") or "real")
    if kind not in BOX_TYPES:
        raise SkipSample("bad_box", f"{where}: objects.bbox_type {kind!r} is unknown; known: {', '.join(BOX_TYPES)}")
    pictures = _listed(given, "image_id", where) or [0] * len(boxes)
    if len(pictures) != len(boxes):
        raise SkipSample(
            "media_mismatch",
            f"{where}: objects.image_id lists {len(pictures)} picture(s) for {len(boxes)} box(es) of objects.bbox",
        )
    sizes: dict[int, Size] = {}
    found = []
    for number, (value, picture) in enumerate(zip(boxes, pictures, strict=True)):
        if not isinstance(picture, int) or not 0 <= picture < len(images):
            raise SkipSample(
                "media_mismatch",
                f"{where}: box {number + 1} lies in picture {picture!r} (image_id counts from 0),"
                f" but {len(images)} picture(s) came with it",
            )
        if picture not in sizes:
            sizes[picture] = image_size(images[picture])
        whole, (width, height) = BOX_TYPES[kind], sizes[picture]
        x1, y1, x2, y2 = four_numbers(value, where)
        if whole:
            x1, y1, x2, y2 = x1 * width / whole, y1 * height / whole, x2 * width / whole, y2 * height / whole
        label = str(names[number]) if len(names) == len(boxes) else ""
        found.append(placed((x1, y1, x2, y2), sizes[picture], where, label=label, image=picture))
    return found


def _listed(given: Mapping[str, Any], key: str, where: str) -> list[Any]:
    """A list of `objects`; absent is empty."""
    value = given.get(key)
    if value is None:
        return []
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
        raise SkipSample("bad_json", f"{where}: objects.{key} is a {type(value).__name__}, not a list")
    return list(value)
