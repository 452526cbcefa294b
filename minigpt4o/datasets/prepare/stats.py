"""Distributions of a data set: rounds, lengths, media, sizes of pictures and boxes, seconds; headers only are read.

Of each sample a few numbers are kept, so a million samples cost some 60 MB.
"""

from __future__ import annotations

import hashlib
import io
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.marks import unescape_marks
from minigpt4o.conversation.objects import written
from minigpt4o.conversation.sample import MARKS, Media, Sample
from minigpt4o.datasets.base import Builder
from minigpt4o.datasets.prepare.scripts import script_of_turns
from minigpt4o.datasets.prepare.walk import drawn
from minigpt4o.processors.orientation import DAMAGED, seen_size

HEAD = 1 << 16  # bytes in which a picture's header almost always lies
PERCENTILES = (1, 25, 50, 75, 99)
FREQUENT = 10  # answers that are named

# What is measured of each sample, in the order of the report; those of one medium or box come as often as there are.
MEASURES = (
    "rounds",
    "pictures",
    "sounds",
    "asked characters",
    "answered characters",
    "answered words",
    "picture width",
    "picture height",
    "picture aspect",
    "seconds",
    "sample rate",
    "boxes",
    "box area %",
)


@dataclass(slots=True)
class Measured:
    """What a worker measured of one sample."""

    index: int
    reason: str = ""
    detail: str = ""
    values: dict[str, list[float]] = field(default_factory=dict)
    answer: int = 0  # hash of the last answer
    script: str = ""
    unread: int = 0  # media whose header could not be read


class Measurer:
    """Measures samples; without `media` no file is opened."""

    def __init__(self, media: bool) -> None:
        self.media = media

    def __call__(self, builder: Builder, index: int) -> Measured:
        sample = drawn(builder, index)
        if isinstance(sample, SkipSample):
            return Measured(index, sample.reason, sample.detail)
        sample = written(sample)
        measured = Measured(index)
        _text(sample, measured)
        _boxes(sample, measured)
        if self.media:
            for picture in sample.images:
                _picture(picture, measured)
            for sound in sample.audios:
                _sound(sound, measured)
        return measured


def last_answer(sample: Sample) -> str:
    """What the assistant says last."""
    return next((unescape_marks(t.text) for t in reversed(written(sample).turns) if t.role == "assistant"), "")


def answer_hash(text: str) -> int:
    """64 bits of an answer."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _text(sample: Sample, measured: Measured) -> None:
    asked = "".join(t.text for t in sample.turns if t.role != "assistant")
    for mark in MARKS.values():
        asked = asked.replace(mark, "")
    answers = [t.text for t in sample.turns if t.role == "assistant"]
    answered = " ".join(answers)
    measured.values = {
        "rounds": [len(answers)],
        "pictures": [len(sample.images)],
        "sounds": [len(sample.audios)],
        "asked characters": [len(asked)],
        "answered characters": [sum(map(len, answers))],
        "answered words": [len(answered.split())],
    }
    measured.answer = answer_hash(last_answer(sample))
    measured.script = script_of_turns(asked, answered)


def _boxes(sample: Sample, measured: Measured) -> None:
    if not sample.boxes:
        return
    measured.values["boxes"] = [len(sample.boxes)]
    areas = []
    for box in sample.boxes:
        (x1, y1, x2, y2), (width, height) = box.xyxy, box.image_size
        if width > 0 and height > 0:
            areas.append(100.0 * (x2 - x1) * (y2 - y1) / (width * height))
    measured.values["box area %"] = areas


def _picture(media: Media, measured: Measured) -> None:
    size = picture_size(media)
    if size is None:
        measured.unread += 1
        return
    width, height = size
    for name, value in (("width", width), ("height", height), ("aspect", width / max(height, 1))):
        measured.values.setdefault(f"picture {name}", []).append(value)


def picture_size(media: Media) -> tuple[int, int] | None:
    """(width, height) as it is seen upright, from the first bytes; None if they are no picture."""
    from PIL import Image

    for limit in (HEAD, -1):  # a few headers are longer: those files are read whole
        try:
            with Image.open(io.BytesIO(_head(media, limit))) as image:
                if limit > 0:
                    image.getexif()  # raises where it may stand behind the pixels, as in a PNG
                return seen_size(image)
        except (*DAMAGED, Image.DecompressionBombError):
            continue
    return None


def _head(media: Media, limit: int) -> bytes:
    if limit < 0 or media.data is not None:
        return media.read()
    size = limit if media.size < 0 else min(limit, media.size)
    return Media(path=media.path, offset=media.offset, size=size).read()


def _sound(media: Media, measured: Measured) -> None:
    import soundfile

    whole = media.path and media.offset == 0 and media.size < 0
    try:
        info = soundfile.info(media.path if whole else io.BytesIO(media.read()))
    except (soundfile.LibsndfileError, RuntimeError, OSError):
        measured.unread += 1
        return
    measured.values.setdefault("seconds", []).append(info.frames / max(info.samplerate, 1))
    measured.values.setdefault("sample rate", []).append(info.samplerate)


@dataclass
class SplitStats:
    """What was measured in one split of one data set."""

    dataset: str
    split: str
    total: int
    values: dict[str, array[float]] = field(default_factory=lambda: {name: array("f") for name in MEASURES})
    answers: array[int] = field(default_factory=lambda: array("Q"))
    index: array[int] = field(default_factory=lambda: array("Q"))  # of the sample, beside answers
    scripts: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=dict)
    unread: int = 0

    def add(self, measured: Measured) -> None:
        if measured.reason:
            self.bad[measured.reason] += 1
            self.first.setdefault(measured.reason, [f"[{measured.index}] {measured.detail}"])
            return
        for name, values in measured.values.items():
            self.values[name].extend(values)
        self.answers.append(measured.answer)
        self.index.append(measured.index)
        self.scripts[measured.script] += 1
        self.unread += measured.unread

    def spread(self, name: str) -> dict[str, float]:
        """Count, mean, shortest, percentiles, longest of a measure; empty if nothing has it or all are 0."""
        numbers = np.frombuffer(self.values[name], np.float32) if len(self.values[name]) else np.zeros(0, np.float32)
        if not numbers.any():
            return {}
        found = {"count": float(len(numbers)), "mean": float(numbers.mean(dtype=np.float64))}
        found["min"] = float(numbers.min())
        found |= {
            f"p{p}": float(value) for p, value in zip(PERCENTILES, np.percentile(numbers, PERCENTILES), strict=True)
        }
        return {**found, "max": float(numbers.max())}

    def frequent(self) -> list[tuple[int, int]]:
        """(index of a sample with the answer, how often) of the answers that come more than once."""
        if not len(self.answers):
            return []
        answers = np.frombuffer(self.answers, np.uint64)
        _, first, counts = np.unique(answers, return_index=True, return_counts=True)
        best = np.lexsort((first, -counts))[:FREQUENT]
        return [(int(self.index[first[i]]), int(counts[i])) for i in best if counts[i] > 1]

    def different(self) -> int:
        """How many different answers there are."""
        return len(np.unique(np.frombuffer(self.answers, np.uint64))) if len(self.answers) else 0

    def record(self, frequent: list[tuple[str, int]]) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "samples": self.total,
            "measures": {name: found for name in MEASURES if (found := self.spread(name))},
            "different_answers": self.different(),
            "frequent_answers": [{"answer": text, "count": count} for text, count in frequent],
            "scripts": dict(self.scripts.most_common()),
            "bad": dict(self.bad),
            "unreadable_headers": self.unread,
        }
