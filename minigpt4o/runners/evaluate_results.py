"""From predictions to scores with intervals, what the media bring, and scores by language, type, box and length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from minigpt4o.conversation.sample import UNNAMED
from minigpt4o.metrics.intervals import paired, paired_difference
from minigpt4o.metrics.result import Measured, mean
from minigpt4o.metrics.text import words
from minigpt4o.runners.evaluate_answers import skips_of
from minigpt4o.runners.evaluate_journal import Row
from minigpt4o.tasks.base import EvaluationTask, Prediction, score_of

Tree = dict[str, Any]
BOX_SIZES = (("small", 0.05), ("medium", 0.25))  # below this share of the picture's area
ANSWER_LENGTHS = (("1 word", 1), ("2-3 words", 3), ("4-8 words", 8), ("9-20 words", 20))  # at most so many


@dataclass
class Scored:
    """The answers of one data set, variant and condition, measured."""

    predictions: list[Prediction]  # what could not be asked is among them, with an empty answer
    measured: dict[str, Measured]
    result: Tree = field(default_factory=dict)

    @property
    def headline(self) -> str:
        """The most important metric that was measured; "" without predictions."""
        return next(iter(self.measured), "")

    def each(self) -> dict[str, float]:
        """Id -> the headline metric's share of that sample."""
        if not self.measured:
            return {}
        return {p.id: v for p, v in zip(self.predictions, self.measured[self.headline].each, strict=True)}


def scored(task: EvaluationTask, rows: Sequence[Row], rounds: int, seed: int) -> Scored:
    """Measure the rows of a predictions file.

    Samples about one picture or sound are no independent draws: intervals draw them together.
    A sample that could not be asked, or has no answer, stays in the denominator as an empty answer that is wrong;
    `scores_answered` then gives the same over the answered ones alone. Where nobody tells the truth of any sample
    (a leaderboard's) there are no scores; `no_truth` says of how many it is missing.
    """
    answered = sum("skipped" not in row for row in rows)
    known = [row for row in rows if "truth" in row] if answered else []
    predictions = [Prediction.from_row(row) for row in known]
    gone = {place for place, row in enumerate(known) if "skipped" in row}
    untold = sum(not (prediction.truth or prediction.boxes) for prediction in predictions)
    measured = task.measure(predictions) if untold < len(predictions) else {}
    measured = {
        name: replace(_wrong_at(one, gone), groups=list(map(_shown, predictions))) for name, one in measured.items()
    }
    result: Tree = {"n": answered, "asked": len(rows), "skipped": dict(skips_of(rows))}
    if untold:
        result["no_truth"] = untold
    empty = sum(not row["answer"].strip() for row in rows if "skipped" not in row)
    if empty:
        result["empty_answers"] = empty
    result["scores"] = {name: asdict(score_of(one, rounds, seed)) for name, one in measured.items()}
    if gone:
        kept = [place for place in range(len(known)) if place not in gone]
        alone = {name: one.subset(kept) for name, one in measured.items()}
        result["scores_answered"] = {name: asdict(score_of(one, rounds, seed)) for name, one in alone.items()}
    return Scored(predictions, measured, result)


def _shown(prediction: Prediction) -> str:
    """The media an answer is about, by name; the sample itself where it has none or they have no names."""
    named = prediction.media and all(UNNAMED not in names for names in prediction.media.values())
    return str(prediction.media) if named else prediction.id


def _wrong_at(measured: Measured, gone: set[int]) -> Measured:
    """A mean metric is 0 where nothing was answered, whatever it makes of an empty answer; a metric of sums, and one
    that counts errors, takes the empty answer as it is. None of them is an answer that could not be read."""
    if not gone:
        return measured
    unread = [one and place not in gone for place, one in enumerate(measured.unread)]
    if measured.corpus is not None or measured.better == "lower":
        return replace(measured, unread=unread)
    each = [0.0 if place in gone else value for place, value in enumerate(measured.each)]
    return replace(measured, each=each, value=mean(each), unread=unread)


def breakdown(found: Scored, keys: Sequence[str], rounds: int, seed: int) -> Tree:
    """{"language": {"ja": {metric: score}}, "question_type": ...}: only keys that divide the samples."""
    tree: Tree = {}
    for key in ("language", *keys) if found.measured else ():
        groups: dict[str, list[int]] = {}
        for place, prediction in enumerate(found.predictions):
            groups.setdefault(fact(prediction, key), []).append(place)
        if len(groups) > 1 or (key == "language" and "" not in groups):
            tree[key] = {
                group: {
                    name: asdict(score_of(one.subset(places), rounds, seed)) for name, one in found.measured.items()
                }
                for group, places in sorted(groups.items())
            }
    return tree


def fact(prediction: Prediction, key: str) -> str:
    """What divides predictions: language, box_size, answer_length, or a key of their meta."""
    if key == "language":
        return prediction.language
    if key in prediction.meta:
        return str(prediction.meta[key])
    if key == "box_size":
        return box_size(prediction)
    return answer_length(prediction) if key == "answer_length" else ""


def box_size(prediction: Prediction) -> str:
    """small, medium or large: the largest true box by its share of the picture's area; "" without boxes."""
    shares = [
        abs((box.xyxy[2] - box.xyxy[0]) * (box.xyxy[3] - box.xyxy[1])) / max(box.image_size[0] * box.image_size[1], 1)
        for box in prediction.boxes
    ]
    return next((name for name, top in BOX_SIZES if max(shares) < top), "large") if shares else ""


def answer_length(prediction: Prediction) -> str:
    """How many words the true answer has (of several, the first); characters of Japanese where nothing cuts words."""
    if not prediction.truth or prediction.boxes:
        return ""
    count = len(words(prediction.truth[0], prediction.language))
    return next((name for name, top in ANSWER_LENGTHS if count <= top), "more than 20 words")


def gain(seen: Scored, baseline: Scored, rounds: int, seed: int) -> Tree:
    """What the media bring: headline of seen minus baseline on the samples both answered, with the paired interval.

    Of an error rate it is baseline minus seen: a gain above 0 is always an improvement.
    """
    places = {p.id: place for place, p in enumerate(seen.predictions) if p.answered}
    shared = [(places[p.id], place) for place, p in enumerate(baseline.predictions) if p.answered and p.id in places]
    if not shared or seen.headline not in baseline.measured:
        found = paired_difference([], [])
    else:
        with_media = seen.measured[seen.headline].subset([a for a, _ in shared])
        without = baseline.measured[seen.headline].subset([b for _, b in shared])
        pair = (without, with_media) if with_media.better == "lower" else (with_media, without)
        found = paired(*pair, rounds, seed)
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n, "interval": found.method}
