"""Builder `boxes`: an expression and the box it means, asked either way (RefCOCO-like rows)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from minigpt4o.common.errors import SkipSample
from minigpt4o.common.registry import registry
from minigpt4o.conversation.boxes import BoxError, box_text
from minigpt4o.conversation.sample import Box, Media, Sample
from minigpt4o.datasets.layouts import LAYOUTS
from minigpt4o.datasets.media import image_size
from minigpt4o.datasets.prompts import Prompts
from minigpt4o.datasets.rows import Row
from minigpt4o.datasets.table import Table
from minigpt4o.datasets.wording import Wording

FIELDS = ("id", "image", "expression", "box", "width", "height", "language")
OVERHANG = 0.02  # of the picture's side that a box may reach outside; annotators draw a little over the edge


@registry.register("builder", "boxes")
class Boxes:
    """Referring expressions: `refer` asks where something is, `identify` asks what is in a box."""

    @dataclass
    class Config:
        annotations: dict[str, str]  # split -> file or pattern ({a..b}, {x,y}, *); `all:` + folds carves splits out
        layout: Literal["rows", "refer", "visual_genome"] = (
            "rows"  # refer: refs(*).p beside instances.json; visual_genome: region_descriptions.json, image_data.json
        )
        max_area: int = 0  # leave out boxes of so many pixels or more (Visual Genome: 16384); 0 = none
        ask: Literal["refer", "identify"] = "refer"  # refer: expression -> box; identify: box -> expression
        fields: dict[str, str] = field(
            default_factory=lambda: {
                "image": "image",
                "expression": "sents",
                "box": "bbox",
                "width": "width",
                "height": "height",
            }
        )  # id, image, expression (text or list), box, width, height, language -> column; or the file tells its size
        box_format: Literal["xywh", "xyxy"] = "xywh"  # in pixels: corner and size, or two corners
        rounding: Literal["round", "truncate"] = "round"  # pixels to hundredths; truncate as MiniGPT-v2
        media_root: str = ""  # folder that media paths start from
        image_template: str = (
            ""  # file name of the picture from columns: "COCO_{id:012d}.jpg|train/{id}.jpg" (first found)
        )
        audio_template: str = ""  # not used: boxes lie in pictures
        rows: str = ""  # where the list of rows lies in a JSON file; "" = at the top, or annotations, data, questions
        prompts: str | list[str] = field(
            default_factory=list
        )  # texts with an {expression} (refer) or {box} (identify) place, or a pool; none = MiniGPT-v2's pool
        keep: list[str] = field(default_factory=list)  # columns to carry into the predictions file
        language: str = ""  # of the texts, if no column says it
        split_field: str = ""  # column that says which split a row belongs to (RefCOCO: split)
        split_names: dict[str, str] = field(
            default_factory=dict
        )  # split -> what that column says ("*train*"), if not its name
        folds: int = 0  # divide the rows into so many folds by a stable hash; 0 = the files are the splits
        val_folds: list[int] = field(default_factory=list)  # folds that are the val split
        test_folds: list[int] = field(default_factory=list)  # folds that are the test split
        fold_by: str = ""  # column that must not be divided between splits; "" = the picture
        max_samples: int = 0  # take only so many, evenly spaced; 0 = all
        profile: Literal["default", "compat"] = (
            "default"  # compat: texts and draws as MiniGPT-4 makes them, faults included
        )

    def __init__(self, config: Config, *, name: str, split: str) -> None:
        self.config = config
        place = "expression" if config.ask == "refer" else "box"
        self.prompts = Prompts(config.prompts or f"minigpt_v2_{config.ask}", name, (place,))
        self.wording = Wording(config.profile, split)
        self.table = Table(config, name, split, FIELDS, read=self._read)

    def __len__(self) -> int:
        return len(self.table)

    def sample(self, index: int, rng: random.Random) -> Sample:
        """One expression drawn from the row's, its box, and the question that `ask` chose."""
        row = self.table.row(index)
        images = self.table.media(row, "image")
        if len(images) != 1:
            raise SkipSample("media_mismatch", f"{row.where}: a box needs one picture, {len(images)} are named")
        expressions = self._expressions(row)
        single = not isinstance(row.get(self.table.column("expression")), list)
        said = expressions[0] if single and self.wording.compat else rng.choice(expressions)
        box = self._box(row, images[0], said)
        written = self._written(box, row.where)
        refer = self.config.ask == "refer"
        question = self.wording.question(said) if refer else said
        asked = self.wording.filled(self.prompts.draw(rng), {"expression": question, "box": written})
        answer = written if refer else self.wording.answer(said)
        turns = self.wording.turns(asked, answer, images, [], row.where)
        common = self.table.common(index)
        common["meta"] = {"expression": said, "box": written} | common["meta"]
        return Sample(turns=turns, images=images, answers=[written] if refer else expressions, boxes=[box], **common)

    def fingerprint(self) -> str:
        """SHA-256 of the annotation files and of the choice of rows."""
        return self.table.fingerprint()

    def _expressions(self, row: Row) -> list[str]:
        """All expressions of a row: texts, or objects with `raw` or `sent` as in the RefCOCO files."""
        given = row.columns(self.table.column("expression"))
        texts = [e.get("raw", e.get("sent")) if isinstance(e, dict) else e for e in given]
        if not texts:
            raise SkipSample("missing_field", f"{row.where}: no expression")
        return [self.wording.read(text, row.where, "the expression") for text in texts]

    def _read(self, files: Sequence[Path], list_key: str) -> tuple[list[Row], str]:
        """The rows of the layout, without those whose box is too large."""
        rows, digest = LAYOUTS[self.config.layout](files, list_key)
        column, limit = self.config.fields.get("box", "box"), self.config.max_area
        return [row for row in rows if not limit or _area(row.values.get(column)) < limit], digest

    def _written(self, box: Box, where: str) -> str:
        """The box as text. In compat neither rounded nor cut at the picture's border."""
        if self.wording.compat:
            width, height = box.image_size
            return (
                "{" + "".join(f"<{int(v / (height if i % 2 else width) * 100)}>" for i, v in enumerate(box.xyxy)) + "}"
            )
        try:
            return box_text(box, self.config.rounding)
        except BoxError as error:
            raise SkipSample("bad_box", f"{where}: {error}") from error

    def _box(self, row: Row, image: Media, label: str) -> Box:
        numbers = _four_numbers(row.get(self.table.column("box")), row.where)
        width, height = self._size(row, image)
        x1, y1, a, b = numbers
        x2, y2 = (x1 + a, y1 + b) if self.config.box_format == "xywh" else (a, b)
        if self.wording.compat:
            return Box((x1, y1, x2, y2), (width, height), label)
        slack_x, slack_y = OVERHANG * width, OVERHANG * height
        if not (x1 < x2 and y1 < y2):
            raise SkipSample("bad_box", f"{row.where}: box {numbers} has no area as {self.config.box_format}")
        if x1 < -slack_x or y1 < -slack_y or x2 > width + slack_x or y2 > height + slack_y:
            raise SkipSample(
                "bad_box",
                f"{row.where}: box {numbers} ({self.config.box_format}) reaches out of its {width}x{height} picture",
            )
        return Box((x1, y1, x2, y2), (width, height), label)

    def _size(self, row: Row, image: Media) -> tuple[int, int]:
        columns = [self.config.fields.get(side, "") for side in ("width", "height")]
        if self.wording.compat or not all(column and row.has(column) for column in columns):
            return image_size(image)
        try:
            return int(row.get(columns[0])), int(row.get(columns[1]))
        except (TypeError, ValueError):
            raise SkipSample("bad_box", f"{row.where}: width and height are not whole numbers") from None


def _area(box: Any) -> float:
    """Pixels of an [x, y, w, h] box; 0 of what is none, which is told when its turn comes."""
    try:
        return float(box[2]) * float(box[3])
    except (TypeError, ValueError, IndexError, KeyError):
        return 0.0


def _four_numbers(value: Any, where: str) -> tuple[float, float, float, float]:
    """A list of four numbers, or a text of them with blanks or commas between (tables)."""
    parts = value.strip("[]() ").replace(",", " ").split() if isinstance(value, str) else value
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4 or not all(math.isfinite(n) for n in numbers):
        raise SkipSample("bad_box", f"{where}: {value!r} is not four numbers")
    return (numbers[0], numbers[1], numbers[2], numbers[3])
