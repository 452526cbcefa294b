"""Words and media of one message, as OpenAI's content parts give them, laid out as training has them."""

from __future__ import annotations

from collections.abc import Sequence


def laid_out(pieces: Sequence[tuple[str, bool]], separator: str) -> str:
    """(text, whether it is a mark) in the order of the parts -> the text of the turn.

    Media that stand together before or behind all words go before them, `separator` between; media between words stay
    where they are. Texts that follow each other are parted by a line end.
    """
    is_mark = [mark for _, mark in pieces]
    if is_mark in (sorted(is_mark), sorted(is_mark, reverse=True)):
        marks = "".join(text for text, mark in pieces if mark)
        words = "\n".join(text for text, mark in pieces if not mark)
        return marks + (separator if marks and words else "") + words
    text, before = "", True
    for piece, mark in pieces:
        text += piece if mark or before else f"\n{piece}"
        before = mark
    return text
