"""Builder `boxes`: an expression and the box or boxes it means, asked either way (RefCOCO-like rows)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from minigpt4o.common.errors import SkipSample
from minigpt4o.common.registry import registry
from minigpt4o.conversation.boxes import BoxError, box_text
from minigpt4o.conversation.marks import escape_boxes
from minigpt4o.conversation.phrases import DELIMITER
from minigpt4o.conversation.sample import BOX_MARK, Box, Media, Sample
from minigpt4o.datasets.media import image_size
from minigpt4o.datasets.objects import file_turn, four_numbers, placed, turned
from minigpt4o.datasets.prompts import Prompts
from minigpt4o.datasets.tables.layouts import LAYOUTS
from minigpt4o.datasets.tables.rows import Row, Rows
from minigpt4o.datasets.tables.store import where
from minigpt4o.datasets.tables.table import Table
from minigpt4o.datasets.wording import Wording

FIELDS = ("id", "image", "expression", "box", "width", "height", "language")


@registry.register("builder", "boxes")
class Boxes:
    """Referring expressions: `refer` asks where something is, `identify` asks what is in a box.

    A box column that holds a list of boxes gives them all, parted by the delimiter. By default the turns hold a mark
    for each box, which is written when the sample is encoded, in the frame that the model sees.
    """

    @dataclass
    class Config:
        annotations: dict[str, str]  # split -> file or pattern ({a..b}, {x,y}, *); `all:` + folds carves splits out
        layout: Literal["rows", "coco", "refer", "visual_genome"] = (
            "rows"  # coco: instances.json; refer: refs(*).p beside it; visual_genome: region_descriptions.json, ...
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
        box_frame: Literal["upright", "raw"] = (
            "upright"  # the picture as it is seen, or as its file stores it before its EXIF orientation turns it
        )
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
        boxes = self._boxes(row, images[0], said)
        written = DELIMITER.join(self._written(box, row.where) for box in boxes)
        shown = written if self.wording.compat else DELIMITER.join([BOX_MARK] * len(boxes))
        refer = self.config.ask == "refer"
        question = self.wording.question(said) if refer else said
        asked = self._asked(self.prompts.draw(rng), question, shown)
        answer = shown if refer else escape_boxes(self.wording.answer(said))
        turns = self.wording.turns(asked, answer, images, [], row.where, boxed=True)
        common = self.table.common(index)
        common["meta"] = {"expression": said, "box": written} | common["meta"]
        return Sample(
            turns=turns,
            images=images,
            answers=[written] if refer else expressions,
            boxes=boxes,
            rounding="truncate" if self.wording.compat else self.config.rounding,
            **common,
        )

    def _asked(self, prompt: str, expression: str, box: str) -> str:
        """The prompt with its place filled: data cannot bring marks, but where the box goes there is one."""
        if self.wording.compat:
            return self.wording.filled(prompt, {"expression": expression, "box": box})
        return self.wording.filled(prompt.replace("{box}", box), {"expression": expression})

    def size_hint(self, index: int) -> int:
        """Bytes of the row of a sample; it grows with the length of its texts."""
        return self.table.size_hint(index)

    def modality(self, index: int) -> str:
        """Always `image`: boxes lie in pictures."""
        return "image"

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

    def _read(self, files: Sequence[Path], list_key: str) -> tuple[Rows, str]:
        """The rows of the layout, without those whose box is too large."""
        rows, digest = LAYOUTS[self.config.layout](files, list_key)
        column, limit = self.config.fields.get("box", "box"), self.config.max_area
        if not limit:
            return rows, digest
        small = where(rows, digest, lambda row: _area(row.values.get(column)) < limit, f"{column} below {limit}")
        return small, digest

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

    def _boxes(self, row: Row, image: Media, label: str) -> list[Box]:
        value = row.get(self.table.column("box"))
        several = isinstance(value, list) and bool(value) and all(isinstance(one, list | tuple) for one in value)
        return [self._box(one, row, image, label) for one in (value if several else [value])]

    def _box(self, value: Any, row: Row, image: Media, label: str) -> Box:
        numbers, form = four_numbers(value, row.where), self.config.box_format
        if self.wording.compat:
            x1, y1, a, b = numbers
            return Box((x1, y1, x1 + a, y1 + b) if form == "xywh" else numbers, image_size(image), label)
        size = self._stated_size(row)
        if self.config.box_frame == "raw":
            turn = file_turn(image)
            return turned(placed(numbers, size or turn.source, row.where, form, label), turn)
        return placed(numbers, size or image_size(image), row.where, form, label)

    def _stated_size(self, row: Row) -> tuple[int, int] | None:
        """What the row says of its picture's size; None if it does not."""
        columns = [self.config.fields.get(side, "") for side in ("width", "height")]
        if not all(column and row.has(column) for column in columns):
            return None
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
