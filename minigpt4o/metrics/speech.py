"""Word and character error rates of transcripts, over the corpus and per utterance, with named normalisers.

Source of `whisper_basic`: the basic text normaliser that Whisper's evaluation uses for languages other than English.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal

from minigpt4o.metrics.edits import distance
from minigpt4o.metrics.result import Measured
from minigpt4o.metrics.text import said

Normaliser = Literal["none", "basic", "whisper_basic"]

_APOSTROPHES = str.maketrans("’‘ʼ＇", "''''")
_IN_BRACKETS = re.compile(r"[<\[][^>\]]*[>\]]")
_IN_PARENTHESES = re.compile(r"\(([^)]+?)\)")


def plain_words(text: str) -> str:
    """Lower case, punctuation and symbols to blanks save an apostrophe inside a word: "It's 5%." -> it's 5."""
    text = unicodedata.normalize("NFKC", text).lower().translate(_APOSTROPHES)
    kept = "".join(" " if _is_mark(letter) and letter != "'" else letter for letter in text)
    return " ".join(word for word in (one.strip("'") for one in kept.split()) if word)


def whisper_basic(text: str) -> str:
    """Lower case, what stands in brackets dropped, marks, symbols and punctuation to blanks: "It's [noise]" -> it s."""
    text = _IN_PARENTHESES.sub("", _IN_BRACKETS.sub("", text.lower()))
    text = unicodedata.normalize("NFKC", text)
    text = "".join(" " if unicodedata.category(letter)[0] in "MSP" else letter for letter in text)
    return " ".join(text.lower().split())


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "SP"


_NORMALISERS: dict[str, Callable[[str], str]] = {
    "none": lambda text: " ".join(text.split()),
    "basic": plain_words,
    "whisper_basic": whisper_basic,
}


def wer(answers: Sequence[str], truths: Sequence[str], normaliser: Normaliser = "basic") -> Measured:
    """Word error rate: edits of all utterances / words of all true transcripts; can be above 1.

    `each` is the rate of each utterance (edits / its words, or / 1 where the truth is empty). Lower is better.
    """
    form = _NORMALISERS[normaliser]
    pairs = [(form(said(a)).split(), form(said(t)).split()) for a, t in zip(answers, truths, strict=True)]
    return _rate(pairs, answers, f"WER, corpus: edits / true words, normaliser {normaliser}")


def cer(answers: Sequence[str], truths: Sequence[str], normaliser: Normaliser = "basic") -> Measured:
    """Character error rate, blanks not counted: the rate for Japanese, where words have no borders. Lower is better."""
    form = _NORMALISERS[normaliser]
    pairs = [
        ("".join(form(said(a)).split()), "".join(form(said(t)).split())) for a, t in zip(answers, truths, strict=True)
    ]
    return _rate(pairs, answers, f"CER, corpus: edits / true characters, blanks not counted, normaliser {normaliser}")


def rate_of_sums(sums: Sequence[float]) -> float:
    """Edits over true length; where nothing was said, every word of an answer is one edit over 1."""
    return float(sums[0]) / max(1.0, float(sums[1]))


def _rate(pairs: Sequence[tuple[Sequence[str], Sequence[str]]], answers: Sequence[str], variant: str) -> Measured:
    rows = [[float(distance(answer, truth)), float(len(truth))] for answer, truth in pairs]
    sums = [sum(column) for column in zip(*rows, strict=True)] or [0.0, 0.0]
    unread = [not said(answer).strip() for answer in answers]
    each = [rate_of_sums(row) for row in rows]
    return Measured(rate_of_sums(sums), each, variant, rows, rate_of_sums, unread, "lower")
