"""Multiple choice and yes/no answers read from free text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from minigpt4o.metrics.result import Measured, mean

_YES = frozenset({"yes", "true", "はい", "正しい"})
_NO = frozenset({"no", "not", "false", "いいえ", "違う", "間違い"})


def read_yes_no(answer: str) -> str | None:
    """ "yes", "no" or None; the first such word decides, so "No, it is not" is no."""
    found = re.findall(r"[a-z]+|はい|いいえ|正しい|違う|間違い", answer.lower())
    for word in found:
        if word in _YES:
            return "yes"
        if word in _NO:
            return "no"
    return None


def read_choice(answer: str, choices: Sequence[str]) -> int | None:
    """Index of the chosen one: its letter ("B", "(b)", "B."), its exact text, or the only choice the answer names."""
    text = answer.strip().lower()
    lowered = [choice.strip().lower() for choice in choices]
    if text in lowered:
        return lowered.index(text)
    letter = re.match(r"^\(?([a-z])(?:[).:]|\s|$)", text)
    if letter and ord(letter.group(1)) - ord("a") < len(choices):
        return ord(letter.group(1)) - ord("a")
    named = [i for i, choice in enumerate(lowered) if choice and re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", text)]
    return named[0] if len(named) == 1 else None


def accuracy(read: Sequence[object], true: Sequence[object]) -> Measured:
    """Share of equal ones; an answer that could not be read (None) is wrong."""
    each = [float(r is not None and r == t) for r, t in zip(read, true, strict=True)]
    return Measured(mean(each), each, "accuracy, unreadable = wrong")
