"""Builder `pairs`: rows of json, jsonl, csv or tsv that name a picture and/or a sound and say a text about it."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Sample
from minigpt4o.datasets.base import clean_text, fill, one_round
from minigpt4o.datasets.prompts import Prompts
from minigpt4o.datasets.rows import Row
from minigpt4o.datasets.table import Table

FIELDS = ("id", "image", "audio", "text", "language")


@registry.register("builder", "pairs")
class Pairs:
    """Media and a text about them: captions, transcripts, labels in a table; text alone if no media are named."""

    @dataclass
    class Config:
        annotations: dict[str, str]  # split -> file or pattern ({a..b}, {x,y}, *); `all:` + folds carves splits out
        fields: dict[str, str] = field(
            default_factory=lambda: {"image": "image", "text": "caption"}
        )  # id, image, audio, text, language -> column; `a.b.0` goes into objects, `c1, c2` or `c_*` names several
        media_root: str = ""  # folder that media paths start from
        image_template: str = ""  # file name of the picture from columns: "COCO_val2014_{image_id:012d}.jpg"
        audio_template: str = ""  # the same for the sound
        rows: str = ""  # where the list of rows lies in a JSON file; "" = at the top, or annotations, data, questions
        prompts: str | list[str] = field(
            default_factory=list
        )  # what is asked: texts with {column} places, or the name of a pool; none = the text alone
        group_by: str = ""  # column: rows that share it become one sample with all their texts (for scoring captions)
        keep: list[str] = field(default_factory=list)  # columns to carry into the predictions file
        language: str = ""  # of the texts, if no column says it
        split_field: str = ""  # column that says which split a row belongs to (COCO Karpathy: split)
        folds: int = 0  # divide the rows into so many folds by a stable hash; 0 = the files are the splits
        val_folds: list[int] = field(default_factory=list)  # folds that are the val split
        test_folds: list[int] = field(default_factory=list)  # folds that are the test split
        fold_by: str = ""  # column that must not be divided between splits; "" = the picture or sound
        max_samples: int = 0  # take only so many, evenly spaced; 0 = all

    def __init__(self, config: Config, *, name: str, split: str) -> None:
        self.config = config
        self.prompts = Prompts(config.prompts, name)
        self.table = Table(config, name, split, FIELDS, self._grouped if config.group_by else None)

    def __len__(self) -> int:
        return len(self.table)

    def sample(self, index: int, rng: random.Random) -> Sample:
        """One text about the media; of several texts one is drawn to be learned and all are accepted answers."""
        row = self.table.row(index)
        images, audios = self.table.media(row, "image"), self.table.media(row, "audio")
        column = self.table.column("text")
        texts = [clean_text(t, r.where, "the text") for r in self.table.groups[index] for t in r.columns(column)]
        learned = clean_text(rng.choice(texts) if texts else None, row.where, f"the text ({column})")
        prompt = self.prompts.draw(rng)
        places = {word: clean_text(row.get(word), row.where, word) for word in re.findall(r"\{(\w+)\}", prompt)}
        turns = one_round(fill(prompt, places), learned, images, audios, row.where)
        return Sample(turns=turns, images=images, audios=audios, answers=texts, **self.table.common(index))

    def fingerprint(self) -> str:
        """SHA-256 of the annotation files and of the choice of rows."""
        return self.table.fingerprint()

    def _grouped(self, rows: list[Row]) -> list[list[Row]]:
        """Rows that share the `group_by` column, in order of first appearance; a broken row stands alone."""
        groups: dict[str, list[Row]] = {}
        for row in rows:
            alone = row.problem or not row.has(self.config.group_by)
            groups.setdefault(row.where if alone else str(row.get(self.config.group_by)), []).append(row)
        return list(groups.values())
