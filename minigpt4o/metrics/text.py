"""Cut text into words for scoring: English like the COCO tools' Penn Treebank tokenizer, Japanese by characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

# The COCO caption tools drop these tokens after the Penn Treebank tokenizer made them.
_DROPPED = "'' ' `` ` . ? ! , : - -- ... ; \" “ ” ‘ ’ … – —"
PUNCTUATION = frozenset(_DROPPED.split())
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

# Order matters: the first alternative that matches wins.
_TOKEN = re.compile(
    r"""
    \d+(?:[.,:]\d+)+              # 3.5  1,000  10:30
  | (?:[a-z]\.){2,}               # u.s.
  | (?:mr|mrs|ms|dr|st|jr|sr|vs|etc|prof)\.(?=\s\S)  # abbreviations keep their point inside a sentence
  | \w+(?:[-&/]\w+)+              # black-and-white  b&w
  | \w+(?:['’]\w+)*               # words, with an apostrophe inside; split further below
  | ['’]\w+                       # 's standing alone
  | \.\.\.|--
  | [^\w\s]
    """,
    re.VERBOSE,
)
_CLITIC = re.compile(r"^(.+?)(n['’]t|['’](?:s|m|d|re|ve|ll))$")
_SPLIT_WORDS = {"cannot": ["can", "not"], "gonna": ["gon", "na"], "gotta": ["got", "ta"], "wanna": ["wan", "na"]}
_JAPANESE_DROPPED = frozenset("、。，．・？！「」『』（）…ー〜,.?!()'\"")


def english_words(text: str) -> list[str]:
    """Lower-cased tokens without punctuation: "A man's dog, isn't it?" -> a man 's dog is n't it."""
    words: list[str] = []
    for token in _TOKEN.findall(text.lower()):
        words += _without_clitics(token)
    return [BRACKETS.get(word, word) for word in words if word not in PUNCTUATION]


def _without_clitics(token: str) -> list[str]:
    if token in _SPLIT_WORDS:
        return _SPLIT_WORDS[token]
    found = _CLITIC.match(token)
    if not found:
        return [token]
    head, tail = found.groups()
    return [*_without_clitics(head), tail.replace("’", "'")]


def japanese_words(text: str) -> list[str]:
    """Words by fugashi where it is installed, else single characters (runs of Latin letters and digits stay whole)."""
    text = unicodedata.normalize("NFKC", text).lower()
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
    return "ptb-like"


def words(text: str, language: str = "en") -> list[str]:
    """Tokens of a text in its language; everything but Japanese is cut as English is."""
    return japanese_words(text) if language == "ja" else english_words(text)
