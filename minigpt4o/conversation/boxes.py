"""Boxes as text: `{<x1><y1><x2><y2>}`, whole hundredths of the picture's width and height, and back again."""

from __future__ import annotations

import math
import re

from minigpt4o.common.errors import DataError
from minigpt4o.conversation.sample import Box, Rounding

GRID = 100  # a coordinate is a number from 0 to GRID
GridBox = tuple[int, int, int, int]

_GROUP = re.compile(r"\{([^{}]*)\}")
_FOUR = re.compile(r"\s*<\s*(\d{1,3})\s*>\s*<\s*(\d{1,3})\s*>\s*<\s*(\d{1,3})\s*>\s*<\s*(\d{1,3})\s*>\s*")


class BoxError(DataError):
    """A box that cannot be written or text that is no box. `reason` is one of none, malformed, range, inverted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


def box_text(box: Box, rounding: Rounding = "round") -> str:
    """The box on the grid. "round" is to the nearest line; "truncate" is int(100 * x / W), as MiniGPT-v2 writes it.

    What lies outside the picture is cut off. Raises BoxError: range if the picture has no size, a number is not finite
    or nothing of the box is inside; inverted.
    """
    width, height = box.image_size
    if width <= 0 or height <= 0 or not all(math.isfinite(v) for v in box.xyxy):
        raise BoxError("range", f"box {box.xyxy} in a picture of {width}x{height}: sizes must be positive and finite")
    x1, y1, x2, y2 = box.xyxy
    if x2 < x1 or y2 < y1:
        raise BoxError("inverted", f"box {box.xyxy}: left must not exceed right, nor top bottom (x1, y1, x2, y2)")
    if x1 > width or x2 < 0 or y1 > height or y2 < 0:
        raise BoxError("range", f"box {box.xyxy} lies outside of its picture of {width}x{height}")
    numbers = [_on_grid(v, of, rounding) for v, of in ((x1, width), (y1, height), (x2, width), (y2, height))]
    return "{" + "".join(f"<{n}>" for n in numbers) + "}"


def parse_boxes(text: str) -> list[GridBox]:
    """All boxes written in a text, in order, as numbers of the grid.

    Raises BoxError if there is none, or if any brace group is not four numbers of 0..100 with x1<=x2 and y1<=y2.
    """
    groups = _GROUP.findall(text)
    if not groups:
        raise BoxError("none", f"no box in {text!r}; a box is written {{<x1><y1><x2><y2>}}")
    return [_numbers(group) for group in groups]


def to_pixels(grid: GridBox, image_size: tuple[int, int], label: str = "", image: int = 0) -> Box:
    """The box of the grid in pixels of a picture of (width, height)."""
    width, height = image_size
    x1, y1, x2, y2 = grid
    xyxy = (x1 * width / GRID, y1 * height / GRID, x2 * width / GRID, y2 * height / GRID)
    return Box(xyxy, image_size, label, image)


def _on_grid(value: float, extent: int, rounding: Rounding) -> int:
    scaled = GRID * value / extent
    number = int(scaled) if rounding == "truncate" else math.floor(scaled + 0.5)
    return min(max(number, 0), GRID)


def _numbers(group: str) -> GridBox:
    match = _FOUR.fullmatch(group)
    if match is None:
        raise BoxError("malformed", f"{{{group}}} is not four numbers; a box is written {{<x1><y1><x2><y2>}}")
    x1, y1, x2, y2 = (int(n) for n in match.groups())
    if max(x1, y1, x2, y2) > GRID:
        raise BoxError("range", f"{{{group}}}: coordinates go from 0 to {GRID}")
    if x2 < x1 or y2 < y1:
        raise BoxError("inverted", f"{{{group}}}: left must not exceed right, nor top exceed bottom (x1, y1, x2, y2)")
    return x1, y1, x2, y2
