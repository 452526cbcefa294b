"""Clean what a stage 1 model wrote, and say which descriptions are good enough to learn from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

_SENTENCE = re.compile(r"[^.!?。！？]*[.!?。！？]+[\"'”’」)]*")
# What templates leave behind when a model goes on speaking for the other side.
_LEFTOVER = re.compile(
    r"#{2,}.*|</?Img>|<ImageHere>|<unk>|</s>|<s>|\b(?:Human|Assistant|USER|ASSISTANT)\s*:", re.IGNORECASE | re.DOTALL
)
_WEB = re.compile(r"https?://\S+|www\.\S+")
_APOLOGY = re.compile(
    r"\b(?:i(?:'m| am) sorry|i apologi[sz]e|my mistake|as an ai|language model|i (?:cannot|can't|can not) see)\b|"
    r"申し訳|ごめんなさい|AIとして",
    re.IGNORECASE,
)
_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_TERMINAL = re.compile(r"[.!?。！？][\"'”’」)]*$")


@dataclass(frozen=True)
class Rules:
    """What is kept. Sizes are in words, or in characters for Japanese."""

    min_words: int = 40
    max_words: int = 400
    min_distinct: float = 0.55  # distinct pairs of neighbouring words, of all pairs; below it a text goes in circles
    max_odd: float = 0.15  # share of characters that are neither letters, digits, blanks nor common punctuation


def size_of(text: str) -> int:
    """Words; of a text in Japanese, characters."""
    return len(units(text))


def units(text: str) -> list[str]:
    """What a text is counted in: words, or characters where it is Japanese."""
    return [c for c in text if not c.isspace()] if _JAPANESE.search(text) else text.split()


def clean(text: str) -> str:
    """The text without template leftovers, addresses, apologies, repeated sentences and an unfinished end."""
    text = _WEB.sub("", _LEFTOVER.sub("", text))
    text = re.sub(r"\s+", " ", text).strip()
    found = sentences(text)
    seen: set[str] = set()
    kept = []
    for sentence in found:
        key = re.sub(r"[\W_]+", "", sentence).casefold()
        if key and key not in seen and not _APOLOGY.search(sentence):
            seen.add(key)
            kept.append(sentence)
    return ("" if _JAPANESE.search(text) else " ").join(kept)


def sentences(text: str) -> list[str]:
    """The finished sentences of a text; a rest without an end mark is left out."""
    return [found.strip() for found in _SENTENCE.findall(text) if found.strip()]


def unfinished(text: str) -> bool:
    """Whether the text breaks off in the middle of a sentence."""
    return not _TERMINAL.search(text.strip())


def verdict(text: str, rules: Rules) -> str:
    """Why a cleaned text is not kept; "" if it is."""
    size = size_of(text)
    if not text:
        return "nothing_left"
    if size < rules.min_words:
        return "too_short"
    if size > rules.max_words:
        return "too_long"
    words = [word.casefold() for word in units(text)]
    pairs = list(pairwise(words))
    if pairs and len(set(pairs)) < rules.min_distinct * len(pairs):
        return "repetitive"
    odd = sum(not (c.isalnum() or c.isspace() or c in ".,!?'\"-:;()&/%’“”、。！？「」ー・") for c in text)
    if odd > rules.max_odd * len(text):
        return "odd_characters"
    return ""
