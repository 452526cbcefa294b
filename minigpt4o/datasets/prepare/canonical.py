"""The one form that every converter writes: a row of `messages` with lists of media and of boxes beside it.

    {"id": "7", "messages": [{"role": "user", "content": "<image>Where is the dog?"},
                             {"role": "assistant", "content": "<bbox>"}],
     "images": ["a.jpg"], "audios": [], "objects": {"bbox": [[x1, y1, x2, y2]], "bbox_type": "real"},
     "language": "en", "split": "train"}

`<image>` and `<audio>` stand where the next medium of the list belongs, `<bbox>` where the next box does and
`<ref-object>` where the next name of `objects.ref` does, as ms-swift has it. Boxes are in pixels of the original
picture. Keys that would be empty are left out. Builder `conversations` reads it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.sample import BOX_MARK, MARKS, Media, MediaKind, Sample

REF_MARK = "<ref-object>"  # place of an object's name
NAMED = 3  # rows of each reason that a report names
Row = dict[str, Any]
LISTS: dict[MediaKind, str] = {"image": "images", "audio": "audios"}


@dataclass
class Item:
    """A row on its way out, with its media where they are now."""

    id: str
    messages: list[dict[str, str]]
    media: dict[MediaKind, list[Media]] = field(default_factory=dict)
    boxes: list[Sequence[float]] = field(default_factory=list)  # x1 y1 x2 y2 in pixels, one for each mark
    refs: list[str] = field(default_factory=list)  # names of objects, one for each of their marks
    pictures: list[int] = field(default_factory=list)  # which picture each box lies in; empty: the first
    language: str = field(default="", kw_only=True)
    split: str = field(default="", kw_only=True)
    where: str = field(default="", kw_only=True)

    def row(self, names: dict[MediaKind, list[str]]) -> Row:
        """The canonical row, with these names for its media."""
        found: Row = {"id": self.id, "messages": self.messages}
        found |= {LISTS[kind]: names[kind] for kind in LISTS if names.get(kind)}
        if self.boxes or self.refs:
            objects: Row = {"ref": self.refs} if self.refs else {}
            objects |= {"bbox": [[_short(v) for v in box] for box in self.boxes], "bbox_type": "real"}
            found["objects"] = objects | ({"image_id": self.pictures} if any(self.pictures) else {})
        found |= {key: value for key, value in (("language", self.language), ("split", self.split)) if value}
        return found

    def check(self) -> None:
        """Raises SkipSample if marks and lists disagree, or if nobody answers."""
        asked = "".join(m["content"] for m in self.messages if m["role"] != "assistant")
        for kind, mark in MARKS.items():
            said, listed = asked.count(mark), len(self.media.get(kind, []))
            if said != listed:
                detail = f"{self.where}: the texts have {said} {mark}, the row lists {listed}"
                raise SkipSample("media_mismatch", detail)
        for mark, listed in ((BOX_MARK, len(self.boxes)), (REF_MARK, len(self.refs))):
            said = sum(m["content"].count(mark) for m in self.messages)
            if (self.boxes or self.refs) and said != listed:
                raise SkipSample("media_mismatch", f"{self.where}: the texts have {said} {mark}, `objects` {listed}")
        if not any(m["role"] == "assistant" and m["content"].strip() for m in self.messages):
            raise SkipSample("no_target", f"{self.where}: nobody answers")


Found = Item | SkipSample


def one_round(asked: str, answer: str, media: dict[MediaKind, list[Media]]) -> list[dict[str, str]]:
    """User asks with all media in front, the assistant answers; without anything to say the assistant speaks alone."""
    marks = "".join(MARKS[kind] * len(media.get(kind, [])) for kind in MARKS)
    user = [{"role": "user", "content": marks + asked}] if marks + asked else []
    return [*user, {"role": "assistant", "content": answer}]


def of_sample(sample: Sample, split: str = "") -> Item:
    """A builder's sample as an item. Raises SkipSample."""
    messages = [{"role": turn.role, "content": turn.text} for turn in sample.turns]
    marked = any(BOX_MARK in m["content"] for m in messages)  # else the boxes stand as text in the turns
    media: dict[MediaKind, list[Media]] = {"image": sample.images, "audio": sample.audios}
    boxes = sample.boxes if marked else []
    item = Item(sample.id, messages, media, language=sample.language, split=split, where=sample.where)
    item.boxes, item.pictures = [box.xyxy for box in boxes], [box.image for box in boxes]
    item.check()
    return item


@dataclass
class Tally:
    """What a conversion took and left."""

    written: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)  # how many media of each kind
    splits: Counter[str] = field(default_factory=Counter)
    boxes: int = 0

    def lose(self, reason: str, detail: str) -> None:
        self.lost[reason] += 1
        told = self.first.setdefault(reason, [])
        if len(told) < NAMED:
            told.append(detail)

    def take(self, item: Item) -> None:
        self.written += 1
        self.boxes += len(item.boxes)
        self.splits[item.split] += 1
        self.kinds.update({kind: len(media) for kind, media in item.media.items() if media})


class JsonLines:
    """Writes canonical rows; media that lie in no file of their own are put beside the rows."""

    def __init__(self, out: Path, root: Path) -> None:
        self.out, self.root = out, root  # root: folder that the names of media start from
        self.beside = out.with_name(f"{out.stem}_media")
        self.apart = 0  # media written beside

    def lines(self, found: Iterable[Found], tally: Tally) -> Iterator[str]:
        """One line for each item that can be used; the others are counted."""
        for item in found:
            if isinstance(item, SkipSample):
                tally.lose(item.reason, item.detail)
                continue
            try:
                names = {kind: [self._name(m) for m in media] for kind, media in item.media.items()}
            except (SkipSample, OSError) as error:
                reason = error.reason if isinstance(error, SkipSample) else "read_error"
                tally.lose(reason, f"{item.where}: {error}")
                continue
            tally.take(item)
            yield json.dumps(item.row(names), ensure_ascii=False) + "\n"

    def _name(self, media: Media) -> str:
        if media.path and media.offset == 0 and media.size < 0:
            path = Path(media.path)
            return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path.resolve())
        data = media.read()
        self.beside.mkdir(parents=True, exist_ok=True)
        file = self.beside / f"{self.apart:08d}.{extension_of(data)}"
        file.write_bytes(data)
        self.apart += 1
        return str(file.resolve())


_MAGIC = (
    (b"\xff\xd8", "jpg"),
    (b"\x89PNG", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
    (b"P6", "ppm"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"FORM", "aiff"),
    (b"ID3", "mp3"),
    (b"\xff\xfb", "mp3"),
    (b"\xff\xf3", "mp3"),
)


def extension_of(data: bytes) -> str:
    """The usual ending of a picture or sound by its first bytes. Raises SkipSample for anything else."""
    if data[:4] == b"RIFF":
        return "webp" if data[8:12] == b"WEBP" else "wav"
    for magic, ending in _MAGIC:
        if data.startswith(magic):
            return ending
    raise SkipSample("forbidden_type", f"begins with {data[:8]!r}, which is no picture or sound that is read")


def _short(value: float) -> float | int:
    """Three places behind the point, none where they are zeros."""
    rounded = round(float(value), 3)
    return int(rounded) if rounded.is_integer() else rounded
