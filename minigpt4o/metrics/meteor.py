"""`meteor_exact`: METEOR's formula over exact and stem matches. It is not METEOR, which also knows synonyms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from minigpt4o.metrics.result import Measured, mean
from minigpt4o.metrics.stem import stem

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5  # weight of recall, power and weight of the penalty (Lavie and Agarwal 2007)

Tokens = Sequence[str]


def meteor_exact(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Measured:
    """Best over the references of F (recall weighs nine times precision), less for words in another order."""
    each = [
        max((_score(candidate, one) for one in refs), default=0.0)
        for candidate, refs in zip(candidates, references, strict=True)
    ]
    return Measured(mean(each), each, "meteor_exact: METEOR's formula, exact and Porter-stem matches, no synonyms")


def _score(candidate: Tokens, reference: Tokens) -> float:
    matches = aligned(candidate, reference)
    if not matches:
        return 0.0
    precision, recall = len(matches) / len(candidate), len(matches) / len(reference)
    value = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    chunks = 1 + sum((here[0] + 1, here[1] + 1) != after for here, after in pairwise(matches))
    return value * (1 - GAMMA * (chunks / len(matches)) ** BETA)


def aligned(candidate: Tokens, reference: Tokens) -> list[tuple[int, int]]:
    """(place in the candidate, place in the reference) of matched words: exact ones first, then equal stems.

    Greedy from the left; a word goes on where the last match ended if it can, else to its first free equal.
    """
    pairs: dict[int, int] = {}
    for form in (_same, stem):
        _match(candidate, reference, form, pairs)
    return sorted(pairs.items())


def _same(word: str) -> str:
    return word


def _match(candidate: Tokens, reference: Tokens, form: Callable[[str], str], pairs: dict[int, int]) -> None:
    free: dict[str, list[int]] = {}
    taken = set(pairs.values())
    for place, word in enumerate(reference):
        if place not in taken:
            free.setdefault(form(word), []).append(place)
    for place, word in enumerate(candidate):
        places = free.get(form(word)) if place not in pairs else None
        if not places:
            continue
        wanted = pairs.get(place - 1, -2) + 1
        pairs[place] = places.pop(places.index(wanted) if wanted in places else 0)
