"""The words of a data set on their way into turns: cleaned where asked, put into a prompt, given their media.

Profile `compat` writes what MiniGPT-4 and MiniGPT-v2 learned from, letter for letter and draw for draw: a space after
every instruction, texts with the blanks they have in the file, `the the man`. The default trims and says `the man`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from minigpt4o.conversation.marks import escape_marks
from minigpt4o.conversation.sample import MARKS, Media, Turn
from minigpt4o.datasets.base import clean_text, fill, one_round

Profile = Literal["default", "compat"]
Cleanable = Literal["question", "answer"]
T = TypeVar("T")

_THE_PLACE = re.compile(r"\bthe \{(\w+)\}", re.IGNORECASE)
_ARTICLE = re.compile(r"(?:the|an|a)\s+", re.IGNORECASE)


class Wording:
    """How one builder words its samples. `clean_with` is called by whoever knows the data set's text processor."""

    def __init__(self, profile: Profile, split: str) -> None:
        self.compat = profile == "compat"
        self.training = split == "train"
        self._cleaner: Callable[[str], str] = str
        self._times: dict[str, int] = {}

    def clean_with(self, cleaner: Callable[[str], str], which: Sequence[Cleanable]) -> None:
        """Send these kinds of text through the cleaner, as often as each is named."""
        self._cleaner = cleaner
        self._times = {kind: which.count(kind) for kind in which}

    def read(self, value: Any, where: str, what: str) -> str:
        """A text of the file, stripped in the default profile. Raises SkipSample if it is none."""
        return clean_text(value, where, what, strip=not self.compat)

    def question(self, text: str) -> str:
        """What is asked, cleaned if the data set says so."""
        return self._cleaned("question", text)

    def answer(self, text: str) -> str:
        """What is learned, cleaned if the data set says so."""
        return self._cleaned("answer", text)

    def draw(self, rng: random.Random, values: Sequence[T]) -> T:
        """One of the values. In compat a single one costs no draw; reference code that draws even so calls `rng`."""
        return values[0] if self.compat and len(values) == 1 else rng.choice(values)

    def filled(self, prompt: str, values: Mapping[str, str]) -> str:
        """The prompt with its places filled; no prompt: the question itself. One article is enough by default."""
        if not prompt:
            return escape_marks(next(iter(values.values()), ""))
        if not self.compat:
            twice = {place for place in _THE_PLACE.findall(prompt) if place in values}
            values = {
                k: _ARTICLE.sub("", v, count=1) if k in twice and _ARTICLE.match(v) else v for k, v in values.items()
            }
        return fill(prompt, values)

    def turns(
        self,
        asked: str,
        answer: str,
        images: Sequence[Media],
        audios: Sequence[Media],
        where: str,
        boxed: bool = False,
    ) -> list[Turn]:
        """User asks with the media, the assistant answers; `boxed` if marks of boxes in the answer are meant so."""
        return one_round(self.instruction(asked, bool(images or audios)), answer, images, audios, where, boxed)

    def instruction(self, asked: str, media: bool) -> str:
        """The user's words: trimmed; in compat as they are, with a space behind them where training has one."""
        if not self.compat:
            return asked.strip()
        bare = not any(mark in asked for mark in MARKS.values())
        return asked + " " if asked and media and bare and self.training else asked

    def _cleaned(self, kind: Cleanable, text: str) -> str:
        for _ in range(self._times.get(kind, 0)):
            text = self._cleaner(text)
        return text
