"""Builder `questions`: a question about media and its accepted answers (LAVIS and VQA v2 files, audio questions)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from minigpt4o.common.errors import SkipSample
from minigpt4o.common.registry import registry
from minigpt4o.conversation.marks import escape_marks
from minigpt4o.conversation.sample import Sample
from minigpt4o.datasets.base import clean_text, one_round, sha256
from minigpt4o.datasets.prompts import Prompts
from minigpt4o.datasets.rows import Row, read_rows
from minigpt4o.datasets.splits import split_files_of
from minigpt4o.datasets.table import Table

FIELDS = ("id", "image", "audio", "question", "answer", "choices", "language")
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
        media_root: str = ""  # folder that media paths start from
        image_template: str = ""  # file name of the picture from columns: "COCO_val2014_{image_id:012d}.jpg"
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
        folds: int = 0  # divide the rows into so many folds by a stable hash; 0 = the files are the splits
        val_folds: list[int] = field(default_factory=list)  # folds that are the val split
        test_folds: list[int] = field(default_factory=list)  # folds that are the test split
        fold_by: str = ""  # column that must not be divided between splits; "" = the picture or sound
        max_samples: int = 0  # take only so many, evenly spaced; 0 = all

    def __init__(self, config: Config, *, name: str, split: str) -> None:
        self.config = config
        self.prompts = Prompts(config.prompts, name, ("question", "choices"))
        self.table = Table(config, name, split, FIELDS)
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
        question = clean_text(row.get(self.table.column("question")), row.where, "the question")
        answers, weights = answers_of(self._answer(row), row.where)
        places = {"question": question}
        if "choices" in self.config.fields:
            places["choices"] = choices_text(row.columns(self.config.fields["choices"]), row.where)
        asked = self.prompts.ask(rng, places) if self.prompts.prompts else escape_marks(question)
        turns = one_round(asked, rng.choices(answers, weights)[0], images, audios, row.where)
        common = self.table.common(index)
        common["meta"] = {"question": question} | common["meta"]
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
