"""Write items as WebDataset tars: KEY.jpg (.wav, ...), KEY.txt, KEY.json; equal items give equal bytes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.objects import written
from minigpt4o.conversation.sample import MARKS, MediaKind, Role, Sample, Turn
from minigpt4o.datasets.objects import with_objects
from minigpt4o.datasets.prepare.canonical import Found, Item, Tally, extension_of
from minigpt4o.datasets.prepare.writing import whole_file
from minigpt4o.datasets.tables.rows import Row


@dataclass
class Shards:
    """A folder of tars of so many samples each; a tar takes its name when it is whole."""

    folder: Path
    per_shard: int
    endings: set[str] = field(default_factory=set)  # of the media written
    asks: bool = False  # whether any sample has words before its answer, or several rounds
    kinds: set[MediaKind] | None = None  # of media that every sample has; known from the first

    def write(self, found: Iterable[Found], tally: Tally) -> list[Path]:
        """The tars written, in order."""
        samples = self._samples(found, tally)
        paths: list[Path] = []
        first = next(samples, None)
        while first is not None:
            path = self.folder / f"{len(paths):05d}.tar"
            with whole_file(path, "wb") as file:
                first = self._fill(file, first, samples, len(paths) * self.per_shard)
            paths.append(path)
        return paths

    def _fill(
        self, file: IO[bytes], first: dict[str, bytes], samples: Iterator[dict[str, bytes]], number: int
    ) -> dict[str, bytes] | None:
        """One tar; returns the sample that the next one begins with."""
        members: dict[str, bytes] | None = first
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for key in range(number, number + self.per_shard):
                if members is None:
                    return None
                for ending, data in members.items():
                    info = tarfile.TarInfo(f"{key:09d}.{ending}")  # no time, no owner: equal items, equal bytes
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                members = next(samples, None)
        return members

    def _samples(self, found: Iterable[Found], tally: Tally) -> Iterator[dict[str, bytes]]:
        for item in found:
            try:
                if isinstance(item, SkipSample):
                    raise item
                members = self._members(item)
            except SkipSample as skip:
                tally.lose(skip.reason, skip.detail)
                continue
            tally.take(item)
            yield members

    def _members(self, item: Item) -> dict[str, bytes]:
        members: dict[str, bytes] = {}
        kinds = {kind for kind, media in item.media.items() if media}
        if self.kinds is not None and kinds != self.kinds:
            have, need = (", ".join(sorted(words)) or "no media" for words in (kinds, self.kinds))
            detail = f"{item.where}: has {have} where the first has {need}; samples of tars are alike, use --to jsonl"
            raise SkipSample("media_mismatch", detail)
        for kind, media in item.media.items():
            if len(media) > 1:
                detail = f"{item.where}: {len(media)} {kind}s; a tar holds one for each sample, use --to jsonl"
                raise SkipSample("media_mismatch", detail)
            for one in media:
                try:
                    data = one.read()
                except FileNotFoundError as error:
                    raise SkipSample("missing_file", f"{one}: does not exist") from error
                except OSError as error:
                    raise SkipSample("read_error", f"{one}: {error}") from error
                members[extension_of(data)] = data
        self.endings |= set(members)
        rounds = _rounds(_with_boxes(item))
        if not rounds:
            raise SkipSample("no_target", f"{item.where}: no answer follows a question")
        self.kinds = kinds
        self.asks |= len(rounds) > 1 or bool(rounds[0][0])
        about: dict[str, Any] = {"id": item.id, "caption": rounds[0][1], "qa": rounds}
        about |= {k: v for k, v in (("language", item.language), ("split", item.split)) if v}
        text = json.dumps(about, ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass")
        return {**members, "txt": rounds[0][1].encode("utf-8", "surrogatepass"), "json": text}


def _rounds(messages: list[dict[str, str]]) -> list[tuple[str, str]]:
    """(question, answer) of each round, without the marks of media: a tar's media always stand in front."""
    found: list[tuple[str, str]] = []
    asked: list[str] = []
    for message in messages:
        words = message["content"]
        if message["role"] == "assistant":
            found.append(("\n".join(filter(None, asked)), words))
            asked = []
        else:
            for mark in MARKS.values():
                words = words.replace(mark, "")
            asked.append(words.strip())
    return found


def _with_boxes(item: Item) -> list[dict[str, str]]:
    """The messages with every box and name in place of its mark, boxes in hundredths of the picture."""
    if not item.boxes and not item.refs:
        return item.messages
    images = item.media.get("image", [])
    turns = [Turn(cast(Role, message["role"]), message["content"]) for message in item.messages]
    turns, boxes = with_objects(Row(item.row({}), item.where, 1), turns, images)
    told = written(Sample(id=item.id, turns=turns, images=images, boxes=boxes))
    return [{"role": turn.role, "content": turn.text} for turn in told.turns]
