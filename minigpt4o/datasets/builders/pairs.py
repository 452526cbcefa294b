"""Builder `pairs`: rows of json, jsonl, csv or tsv that name a picture and/or a sound and say a text about it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Sample
from minigpt4o.datasets.base import PLACE, clean_text, fill
from minigpt4o.datasets.prompts import Prompts
from minigpt4o.datasets.tables.layouts import LAYOUTS
from minigpt4o.datasets.tables.rows import Row
from minigpt4o.datasets.tables.table import Table
from minigpt4o.datasets.wording import Wording

FIELDS = ("id", "image", "audio", "text", "language")


@registry.register("builder", "pairs")
class Pairs:
    """Media and a text about them: captions, transcripts, labels in a table; text alone if no media are named."""

    @dataclass
    class Config:
        annotations: dict[str, str]  # split -> file or pattern ({a..b}, {x,y}, *); `all:` + folds carves splits out
        layout: Literal["rows", "coco", "located", "transcripts"] = (
            "rows"  # coco: annotations joined with `images`; located: rows with the name of their `table`; ID TEXT
        )
        fields: dict[str, str] = field(
            default_factory=lambda: {"image": "image", "text": "caption"}
        )  # id, image, audio, text, language -> column; `a.b.0` goes into objects, `c1, c2` or `c_*` names several
        text_template: str = ""  # the text made of columns, in place of `text`: "<p>{phrase}</p> {bbox}"
        media_root: str = ""  # folder that media paths start from
        image_template: str = (
            ""  # file name of the picture from columns: "COCO_{id:012d}.jpg|train/{id}.jpg" (first found)
        )
        audio_template: str = ""  # the same for the sound
        rows: str = ""  # where the list of rows lies in a JSON file; "" = at the top, or annotations, data, questions
        prompts: str | list[str] = field(
            default_factory=list
        )  # what is asked: texts with {column} places ({column?}: if there is one), or a pool; none = the text alone
        group_by: str = ""  # column: rows that share it become one sample with all their texts (for scoring captions)
        keep: list[str] = field(default_factory=list)  # columns to carry into the predictions file
        language: str = ""  # of the texts, if no column says it
        split_field: str = ""  # column that says which split a row belongs to (COCO Karpathy: split)
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
        self.prompts = Prompts(config.prompts, name)
        self.wording = Wording(config.profile, split)
        together = self._together if config.group_by else None
        self.table = Table(config, name, split, FIELDS, together, LAYOUTS[config.layout])

    def __len__(self) -> int:
        return len(self.table)

    def sample(self, index: int, rng: random.Random) -> Sample:
        """One text about the media; of several texts one is drawn to be learned and all are accepted answers."""
        row = self.table.row(index)
        images, audios = self.table.media(row, "image"), self.table.media(row, "audio")
        texts = [text for r in self.table.groups[index] for text in self._texts(r)]
        learned = self.wording.draw(rng, texts)
        prompt = self.prompts.draw(rng)
        asked = self.wording.question(self.wording.filled(prompt, self._places(row, prompt)))
        turns = self.wording.turns(asked, self.wording.answer(learned), images, audios, row.where)
        return Sample(turns=turns, images=images, audios=audios, answers=texts, **self.table.common(index))

    def size_hint(self, index: int) -> int:
        """Bytes of the rows of a sample; it grows with the length of its texts."""
        return self.table.size_hint(index)

    def modality(self, index: int) -> str:
        """`image`, `audio`, `image+audio` or `text`."""
        return self.table.modality(index)

    def fingerprint(self) -> str:
        """SHA-256 of the annotation files and of the choice of rows."""
        return self.table.fingerprint()

    def _texts(self, row: Row) -> list[str]:
        """All texts of a row, or the one that the template makes of it. Raises SkipSample if there is none."""
        template, column = self.config.text_template, self.table.column("text")
        if template:
            return [fill(template, self._places(row, template))]
        texts = [self.wording.read(text, row.where, "the text") for text in row.columns(column)]
        return texts or [clean_text(None, row.where, f"the text ({column})")]

    def _places(self, row: Row, prompt: str) -> dict[str, str]:
        """The columns that the prompt names; `{column?}` may be absent."""
        found = {}
        for word in PLACE.findall(prompt):
            column = word.removesuffix("?")
            absent = word.endswith("?") and not row.has(column)
            found[word] = "" if absent else self.wording.read(row.get(column), row.where, column)
        return found

    def _together(self, row: Row) -> str:
        """Rows that share the `group_by` column become one sample; a broken row stands alone."""
        alone = row.problem or not row.has(self.config.group_by)
        return row.where if alone else str(row.get(self.config.group_by))
