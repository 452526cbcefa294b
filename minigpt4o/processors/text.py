"""Clean a text before it is put into a prompt or learned: BLIP's two ways, and leaving it as it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from minigpt4o.common.registry import registry

_PUNCTUATION = re.compile(r"[.!\"()*#:;~]")
_SPACES = re.compile(r"\s{2,}")


@registry.register("processor", "plain")
class Plain:
    """The text as it is."""

    @dataclass
    class Config:
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, text: str) -> str:
        return text


@registry.register("processor", "blip_caption")
class BlipCaption:
    """Lower case, punctuation `. ! " ( ) * # : ; ~` turned into spaces, cut to a number of words (as in BLIP)."""

    @dataclass
    class Config:
        prompt: str = ""  # put before every cleaned text
        max_words: int = 50  # words kept; a word is what stands between spaces

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, text: str) -> str:
        text = _SPACES.sub(" ", _PUNCTUATION.sub(" ", text.lower()))
        text = text.rstrip("\n").strip(" ")
        return self.config.prompt + _first_words(text, self.config.max_words)


@registry.register("processor", "blip_question")
class BlipQuestion:
    """Lower case, the same punctuation taken out without a space, cut to a number of words (as in BLIP)."""

    @dataclass
    class Config:
        max_words: int = 50  # words kept; a word is what stands between spaces

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, text: str) -> str:
        return _first_words(_PUNCTUATION.sub("", text.lower()).rstrip(" "), self.config.max_words)


def _first_words(text: str, count: int) -> str:
    words = text.split(" ")
    return text if len(words) <= count else " ".join(words[:count])
