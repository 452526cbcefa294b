"""How much of what is really there a caption says: the true attribute words, object by object, clause by clause."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import permutations

from minigpt4o.metrics.result import Measured, mean

# A new clause begins here, so that "a red circle and a blue square" cannot be credited with a blue circle.
_ENGLISH_CLAUSE = re.compile(r"[.,;:!?\n]+|\b(?:and|then|followed by|with|while|beside|next to)\b")
_JAPANESE_CLAUSE = re.compile(r"[、。，．,.;!?\n]+|と|そして|次に")
_MOST_OBJECTS = 5  # every assignment of clauses to objects is tried up to here
_MOST_CLAUSES = 8

Objects = Sequence[Sequence[str]]  # per object, its attribute words


def plain(text: str) -> str:
    """NFKC and lower case."""
    return unicodedata.normalize("NFKC", text).lower()


def clauses(caption: str, language: str = "en") -> list[str]:
    """The caption cut where a new object may begin."""
    cut = (_JAPANESE_CLAUSE if language == "ja" else _ENGLISH_CLAUSE).split(plain(caption))
    return [clause.strip() for clause in cut if clause.strip()]


class Vocabulary:
    """All attribute words of a data set. The longest wins: in "top left" neither "top" nor "left" is said."""

    def __init__(self, words: Iterable[str], language: str = "en") -> None:
        ordered = sorted({plain(word) for word in words if word}, key=lambda word: (-len(word), word))
        body = "|".join(re.escape(word) for word in ordered) or r"(?!)"
        self._pattern = re.compile(body if language == "ja" else rf"(?<!\w)(?:{body})(?!\w)")  # ja: no spaces to see

    def said(self, clause: str) -> Counter[str]:
        """How often each attribute word stands in a clause."""
        return Counter(self._pattern.findall(clause))


def said_words(caption: str, objects: Objects, vocabulary: Vocabulary, language: str = "en") -> list[int]:
    """For each object, how many of its words its own clause says, under the assignment that says most in all."""
    found = [vocabulary.said(clause) for clause in clauses(caption, language)]
    table = [[sum((Counter(map(plain, words)) & said).values()) for said in found] for words in objects]
    if not found or not objects:
        return [0] * len(objects)
    for row in table:
        row += [0] * max(0, len(objects) - len(found))  # an object may get no clause
    if len(objects) > _MOST_OBJECTS or len(table[0]) > _MOST_CLAUSES:
        return _greedy(table)
    ways = permutations(range(len(table[0])), len(objects))
    best = max(ways, key=lambda way: sum(row[column] for row, column in zip(table, way, strict=True)))
    return [row[column] for row, column in zip(table, best, strict=True)]


def _greedy(table: list[list[int]]) -> list[int]:
    free = set(range(len(table[0])))
    said = []
    for row in table:
        column = max(free, key=lambda c: (row[c], -c))
        free.discard(column)
        said.append(row[column])
    return said


def _counts(captions: Sequence[str], objects: Sequence[Objects], languages: Sequence[str]) -> list[list[int]]:
    words: dict[str, set[str]] = {}
    for true, language in zip(objects, languages, strict=True):
        words.setdefault(language, set()).update(word for one in true for word in one)
    known = {language: Vocabulary(found, language) for language, found in words.items()}
    rows = zip(captions, objects, languages, strict=True)
    return [said_words(caption, true, known[language], language) for caption, true, language in rows]


def attribute_accuracy(
    captions: Sequence[str], objects: Sequence[Objects], languages: Sequence[str]
) -> tuple[Measured, Measured]:
    """(words, objects): per caption the share of true words said, and the share of objects said with all their words.

    An object's words count only within one clause, and a clause serves one object only. Things said that are not there
    cost nothing here; CIDEr-D shows them.
    """
    counts = _counts(captions, objects, languages)
    by_word, by_object = [], []
    for said, true in zip(counts, objects, strict=True):
        total = sum(len(one) for one in true)
        by_word.append(sum(said) / total if total else 1.0)
        by_object.append(mean([float(n == len(one)) for n, one in zip(said, true, strict=True)]) if true else 1.0)
    return (
        Measured(mean(by_word), by_word, "share of true attribute words said, an object's words within one clause"),
        Measured(mean(by_object), by_object, "share of objects said with all their attribute words in one clause"),
    )
