"""Which answers a report shows: some at random, some mistakes, each under every condition, with media and scores."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minigpt4o.conversation.boxes import GRID, BoxError, parse_boxes
from minigpt4o.conversation.marks import unescape_marks
from minigpt4o.conversation.objects import written
from minigpt4o.conversation.sample import Sample
from minigpt4o.metrics.result import Measured
from minigpt4o.runners.evaluate_items import SEEN, Item
from minigpt4o.runners.evaluate_ranking import LIKELIHOODS
from minigpt4o.runners.evaluate_results import Scored, fact
from minigpt4o.runners.evaluate_summary import Answers
from minigpt4o.runners.report_html import cut, packed
from minigpt4o.runners.report_media import Shelf

RIGHT_FROM = 0.999  # share of the headline metric from which an answer counts as right
WRONG_BELOW = 0.5
MOST_BOXES = 30  # of one answer that are drawn
TEXT_SHARE = 0.4  # of the room that the examples' words may fill; examples beyond are left out
MEDIA_PLACES = 160  # characters in which an example says where its media stand
MARGIN = 2000  # characters of the room for what stands around the examples and for notes of media that are left out
_TOLD = frozenset({LIKELIHOODS, "generated", "raw_answer", "official_id"})  # of meta: shown in places of their own

Found = Mapping[tuple[str, str, str], Scored]  # by data set, variant, condition
Json = dict[str, Any]


@dataclass
class Browsed:
    """What the page's browser of examples is given: plain data."""

    examples: list[Json] = field(default_factory=list)
    media: list[Json] = field(default_factory=list)
    wanted: int = 0  # examples that were drawn; fewer are there if the page would have become too large
    unshown: int = 0  # media left out for the same reason


def choose(answers: Answers, found: Found, count: int, seed: int, size: int, groups: Sequence[str] = ()) -> Browsed:
    """Per data set `count` examples: half drawn at random, half mistakes of the last variant if it has so many.

    `size` bounds all of it in characters: pictures and sounds beyond are left out, those of the data sets in
    turn, and so are examples whose words alone would fill too much of it. `groups` are facts to show of each sample.
    """
    last = list(answers.variants)[-1]
    drawn = {
        name: draw(shares(found[name, last, SEEN]), count, random.Random(f"{seed}/gallery/{name}"))
        for name in answers.data
    }
    browsed = Browsed(wanted=sum(map(len, drawn.values())))
    left, shown = size * TEXT_SHARE, []
    readers = {name: _Reader(answers, found, name, groups) for name in answers.data}
    for name, why, id in _in_turn(drawn):
        example = readers[name].example(id, why)
        left -= len(packed(example)) + MEDIA_PLACES
        if left < 0:
            break
        shown.append((name, example))
    shelf = Shelf(int(size - MARGIN - (size * TEXT_SHARE - max(left, 0))))
    for own in (True, False):  # what belongs to a sample comes before what was lent to it
        for name, example in shown:
            readers[name].lay(example, shelf, own)
    order = list(answers.data)
    browsed.examples = [one for _, one in sorted(shown, key=lambda pair: order.index(pair[0]))]
    browsed.media, browsed.unshown = shelf.items, shelf.left_out
    return browsed


def _in_turn(drawn: Mapping[str, Sequence[tuple[str, str]]]) -> Iterator[tuple[str, str, str]]:
    """(data set, why, id): the first of every data set, then the second of every one, and so on."""
    for place in range(max(map(len, drawn.values()), default=0)):
        for name, chosen in drawn.items():
            if place < len(chosen):
                yield (name, *chosen[place])


def draw(each: Mapping[str, float], count: int, rng: random.Random) -> list[tuple[str, str]]:
    """(why, id): a seeded draw, never a choice of the best. `each` are shares of a right answer."""
    ids = sorted(each)
    rng.shuffle(ids)
    plain = ids[: count - count // 2]
    rest = [id for id in ids[len(plain) :] if each[id] < WRONG_BELOW][: count // 2]
    more = [id for id in ids[len(plain) :] if id not in rest][: count - len(plain) - len(rest)]
    return [("random", id) for id in plain + more] + [("mistake", id) for id in rest]


def top(measured: Measured) -> float:
    """What a right answer reaches: 1, or where a metric has no such top (CIDEr), the best answer there is."""
    highest = max(measured.each, default=1.0)
    return 1.0 if measured.better == "lower" or highest <= 1 + 1e-9 else highest


def share(measured: Measured, value: float, best: float) -> float:
    """How right an answer is, from 0 to 1."""
    return max(1 - value, 0.0) if measured.better == "lower" else value / best


def shares(scored: Scored) -> dict[str, float]:
    """Id -> how right its answer is by the headline metric."""
    if not scored.measured:  # nobody tells the truth: there are no mistakes to be found
        return {prediction.id: 1.0 for prediction in scored.predictions}
    measured = scored.measured[scored.headline]
    best = top(measured)
    return {id: share(measured, value, best) for id, value in scored.each().items()}


def verdict(measured: Measured, place: int, best: float) -> str:
    """right, partly, wrong or unread; of a metric without a top, partly unless nothing was hit."""
    if place < len(measured.unread) and measured.unread[place]:
        return "unread"
    value = measured.each[place]
    if best != 1:
        return "partly" if value > 0 else "wrong"
    part = share(measured, value, best)
    return "right" if part >= RIGHT_FROM else "wrong" if part < WRONG_BELOW else "partly"


class _Reader:
    """The samples and answers of one data set, by id."""

    def __init__(self, answers: Answers, found: Found, name: str, groups: Sequence[str]) -> None:
        self.answers, self.found, self.name, self.groups = answers, found, name, groups
        conditions = answers.data[name].conditions
        self.best: dict[tuple[str, str], float] = {}
        self.items: dict[str, dict[str, Item]] = {c: {i.sample.id: i for i in items} for c, items in conditions.items()}
        self.places = {
            (label, c): {p.id: place for place, p in enumerate(found[name, label, c].predictions)}
            for label in answers.variants
            for c in conditions
        }

    def example(self, id: str, why: str) -> Json:
        """One sample with everything that was said of it; its media are not laid out yet."""
        sample = written(self.items[SEEN][id].sample)
        last = sample.turns[-1] if sample.turns else None
        answered = last is not None and last.role == "assistant"
        truth = (
            [last.text] if last is not None and answered and (sample.boxes or not sample.answers) else sample.answers
        )
        asked = sample.turns[:-1] if answered else sample.turns
        return {
            "set": self.name,
            "id": id,
            "lang": sample.language,
            "why": why,
            "turns": [[turn.role, cut(turn.text)] for turn in asked],
            "truth": [cut(unescape_marks(one)) for one in dict.fromkeys(truth)][:20],
            "facts": self._facts(id),
            "choices": [cut(str(one), 500) for one in sample.meta.get("choices", [])],
            "boxes": [
                {"at": _shares(box.xyxy, box.image_size), "label": box.label, "image": box.image}
                for box in sample.boxes
            ],
            "under": {c: self._condition(c, id) for c, items in self.items.items() if id in items},
        }

    def _facts(self, id: str) -> Json:
        """What divides the data set, and the plain facts of its row."""
        for (label, condition), places in self.places.items():
            if condition == SEEN and id in places:
                prediction = self.found[self.name, label, SEEN].predictions[places[id]]
                told = {key: fact(prediction, key) for key in self.groups}
                plain = {
                    k: v for k, v in prediction.meta.items() if k not in _TOLD and isinstance(v, str | int | float)
                }
                return {k: cut(str(v), 200) for k, v in {**plain, **told}.items() if v != ""}
        return {}

    def _condition(self, condition: str, id: str) -> Json:
        item = self.items[condition][id]
        told: Json = {"donor": item.donor, "prompt": "", "said": {}}
        for label in self.answers.variants:
            place = self.places[label, condition].get(id)
            if place is None:
                continue
            scored = self.found[self.name, label, condition]
            told["prompt"] = told["prompt"] or cut(scored.predictions[place].prompt)
            if (label, condition) not in self.best and scored.measured:
                self.best[label, condition] = top(scored.measured[scored.headline])
            skipped = self._skip(label, condition, id)
            told["said"][label] = _said(scored, place, self.best.get((label, condition), 1.0), skipped, item.sample)
        return told

    def _skip(self, label: str, condition: str, id: str) -> list[str]:
        return list(self.answers.journals[label, self.name, condition].rows.get(id, {}).get("skipped", []))

    def lay(self, example: Json, shelf: Shelf, own: bool) -> None:
        """Put the media of an example on the shelf: its own, or those of another that were given to it."""
        for condition, told in example["under"].items():
            item = self.items[condition][example["id"]]
            if bool(item.donor) != own:
                told["pictures"] = [shelf.place(one, "image") for one in item.sample.images]
                told["sounds"] = [shelf.place(one, "audio") for one in item.sample.audios]


def _said(scored: Scored, place: int, best: float, skipped: list[str], sample: Sample) -> Json:
    """One answer with its scores; `skipped` says why there is none."""
    prediction = scored.predictions[place]
    told: Json = {
        "text": cut(prediction.answer),
        "verdict": "unasked" if skipped else _verdict(scored, place, best),
        "scores": {name: round(one.each[place], 4) for name, one in scored.measured.items()},
    }
    if skipped:
        told["why"] = ": ".join(skipped)
    if boxes := _boxes(prediction.answer, sample):
        told["boxes"] = boxes
    for key in (LIKELIHOODS, "generated", "raw_answer"):
        if key in prediction.meta:
            told[key] = prediction.meta[key]
    return told


def _verdict(scored: Scored, place: int, best: float) -> str:
    """`open` where nobody tells the truth."""
    return verdict(scored.measured[scored.headline], place, best) if scored.measured else "open"


def _boxes(answer: str, sample: Sample) -> Json | None:
    """The boxes of an answer in shares of its picture's sides, and which picture that is: that of the true boxes."""
    if not sample.boxes and not sample.images:
        return None
    try:
        found = parse_boxes(answer)[:MOST_BOXES]
    except BoxError:
        return None
    meant = {box.image for box in sample.boxes}
    image = meant.pop() if len(meant) == 1 else max(len(sample.images) - 1, 0)
    return {"image": image, "at": [_shares(box, (GRID, GRID)) for box in found]}


def _shares(xyxy: Sequence[float], size: tuple[int, int]) -> list[float]:
    width, height = max(size[0], 1), max(size[1], 1)
    x1, y1, x2, y2 = xyxy
    return [round(v, 5) for v in (x1 / width, y1 / height, x2 / width, y2 / height)]
