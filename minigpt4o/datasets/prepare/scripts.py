"""The script a text is written in: a simple rule by the ranges of its letters, no model and no word list.

Any kana makes a text Japanese, any hangul Korean; else the script of most letters, ideographs counting as Chinese.
"""

from __future__ import annotations

import re

_RANGES = {
    "Japanese": "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f",  # kana
    "Korean": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "Chinese": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ffff",  # ideographs without any kana
    "Latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a",
    "Greek": "\u0370-\u03ff",
    "Cyrillic": "\u0400-\u052f",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f",
    "Devanagari": "\u0900-\u097f",
    "Thai": "\u0e00-\u0e7f",
}
_LETTERS = {name: re.compile(f"[{letters}]") for name, letters in _RANGES.items()}
_ASCII_LETTER = re.compile(r"[A-Za-z]")
_DECIDES = ("Japanese", "Korean")
NONE = "no letters"


def script_of(text: str) -> str:
    """`Latin`, `Japanese`, ...; `no letters` for numbers and signs, `other` for letters of further scripts."""
    if text.isascii():
        return "Latin" if _ASCII_LETTER.search(text) else NONE
    for name in _DECIDES:
        if _LETTERS[name].search(text):
            return name
    counts = {name: sum(1 for _ in found.finditer(text)) for name, found in _LETTERS.items()}
    best = max(counts, key=lambda name: counts[name])
    if counts[best]:
        return best
    return "other" if any(c.isalpha() for c in text) else NONE


def script_of_turns(asked: str, answered: str) -> str:
    """The script of the answers; where they hold no letters (boxes, numbers), that of the questions."""
    found = script_of(answered)
    return found if found != NONE else script_of(asked)
