"""A message and what came of it, as the page shows them: words stay words, whatever they hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigpt4o.conversation.sample import Box, Media
from minigpt4o.serve.page.drawing import Thing

_HTML = re.compile(r"<(?=[A-Za-z/!?])|&(?=[#A-Za-z])")
_MADE = re.compile(r"&lt;|&amp;")


def literal(text: str) -> str:
    """The text with what a browser would take for a tag or an entity made harmless: words stay words on the page."""
    return _HTML.sub(lambda sign: "&lt;" if sign.group() == "<" else "&amp;", text)


def typed(text: str) -> str:
    """The inverse of `literal`."""
    return _MADE.sub(lambda sign: "<" if sign.group() == "&lt;" else "&", text)


@dataclass
class Said:
    """A message and what came of it, as the page shows them."""

    text: str
    paths: list[str] = field(default_factory=list)
    boxes: list[tuple[str, Box]] = field(default_factory=list)  # as on the board
    marks: dict[str, str] = field(default_factory=dict)  # path, or chat:NUMBER -> file of the picture with its boxes
    note: str = ""
    reply: str = ""  # as shown: made harmless
    things: list[Thing] = field(default_factory=list)
    drawn: str = ""  # file of the picture with the answer's boxes
    picture: int = -1  # number of the picture in the chat that they lie in
    kept: bool = False  # whether it is in the session's history
    over: bool = True
    sent: dict[str, Media] = field(default_factory=dict)  # what is in `paths`, once it was read

    def messages(self) -> list[dict[str, Any]]:
        """What gradio's Chatbot shows of it."""
        of_chat = [file for key, file in self.marks.items() if key not in self.paths]
        files = [*(self.marks.get(path, path) for path in self.paths), *of_chat]
        messages: list[dict[str, Any]] = [{"role": "user", "content": {"path": path}} for path in files]
        if self.text:
            messages.append({"role": "user", "content": literal(self.text)})
        if self.note:
            messages.append({"role": "assistant", "content": literal(f"({self.note})")})
        messages.append({"role": "assistant", "content": self.reply})
        if self.drawn:
            messages.append({"role": "assistant", "content": {"path": self.drawn}})
        return messages


def restore(messages: Sequence[Said]) -> None:
    """Write the files that are about to be shown or given back, if the clean-up of old uploads has removed them."""
    for said in messages:
        for path, media in said.sent.items():
            file = Path(path)
            if not file.is_file():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(media.read())
