"""Phrases with boxes in a text, `<p>a dog</p> {<10><20><30><40>}<delim>{...}`, and the box around a drawn mask."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from minigpt4o.conversation.boxes import GRID, BoxError, GridBox, parse_boxes

if TYPE_CHECKING:
    from PIL import Image

DELIMITER = "<delim>"
_PHRASE = re.compile(r"<p>(.*?)\}(?!<)")  # a group ends at the first brace that no further box follows
_SAID = re.compile(r"<p>((?:(?!<p>).)*?)</p>(?:\s*(\{[^{}]*\}(?:\s*<delim>\s*\{[^{}]*\})*))?", re.DOTALL)
_INTEGER = re.compile(r"-?\d+")


@dataclass
class Phrase:
    """Words and where they are, in hundredths of the picture; words are empty for a box alone."""

    text: str
    boxes: list[GridBox] = field(default_factory=list)


def parse_phrases(text: str) -> list[Phrase]:
    """What MiniGPT-v2's demo draws: its phrases with their boxes, else the one box if exactly four numbers are said.

    As lenient as the demo: a piece between delimiters that is not four numbers is left out, and so is a phrase without
    any box; what stands after the last brace is not looked at. A phrase said twice collects the boxes of both.
    """
    whole = text[: text.rfind("}") + 1] or text
    groups = _PHRASE.findall(whole)
    if not groups:
        box = _four(text)
        return [Phrase("", [box])] if box is not None else []
    found: dict[str, Phrase] = {}
    for group in groups:
        words, closed, rest = group.partition("</p>")
        if not closed or "</p>" in rest:
            continue
        boxes = [box for box in map(_four, rest.split(DELIMITER)) if box is not None]
        if boxes:
            found.setdefault(words, Phrase(words)).boxes.extend(boxes)
    return list(found.values())


def read_phrases(text: str) -> list[Phrase]:
    """Every `<p>phrase</p> {box}<delim>{box}` of a text in order, read strictly: the inverse of `phrase_text`.

    Raises BoxError: none if there is no phrase or a phrase has no box behind it; what `parse_boxes` raises of a box.
    """
    found = []
    for said in _SAID.finditer(text):
        if said.group(2) is None:
            raise BoxError("none", f"the phrase {said.group(1)!r} has no box behind it: {text!r}")
        found.append(Phrase(said.group(1), parse_boxes(said.group(2))))
    if not found:
        raise BoxError("none", f"no phrase in {text!r}; a phrase is written <p>words</p> {{<x1><y1><x2><y2>}}")
    return found


def phrase_text(phrase: str, boxes: list[str]) -> str:
    """The inverse: `<p>phrase</p> ` and its box texts joined by the delimiter."""
    return f"<p>{phrase}</p> {DELIMITER.join(boxes)}"


def mask_box(mask: Image.Image | np.ndarray) -> str:
    """The box around what is drawn in a mask, "" if nothing is: the mask is scaled to 100x100, so corners are 0..99."""
    from PIL import Image

    picture = Image.fromarray(mask) if isinstance(mask, np.ndarray) else mask
    small = np.asarray(picture.resize((GRID, GRID), Image.Resampling.NEAREST))
    drawn = small[..., 0] if small.ndim == 3 else small
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    if not rows.size:
        return ""
    corners = (columns[0], rows[0], columns[-1], rows[-1])
    return "{" + "".join(f"<{number}>" for number in corners) + "}"


def _four(text: str) -> GridBox | None:
    numbers = [int(number) for number in _INTEGER.findall(text)]
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None
