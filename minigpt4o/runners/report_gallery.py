"""Which answers a report shows: some at random, some mistakes, each with media, truth and every variant's words."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from minigpt4o.conversation.boxes import BoxError, parse_boxes, to_pixels
from minigpt4o.conversation.sample import Box, Sample
from minigpt4o.runners.evaluate_results import Scored
from minigpt4o.runners.report_media import Picture, Sound, picture, sound

RIGHT_FROM = 0.999  # share of the headline metric from which an answer counts as right
WRONG_BELOW = 0.5
MEDIA_BUDGET = 5_500_000  # characters of media in one report; later examples go without


@dataclass
class Answered:
    """What one variant said."""

    variant: str
    text: str
    share: float  # of the headline metric, 0..1
    boxes: list[Box] = field(default_factory=list)  # read from the text, where the truth has boxes

    @property
    def verdict(self) -> str:
        """right, partly or wrong."""
        return "right" if self.share >= RIGHT_FROM else "wrong" if self.share < WRONG_BELOW else "partly"


@dataclass
class Shown:
    """One example of the report."""

    dataset: str
    id: str
    language: str
    drawn: str  # "random" or "mistake": why it is here
    turns: list[tuple[str, str]]  # (role, text) up to the answer
    truth: list[str]
    answers: list[Answered]
    boxes: list[Box]
    pictures: list[Picture]
    sounds: list[Sound]


def choose(
    samples: Mapping[str, Mapping[str, Sample]],
    found: Mapping[tuple[str, str], Scored],
    variants: Sequence[str],
    count: int,
    seed: int,
) -> list[Shown]:
    """Per data set `count` examples: half drawn at random, half mistakes of the last variant (if it has that many)."""
    share = MEDIA_BUDGET // max(len(samples), 1)
    shown: list[Shown] = []
    for name, known in samples.items():
        left = share
        for drawn, id in draw(found[name, variants[-1]].each(), count, random.Random(f"{seed}/gallery/{name}")):
            example = _example(known[id], drawn, {label: found[name, label] for label in variants}, left > 0)
            size = sum(len(p.uri) for p in example.pictures) + sum(len(s.uri) + len(s.spectrum) for s in example.sounds)
            left -= size
            shown.append(example)
    return shown


def draw(each: Mapping[str, float], count: int, rng: random.Random) -> list[tuple[str, str]]:
    """(why, id): a seeded draw, never a choice of the best."""
    ids = sorted(each)
    rng.shuffle(ids)
    plain = ids[: count - count // 2]
    rest = [id for id in ids[len(plain) :] if each[id] < WRONG_BELOW][: count // 2]
    more = [id for id in ids[len(plain) :] if id not in rest][: count - len(plain) - len(rest)]
    return [("random", id) for id in plain + more] + [("mistake", id) for id in rest]


def _example(sample: Sample, drawn: str, scored: Mapping[str, Scored], with_media: bool) -> Shown:
    answers = []
    for label, one in scored.items():
        text = next((p.answer for p in one.predictions if p.id == sample.id), None)
        if text is not None:
            answers.append(Answered(label, text, one.each()[sample.id], _boxes(text, sample)))
    last = sample.turns[-1] if sample.turns else None
    asked = sample.turns[:-1] if last is not None and last.role == "assistant" else sample.turns
    truth = sample.answers or ([last.text] if last is not None else [])
    if sample.boxes and last is not None:
        truth = [last.text]
    unshown = "left out to keep the report small"
    return Shown(
        dataset=sample.dataset,
        id=sample.id,
        language=sample.language,
        drawn=drawn,
        turns=[(turn.role, turn.text) for turn in asked],
        truth=list(dict.fromkeys(truth)),
        answers=answers,
        boxes=list(sample.boxes),
        pictures=[picture(m) if with_media else Picture(problem=unshown) for m in sample.images],
        sounds=[sound(m) if with_media else Sound(problem=unshown) for m in sample.audios],
    )


def _boxes(text: str, sample: Sample) -> list[Box]:
    """The first box of an answer, in pixels, where boxes were asked for."""
    if not sample.boxes:
        return []
    try:
        return [to_pixels(parse_boxes(text)[0], sample.boxes[0].image_size)]
    except BoxError:
        return []
