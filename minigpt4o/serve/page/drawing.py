"""Boxes and phrases of an answer: found in its text, drawn on the picture, coloured in the words."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from minigpt4o.conversation.boxes import BoxError, parse_boxes, to_pixels
from minigpt4o.conversation.phrases import read_phrases
from minigpt4o.conversation.sample import Box

# Strong enough on light and dark pictures, told apart without red against green alone.
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#e377c2", "#8c564b", "#bcbd22", "#111111")
SIDE = 480  # pixels of the longer side that small pictures are enlarged to
_LARGEST = 1024  # and large ones are made smaller to
_PHRASE = re.compile(r"<p>((?:(?!<p>).)*?)</p>(?:\s*\{[^{}]*\}(?:\s*<delim>\s*\{[^{}]*\})*)", re.DOTALL)
_BOX = re.compile(r"\{(?:\s*<\s*\d{1,3}\s*>){4}\s*\}(?:\s*<delim>\s*\{(?:\s*<\s*\d{1,3}\s*>){4}\s*\})*")


@dataclass
class Thing:
    """What an answer points at: its words (none for a box alone) and where it is, in pixels of the picture."""

    words: str
    boxes: list[Box] = field(default_factory=list)


def things_of(answer: str, size: tuple[int, int], image: int = 0) -> list[Thing]:
    """What an answer points at in a picture of (width, height); nothing if its boxes are not well-formed."""
    found = _read(answer)
    return [Thing(words, [to_pixels(grid, size, words, image) for grid in grids]) for words, grids in found if grids]


def _read(answer: str) -> list[tuple[str, list[Any]]]:
    try:
        return [(phrase.text.strip(), phrase.boxes) for phrase in read_phrases(answer)]
    except BoxError:
        pass
    try:
        return [("", [grid]) for group in _BOX.findall(answer) for grid in parse_boxes(group)]
    except BoxError:
        return []


def colour(number: int) -> str:
    """That of the thing of this number, from 0."""
    return COLOURS[number % len(COLOURS)]


def ink(number: int) -> str:
    """Black or white, whichever is read better on the colour of this number."""
    red, green, blue = (int(colour(number)[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"


def coloured(answer: str) -> str:
    """The answer as HTML made of escaped words: phrases, or boxes alone, in their colours and numbered."""
    pattern = _PHRASE if _PHRASE.search(answer) else _BOX
    pieces, end = [], 0
    for number, place in enumerate(pattern.finditer(answer)):
        words = place.group(1).strip() if pattern is _PHRASE else place.group()
        pieces.append(html.escape(answer[end : place.start()]))
        style = f"background: {colour(number)}; color: {ink(number)}; border-radius: 4px; padding: 0 5px"
        pieces.append(f'<span style="{style}">{html.escape(words)} [{number + 1}]</span>')
        end = place.end()
    return "".join([*pieces, html.escape(answer[end:])])


def enlarged(picture: Image.Image) -> Image.Image:
    """The picture at a size where lines and numbers can be read, and that is quick to send."""
    longer = max(picture.size)
    side = min(max(longer, SIDE), _LARGEST)
    if side == longer:
        return picture.copy()
    scale = side / longer
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.NEAREST if scale >= 4 else Image.Resampling.LANCZOS
    return picture.resize(size, how)


def drawn(picture: Image.Image, things: Sequence[Thing]) -> Image.Image:
    """The picture, enlarged, with every box in the colour of its thing and its number in a corner."""
    canvas = enlarged(picture)
    pen = ImageDraw.Draw(canvas)
    thick = max(3, max(canvas.size) // 160)
    font = ImageFont.load_default(max(16, max(canvas.size) // 28))
    for number, thing in enumerate(things):
        for box in thing.boxes:
            x1, y1, x2, y2 = _on(box, canvas.size)
            x2, y2 = max(x1 + 1, x2), max(y1 + 1, y2)
            pen.rectangle((x1 - 2, y1 - 2, x2 + 2, y2 + 2), outline="white", width=thick + 4)  # seen on its own colour
            pen.rectangle((x1, y1, x2, y2), outline=colour(number), width=thick)
            _label(pen, (x1, y1), number, font, canvas.size)
    return canvas


def marked(picture: Image.Image, boxes: Sequence[Box], corner: tuple[float, float] | None = None) -> Image.Image:
    """The picture, enlarged, with the boxes a person drew and the corner of one that is begun (shares of the sides)."""
    canvas = drawn(picture, [Thing("", [box]) for box in boxes])
    if corner is not None:
        pen = ImageDraw.Draw(canvas)
        x, y = corner[0] * canvas.width, corner[1] * canvas.height
        for width, shade in ((7, "white"), (3, colour(len(boxes)))):
            pen.line((x - 14, y, x + 14, y), shade, width)
            pen.line((x, y - 14, x, y + 14), shade, width)
    return canvas


def labelled(
    things: Sequence[Thing], size: tuple[int, int], box_alone: str
) -> list[tuple[tuple[int, int, int, int], str]]:
    """Boxes with numbered names, as gradio's AnnotatedImage takes them, in a picture shown at (width, height).

    `box_alone` is what a box without words is called.
    """
    found = []
    for number, thing in enumerate(things):
        for box in thing.boxes:
            x1, y1, x2, y2 = (round(v) for v in _on(box, size))
            found.append(((x1, y1, max(x1 + 1, x2), max(y1 + 1, y2)), f"{number + 1} {thing.words or box_alone}"))
    return found


def _on(box: Box, size: tuple[int, int]) -> tuple[float, float, float, float]:
    across, down = size[0] / box.image_size[0], size[1] / box.image_size[1]
    x1, y1, x2, y2 = box.xyxy
    return x1 * across, y1 * down, x2 * across, y2 * down


def _label(pen: Any, at: tuple[float, float], number: int, font: Any, size: tuple[int, int]) -> None:
    """The thing's number, from 1, on a patch of its colour, inside the picture."""
    text = str(number + 1)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 10, bottom - top + 8
    x, y = min(at[0], size[0] - width), at[1] - height if at[1] >= height else at[1]
    pen.rectangle((x, y, x + width, y + height), fill=colour(number))
    pen.text((x + 5 - left, y + 4 - top), text, fill=ink(number), font=font)
