"""Boxes of an answer while it comes: from the frame that the model sees to that of the picture that was sent."""

from __future__ import annotations

import re

from minigpt4o.conversation.objects import Geometry, in_original_frame

_BEGUN = re.compile(r"\{[\s<>\d-]{0,64}\Z")  # what may still become a box


class Returning:
    """Hands on an answer piece by piece; a box is held back until all of it is there, and then moved."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self._held = ""

    def more(self, piece: str) -> str:
        """What can be shown once this piece has come; "" if it must wait."""
        text = self._held + piece
        begun = _BEGUN.search(text)
        end = len(text) if begun is None else begun.start()
        self._held = text[end:]
        return in_original_frame(text[:end], self.geometry)

    def rest(self) -> str:
        """What was held back when the answer ended."""
        held, self._held = self._held, ""
        return held
