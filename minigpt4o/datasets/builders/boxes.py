"""Builder `boxes`: an expression and the box it means, asked either way (RefCOCO-like rows)."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any, Literal

from minigpt4o.common.errors import SkipSample
from minigpt4o.common.registry import registry
from minigpt4o.conversation.boxes import BoxError, box_text
from minigpt4o.conversation.sample import Box, Media, Sample
from minigpt4o.datasets.base import clean_text, one_round
from minigpt4o.datasets.media import image_size
from minigpt4o.datasets.prompts import Prompts
from minigpt4o.datasets.rows import Row
from minigpt4o.datasets.table import Table

FIELDS = ("id", "image", "expression", "box", "width", "height", "language")
OVERHANG = 0.02  # of the picture's side that a box may reach outside; annotators draw a little over the edge


@registry.register("builder", "boxes")
class Boxes:
    """Referring expressions: `refer` asks where something is, `identify` asks what is in a box."""

    @dataclass
    class Config:
        annotations: dict[str, str]  # split -> file or pattern ({a..b}, {x,y}, *); `all:` + folds carves splits out
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
        image_template: str = ""  # file name of the picture from columns: "COCO_val2014_{image_id:012d}.jpg"
        audio_template: str = ""  # not used: boxes lie in pictures
        rows: str = ""  # where the list of rows lies in a JSON file; "" = at the top, or annotations, data, questions
        prompts: str | list[str] = field(
            default_factory=list
        )  # texts with an {expression} (refer) or {box} (identify) place, or a pool; none = MiniGPT-v2's pool
        keep: list[str] = field(default_factory=list)  # columns to carry into the predictions file
        language: str = ""  # of the texts, if no column says it
        split_field: str = ""  # column that says which split a row belongs to (RefCOCO: split)
        folds: int = 0  # divide the rows into so many folds by a stable hash; 0 = the files are the splits
        val_folds: list[int] = field(default_factory=list)  # folds that are the val split
        test_folds: list[int] = field(default_factory=list)  # folds that are the test split
        fold_by: str = ""  # column that must not be divided between splits; "" = the picture
        max_samples: int = 0  # take only so many, evenly spaced; 0 = all

    def __init__(self, config: Config, *, name: str, split: str) -> None:
        self.config = config
        place = "expression" if config.ask == "refer" else "box"
        self.prompts = Prompts(config.prompts or f"minigpt_v2_{config.ask}", name, (place,))
        self.table = Table(config, name, split, FIELDS)

    def __len__(self) -> int:
        return len(self.table)

    def sample(self, index: int, rng: random.Random) -> Sample:
        """One expression drawn from the row's, its box, and the question that `ask` chose."""
        row = self.table.row(index)
        images = self.table.media(row, "image")
        if len(images) != 1:
            raise SkipSample("media_mismatch", f"{row.where}: a box needs one picture, {len(images)} are named")
        expressions = self._expressions(row)
        said = rng.choice(expressions)
        box = self._box(row, images[0], said)
        try:
            written = box_text(box, self.config.rounding)
        except BoxError as error:
            raise SkipSample("bad_box", f"{row.where}: {error}") from error
        refer = self.config.ask == "refer"
        asked = self.prompts.ask(rng, {"expression": said, "box": written})
        turns = one_round(asked, written if refer else said, images, [], row.where)
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
        return [clean_text(text, row.where, "the expression") for text in texts]

    def _box(self, row: Row, image: Media, label: str) -> Box:
        numbers = _four_numbers(row.get(self.table.column("box")), row.where)
        width, height = self._size(row, image)
        x1, y1, a, b = numbers
        x2, y2 = (x1 + a, y1 + b) if self.config.box_format == "xywh" else (a, b)
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
        if not all(column and row.has(column) for column in columns):
            return image_size(image)
        try:
            return int(row.get(columns[0])), int(row.get(columns[1]))
        except (TypeError, ValueError):
            raise SkipSample("bad_box", f"{row.where}: width and height are not whole numbers") from None


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
