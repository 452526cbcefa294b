"""Rows of a file to answer: OpenAI messages, LLaVA or ShareGPT conversations, plain picture-and-question rows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.conversation.marks import count_marks, escape_boxes, escape_marks
from minigpt4o.conversation.sample import MARKS, Media, MediaKind, Sample, Turn
from minigpt4o.datasets.media import MediaFinder
from minigpt4o.datasets.speakers import spoken
from minigpt4o.serve.parts import laid_out

TURNS = ("messages", "conversations", "conversation")
MEDIA: dict[MediaKind, tuple[str, ...]] = {
    "image": ("images", "image", "image_path"),
    "audio": ("audios", "audio", "audio_path", "sound"),
}
PARTS: dict[str, MediaKind] = {"image": "image", "image_url": "image", "audio": "audio", "input_audio": "audio"}
ASKED = ("prompt", "question", "text", "instruction", "query")
IDS = ("id", "question_id", "uid", "key")


@dataclass
class Asked:
    """One row: what is asked, or why it cannot be."""

    number: int  # of the row, from 1
    id: str
    sample: Sample | None = None
    skip: SkipSample | None = None
    reference: str = ""  # the answer the row brings itself; it is not shown to the model


def lines_of(path: Path, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line) of every line that is not empty; a byte order mark is dropped."""
    number = 0
    with path.open("rb") as file:
        for line in file:
            line = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not line:
                continue
            number += 1
            if limit is not None and number > limit:
                return
            yield number, line


def ensure_lines(path: Path) -> None:
    """Raises DataError for a file that is one JSON array, as LLaVA's are."""
    first = next((line for _, line in lines_of(path, 1)), b"")
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(first)
        if not isinstance(value, list) or not (value and isinstance(value[0], dict)):
            return
    if first.startswith(b"["):
        mend = f"make lines of it: jq -c '.[]' {path.name} > rows.jsonl"
        raise DataError(f"{path.name}: it is one JSON array, not one JSON object a line; {mend}")


class RowReader:
    """Lines -> samples. `separator` stands between the media of a plain row and its words, as in a chat."""

    def __init__(self, root: Path, name: str, separator: str = "", system: str = "") -> None:
        self.finder = MediaFinder(str(root))
        self.name = name  # of the file, for errors
        self.separator = separator
        self.system = system

    def read(self, number: int, line: bytes) -> Asked:
        """One row; whatever is wrong with it stands in `skip`."""
        where = f"{self.name} row {number}"
        found = Asked(number, str(number))
        try:
            values = _object(line, where)
            found.id = next((str(values[key]) for key in IDS if values.get(key) not in (None, "")), found.id)
            found.sample, found.reference = self._sample(values, found, where)
        except SkipSample as skip:
            found.skip = skip
        return found

    def _sample(self, values: Mapping[str, Any], asked: Asked, where: str) -> tuple[Sample, str]:
        media = {kind: self._media(values, columns, where) for kind, columns in MEDIA.items()}
        key = next((k for k in TURNS if isinstance(values.get(k), list)), "")
        turns = self._turns(values[key], media, where) if key else [self._plain(values, media, where)]
        system = str(values.get("system") or self.system)
        if system and not (turns and turns[0].role == "system"):
            turns.insert(0, Turn("system", escape_marks(system)))
        reference = ""
        if turns and turns[-1].role == "assistant":
            reference = turns.pop().text
        if not turns or turns[-1].role != "user":
            raise SkipSample("missing_field", f"{where}: it ends without a question of the user")
        turns.append(Turn("assistant", ""))
        for kind in reversed(media):  # each is put in front: pictures stand before sounds, as in a chat
            self._place(turns, kind, media[kind], where)
        # the number makes draws independent of what the row is called, and of every other row
        sample = Sample(f"{asked.number}", turns, media["image"], media["audio"], where=where)
        return sample, reference

    def _media(self, values: Mapping[str, Any], columns: tuple[str, ...], where: str) -> list[Media]:
        listed: Any = next((values[name] for name in columns if values.get(name)), [])
        return [self.finder.find(value, where) for value in (listed if isinstance(listed, list) else [listed])]

    def _plain(self, values: Mapping[str, Any], media: Mapping[MediaKind, list[Media]], where: str) -> Turn:
        words = next((values[key] for key in ASKED if isinstance(values.get(key), str)), None)
        if words is None and not any(media.values()):
            raise SkipSample("missing_field", f"{where}: none of {', '.join((*TURNS, *ASKED))} is in it")
        return Turn("user", _marked(words or "", media))

    def _turns(self, rows: list[Any], media: Mapping[MediaKind, list[Media]], where: str) -> list[Turn]:
        # of which kinds files are named beside the turns; others come in their parts
        listed: dict[MediaKind, bool] = {kind: bool(found) for kind, found in media.items()}
        turns = []
        for said in rows:
            role, content = spoken(said, where)
            if isinstance(content, str):
                kept: dict[MediaKind, list[Media]] = {kind: media[kind] if listed[kind] else [] for kind in media}
                text = _marked(content, kept) if role == "user" else escape_marks(content)
            elif isinstance(content, list):
                text = self._parts(content, media, where)
            else:
                raise SkipSample("bad_text", f"{where}: a turn's words are a {type(content).__name__}")
            turns.append(Turn(role, text))
        return turns

    def _parts(self, parts: list[Any], media: Mapping[MediaKind, list[Media]], where: str) -> str:
        """OpenAI's content parts; words among them are only words, whatever they look like."""
        pieces: list[tuple[str, bool]] = []
        for part in parts:
            kind = str(part.get("type", "")) if isinstance(part, dict) else ""
            if kind == "text":
                pieces.append((escape_marks(str(part.get("text", ""))), False))
            elif kind in PARTS:
                value = part.get(kind) or part.get("path") or part.get("url") or part.get("data")
                media[PARTS[kind]].append(self.finder.find(value, where))
                pieces.append((MARKS[PARTS[kind]], True))
            else:
                known = ", ".join(("text", *PARTS))
                raise SkipSample("bad_json", f"{where}: unknown part {kind or str(part)[:40]!r}; known: {known}")
        return laid_out(pieces, self.separator)

    def _place(self, turns: list[Turn], kind: MediaKind, media: list[Media], where: str) -> None:
        """Media without a mark stand before the first question; any other number of marks is an error."""
        mark = MARKS[kind]
        said = sum(count_marks(turn.text, mark) for turn in turns)
        if said == len(media):
            return
        if said:
            detail = f"{where}: {said} {mark} mark(s) for {len(media)} file(s); give one mark for each, or none"
            raise SkipSample("media_mismatch", detail)
        first = next(i for i, turn in enumerate(turns) if turn.role == "user")
        text = turns[first].text
        between = self.separator if text and not text.startswith(tuple(MARKS.values())) else ""
        turns[first] = Turn("user", mark * len(media) + between + text)


def _marked(text: str, media: Mapping[MediaKind, list[Media]]) -> str:
    """The words with the marks of media that came with them; any other mark in them is only a word."""
    text = escape_boxes(text)
    for kind, mark in MARKS.items():
        if not media[kind]:
            text = text.replace(mark, escape_marks(mark))
    return text


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SkipSample("bad_json", f"{where}: not valid JSON ({str(error)[:120]})") from error
    if not isinstance(value, dict):
        raise SkipSample("bad_json", f"{where}: is a {type(value).__name__}, not an object with named fields")
    return value
