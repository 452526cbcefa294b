"""`<image>` and `<audio>` in a turn's text are places of media, unless they are escaped: then they are only words."""

from __future__ import annotations

import re

from minigpt4o.conversation.sample import MARKS

_ESCAPE = "\ue000"  # private use: never meant as text
_MARK = re.compile("(" + "|".join(re.escape(m) for m in MARKS.values()) + ")")


def escape_marks(text: str) -> str:
    """The same words with every mark made harmless: for text typed by a person or read from a caption."""
    return _MARK.sub(lambda m: m.group()[0] + _ESCAPE + m.group()[1:], text)


def unescape_marks(text: str) -> str:
    """The words as they were before `escape_marks`."""
    return text.replace(_ESCAPE, "")


def split_at_marks(text: str) -> list[str]:
    """Text and marks in turn, empty pieces left out: `"a <image> b"` -> `["a ", "<image>", " b"]`."""
    return [piece for piece in _MARK.split(text) if piece]


def count_marks(text: str, mark: str) -> int:
    """How many times an unescaped mark stands in the text."""
    return text.count(mark)


def marks_of(text: str) -> str:
    """Only the marks of a text, in order: `"a <image> b<audio>"` -> `"<image><audio>"`."""
    return "".join(_MARK.findall(text))
