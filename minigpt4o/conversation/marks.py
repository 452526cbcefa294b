"""`<image>`, `<audio>` and `<bbox>` in a turn's text are places, unless they are escaped: then they are only words."""

from __future__ import annotations

import re

from minigpt4o.conversation.sample import BOX_MARK, MARKS

_ESCAPE = "\ue000"  # private use: never meant as text
_MEDIA = re.compile("(" + "|".join(re.escape(m) for m in MARKS.values()) + ")")
_ANY = re.compile("|".join(re.escape(m) for m in (*MARKS.values(), BOX_MARK)))
_ESCAPED_BOX = BOX_MARK[0] + _ESCAPE + BOX_MARK[1:]


def escape_marks(text: str) -> str:
    """The same words with every mark made harmless: for text typed by a person or read from a caption."""
    return _ANY.sub(lambda m: m.group()[0] + _ESCAPE + m.group()[1:], text)


def escape_boxes(text: str) -> str:
    """The same words with every mark of a box made harmless: for answers, where no other mark is a place."""
    return text.replace(BOX_MARK, _ESCAPED_BOX)


def unescape_marks(text: str) -> str:
    """The words as they were before `escape_marks`."""
    return text.replace(_ESCAPE, "")


def split_at_marks(text: str) -> list[str]:
    """Text and marks of media in turn, empty pieces left out: `"a <image> b"` -> `["a ", "<image>", " b"]`."""
    return [piece for piece in _MEDIA.split(text) if piece]


def count_marks(text: str, mark: str) -> int:
    """How many times an unescaped mark stands in the text."""
    return text.count(mark)


def marks_of(text: str) -> str:
    """Only the marks of media of a text, in order: `"a <image> b<audio>"` -> `"<image><audio>"`."""
    return "".join(_MEDIA.findall(text))
