"""Cut text into words for scoring: English as the COCO caption tools do, Japanese by fugashi or by characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

from minigpt4o.metrics.ptb import coco_words

_JAPANESE_DROPPED = frozenset("、。，．・？！「」『』（）…ー〜,.?!()'\"")


def said(answer: object) -> str:
    """What a metric reads of an answer: nothing of None, the digits of a number, a text as it is."""
    return answer if isinstance(answer, str) else "" if answer is None else str(answer)


def english_words(text: str) -> list[str]:
    """Lower-cased tokens without punctuation: "A man's dog, isn't it?" -> a man 's dog is n't it."""
    return coco_words([said(text)])[0]


def japanese_words(text: str) -> list[str]:
    """Words by fugashi where it is installed, else single characters (runs of Latin letters and digits stay whole)."""
    text = unicodedata.normalize("NFKC", said(text)).lower()
    tagger = _japanese_tagger()
    if tagger is not None:
        cut = [word.surface for word in tagger(text)]
    else:
        cut = re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text)
    return [word for word in cut if word.strip() and word not in _JAPANESE_DROPPED]


@lru_cache(maxsize=1)
def _japanese_tagger() -> Callable[[str], list] | None:
    try:
        import fugashi

        return fugashi.Tagger()
    except (ImportError, RuntimeError):  # RuntimeError: fugashi without a dictionary
        return None


def tokenizer_name(language: str) -> str:
    """Which cut `words` makes, for the record of a result."""
    if language == "ja":
        return "fugashi" if _japanese_tagger() is not None else "characters"
    return "ptb (CoreNLP 3.4.1)"


def words(text: str, language: str = "en") -> list[str]:
    """Tokens of a text in its language; everything but Japanese is cut as English is."""
    return japanese_words(text) if language == "ja" else english_words(text)


def words_of(texts: Sequence[str], languages: Sequence[str] | str = "en") -> list[list[str]]:
    """Tokens of many texts, each in its language.

    The texts that are not Japanese are cut in one go, in their order: as in the COCO tools, which write one file of a
    caption a line, the end of a caption ("plan B.") may be cut by what the next one begins with.
    """
    named = [languages] * len(texts) if isinstance(languages, str) else list(languages)
    plain = iter(coco_words([said(text) for text, name in zip(texts, named, strict=True) if name != "ja"]))
    return [japanese_words(text) if name == "ja" else next(plain) for text, name in zip(texts, named, strict=True)]


def caption_words(
    candidates: Sequence[str], references: Sequence[Sequence[str]], languages: Sequence[str] | str = "en"
) -> tuple[list[list[str]], list[list[list[str]]], str]:
    """(tokens of N candidates, tokens of their references, name of the cut): what the caption metrics take."""
    named = [languages] * len(candidates) if isinstance(languages, str) else list(languages)
    flat = [text for one in references for text in one]
    owners = [name for one, name in zip(references, named, strict=True) for _ in one]
    cut = iter(words_of(flat, owners))
    tokens = [[next(cut) for _ in one] for one in references]
    return words_of(candidates, named), tokens, "+".join(sorted({tokenizer_name(name) for name in named}))
