"""The picture a person draws boxes on: two clicks on opposite corners are a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.sample import Box, Media
from minigpt4o.processors.image import open_image
from minigpt4o.serve.page.drawing import marked

MAX_BOXES = 8  # of one message
_SMALLEST = 0.005  # share of the sides; less is a double click


@dataclass
class Board:
    """Pictures that can be drawn on, and the boxes of the message being written."""

    pictures: list[tuple[str, Media]] = field(default_factory=list)  # key (a path, or chat:NUMBER) and picture
    chosen: int = -1
    corner: tuple[float, float] | None = None  # of a box that is begun, in shares of the sides
    boxes: list[tuple[str, Box]] = field(default_factory=list)  # key of the picture, and the box in its pixels

    def lay(self, pictures: Sequence[tuple[str, Media]]) -> None:
        """Show these pictures, the last one first; boxes on pictures that are gone go with them."""
        keys = [key for key, _ in pictures]
        if keys != [key for key, _ in self.pictures]:
            self.pictures, self.chosen, self.corner = list(pictures), len(pictures) - 1, None
        self.boxes = [(key, box) for key, box in self.boxes if key in keys]

    def choose(self, number: int) -> None:
        if 0 <= number < len(self.pictures):
            self.chosen, self.corner = number, None

    def clear(self) -> None:
        self.corner, self.boxes = None, []

    def click(self, x: float, y: float) -> None:
        """A click at these shares of the sides: the first corner of a box, or its second."""
        if not self.pictures or len(self.boxes) >= MAX_BOXES:
            return
        x, y = min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
        if self.corner is None:
            self.corner = (x, y)
            return
        (x0, y0), self.corner = self.corner, None
        left, right, top, bottom = min(x, x0), max(x, x0), min(y, y0), max(y, y0)
        if right - left < _SMALLEST or bottom - top < _SMALLEST:
            return
        picture = self.opened()
        if picture is None:
            return
        width, height = picture.size
        xyxy = (left * width, top * height, right * width, bottom * height)
        self.boxes.append((self.pictures[self.chosen][0], Box(xyxy, picture.size)))

    def shown(self) -> Image.Image | None:
        """The chosen picture with its boxes; None if there is none."""
        picture = self.opened()
        if picture is None:
            return None
        key = self.pictures[self.chosen][0]
        return marked(picture, [box for of, box in self.boxes if of == key], self.corner)

    def opened(self) -> Image.Image | None:
        if not self.pictures:
            return None
        return upright(self.pictures[self.chosen][1])


def upright(media: Media) -> Image.Image | None:
    """The picture as boxes are meant; None if it cannot be opened."""
    try:
        return open_image(media)
    except SkipSample:
        return None
