"""Builder `shards`: WebDataset tars (LAION, CC, SBU, own ones), read by an index and positioned reads."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Literal

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.datasets.base import check_fields, clean_text, sha256, unique_ids, user_text
from minigpt4o.datasets.prompts import Prompts
from minigpt4o.datasets.rows import pick
from minigpt4o.datasets.shard_index import Group, group_members, index_fingerprint, open_tars
from minigpt4o.datasets.splits import carve, split_files
from minigpt4o.datasets.wording import Wording

FIELDS = ("image", "audio", "text", "language")
QUESTION_FIELDS = ("list", "question", "answer")
Item = tuple[Group, int]  # a sample's members and which of its questions; -1 = all of them, or it has none


@registry.register("builder", "shards", "webdataset")
class Shards:
    """Tars of KEY.jpg, KEY.txt, KEY.json, ...: captions, or lists of questions and answers about each picture."""

    @dataclass
    class Config:
        annotations: dict[str, str]  # split -> tars: "{00000..00099}.tar"; `all:` + folds carves splits out
        fields: dict[str, str] = field(
            default_factory=lambda: {"image": "jpg,jpeg,png,webp", "text": "txt"}
        )  # image, audio -> extension(s), the first found; text, language -> txt, cls, or into json: json.caption
        questions: dict[str, str] = field(
            default_factory=dict
        )  # lists of questions in json: {list: json.qa, question: 0, answer: 1}, the latter two inside an entry
        rounds: bool = False  # one sample for each picture with all its questions, not one for each question
        prompts: str | list[str] = field(
            default_factory=list
        )  # what is asked, or a pool; with `questions` texts with a {question} place; none = caption or question alone
        answers: dict[str, str] = field(default_factory=dict)  # as written -> the words to learn ("0": zero)
        damaged: Literal["refuse", "keep"] = "refuse"  # a damaged tar: stop, or use what lies before
        language: str = ""  # of the texts, if no member says it
        folds: int = 0  # divide the samples into so many folds by a stable hash; 0 = the files are the splits
        val_folds: list[int] = field(default_factory=list)  # folds that are the val split
        test_folds: list[int] = field(default_factory=list)  # folds that are the test split
        fold_by: str = ""  # path into json that must not be divided between splits; "" = the sample's key (its picture)
        max_samples: int = 0  # take only so many pictures, evenly spaced; 0 = all
        profile: Literal["default", "compat"] = (
            "default"  # compat: texts and draws as MiniGPT-4 makes them, faults included
        )

    def __init__(self, config: Config, *, name: str, split: str) -> None:
        self.config, self.name, self.split = config, name, split
        check_fields(config.fields, FIELDS, f"datasets.{name}.fields")
        check_fields(config.questions, QUESTION_FIELDS, f"datasets.{name}.questions")
        if config.questions and set(config.questions) != set(QUESTION_FIELDS):
            raise DataError(f"datasets.{name}.questions: needs list, question and answer; got {list(config.questions)}")
        self.prompts = Prompts(config.prompts, name, ("question",) if config.questions else ())
        self.wording = Wording(config.profile, split)
        self.extensions = {kind: _words(config.fields[kind]) for kind in ("image", "audio") if kind in config.fields}
        tars = open_tars(split_files(config, split, name), name, config.damaged)
        self._index = index_fingerprint(tars)
        groups = [group for tar in tars for group in group_members(tar)]
        groups = carve(groups, self._fold_key, config, split, name)
        self.items = [item for group in groups for item in self._items(group)]
        keys = unique_ids([group.key for group in groups])
        names = dict(zip(map(id, groups), keys, strict=True))
        self.ids = [names[id(g)] + (f":{n}" if n >= 0 else "") for g, n in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, index: int, rng: random.Random) -> Sample:
        """A caption or question of one picture or sound; with `rounds` a conversation of all its questions."""
        group, number = self.items[index]
        media = {kind: [group.media(words)] for kind, words in self.extensions.items()}
        images, audios = media.get("image", []), media.get("audio", [])
        meta: dict[str, Any] = {}
        if not self.config.questions:
            answer = self._answer(self._value(group, self.config.fields.get("text", "txt")), group.where)
            turns = self.wording.turns(self.prompts.draw(rng), answer, images, audios, group.where)
        else:
            entries = self._entries(group)
            asked = [self._asked(e, group.where) for e in (entries if number < 0 else entries[number : number + 1])]
            turns, answer = self._rounds(asked, images, audios, group.where, rng)
            meta = {"question": asked[0][0]} if number >= 0 else {}
        language = self.config.language
        if "language" in self.config.fields:
            language = clean_text(self._value(group, self.config.fields["language"]), group.where, "the language")
        return Sample(
            id=self.ids[index],
            turns=turns,
            images=images,
            audios=audios,
            answers=[answer],
            language=language,
            dataset=self.name,
            where=group.where,
            meta=meta,
        )

    def fingerprint(self) -> str:
        """SHA-256 of the index of all tars and of the choice of samples."""
        return sha256(self._index, self.split, sorted(self.config.fields.items()), len(self), *self.ids)

    def _items(self, group: Group) -> list[Item]:
        """One item for each question; a sample whose questions cannot be read stays one item, to be counted as bad."""
        if not self.config.questions or self.config.rounds:
            return [(group, -1)]
        try:
            return [(group, number) for number in range(len(self._entries(group)))]
        except SkipSample:
            return [(group, 0)]

    def _entries(self, group: Group) -> list[Any]:
        """The sample's list of questions, as it is written."""
        entries = self._value(group, self.config.questions["list"])
        if not isinstance(entries, list) or not entries:
            raise SkipSample("missing_field", f"{group.where}: {self.config.questions['list']} is no list of questions")
        return entries

    def _asked(self, entry: Any, where: str) -> tuple[str, str]:
        """(question, answer) of one entry."""
        try:
            asked, answer = (pick(entry, self.config.questions[k]) for k in ("question", "answer"))
        except LookupError:
            raise SkipSample("missing_field", f"{where}: no question or answer in {entry!r}") from None
        question = self.wording.question(self.wording.read(asked, where, "a question"))
        return question, self._answer(answer, where)

    def _rounds(
        self, asked: list[tuple[str, str]], images: list[Media], audios: list[Media], where: str, rng: random.Random
    ) -> tuple[list[Turn], str]:
        turns: list[Turn] = []
        for question, answer in asked:
            filled = self.wording.filled(self.prompts.draw(rng), {"question": question})
            text = self.wording.instruction(filled, not turns and bool(images or audios))
            turns.append(Turn("user", text if turns else user_text(text, len(images), len(audios), where)))
            turns.append(Turn("assistant", answer))
        return turns, turns[-1].text

    def _answer(self, value: Any, where: str) -> str:
        word = self.wording.read(value, where, "the text")
        return self.wording.answer(self.config.answers.get(word.strip(), word))

    def _value(self, group: Group, path: str) -> Any:
        """The value of `txt`, or of a path such as `json.caption` into a decoded member."""
        extension, _, rest = path.partition(".")
        value = group.decoded(extension)
        if not rest:
            return value
        try:
            return pick(value, rest)
        except LookupError:
            known = ", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__
            raise SkipSample("missing_field", f"{group.where}: no {path}; its .{extension} holds: {known}") from None

    def _fold_key(self, group: Group) -> object:
        if not self.config.fold_by:
            return group.key
        try:
            return self._value(group, self.config.fold_by)
        except SkipSample:
            return group.key


def _words(spec: str) -> list[str]:
    """`jpg, .PNG` -> ["jpg", "png"]."""
    return [word.strip().lower().removeprefix(".") for word in spec.split(",") if word.strip()]
