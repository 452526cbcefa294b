"""Builder `shards`: WebDataset tars (LAION, CC, SBU, own ones), read by an index and positioned reads."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.datasets.base import check_fields, clean_text, sha256, user_text
from minigpt4o.datasets.order import permute
from minigpt4o.datasets.prompts import Prompts
from minigpt4o.datasets.shards.choice import View, choose, occurrences
from minigpt4o.datasets.shards.index import Group
from minigpt4o.datasets.shards.sources import open_store
from minigpt4o.datasets.shards.window_order import shard_order
from minigpt4o.datasets.tables.rows import pick
from minigpt4o.datasets.wording import Wording

FIELDS = ("image", "audio", "text", "language")
QUESTION_FIELDS = ("list", "question", "answer")
log = logging.getLogger(__name__)

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
        verify: Literal["size", "sha256"] = (
            "size"  # sha256: when a process first reads a tar, compute its SHA-256 and compare it with its index
        )
        index: str = ""  # file with the tars' sample counts (index.json, sizes.json); "" = the one beside the tars
        lazy_above: int = 100_000  # with more samples than this, tars whose counts are known are opened on first use
        shuffle: Literal["full", "window", "none"] = (
            "full"  # full: over all samples; window: over some tars at a time, for slow disks and addresses; none
        )
        window_shards: int = 16  # tars that shuffle: window mixes at a time
        allow_remote: bool = False  # annotations may be `pipe:COMMAND`, http(s)://, s3:// or another fsspec address
        cache_gb: float = 20.0  # disk for fetched tars in MINIGPT4O_CACHE; the least recently used are removed
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
        self._text_member = (config.questions.get("list") or config.fields.get("text", "txt")).partition(".")[0]
        self.extensions = {kind: _words(config.fields[kind]) for kind in ("image", "audio") if kind in config.fields}
        each = bool(config.questions) and not config.rounds
        self.store = open_store(config, split, name, whole=each or config.folds >= 2)
        self._groups = choose(self.store, config, split, name, self._fold_key if config.fold_by else None)
        self._index = ""
        if self.store.lazy and config.shuffle == "full":
            log.warning(
                "datasets.%s: shuffle is full, so samples come from all %d tars in turn, and a tar without an index "
                "costs a second when it is first met: run `python -m minigpt4o.cli data index` before, or set "
                "shuffle: window",
                name,
                len(self.store.shards),
            )
        self._stems = _told_apart([shard.name for shard in self.store.shards])
        self._occurrence = self._repeats() if self.store.exact else None
        self._numbers: np.ndarray | None = None  # (N,) which question
        if each:
            self._number_questions()
        self.ids: View[str] = View(len(self), self._id)
        self.items: View[Item] = View(len(self), self._item)

    def __len__(self) -> int:
        return len(self.store) if self._groups is None else len(self._groups)

    def sample(self, index: int, rng: random.Random) -> Sample:
        """A caption or question of one picture or sound; with `rounds` a conversation of all its questions."""
        group, number = self._item(index)
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
            id=self._id(index, group),
            turns=turns,
            images=images,
            audios=audios,
            answers=[answer],
            language=language,
            dataset=self.name,
            where=group.where,
            meta=meta,
        )

    def order(self, seed: object, epoch: int) -> Callable[[int], int]:
        """Turn -> index for one pass over the samples; a pure function of its arguments, whoever asks."""
        if self.config.shuffle == "full":
            return permute(seed, epoch, len(self))
        starts = self.store.starts if self._groups is None else np.searchsorted(self._groups, self.store.starts)
        counts = np.diff(starts).tolist()
        window = self.config.window_shards if self.config.shuffle == "window" else 0
        return shard_order(seed, epoch, counts, window, self.store.prefetch)

    @property
    def order_name(self) -> str:
        """What `order` depends on besides its arguments: a run cannot go on with another."""
        return f"window of {self.config.window_shards}" if self.config.shuffle == "window" else self.config.shuffle

    def size_hint(self, index: int) -> int:
        """Bytes of the sample's text member; opens its shard, but reads no member."""
        number, place = self.store.find(self._sample_number(index))
        try:
            sizes = self.store.open(number).table.sizes(place)
        except (SkipSample, IndexError):
            return 0
        size = sum(size for extension, size in sizes if extension == self._text_member)
        return size if self._numbers is None else size // self._questions_beside(index)

    def modality(self, index: int) -> str:
        """Media kinds of every sample: "image", "audio", "image+audio", or "text"."""
        return "+".join(self.extensions) or "text"

    def fingerprint(self) -> str:
        """SHA-256 of the index of all tars and of the choice of samples; of a large set, of its tars and the choice."""
        if not self._index:
            self._index = self.store.fingerprint()
        if self.store.exact:
            return sha256(self._index, self.split, sorted(self.config.fields.items()), len(self), *self.ids)
        chosen = (self.config.folds, self.config.fold_by, self.config.val_folds, self.config.test_folds)
        return sha256(self._index, self.split, sorted(self.config.fields.items()), len(self), chosen)

    # --- which sample an index means

    def _sample_number(self, index: int) -> int:
        return index if self._groups is None else int(self._groups[index])

    def _item(self, index: int) -> Item:
        return self.store.group(self._sample_number(index)), -1 if self._numbers is None else int(self._numbers[index])

    def _id(self, index: int, group: Group | None = None) -> str:
        """The sample's key, `#2` after one that came before; in a large set SHARD/KEY, which needs no other shard."""
        sample = self._sample_number(index)
        number, place = self.store.find(sample)
        try:
            key = group.key if group is not None else self.store.open(number).table.key(place)
        except (SkipSample, IndexError):  # its shard cannot be had, or holds fewer than was promised
            key = f"sample {place}"
        if not self.store.exact:
            key = f"{self._stems[number]}/{key}"
        elif self._occurrence is not None and self._occurrence[sample] > 1:
            key += f"#{self._occurrence[sample]}"
        return key if self._numbers is None else f"{key}:{self._numbers[index]}"

    def _repeats(self) -> np.ndarray | None:
        """(samples of the store,) how often a key was met among the chosen ones."""
        hashes = self.store.hashes()
        if self._groups is None:
            return occurrences(hashes)
        found = occurrences(hashes[self._groups])
        if found is None:
            return None
        spread = np.ones(len(self.store), np.int32)
        spread[self._groups] = found
        return spread

    def _number_questions(self) -> None:
        """One index for each question; a sample whose questions cannot be read keeps one, to be counted as bad."""
        samples = np.arange(len(self.store)) if self._groups is None else self._groups
        counts = np.array([self._question_count(int(sample)) for sample in samples], np.int64)
        ends = np.cumsum(counts)
        self._groups = np.repeat(samples, counts)
        self._numbers = (np.arange(len(self._groups)) - np.repeat(ends - counts, counts)).astype(np.int32)

    def _question_count(self, sample: int) -> int:
        try:
            return len(self._entries(self.store.group(sample)))
        except SkipSample:
            return 1

    def _questions_beside(self, index: int) -> int:
        assert self._groups is not None
        sample = self._groups[index]
        return int(np.searchsorted(self._groups, sample, "right") - np.searchsorted(self._groups, sample))

    # --- what its members say

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

    def _fold_key(self, sample: int) -> object:
        group = self.store.group(sample)
        try:
            return self._value(group, self.config.fold_by)
        except SkipSample:
            return group.key


def _words(spec: str) -> list[str]:
    """`jpg, .PNG` -> ["jpg", "png"]."""
    return [word.strip().lower().removeprefix(".") for word in spec.split(",") if word.strip()]


def _told_apart(names: Sequence[str]) -> list[str]:
    """Each shard's name without its ending; its number where two have the same."""
    stems = [name.partition(".")[0] for name in names]
    return stems if len(set(stems)) == len(stems) else [f"{number:05d}" for number in range(len(stems))]
