"""Builder `questions`: a question about media and its accepted answers (LAVIS and VQA v2 files, audio questions)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from minigpt4o.common.errors import SkipSample
from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Sample
from minigpt4o.datasets.base import clean_text, sha256
from minigpt4o.datasets.prompts import Prompts
from minigpt4o.datasets.splits import split_files_of
from minigpt4o.datasets.tables.layouts import LAYOUTS
from minigpt4o.datasets.tables.rows import Row, Rows, read_rows, unfold
from minigpt4o.datasets.tables.store import KeyIndex
from minigpt4o.datasets.tables.table import Table
from minigpt4o.datasets.wording import Wording

FIELDS = ("id", "image", "audio", "question", "answer", "choices", "context", "language")
QUESTION_PLACES = ("question", "statement", "text")  # three words for the same in a prompt
ANSWER_COLUMNS = ("answers", "multiple_choice_answer", "direct_answers")  # tried if the named column is absent


@registry.register("builder", "questions")
class Questions:
    """Questions about a picture or a sound with one or many accepted answers."""

    @dataclass
    class Config:
        annotations: dict[str, str]  # split -> file or pattern ({a..b}, {x,y}, *); `all:` + folds carves splits out
        layout: Literal["rows", "annotators", "lines", "llava_bench"] = (
            "rows"  # annotators: rows alike but for `answer` are one (Clotho-AQA); lines: JSON lines (POPE)
        )
        answers: dict[str, str] = field(
            default_factory=dict
        )  # split -> file of answers apart from the questions, joined by id (the VQA v2 annotations file)
        fields: dict[str, str] = field(
            default_factory=lambda: {
                "id": "question_id",
                "image": "image",
                "question": "question",
                "answer": "answer",
            }
        )  # id, image, audio, question, answer, choices, context, language -> column; `a.b.0` goes into objects
        each: list[str] = field(
            default_factory=list
        )  # columns of lists side by side: a sample for each place (OCR-VQA)
        labels: dict[str, str] = field(default_factory=dict)  # answer as written -> the word to learn ("1": yes)
        unanswered: Literal["skip", "ask"] = (
            "skip"  # rows without an answer are bad samples; ask: a leaderboard's questions, whose truth nobody tells
        )
        answer_is_choice: bool = False  # the answer is the number of the right one among choices, from 0
        media_root: str = ""  # folder that media paths start from
        image_template: str = (
            ""  # file name of the picture from columns: "COCO_{id:012d}.jpg|train/{id}.jpg" (first found)
        )
        audio_template: str = ""  # the same for the sound
        rows: str = ""  # where the list of rows lies in a JSON file; "" = at the top, or annotations, data, questions
        prompts: str | list[str] = field(
            default_factory=list
        )  # texts with a {question} place (and {choices}, {context}), or the name of a pool; none = the question alone
        keep: list[str] = field(
            default_factory=lambda: ["question_type", "answer_type"]
        )  # columns that go into the predictions file, where a row has them
        language: str = ""  # of the texts, if no column says it
        split_field: str = ""  # column, or columns with commas, that say which split a row belongs to
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
        self.prompts = Prompts(config.prompts, name, (*QUESTION_PLACES, "choices", "context"))
        self.wording = Wording(config.profile, split)
        self.table = Table(config, name, split, FIELDS, read=partial(_read, config.layout, config.each))
        self._apart: KeyIndex | None = None  # finds a row of the file of answers by its id
        self._apart_digest = ""
        if config.answers:
            files = [path for _, path in split_files_of(config.answers, config, split, name)]
            rows, self._apart_digest = read_rows(files)
            self._apart = KeyIndex(rows, self._apart_digest, self._key, f"answers {self.table.column('id')}")

    def __len__(self) -> int:
        return len(self.table)

    def sample(self, index: int, rng: random.Random) -> Sample:
        """The question, and an answer drawn as often as people gave it; every given answer is kept, repeats too."""
        row = self.table.row(index)
        images, audios = self.table.media(row, "image"), self.table.media(row, "audio")
        question = self.wording.read(row.get(self.table.column("question")), row.where, "the question")
        question = self.wording.question(question)
        told = self._told(row)
        given = self._answer(told)
        secret = self.config.unanswered == "ask" and given in (None, "", [])  # a leaderboard's
        answers, weights = ([], []) if secret else answers_of(given, row.where)
        choices = row.columns(self.config.fields["choices"]) if "choices" in self.config.fields else []
        answers = [self._word(answer, choices, row.where) for answer in answers]
        places = dict.fromkeys(QUESTION_PLACES, question)
        if choices:
            places["choices"] = choices_text(choices, row.where)
        if "context" in self.config.fields:
            places["context"] = self._context(row)
        if self.wording.compat:  # the reference draws the answer first, and only from a list
            answer = draw_by_frequency(answers, rng) if isinstance(given, list) and answers else [*answers, ""][0]
            asked = self.wording.filled(self.prompts.draw(rng), places)
        else:
            asked = self.wording.filled(self.prompts.draw(rng), places)
            answer = rng.choices(answers, weights)[0] if answers else ""
        turns = self.wording.turns(asked, self.wording.answer(answer), images, audios, row.where)
        turns = turns if answers else turns[:-1]
        common = self.table.common(index)
        kept = {c: told.get(c) for c in self.config.keep if told.has(c)}
        common["meta"] = {"question": question} | ({"choices": choices} if choices else {}) | kept | common["meta"]
        return Sample(turns=turns, images=images, audios=audios, answers=answers, **common)

    def fingerprint(self) -> str:
        """SHA-256 of the annotation files and of the choice of rows."""
        return sha256(self.table.fingerprint(), self._apart_digest)

    def size_hint(self, index: int) -> int:
        """Bytes of the row of a sample; it grows with the length of its texts."""
        return self.table.size_hint(index)

    def modality(self, index: int) -> str:
        """`image`, `audio`, `image+audio` or `text`."""
        return self.table.modality(index)

    def _key(self, row: Row) -> str | None:
        column = self.table.column("id")
        return str(row.get(column)) if row.has(column) else None

    def _context(self, row: Row) -> str:
        """What stands beside the question, with the space that parts them; "" where the row has nothing."""
        column = self.table.column("context")
        return self.wording.read(row.get(column), row.where, "the context") + " " if row.has(column) else ""

    def _told(self, row: Row) -> Row:
        """The row that tells the answer: the same, or that of the file of answers with its id."""
        if self._apart is None:
            return row
        word = str(row.get(self.table.column("id")))
        found = self._apart.find(word)
        if found is None and self.config.unanswered == "ask":
            return row
        if found is None:
            raise SkipSample("no_target", f"{row.where}: question {word} has no row in the file of answers")
        return found

    def _answer(self, row: Row) -> Any:
        """What the row gives as answer or answers."""
        named = self.table.column("answer")
        if self.config.unanswered == "ask" and not any(map(row.has, (named, *ANSWER_COLUMNS))):
            return None
        return row.get(next((c for c in (named, *ANSWER_COLUMNS) if c in row.values), named))

    def _word(self, answer: str, choices: list[Any], where: str) -> str:
        """The answer as it is to be said: a label's word, the choice of that number, or as it is written."""
        if self.config.answer_is_choice:
            if not answer.isdecimal() or int(answer) >= len(choices):
                raise SkipSample("no_target", f"{where}: answer {answer!r} is no number among {len(choices)} choices")
            return clean_text(choices[int(answer)], where, "the choice")
        return self.config.labels.get(answer, answer)


def _read(layout: str, columns: list[str], files: Sequence[Path], list_key: str) -> tuple[Rows, str]:
    rows, digest = LAYOUTS[layout](files, list_key)
    return (unfold(rows, columns, digest) if columns else rows), digest


def draw_by_frequency(answers: Sequence[str], rng: random.Random) -> str:
    """One of the different answers, as likely as people gave it; the same draw as the reference makes."""
    weights: dict[str, float] = {}
    for answer in answers:
        weights[answer] = weights.get(answer, 0.0) + 1 / len(answers)
    return rng.choices(list(weights), weights=list(weights.values()))[0]


def answers_of(value: Any, where: str) -> tuple[list[str], list[float]]:
    """(answers, weights) of a text, a list of texts, a list of `{answer: text}`, or a mapping text -> weight."""
    if isinstance(value, Mapping):
        try:
            pairs = [(answer, float(weight)) for answer, weight in value.items()]
        except (TypeError, ValueError):
            raise SkipSample("bad_text", f"{where}: the answers are a mapping whose values are not weights") from None
    else:
        given = value if isinstance(value, list) else [value]
        pairs = [(a.get("answer") if isinstance(a, Mapping) else a, 1.0) for a in given]
    answers = [clean_text(answer, where, "an answer") for answer, _ in pairs]
    weights = [weight for _, weight in pairs]
    if not answers or not all(w >= 0 for w in weights) or sum(weights) <= 0:
        raise SkipSample("no_target", f"{where}: no answer is given")
    return answers, weights


def choices_text(choices: list[Any], where: str) -> str:
    """`A. cat B. dog` of a list of choices."""
    if not 0 < len(choices) <= 26:
        raise SkipSample("bad_text", f"{where}: {len(choices)} choices; there must be 1 to 26")
    return " ".join(f"{chr(ord('A') + i)}. {choice}" for i, choice in enumerate(choices))
