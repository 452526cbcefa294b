"""Builder `conversations`: dialogues about media as LLaVA, ShareGPT and OpenAI messages write them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from minigpt4o.common.errors import SkipSample
from minigpt4o.common.registry import registry
from minigpt4o.conversation.objects import written
from minigpt4o.conversation.sample import MARKS, Media, MediaKind, Role, Sample, Turn
from minigpt4o.datasets.base import clean_text
from minigpt4o.datasets.objects import boxes_of, with_objects
from minigpt4o.datasets.speakers import spoken
from minigpt4o.datasets.tables.rows import Row
from minigpt4o.datasets.tables.table import Table
from minigpt4o.datasets.wording import Wording

FIELDS = ("id", "image", "audio", "language")
TURN_COLUMNS = ("conversations", "messages", "conversation")
MEDIA_COLUMNS: dict[MediaKind, tuple[str, ...]] = {"image": ("image", "images"), "audio": ("audio", "audios", "sound")}
PARTS: dict[str, MediaKind] = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
}
FOREIGN_MARKS = {"<Img><ImageHere></Img>": "<image>", "<ImageHere>": "<image>", "<sound>": "<audio>"}
_BLANKS_AT_MARK = re.compile(r"\s*(" + "|".join(MARKS.values()) + r")\s*")


@registry.register("builder", "conversations")
class Conversations:
    """Dialogues of any length with any number of pictures and sounds, or none.

    The turns stand in `conversations` ({from, value}) or `messages` ({role, content}; content is a text, or parts of
    type text, image, image_url, audio, input_audio). `<image>` and `<audio>` marks of users must be as many as the
    media that the row lists. One picture (or sound) and no mark for it: it stands before the first user's words.
    """

    @dataclass
    class Config:
        annotations: dict[str, str]  # split -> file or pattern ({a..b}, {x,y}, *); `all:` + folds carves splits out
        fields: dict[str, str] = field(
            default_factory=dict
        )  # id, image, audio, language -> column, where it is not id, image(s), audio(s), language
        media_root: str = ""  # folder that media paths start from
        image_template: str = (
            ""  # file name of the picture from columns: "COCO_{id:012d}.jpg|train/{id}.jpg" (first found)
        )
        audio_template: str = ""  # the same for the sound
        rows: str = ""  # where the list of rows lies in a JSON file; "" = at the top, or annotations, data, questions
        keep: list[str] = field(default_factory=list)  # columns to carry into the predictions file
        trim_at_marks: bool = True  # drop blanks beside <image> and <audio>: templates bring their own
        rounds: int = 0  # only the first so many questions with their answers; 0 = all
        language: str = ""  # of the texts, if no column says it
        split_field: str = ""  # column that says which split a row belongs to
        split_names: dict[str, str] = field(
            default_factory=dict
        )  # split -> what that column says ("*train*"), if not its name
        folds: int = 0  # divide the rows into so many folds by a stable hash; 0 = the files are the splits
        val_folds: list[int] = field(default_factory=list)  # folds that are the val split
        test_folds: list[int] = field(default_factory=list)  # folds that are the test split
        fold_by: str = ""  # column that must not be divided between splits; "" = the picture or sound
        max_samples: int = 0  # take only so many, evenly spaced; 0 = all
        profile: Literal["default", "compat"] = (
            "default"  # compat: texts and draws as MiniGPT-4 makes them, faults included
        )

    def __init__(self, config: Config, *, name: str, split: str) -> None:
        self.config = config
        self.wording = Wording(config.profile, split)
        self.table = Table(config, name, split, FIELDS)

    def __len__(self) -> int:
        return len(self.table)

    def sample(self, index: int, rng: random.Random) -> Sample:
        """The dialogue. One picture (or sound) that no text has a mark for is put before the first user's words."""
        row = self.table.row(index)
        media = {kind: self._listed(row, kind) for kind in MEDIA_COLUMNS}
        turns, boxes = with_objects(row, self._turns(row, media), media["image"])
        turns = _first_rounds(turns, self.config.rounds)
        boxes = boxes_of(turns, boxes)
        turns = self._as_reference(turns, media) if self.wording.compat else self._cleaned(turns)
        for kind, found in media.items():
            turns = _place_single(turns, kind, found)
            said = sum(t.text.count(MARKS[kind]) for t in turns if t.role != "assistant")
            if said != len(found):
                raise SkipSample(
                    "media_mismatch",
                    f"{row.where} (id {self.table.ids[index]}): the turns have {said} {MARKS[kind]} mark(s), "
                    f"but {len(found)} came with it",
                )
        if self.config.trim_at_marks and not self.wording.compat:
            turns = [t if t.role == "assistant" else Turn(t.role, _BLANKS_AT_MARK.sub(r"\1", t.text)) for t in turns]
        if not any(t.role == "assistant" for t in turns):
            raise SkipSample("no_target", f"{row.where}: nobody answers: no turn from gpt or assistant")
        common = self.table.common(index)
        sample = Sample(turns=turns, images=media["image"], audios=media["audio"], boxes=boxes, **common)
        return replace(sample, answers=[t.text for t in written(sample).turns if t.role == "assistant"][-1:])

    def size_hint(self, index: int) -> int:
        """Bytes of the row of a sample; it grows with the length of its texts."""
        return self.table.size_hint(index)

    def modality(self, index: int) -> str:
        """`image`, `audio`, `image+audio` or `text`: what the row lists beside its turns or has as parts of them."""
        row = self.table.groups.first(index)
        turns: list[Any] = next((row.values[k] for k in TURN_COLUMNS if isinstance(row.values.get(k), list)), [])
        contents = [said.get("content") for said in turns if isinstance(said, dict)]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        shown = {PARTS.get(str(part.get("type"))) for part in parts if isinstance(part, dict)}
        return "+".join(kind for kind in MEDIA_COLUMNS if kind in shown or self._named(row, kind)) or "text"

    def fingerprint(self) -> str:
        """SHA-256 of the annotation files and of the choice of rows."""
        return self.table.fingerprint()

    def _listed(self, row: Row, kind: MediaKind) -> list[Media]:
        """Media that the row lists beside its turns."""
        named = self._named(row, kind)
        return self.table.finders[kind].of_row(row, named) if named else []

    def _named(self, row: Row, kind: MediaKind) -> str:
        """The column that lists the row's media of a kind; "" if there is none."""
        columns = [self.config.fields[kind]] if kind in self.config.fields else MEDIA_COLUMNS[kind]
        return next((c for c in columns if self.table.finders[kind].template or row.has(c)), "")

    def _turns(self, row: Row, media: dict[MediaKind, list[Media]]) -> list[Turn]:
        key = next((k for k in TURN_COLUMNS if isinstance(row.values.get(k), list)), "")
        if not key or not row.values[key]:
            raise SkipSample("missing_field", f"{row.where}: no list of turns in {' or '.join(TURN_COLUMNS)}")
        turns = [Turn("system", clean_text(row.values["system"], row.where, "system"))] if row.has("system") else []
        for number, said in enumerate(row.values[key], start=1):
            where = f"{row.where}, turn {number}"
            role, content = spoken(said, where)
            turns.append(Turn(role, self._text(content, media, where)))
        return turns

    def _cleaned(self, turns: list[Turn]) -> list[Turn]:
        clean: dict[Role, Callable[[str], str]] = {"user": self.wording.question, "assistant": self.wording.answer}
        return [Turn(t.role, clean.get(t.role, str)(t.text)) for t in turns]

    def _as_reference(self, turns: list[Turn], media: dict[MediaKind, list[Media]]) -> list[Turn]:
        """The first question without marks, line ends and outer blanks; a space after every question in training."""
        space = " " if self.wording.training else ""
        first = next((i for i, t in enumerate(turns) if t.role == "user"), None)
        found = []
        for i, turn in enumerate(turns):
            text = turn.text
            if i == first:
                for mark in MARKS.values():
                    text = text.replace(mark, "")
                text = self.wording.question(text.replace("\n", "").strip())
                text = "".join(MARKS[kind] * len(listed) for kind, listed in media.items()) + text + space
            elif turn.role == "user":
                text = self.wording.question(text) + space
            elif turn.role == "assistant":
                text = self.wording.answer(text)
            found.append(Turn(turn.role, text))
        return found

    def _text(self, content: Any, media: dict[MediaKind, list[Media]], where: str) -> str:
        """A turn's words; media given as parts of it become marks in their place."""
        if not isinstance(content, list):
            text = self.wording.read(content, where, "the text")
            for foreign, mark in FOREIGN_MARKS.items():
                text = text.replace(foreign, mark)
            return text
        pieces = []
        for part in content:
            kind = str(part.get("type", "")) if isinstance(part, dict) else ""
            if kind == "text":
                pieces.append(clean_text(part.get("text"), where, "the text"))
            elif kind in PARTS:
                places = (kind, PARTS[kind], f"{PARTS[kind]}_url", "path", "url")
                body = next((part[place] for place in places if part.get(place)), part)
                media[PARTS[kind]].append(self.table.finders[PARTS[kind]].find(body, where))
                pieces.append(MARKS[PARTS[kind]])
            else:
                raise SkipSample("bad_json", f"{where}: unknown part {kind or part!r}; known: text, {', '.join(PARTS)}")
        return clean_text("".join(pieces), where, "the text")


def _first_rounds(turns: list[Turn], count: int) -> list[Turn]:
    """The turns up to the count-th answer; all if the count is 0."""
    answers = [i for i, t in enumerate(turns) if t.role == "assistant"]
    return turns[: answers[count - 1] + 1] if 0 < count <= len(answers) else turns


def _place_single(turns: list[Turn], kind: MediaKind, media: list[Media]) -> list[Turn]:
    """The habit of LLaVA-like files: one medium and no mark means that it stands before the first question."""
    if len(media) != 1 or any(MARKS[kind] in t.text for t in turns if t.role != "assistant"):
        return turns
    first = next((i for i, t in enumerate(turns) if t.role == "user"), None)
    if first is None:
        return turns
    return [Turn(t.role, MARKS[kind] + t.text) if i == first else t for i, t in enumerate(turns)]
