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
from minigpt4o.datasets.rows import Row, read_rows, unfold
from minigpt4o.datasets.splits import split_files_of
from minigpt4o.datasets.table import Table
from minigpt4o.datasets.wording import Wording

FIELDS = ("id", "image", "audio", "question", "answer", "choices", "language")
QUESTION_PLACES = ("question", "statement", "text")  # three words for the same in a prompt
ANSWER_COLUMNS = ("answers", "multiple_choice_answer", "direct_answers")  # tried if the named column is absent


@registry.register("builder", "questions")
class Questions:
    """Questions about a picture or a sound with one or many accepted answers."""

    @dataclass
    class Config:
        annotations: dict[str, str]  # split -> file or pattern ({a..b}, {x,y}, *); `all:` + folds carves splits out
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
        )  # id, image, audio, question, answer, choices, language -> column; `a.b.0` goes into objects
        each: list[str] = field(
            default_factory=list
        )  # columns of lists side by side: a sample for each place (OCR-VQA)
        labels: dict[str, str] = field(default_factory=dict)  # answer as written -> the word to learn ("1": yes)
        answer_is_choice: bool = False  # the answer is the number of the right one among choices, from 0
        media_root: str = ""  # folder that media paths start from
        image_template: str = (
            ""  # file name of the picture from columns: "COCO_{id:012d}.jpg|train/{id}.jpg" (first found)
        )
        audio_template: str = ""  # the same for the sound
        rows: str = ""  # where the list of rows lies in a JSON file; "" = at the top, or annotations, data, questions
        prompts: str | list[str] = field(
            default_factory=list
        )  # texts with a {question} place (and {choices}), or the name of a pool; none = the question alone
        keep: list[str] = field(
            default_factory=lambda: ["question_type", "answer_type"]
        )  # columns that go into the predictions file, where a row has them
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
        self.prompts = Prompts(config.prompts, name, (*QUESTION_PLACES, "choices"))
        self.wording = Wording(config.profile, split)
        self.table = Table(config, name, split, FIELDS, read=partial(_read, config.each) if config.each else read_rows)
        self._apart: dict[str, Row] | None = None  # id -> row of the file of answers
        self._apart_digest = ""
        if config.answers:
            files = [path for _, path in split_files_of(config.answers, config, split, name)]
            rows, self._apart_digest = read_rows(files)
            column = self.table.column("id")
            self._apart = {str(row.get(column)): row for row in rows if row.has(column)}

    def __len__(self) -> int:
        return len(self.table)

    def sample(self, index: int, rng: random.Random) -> Sample:
        """The question, and an answer drawn as often as people gave it; every given answer is kept, repeats too."""
        row = self.table.row(index)
        images, audios = self.table.media(row, "image"), self.table.media(row, "audio")
        question = self.wording.read(row.get(self.table.column("question")), row.where, "the question")
        question = self.wording.question(question)
        given = self._answer(row)
        answers, weights = answers_of(given, row.where)
        choices = row.columns(self.config.fields["choices"]) if "choices" in self.config.fields else []
        answers = [self._word(answer, choices, row.where) for answer in answers]
        places = dict.fromkeys(QUESTION_PLACES, question)
        if choices:
            places["choices"] = choices_text(choices, row.where)
        if self.wording.compat:  # the reference draws the answer first, and only from a list
            answer = draw_by_frequency(answers, rng) if isinstance(given, list) else answers[0]
            asked = self.wording.filled(self.prompts.draw(rng), places)
        else:
            asked = self.wording.filled(self.prompts.draw(rng), places)
            answer = rng.choices(answers, weights)[0]
        turns = self.wording.turns(asked, self.wording.answer(answer), images, audios, row.where)
        common = self.table.common(index)
        common["meta"] = {"question": question} | ({"choices": choices} if choices else {}) | common["meta"]
        return Sample(turns=turns, images=images, audios=audios, answers=answers, **common)

    def fingerprint(self) -> str:
        """SHA-256 of the annotation files and of the choice of rows."""
        return sha256(self.table.fingerprint(), self._apart_digest)

    def _answer(self, row: Row) -> Any:
        """What the row, or the row of answers with its id, gives as answer or answers."""
        if self._apart is not None:
            word = str(row.get(self.table.column("id")))
            if word not in self._apart:
                raise SkipSample("no_target", f"{row.where}: question {word} has no row in the file of answers")
            row = self._apart[word]
        named = self.table.column("answer")
        return row.get(next((c for c in (named, *ANSWER_COLUMNS) if c in row.values), named))

    def _word(self, answer: str, choices: list[Any], where: str) -> str:
        """The answer as it is to be said: a label's word, the choice of that number, or as it is written."""
        if self.config.answer_is_choice:
            if not answer.isdecimal() or int(answer) >= len(choices):
                raise SkipSample("no_target", f"{where}: answer {answer!r} is no number among {len(choices)} choices")
            return clean_text(choices[int(answer)], where, "the choice")
        return self.config.labels.get(answer, answer)


def _read(columns: list[str], files: Sequence[Path], list_key: str) -> tuple[list[Row], str]:
    rows, digest = read_rows(files, list_key)
    return unfold(rows, columns), digest


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
