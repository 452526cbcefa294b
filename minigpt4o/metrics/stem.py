"""Porter's stemmer: "sleeping", "sleeps" and "sleep" are one word.

Source: Porter 1980, An algorithm for suffix stripping.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

_STEP_2 = """ational ate tional tion enci ence anci ance izer ize abli able alli al entli ent eli e ousli ous
ization ize ation ate ator ate alism al iveness ive fulness ful ousness ous aliti al iviti ive biliti ble"""
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = """al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize"""
_PAIRS_2 = dict(zip(_STEP_2.split()[::2], _STEP_2.split()[1::2], strict=True))


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The stem of a lower-case English word; anything that is not letters a to z stays as it is."""
    if len(word) <= 2 or not (word.isascii() and word.isalpha()):
        return word
    word = _plural(word)
    word = _past(word)
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    word = _replaced(word, _PAIRS_2)
    word = _replaced(word, _STEP_3)
    word = _cut(word)
    if word.endswith("e") and (_measure(word[:-1]) > 1 or (_measure(word[:-1]) == 1 and not _short(word[:-1]))):
        word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _consonant(word: str, place: int) -> bool:
    if word[place] in "aeiou":
        return False
    return word[place] != "y" or place == 0 or not _consonant(word, place - 1)


def _measure(word: str) -> int:
    """How often a vowel is followed by a consonant: m in [C](VC)^m[V]."""
    kinds = [_consonant(word, place) for place in range(len(word))]
    return sum(not here and after for here, after in pairwise(kinds))


def _has_vowel(word: str) -> bool:
    return not all(_consonant(word, place) for place in range(len(word)))


def _double(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _consonant(word, len(word) - 1)


def _short(word: str) -> bool:
    """Ends consonant, vowel, consonant, the last not w, x or y."""
    if len(word) < 3 or word[-1] in "wxy":
        return False
    end = len(word)
    return _consonant(word, end - 3) and not _consonant(word, end - 2) and _consonant(word, end - 1)


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        rest = word.removesuffix(suffix)
        if rest != word and _has_vowel(rest):
            if rest.endswith(("at", "bl", "iz")):
                return rest + "e"
            if _double(rest) and rest[-1] not in "lsz":
                return rest[:-1]
            return rest + "e" if _measure(rest) == 1 and _short(rest) else rest
    return word


def _replaced(word: str, table: dict[str, str]) -> str:
    for suffix in sorted(table, key=len, reverse=True):
        if word.endswith(suffix):
            rest = word.removesuffix(suffix)
            return rest + table[suffix] if _measure(rest) > 0 else word
    return word


def _cut(word: str) -> str:
    for suffix in sorted(_STEP_4.split(), key=len, reverse=True):
        if word.endswith(suffix):
            rest = word.removesuffix(suffix)
            fits = _measure(rest) > 1 and (suffix != "ion" or rest.endswith(("s", "t")))
            return rest if fits else word
    return word
