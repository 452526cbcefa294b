"""Look at every sample and say how healthy a data set is: what cannot be used, what is there twice, what leaks.

A million samples cost some 50 MB: of each sample only eight-byte hashes and two lengths are kept.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.marks import unescape_marks
from minigpt4o.conversation.objects import written
from minigpt4o.conversation.sample import MARKS, Media, MediaKind, Sample
from minigpt4o.datasets.base import Builder
from minigpt4o.datasets.prepare.canonical import NAMED
from minigpt4o.datasets.prepare.scripts import script_of_turns
from minigpt4o.datasets.prepare.walk import drawn

Opener = Callable[[Media], Any]  # a processor: media -> tensor; raises SkipSample
_THUMB = (8, 9)  # rows and columns whose neighbours are compared, which gives 64 bits
_PLAIN = 12  # fewer bits of one kind say nothing: half the drawings on white paper look alike by them


@dataclass(slots=True)
class Look:
    """What is kept of one sample on its way from a worker."""

    index: int
    id: str = ""
    reason: str = ""  # why it cannot be used; "" = it can
    detail: str = ""
    whole: int = 0  # hash of its text and media
    text: int = 0  # hash of its text alone
    media: list[int] = field(default_factory=list)  # hash of each medium
    near: list[int] = field(default_factory=list)  # what each picture looks like, 64 bits; 0 = plain, or no picture
    asked: int = 0  # characters
    answered: int = 0
    script: str = ""
    boxes: int = 0
    outside: int = 0  # boxes that reach out of their picture


class Looker:
    """Looks at samples in a worker process. Without `openers` media are known by their place and never read."""

    def __init__(self, openers: Mapping[MediaKind, Opener] | None) -> None:
        self.openers = openers

    def __call__(self, builder: Builder, index: int) -> Look:
        sample = drawn(builder, index)
        if isinstance(sample, SkipSample):
            return Look(index, reason=sample.reason, detail=sample.detail)
        look = Look(index, sample.id)
        try:
            media: tuple[tuple[MediaKind, list[Media]], ...] = (("image", sample.images), ("audio", sample.audios))
            for kind, listed in media:
                for one in listed:
                    self._open(one, kind, look)
        except SkipSample as skip:
            look.reason, look.detail = skip.reason, skip.detail
            return look
        _read_text(sample, look)
        return look

    def _open(self, media: Media, kind: MediaKind, look: Look) -> None:
        if self.openers is None:
            look.media.append(_hash(f"{media.path}\x1f{media.offset}\x1f{media.size}".encode(), media.data or b""))
            look.near.append(0)
            return
        tensor = self.openers[kind](media)  # first, for it refuses what is too large to be read
        try:
            look.media.append(_hash(media.read()))
        except OSError as error:
            raise SkipSample("read_error", f"{media}: {error}") from error
        look.near.append(near_hash(tensor) if kind == "image" else 0)


def _read_text(sample: Sample, look: Look) -> None:
    turns = written(sample).turns
    asked = [unescape_marks(_unmarked(t.text)) for t in turns if t.role != "assistant"]
    answered = [unescape_marks(t.text) for t in turns if t.role == "assistant"]
    words = "\x1f".join([*asked, "\x1e", *answered]).encode("utf-8", "surrogatepass")
    look.text = _hash(words)
    look.whole = _hash(words, *(h.to_bytes(8, "little") for h in look.media))
    look.asked, look.answered = sum(map(len, asked)), sum(map(len, answered))
    look.script = script_of_turns(" ".join(asked), " ".join(answered))
    look.boxes = len(sample.boxes)
    for box in sample.boxes:
        (x1, y1, x2, y2), (width, height) = box.xyxy, box.image_size
        look.outside += not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height)


def _unmarked(text: str) -> str:
    for mark in MARKS.values():
        text = text.replace(mark, "")
    return text


def _hash(*pieces: bytes) -> int:
    """64 bits of BLAKE2: of a hundred million media, one pair in three thousand such sets is alike by chance."""
    digest = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        digest.update(piece)
    return int.from_bytes(digest.digest(), "little")


def near_hash(tensor: Any) -> int:
    """64 bits that stay the same when a picture is resized or compressed again: is each patch lighter than its right
    neighbour? 0 for a plain picture."""
    import torch

    grey = tensor.float().mean(dim=0, keepdim=True)
    small = torch.nn.functional.adaptive_avg_pool2d(grey, _THUMB)[0]
    bits = (small[:, :-1] > small[:, 1:]).flatten().tolist()
    return sum(1 << i for i, bit in enumerate(bits) if bit) if _PLAIN <= sum(bits) <= len(bits) - _PLAIN else 0


@dataclass
class SplitHealth:
    """What was found in one split of one data set."""

    dataset: str
    split: str
    total: int  # samples there are
    by_content: bool  # whether media are known by their bytes
    looked: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=dict)
    whole: array[int] = field(default_factory=lambda: array("Q"))
    text: array[int] = field(default_factory=lambda: array("Q"))
    index: array[int] = field(default_factory=lambda: array("Q"))  # of the sample, beside whole and text
    media: array[int] = field(default_factory=lambda: array("Q"))
    near: array[int] = field(default_factory=lambda: array("Q"))
    owner: array[int] = field(default_factory=lambda: array("Q"))  # index of the sample, beside media and near
    asked: array[int] = field(default_factory=lambda: array("I"))
    answered: array[int] = field(default_factory=lambda: array("I"))
    scripts: Counter[str] = field(default_factory=Counter)
    boxes: int = 0
    outside: int = 0

    def add(self, look: Look) -> None:
        self.looked += 1
        if look.reason:
            self.bad[look.reason] += 1
            told = self.first.setdefault(look.reason, [])
            if len(told) < NAMED:
                told.append(f"[{look.index}] {look.detail}")
            return
        self.whole.append(look.whole)
        self.text.append(look.text)
        self.index.append(look.index)
        self.media.extend(look.media or [look.whole])  # a text alone is its own content
        self.near.extend(look.near or [0])
        self.owner.extend([look.index] * max(len(look.media), 1))
        self.asked.append(look.asked)
        self.answered.append(look.answered)
        self.scripts[look.script] += 1
        self.boxes += look.boxes
        self.outside += look.outside
