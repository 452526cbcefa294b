"""Random caption sets, the same on every machine: what our scorers and the COCO tools' are compared on."""

from __future__ import annotations

import random

SETS = 1000
WORDS = """a the cat dog man woman red blue big small sits runs on under table street and with two of in
black-and-white 's n't 3.5 -lrb- -rrb- über 赤い 1\xa01/2""".replace("\n", " ").split(" ")

Captions = list[str]  # tokens joined by blanks


def caption_set(number: int) -> tuple[Captions, list[Captions]]:
    """(candidates, references) of one set: 1 to 8 samples with 1 to 5 references of 0 to 14 words."""
    draw = random.Random(f"caption set {number}")
    size = draw.randint(1, 8)
    references = [[_caption(draw) for _ in range(draw.randint(1, 5))] for _ in range(size)]
    return [_candidate(draw, one) for one in references], references


def _caption(draw: random.Random) -> str:
    length = 0 if draw.random() < 0.02 else draw.randint(1, 14)
    return " ".join(draw.choice(WORDS) for _ in range(length))


def _candidate(draw: random.Random, references: Captions) -> str:
    """A reference with a few words changed, dropped or said twice; sometimes nothing at all."""
    if draw.random() < 0.04:
        return ""
    words = draw.choice(references).split(" ")
    for _ in range(draw.randint(0, 4)):
        place = draw.randrange(len(words))
        words[place : place + draw.randint(0, 1)] = [draw.choice(WORDS)] * draw.randint(0, 2)
        words = words or ["a"]
    return " ".join(word for word in words if word)
